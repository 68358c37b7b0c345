"""What a data set is, in a few hundred bytes: kept with the study, so that a worker with other data is told so."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from petskin_tune.datasets import layout
from petskin_tune.datasets.examined import Examined, Label
from petskin_tune.datasets.labels.rows import label_path
from petskin_tune.datasets.names import read_alike
from petskin_tune.datasets.trainable import TRAINED, require_trainable
from petskin_tune.errors import UsageError
from petskin_tune.printable import raw


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
        for_training: also refuse what a training ends at: boxes, unknown classes, pictures that cannot be decoded.

    Raises:
        UsageError: an image that the data set lists is missing, a label file is none, or a training would end there.
    """
    data_set = layout.read(data_yaml)
    examined = Examined(data_set.yaml, cache)
    splits = {split: _summary(data_set, split, examined) for split in TRAINED}
    try:
        if for_training:
            require_trainable(data_set, examined)
    finally:
        examined.save()
    described = json.dumps([data_set.names, {split: asdict(summary) for split, summary in splits.items()}])
    return Fingerprint(hashlib.sha256(described.encode()).hexdigest(), data_set.names, splits)


def difference(stored: Fingerprint, mine: Fingerprint) -> str | None:
    """Say in plain words how the data here differs from the study's; None where it does not."""
    if stored.digest == mine.digest or (stored.splits == mine.splits and read_alike(stored.names, mine.names)):
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


def _summary(data_set: layout.DataSet, split: str, examined: Examined) -> SplitSummary:
    names, sizes, labels = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    image_bytes = 0
    objects: Counter[str] = Counter()
    looked: dict[Path, tuple[int, Label]] = {}  # an image that is listed again is not looked at again
    for image in sorted(data_set.images[split], key=partial(layout.image_name, data_set)):
        name = layout.image_name(data_set, image)
        if image not in looked:
            looked[image] = _size(data_set, split, image), examined.label(label_path(image))
        size, label = looked[image]
        names.update(raw(f"{name}\n"))
        sizes.update(raw(f"{name} {size}\n"))
        labels.update(raw(f"{name} {label.digest}\n"))
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


def _size(data_set: layout.DataSet, split: str, image: Path) -> int:
    """Bytes of an image's file.

    Raises:
        UsageError: it is not there, or cannot be looked at.
    """
    try:
        return os.stat(image).st_size
    except FileNotFoundError as error:
        raise UsageError(f"{data_set.yaml}: {image}, a {split} image, is listed and not there.") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{data_set.yaml}: {image}, a {split} image, cannot be looked at: {error}.") from error
