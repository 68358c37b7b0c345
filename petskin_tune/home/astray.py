"""Databases that older releases put outside of their home: a path with ``%20`` or ``?`` was read as a URL's."""

from __future__ import annotations

import shlex
from pathlib import Path
from urllib.parse import unquote

from petskin_tune.database.sqlite_file import MAGIC
from petskin_tune.errors import UsageError


def require_not_astray(database: Path) -> None:
    """Refuse a home whose database an older release made elsewhere, rather than begin its study anew.

    Args:
        database: where the home's database belongs.

    Raises:
        UsageError: says where it lies, and what to type.
    """
    stray = Path(unquote(str(database).partition("?")[0]))
    if stray == database or not _is_of(database, stray):
        return
    moves = " && ".join(
        f"mv {shlex.quote(f'{stray}{suffix}')} {shlex.quote(f'{database}{suffix}')}"
        for suffix in ("-wal", "-shm", "")
        if Path(f"{stray}{suffix}").exists()
    )
    raise UsageError(
        f"The database of the home {database.parent} lies outside of it, where an older petskin-tune made it: end all "
        f"its workers, then type: {moves}"
    )


def _is_of(database: Path, stray: Path) -> bool:
    """Whether ``stray`` is the database of this home, and not of the home in whose folder it lies."""
    try:
        if database.exists() or not (database.parent / "work").is_dir() or (stray.parent / "work").is_dir():
            return False
        with open(stray, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except (OSError, ValueError):
        return False
