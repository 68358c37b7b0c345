"""Regular files only: a device, a FIFO or, where it matters, a symbolic link is refused before it is read or written.

A name that a person or another machine gives may be anything. ``/dev/zero`` never ends, a FIFO waits for a writer
that never comes, and a link in a folder that others may write to leads to a file of this user's.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

BLOCK = 1 << 20  # bytes per read


class NotRegular(OSError):
    """Something else than a regular file lies there."""

    def __init__(self, path: Path, kind: str) -> None:
        super().__init__(errno.EINVAL, f"it is {kind}, not a file", str(path))


class TooLarge(OSError):
    """The file is larger than what is read of its kind."""

    def __init__(self, path: Path, most: int) -> None:
        super().__init__(errno.EFBIG, f"it is larger than {most / 1e6:.3g} MB", str(path))


def open_regular(path: Path, flags: int = os.O_RDONLY, *, follow: bool = True, mode: int = 0o666) -> int:
    """A descriptor of the regular file at ``path``; nothing is read, written or waited for.

    Args:
        path: any path.
        flags: as ``os.open`` takes them; with ``O_TRUNC`` only a regular file is emptied.
        follow: whether a symbolic link at its end is followed.
        mode: of a file that ``O_CREAT`` makes.

    Raises:
        NotRegular: a folder, a device, a FIFO or a socket; a link, with ``follow`` off.
        OSError: it is not there, or may not be opened.
    """
    careful = flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        descriptor = os.open(path, (careful if follow else careful | os.O_NOFOLLOW) & ~os.O_TRUNC, mode)
    except OSError as error:
        if not follow and error.errno == errno.ELOOP and path.is_symlink():
            raise NotRegular(path, "a symbolic link") from error
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotRegular(path, kind_of(status.st_mode))
        if flags & os.O_TRUNC:
            os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_regular(path: Path, most: int) -> bytes:
    """The content of a regular file of at most ``most`` bytes.

    Raises:
        NotRegular, TooLarge: it is none, or too large.
        OSError: it is not there, or cannot be read.
    """
    descriptor = open_regular(path)
    try:
        blocks, size = [], 0
        while block := os.read(descriptor, min(BLOCK, most + 1 - size)):
            blocks.append(block)
            size += len(block)
            if size > most:
                raise TooLarge(path, most)
        return b"".join(blocks)
    finally:
        os.close(descriptor)


def require_replaceable(path: Path) -> None:
    """Refuse to put a file in the place of a device, a FIFO, a socket or a folder; a link's own target is looked at.

    Raises:
        NotRegular: something of that kind is there.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode):
        raise NotRegular(path, kind_of(status.st_mode))


def kind_of(mode: int) -> str:
    """What a file of this ``st_mode`` is, in words."""
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFLNK: "a symbolic link",
    }
    return kinds.get(stat.S_IFMT(mode), "no file")
