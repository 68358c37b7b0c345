"""What several views read from Optuna's studies and trials, one way each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from petskin_tune.errors import UsageError
from petskin_tune.study import attributes
from petskin_tune.study.failures import Failure
from petskin_tune.study.spec import StudySpec
from petskin_tune.study.stored import read_spec, recorded

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial


def spec_of(study: Study) -> StudySpec | None:
    """The spec in force; None for a study that is not ours.

    Raises:
        UsageError: see :func:`petskin_tune.study.stored.read_spec`.
    """
    stored = study.user_attrs
    return read_spec(stored) if attributes.SPEC in stored else None


def find_trial(study: str, trials: Iterable[FrozenTrial], number: int) -> FrozenTrial:
    """Trial ``number``.

    Raises:
        UsageError: the study has none.
    """
    for trial in trials:
        if trial.number == number:
            return trial
    raise UsageError(f"The study {study} has no trial {number}.")


def failure_of(trial: FrozenTrial) -> Failure | None:
    """What ended this trial, if a failure did (some are told to Optuna as pruned), or what it was given back for."""
    if not trial.state.is_finished():
        return Failure.read(recorded(trial).get(attributes.GIVEN_BACK))
    found = Failure.read(recorded(trial).get(attributes.FAILURE))
    return Failure("unknown", "") if found is None and trial.state.name == "FAIL" else found


def failure_kind(trial: FrozenTrial) -> str | None:
    """The kind of failure that ended this trial, if one did."""
    failure = failure_of(trial) if trial.state.is_finished() else None
    return failure.kind if failure else None
