"""What a model file holds, told without torch: whether it segments, and how many layers it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from petskin_tune.errors import UsageError
from petskin_tune.files.saved_objects import NotSaved, is_object, read_saved
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
    """The architecture of the model that Ultralytics' ``load_checkpoint`` takes out of a file."""
    try:
        content = read_saved(path)
    except UsageError:
        raise
    except NotSaved as error:
        raise UsageError(
            f"The model {path} holds no weights that torch.save wrote, or not all of them: get it anew."
        ) from error
    except Exception:  # noqa: BLE001  whatever a strange pickle makes of the reader: torch shall say what is wrong
        return None
    model = content.get("ema") or content.get("model") if isinstance(content, Mapping) else None
    architecture = getattr(model, "yaml", None)
    if is_object(model) and isinstance(architecture, Mapping):
        return architecture
    what = "only an object that says nothing of its layers" if is_object(model) else "only values or layers of one"
    raise UsageError(
        f"The model {path} holds no model, {what} (a state_dict or another part): give the file that a training has "
        "saved, such as best.pt."
    )
