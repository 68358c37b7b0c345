"""Regular files only: a device, a FIFO or, where it matters, a symbolic link is refused before it is read or written.

A name that a person, a data set or another machine gives may be anything. ``/dev/zero`` never ends, a FIFO waits for a
writer that never comes, and a link in a folder that others may write to leads to a file of this user's. Every error is
an OSError, as of any file that cannot be read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from petskin_tune import printable
from petskin_tune.text import size

LARGEST_TEXT = 64 * 2**20  # bytes of a YAML, a label file or a record
LARGEST_LIST = 2**30  # bytes of a list of files
LARGEST_PICTURE = 2 * 2**30  # bytes


class NotRegular(OSError):
    """Something else than a regular file lies there."""

    def __init__(self, path: Path, kind: str) -> None:
        super().__init__(errno.EINVAL, f"it is {kind}, not a file", str(path))


class TooLarge(OSError):
    """The file is larger than what is read of its kind."""

    def __init__(self, path: Path, largest: int) -> None:
        super().__init__(errno.EFBIG, f"it is larger than the {size(largest)} that are read of such a file", str(path))


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
        if error.errno == errno.ENXIO:  # a FIFO that nobody reads, a socket, a device that is not there
            raise NotRegular(path, kind_of(path.stat().st_mode)) from error
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


@contextmanager
def opened(path: Path, largest: int) -> Iterator[BinaryIO]:
    """A regular file of at most ``largest`` bytes to read from.

    Raises:
        NotRegular, TooLarge: it is none, or too large.
        OSError: it is not there, or cannot be read.
    """
    with open(open_regular(path), "rb") as file:
        if os.fstat(file.fileno()).st_size > largest:
            raise TooLarge(path, largest)
        yield file


def read_bytes(path: Path, largest: int) -> bytes:
    """The content of a file; errors as :func:`opened`."""
    with opened(path, largest) as file:
        content = file.read(largest + 1)  # /proc has files of no size that hold something
    if len(content) > largest:
        raise TooLarge(path, largest)
    return content


def read_text(path: Path, largest: int = LARGEST_TEXT) -> str:
    """The content of a UTF-8 file, without a byte order mark.

    Raises:
        OSError: as :func:`opened`.
        UnicodeDecodeError: it is no UTF-8.
    """
    return read_bytes(path, largest).decode("utf-8-sig")


def read_names(path: Path) -> str:
    """The content of a file that names files, which need not be UTF-8 (see :mod:`petskin_tune.printable`)."""
    return printable.from_raw(read_bytes(path, LARGEST_LIST))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 to what a person named, which may be a device or a FIFO, as a shell's ``>(…)`` is: never wait for it.

    What UTF-8 has not, half a pair of surrogates, is spelled out; the file is emptied when all else is ready.

    Raises:
        NotRegular: a FIFO that nobody reads, or a socket.
        OSError: it cannot be written.
    """
    content = text.encode("utf-8", "backslashreplace")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise NotRegular(path, f"{kind_of(path.stat().st_mode)} that nobody reads") from error
        raise
    os.set_blocking(descriptor, True)  # a reader who is there is given the time to read
    with open(descriptor, "wb") as file:
        file.write(content)


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
