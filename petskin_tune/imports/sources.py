"""What a person names to import: a run folder, its results.csv, a log of tune, or a folder that holds some of these."""

from __future__ import annotations

from pathlib import Path

from petskin_tune.errors import UsageError
from petskin_tune.files.paths import is_there
from petskin_tune.imports.runs import Run, read_folder
from petskin_tune.imports.tune_logs import NAMES, is_log, read_log

RESULTS = "results.csv"
_MOST_FOLDERS = 10_000


def read_path(path: Path) -> list[tuple[Path, list[Run]]]:
    """The runs at ``path``, by the file or folder that they are from.

    Raises:
        UsageError: there is none, or one cannot be read.
    """
    if not path.is_dir():
        return [(path, _read(path))]
    if found := _in(path):
        return [(found, _read(found))]
    below = [found for folder in _folders(path) if (found := _in(folder))]
    if not below:
        raise UsageError(f"{path} holds no {RESULTS} and no {NAMES[0]} or {NAMES[1]}, and neither does a folder in it.")
    return [(found, _read(found)) for found in below]


def _read(path: Path) -> list[Run]:
    return read_log(path) if not path.is_dir() and is_log(path) else [read_folder(path)]


def _in(folder: Path) -> Path | None:
    """The log in a folder, else the folder itself where it is a run's."""
    log = next((folder / name for name in NAMES if is_there(folder / name)), None)
    return log or (folder if is_there(folder / RESULTS) else None)


def _folders(path: Path) -> list[Path]:
    try:
        found = sorted(entry for entry in path.iterdir() if entry.is_dir())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from error
    if len(found) > _MOST_FOLDERS:
        raise UsageError(f"{path} holds {len(found)} folders: name those of the runs.")
    return found
