"""Whether a data set can be trained: the one judgement of ``init``, ``doctor``, ``data check`` and a trial's process.

The YAML and the layout are judged where they are read (:mod:`petskin_tune.datasets.layout`), label rows by
:mod:`petskin_tune.datasets.labels.rows`, pictures by :mod:`petskin_tune.datasets.pictures.reading`. A training reads
through the same three, so that it ends at nothing that was called ready, unless the files change.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from petskin_tune.datasets.examined import Examined
from petskin_tune.datasets.labels import rows as labels
from petskin_tune.datasets.layout import DataSet, read
from petskin_tune.errors import UsageError
from petskin_tune.text import operand

TRAINED = ("train", "val")  # the splits that trials look at


def require_trainable(data_set: DataSet, examined: Examined) -> None:
    """Refuse a data set that every training ends at.

    Raises:
        UsageError: names the first file, why, and how many there are.
    """
    images = list(dict.fromkeys(image for split in TRAINED for image in data_set.images[split]))
    _require_labels(data_set, images, examined)
    _require_pictures(data_set, images, examined)


def without_labels(data_yaml: Path) -> list[Path]:
    """The images of train and val that have no label file, and are trained as background, also where it was lost.

    Args:
        data_yaml: the data set in force, whose fingerprint was taken.
    """
    data_set = read(data_yaml)
    images = {image: labels.label_path(image) for split in TRAINED for image in data_set.images[split]}
    there = {folder: _files_in(folder) for folder in {label.parent for label in images.values()}}
    return [
        image
        for image, label in images.items()
        if (files := there[label.parent]) is not None and label.name not in files and not os.path.isfile(label)
    ]


def _files_in(folder: Path) -> set[str] | None:
    """The names of the files in a folder; None where it cannot be listed. Cheaper than a look at each file."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError:
        return None


def _require_labels(data_set: DataSet, images: Sequence[Path], examined: Examined) -> None:
    classes = len(data_set.names)
    unusable = []
    for path in map(labels.label_path, images):
        label = examined.label(path)
        if not label.outlines or any(not 0 <= int(number) < classes for number in label.objects):
            unusable.append(path)
    if unusable:
        fault = labels.first_fault(unusable[0], classes)
        raise UsageError(f"{unusable[0]}, {fault}; {_count(len(unusable), 'label file')}: {_look(data_set)}")


def _require_pictures(data_set: DataSet, images: Sequence[Path], examined: Examined) -> None:
    faults = [(image, fault) for image, fault in zip(images, examined.picture_faults(images), strict=True) if fault]
    if faults:
        image, fault = faults[0]
        raise UsageError(f"{image}: {fault}; {_count(len(faults), 'picture')}: {_look(data_set)}")


def _count(number: int, what: str) -> str:
    return f"{number} {what} ends every training" if number == 1 else f"{number} {what}s end every training"


def _look(data_set: DataSet) -> str:
    return f"petskin-tune data check {operand(str(data_set.yaml))}"
