"""Which of a study's trials is the best: one rule for the worker, every command, every view and the store."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from petskin_tune.study import attributes
from petskin_tune.study.foreign import without_foreign

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_ORDER = ("COMPLETE", "PRUNED")  # states of trials that have ended with a value; any other state has no rank


def ranked(trials: Iterable[FrozenTrial], stored: Mapping[str, Any] | None = None) -> list[FrozenTrial]:
    """The trials that have ended with a finite value, best first; of equals the older one comes first.

    First of all comes the one that the search's model recommends, when the study ended with these trials: a model of
    all curves is fooled less by the luckiest epoch than their maximum.

    Complete trials come before pruned ones whatever their values: a pruned trial's value is the best epoch of a part of
    its training (also where memory ran out or the loss diverged). Trials that run or wait, frozen ones among them, and
    failed ones have no rank, and neither have foreign ones: their weights are not here.

    A trial that a person added to the study with Optuna (``study.add_trial``, a loop of their own) counts like any
    other, also with values outside of the search space: Optuna's ``best_trial`` and its dashboard say the same, and the
    sampler learns from it. Whoever does not want that adds it as FAIL.

    Args:
        trials: all of the study, or all that have ended.
        stored: the study's user attributes; None: nothing is recommended.
    """
    trials = without_foreign(trials)
    recommended = recommended_of(trials, stored or {})
    valued = [
        trial for trial in trials if trial.state.name in _ORDER and trial.values and math.isfinite(trial.values[0])
    ]
    return sorted(valued, key=lambda trial: (trial.number != recommended, *_place(trial)))


def _place(trial: FrozenTrial) -> tuple[int, float, int]:
    return _ORDER.index(trial.state.name), -trial.values[0], trial.number


def highest(trials: Iterable[FrozenTrial]) -> FrozenTrial | None:
    """The trial with the highest single epoch of all that have ended; None while none has a value."""
    return max(ranked(trials), key=lambda trial: (trial.values[0], -trial.number), default=None)


def so_far(trial: FrozenTrial) -> float | None:
    """The best finite value that a trial has reported; None: it has reported none."""
    return max((value for value in trial.intermediate_values.values() if math.isfinite(value)), default=None)


def ahead(trials: Iterable[FrozenTrial], first: FrozenTrial | None) -> FrozenTrial | None:
    """The trial that has not ended, is above ``first``, the best, and is the highest of such; None: there is none.

    While a study goes on by freezing and thawing, its most promising trials have not ended.
    """
    floor = first.values[0] if first else -math.inf
    above = [
        (value, -trial.number, trial)
        for trial in without_foreign(trials)
        if trial.state.name == "RUNNING" and (value := so_far(trial)) is not None and value > floor
    ]
    return max(above)[2] if above else None


def recommended_of(trials: Iterable[FrozenTrial], stored: Mapping[str, Any]) -> int | None:
    """The number of the trial that was recommended when the study ended; None once it has gone on."""
    found = stored.get(attributes.RECOMMENDED)
    if found is None or found["ended"] != ended(trials):
        return None
    return int(found["trial"])


def ended(trials: Iterable[FrozenTrial]) -> int:
    """How many trials of the study itself have ended; imported ones began and ended elsewhere."""
    return sum(trial.state.is_finished() for trial in without_foreign(trials))


def has_reached(stop_at: float | None, trials: Iterable[FrozenTrial]) -> bool:
    """Whether a study is as good as it is to become, whichever of its trials a model recommends in the end."""
    if stop_at is None:
        return False
    first = best(trials)
    return first is not None and first.values[0] >= stop_at


def best(trials: Iterable[FrozenTrial], stored: Mapping[str, Any] | None = None) -> FrozenTrial | None:
    """The first of :func:`ranked`; None while no trial has ended with a value."""
    return next(iter(ranked(trials, stored)), None)
