"""What was found in the files of a data set: read once, and remembered while their times and sizes stay the same."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from petskin_tune.datasets.labels import rows as labels
from petskin_tune.datasets.pictures.reading import picture_fault
from petskin_tune.errors import UsageError
from petskin_tune.files.atomic import write_whole
from petskin_tune.printable import raw

_VERSION = 3  # of the file; another one is read over
_SETTLED = 2.0  # seconds; a file younger than this may change again without a visible change of its time
_THREADS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class Label:
    """A label file: a digest of its rows, its objects by class number as text, and whether all rows are outlines."""

    digest: str
    objects: Mapping[str, int]
    outlines: bool = True


NO_LABEL = Label("", {})  # the same as an empty file: both are background


class Examined:
    """Looks into label files and pictures, or remembers them from last time.

    Args:
        data_yaml: of the data set.
        cache: folder for what was found; None: nothing is kept.
    """

    def __init__(self, data_yaml: Path, cache: Path | None):
        place = hashlib.sha256(raw(str(data_yaml))).hexdigest()[:32]
        self._file = cache / "fingerprints" / f"{place}.json" if cache else None
        self._known = _read(self._file)
        self._next: dict[str, dict[str, list[Any]]] = {"labels": {}, "pictures": {}}

    def label(self, path: Path) -> Label:
        """What a label file holds.

        Raises:
            UsageError: it is none, or cannot be read.
        """
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return NO_LABEL
        except (OSError, ValueError) as error:
            raise UsageError(f"The labels {path} cannot be read: {error}.") from error
        found = self._remembered("labels", path, status)
        label = Label(*found) if found is not None else _read_label(path)
        self._remember("labels", path, status, astuple(label))
        return label

    def picture_faults(self, images: Sequence[Path]) -> list[str]:
        """Why a training would end at each of these pictures; empty where it would not."""
        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(self._picture_fault, images))

    def _picture_fault(self, image: Path) -> str:
        try:
            status = os.stat(image)
        except (OSError, ValueError) as error:
            return f"cannot be read: {getattr(error, 'strerror', None) or error}"
        if self._remembered("pictures", image, status) is not None:
            return ""
        fault = picture_fault(image)
        if not fault:  # a fault may be mended elsewhere, by a package that reads the format
            self._remember("pictures", image, status, ())
        return fault

    def _remembered(self, kind: str, path: Path, status: os.stat_result) -> list[Any] | None:
        entry = self._known[kind].get(str(path))
        return entry[2:] if entry and entry[:2] == [status.st_mtime_ns, status.st_size] else None

    def _remember(self, kind: str, path: Path, status: os.stat_result, found: Sequence[Any]) -> None:
        if time.time() - status.st_mtime > _SETTLED:
            self._next[kind][str(path)] = [status.st_mtime_ns, status.st_size, *found]

    def save(self) -> None:
        """Keep what was found for the next time, where the disk takes it."""
        if not self._next["pictures"]:
            self._next["pictures"] = self._known["pictures"]  # nobody asked for them this time
        if self._file and self._next != self._known:
            with suppress(OSError):  # nothing depends on it but time
                write_whole(self._file, json.dumps({"version": _VERSION, **self._next}))


def _read(file: Path | None) -> dict[str, dict[str, list[Any]]]:
    nothing: dict[str, dict[str, list[Any]]] = {"labels": {}, "pictures": {}}
    try:
        content = json.loads(file.read_text(encoding="utf-8")) if file else None
    except (OSError, ValueError):
        return nothing
    if isinstance(content, dict) and content.get("version") == 2:  # labels are judged otherwise since, pictures are not
        content |= {"version": _VERSION, "labels": {}}
    if not isinstance(content, dict) or content.pop("version", None) != _VERSION or content.keys() != nothing.keys():
        return nothing  # an older version's or a damaged file
    return content


def _read_label(path: Path) -> Label:
    rows = labels.label_lines(path)
    if not rows:
        return NO_LABEL
    objects = {str(number): count for number, count in labels.objects(path, rows).items()}
    content = "\n".join(" ".join(row) for row in rows)
    outlines = not any(labels.row_faults(rows))
    return Label(hashlib.sha256(raw(content)).hexdigest()[:32], objects, outlines)
