"""Homes that were copied from a local disk to a network disk, or the other way round.

On a local disk the database lies in the home as ``tune.db``, on a network disk as copies in ``database/``. Which of the
two is the newest, and whether a worker elsewhere still writes to it, only a person knows: so one of them is moved by
hand, and never taken over by itself.
"""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from petskin_tune.database.sqlite_file import is_whole
from petskin_tune.errors import UsageError
from petskin_tune.files.durable import StoreError, translated
from petskin_tune.files.paths import is_file
from petskin_tune.files.regular import open_regular
from petskin_tune.home.copies import FOLDER, Copies, take_copy

MOVED = "moved.db"  # among the copies: the database of a home that came from a local disk, put there by a person
_LOG = "-wal"  # suffix of what SQLite has not written to the database itself yet


def require_not_moved(database: Path, *, network: bool) -> None:
    """Refuse a home whose database is kept as on another kind of disk.

    Args:
        database: where a local disk has it in the home.
        network: whether the home is on a network disk, and so has ``database``; else it has the copies of one.

    Raises:
        UsageError: says what to type.
    """
    copies = database.parent / FOLDER
    try:
        newest = Copies(copies).newest_first() if copies.is_dir() else []
    except StoreError:
        return  # a disk that does not answer is told of when it is opened
    if network and newest:
        raise UsageError(
            f"The home {database.parent} holds two databases, {database.name} of a local disk and copies in {copies}: "
            "move the one away that is not to go on."
        )
    if network:
        raise UsageError(
            f"The home {database.parent} comes from a local disk, and its database cannot be used on a network disk. "
            "Go on where that disk is; or end all its workers there, and let it go on here by typing: "
            f"{' && '.join(_moves(database, copies))}"
        )
    if newest:
        here, there = shlex.quote(str(database)), shlex.quote(str(copies))
        raise UsageError(
            f"The home {database.parent} comes from a network disk. End all its workers there, and let it go on here "
            f"by typing: cp {shlex.quote(str(newest[0].path))} {here} && mv {there} {there}-of-before"
        )


def _moves(database: Path, copies: Path) -> Iterator[str]:
    yield f"mkdir -p {shlex.quote(str(copies))}"
    for suffix in (_LOG, ""):
        if is_file(part := database.with_name(database.name + suffix)):
            yield f"mv {shlex.quote(str(part))} {shlex.quote(str(copies / MOVED) + suffix)}"


def take_over(copies: Path, target: Path) -> bool:
    """Copy the database that a person has moved among the copies of a network home.

    Args:
        copies: their folder.
        target: a new file on this machine's own disk.

    Returns:
        Whether there is one.

    Raises:
        StoreError: a disk refuses.
        UsageError: it is damaged.
    """
    source = copies / MOVED
    if not is_file(source):
        return False
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        copied = Path(folder) / source.name
        for suffix in ("", _LOG):
            part = source.with_name(source.name + suffix)
            if suffix and not is_file(part):
                continue
            with (
                translated(f"reading {part.name}"),
                open(open_regular(part), "rb") as file,
                open(copied.with_name(part.name), "xb") as copy,
            ):
                shutil.copyfileobj(file, copy)
        if not is_whole(copied):
            raise UsageError(f"The database {source} is damaged: move it here again, or move it away to start anew.")
        take_copy(copied, target)
    return True
