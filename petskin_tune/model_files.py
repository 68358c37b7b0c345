"""Where the model of a study lies on this machine. The study keeps the name a person wrote, never a machine's path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from petskin_tune.arguments import ultralytics_folder
from petskin_tune.errors import UsageError
from petskin_tune.paths import is_file, typed
from petskin_tune.study_file import shipped_folder

_SCALE = re.compile(r"(\d+)[nslmx](?=-|\.)")  # yolov8n-seg.yaml is yolov8-seg.yaml in scale n
_RELEASED = re.compile(r"yolo(?:v8|11|26)[nslmx]-seg\.pt")  # what Ultralytics fetches by itself


def find_model(model: str, folders: Sequence[Path] = ()) -> str:
    """The path of ``model``, or its bare name where Ultralytics knows it by that.

    Looked up as a path, in ``folders`` (the study file's, the home), in ./studies and among the studies of the package,
    in each of them beside the study files and in their ``models/``.

    Raises:
        UsageError: it is nowhere, and Ultralytics knows no such name; or a folder on the way may not be entered.
    """
    path = typed(model)
    if is_file(path):
        return str(path.absolute())
    for folder in () if path.is_absolute() else (*folders, Path("studies"), shipped_folder()):
        for candidate in (folder / path, folder / "models" / path):
            if is_file(candidate):
                return str(candidate.absolute())
    if _RELEASED.fullmatch(model) or _is_own_architecture(model):
        return model
    raise UsageError(f"the model `{model}` is not here, and Ultralytics has none of that name: give its path")


def _is_own_architecture(model: str) -> bool:
    if not model.endswith(".yaml") or "/" in model:
        return False
    name = _SCALE.sub(r"\1", model)
    return any(path.name == name for path in (ultralytics_folder() / "cfg" / "models").rglob("*.yaml"))
