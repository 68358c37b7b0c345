"""What a model file holds, told without torch: whether it segments, and how many layers it has.

Weights are a pickle in a zip. It is read with every class of it replaced by an empty one, so that nothing in it is
executed; tensors are not read at all.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from petskin_tune.errors import UsageError
from petskin_tune.files.yaml_guard import BadYaml, load_yaml
from petskin_tune.files.yaml_kinds import SUFFIXES

TASK = "segment"
# What the name of a model's last layer tells, in the order in which Ultralytics asks (``guess_model_task``).
_HEADS = (
    ("classif", "classify"),
    ("detect", "detect"),
    ("semanticsegment", "semantic"),
    ("yoloe", "open-vocabulary"),  # it is trained with text embeddings, by a trainer of its own
    ("segment", TASK),
    ("pose", "pose"),
    ("obb", "obb"),
    ("depth", "depth"),
)
_WITHOUT_WEIGHTS = ("nn.Upsample", "Concat", "nn.MaxPool2d", "nn.ZeroPad2d", "nn.Identity")
_LARGEST_PICKLE = 64 * 2**20  # bytes of the layers, tensors aside: a hundred times those of the largest model
_BEFORE_THE_OBJECT = 3  # pickles in a file of the older format: a magic number, a version, the system's sizes


@dataclass(frozen=True)
class Model:
    """What a file says of its model.

    Attributes:
        task: "segment", "detect", …; None where its last layer is not known.
        layers: how many it has, numbered as ``freeze`` counts them.
        architecture: what they are, as in an architecture file, with a list of rows in ``backbone`` and in ``head``.
    """

    task: str | None
    layers: int
    architecture: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def trained(self) -> set[int]:
        """The numbers of the layers that have weights."""
        rows = [*self.architecture.get("backbone", ()), *self.architecture.get("head", ())]
        return {number for number, row in enumerate(rows) if row[-2] not in _WITHOUT_WEIGHTS}


def read_model(path: Path) -> Model | None:
    """The model in a file of weights (.pt) or of an architecture (.yaml); None for what cannot be told.

    Raises:
        UsageError: it holds no model that can be trained; says what it is.
    """
    architecture = _architecture(path) if path.suffix.lower() in SUFFIXES else _of_weights(path)
    try:
        layers = [*architecture["backbone"], *architecture["head"]] if architecture else []
        if not architecture or not layers:
            return None
        return Model(_task(str(layers[-1][-2]).lower()), len(layers), architecture)
    except (KeyError, TypeError, IndexError):
        return None


def require_segmentation(path: Path) -> None:
    """Refuse a model file that does not segment; a file that is not there, or cannot be told, is passed over.

    Raises:
        UsageError: its model is of another task, or cannot be trained.
    """
    model = read_model(path) if path.is_file() else None
    if path.suffix.lower() in SUFFIXES and path.is_file() and (model is None or model.task is None):
        raise UsageError(
            f"The model {path} is no architecture that Ultralytics builds: the last layer of its `head` is unknown."
        )
    if model is not None and model.task not in (TASK, None):
        raise UsageError(
            f"The model {path} is no segmentation model, its task is `{model.task}`: name one that segments, such as "
            "`yolo26n-seg.pt`."
        )


def _task(head: str) -> str | None:
    return next((task for part, task in _HEADS if part in head), None)


def _architecture(path: Path) -> Mapping[str, Any] | None:
    try:
        content = load_yaml(path)
    except (OSError, BadYaml):
        return None
    return content if isinstance(content, dict) else None


def _of_weights(path: Path) -> Mapping[str, Any] | None:
    try:
        content = _unpickled(path)
    except UsageError:
        raise
    except (EOFError, pickle.UnpicklingError, StopIteration) as error:
        raise UsageError(
            f"The model {path} holds no weights that torch.save wrote, or not all of them: get it anew."
        ) from error
    except Exception:  # noqa: BLE001  whatever a strange pickle makes of the reader: torch shall say what is wrong
        return None
    if isinstance(content, Mapping):
        content = next((content[key] for key in ("ema", "model") if isinstance(content.get(key), _Anything)), content)
    architecture = getattr(content, "yaml", None)
    if isinstance(architecture, Mapping):
        return architecture
    if not isinstance(content, _Anything):
        raise UsageError(
            f"The model {path} holds no model, only values of one (a state_dict or another part): give the file that a "
            "training has saved, such as best.pt."
        )
    return None


def _unpickled(path: Path) -> Any:
    """The object in a file that torch has saved.

    Raises:
        EOFError, UnpicklingError, StopIteration: torch has not saved it, or not all of it.
        UsageError: it is TorchScript, which has no weights that could be trained, or expands to more than a model.
    """
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            file.seek(0)
            for _ in range(_BEFORE_THE_OBJECT):
                _Reader(file).load()
            return _Reader(file).load()
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if any(name.endswith("/constants.pkl") for name in names):
                raise UsageError(
                    f"The model {path} is an export (TorchScript), which cannot be trained: give the .pt that it was "
                    "made from."
                )
            name = next(name for name in names if name.endswith("/data.pkl"))
            if archive.getinfo(name).file_size > _LARGEST_PICKLE:
                raise UsageError(f"The model {path} says more of its layers than any model has.")
            with archive.open(name) as data:
                return _Reader(data).load()


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


class _Reader(pickle.Unpickler):
    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        return OrderedDict if (module, name) == ("collections", "OrderedDict") else _Anything

    def persistent_load(self, pid: Any) -> Any:
        is_class = isinstance(pid, tuple) and len(pid) > 1 and pid[0] == "module"  # in the older format
        return pid[1] if is_class else _Anything()
