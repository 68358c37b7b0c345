"""Every cause of a failure is told as what it is: the trial's own, the data set's, or this machine's."""

from __future__ import annotations

import ctypes
import errno
import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch._utils import ExceptionWrapper
from ultralytics.nn.tasks import SegmentationModel
from ultralytics.utils.torch_utils import select_device

from petskin_tune import error_text
from petskin_tune.protocol import Position
from petskin_tune.training import guards
from petskin_tune.training.causes import kind_of
from petskin_tune.training.data import labels


def other_shape() -> None:
    torch.nn.Linear(3, 1).load_state_dict(torch.nn.Linear(2, 1).state_dict())


def other_optimizer_state() -> None:
    model = torch.nn.Linear(1, 1)
    saved = torch.optim.SGD([{"params": [model.weight]}, {"params": [model.bias]}]).state_dict()
    torch.optim.SGD(model.parameters()).load_state_dict(saved)


def unknown_layer() -> None:
    SegmentationModel({"nc": 1, "backbone": [[-1, 1, "NoSuchLayer", [8]]], "head": []}, verbose=False)


def huge_picture(folder: Path) -> None:
    path = folder / "huge.png"
    Image.new("1", (19_000, 19_000)).save(path)
    labels._image_shape(str(path))


def broken_picture(folder: Path) -> None:
    path = folder / "broken.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 40)
    labels._image_shape(str(path))


def in_a_loader(error: Exception) -> None:
    try:
        raise error
    except Exception:  # noqa: BLE001  as torch's loader does
        ExceptionWrapper(where="in DataLoader worker process 0").reraise()


def full_disk() -> None:
    with open("/dev/full", "w") as file:
        file.write("x")


def refuse(argument: str, value: object) -> None:
    guards.check_request({argument: value, "batch": 8})


def fail(error: BaseException) -> None:
    raise error


BF16 = "amp='bf16' is refused: Tesla T4 does not compute in bfloat16"
TOO_OLD = "The NVIDIA driver on your system is too old (found version 11040)."
UNKNOWN = "CUDA unknown error - this may be due to an incorrectly set up environment"
ASSERT = "CUDA error: device-side assert triggered"
BUSY = "CUDA error: all CUDA-capable devices are busy or unavailable"
SHM = "unable to write to file </torch_31_1_0>: No space left on device (28)"

Cause = Callable[[Path], None]

CAUSES: dict[str, tuple[str, Cause]] = {
    # ---- the trial's own ----
    "a snapshot's weights of another shape": ("crashed", lambda _: other_shape()),
    "a snapshot's unknown optimizer state": ("crashed", lambda _: other_optimizer_state()),
    "a model that cannot be built": ("crashed", lambda _: unknown_layer()),
    "a bug": ("crashed", lambda _: fail(ZeroDivisionError("division by zero"))),
    "a bug in a loader process": ("crashed", lambda _: in_a_loader(IndexError("list index out of range"))),
    "a class that the model has not": ("crashed", lambda _: fail(RuntimeError(ASSERT))),
    "an unknown argument": ("refused", lambda _: refuse("no_such_argument", 1)),
    "an argument out of range": ("refused", lambda _: refuse("mosaic", 7.0)),
    "a loss that is not finite": ("diverged", lambda _: fail(guards.NonFinite("the loss", Position(0, 1)))),
    "too little memory on the GPU": ("out-of-memory", lambda _: fail(torch.OutOfMemoryError("CUDA out of memory."))),
    # ---- the data set's ----
    "a picture too large to decode": ("data", huge_picture),
    "a picture that is none": ("data", broken_picture),
    "a bad picture in a loader process": ("data", lambda _: in_a_loader(labels.DataError("a.jpg: cannot be read"))),
    # ---- this machine's ----
    "a GPU that is not there": ("machine", lambda _: select_device("7")),
    "no driver": ("machine", lambda _: fail(RuntimeError("Found no NVIDIA driver on your system."))),
    "a driver that is too old": ("machine", lambda _: fail(RuntimeError(TOO_OLD))),
    "a driver that is broken": ("machine", lambda _: fail(RuntimeError(UNKNOWN))),
    "a GPU that is taken": ("machine", lambda _: fail(RuntimeError(BUSY))),
    "a torch without CUDA": ("machine", lambda _: fail(AssertionError("Torch not compiled with CUDA enabled"))),
    "a GPU without bfloat16": ("machine", lambda _: fail(guards.Refused(BF16))),
    "no MPS": ("machine", lambda _: guards.check_device("mps", torch.device("cpu"))),
    "a disk that is full": ("machine", lambda _: full_disk()),
    "a disk that fails": ("machine", lambda _: fail(OSError(errno.EIO, "Input/output error"))),
    "shared memory that is full": ("machine", lambda _: fail(RuntimeError(SHM))),
    "too many open files": ("machine", lambda _: in_a_loader(OSError(errno.EMFILE, "Too many open files"))),
    "a file that may not be read": ("machine", lambda _: fail(PermissionError(errno.EACCES, "Permission denied"))),
    "a package that is missing": ("machine", lambda _: importlib.import_module("no_such_package") and None),
    "a library that is missing": ("machine", lambda _: ctypes.CDLL("libnosuchlibrary.so") and None),
    "a loader process that was killed": (
        "machine",
        lambda _: fail(RuntimeError("DataLoader worker (pid 4711) is killed by signal: Killed.")),
    ),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_a_cause_is_told_by_its_kind_and_in_its_own_words(cause: str, tmp_path: Path) -> None:
    kind, happen = CAUSES[cause]
    with pytest.raises(Exception) as caught:  # noqa: PT011  each cause has its own
        happen(tmp_path)
    assert kind_of(caught.value) == kind
    said = error_text.named(caught.value)
    assert said.startswith(type(caught.value).__name__)
    assert "\n" not in said
    assert not said.endswith(":")
    assert "Traceback" not in said


def test_the_picture_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        labels.DataError, match=r"huge\.png: the image cannot be read \(more than the 178,956,970 pixels"
    ):
        huge_picture(tmp_path)


def test_a_message_of_several_lines_is_told_whole() -> None:
    with pytest.raises(RuntimeError) as caught:
        other_shape()
    said = error_text.one_line(caught.value)
    assert said.startswith("Error(s) in loading state_dict for Linear: size mismatch for weight")
    assert "torch.Size([1, 2])" in said
    assert "torch.Size([1, 3])" in said
