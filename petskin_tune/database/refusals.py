"""What a database's errors mean to a person: one sentence for each kind, wherever they come up."""

from __future__ import annotations

import sqlalchemy

from petskin_tune.database.outages import is_denied, is_outage, of_database
from petskin_tune.database.privileges import read_only
from petskin_tune.error_text import one_line
from petskin_tune.errors import UsageError

AFTER_DAMAGE = (
    "End all its workers, then put a copy of it in its place, or save what can be saved: sqlite3 tune.db '.recover' | "
    "sqlite3 recovered.db"
)
AFTER_FULL = "Make room on its disk, then type the same command again."
_DAMAGE = ("malformed", "not a database", "disk image", "corrupt")


def refusal(error: BaseException) -> UsageError | None:
    """What to tell a person; None: nobody foresaw this error."""
    if is_full(error):
        return UsageError(f"The database has no room left. {AFTER_FULL}")
    if is_outage(error):
        return UsageError("The database was reached and has gone away: type the same command again.")
    found = of_database(error)
    if found is None or found.orig is None:
        return None
    said, code = one_line(found.orig), str(getattr(found.orig, "pgcode", None) or "")
    if is_denied(found):
        return UsageError(f"The database refuses this user or the password by now ({said}).")
    if code == "42501" or "readonly database" in said:
        return read_only("the database", said)
    if is_damaged(found):
        return UsageError(f"The database is damaged: {said}. {AFTER_DAMAGE}")
    if "unable to open database file" in said:
        return UsageError("The database's file is gone, or may not be opened: look for it, then type the same again.")
    if isinstance(found, sqlalchemy.exc.DataError):
        return UsageError(f"The database refuses a value: {said}.")
    if code == "42P01" or "no such table" in said:
        return UsageError(f"Somebody deleted tables of the study's database ({said}): put a copy in its place.")
    return None


def is_full(error: BaseException) -> bool:
    """Whether the disk of an SQLite file, or of the server, has no room: an outage to whoever waits for it."""
    found = of_database(error)
    code = str(getattr(found.orig, "pgcode", None) or "") if found is not None else ""
    return found is not None and (code == "53100" or "database or disk is full" in str(found.orig))


def is_damaged(error: BaseException) -> bool:
    """Whether SQLite or PostgreSQL finds pages that it did not write."""
    found = of_database(error)
    code = str(getattr(found.orig, "pgcode", None) or "") if found is not None else ""
    return found is not None and (code.startswith("XX00") or any(word in str(found.orig) for word in _DAMAGE))
