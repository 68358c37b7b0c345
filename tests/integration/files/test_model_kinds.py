"""What a model file holds is told without torch, and nothing in it is executed."""

from __future__ import annotations

import os
import pickle
import sys
import zipfile
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import yaml
from torch import _weights_only_unpickler
from ultralytics.nn import tasks
from ultralytics.nn.tasks import (
    ClassificationModel,
    DetectionModel,
    OBBModel,
    PoseModel,
    SegmentationModel,
    load_checkpoint,
)
from ultralytics.utils import IterableSimpleNamespace

from petskin_tune.errors import UsageError
from petskin_tune.files import saved_objects
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


@pytest.mark.parametrize("key", ["model", "ema"])
def test_weights_that_segment_are_taken(key: str, tmp_path: Path) -> None:
    model = SegmentationModel(str(SMALL), verbose=False)
    path = tmp_path / "best.pt"
    saved = {"model": None, "ema": None, key: model, "optimizer": {"state": {0: torch.zeros(2)}}}
    torch.save(saved, path)
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
    with pytest.raises(UsageError, match="before torch 1.6" if old_format else r"an object of `posix\.mkdir`"):
        read_model(tmp_path / "best.pt")
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
    with pytest.raises(UsageError, match=r"value\.pt holds no model"):
        require_segmentation(tmp_path / "value.pt")


# ---- what a trial's process does not load ----------------------------------------------------------------------------


@contextmanager
def foreign_class(module: str, name: str, base: type) -> Iterator[type]:
    """A class of a module that is gone afterwards."""
    made = ModuleType(module)
    setattr(made, name, type(name, (base,), {"__module__": module}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module.partition(".")[0], made)
        patch.setitem(sys.modules, module, made)
        yield getattr(made, name)


def checkpoint(**more: object) -> dict[str, object]:
    return {"model": SegmentationModel(str(SMALL), verbose=False), "ema": None, **more}


def of_yolov5(path: Path) -> None:
    with foreign_class("models.yolo", "SegmentationModel", torch.nn.Module) as kind:
        model = kind()
        model.yaml = SegmentationModel(str(SMALL), verbose=False).yaml
        torch.save({"model": model, "ema": None}, path)


def with_ones_own(path: Path) -> None:
    with foreign_class("mylab", "Settings", object) as kind:
        torch.save(checkpoint(settings=kind()), path)


NOT_LOADED: dict[str, tuple[Callable[[Path], None], str]] = {
    "YOLOv5's": (
        of_yolov5,
        r"`models\.yolo\.SegmentationModel`, but of YOLOv5 or its like, which a trial",
    ),
    "one's own": (with_ones_own, r"an object of `mylab\.Settings`, which a trial does not load"),
    "a defaultdict": (
        lambda path: torch.save(checkpoint(more=defaultdict(list)), path),
        r"an object of `collections\.defaultdict`",
    ),
    "an optimizer": (
        lambda path: torch.save(checkpoint(more=torch.optim.SGD([torch.zeros(1)])), path),
        r"an object of `torch\.optim\.sgd\.SGD`",
    ),
    "numbers of numpy's": (
        lambda path: torch.save(checkpoint(more=np.float32(1)), path),
        r"an object of `numpy\.dtype\('f4'\)`",
    ),
    "torch's release": (
        lambda path: torch.save(checkpoint(more=torch.__version__), path),
        r"an object of `torch\.torch_version\.TorchVersion`",
    ),
    "several devices": (
        lambda path: torch.save(checkpoint(model=torch.nn.DataParallel(torch.nn.Linear(1, 1))), path),
        r"an object of `torch\.nn\.parallel\.data_parallel\.DataParallel`",
    ),
    "the old format": (
        lambda path: torch.save(checkpoint(), path, _use_new_zipfile_serialization=False),
        r"a file of the format before torch 1\.6",
    ),
    "another protocol": (
        lambda path: torch.save(checkpoint(), path, pickle_protocol=4),
        r"another `pickle_protocol` than torch's own",
    ),
    "a model alone": (lambda path: torch.save(checkpoint()["model"], path), "only values or layers of one"),
    "layers": (
        lambda path: torch.save({"model": torch.nn.Sequential(torch.nn.Linear(1, 1))}, path),
        "an object that says nothing of its layers",
    ),
    "an averaged state_dict": (
        lambda path: torch.save(checkpoint(ema=torch.nn.Linear(1, 1).state_dict()), path),
        "only values or layers of one",
    ),
}


@pytest.fixture
def restricted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are loaded as in a trial's process, whose environment says so (``training/process/environment.py``)."""
    monkeypatch.setattr(tasks, "SAFE_LOAD", True)


@pytest.mark.usefixtures("restricted")
@pytest.mark.parametrize("kind", NOT_LOADED)
def test_what_a_trial_does_not_load_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    save, said = NOT_LOADED[kind]
    save(path)
    with pytest.raises(UsageError, match=said):
        require_segmentation(path)
    with pytest.raises((TypeError, AttributeError)):  # as a trial's process would
        assert load_checkpoint(path)[0].yaml


@pytest.mark.usefixtures("restricted")
def test_what_weights_hold_besides_layers_is_loaded(tmp_path: Path) -> None:
    more = (
        Path("x"),
        {1, 2},
        OrderedDict(a=1),
        Counter("aab"),
        torch.Size([1]),
        IterableSimpleNamespace(a=1),
        b"x",
        1j,
    )
    torch.save(checkpoint(more=more, half=torch.zeros(2).half(), mean=np.float64(1)), tmp_path / "best.pt")
    require_segmentation(tmp_path / "best.pt")
    assert load_checkpoint(tmp_path / "best.pt")[0].yaml


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


def test_whatever_torch_and_ultralytics_allow_is_loaded() -> None:
    allowed = {*_weights_only_unpickler._get_allowed_globals(), *tasks._SafeLoad._build()}
    assert {name for name in allowed if not saved_objects._is_loaded(*name.rsplit(".", 1))} == set()
