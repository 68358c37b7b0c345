"""What must lie on this machine before a trial trains: looked at in an order that leaves nothing behind in vain."""

from __future__ import annotations

from pathlib import Path

import pytest

from petskin_tune.datasets import demo
from petskin_tune.errors import UsageError
from petskin_tune.home.home import Home, resolve_home
from petskin_tune.study.space.parameters import make_choices, make_range
from petskin_tune.study.spec import StudySpec
from petskin_tune.trial import inputs as preparation
from tests.support.training import SMALL

PUBLISHED = "yolov8n-seg.pt"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return resolve_home(str(tmp_path / "home"), None, None, {"XDG_CACHE_HOME": str(tmp_path / "cache")}, study="s")


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []

    def fetch(name: str, folder: Path) -> Path:
        names.append(name)
        return folder / name

    monkeypatch.setattr(preparation, "fetch_weights", fetch)
    return names


def spec(tmp_path: Path, model: str) -> StudySpec:
    return StudySpec(study="s", model=model, data=str(tmp_path / "images" / "data.yaml"), epochs=3)


def test_no_weights_are_fetched_for_a_data_set_that_is_refused(home: Home, tmp_path: Path, fetched: list[str]) -> None:
    wanted = spec(tmp_path, PUBLISHED)
    with pytest.raises(UsageError, match="is missing"):
        preparation.prepare(wanted, home, [tmp_path])
    assert fetched == []

    demo.make(tmp_path / "images", train=4, val=2, imgsz=32)
    prepared = preparation.prepare(wanted, home, [tmp_path])
    assert fetched == [PUBLISHED]
    assert prepared.model == str(home.folder / "weights" / PUBLISHED)


@pytest.mark.parametrize("model", ["nowhere.pt", "junk.pt"])
def test_a_model_that_cannot_be_one_is_refused_before_the_data_are_unpacked(
    model: str, home: Home, tmp_path: Path
) -> None:
    (tmp_path / "junk.pt").write_bytes(b"junk of 11B")
    with pytest.raises(UsageError, match=model):
        preparation.prepare(spec(tmp_path, model), home, [tmp_path])
    assert not home.folder.exists()


def test_labels_that_end_every_training_are_refused(home: Home, tmp_path: Path) -> None:
    data = demo.make(tmp_path / "images", train=4, val=2, imgsz=32)
    label = data.parent / "labels" / "val" / "val_00001.txt"
    label.write_text("0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(UsageError, match=f"{label}, line 1: a box without an outline"):
        preparation.prepare(spec(tmp_path, "yolov8n-seg.yaml"), home, [tmp_path])


FREEZES = {
    "fixed": {"train": {"freeze": 6}},
    "a range": {"search": {"freeze": make_range("freeze", 6, 30)}},
    "choices": {"search": {"freeze": make_choices("freeze", [6, 30])}},
}


@pytest.mark.parametrize("how", FREEZES)
def test_a_study_in_which_no_trial_can_train_is_refused(how: str, home: Home, tmp_path: Path) -> None:
    wanted = spec(tmp_path, str(SMALL)).model_copy(update=FREEZES[how])
    with pytest.raises(UsageError, match="`freeze` 6 leaves none of the 6 layers"):
        preparation.prepare_model(wanted, home, [tmp_path])


def test_a_study_that_freezes_every_layer_by_number_or_of_ultralytics_own_model_is_refused(
    home: Home, tmp_path: Path
) -> None:
    wanted = spec(tmp_path, str(SMALL)).model_copy(update={"train": {"freeze": [0, 1, 2, 3, 4, 5]}})
    with pytest.raises(UsageError, match="names all layers of"):
        preparation.prepare_model(wanted, home, [tmp_path])
    own = spec(tmp_path, "yolov8n-seg.yaml").model_copy(update={"train": {"freeze": 30}})
    with pytest.raises(UsageError, match="`freeze` 30 leaves none of the 23 layers"):
        preparation.prepare_model(own, home, [tmp_path])
    some = spec(tmp_path, "yolov8n-seg.yaml").model_copy(update={"train": {"freeze": [0, 1, 2]}})
    assert preparation.prepare_model(some, home, [tmp_path]) == "yolov8n-seg.yaml"


@pytest.mark.parametrize("model", ["yoloe-11n-seg.yaml", "yoloe-v8n-seg.yaml"])
def test_a_model_that_is_trained_with_text_is_refused(model: str, home: Home, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="its task is `open-vocabulary`"):
        preparation.prepare_model(spec(tmp_path, model), home, [tmp_path])
    with pytest.raises(UsageError) as refused:
        preparation.prepare_model(spec(tmp_path, model.replace(".yaml", ".pt")), home, [tmp_path])
    assert "from scratch" not in str(refused.value)


def test_a_study_in_which_some_trials_can_train_is_not(home: Home, tmp_path: Path) -> None:
    for freeze in ({"train": {"freeze": 5}}, {"search": {"freeze": make_choices("freeze", [0, 30])}}):
        wanted = spec(tmp_path, str(SMALL)).model_copy(update=freeze)
        assert preparation.prepare_model(wanted, home, [tmp_path]) == str(SMALL)


def test_a_model_of_another_task_is_refused_before_the_data_are_looked_at(home: Home, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(SMALL.read_text().replace("Segment, [nc, 8, 16]", "Detect, [nc]"))
    for prepare in (preparation.prepare, preparation.prepare_model):
        with pytest.raises(UsageError, match="no segmentation model, its task is `detect`"):
            prepare(spec(tmp_path, "mine.yaml"), home, [tmp_path])


def test_data_that_change_while_a_worker_is_at_work_are_refused_before_the_next_trial(
    home: Home, tmp_path: Path
) -> None:
    demo.make(tmp_path / "images", train=4, val=2, imgsz=32)
    prepared = preparation.prepare_data(spec(tmp_path, PUBLISHED), home, [tmp_path], PUBLISHED)
    preparation.require_unchanged(prepared, home)
    label = next((tmp_path / "images" / "labels" / "train").iterdir())
    label.write_text("0 0.1 0.1 0.5 0.1 0.5 0.5\n")
    with pytest.raises(UsageError, match="has changed since this worker began: train has other labels"):
        preparation.require_unchanged(prepared, home)
