"""Connections to an SQLite file that is there, also to one that may only be read."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from petskin_tune.errors import UsageError
from petskin_tune.files import temporary

MAGIC = b"SQLite format 3\x00"  # how such a file begins

Access = Literal["ro", "rw"]


def connect(path: str, access: Access, timeout: float) -> sqlite3.Connection:
    """Open a file that is there; one that was deleted is not made anew, as SQLite does by itself.

    Args:
        path: of the file.
        access: ``ro``: nothing is written to it, and nothing into its folder that this user may not write to.
        timeout: seconds to wait for another process's lock.

    Raises:
        sqlite3.Error: it is not there, or cannot be opened.
        UsageError: it may only be read by a copy, and there is no folder for one.
    """
    if access == "rw":
        return _open(path, "mode=rw", timeout)
    try:
        return _readable(path, "mode=ro", timeout)
    except sqlite3.OperationalError:
        if not os.path.isfile(path):
            raise
    # Its log of unsaved pages needs a file beside it that nobody has made and this user may not make.
    log = Path(f"{path}-wal")
    if not log.is_file() or log.stat().st_size == 0:
        return _readable(path, "immutable=1", timeout)
    with temporary.new_folder() as folder:
        copy = folder / "copy.db"
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
        return _readable(str(copy), "mode=rw", timeout)  # the files live as long as the connection


def _open(path: str, how: str, timeout: float) -> sqlite3.Connection:
    address = f"file:{quote(os.path.abspath(path))}?{how}"
    return sqlite3.connect(address, uri=True, timeout=timeout, check_same_thread=False)


def _readable(path: str, how: str, timeout: float) -> sqlite3.Connection:
    connection = _open(path, how, timeout)
    try:
        connection.execute("PRAGMA schema_version").fetchone()  # until now it was not looked at
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def may_write(path: Path) -> bool:
    """Whether this user may write to a file that is there, and into its folder, where SQLite keeps its log."""
    effective = os.access in os.supports_effective_ids
    return os.access(path, os.W_OK, effective_ids=effective) and os.access(
        path.parent, os.W_OK | os.X_OK, effective_ids=effective
    )


def is_whole(path: Path, timeout: float = 60.0) -> bool:
    """Whether SQLite finds nothing wrong with a file that is there; one that cannot be looked at is not judged."""
    try:
        connection = connect(str(path), "ro", timeout)
        try:
            return bool(connection.execute("PRAGMA quick_check").fetchone() == ("ok",))
        finally:
            connection.close()
    except (sqlite3.OperationalError, UsageError):
        return True
    except sqlite3.DatabaseError:
        return False
