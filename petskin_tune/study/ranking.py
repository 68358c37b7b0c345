"""Which of a study's trials is the best: one rule for the worker, every command, every view and the store."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_ORDER = ("COMPLETE", "PRUNED")  # states of trials that have ended with a value; any other state has no rank


def ranked(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that have ended with a finite value, best first; of equals the older one comes first.

    Complete trials come before pruned ones whatever their values: a pruned trial's value is the best epoch of a part of
    its training (also where memory ran out or the loss diverged). Trials that run or wait, frozen ones among them, and
    failed ones have no rank.

    A trial that a person added to the study with Optuna (``study.add_trial``, a loop of their own) counts like any
    other, also with values outside of the search space: Optuna's ``best_trial`` and its dashboard say the same, and the
    sampler learns from it. Whoever does not want that adds it as FAIL.
    """
    valued = [
        trial for trial in trials if trial.state.name in _ORDER and trial.values and math.isfinite(trial.values[0])
    ]
    return sorted(valued, key=lambda trial: (_ORDER.index(trial.state.name), -trial.values[0], trial.number))


def best(trials: Iterable[FrozenTrial]) -> FrozenTrial | None:
    """The first of :func:`ranked`; None while no trial has ended with a value."""
    return next(iter(ranked(trials)), None)
