"""Rows that cannot be read: cut short by a damaged copy, or changed by somebody's script.

Optuna reads a whole study, or all studies, and stops at the first attribute that is no JSON. Until one was met nothing
is looked at twice. From then on every attribute is looked at as it is loaded:

* A view goes on without it (:attr:`~petskin_tune.database.storage.PetskinStorage.tolerant`): it is None then, and a
  fitness or parameter that is no number is left out. This is said once.
* Whoever trains goes on without what other people attached to trials. Anything else is refused: a row that says what to
  train, from where or for whom must not be taken for one that was never written.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy
from optuna.distributions import json_to_distribution
from optuna.exceptions import StorageInternalError
from optuna.storages._rdb import models as _models
from optuna.trial import FrozenTrial
from sqlalchemy import event
from sqlalchemy.orm.attributes import set_committed_value

from petskin_tune.errors import UsageError
from petskin_tune.printable import one_line

Result = TypeVar("Result")
models: Any = _models

OURS = "petskin-tune:"  # how the names of our attributes begin
STORAGE = "storage"  # in a session's `info`: the storage whose it is
ERRORS = (ValueError, LookupError, TypeError, AssertionError, RecursionError)  # of whoever reads a strange row
log = logging.getLogger(__name__)

_OF_STUDIES = (models.StudyUserAttributeModel, models.StudySystemAttributeModel)
_OF_TRIALS = (models.TrialUserAttributeModel, models.TrialSystemAttributeModel)
_OF_PEOPLE = (models.StudyUserAttributeModel, models.TrialUserAttributeModel)
_NO_JSON = (ValueError, TypeError, RecursionError)
_NO_TEXT = "Could not decode to UTF-8"  # SQLite's own words
_LONGEST = 200  # characters of what a row is called
_MOST_SAID = 100
_said: set[str] = set()
_looks = False


class Unreadable(UsageError):
    """A row cannot be read without which nothing may be done: it says nothing about any trial."""

    def __init__(self, what: object) -> None:
        super().__init__(
            f"The database holds a row that cannot be read ({one_line(str(what))[:_LONGEST]}). Put a copy of the "
            "database in its place, or begin a study of another name."
        )


def passing_over(read: Callable[[], Result]) -> Result:
    """The result of ``read``, which is run again where it met a row that cannot be read.

    Raises:
        Unreadable: it is one that cannot be passed over.
    """
    try:
        try:
            return read()
        except _NO_JSON as error:
            if not is_first(error):
                raise
            _look_from_now_on()
            return read()
    except Unreadable:
        raise
    except ERRORS as error:
        if _is_of(error, "json", "sqlalchemy"):
            raise Unreadable(error) from error
        raise
    except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError) as error:
        if _NO_TEXT in f"{error} {error.__cause__}":
            raise Unreadable("text that is no UTF-8") from error
        raise


def is_looking() -> bool:
    """Whether such a row was met, so that every attribute is looked at."""
    return _looks


def is_first(error: BaseException) -> bool:
    """Whether it is of the first row that is no JSON: it is looked at which one, where all is read again."""
    return not _looks and _is_of(error, "json")


def _is_of(error: BaseException, *packages: str) -> bool:
    """Whether one of these could make nothing of what it has read; what it is given it refuses by errors of its own."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0] in packages


def value_of(text: str) -> Any:
    """What a row says, of those that we write.

    Raises:
        Unreadable: it is no JSON.
    """
    try:
        return json.loads(text)
    except _NO_JSON as error:
        raise Unreadable(error) from error


def drop_parameters(trial: Any) -> None:
    """Take the parameters that cannot be read off a row of Optuna's trials, in memory."""
    readable = []
    for row in trial.params:
        try:
            json_to_distribution(row.distribution_json).to_external_repr(row.param_value + 0.0)
        except ERRORS:
            _say(f"the parameter `{row.param_name}` of trial {trial.number}")
        else:
            readable.append(row)
    set_committed_value(trial, "params", readable)


def drop_optunas(trial: Any) -> None:
    """Take system attributes that cannot be read off a row of Optuna's trials, in memory: Optuna trusts its own."""
    if _looks:
        readable = [row for row in trial.system_attributes if row.key.startswith(OURS) or row.value_json != "null"]
        set_committed_value(trial, "system_attributes", readable)


def checked(trial: FrozenTrial, *, tolerant: bool) -> FrozenTrial:
    """The trial, without a fitness that is none where that is tolerated.

    Raises:
        Unreadable: its number is none, or a fitness that is not tolerated.
    """
    if not isinstance(trial.number, int):
        raise Unreadable(f"a trial has the number {trial.number!r}")
    if trial.values and not all(map(_is_number, trial.values)):
        _refuse_or_say(f"the value of trial {trial.number}", tolerant)
        trial.values = None
    curve = trial.intermediate_values
    good = {step: value for step, value in curve.items() if isinstance(step, int) and _is_number(value)}
    if len(good) < len(curve):
        _refuse_or_say(f"a fitness of trial {trial.number}", tolerant)
        trial.intermediate_values = good
    return trial


def _is_number(value: object) -> bool:
    return isinstance(value, (float, int))


def _look_from_now_on() -> None:
    global _looks
    if not _looks:
        _looks = True
        for kind in (*_OF_STUDIES, *_OF_TRIALS):
            event.listen(kind, "load", _look)
            event.listen(kind, "refresh", _look)


def _look(row: Any, context: Any, *_attributes: Any) -> None:
    try:
        json.loads(row.value_json)
    except _NO_JSON:
        owner = f"the study's row {row.study_id}" if isinstance(row, _OF_STUDIES) else f"the trial's row {row.trial_id}"
        storage = context.session.info.get(STORAGE)
        is_anybodys = isinstance(row, _OF_PEOPLE) and not str(row.key).startswith(OURS)
        _refuse_or_say(f"the attribute `{row.key}` of {owner}", is_anybodys or bool(storage and storage.tolerant))
        set_committed_value(row, "value_json", "null")


def _refuse_or_say(what: str, tolerant: bool) -> None:
    if not tolerant:
        raise Unreadable(what)
    _say(what)


def _say(what: str) -> None:
    if what in _said or len(_said) >= _MOST_SAID:
        return
    _said.add(what)
    sentence = f"{one_line(what)[:_LONGEST]} in the database cannot be read, and is passed over"
    log.warning("%s", sentence)
    print(f"warning: {sentence}", file=sys.stderr)
