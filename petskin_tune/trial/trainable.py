"""What no trial of a study could train, whatever is drawn: refused before there is one.

A single trial of that kind fails alone, by the same rules, in its process (``training/guards.py``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from petskin_tune.datasets import layout
from petskin_tune.datasets.last_batch import STRIDE, last_batch_fault, smallest_side
from petskin_tune.errors import UsageError
from petskin_tune.files.model_kinds import Model, read_model
from petskin_tune.study.space.arguments import arguments
from petskin_tune.study.spec import Choices, Range, StudySpec
from petskin_tune.trial.model.files import own_architecture
from petskin_tune.trial.model.strides import largest_stride


def require_layers_to_train(spec: StudySpec, model: Path) -> None:
    """Refuse a study each of whose trials would freeze the whole model.

    Raises:
        UsageError: its `freeze`, or the lowest value that is searched, leaves no layer.
    """
    searched, fixed = spec.search.get("freeze"), spec.train.get("freeze")
    values = searched.choices if isinstance(searched, Choices) else (searched.low if searched else fixed,)
    numbers = [value for value in values if isinstance(value, (int, float))]
    named = set(fixed) if isinstance(fixed, (list, tuple)) and not searched else set()
    described = _described(model) if numbers or named else None
    if described is not None and named and named >= described.trained:
        raise UsageError(f"`freeze` names all layers of {model.name} that have something to train: leave one out.")
    if described is not None and numbers and min(numbers) >= described.layers:
        raise UsageError(
            f"`freeze` {min(numbers):g} leaves none of the {described.layers} layers of {model.name} to train: let it "
            f"be {described.layers - 1} or less."
        )


def require_image_size(spec: StudySpec, model: Path) -> None:
    """Refuse an image size that Ultralytics would change, as it does where it is no multiple of the model's stride.

    Raises:
        UsageError: it is none; says which are.
    """
    imgsz, stride = int(_fixed(spec, "imgsz")), _stride(model)
    if rest := imgsz % stride:
        nearest = " or ".join(str(size) for size in (imgsz - rest, imgsz - rest + stride) if size)
        raise UsageError(f"`imgsz` {imgsz} is no multiple of {stride}, the stride of {model.name}: take {nearest}.")


def last_batch_warning(spec: StudySpec, data: Path, model: Path) -> str:
    """What to say of a study some of whose trials fail at the last batch of an epoch; empty where none does.

    Args:
        spec: of the study.
        data: YAML of the data set in force.
        model: weights or architecture; the name of one of Ultralytics' own.

    Raises:
        UsageError: all of them do.
    """
    imgsz, stride = int(_fixed(spec, "imgsz")), _stride(model)
    scales = _ends(spec, "multi_scale")  # what lies between is no worse than the larger, and no better than the lesser
    if smallest_side(imgsz, max(scales), stride) >= 2 * stride:
        return ""
    images = len(layout.listed(layout.read(data), "train"))
    faults = [last_batch_fault(images, batch, imgsz, scale, stride) for batch in _batches(spec) for scale in scales]
    first = next(filter(None, faults), None)
    if first is not None and all(faults):
        raise UsageError(f"No trial of this study can train: {first}.")
    return f"some trials of this study will be refused: {first}" if first is not None else ""


def _described(model: Path) -> Model | None:
    file = model if model.is_file() else own_architecture(str(model))
    return read_model(file) if file else None


def _stride(model: Path) -> int:
    """The stride with which Ultralytics reckons; the least, where the model's own cannot be told."""
    described = _described(model)
    return max(STRIDE, (described and largest_stride(described.architecture)) or STRIDE)


def _batches(spec: StudySpec) -> Iterator[int]:
    searched = spec.search.get("batch")
    if isinstance(searched, Range):
        yield from range(int(searched.low), int(searched.high) + 1, int(searched.step or 1))
    elif searched is not None:
        yield from (int(choice) for choice in searched.choices if isinstance(choice, int))
    else:
        yield int(_fixed(spec, "batch"))
    yield from (int(value) for value in _of_start_points(spec, "batch") if isinstance(value, int))


def _ends(spec: StudySpec, name: str) -> Collection[float]:
    searched = spec.search.get(name)
    if isinstance(searched, Range):
        values: list[Any] = [searched.low, searched.high]
    else:
        values = list(searched.choices) if searched is not None else [_fixed(spec, name)]
    numbers = [float(value) for value in (*values, *_of_start_points(spec, name)) if isinstance(value, (int, float))]
    return {min(numbers), max(numbers)}


def _of_start_points(spec: StudySpec, name: str) -> Iterator[Any]:
    """What start points set, searched or not."""
    return (point[name] for point in spec.start if not isinstance(point, str) and name in point)


def _fixed(spec: StudySpec, name: str) -> Any:
    return spec.train.get(name, arguments()[name].default)
