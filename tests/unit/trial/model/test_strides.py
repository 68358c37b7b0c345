"""The stride of a model is that which Ultralytics measures on the model it builds."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ultralytics.nn import tasks
from ultralytics.nn.tasks import SegmentationModel

from petskin_tune.trial.model.strides import largest_stride
from tests.support.training import SMALL

MODELS = Path(tasks.__file__).parent.parent / "cfg" / "models"
OWN = [
    "v8/yolov8-seg.yaml",
    "v8/yolov8-seg-p6.yaml",
    "v9/yolov9c-seg.yaml",
    "v9/yolov9e-seg.yaml",
    "11/yolo11-seg.yaml",
    "12/yolo12-seg.yaml",
    "26/yolo26-seg.yaml",
]


def narrow(name: str) -> dict[str, Any]:
    """An architecture, narrow where it comes in scales: it is built in no time."""
    architecture = yaml.safe_load((MODELS / name).read_text())
    if "scales" in architecture:
        architecture["scales"] = {"n": [0.33, 0.25, 1024]}
    return architecture


@pytest.mark.parametrize("name", OWN)
def test_strides_are_those_of_the_model_that_is_built(name: str) -> None:
    architecture = narrow(name)
    told = largest_stride(copy.deepcopy(architecture))
    assert told == int(SegmentationModel(architecture, verbose=False).stride.max())


def test_what_is_fused_is_of_the_size_of_its_last_part() -> None:
    backbone = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "CBLinear", [[8]]], [-1, 1, "Conv", [8, 3, 2]]]
    head = [[[1, -1], 1, "CBFuse", [[0]]], [[3], 1, "Segment", ["nc", 8, 16]]]
    assert largest_stride({"backbone": backbone, "head": head}) == 4


def test_the_small_model_and_odd_rows() -> None:
    small = yaml.safe_load(SMALL.read_text())
    assert largest_stride(small) == 8
    for row in ([-1, 2, "Conv", [16, 3, 2]], [-1, 1, "TorchVision", [16]], [-1, 1, "Conv", [16, 3, "x"]], []):
        assert largest_stride({**small, "backbone": [*small["backbone"][:4], row]}) is None
