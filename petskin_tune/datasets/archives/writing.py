"""A data set in one file: what a network disk copies in a minute, where 17,000 small files take hours."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from petskin_tune.datasets.archives.names import CHECKSUMS, is_litter
from petskin_tune.errors import UsageError
from petskin_tune.files.atomic import replacing
from petskin_tune.files.paths import resolved, typed
from petskin_tune.files.regular import require_replaceable


def write_archive(folder: Path, archive: Path, progress: Callable[[int, int], None] = lambda *_: None) -> None:
    """Write all files of a data set into one .tar, the same bytes for the same files.

    It is not compressed: photographs are already, and a plain tar is read fastest. Its last file holds the checksums of
    all others, because a tar has none of its own. A file that is there is replaced once the new one is whole.

    Args:
        folder: the data set; hidden files and Ultralytics' label caches stay out.
        archive: the file to write.
        progress: called with (done, all) files.

    Raises:
        UsageError: see :func:`require_writable_archive`.
    """
    archive = require_writable_archive(folder, archive)
    names = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()
    )
    names = [name for name in names if name != CHECKSUMS and not is_litter(name) and not _is_hidden(name)]
    checksums: dict[str, str] = {}
    with (
        replacing(archive, durable=False, alone=True) as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as opened,
    ):
        for number, name in enumerate(names, 1):
            with open(folder / name, "rb") as content:
                checksums[name] = _add(opened, name, content, os.fstat(content.fileno()).st_size)
            progress(number, len(names))
        listed = json.dumps(checksums, indent=0).encode()
        _add(opened, CHECKSUMS, io.BytesIO(listed), len(listed))


def require_writable_archive(folder: Path, archive: Path) -> Path:
    """Where :func:`write_archive` would write; asked before the hours of an import.

    Raises:
        UsageError: the name is not one that is recognised as a plain tar, it lies inside the data set, or nothing can
            be written there.
    """
    archive = resolved(typed(archive))
    if archive.suffix.lower() != ".tar":
        raise UsageError(f"{archive.name} must end in .tar; compression gains nothing on photographs.")
    if archive.is_relative_to(folder):
        raise UsageError(f"{archive} lies inside the data set it is to hold; give a path elsewhere.")
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        require_replaceable(archive)
    except OSError as error:
        raise UsageError(f"{archive} cannot be written: {error.strerror or error}.") from error
    if not os.access(archive.parent, os.W_OK | os.X_OK):
        raise UsageError(f"{archive.parent} cannot be written to; give the archive another path.")
    return archive


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _add(opened: tarfile.TarFile, name: str, content: IO[bytes], size: int) -> str:
    """Add a file and return the SHA-256 of what was added."""
    entry = tarfile.TarInfo(name)
    entry.size = size
    hashed = _Hashed(content)
    opened.addfile(entry, hashed)
    return hashed.digest.hexdigest()


class _Hashed(io.RawIOBase):
    """A file that digests what is read from it."""

    def __init__(self, content: IO[bytes]) -> None:
        self._content = content
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """As the file itself."""
        piece = self._content.read(size)
        self.digest.update(piece)
        return piece
