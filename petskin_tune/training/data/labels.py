"""Labels of a data set, read strictly and kept in a cache that cannot run code.

Ultralytics drops images that it cannot read with a line in the log, re-encodes JPEGs that lack their end marker in the
user's folder, and keeps labels as a pickle. Here a bad file stops the trial and is named, nothing of the user's is
written, and the cache is plain arrays (``numpy.load(allow_pickle=False)``) in our own folder. What is bad is said by
``petskin_tune.datasets``, which judged the data set before.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from ultralytics.utils.ops import segments2boxes

from petskin_tune.datasets.labels.rows import read_rows
from petskin_tune.datasets.pictures.reading import BadPicture, require_trainable, require_whole_jpeg
from petskin_tune.errors import UsageError
from petskin_tune.files import regular
from petskin_tune.files.atomic import replacing
from petskin_tune.printable import printable, raw

CACHE_VERSION = 3


class DataError(Exception):
    """An image or a label file cannot be used; the message names it. Takes one string, so that it survives pickling."""


def read_labels(
    image_files: Sequence[str], label_files: Sequence[str], classes: int, cache: Path
) -> list[dict[str, Any]]:
    """Return one label dictionary per image, in Ultralytics' form (normalised ``xywh`` boxes, polygons).

    Args:
        image_files: Paths of the images.
        label_files: Path of each image's label file; a missing one means an image without objects.
        classes: How many classes the data set names.
        cache: Folder for the cache.

    Raises:
        DataError: A file cannot be used.
    """
    file = cache / f"labels-{_fingerprint(image_files, label_files, classes)}.npz"
    try:
        return _load(file, image_files)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):  # absent or damaged: read the files themselves
        pass
    with ThreadPoolExecutor() as pool:
        labels = list(pool.map(lambda image, label: _read_one(image, label, classes), image_files, label_files))
    _save(file, labels)
    return labels


def check_whole(image_file: str) -> None:
    """Raise DataError when a JPEG is truncated; OpenCV would fill the rest with grey and say nothing."""
    path = Path(image_file)
    if path.suffix.lower() not in {".jpg", ".jpeg"}:
        return
    try:
        with regular.opened(path, regular.LARGEST_PICTURE) as file:
            require_whole_jpeg(file)
    except (BadPicture, OSError) as error:
        raise unreadable(image_file, error) from error


def unreadable(image_file: str, error: Exception) -> DataError:
    """Return what to say of an image that cannot be read, for whatever reason."""
    said = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{printable(image_file)}: the image cannot be read ({said})")


def _fingerprint(image_files: Sequence[str], label_files: Sequence[str], classes: int) -> str:
    digest = hashlib.sha256(f"{CACHE_VERSION}/{classes}".encode())
    for file in (*image_files, *label_files):
        try:
            status = os.stat(file)
            digest.update(raw(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\n"))
        except (FileNotFoundError, NotADirectoryError):
            digest.update(raw(f"{file}\0-\n"))
        except OSError as error:
            raise DataError(f"{printable(file)} cannot be looked at: {error.strerror}") from error
    return digest.hexdigest()[:32]


def _read_one(image_file: str, label_file: str, classes: int) -> dict[str, Any]:
    rows, segments = _read_label_file(label_file, classes)
    return {
        "im_file": image_file,
        "shape": _image_shape(image_file),
        "cls": rows[:, 0:1],
        "bboxes": rows[:, 1:],
        "segments": segments,
        "keypoints": None,
        "normalized": True,
        "bbox_format": "xywh",
    }


def _image_shape(image_file: str) -> tuple[int, int]:
    """Return (height, width) in pixels, upright."""
    path = Path(image_file)
    try:
        with regular.opened(path, regular.LARGEST_PICTURE) as file:
            width, height = require_trainable(file, path.suffix).size
    except (BadPicture, OSError) as error:
        raise unreadable(image_file, error) from error
    return height, width


def _read_label_file(label_file: str, classes: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return rows (objects, 5) of class and normalised ``xywh`` box, and one polygon (points, 2) for each."""
    try:
        outlines = read_rows(Path(label_file), classes)
    except UsageError as error:
        raise DataError(str(error)) from error
    if not outlines:
        return np.zeros((0, 5), np.float32), []
    segments = [outline.corners for outline in outlines]
    numbers = np.array([outline.number for outline in outlines], np.float32)
    return np.concatenate([numbers[:, None], segments2boxes(segments)], 1).astype(np.float32), segments


def _save(file: Path, labels: list[dict[str, Any]]) -> None:
    segments = [segment for label in labels for segment in label["segments"]]
    arrays = {
        "shapes": np.array([label["shape"] for label in labels], np.int32),
        "objects": np.array([len(label["cls"]) for label in labels], np.int64),
        "rows": np.concatenate([np.concatenate([label["cls"], label["bboxes"]], 1) for label in labels]),
        "points": np.array([len(segment) for segment in segments], np.int64),
        "coordinates": np.concatenate(segments) if segments else np.zeros((0, 2), np.float32),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file, durable=False) as whole:
        np.savez(whole, **arrays)  # type: ignore[arg-type]


def _load(file: Path, image_files: Sequence[str]) -> list[dict[str, Any]]:
    with np.load(file, allow_pickle=False) as arrays:
        shapes, objects, rows = arrays["shapes"].tolist(), arrays["objects"], arrays["rows"]
        polygons = np.split(arrays["coordinates"], np.cumsum(arrays["points"])[:-1]) if len(rows) else []
    if len(shapes) != len(image_files) or len(polygons) != len(rows):
        raise ValueError(f"{file} does not fit its data set")
    ends = np.cumsum(objects).tolist()
    return [
        {
            "im_file": image_file,
            "shape": tuple(shape),
            "cls": rows[end - count : end, 0:1],
            "bboxes": rows[end - count : end, 1:],
            "segments": polygons[end - count : end],
            "keypoints": None,
            "normalized": True,
            "bbox_format": "xywh",
        }
        for image_file, shape, count, end in zip(image_files, shapes, objects.tolist(), ends, strict=True)
    ]
