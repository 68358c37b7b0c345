"""The database of a home that was copied from a local disk to a network disk, or the other way round.

On a local disk it lies in the home as ``tune.db``, on a network disk as copies in ``database/``.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from petskin_tune.database.sqlite_file import is_whole
from petskin_tune.errors import UsageError
from petskin_tune.files.atomic import only_one, sync_folder
from petskin_tune.files.durable import StoreError, translated
from petskin_tune.files.paths import is_file
from petskin_tune.files.regular import open_regular
from petskin_tune.home.copies import FOLDER, NOTHING, Copies, put_in_place, take_copy


def from_local_disk(source: Path, target: Path) -> bool:
    """Copy the database of a home that came from a local disk, with what only its write-ahead log has.

    Args:
        source: where a local home has it, now on a network disk.
        target: a new file on this machine's own disk.

    Returns:
        Whether there is one.

    Raises:
        StoreError: a disk refuses.
        UsageError: it is damaged.
    """
    if not is_file(source):
        return False
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        copied = Path(folder) / source.name
        for suffix in ("", "-wal"):
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
            raise UsageError(f"The database {source} is damaged: copy the home again, or move it away to start anew.")
        take_copy(copied, target)
    return True


def from_network_disk(home: Path, database: Path) -> bool:
    """Bring the newest whole copy of a home that came from a network disk to where a local home has its database.

    Args:
        home: the home's folder.
        database: not there; another process may be faster.

    Returns:
        Whether there was one.

    Raises:
        UsageError: none is whole, or a disk refuses.
    """
    copies = home / FOLDER
    if not copies.is_dir():
        return False
    with only_one(database.parent):
        if is_file(database):
            return False
        temporary = database.with_name(f".{database.name}.moved")
        try:
            copy, rejected = Copies(copies).fetch_newest_good(NOTHING, temporary)
        except StoreError as error:
            raise UsageError(f"The copies of the database in {copies} cannot be read: {error}.") from error
        if copy is not None:
            put_in_place(database, temporary)
            sync_folder(database.parent)
        elif rejected:
            raise UsageError(
                f"None of the {len(rejected)} copies of the database in {copies} is whole: move them away to start "
                "anew."
            )
        return copy is not None
