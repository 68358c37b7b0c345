"""What to tell a person about an error: one sentence for every kind that can be foreseen."""

from __future__ import annotations

import errno
import os
import sys

from petskin_tune.errors import UsageError
from petskin_tune.files.durable import StoreError
from petskin_tune.opening.places import Places

SCREEN = 1600  # characters of a refusal
# Full, read-only, broken or closed to this user: nothing that petskin-tune could have foreseen or can mend.
OF_THE_DISK = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)


def as_refusal(error: Exception) -> UsageError | None:
    """What to tell a person about an error; None: nobody foresaw it."""
    if isinstance(error, UsageError):
        return error
    if isinstance(error, StoreError):
        return UsageError(f"The store cannot be used: {error}.")
    if isinstance(error, OSError) and error.errno in OF_THE_DISK:
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return UsageError(f"This machine's disk refuses: {where}{error.strerror}.")
    if "sqlalchemy" not in sys.modules:  # whose errors the rest are
        return None
    from petskin_tune.database.refusals import refusal

    return refusal(error)


def of_damage(places: Places | None) -> UsageError | None:
    """What to say of an error that nobody foresaw, where SQLite finds its file damaged: its rows may be anything."""
    if places is None or "sqlalchemy" not in sys.modules:
        return None
    from petskin_tune.database.refusals import AFTER_DAMAGE
    from petskin_tune.database.sqlite_file import is_whole
    from petskin_tune.files.paths import is_file
    from petskin_tune.home.home import resolve_home

    home = resolve_home(places.home, places.storage, None, os.environ, study=places.study, ephemeral=True)
    file = home.database
    if file is None or not is_file(file) or is_whole(file):
        return None
    return UsageError(f"{file} is damaged, says SQLite's quick_check. {AFTER_DAMAGE}")
