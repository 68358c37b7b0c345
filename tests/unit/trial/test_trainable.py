"""A study in which no trial can train is refused, and one in which some cannot says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from petskin_tune.datasets import demo
from petskin_tune.errors import UsageError
from petskin_tune.study.space.parameters import make_choices, make_range
from petskin_tune.study.spec import StudySpec
from petskin_tune.trial.trainable import last_batch_warning, require_image_size

MODEL = Path("yolov8n-seg.yaml")


def spec(**changes: Any) -> StudySpec:
    return StudySpec(study="s", model="yolov8n-seg.pt", data="demo", epochs=3, **changes)


@pytest.fixture
def five(tmp_path: Path) -> Path:
    """The YAML of a data set of five images to train on."""
    return demo.make(tmp_path / "demo", train=5, val=1, imgsz=32)


NONE_CAN = {
    "fixed": {"train": {"imgsz": 32, "batch": 4}},
    "choices": {"train": {"imgsz": 32}, "search": {"batch": make_choices("batch", [2, 4])}},
    "a range": {"train": {"imgsz": 32}, "search": {"batch": make_range("batch", 1, 2)}},
    "scales": {
        "train": {"imgsz": 96, "batch": 4},
        "search": {"multi_scale": make_range("multi_scale", 0.6, 0.9)},
    },
}


@pytest.mark.parametrize("how", NONE_CAN)
def test_a_study_is_refused_all_of_whose_trials_end_at_a_last_batch_of_one_image(how: str, five: Path) -> None:
    with pytest.raises(UsageError, match=r"No trial of this study can train: a last batch of one image .* `batch`"):
        last_batch_warning(spec(**NONE_CAN[how]), five, MODEL)


SOME_CAN = {
    "choices": {"train": {"imgsz": 32}, "search": {"batch": make_choices("batch", [4, 8, 3])}},
    "a range": {"train": {"imgsz": 32}, "search": {"batch": make_range("batch", 2, 8)}},
    "scales": {
        "train": {"imgsz": 96, "batch": 4},
        "search": {"multi_scale": make_range("multi_scale", 0.0, 0.9)},
    },
    "a start point": {"train": {"imgsz": 32, "batch": 4}, "start": ({"batch": 3},)},
}


@pytest.mark.parametrize("how", SOME_CAN)
def test_a_study_some_of_whose_trials_end_there_is_warned_of(how: str, five: Path) -> None:
    assert last_batch_warning(spec(**SOME_CAN[how]), five, MODEL).startswith(
        "some trials of this study will be refused: a last"
    )


@pytest.mark.parametrize(
    "changes", [{}, {"train": {"imgsz": 32, "batch": 3}}, {"train": {"imgsz": 64, "batch": 4}}], ids=str
)
def test_nothing_is_said_of_a_study_all_of_whose_trials_can_train(changes: dict[str, Any], five: Path) -> None:
    assert last_batch_warning(spec(**changes), five, MODEL) == ""


def test_an_image_that_is_listed_twice_is_counted_as_often_as_it_is_trained(five: Path) -> None:
    described = yaml.safe_load(five.read_text())
    five.write_text(yaml.safe_dump({**described, "train": [described["train"]] * 2}))
    assert last_batch_warning(spec(train={"imgsz": 32, "batch": 4}), five, MODEL) == ""
    with pytest.raises(UsageError, match=r"\(`batch` 3, 10 to train on\)"):
        last_batch_warning(spec(train={"imgsz": 32, "batch": 3}), five, MODEL)


P6 = Path("yolov8n-seg-p6.yaml")  # of a stride of 64


def test_an_image_size_that_ultralytics_would_change_is_refused() -> None:
    with pytest.raises(UsageError, match=r"`imgsz` 480 is no multiple of 64, the stride of .*: take 448 or 512\.$"):
        require_image_size(spec(train={"imgsz": 480}), P6)
    with pytest.raises(UsageError, match=r": take 64\.$"):
        require_image_size(spec(train={"imgsz": 32}), P6)
    require_image_size(spec(), P6)
    require_image_size(spec(train={"imgsz": 480}), MODEL)


def test_the_last_batch_is_judged_by_the_models_stride(five: Path) -> None:
    asked = spec(train={"imgsz": 64, "batch": 4})
    assert last_batch_warning(asked, five, MODEL) == ""
    with pytest.raises(UsageError, match=r"cannot be trained at 64 pixels, .* an `imgsz` of 128 or more"):
        last_batch_warning(asked, five, P6)


def test_a_model_whose_stride_cannot_be_told_is_not_refused(tmp_path: Path) -> None:
    backbone = [[-1, 1, "TorchVision", [512, "resnet18", None, True, 2, False]]]
    head = [[[0], 1, "Segment", ["nc", 32, 256]]]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"nc": 1, "backbone": backbone, "head": head}))
    require_image_size(spec(train={"imgsz": 480}), tmp_path / "mine.yaml")
