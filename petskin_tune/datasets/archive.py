"""A data set in one file: what a network disk copies in a minute, where 17,000 small files take hours."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from pathlib import Path

from petskin_tune.datasets.archive_names import is_litter
from petskin_tune.datasets.files import PARTIAL
from petskin_tune.errors import UsageError


def write_archive(folder: Path, archive: Path, progress: Callable[[int, int], None] = lambda *_: None) -> None:
    """Write all files of a data set into one .tar, the same bytes for the same files.

    It is not compressed: photographs are already, and a plain tar is read fastest. A file that is there is replaced
    once the new one is whole.

    Args:
        folder: the data set; hidden files and Ultralytics' label caches stay out.
        archive: the file to write.
        progress: called with (done, all) files.

    Raises:
        UsageError: the name is not one that is recognised as a plain tar, or it lies inside the data set.
    """
    archive = archive.expanduser().resolve()
    if archive.suffix.lower() != ".tar":
        raise UsageError(f"{archive.name} must end in .tar; compression gains nothing on photographs.")
    if archive.is_relative_to(folder):
        raise UsageError(f"{archive} lies inside the data set it is to hold; give a path elsewhere.")
    names = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()
    )
    names = [name for name in names if not is_litter(name) and not any(part[0] == "." for part in name.split("/"))]
    archive.parent.mkdir(parents=True, exist_ok=True)
    partial = archive.with_name(archive.name + PARTIAL)
    with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as opened:
        for number, name in enumerate(names, 1):
            entry = tarfile.TarInfo(name)
            entry.size = (folder / name).stat().st_size
            with open(folder / name, "rb") as content:
                opened.addfile(entry, content)
            progress(number, len(names))
    os.replace(partial, archive)
