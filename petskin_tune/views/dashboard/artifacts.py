"""Pictures and arguments on the pages of trials: their rows, and files that can do nothing but be looked at.

optuna-dashboard lists what stands in attributes of study and trial under ``artifacts:`` and takes all of it for right:
a row that is none ends its page, and a file is sent as whatever type its row names, to pages of any origin.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from bottle import HTTPResponse
from optuna.artifacts.exceptions import ArtifactNotFound

from petskin_tune import text as words
from petskin_tune.checkpoints.artifacts import PREFIX, Artifacts, read_row
from petskin_tune.study import attributes
from petskin_tune.study.stored import recorded

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

OF_A_TRIAL = "dashboard:artifacts:{}:{}"  # as optuna-dashboard keeps a trial's artifacts with the study
ARGUMENTS = "Arguments.csv"  # behind the pictures, whose names begin with a number
_ID_OF_ARGUMENTS = "ffffffff-ffff-ffff-ffff-{:012x}"  # with Optuna's id of the trial; no UUID that Optuna draws
_IS_OF_ARGUMENTS = re.compile(r"f{8}-(?:f{4}-){3}([0-9a-f]{12})")
_LARGEST_ID = 2**31 - 1  # that a database takes
_FORMULA = ("=", "+", "-", "@")  # what a spreadsheet computes begins so
_ROWS = (PREFIX, "dashboard:artifacts:")
_PATH = "/artifacts/"
_SHOWN = ("image/jpeg", "image/png", "image/webp", "image/gif", "text/plain", "text/csv", "application/json")
_HEADERS = [  # whatever it is, it runs nothing, loads nothing and is read by no page from elsewhere
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "default-src 'none'; sandbox"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


class ForTheDashboard:
    """An artifact store that answers "not found" where Optuna's protocol raises, which would end in an error 500.

    Args:
        artifacts: of the study.
        arguments: with which a trial trains, by Optuna's id of it.
    """

    def __init__(
        self, artifacts: Artifacts, arguments: Callable[[int], Mapping[str, Any]] = lambda trial_id: {}
    ) -> None:
        self._artifacts = artifacts
        self._arguments = arguments

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """The content of an artifact."""
        try:
            if found := _IS_OF_ARGUMENTS.fullmatch(artifact_id):
                return self._table(int(found.group(1), 16))
            return self._artifacts.open_reader(artifact_id)
        except ArtifactNotFound as error:
            raise HTTPResponse(str(error), status=404) from error

    def _table(self, trial_id: int) -> BinaryIO:
        arguments = self._arguments(trial_id) if trial_id <= _LARGEST_ID else {}
        if not arguments:
            raise ArtifactNotFound(f"there are no arguments of a trial {trial_id}")
        return io.BytesIO(table_of(arguments))

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Keep what a person uploads; only where the dashboard may write."""
        self._artifacts.write(artifact_id, content_body)

    def remove(self, artifact_id: str) -> None:
        """Delete what a person has uploaded; what is made to be looked at cannot be deleted."""
        if _IS_OF_ARGUMENTS.fullmatch(artifact_id):
            return
        try:
            self._artifacts.remove(artifact_id)
        except ArtifactNotFound as error:
            raise HTTPResponse(str(error), status=404) from error


def only_rows(kept: Mapping[str, Any]) -> dict[str, Any]:
    """System attributes of a study or a trial without what claims to be an artifact and is none."""
    found = dict(kept)
    for name in [name for name in kept if name.startswith(_ROWS)]:
        row = read_row(name, kept[name])
        if row is None:
            del found[name]
        else:
            found[name] = json.dumps(row)
    return found


def rows_of_trials(artifacts: Artifacts, ids: Mapping[int, int]) -> dict[str, str]:
    """The pictures of a study's trials, as attributes of the study that optuna-dashboard reads.

    Args:
        artifacts: of the study.
        ids: Optuna's id of each trial, by its number.
    """
    return {
        OF_A_TRIAL.format(ids[number], row["artifact_id"]): json.dumps(row)
        for number, rows in artifacts.rows().items()
        if number in ids
        for row in rows
    }


def rows_of_arguments(trials: Iterable[FrozenTrial]) -> dict[str, str]:
    """A table of its arguments for each trial that has begun, as attributes of the study.

    Args:
        trials: those that may get one.
    """
    found = {}
    for trial in trials:
        if attributes.ARGUMENTS in trial.user_attrs:
            artifact_id = _ID_OF_ARGUMENTS.format(trial._trial_id)
            row = {"artifact_id": artifact_id, "filename": ARGUMENTS, "mimetype": "text/csv", "encoding": None}
            found[OF_A_TRIAL.format(trial._trial_id, artifact_id)] = json.dumps(row)
    return found


def arguments_of(storage: BaseStorage, trial_id: int) -> Mapping[str, Any]:
    """The arguments with which a trial trains, as far as they are recorded."""
    try:
        return recorded(storage.get_trial(trial_id)).get(attributes.ARGUMENTS, {})
    except KeyError:  # it was deleted meanwhile
        return {}


def table_of(arguments: Mapping[str, Any]) -> bytes:
    """Arguments as a CSV file, by name, that a spreadsheet opens and computes nothing of."""
    file = io.StringIO()
    csv.writer(file).writerows([("argument", "value"), *(map(_cell, item) for item in sorted(arguments.items()))])
    return file.getvalue().encode("utf-8-sig")


def _cell(value: Any) -> str:
    shown = words.parameter(value)
    return f"'{shown}" if isinstance(value, str) and shown.startswith(_FORMULA) else shown


class ToLookAt:
    """A WSGI application whose artifacts are pictures and text to look at; all else is a file to save."""

    def __init__(self, application: Application) -> None:
        self._application = application

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        if not environ.get("PATH_INFO", "").startswith(_PATH):
            return self._application(environ, start_response)

        def answer(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            return start_response(status, _safe(headers), *more)

        return self._application(environ, answer)


def _safe(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    kind = next((value for name, value in headers if name.lower() == "content-type"), "").partition(";")[0].strip()
    kept = [
        (name, value) for name, value in headers if name.lower() not in ("content-type", "access-control-allow-origin")
    ]
    if kind in _SHOWN:
        return [*kept, ("Content-Type", kind), *_HEADERS]
    saved = [("Content-Type", "application/octet-stream"), ("Content-Disposition", "attachment")]
    return [*kept, *saved, *_HEADERS]
