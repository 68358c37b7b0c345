"""What a model file holds is told without torch, and nothing in it is executed."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from ultralytics.nn.tasks import ClassificationModel, DetectionModel, OBBModel, PoseModel, SegmentationModel

from petskin_tune.errors import UsageError
from petskin_tune.files.model_kinds import Model, read_model, require_segmentation
from tests.support.training import SMALL

BACKBONE = yaml.safe_load(SMALL.read_text())["backbone"]
OTHERS = {
    "detect": (DetectionModel, [[4], 1, "Detect", ["nc"]], {}),
    "pose": (PoseModel, [[4], 1, "Pose", ["nc", "kpt_shape"]], {"kpt_shape": [17, 3]}),
    "obb": (OBBModel, [[4], 1, "OBB", ["nc", 1]], {}),
    "classify": (ClassificationModel, [-1, 1, "Classify", ["nc"]], {}),
}


def architecture(task: str) -> dict:
    return {"nc": 1, **OTHERS[task][2], "backbone": BACKBONE, "head": [OTHERS[task][1]]}


@pytest.mark.parametrize("task", OTHERS)
def test_weights_of_another_task_are_refused_and_their_task_is_named(task: str, tmp_path: Path) -> None:
    torch.save({"model": OTHERS[task][0](architecture(task), verbose=False), "ema": None}, tmp_path / "best.pt")
    assert read_model(tmp_path / "best.pt") == Model(task, 6)
    with pytest.raises(UsageError, match=rf"best\.pt is no segmentation model, its task is `{task}`"):
        require_segmentation(tmp_path / "best.pt")


@pytest.mark.parametrize("task", OTHERS)
def test_an_architecture_of_another_task_is_refused(task: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(architecture(task)))
    with pytest.raises(UsageError, match=f"its task is `{task}`"):
        require_segmentation(tmp_path / "mine.yaml")


@pytest.mark.parametrize("old_format", [False, True])
@pytest.mark.parametrize("key", ["model", "ema"])
def test_weights_that_segment_are_taken(key: str, old_format: bool, tmp_path: Path) -> None:
    model = SegmentationModel(str(SMALL), verbose=False)
    path = tmp_path / "best.pt"
    saved = {"model": None, "ema": None, key: model, "optimizer": {"state": {0: torch.zeros(2)}}}
    torch.save(saved, path, _use_new_zipfile_serialization=not old_format)
    require_segmentation(path)
    assert read_model(path) == Model("segment", 6)
    require_segmentation(SMALL)


def test_a_state_dict_is_no_model(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 1).state_dict(), tmp_path / "state.pt")
    with pytest.raises(UsageError, match="state_dict"):
        require_segmentation(tmp_path / "state.pt")


def test_torchscript_is_no_model(tmp_path: Path) -> None:
    torch.jit.trace(torch.nn.Linear(2, 1), torch.zeros(1, 2)).save(str(tmp_path / "best.pt"))
    with pytest.raises(UsageError, match="TorchScript"):
        require_segmentation(tmp_path / "best.pt")


class _Evil:
    def __init__(self, act: Callable[[str], object], argument: str) -> None:
        self._call = (act, (argument,))

    def __reduce__(self) -> tuple:
        return self._call


@pytest.mark.parametrize("old_format", [False, True])
def test_nothing_in_a_file_is_executed(old_format: bool, tmp_path: Path) -> None:
    content = {"model": _Evil(os.mkdir, str(tmp_path / "pwned"))}
    torch.save(content, tmp_path / "best.pt", _use_new_zipfile_serialization=not old_format)
    assert read_model(tmp_path / "best.pt") is None
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("content", [b"", b"\x80", b"\x80\x02]", b"PK\x05\x06" + bytes(18), pickle.dumps({"a": 1})])
def test_what_torch_has_not_saved_is_no_model(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "odd.pt").write_bytes(content)
    with pytest.raises(UsageError, match=r"odd\.pt holds no weights that torch\.save wrote"):
        require_segmentation(tmp_path / "odd.pt")
    require_segmentation(tmp_path / "absent.pt")


@pytest.mark.parametrize("content", [3, None, [1], torch.zeros(2)], ids=str)
def test_a_value_that_torch_has_saved_is_no_model(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "value.pt")
    if isinstance(content, torch.Tensor):
        require_segmentation(tmp_path / "value.pt")  # an object without layers: torch shall say what it is
    else:
        with pytest.raises(UsageError, match=r"value\.pt holds no model"):
            require_segmentation(tmp_path / "value.pt")


@pytest.mark.parametrize("head", ["[]", "[[-1, 1, Nope, []]]", "3", "[x]"])
def test_an_architecture_whose_last_layer_nobody_knows_is_refused(head: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"backbone: [[-1, 1, Conv, [16, 3, 2]]]\nhead: {head}\n")
    with pytest.raises(UsageError, match=r"mine\.yaml is no architecture that Ultralytics builds"):
        require_segmentation(tmp_path / "mine.yaml")


def test_an_architecture_that_expands_to_gigabytes_is_not_expanded(tmp_path: Path) -> None:
    levels = [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 12)]
    bomb = "\n".join(["a0: &a0 [x, x]", *levels, "backbone: *a11", "head: [[-1, 1, Detect, []]]"])
    (tmp_path / "bomb.yaml").write_text(bomb)
    with pytest.raises(UsageError, match="no architecture that Ultralytics builds"):
        require_segmentation(tmp_path / "bomb.yaml")


def test_weights_whose_layers_expand_to_gigabytes_are_refused_unread(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "best.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("best/data.pkl", bytes(65 << 20))
    with pytest.raises(UsageError, match="more of its layers than any model has"):
        read_model(tmp_path / "best.pt")
