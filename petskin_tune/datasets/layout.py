"""A YOLO segmentation data set as it lies on disk: its YAML, its images, its label files.

Where Ultralytics is generous or depends on the machine (its ``datasets_dir`` setting, the current folder), this module
is strict: a path in a YAML is relative to the YAML, a path in an image list is relative to the list.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from petskin_tune.errors import UsageError
from petskin_tune.files.paths import is_there, typed

# Ultralytics' IMG_FORMATS (ultralytics/data/utils.py); a test compares the two.
IMAGE_SUFFIXES = frozenset(
    (".avif", ".bmp", ".dng", ".heic", ".heif", ".jp2", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp")
)
SPLITS = ("train", "val", "test")
OUTSIDE = 0.01  # how far a coordinate may lie outside of the image: Ultralytics' tolerance
_FEWEST_CORNERS = 3  # of an outline
_BOX_VALUES = 4  # x, y, width, height
_MOST_CLASSES = 100_000
# What PyYAML raises for a value that is not what its tag or shape says, and for one that nests without end.
_NO_YAML = (yaml.YAMLError, ValueError, OverflowError, AttributeError, TypeError, LookupError, RecursionError)


@dataclass(frozen=True)
class DataSet:
    """A data set that has been looked at: every path is absolute, images are sorted."""

    yaml: Path
    root: Path  # what the entries of the YAML are relative to
    names: tuple[str, ...]  # by class number
    images: Mapping[str, tuple[Path, ...]]  # by split; "test" only where there is one
    raw: Mapping[str, Any] = field(repr=False)  # the YAML as written
    groups: Path | None = None  # CSV "image,group" of what must stay together, written by our import


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that must hold a mapping.

    Raises:
        UsageError: it cannot be read, is broken (with the line number) or holds something else.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UsageError(f"{path} is not valid YAML: {line}{error.problem}.") from error
    except (OSError, *_NO_YAML) as error:
        raise UsageError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} is no data set: it must hold the keys train, val and names.")
    return content


def read(yaml_path: Path) -> DataSet:
    """Look at a data set: resolve its YAML and list the images of every split.

    Raises:
        UsageError: a key, a folder or a list is missing or wrong, or train or val has no images.
    """
    yaml_path = yaml_path.resolve()
    raw = load_yaml(yaml_path)
    root = _root(yaml_path, raw)
    images = {}
    for split in SPLITS:
        entries = split_entries(yaml_path, raw, split)
        if entries:
            images[split] = tuple(sorted({image for entry in entries for image in _images(root, entry, yaml_path)}))
            if not images[split]:
                raise UsageError(f"{yaml_path}: no images for {split} in {', '.join(entries)}.")
    groups = raw.get("groups")
    return DataSet(
        yaml=yaml_path,
        root=root,
        names=class_names(yaml_path, raw),
        images=images,
        raw=raw,
        groups=root / groups if isinstance(groups, str) else None,
    )


def split_entries(yaml_path: Path, raw: Mapping[str, Any], split: str) -> list[str]:
    """The folders or lists that a YAML names for a split; empty where it may lack one (test).

    Raises:
        UsageError: train or val is missing, or an entry is not text.
    """
    value = raw.get(split)
    if value is None and split == "val":
        value = raw.get("validation")  # Ultralytics takes this name too
    if not value:
        if split == "test":
            return []
        raise UsageError(f"{yaml_path} has no `{split}:`; it must name a folder of images or a list of them.")
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, str) for entry in entries):
        raise UsageError(f"{yaml_path}: `{split}:` must be a path or a list of paths.")
    return entries


def class_names(yaml_path: Path, raw: Mapping[str, Any]) -> tuple[str, ...]:
    """The class names by number, from ``names`` (list or mapping) or ``nc``.

    Raises:
        UsageError: there are none, or their numbers are not 0, 1, 2, ….
    """
    names = raw.get("names")
    if names is None and type(raw.get("nc")) is int and 0 < raw["nc"] <= _MOST_CLASSES:
        return tuple(f"class_{number}" for number in range(raw["nc"]))
    if isinstance(names, list) and names:
        return tuple(str(name) for name in names)
    if isinstance(names, dict) and names and sorted(map(str, names)) == sorted(map(str, range(len(names)))):
        by_number = {int(number): str(name) for number, name in names.items()}
        return tuple(by_number[number] for number in range(len(by_number)))
    raise UsageError(f"{yaml_path} has no usable `names:`; write one name a class, numbered from 0.")


def label_path(image: Path) -> Path:
    """Where the labels of an image lie: the last ``images`` folder replaced by ``labels``, the suffix by ``.txt``."""
    before, separator, after = str(image).rpartition(f"{os.sep}images{os.sep}")
    moved = f"{before}{os.sep}labels{os.sep}{after}" if separator else str(image)
    return Path(moved.rpartition(".")[0] + ".txt")


def label_lines(label: Path) -> list[list[str]]:
    """The rows of a label file, each split at white space; none where there is no file.

    Raises:
        UsageError: it is no text, or cannot be read.
    """
    return [words for _, words in _numbered_lines(label)]


def _numbered_lines(label: Path) -> list[tuple[int, list[str]]]:
    try:
        text = label.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except UnicodeDecodeError as error:
        raise UsageError(f"{label} is no YOLO label file: it is no UTF-8 text.") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"The labels {label} cannot be read: {error}.") from error
    return [(number, words) for number, line in enumerate(text.splitlines(), 1) if (words := line.split())]


def first_fault(label: Path, classes: int) -> str | None:
    """Where and why a label file stops a training on ``classes`` classes: "line 3: …"; None where it does not.

    Raises:
        UsageError: as :func:`label_rows`.
    """
    for line, words in _numbered_lines(label):
        if reason := row_fault(words):
            return f"line {line}: {reason}"
        with _no_label_file(label):
            number = _class_number(words[0])
        if not 0 <= number < classes:
            return f"line {line}: class {number} is none of the {classes} that `names` has"
    return None


def row_fault(words: Sequence[str]) -> str | None:
    """Why a row of a label file is no outline, whatever its class; None where it is one.

    As strict as the training (``petskin_tune.training.data.labels``), which ends at such a row. Ultralytics leaves
    the image out with a warning, or fails at the first batch where all rows are boxes.
    """
    if len(words) < 1 + 2 * _FEWEST_CORNERS or len(words) % 2 == 0:
        what = "a box without an outline" if len(words) == 1 + _BOX_VALUES else f"{len(words)} values"
        return f"{what}, where a class and {_FEWEST_CORNERS} or more x y pairs are needed"
    try:
        inside = all(-OUTSIDE <= float(word) <= 1 + OUTSIDE for word in words[1:])
    except ValueError as error:
        return str(error)
    return None if inside else "a coordinate outside 0 to 1"


def label_rows(label: Path) -> list[tuple[int, list[float]]]:
    """The rows of a label file as class number and coordinates; none where there is no file.

    Raises:
        UsageError: it holds something else than numbers, or a row begins with none that could be a class.
    """
    with _no_label_file(label):
        return [(_class_number(words[0]), [float(word) for word in words[1:]]) for words in label_lines(label)]


def objects(label: Path, rows: Iterable[Sequence[str]]) -> Counter[int]:
    """How many rows of a label file name each class; coordinates are not looked at.

    Raises:
        UsageError: as :func:`label_rows`.
    """
    with _no_label_file(label):
        return Counter(_class_number(words[0]) for words in rows)


def classes_in(label: Path) -> frozenset[int]:
    """The classes that a label file names.

    Raises:
        UsageError: as :func:`label_rows`.
    """
    return frozenset(objects(label, label_lines(label)))


def _class_number(word: str) -> int:
    if not float(word).is_integer():
        raise ValueError(f"{word} is no class number")
    return int(float(word))


@contextmanager
def _no_label_file(label: Path) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise UsageError(f"{label} is no YOLO label file: {error}.") from error


def image_name(data_set: DataSet, image: Path) -> str:
    """An image's name without what differs between machines: from its last ``images`` folder on."""
    parts = image.parts
    if "images" in parts[:-1]:
        last = len(parts) - 1 - parts[::-1].index("images")
        return "/".join(parts[last:])
    if image.is_relative_to(data_set.root):
        return image.relative_to(data_set.root).as_posix()
    return image.name


def _root(yaml_path: Path, raw: Mapping[str, Any]) -> Path:
    stated = raw.get("path")
    if stated is None:
        return yaml_path.parent
    if not isinstance(stated, str) or "\0" in stated:
        raise UsageError(f"{yaml_path}: `path:` must be text.")
    root = (yaml_path.parent / typed(stated)).resolve()
    # A YAML that travelled still says where it lay on the machine that wrote it.
    return root if is_there(root) and root.is_dir() else yaml_path.parent


def _images(root: Path, entry: str, yaml_path: Path) -> Iterator[Path]:
    place = locate(root, entry)
    if place is None:
        raise UsageError(f"{yaml_path} names {entry}, which is not there: looked for {root / entry}.")
    if place.is_dir():
        yield from _images_below(place)
        return
    for line in list_lines(place):
        image = place.parent / line
        if image.suffix.lower() in IMAGE_SUFFIXES:
            yield Path(os.path.normpath(image))


def locate(root: Path, entry: str) -> Path | None:
    """The folder or list that an entry of a YAML means; None where there is none."""
    candidates = [root / entry]
    if entry.startswith("../"):
        candidates.append(root / entry[3:])  # exports that are one level off; Ultralytics reads them too
    return next((Path(os.path.abspath(path)) for path in candidates if is_there(path)), None)


def list_lines(image_list: Path) -> list[str]:
    """The lines of an image list that say something."""
    try:
        text = image_list.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{image_list} cannot be read as a list of images: {error}.") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _images_below(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                yield Path(place, name)
