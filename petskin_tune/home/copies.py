"""Copies of the SQLite database in a home on a network disk, and which of two is newer.

A copy is a new file each time, ``tune-<term>-<owner>-<counter>-<start of its SHA-256>.db``. Terms count the owners of
the home, so that whatever an owner that was taken over still writes is older than anything of its successor's.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from petskin_tune.faults import reach
from petskin_tune.files import regular
from petskin_tune.files.atomic import replacing
from petskin_tune.files.durable import (
    Damaged,
    Missing,
    Unavailable,
    copy_out,
    names_in,
    read_patiently,
    remove,
    write_new,
)
from petskin_tune.home.default import COPIES

FOLDER = COPIES
KEPT_COPIES = 3
_NAME = re.compile(r"tune-(\d+)-([0-9a-f]{8})-(\d+)-([0-9a-f]{16})\.db")
BUSY_SECONDS = 60.0  # how long a copy waits for a writer of the database


@dataclass(frozen=True, order=True)
class Rank:
    """An owner of the home; of two that took the same term at once, the greater name owns it."""

    term: int
    owner: str  # eight hexadecimal digits


@dataclass(frozen=True, order=True)
class Version:
    """A state of the database: whose, and how many copies were begun by then."""

    rank: Rank
    counter: int


NOTHING = Version(Rank(0, "00000000"), 0)


@dataclass(frozen=True)
class Copy:
    """A copy in the home, whole or not."""

    path: Path
    version: Version
    sha256: str  # its first 16 digits


class Copies:
    """The copies in a folder of the home.

    Args:
        folder: on a network or FUSE disk.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def newest_first(self) -> list[Copy]:
        """All copies by their names, the newest first.

        Raises:
            Unavailable: the disk does not answer.
        """
        found = [self._read(name) for name in names_in(self._folder)]
        return sorted((copy for copy in found if copy), key=lambda copy: copy.version, reverse=True)

    def _read(self, name: str) -> Copy | None:
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        return Copy(self._folder / name, Version(Rank(int(match[1]), match[2]), int(match[3])), match[4])

    def add(self, database: Path, version: Version, sha256: str) -> None:
        """Copy a closed database file into the folder as ``version``, verified, and keep the three newest.

        Raises:
            Full, Unavailable, Damaged: it did not come to lie there; older copies are untouched.
        """
        rank = version.rank
        name = f"tune-{rank.term:06d}-{rank.owner}-{version.counter:06d}-{sha256[:16]}.db"
        write_new(database, self._folder / name, network=True)
        reach("home-copied")
        for copy in self.newest_first()[KEPT_COPIES:]:
            with contextlib.suppress(OSError):
                remove(copy.path, network=True)

    def fetch_newest_good(self, newer_than: Version, target: Path) -> tuple[Copy | None, list[str]]:
        """Copy the newest whole copy beyond ``newer_than`` to ``target``.

        Returns:
            The copy, or None when there is none, and one clause for each that was rejected.

        Raises:
            Unavailable: the disk does not answer.
            Full: the local disk has no room.
        """
        rejected = []
        for copy in self.newest_first():
            if copy.version <= newer_than:
                break
            try:
                read_patiently(partial(copy_out, copy.path, target, copy.sha256))
            except (Missing, Damaged) as error:
                rejected.append(str(error))
            else:
                return copy, rejected
        return None, rejected


@dataclass(frozen=True)
class LocalState:
    """What the database on this machine is: the state of which home, at which version."""

    home: str  # the home's id
    version: Version

    @classmethod
    def read(cls, path: Path) -> LocalState | None:
        """What was written last; None: nothing, or nothing that can be read."""
        try:
            found = json.loads(regular.read_text(path))
            rank = Rank(**found["version"].pop("rank"))
            return cls(found["home"], Version(rank, **found["version"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, path: Path) -> None:
        """Replace what was written last."""
        with replacing(path) as file:
            file.write(json.dumps(asdict(self)).encode())


def take_copy(database: Path, target: Path) -> None:
    """A consistent copy of a SQLite database in use, as one file.

    Raises:
        Unavailable: SQLite refuses: locked for too long, no room, or damaged.
    """
    target.unlink(missing_ok=True)
    try:
        with (
            contextlib.closing(sqlite3.connect(database, timeout=BUSY_SECONDS)) as source,
            contextlib.closing(sqlite3.connect(target)) as copy,
        ):
            copy.execute("PRAGMA synchronous = OFF")  # it is hashed and read back where it goes
            source.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # the copy is one file: no write-ahead log beside it
    except sqlite3.Error as error:
        raise Unavailable(f"the database cannot be copied: {error}") from error


def put_in_place(database: Path, restored: Path) -> None:
    """Let ``restored`` be the database; nobody may have the old one open."""
    for suffix in ("-wal", "-shm"):  # they belong to the old file, and would be applied to the new one
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    restored.replace(database)
