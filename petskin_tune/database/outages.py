"""Outages of a database told from errors, and the patience with which they are waited out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import sqlalchemy
import tenacity

from petskin_tune.retries import retrying

RETRY_MAX_SECONDS = 10.0  # never further apart, so that an owner is back before a claimer's grace has passed

Result = TypeVar("Result")

# Connection, idle too long, a standby, deadlock, resources, lock, shutdown, disk.
_TRANSIENT_SQLSTATES = ("08", "25P03", "25006", "40", "53", "55P03", "57", "58")
CONNECTION_WAS_LOST = "8s2b"  # https://sqlalche.me/e/20/8s2b
_TRANSIENT_SQLITE = ("locked", "busy", "disk i/o", "full")
_DENIED = ("authentication failed", "no password supplied", "is not permitted to log in", "no pg_hba.conf entry")
_PERMANENT_CONNECT = (*_DENIED, "does not exist", "invalid connection option")


def is_outage(error: BaseException | None) -> bool:
    """Whether the database was away, restarting or busy, so that the same call may succeed later."""
    while error is not None:
        if isinstance(error, sqlalchemy.exc.DBAPIError):
            return _is_transient(error)
        if isinstance(error, sqlalchemy.exc.TimeoutError):  # the pool had no connection to give
            return True
        if isinstance(error, sqlalchemy.exc.PendingRollbackError) and error.code == CONNECTION_WAS_LOST:
            return True  # Optuna tried another statement on it before it gave up
        error = error.__cause__
    return False


def _is_transient(error: sqlalchemy.exc.DBAPIError) -> bool:
    text = str(error.orig).lower()
    if type(error.orig).__module__.startswith("sqlite3"):
        return isinstance(error, sqlalchemy.exc.OperationalError) and any(word in text for word in _TRANSIENT_SQLITE)
    if error.connection_invalidated or isinstance(error, sqlalchemy.exc.InterfaceError):
        return True
    if any(word in text for word in _PERMANENT_CONNECT):
        return False
    code = getattr(error.orig, "pgcode", None)
    if code is not None:
        return str(code).startswith(_TRANSIENT_SQLSTATES)
    return isinstance(error, sqlalchemy.exc.OperationalError) or "connection" in text


def of_database(error: BaseException | None) -> sqlalchemy.exc.DBAPIError | None:
    """The database's error behind ``error``, as SQLAlchemy tells it; Optuna wraps it."""
    while error is not None and not isinstance(error, sqlalchemy.exc.DBAPIError):
        error = error.__cause__
    return error


def is_denied(error: BaseException) -> bool:
    """Whether the server does not let this user in, or not any more: a password that was changed."""
    found = of_database(error)
    if found is None or found.orig is None:
        return False
    code = str(getattr(found.orig, "pgcode", None) or "")
    return code.startswith("28") or any(words in str(found.orig) for words in _DENIED)


def _nobody(_seconds: float) -> None:
    pass


@dataclass
class Patience:
    """How long a call waits for a database that is away, and who is told.

    Attributes:
        seconds: give up after so long; None: never.
        cancelled: set it, and a waiting call gives up at once.
        on_wait: called with the seconds that the database has been away, before every new attempt.
        on_denied: called when the server lets this user in no more, which is then waited for as for an outage; None:
            that is an error.
        failures: how often a call has found it away so far, in whatever thread.
    """

    seconds: float | None = 15.0
    cancelled: threading.Event = field(default_factory=threading.Event)
    on_wait: Callable[[float], None] = _nobody
    on_denied: Callable[[], None] | None = None
    failures: int = 0

    def _passes(self, error: BaseException) -> bool:
        return is_outage(error) or (self.on_denied is not None and is_denied(error))

    def call(self, function: Callable[[], Result]) -> Result:
        """The result of ``function``, tried again while the database is away (its last error when patience ends)."""

        def before_sleep(state: tenacity.RetryCallState) -> None:
            self.failures += 1
            error = state.outcome.exception() if state.outcome else None
            if self.on_denied is not None and error is not None and is_denied(error):
                self.on_denied()
            self.on_wait(state.seconds_since_start or 0.0)

        again = retrying(
            self.seconds,
            self._passes,
            stopped=self.cancelled,
            pauses=(0.1, RETRY_MAX_SECONDS),
            before_pause=before_sleep,
        )
        return again(function)
