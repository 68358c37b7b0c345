"""The points that a study tries first, with Ultralytics' `defaults` written out.

``optimizer: auto`` is no point: Ultralytics overrides lr0, momentum and warmup_bias_lr by the length of the run. What
it would decide for the final run (the whole data set, the study's epochs) is decided here, as ``build_optimizer`` and
the warm-up in engine/trainer.py of Ultralytics do, so that the trial says what it trained with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from petskin_tune.study.space.arguments import arguments
from petskin_tune.study.space.parameters import fit_point
from petskin_tune.study.spec import Choices, Scalar, StudySpec

LONG_RUN = 10_000  # optimizer steps; above, `auto` is MuSGD
BUILT_MOMENTUM = 0.9  # with which `auto` builds its optimizers


@dataclass(frozen=True)
class StartPoints:
    """``points`` as they are enqueued (searched names left out are drawn), and what a person should know of them."""

    points: tuple[Mapping[str, Scalar | None], ...]
    notes: tuple[str, ...] = ()


def start_points(spec: StudySpec, *, classes: int, train_images: int) -> StartPoints:
    """The study's start points in order, `defaults` resolved for the whole data set's ``train_images``."""
    points: list[Mapping[str, Scalar | None]] = []
    notes: list[str] = []
    for point in spec.start:
        if point == "defaults":
            resolved, said = _defaults_in_space(spec, classes, train_images)
            notes += said
            points.append(resolved)
        elif isinstance(point, Mapping):
            points.append(point)
            if alone := [f"`{name}`" for name in point if name not in spec.search]:
                verb = "is not searched: its" if len(alone) == 1 else "are not searched: their"
                notes.append(f"start point {len(points)}: {', '.join(alone)} {verb} value is this trial's alone")
    return StartPoints(tuple(points), tuple(notes))


def resolve_defaults(spec: StudySpec, *, classes: int, train_images: int) -> dict[str, Any]:
    """Ultralytics' defaults of the searched names, `auto` resolved, wherever they lie.

    An optimizer that the study does not allow gives way to the other one that `auto` knows, if that is allowed. Where
    the optimizer is searched and is one of `auto`'s, everything else that `auto` sets is among them too, searched or
    not, unless the study fixes it.
    """
    known = arguments()
    defaults = {name: known[name].default for name in spec.search}
    optimizer = _optimizer(spec, train_images)
    automatic = _auto(optimizer, classes, warms_up=_warms_up(spec, train_images))
    resolved = {name: automatic.get(name, default) for name, default in defaults.items()}
    searched = spec.search.get("optimizer")
    if isinstance(searched, Choices) and optimizer in searched.choices:
        resolved |= {name: value for name, value in automatic.items() if name not in {**spec.search, **spec.train}}
    return resolved


def _optimizer(spec: StudySpec, train_images: int) -> str:
    """What `auto` stands for here: the study's own optimizer where it has only one."""
    if "optimizer" not in spec.search:
        fixed = str(spec.train.get("optimizer", "auto"))
        if fixed != "auto":
            return fixed
    batch = _default("batch", spec)
    steps = math.ceil(train_images / max(batch, _default("nbs", spec))) * spec.epochs
    wanted, other = ("MuSGD", "AdamW") if steps > LONG_RUN else ("AdamW", "MuSGD")
    searched = spec.search.get("optimizer")
    allowed = searched.choices if isinstance(searched, Choices) else (wanted,)
    return other if wanted not in allowed and other in allowed else wanted


def _auto(optimizer: str, classes: int, *, warms_up: bool) -> dict[str, Any]:
    """What `auto` trains with once it has chosen ``optimizer``.

    It builds both optimizers with a momentum of 0.9. That is AdamW's beta1 to the end; MuSGD's momentum is raised by
    the warm-up to the argument, and stays there.
    """
    if optimizer == "AdamW":
        lr0, momentum = round(0.002 * 5 / (4 + classes), 6), BUILT_MOMENTUM
    elif optimizer == "MuSGD":
        lr0, momentum = 0.01, arguments()["momentum"].default if warms_up else BUILT_MOMENTUM
    else:  # `auto` never chooses another one: its defaults are the plain ones
        return {"optimizer": optimizer}
    return {"optimizer": optimizer, "lr0": lr0, "momentum": momentum, "warmup_bias_lr": 0.0}


def _warms_up(spec: StudySpec, train_images: int) -> bool:
    """Whether a warm-up takes at least a batch (``_get_warmup_iterations`` in engine/trainer.py of Ultralytics)."""
    batches = math.ceil(train_images / _default("batch", spec))
    return round(min(_default("warmup_epochs", spec), spec.epochs - 1) * batches) > 0


def _default(name: str, spec: StudySpec) -> float:
    """What the `defaults` trial trains with: the fixed value, else Ultralytics'."""
    return float(spec.train.get(name, arguments()[name].default))


def _defaults_in_space(
    spec: StudySpec, classes: int, train_images: int
) -> tuple[dict[str, Scalar | None], tuple[str, ...]]:
    """The defaults as a point of the space: moved to the nearest end of a range, or left to the sampler."""
    resolved = resolve_defaults(spec, classes=classes, train_images=train_images)
    point, said = fit_point({name: value for name, value in resolved.items() if name in spec.search}, spec.search)
    notes = [f"defaults: {sentence}" for sentence in said]
    alone = {name: value for name, value in resolved.items() if name not in spec.search}
    if alone:
        values = ", ".join(f"`{name}` {value:g}" for name, value in alone.items())
        notes.append(f"defaults: {values}, which Ultralytics' `auto` sets, is this trial's alone: it is not searched")
    return {**point, **alone}, tuple(notes)
