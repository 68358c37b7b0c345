"""Paths that a person typed: looked for and written to; what cannot be done is said in one sentence."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from petskin_tune import printable
from petskin_tune.errors import UsageError

_LONGEST_NAME = 255  # bytes of one name on Linux' file systems
_DIGEST = 16  # hexadecimal digits that tell shortened names apart


def typed(text: str | Path) -> Path:
    """``text`` as a path: ``~`` is the home folder, and ``~nobody`` a name like any other."""
    return Path(os.path.expanduser(text))


def require_current_folder() -> None:
    """Refuse to begin anything in a folder that was deleted since somebody went there.

    Raises:
        UsageError: says so.
    """
    if not _has_current_folder():
        raise UsageError("The current folder is not there any more: go to another (cd), then type the same again.")


def leave_deleted_folder() -> None:
    """Go to ``/`` where the current folder was deleted meanwhile: no process can be started from it."""
    if not _has_current_folder():
        os.chdir("/")


def _has_current_folder() -> bool:
    try:
        os.getcwd()
    except OSError:
        return False
    return True


def looks_like_url(text: str) -> bool:
    """Whether ``text`` was meant as a URL and not as a path: ``SCHEME:/…``, also with a slash or a scheme left out."""
    return re.match(r"[^/]*:/|/*[^/]*:[^/]*@", text) is not None


def resolved(path: Path) -> Path:
    """The absolute path without links, as far as it exists; of a link that leads to itself, the link.

    ``Path.resolve`` raises a RuntimeError of such a link before Python 3.13.
    """
    return Path(os.path.realpath(path))


def fitting_name(text: str, suffix: str = "", longest: int = _LONGEST_NAME) -> str:
    """``text`` and ``suffix`` as one name: a disk takes 255 bytes, and a Korean letter is three of them.

    Args:
        text: shortened where it is too long, to one that no other text gets.
        suffix: of ASCII, kept.
        longest: bytes of the name.
    """
    content = printable.raw(text)
    most = longest - len(suffix)
    if len(content) <= most:
        return f"{text}{suffix}"
    digest = hashlib.sha256(content).hexdigest()[:_DIGEST]
    return f"{content[: most - _DIGEST - 1].decode(errors='ignore')}-{digest}{suffix}"


def is_there(path: Path) -> bool:
    """Whether there is something at ``path``, which may be any text: too long a name is that of no file.

    Raises:
        UsageError: a folder on the way may not be entered.
    """
    try:
        os.stat(path)
    except PermissionError as error:
        raise UsageError(f"{path} cannot be looked at: {error.strerror}.") from error
    except (OSError, ValueError):
        return False
    return True


def is_file(path: Path) -> bool:
    """Whether there is a file at ``path``; see :func:`is_there`."""
    return is_there(path) and path.is_file()


def require_folder(path: Path) -> None:
    """Refuse a file whose folder is missing, before the work begins.

    Raises:
        UsageError: says which.
    """
    if not os.path.isdir(path.parent):
        raise UsageError(f"{path} cannot be written: there is no folder {path.parent}.")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Refuse to write ``path`` where its folder is missing, before the work begins, or where the disk refuses, after.

    Raises:
        UsageError: says which and why.
    """
    require_folder(path)
    try:
        yield
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}.") from error


@contextmanager
def filling(folder: Path) -> Iterator[None]:
    """Turn a disk that is full, or refuses, while files of ``folder`` are made into one sentence.

    Raises:
        UsageError: says what and why.
    """
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{error.filename or folder} cannot be read or written: {error.strerror or error}; make room, or "
            "name another place."
        ) from error
