"""Rows of Optuna's whose value is no JSON: cut short by a damaged copy or by somebody's script.

Optuna reads a whole study, or all studies, and stops at the first such row. Once one was met, this process passes over
all of them: an attribute is None then, and counts as one that is not of the kind that is written under its name. Until
then nothing is looked at twice.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from optuna.distributions import json_to_distribution
from optuna.storages._rdb import models as _models
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
        return read()
    except json.JSONDecodeError:
        _pass_over()
    try:
        return read()
    except json.JSONDecodeError as error:
        raise UsageError(
            f"The database holds a row that was cut short ({error}). Put a copy of the database in its place, or begin "
            "a study of another name."
        ) from error


def value_of(text: str) -> Any:
    """What a row says; None: it is no JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None


def drop_parameters(trial: Any) -> None:
    """Take the parameters whose distribution cannot be read off a row of Optuna's trials, in memory."""
    readable = []
    for row in trial.params:
        try:
            json_to_distribution(row.distribution_json)
        except (ValueError, KeyError, TypeError):
            _say(f"the parameter `{row.param_name}` of trial {trial.number}")
        else:
            readable.append(row)
    set_committed_value(trial, "params", readable)


def drop_optunas(trial: Any) -> None:
    """Take system attributes that cannot be read off a row of Optuna's trials, in memory: Optuna trusts its own."""
    if _passes_over:
        readable = [row for row in trial.system_attributes if row.key.startswith(OURS) or row.value_json != "null"]
        set_committed_value(trial, "system_attributes", readable)


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
    sentence = f"{what} in the database was cut short, and is passed over"
    log.warning("%s", sentence)
    print(f"warning: {sentence}", file=sys.stderr)
