"""Rows of Optuna's that cannot be read: cut short by a damaged copy, or changed by somebody's script.

Optuna reads a whole study, or all studies, and stops at the first attribute that is no JSON. Once one was met, this
process passes over all of them: an attribute is None then, and counts as one that is not of the kind that is written
under its name. Until then nothing is looked at twice. A fitness that is no number, which SQLite takes, is left out. Of
anything else (the state of a trial, its number, a time) it is not known what it should be: that is refused.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from optuna.distributions import json_to_distribution
from optuna.storages._rdb import models as _models
from optuna.trial import FrozenTrial
from sqlalchemy import event
from sqlalchemy.orm.attributes import set_committed_value

from petskin_tune.errors import UsageError

Result = TypeVar("Result")
models: Any = _models

OURS = "petskin-tune:"  # how the names of our attributes begin
log = logging.getLogger(__name__)

_OF_STUDIES = (models.StudyUserAttributeModel, models.StudySystemAttributeModel)
_OF_TRIALS = (models.TrialUserAttributeModel, models.TrialSystemAttributeModel)
_said: set[str] = set()
_passes_over = False


def passing_over(read: Callable[[], Result]) -> Result:
    """The result of ``read``, which is run again where it met a row that cannot be read.

    Raises:
        UsageError: it is one that cannot be passed over.
    """
    try:
        try:
            return read()
        except json.JSONDecodeError:
            _pass_over()
            return read()
    except (ValueError, LookupError, TypeError) as error:
        if isinstance(error, json.JSONDecodeError) or _is_of_sqlalchemy(error):
            raise _refusal(error) from error
        raise


def _is_of_sqlalchemy(error: Exception) -> bool:
    """Whether SQLAlchemy could make nothing of what it has read; what it is given it refuses by errors of its own."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).startswith("sqlalchemy.")


def _refusal(error: object) -> UsageError:
    return UsageError(
        f"The database holds a row that cannot be read ({error}). Put a copy of the database in its place, or begin a "
        "study of another name."
    )


def value_of(text: str) -> Any:
    """What a row says; None: it is no JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None


def drop_parameters(trial: Any) -> None:
    """Take the parameters that cannot be read off a row of Optuna's trials, in memory."""
    readable = []
    for row in trial.params:
        try:
            json_to_distribution(row.distribution_json).to_external_repr(row.param_value + 0.0)
        except (ValueError, LookupError, TypeError):
            _say(f"the parameter `{row.param_name}` of trial {trial.number}")
        else:
            readable.append(row)
    set_committed_value(trial, "params", readable)


def drop_optunas(trial: Any) -> None:
    """Take system attributes that cannot be read off a row of Optuna's trials, in memory: Optuna trusts its own."""
    if _passes_over:
        readable = [row for row in trial.system_attributes if row.key.startswith(OURS) or row.value_json != "null"]
        set_committed_value(trial, "system_attributes", readable)


def checked(trial: FrozenTrial) -> FrozenTrial:
    """The trial without a fitness that is none.

    Raises:
        UsageError: its number is none.
    """
    if not isinstance(trial.number, int):
        raise _refusal(f"a trial has the number {trial.number!r}")
    if trial.values and not all(isinstance(value, (float, int)) for value in trial.values):
        trial.values = None
        _say(f"the value of trial {trial.number}")
    curve = trial.intermediate_values
    if not all(isinstance(step, int) and isinstance(value, (float, int)) for step, value in curve.items()):
        good = {at: value for at, value in curve.items() if isinstance(at, int) and isinstance(value, (float, int))}
        trial.intermediate_values = good
        _say(f"a fitness of trial {trial.number}")
    return trial


def _pass_over() -> None:
    global _passes_over
    if not _passes_over:
        _passes_over = True
        for kind in (*_OF_STUDIES, *_OF_TRIALS):
            event.listen(kind, "load", _look)
            event.listen(kind, "refresh", _look)


def _look(row: Any, *_context: Any) -> None:
    try:
        json.loads(row.value_json)
    except json.JSONDecodeError:
        set_committed_value(row, "value_json", "null")
        owner = f"the study's row {row.study_id}" if isinstance(row, _OF_STUDIES) else f"the trial's row {row.trial_id}"
        _say(f"the attribute `{row.key}` of {owner}")


def _say(what: str) -> None:
    if what in _said:
        return
    _said.add(what)
    sentence = f"{what} in the database cannot be read, and is passed over"
    log.warning("%s", sentence)
    print(f"warning: {sentence}", file=sys.stderr)
