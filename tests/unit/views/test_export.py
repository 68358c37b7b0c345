from __future__ import annotations

import contextlib
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from petskin_tune.errors import UsageError
from petskin_tune.study import attributes
from petskin_tune.study.spec import Subset
from petskin_tune.training.snapshots.weights import checkpoint, write
from petskin_tune.views.export import pick, render, training_arguments, write_weights, write_yaml
from tests.support.studies import a_spec, a_study, add

WEIGHTS = "uid/trial-000000/best-7-" + "ab" * 8 + ".pt"


def test_the_yaml_holds_the_fixed_the_drawn_and_the_default_arguments(tmp_path: Path) -> None:
    study = a_study(a_spec(subset=Subset(train=4000, val=800), seed=3))
    add(study, "COMPLETE", 0.10, lr0=0.1)
    add(study, "COMPLETE", 0.13, lr0=9.8e-5)
    write_yaml(study, tmp_path / "best.yaml")
    text = (tmp_path / "best.yaml").read_text()
    written = yaml.safe_load(text)
    assert written["lr0"] == 9.8e-5
    assert written["optimizer"] == "AdamW"
    assert (written["imgsz"], written["batch"], written["epochs"], written["seed"]) == (480, 16, 27, 3)
    assert (written["task"], written["mode"]) == ("segment", "train")
    assert (written["model"], written["data"]) == ("yolov8l-seg.pt", "datasets/petskin/data.yaml")
    assert written["box"] == 7.5  # a default
    assert "# trial 1 of study petskin: mask mAP50-95 0.130" in text
    assert "# Type: yolo train cfg=best.yaml" in text
    assert "4000 training images" in text


def test_nothing_of_the_machine_or_the_run_folder_gets_into_the_yaml(tmp_path: Path) -> None:
    study = a_study(a_spec())
    in_force = {
        "device": "0",
        "project": "/root/runs",
        "name": "trial-7",
        "save_dir": "/root/runs/trial-7",
        "data": "/root/.cache/subset.yaml",
        "model": "/root/weights/yolov8l-seg.pt",
        "workers": 2,
        "resume": True,
        "batch": 8,
        "imgsz": 480,
    }
    add(study, "COMPLETE", 0.1, **{attributes.ARGUMENTS: in_force})
    written = training_arguments(study, pick(study))
    assert not {"device", "project", "name", "save_dir", "workers", "resume", "exist_ok"} & set(written)
    assert "/root" not in str(written)
    assert written["batch"] == 8  # in force, not asked for


def test_a_caller_that_has_resolved_model_and_data_says_so() -> None:
    study = a_study(a_spec())
    add(study, "COMPLETE", 0.1)
    written = training_arguments(study, pick(study), model="/m/small.yaml", data="/d/data.yaml")
    assert (written["model"], written["data"]) == ("/m/small.yaml", "/d/data.yaml")


def test_a_trial_can_be_asked_for_by_its_number(tmp_path: Path) -> None:
    study = a_study(a_spec())
    add(study, "PRUNED", lr0=0.02)
    add(study, "COMPLETE", 0.1)
    write_yaml(study, tmp_path / "one.yaml", number=0)
    assert yaml.safe_load((tmp_path / "one.yaml").read_text())["lr0"] == 0.02


def test_without_a_finished_trial_the_user_is_told_where_to_look() -> None:
    study = a_study(a_spec())
    add(study, "RUNNING")
    with pytest.raises(UsageError, match=r"no finished trial yet; .* petskin-tune status --study petskin"):
        pick(study)
    with pytest.raises(UsageError, match=r"petskin-tune status --study petskin --home there$"):
        pick(study, options="--home there")
    with pytest.raises(UsageError, match="has no trial 9"):
        pick(study, 9)


def test_a_study_of_others_has_no_known_fixed_arguments() -> None:
    study = a_study()
    add(study, "COMPLETE", 0.1, ours=False)
    with pytest.raises(UsageError, match="was not made by petskin-tune"):
        training_arguments(study, pick(study))


def test_weights_come_from_the_store_under_the_key_that_the_trial_names(tmp_path: Path) -> None:
    study = a_study(a_spec())
    add(study, "COMPLETE", 0.1, **{attributes.WEIGHTS: WEIGHTS})
    asked = []

    def fetch(key: str, dest: Path) -> None:
        asked.append(key)
        torch.save({"epoch": 7}, dest)

    assert write_weights(study, tmp_path / "best.pt", fetch).number == 0
    assert asked == [WEIGHTS]
    assert list(tmp_path.iterdir()) == [tmp_path / "best.pt"]
    assert torch.load(tmp_path / "best.pt") == {"epoch": 7}


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("plain", [True, False])
def test_a_file_with_code_in_the_place_of_the_weights_is_not_handed_out_and_not_executed(
    plain: bool, tmp_path: Path
) -> None:
    """Whoever may write to database and store can give it the name that the trial has."""
    study = a_study(a_spec())
    add(study, "COMPLETE", 0.1, **{attributes.WEIGHTS: WEIGHTS})
    (tmp_path / "best.pt").write_text("of before")
    evil = Evil(tmp_path / "executed")

    def fetch(_: str, dest: Path) -> None:
        dest.write_bytes(pickle.dumps(evil)) if plain else torch.save({"model": evil}, dest)

    with pytest.raises(UsageError, match=r"weights of trial 0 in the store are not those of a training here"):
        write_weights(study, tmp_path / "best.pt", fetch)
    assert (tmp_path / "best.pt").read_text() == "of before"
    assert list(tmp_path.iterdir()) == [tmp_path / "best.pt"]


def of_a_module(mark: Path) -> bytes:
    """What the restricted loading takes, and is `os.system` all the same: `os` is imported in torch.serialization."""
    return b"\x80\x02c__builtin__\ngetattr\n(ctorch.serialization\nos\nX\x06\x00\x00\x00systemtR(X%s%stR." % (
        len(f"touch {mark}").to_bytes(4, "little"),
        f"touch {mark}".encode(),
    )


def of_bytes(mark: Path) -> bytes:
    """Torch's function that loads whatever it is given."""
    inner = io.BytesIO()
    torch.save(Evil(mark), inner)
    content = inner.getvalue()
    return b"\x80\x02ctorch.storage\n_load_from_bytes\n(B%s%stR." % (len(content).to_bytes(4, "little"), content)


def of_a_model(mark: Path) -> bytes:
    """A class of layers that is made of arguments."""
    return b"\x80\x02cultralytics.nn.tasks\nSegmentationModel\n(X\x04\x00\x00\x00a.pttR."


def saved(dest: Path, *pickles: tuple[str, bytes]) -> None:
    with zipfile.ZipFile(dest, "w") as archive:
        for name, content in (*pickles, ("archive/version", b"3\n")):
            archive.writestr(name, content)


@pytest.mark.parametrize("made", [of_a_module, of_bytes, of_a_model])
@pytest.mark.parametrize("hidden", [False, True])
def test_code_in_what_the_restricted_loading_takes_is_not_handed_out(
    hidden: bool, made: Callable[[Path], bytes], tmp_path: Path
) -> None:
    """``hidden``: beside a harmless file, in the one that torch reads."""
    study = a_study(a_spec())
    add(study, "COMPLETE", 0.1, **{attributes.WEIGHTS: WEIGHTS})
    mark = tmp_path / "executed"
    harmless = [("archive/x/data.pkl", b"\x80\x02}.")] if hidden else []

    def fetch(_: str, dest: Path) -> None:
        saved(dest, *harmless, ("archive/data.pkl", made(mark)))
        if made is not of_a_model:
            with contextlib.suppress(Exception):
                torch.load(dest, weights_only=False)
            assert mark.exists(), "it holds no code"
            mark.unlink()

    with pytest.raises(UsageError, match=r"weights of trial 0 in the store are not those of a training here"):
        write_weights(study, tmp_path / "best.pt", fetch)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("architecture", ["yolov8n-seg", "yolov8n-seg-p6", "yolov9c-seg", "yolo11n-seg", "yolo26n-seg"])
def test_weights_of_every_family_are_handed_out(architecture: str, tmp_path: Path) -> None:
    from ultralytics.nn.tasks import SegmentationModel

    study = a_study(a_spec())
    add(study, "COMPLETE", 0.1, **{attributes.WEIGHTS: WEIGHTS})
    model = SegmentationModel(f"{architecture}.yaml", verbose=False)
    content = checkpoint(model, {"lr0": 0.01, "data": "pets.yaml"}, {"fitness": 0.1}, 3)
    write_weights(study, tmp_path / "best.pt", lambda _, dest: write(content, dest))
    assert (tmp_path / "best.pt").stat().st_size > 1_000_000


def test_weights_that_are_not_kept_are_refused_with_those_that_are_and_the_way_on(tmp_path: Path) -> None:
    study = a_study(a_spec())
    add(study, "COMPLETE", 0.1)
    add(study, "COMPLETE", 0.2, **{attributes.WEIGHTS: WEIGHTS})
    with pytest.raises(UsageError, match=r"trial 0 are not kept \(kept are those of trial 1\).*petskin-tune train"):
        write_weights(study, tmp_path / "best.pt", lambda key, dest: None, number=0)


def test_the_best_trial_is_shown_with_its_metrics_and_what_to_type() -> None:
    study = a_study(a_spec())
    metrics = {"metrics/mAP50(M)": 0.33, "train/seg_loss": 1.0}
    add(study, "COMPLETE", 0.13, **{attributes.METRICS: metrics, attributes.BEST_EPOCH: 24})
    text = render(study, options="--home runs")
    assert text.startswith("trial 0 of study petskin: mask mAP50-95 0.130 after epoch 24")
    assert "metrics/mAP50(M)  0.3300" in text
    assert "train/seg_loss" not in text
    assert "petskin-tune best --study petskin --home runs --yaml best.yaml && yolo train cfg=best.yaml" in text


def test_a_place_that_cannot_be_written_to_is_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    study = a_study(a_spec())
    add(study, "COMPLETE", 0.1, **{attributes.WEIGHTS: WEIGHTS})
    fetched: list[str] = []
    with pytest.raises(UsageError, match=r"best\.yaml cannot be written: there is no folder .*nowhere"):
        write_yaml(study, tmp_path / "nowhere" / "best.yaml")
    with pytest.raises(UsageError, match=r"best\.pt cannot be written: there is no folder .*nowhere"):
        write_weights(study, tmp_path / "nowhere" / "best.pt", lambda key, dest: fetched.append(key))
    assert not fetched
    assert list(tmp_path.iterdir()) == []


def test_the_trial_that_the_model_names_is_the_best_and_the_highest_epoch_is_told() -> None:
    study = a_study(a_spec())
    add(study, "COMPLETE", 0.31)
    add(study, "COMPLETE", 0.30)
    study.set_user_attr(attributes.RECOMMENDED, {"trial": 1, "ended": 2, "reason": "the largest expected fitness"})
    text = render(study)
    assert text.startswith("trial 1 of study petskin: mask mAP50-95 0.300")
    assert "the highest single epoch, 0.310, is one of trial 0" in text
    assert "highest" not in render(study, 0)
