"""A model is what its name says, whatever study files, data sets and folders are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from petskin_tune.datasets import demo, source
from petskin_tune.errors import UsageError
from petskin_tune.study.study_file.file import not_found, parse
from petskin_tune.study.study_file.published import PUBLISHED
from petskin_tune.study.wanted import wanted
from petskin_tune.trial.model import weights
from petskin_tune.trial.model.files import find_model
from petskin_tune.trial.model.weights import fetch_weights
from tests.support.saved_models import save_model

STUDY = "study: mine\nmodel: {model}\ndata: {data}\nepochs: 3\nsearch: {{mosaic: [0, 1]}}\n"
OWN = "yolov8n-seg.yaml"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "studies").mkdir()
    return tmp_path


def write_study(path: Path, model: str, data: str = "demo") -> None:
    path.write_text(STUDY.format(model=model, data=data))


PLACES = ["{}", "studies/{}", "studies/models/{}", "elsewhere/{}", "elsewhere/models/{}"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("model", [OWN, "yolov8-seg.yaml", "yolo26l-seg.yaml", "yolov9c-seg.yaml"])
def test_a_study_file_that_is_called_as_its_model_is_not_the_model(here: Path, place: str, model: str) -> None:
    file = here / place.format(model)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_study(file, model)
    study = wanted(str(file))
    assert study.spec is not None
    assert study.folder is not None
    assert find_model(study.spec.model, [study.folder]) == model


@pytest.mark.parametrize("place", PLACES)
def test_nor_is_a_folder_or_a_data_set_of_that_name(here: Path, place: str) -> None:
    for name, make in {
        OWN: Path.mkdir,
        "yolo11n-seg.yaml": lambda path: path.write_text("train: a\nval: b\nnames: [x]\n"),
    }.items():
        path = here / place.format(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)
        assert find_model(name, [here / "elsewhere"]) == name


def test_an_architecture_of_ones_own_is_taken_where_study_files_of_its_name_lie_before_it(here: Path) -> None:
    mine = here / "elsewhere" / "models" / "mine-seg.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("nc: 1\nbackbone: [[-1, 1, Conv, [16, 3, 2]]]\nhead: [[[0], 1, Segment, [nc, 32, 256]]]\n")
    for place in ("mine-seg.yaml", "studies/mine-seg.yaml", "elsewhere/mine-seg.yaml"):
        write_study(here / place, "mine-seg.yaml")
    assert find_model("mine-seg.yaml", [here / "elsewhere"]) == str(mine)


def test_a_study_file_that_names_itself_as_a_model_that_nobody_knows_is_refused_by_its_path(here: Path) -> None:
    write_study(here / "mine.yaml", "mine.yaml")
    with pytest.raises(UsageError, match=r"mine\.yaml is no architecture of a model: it has no `backbone`"):
        find_model("mine.yaml", [here])


def test_weights_are_found_beside_a_study_file_of_their_name(here: Path) -> None:
    write_study(here / OWN, "yolov8n-seg.pt")
    assert find_model("yolov8n-seg.pt", [here]) == "yolov8n-seg.pt"
    save_model(here / "yolov8n-seg.pt", {})
    assert find_model("yolov8n-seg.pt", [here]) == str(here / "yolov8n-seg.pt")


# ---- data sets ----


def test_a_study_file_that_is_called_as_its_data_set_is_not_the_data_set(here: Path) -> None:
    (here / "elsewhere").mkdir()
    write_study(here / "elsewhere" / "data.yaml", OWN, data="data.yaml")
    with pytest.raises(UsageError, match=r"data\.yaml is a study file, no data set"):
        source.prepare("data.yaml", base=here / "elsewhere", cache=here / "cache")
    made = demo.make(here / "made", train=4, val=2, imgsz=32)
    for path in made.parent.iterdir():
        path.rename(here / path.name)
    assert source.prepare("data.yaml", base=here / "elsewhere", cache=here / "cache").is_relative_to(here)


def test_a_study_file_beside_the_folder_of_its_data_set_is_not_taken_for_it(here: Path) -> None:
    made = demo.make(here / "pets" / "photographs", train=4, val=2, imgsz=32)
    write_study(here / "pets" / "mine.yaml", OWN, data="pets")
    assert source.prepare("pets", base=here, cache=here / "cache") == made


# ---- names that Ultralytics knows ----


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("yolo26l_seg.pt", "did you mean `yolo26l-seg.pt`"),
        ("yolov11x-seg.pt", "did you mean `yolo11x-seg.pt`"),
        ("yolo8l-seg.pt", "did you mean `yolov8l-seg.pt`"),
        ("yolo26m-sgm.yaml", "did you mean `yolo26m-seg.yaml`"),
        ("yolo12n-seg.pt", "publishes no weights of it: .* train `yolo12n-seg.yaml` from scratch"),
        ("yolo12x_seg.pt", "has none of that name: did you mean"),
        ("yolov8-seg.pt", r"did you mean `yolov8.-seg\.pt`"),
        ("mine.pt", "has none of that name: give its path"),
    ],
)
def test_a_name_that_nobody_knows_is_answered_with_one_that_can_be_had(here: Path, model: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as refusal:
        find_model(model, [here])
    suggested = str(refusal.value).rpartition("did you mean")[2]
    assert "yolo12" not in suggested or ".yaml" in suggested


@pytest.mark.parametrize(("model", "meant"), [("yolo12n.pt", "yolo12n-seg.yaml"), ("yolo26l.pt", "yolo26l-seg.pt")])
def test_a_detector_in_a_study_file_is_answered_with_a_segmenter_that_there_is(model: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"no segmentation model: did you mean `{meant}`"):
        parse(STUDY.format(model=model, data="demo"), where="x")


def test_what_is_fetched_is_what_ultralytics_publishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES

    assert set(PUBLISHED) <= GITHUB_ASSETS_NAMES
    published = {name for name in GITHUB_ASSETS_NAMES if name.startswith("yolo") and name.endswith("-seg.pt")}
    assert {name for name in published if not name.startswith("yoloe") and "objv1" not in name} == set(PUBLISHED)
    asked: list[str] = []
    monkeypatch.setattr(weights.urllib.request, "urlopen", lambda url, **_: asked.append(url))
    with pytest.raises(UsageError, match=r"publishes no weights yolo12n-seg\.pt"):
        fetch_weights("yolo12n-seg.pt", tmp_path)
    assert asked == []


def test_a_model_file_that_is_no_utf_8_says_what_to_do(here: Path) -> None:
    (here / "mine.yaml").write_bytes("# 모델\nbackbone: []\nhead: []\n".encode("cp949"))
    with pytest.raises(
        UsageError, match=r"^The model mine\.yaml cannot be read as YAML: byte 2 is no UTF-8: save it as"
    ):
        find_model("mine.yaml", [])


def test_a_study_file_in_the_current_folder_is_named_with_its_suffix(here: Path) -> None:
    (here / "my study.yaml").write_text(STUDY.format(model=OWN, data="demo"))
    assert "of this folder, type: --study 'my study.yaml'" in str(not_found("my study"))
