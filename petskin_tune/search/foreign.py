"""Foreign trials beside those of the study: fitness that was measured otherwise, moved to where it can be compared.

A run on other data, or a log that sums box and mask mAP, is right about which of its configurations are better, and by
about how much; how high its fitness lies says nothing here. So the trials of each such *scale* are moved together, to
where their median is the study's. What is wrong with that is left to the model: see :mod:`.freeze_thaw.kernel`.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

from petskin_tune.study.foreign import Foreign, foreign_of

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

ENOUGH = 3  # trials of one scale, of which something can be learnt


def comparable(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """The trials with fitness that can be compared, in their order; none of those given is changed.

    Foreign trials of a scale with fewer than three values, or with one value only, are left out.
    """
    trials = list(trials)
    groups = _by_scale(trials)
    values = {
        scale: [value for trial in group if (value := _last(trial)) is not None] for scale, group in groups.items()
    }
    moved = {"": 0.0}
    if others := [scale for scale in groups if scale and len(values[scale]) >= ENOUGH and len(set(values[scale])) > 1]:
        middle = _middle(groups.get("", ()), values, others)
        moved |= {scale: middle - median(values[scale]) for scale in others}
    return [_moved(trial, moved[scale]) for trial in trials if (scale := _scale(foreign_of(trial))) in moved]


def scales(trials: Iterable[FrozenTrial]) -> dict[int, int]:
    """Of every foreign trial whose fitness was measured otherwise, by number: which scale, 1 or more."""
    found = {trial.number: scale for trial in trials if (scale := _scale(foreign_of(trial)))}
    order = {scale: place for place, scale in enumerate(sorted(set(found.values())), 1)}
    return {number: order[scale] for number, scale in found.items()}


def _by_scale(trials: Sequence[FrozenTrial]) -> Mapping[str, list[FrozenTrial]]:
    groups: dict[str, list[FrozenTrial]] = defaultdict(list)
    for trial in trials:
        groups[_scale(foreign_of(trial))].append(trial)
    return groups


def _scale(foreign: Foreign | None) -> str:
    return foreign.scale if foreign else ""


def _middle(own: Sequence[FrozenTrial], values: Mapping[str, list[float]], others: Sequence[str]) -> float:
    """The median that all scales get: of the complete trials, else of all, else of the scale with most trials."""
    complete = [value for trial in own if trial.state.name == "COMPLETE" and (value := _last(trial)) is not None]
    if known := complete or values.get(""):
        return median(known)
    return median(values[max(others, key=lambda scale: (len(values[scale]), scale))])


def _last(trial: FrozenTrial) -> float | None:
    """The last fitness of a trial that did not diverge; None where it has none."""
    foreign = foreign_of(trial)
    if foreign is not None and foreign.diverged:
        return None
    finite = [(epoch, value) for epoch, value in trial.intermediate_values.items() if math.isfinite(value)]
    if finite:
        return max(finite)[1]
    return trial.values[0] if trial.values and math.isfinite(trial.values[0]) else None


def _moved(trial: FrozenTrial, by: float) -> FrozenTrial:
    if not by:
        return trial
    moved = copy.copy(trial)
    moved.intermediate_values = {epoch: value + by for epoch, value in trial.intermediate_values.items()}
    if trial.values:
        moved.values = [value + by for value in trial.values]
    return moved
