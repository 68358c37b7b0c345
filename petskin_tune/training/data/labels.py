"""Labels of a data set, read strictly and kept in a cache that cannot run code.

Ultralytics drops images that it cannot read with a line in the log, re-encodes JPEGs that lack their end marker in the
user's folder, and keeps labels as a pickle. Here a bad file stops the trial and is named, nothing of the user's is
written, and the cache is plain arrays (``numpy.load(allow_pickle=False)``) in our own folder.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from PIL import Image
from ultralytics.data.utils import IMG_FORMATS, exif_size
from ultralytics.utils.ops import segments2boxes

CACHE_VERSION = 1
_JPEG_END = b"\xff\xd9"
_SMALLEST_SIDE = 10  # pixels, as Ultralytics


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
    except (OSError, ValueError, KeyError, BadZipFile):  # absent or damaged: read the files themselves
        pass
    with ThreadPoolExecutor() as pool:
        labels = list(pool.map(lambda image, label: _read_one(image, label, classes), image_files, label_files))
    _save(file, labels)
    return labels


def check_decodable(image_file: str) -> None:
    """Raise DataError when an image is truncated; OpenCV would fill the rest with grey and say nothing."""
    if Path(image_file).suffix.lower() not in {".jpg", ".jpeg"}:
        return
    try:
        with open(image_file, "rb") as file:
            file.seek(-2, os.SEEK_END)
            if file.read() == _JPEG_END:
                return
        with Image.open(image_file) as image:  # bytes after the end marker are harmless: decode to tell
            image.load()
    except Exception as error:
        raise unreadable(image_file, error) from error


def unreadable(image_file: str, error: Exception) -> DataError:
    """Return what to say of an image that a library could not read, for whatever reason.

    Pillow's readers raise everything from ``SyntaxError`` to ``struct.error``; of a picture that is too large they
    raise ``DecompressionBombError``, and OpenCV an error of its own or a ``MemoryError``.
    """
    said = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{image_file}: the image cannot be read ({said})")


def _fingerprint(image_files: Sequence[str], label_files: Sequence[str], classes: int) -> str:
    digest = hashlib.sha256(f"{CACHE_VERSION}/{classes}".encode())
    for file in (*image_files, *label_files):
        try:
            status = os.stat(file)
            digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        except FileNotFoundError:
            digest.update(f"{file}\0-\n".encode())
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
    check_decodable(image_file)
    try:
        with Image.open(image_file) as image:
            width, height = exif_size(image)
            kind = (image.format or "").lower()
    except Exception as error:
        raise unreadable(image_file, error) from error
    if min(width, height) < _SMALLEST_SIDE:
        raise DataError(f"{image_file}: the image is only {width}x{height} pixels")
    if kind not in IMG_FORMATS | {"jpeg", "jpeg2000"}:
        raise DataError(f"{image_file}: {kind or 'unknown'} is not an image format that Ultralytics reads")
    return height, width


def _read_label_file(label_file: str, classes: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return rows (objects, 5) of class and normalised ``xywh`` box, and one polygon (points, 2) for each."""
    try:
        text = Path(label_file).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return np.zeros((0, 5), np.float32), []
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{label_file}: the labels cannot be read ({error})") from error
    lines = list(dict.fromkeys(tuple(line.split()) for line in text.splitlines() if line.strip()))  # no duplicates
    if not lines:
        return np.zeros((0, 5), np.float32), []
    segments = []
    for words in lines:
        if len(words) < 7 or len(words) % 2 == 0:
            raise DataError(
                f"{label_file}: a row has {len(words)} values, a polygon needs a class and 3 or more x y pairs"
            )
        try:
            segments.append(np.array(words[1:], np.float32).reshape(-1, 2))
        except ValueError as error:
            raise DataError(f"{label_file}: {error}") from error
    numbers = np.array([float(words[0]) for words in lines], np.float32)
    _check_values(label_file, numbers, segments, classes)
    return np.concatenate([numbers[:, None], segments2boxes(segments)], 1).astype(np.float32), segments


def _check_values(label_file: str, numbers: np.ndarray, segments: list[np.ndarray], classes: int) -> None:
    points = np.concatenate(segments)
    if not np.isfinite(points).all() or points.max() > 1.01 or points.min() < -0.01:  # Ultralytics' tolerance
        raise DataError(f"{label_file}: a coordinate lies outside 0 to 1")
    if (numbers % 1 != 0).any() or numbers.min() < 0 or numbers.max() >= classes:
        raise DataError(f"{label_file}: class {numbers.max():g} is not one of the data set's {classes} classes")


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
    with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".tmp", delete=False) as temporary:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]
    os.replace(temporary.name, file)


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
