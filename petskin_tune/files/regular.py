"""Reading files that somebody else named: regular ones alone, and never more than fits.

A data set may name a device, a pipe or a file without end. Every error is an OSError, as of any file that cannot be
read.
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


@contextmanager
def opened(path: Path, largest: int) -> Iterator[BinaryIO]:
    """A file to read from.

    Raises:
        OSError: it is not there, cannot be read, is no regular file, or has more than ``largest`` bytes.
    """
    _require_regular(path, os.stat(path), largest)
    with open(path, "rb", opener=_without_waiting) as file:
        _require_regular(path, os.fstat(file.fileno()), largest)  # it may be another one by now
        yield file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe that nobody writes to would be waited for


def _require_regular(path: Path, status: os.stat_result, largest: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device, a pipe or a socket"
        raise OSError(errno.EINVAL, f"it is {kind}, not a file", str(path))
    if status.st_size > largest:
        raise OSError(errno.EFBIG, f"{size(status.st_size)}, where at most {size(largest)} are read", str(path))


def read_bytes(path: Path, largest: int) -> bytes:
    """The content of a file; errors as :func:`opened`."""
    with opened(path, largest) as file:
        content = file.read(largest + 1)  # /proc has files of no size that hold something
    if len(content) > largest:
        raise OSError(errno.EFBIG, f"more than {size(largest)}", str(path))
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
