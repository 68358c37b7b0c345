"""What a data set is, in a few hundred bytes: kept with the study, so that a worker with other data is told so."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from petskin_tune.datasets import layout
from petskin_tune.errors import UsageError
from petskin_tune.files.atomic import write_whole

_REMEMBERED = 5  # values of a label file; an older version kept fewer
_SETTLED = 2.0  # seconds; a file younger than this may change again without a visible change of its time


@dataclass(frozen=True)
class SplitSummary:
    """One split: how much there is, and a digest each of what may differ."""

    images: int
    image_bytes: int
    objects: Mapping[str, int]  # by class number as text, as JSON wants it
    names: str  # digest of the image names
    sizes: str  # digest of names and file sizes
    labels: str  # digest of names and the labels' content


@dataclass(frozen=True)
class Fingerprint:
    """A data set's identity: equal digests mean the same names, image sizes and labels in train and val."""

    digest: str
    names: tuple[str, ...]
    splits: Mapping[str, SplitSummary]

    def to_json(self) -> dict[str, Any]:
        """Plain values, a few hundred bytes as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Fingerprint:
        """The inverse of :meth:`to_json`."""
        splits = {split: SplitSummary(**summary) for split, summary in content["splits"].items()}
        return cls(content["digest"], tuple(content["names"]), splits)


def fingerprint(data_yaml: Path, cache: Path | None = None, *, for_training: bool = False) -> Fingerprint:
    """Take a data set's fingerprint: class names, and names, image sizes and labels of train and val.

    It does not depend on where the data set lies, on line ends, or on the test split, which no trial sees. Images are
    told apart by name and size in bytes; their content is not read.

    Args:
        data_yaml: the data set in force; a subset has a fingerprint of its own.
        cache: folder for what was read of label files, used again while their time and size stay the same.
        for_training: also refuse label files that a training stops at: boxes, unknown classes, no numbers.

    Raises:
        UsageError: an image that the data set lists is missing, or a label file is none.
    """
    data_set = layout.read(data_yaml)
    reader = _LabelReader(data_set.yaml, len(data_set.names), cache)
    splits = {split: _summary(data_set, split, reader) for split in ("train", "val")}
    reader.save()
    if for_training:
        _require_outlines(data_set, reader.unusable)
    described = json.dumps([data_set.names, {split: asdict(summary) for split, summary in splits.items()}])
    return Fingerprint(hashlib.sha256(described.encode()).hexdigest(), data_set.names, splits)


def _require_outlines(data_set: layout.DataSet, unusable: Sequence[Path]) -> None:
    if unusable:
        fault = layout.first_fault(unusable[0], len(data_set.names))
        files = "label file ends" if len(unusable) == 1 else "label files end"
        raise UsageError(
            f"{unusable[0]}, {fault}; {len(unusable)} {files} every training: petskin-tune data check {data_set.yaml}"
        )


def difference(stored: Fingerprint, mine: Fingerprint) -> str | None:
    """Say in plain words how the data here differs from the study's; None where it does not."""
    if stored.digest == mine.digest:
        return None
    found = []
    if stored.names != mine.names:
        found.append(f"the classes are {', '.join(mine.names)} here and {', '.join(stored.names)} in the study")
    for split in ("train", "val"):
        found.extend(_split_difference(split, stored.splits[split], mine.splits[split], mine.names))
    return "; ".join(found)


def _split_difference(split: str, stored: SplitSummary, mine: SplitSummary, names: tuple[str, ...]) -> Iterator[str]:
    if stored.images != mine.images:
        yield f"{split} has {mine.images} images here and {stored.images} in the study"
    elif stored.names != mine.names:
        yield f"{split} has {mine.images} images in both places, with other file names"
    elif stored.sizes != mine.sizes:
        yield f"{split} has the same file names with images of other sizes ({mine.image_bytes} bytes in all here, " + (
            f"{stored.image_bytes} in the study)"
        )
    if stored.names == mine.names and stored.labels != mine.labels:
        changed = [
            f"{names[int(number)] if int(number) < len(names) else number} {mine.objects.get(number, 0)} here, "
            f"{stored.objects.get(number, 0)} in the study"
            for number in sorted({*stored.objects, *mine.objects}, key=int)
            if stored.objects.get(number) != mine.objects.get(number)
        ]
        counts = f" ({'; '.join(changed)})" if changed else ", with the same number of objects"
        yield f"{split} has other labels{counts}"


def _summary(data_set: layout.DataSet, split: str, reader: _LabelReader) -> SplitSummary:
    names, sizes, labels = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    image_bytes = 0
    objects: Counter[str] = Counter()
    for name, image in sorted((layout.image_name(data_set, image), image) for image in data_set.images[split]):
        try:
            size = os.stat(image).st_size
        except FileNotFoundError as error:
            raise UsageError(f"{data_set.yaml}: {image}, a {split} image, is listed and not there.") from error
        except (OSError, ValueError) as error:
            raise UsageError(f"{data_set.yaml}: {image}, a {split} image, cannot be looked at: {error}.") from error
        label = reader.read(layout.label_path(image))
        names.update(f"{name}\n".encode())
        sizes.update(f"{name} {size}\n".encode())
        labels.update(f"{name} {label.digest}\n".encode())
        image_bytes += size
        objects.update(label.objects)
    return SplitSummary(
        images=len(data_set.images[split]),
        image_bytes=image_bytes,
        objects=dict(sorted(objects.items())),
        names=names.hexdigest()[:32],
        sizes=sizes.hexdigest()[:32],
        labels=labels.hexdigest()[:32],
    )


@dataclass(frozen=True)
class _Label:
    digest: str
    objects: Mapping[str, int]
    outlines: bool = True  # and nothing else


_NO_LABEL = _Label("", {})  # the same as an empty file: both are background


class _LabelReader:
    """Reads label files, or remembers them from last time; ``unusable`` are those that a training stops at."""

    def __init__(self, data_yaml: Path, classes: int, cache: Path | None):
        self.unusable: list[Path] = []
        self._classes = classes
        place = hashlib.sha256(str(data_yaml).encode()).hexdigest()[:32]
        self._file = cache / "fingerprints" / f"{place}.json" if cache else None
        self._known: dict[str, list[Any]] = {}  # path: [time (ns), size, digest, objects, outlines]
        self._next: dict[str, list[Any]] = {}
        if self._file and self._file.exists():
            try:
                self._known = json.loads(self._file.read_text(encoding="utf-8"))
            except ValueError:
                self._known = {}  # an older version's or a damaged file: read everything again

    def read(self, path: Path) -> _Label:
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return _NO_LABEL
        except (OSError, ValueError) as error:
            raise UsageError(f"The labels {path} cannot be read: {error}.") from error
        entry = self._known.get(str(path))
        if entry is None or len(entry) != _REMEMBERED or entry[:2] != [status.st_mtime_ns, status.st_size]:
            label = _read_label(path)
            entry = [status.st_mtime_ns, status.st_size, label.digest, dict(label.objects), label.outlines]
        if time.time() - status.st_mtime > _SETTLED:
            self._next[str(path)] = entry
        label = _Label(*entry[2:])
        if not label.outlines or any(not 0 <= int(number) < self._classes for number in label.objects):
            self.unusable.append(path)
        return label

    def save(self) -> None:
        if self._file and self._next != self._known:
            write_whole(self._file, json.dumps(self._next))


def _read_label(path: Path) -> _Label:
    rows = layout.label_lines(path)
    if not rows:
        return _NO_LABEL
    objects = {str(number): count for number, count in layout.objects(path, rows).items()}
    content = "\n".join(" ".join(row) for row in rows)
    outlines = not any(layout.row_fault(row) for row in rows)
    return _Label(hashlib.sha256(content.encode()).hexdigest()[:32], objects, outlines)
