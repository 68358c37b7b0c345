"""What several views read from Optuna's studies and trials, one way each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from petskin_tune import attributes
from petskin_tune.errors import UsageError
from petskin_tune.spec import StudySpec

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


def read_spec(user_attrs: Mapping[str, Any]) -> StudySpec | None:
    """The spec in force, from a study's user attributes; None for a study that is not ours."""
    stored = user_attrs.get(attributes.SPEC)
    return None if stored is None else StudySpec.model_validate(stored)


def best_trial(trials: Iterable[FrozenTrial]) -> FrozenTrial | None:
    """The complete trial with the highest finite value, the older one of equals."""
    complete = [t for t in trials if t.state.name == "COMPLETE" and t.values and math.isfinite(t.values[0])]
    return max(complete, key=lambda trial: (trial.values[0], -trial.number), default=None)


def find_trial(study: str, trials: Iterable[FrozenTrial], number: int) -> FrozenTrial:
    """Trial ``number``.

    Raises:
        UsageError: the study has none.
    """
    for trial in trials:
        if trial.number == number:
            return trial
    raise UsageError(f"The study {study} has no trial {number}.")


def failure_kind(trial: FrozenTrial) -> str | None:
    """The kind of failure that ended this trial, if one did (out of memory may be told to Optuna as pruned)."""
    failure = trial.user_attrs.get(attributes.FAILURE)
    if failure:
        return str(failure["kind"])
    return "unknown" if trial.state.name == "FAIL" else None
