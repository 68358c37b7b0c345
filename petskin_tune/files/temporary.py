"""Where temporary files lie: the usual folder of this machine, or where none can be written to, one in the home.

A container may have no folder for them but those that were mounted into it. What is settled here holds for all of this
process, and for libraries in it: they ask :mod:`tempfile`, too.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from petskin_tune.errors import UsageError

_OF_THE_SYSTEM = ("/tmp", "/var/tmp", "/usr/tmp")
_instead: Path | None = None


def fall_back_on(folder: Path) -> None:
    """Name the folder that is used where the machine has none; it is made when it is needed."""
    global _instead
    _instead = folder


def usual() -> Path | None:
    """The folder of :func:`tempfile.gettempdir`; None: there is none that this user may write to."""
    if tempfile.tempdir is not None and not os.path.isdir(tempfile.tempdir):
        tempfile.tempdir = None  # it was deleted since
    try:
        found = tempfile.gettempdir()
    except FileNotFoundError:
        return None
    if found != os.path.abspath(".") or found in _named():
        return Path(found)
    tempfile.tempdir = None  # the current folder, which tempfile takes last, is a person's own
    return None


def _named() -> set[str]:
    """The folders that are there for temporary files."""
    of_variables = (os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    return {os.path.abspath(folder) for folder in (*of_variables, *_OF_THE_SYSTEM, _instead) if folder}


def place() -> Path:
    """The folder for temporary files.

    Raises:
        UsageError: there is none that this user may write to.
    """
    if (found := usual()) is not None:
        return found
    if _instead is not None and _is_usable(_instead):
        tempfile.tempdir = str(_instead)
        return _instead
    raise UsageError(
        "This machine has no folder for temporary files that this user may write to, and neither is the home one: set "
        "TMPDIR to a folder that is."
    )


@contextlib.contextmanager
def new_folder() -> Iterator[Path]:
    """An empty folder of this user's alone, which is deleted in the end.

    Raises:
        UsageError: see :func:`place`.
        OSError: the disk refuses.
    """
    with tempfile.TemporaryDirectory(dir=place()) as folder:
        yield Path(folder)


def _is_usable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"as tempfile tries its own")
    except OSError:
        return False
    return True
