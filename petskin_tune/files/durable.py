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
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from petskin_tune.faults import reach
from petskin_tune.files.disks import mount_of

BLOCK = 4 << 20  # bytes per read or write: large enough for FUSE, small enough for memory
PARTIAL = ".partial"  # ends the name of a file that is being written
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
            written = _copy(source, target)
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
    temporary = _temporary(target)
    with translated(source.name):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            size, found = _copy(source, temporary, sync=False)
            if not found.startswith(expected):
                raise Damaged(f"{source.name} ({size} bytes) does not have the SHA-256 that was recorded")
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


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
    with open(path, "rb", buffering=0) as file:
        if from_disk and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while block := file.read(BLOCK):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def remove(path: Path, *, network: bool) -> None:
    """Delete a file if it is there, on a network disk emptied first, so that it does not fill the trash.

    Raises:
        OSError: the disk refused.
    """
    with contextlib.suppress(FileNotFoundError):
        if network:
            os.truncate(path, 0)
        reach("file-emptied")
        path.unlink()


def replace_with(path: Path, content: bytes) -> None:
    """Give ``path`` on this machine's own disk a new content, whole or not at all, safe against a lost machine."""
    temporary = _temporary(path)
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and deletions in ``folder`` survive a lost machine."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")


def _copy(source: Path, target: Path, *, sync: bool = True) -> tuple[int, str]:
    digest = hashlib.sha256()
    size = 0
    with open(source, "rb", buffering=0) as reader, open(target, "xb", buffering=0) as writer:
        while block := reader.read(BLOCK):
            digest.update(block)
            size += len(block)
            view = memoryview(block)
            while view:
                view = view[writer.write(view) :]
        reach("file-copied")
        if sync:
            os.fsync(writer.fileno())
    return size, digest.hexdigest()


def _copy_by_rename(source: Path, target: Path) -> tuple[int, str]:
    temporary = _temporary(target)
    try:
        written = _copy(source, temporary)
        reach("file-synced")
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)
    return written
