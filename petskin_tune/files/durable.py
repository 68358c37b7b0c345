"""Files that must survive: written whole, read back before they count, told apart when something is wrong with them.

On this machine's own disk a file appears under its name by a rename, so that it is there whole or not at all. On a
network or FUSE disk (a mounted Google Drive) nothing is renamed or rewritten: there a file that is written again may
never be synchronised, and a deleted one keeps filling the trash, so new files get new names, and are emptied before
they are deleted.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import BinaryIO, cast

from petskin_tune.faults import reach
from petskin_tune.files.atomic import replacing
from petskin_tune.files.disks import mount_of
from petskin_tune.files.regular import NotRegular, kind_of, open_regular

BLOCK = 4 << 20  # bytes per read or write: large enough for FUSE, small enough for memory
READS = 2  # a mounted Drive now and then returns wrong bytes once


class StoreError(Exception):
    """Something is wrong with a stored file; the message is a clause for a person to read."""


class Missing(StoreError):
    """The file is not there."""


class Damaged(StoreError):
    """The file is not what was written: truncated, or its SHA-256 differs."""


class Unavailable(StoreError):
    """The place does not answer now; later it may."""


class Full(StoreError):
    """The place has no room left (disk full, or a quota)."""


PASSING = (Unavailable, Full, Damaged)  # worth another try with a new file


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn an OSError on ``what`` into Missing, Full or Unavailable."""
    try:
        yield
    except FileNotFoundError as error:
        raise Missing(f"{what} is not there") from error
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Full(f"{what}: {reason}") from error
        raise Unavailable(f"{what}: {reason}") from error


class SameDisk:
    """Makes sure that a folder is still on the disk that it was on when we began.

    Drive leaves an empty folder behind when it is unmounted: what is written there is lost, what is looked for there
    seems never to have been.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._point = mount_of(folder).point

    def require(self) -> None:
        """Raise Unavailable if the disk was unmounted."""
        if mount_of(self._folder).point != self._point:
            raise Unavailable(f"{self._point} is not mounted any more")


def write_new(source: Path, target: Path, *, network: bool) -> tuple[int, str]:
    """Copy ``source`` to the new file ``target`` and read it back.

    Args:
        source: a file that nobody changes meanwhile.
        target: a file that nobody else writes, in a folder that exists; on a network disk one left half-written
            before is replaced.
        network: whether ``target`` is on a network or FUSE disk.

    Returns:
        Size in bytes and SHA-256 (hexadecimal) of what was read from ``source`` and is now in ``target``.

    Raises:
        Damaged: what was read back differs; nothing is left of it.
        Full, Unavailable, Missing: the disk refused.
    """
    with translated(f"writing {target.name}"):
        if network:
            remove(target, network=True)
            written = _copy_to_new_name(source, target)
        else:
            written = _copy_by_rename(source, target)
    reach("file-written")
    with translated(f"reading {target.name} back"):
        found = measure(target, from_disk=True)
    if found != written:
        with contextlib.suppress(OSError):
            remove(target, network=network)
        raise Damaged(f"{target.name} came back with {found[0]} of {written[0]} bytes or another content")
    return written


def copy_out(source: Path, target: Path, expected: str) -> None:
    """Copy ``source`` to ``target`` on this machine's own disk, where it appears whole and checked or not at all.

    Args:
        source: a file on any disk.
        target: replaced if it is there; its folder is created.
        expected: the SHA-256 that ``source`` must have, or the start of it.

    Raises:
        Damaged: the SHA-256 differs.
        Missing, Full, Unavailable: a disk refused.
    """
    with translated(source.name):
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target, durable=False) as writer:
            size, found = _copy(source, writer)
            if not found.startswith(expected):
                raise Damaged(f"{source.name} ({size} bytes) does not have the SHA-256 that was recorded")


def read_patiently(read: Callable[[], None]) -> None:
    """Run ``read``, and once more where what came was damaged: the file itself may be whole.

    Raises:
        Damaged: it was, each time.
    """
    for attempt in range(READS):
        try:
            return read()
        except Damaged:
            if attempt == READS - 1:
                raise


def names_in(folder: Path) -> list[str]:
    """The names in a folder of a home, which exists unless its disk is gone.

    Raises:
        Unavailable: the disk does not answer, or is gone.
    """
    try:
        with translated(f"listing {folder}"):
            return os.listdir(folder)
    except Missing as error:
        raise Unavailable(str(error)) from error


def measure(path: Path, *, from_disk: bool = False) -> tuple[int, str]:
    """Size in bytes and SHA-256 of a file; ``from_disk`` asks for the disk's bytes rather than those in memory."""
    digest = hashlib.sha256()
    size = 0
    with _opened(path) as file:
        if from_disk and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while block := file.read(BLOCK):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def remove(path: Path, *, network: bool) -> None:
    """Delete a file if it is there, on a network disk emptied first, so that it does not fill the trash.

    A symbolic link is deleted and what it leads to is not touched.

    Raises:
        OSError: the disk refused, or there is no file but a device, a FIFO, a socket or a folder.
    """
    with contextlib.suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            raise NotRegular(path, kind_of(mode))
        if network and stat.S_ISREG(mode):
            os.close(open_regular(path, os.O_WRONLY | os.O_TRUNC, follow=False))
        reach("file-emptied")
        path.unlink()


def _copy(source: Path, target: BinaryIO) -> tuple[int, str]:
    digest = hashlib.sha256()
    size = 0
    with _opened(source) as reader:
        while block := reader.read(BLOCK):
            digest.update(block)
            size += len(block)
            view = memoryview(block)
            while view:
                view = view[target.write(view) :]
    reach("file-copied")
    return size, digest.hexdigest()


def _copy_to_new_name(source: Path, target: Path) -> tuple[int, str]:
    with open(target, "xb", buffering=0) as writer:
        written = _copy(source, cast(BinaryIO, writer))
        os.fsync(writer.fileno())
    return written


def _copy_by_rename(source: Path, target: Path) -> tuple[int, str]:
    with replacing(target) as writer:
        written = _copy(source, writer)
        writer.flush()
        os.fsync(writer.fileno())
        reach("file-synced")
    return written


def _opened(path: Path) -> FileIO:
    """A regular file to read: a FIFO would be waited for, a device never ends."""
    return open(open_regular(path), "rb", buffering=0)
