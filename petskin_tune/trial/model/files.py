"""Where the model of a study lies on this machine. The study keeps the name a person wrote, never a machine's path."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from petskin_tune.errors import UsageError
from petskin_tune.files.model_kinds import TASK, read_model, require_segmentation
from petskin_tune.files.paths import is_file, typed
from petskin_tune.files.yaml_guard import BadYaml, load_yaml
from petskin_tune.files.yaml_kinds import SUFFIXES, is_architecture
from petskin_tune.nearest import did_you_mean
from petskin_tune.study.space.arguments import ultralytics_folder
from petskin_tune.study.study_file.file import shipped_folder
from petskin_tune.trial.model.architectures import require_buildable
from petskin_tune.trial.model.weights import PUBLISHED

SCALES = "nsmlx"
_SCALE = re.compile(rf"(\d+)[{SCALES}](?=-|\.)")  # yolov8n-seg.yaml is yolov8-seg.yaml in scale n


def find_model(model: str, folders: Sequence[Path] = ()) -> str:
    """The path of ``model``, or its bare name where Ultralytics knows it by that.

    Looked up as a path, in ``folders`` (the study file's, the home), in ./studies and among the studies of the package,
    in each of them beside the study files and in their ``models/``. A YAML file that is no architecture, such as a
    study file that is called as its model, is passed over.

    Raises:
        UsageError: it is nowhere, and Ultralytics knows no such name; it is no model that segments; or a folder on the
            way may not be entered.
    """
    passed_over: list[Path] = []
    for candidate in _places(typed(model), folders):
        if not is_file(candidate):
            continue
        if candidate.suffix == ".pt" or is_architecture(candidate):
            require_segmentation(candidate)
            require_buildable(candidate)
            return str(candidate.absolute())
        passed_over.append(candidate)
    if _is_own_architecture(model):
        require_segmentation(_own_architectures()[_SCALE.sub(r"\1", model)])
    if model in PUBLISHED or _is_own_architecture(model):
        return model
    if passed_over:
        raise _no_architecture(passed_over[0])
    raise UsageError(f"the model `{model}` is not here, and {_unknown(model)}")


def _no_architecture(path: Path) -> UsageError:
    """Why a file that is called as the model describes none."""
    if path.suffix.lower() in SUFFIXES:
        try:
            load_yaml(path)
        except BadYaml as fault:
            return UsageError(f"The model {path} cannot be read as YAML: {fault}.")
        except OSError as error:
            return UsageError(f"The model {path} cannot be read: {error.strerror or error}.")
    return UsageError(f"{path} is no architecture of a model: it has no `backbone` and `head`")


def _places(path: Path, folders: Sequence[Path]) -> Iterator[Path]:
    yield path
    for folder in () if path.is_absolute() else (*folders, Path("studies"), shipped_folder()):
        yield folder / path
        yield folder / "models" / path


def _unknown(model: str) -> str:
    """Why Ultralytics has no such model either, and the nearest that it has."""
    architecture = f"{model.removesuffix('.pt')}.yaml"
    misses_a_scale = model in {_SCALE.sub(r"\1", name) for name in PUBLISHED}
    if model.endswith(".pt") and _segments(architecture) and not misses_a_scale:
        return (
            f"Ultralytics publishes no weights of it: give their path, or train `{architecture}` from scratch, or name "
            "published weights such as `yolo26n-seg.pt`"
        )
    hint = did_you_mean(model, (*PUBLISHED, *_segmentation_architectures()))
    return f"Ultralytics has none of that name{hint or ': give its path'}"


def _segments(architecture: str) -> bool:
    file = own_architecture(architecture)
    described = read_model(file) if file else None
    return described is not None and described.task == TASK


def own_architecture(model: str) -> Path | None:
    """The file of an architecture that comes with Ultralytics, whose name a person gave; None: there is none."""
    return _own_architectures()[_SCALE.sub(r"\1", model)] if _is_own_architecture(model) else None


def _is_own_architecture(model: str) -> bool:
    return model.endswith(".yaml") and "/" not in model and _SCALE.sub(r"\1", model) in _own_architectures()


def _own_architectures() -> dict[str, Path]:
    """The architecture files that come with Ultralytics, by name without a scale."""
    return {path.name: path for path in (ultralytics_folder() / "cfg" / "models").rglob("*.yaml")}


def _segmentation_architectures() -> list[str]:
    """What a person writes for those that segment: in each of its scales, where it has some."""
    names = sorted(name for name in _own_architectures() if re.fullmatch(r"yolov?\d+\w?-seg\.yaml", name))
    scaled = [re.sub(r"^(yolov?\d+)-", rf"\g<1>{scale}-", name) for name in names for scale in SCALES]
    return list(dict.fromkeys(scaled))
