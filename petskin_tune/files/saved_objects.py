"""What torch.save wrote, read without torch: every class in it is replaced by an empty one, and tensors are left out.

Nothing in such a file is executed. A class that a trial's process does not load either is refused by its name: there
Ultralytics' restricted loading is on (``_SafeLoad`` in ultralytics/nn/tasks.py, ``torch.load(weights_only=True)``).
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from petskin_tune.errors import UsageError
from petskin_tune.printable import quoted

_LARGEST_PICKLE = 64 * 2**20  # bytes of the layers, tensors aside: a hundred times those of the largest model
_OLD_FORMAT = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # how torch.save's files began before they were zips
_LAST_PROTOCOL = 3  # of pickles, that the restricted loading reads; torch.save writes 2
# What the restricted loading takes: all of these modules and of those whose name begins so, …
_ALL_OF = (
    "torch",
    "torch._tensor",
    "torch._utils",
    "torch.cuda",
    "torch.serialization",
    "torch.sparse",
    "torch.storage",
)
_ALL_BELOW = (
    *("torch.cuda.sparse.", "torch.distributed.", "torch.nn.modules.", "torch.nn.parameter."),
    *("torchvision.transforms.", "ultralytics.nn.", "ultralytics.utils.loss.", "ultralytics.utils.tal."),
)
# … and of others what is named here.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "_codecs": ("encode",),
    "__builtin__": ("set", "bytearray", "complex", "getattr"),  # as Python 2 called `builtins`, and protocol 2 does
    "builtins": ("set", "bytearray", "complex", "getattr"),
    "collections": ("OrderedDict", "Counter"),
    "numpy": ("dtype",),
    "numpy.core.multiarray": ("scalar",),
    "numpy._core.multiarray": ("scalar",),
    "pathlib": ("PosixPath", "WindowsPath"),
    "pathlib._local": ("PosixPath", "WindowsPath"),
    "ultralytics.utils": ("IterableSimpleNamespace",),
    "ultralytics.yolo.utils": ("IterableSimpleNamespace",),
}
# What a training writes of a model: layers by their classes, and these functions, types and marks of torch's.
_LAYERS = ("torch.nn.modules.", "torch.nn.parameter.", "ultralytics.nn.")
_CLASS = re.compile(r"_?[A-Z]\w*")
_WRITTEN = re.compile(
    r"torch\._utils\._rebuild_(tensor|tensor_v2|parameter|parameter_with_state)|torch\.(Size|device|[A-Z][A-Za-z0-9]*Storage)"
    r"|torch\.(b?float|u?int|complex)\d+|torch\.bool|collections\.OrderedDict|(__builtin__|builtins)\.set"
)
_OF_YOLOV5 = ("models.", "utils.")  # the modules of its repository, and of YOLOv7's and YOLOv9's


class NotSaved(Exception):
    """torch.save has not written the file, or not all of it is there."""


class _Anything:
    """Stands for an object of any class: takes what its pickle says of it, does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _Anything:
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)

    def __call__(self, *_: Any, **__: Any) -> _Anything:
        return self

    def __setitem__(self, _key: Any, _value: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        pass

    def extend(self, _: Any) -> None:
        pass

    def add(self, _: Any) -> None:
        pass


class _Layer(_Anything):
    """Stands for a layer, which a file brings as a class and a state; a class with arguments would run its code."""

    def __new__(cls, *arguments: Any, **named: Any) -> _Layer:
        if arguments or named:
            raise pickle.UnpicklingError("a layer that is made by arguments")
        return object.__new__(cls)

    def __call__(self, *_: Any, **__: Any) -> _Layer:
        raise pickle.UnpicklingError("a layer that is called")


def is_object(value: Any) -> bool:
    """Whether ``value``, out of :func:`read_saved`, is an object of any class but numbers, text and collections."""
    return isinstance(value, _Anything)


def read_saved(path: Path, *, trained: bool = False) -> Any:
    """The object in a file that torch has saved, without tensors and without what its classes do.

    Args:
        path: the file.
        trained: refuse all but what a training writes of a model. The restricted loading takes more, of which code can
            be made where a file is loaded without restriction.

    Raises:
        NotSaved: torch has not saved it, or not all of it.
        UsageError: a trial's process does not load it; says why.
        Exception: anything that a strange pickle makes of its reader.
    """
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            _require_no_old_format(path, file)
            raise NotSaved
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if any(name.endswith("/constants.pkl") for name in names):
                raise UsageError(
                    f"The model {path} is an export (TorchScript), which cannot be trained: give the .pt that it was "
                    "made from."
                )
            name = f"{names[0].partition('/')[0]}/data.pkl" if names else ""  # the one folder that torch writes
            if sum(one.endswith("/data.pkl") for one in names) != 1 or name not in names:
                raise NotSaved
            if archive.getinfo(name).file_size > _LARGEST_PICKLE:
                raise UsageError(f"The model {path} says more of its layers than any model has.")
            with archive.open(name) as data:
                return _load(path, data, _TrainedReader if trained else _Reader)


def _require_no_old_format(path: Path, file: IO[bytes]) -> None:
    file.seek(0)
    if file.read(len(_OLD_FORMAT)) == _OLD_FORMAT:
        raise UsageError(
            f"The model {path} is a file of the format before torch 1.6, of which a trial loads no model: load it with "
            "torch, and save it with torch.save again."
        )


def _load(path: Path, data: IO[bytes], reader: type[_Reader]) -> Any:
    begins = data.read(2)
    if begins[:1] == pickle.PROTO and begins[1:] > bytes([_LAST_PROTOCOL]):
        raise UsageError(
            f"The model {path} was saved with another `pickle_protocol` than torch's own, which a trial does not load: "
            "load it with torch, and save it with torch.save again."
        )
    data.seek(0)
    try:
        return reader(path, data).load()
    except (EOFError, pickle.UnpicklingError) as error:
        raise NotSaved from error


class _Reader(pickle.Unpickler):
    def __init__(self, path: Path, file: IO[bytes]) -> None:
        super().__init__(file, encoding="latin1")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        if not _is_loaded(module, name):
            raise UsageError(_refusal(self._path, module, name))
        if (module, name) == ("numpy", "dtype"):
            return self._dtype
        return OrderedDict if (module, name) == ("collections", "OrderedDict") else _Anything

    def _dtype(self, kind: object, *_: Any) -> Any:
        """Stands for ``numpy.dtype``, of which Ultralytics lets 64 bits of floating point be loaded and no other."""
        if kind != "f8":
            raise UsageError(_refusal(self._path, "numpy", f"dtype({kind!r})"))
        return _Anything()

    def persistent_load(self, _pid: Any) -> Any:
        return _Anything()


class _TrainedReader(_Reader):
    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if f"{module}.".startswith(_LAYERS) and _CLASS.fullmatch(name):
            return _Layer
        if not _WRITTEN.fullmatch(f"{module}.{name}"):
            raise UsageError(_refusal(self._path, module, name))
        return found


def _is_loaded(module: str, name: str) -> bool:
    return module in _ALL_OF or f"{module}.".startswith(_ALL_BELOW) or name in _NAMES.get(module, ())


def _refusal(path: Path, module: str, name: str) -> str:
    whose = " but of YOLOv5 or its like," if f"{module}.".startswith(_OF_YOLOV5) else ""
    return (
        f"The model {path} holds an object of `{quoted(f'{module}.{name}')}`,{whose} which a trial does not load: "
        "give weights that a training with Ultralytics 8 has saved."
    )
