"""YOLO label files of outlines: where they lie, how they are read, and what stops a training at one.

The one place of these rules: ``data check``, the fingerprint, ``init`` and the training itself ask here. What a row
says is judged as ``verify_image_label`` of ``ultralytics/data/utils.py`` judges it, in its numbers (32 bits) and on the
same columns; a test compares the two. Where Ultralytics leaves an image out with a warning, or fails at the first batch
(boxes alone), a training of ours ends and names the row.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from petskin_tune.errors import UsageError
from petskin_tune.files import regular
from petskin_tune.text import counted

OUTSIDE = 0.01  # how far an outline's box may lie outside of the image: Ultralytics' tolerance
_FEWEST_CORNERS = 3  # of an outline
_SURELY_OUTLINE = 6  # words; a file with a longer row is one of outlines to Ultralytics, and corners may be fewer there
BOX_WORDS = 5  # of a row that is a box: class, x, y, width, height

Row = Sequence[str]  # the words of a line that is not empty


@dataclass(frozen=True)
class Outline:
    """A row that a training takes."""

    number: int  # of its class
    corners: np.ndarray  # (points, 2), x and y as shares of the image; some may lie outside of 0 to 1


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
        text = regular.read_text(label)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except UnicodeDecodeError as error:
        raise UsageError(f"{label} is no YOLO label file: it is no UTF-8 text.") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"The labels {label} cannot be read: {getattr(error, 'strerror', error)}.") from error
    return [(number, words) for number, line in enumerate(text.splitlines(), 1) if (words := line.split())]


def read_rows(label: Path, classes: int) -> list[Outline]:
    """What a training on ``classes`` classes takes from a label file: each outline once; none where there is no file.

    Raises:
        UsageError: as :func:`label_lines`, or a row is none that it takes; "FILE, line 3: …".
    """
    lines = _numbered_lines(label)
    if fault := _first_fault(lines, classes):
        raise UsageError(f"{label}, {fault}")
    return distinct(words for _, words in lines)


def distinct(rows: Iterable[Row]) -> list[Outline]:
    """Rows without fault, each outline once, however its numbers are written: the first of equal ones stays."""
    found: dict[bytes, Outline] = {}
    for words in rows:
        values = numbers(words)
        found.setdefault(values.tobytes(), Outline(int(values[0]), values[1:].reshape(-1, 2)))
    return list(found.values())


def numbers(words: Row) -> np.ndarray:
    """The values of a row as Ultralytics reads them: 32 bits.

    Raises:
        ValueError: one is no number.
    """
    with np.errstate(over="ignore"):  # becomes infinite, and is refused as that
        return np.array(words, np.float32)


def first_fault(label: Path, classes: int) -> str | None:
    """Where and why a label file stops a training on ``classes`` classes: "line 3: …"; None where it does not.

    Raises:
        UsageError: as :func:`label_lines`.
    """
    return _first_fault(_numbered_lines(label), classes)


def _first_fault(lines: Sequence[tuple[int, Row]], classes: int) -> str | None:
    faults = zip(lines, row_faults([words for _, words in lines]), strict=True)
    for (line, words), fault in faults:
        if reason := fault or class_fault(words, classes):
            return f"line {line}: {reason}"
    return None


def row_faults(rows: Sequence[Row]) -> Iterator[str | None]:
    """Why each row of a label file is no outline, whatever its class; None where it is one."""
    fewest = 1 if any(len(words) > _SURELY_OUTLINE for words in rows) else _FEWEST_CORNERS
    return (_row_fault(words, fewest) for words in rows)


def _row_fault(words: Row, fewest: int) -> str | None:
    if len(words) == 1 and set(",;") & set(words[0]):
        return f"{words[0][:20]!r}…: its values are to be separated by spaces"
    if len(words) < 1 + 2 * fewest or len(words) % 2 == 0 or len(words) == BOX_WORDS:
        what = "a box without an outline" if len(words) == BOX_WORDS else counted(len(words), "value")
        return f"{what}, where a class and {_FEWEST_CORNERS} or more x y pairs are needed"
    try:
        corners = numbers(words[1:]).reshape(-1, 2)
    except ValueError:
        return f"{next(word for word in words[1:] if not _is_number(word))[:20]!r} is no number"
    return None if _lies_inside(corners) else "a coordinate outside 0 to 1"


def _is_number(word: str) -> bool:
    try:
        numbers([word])
    except ValueError:
        return False
    return True


def _lies_inside(corners: np.ndarray) -> bool:
    """Whether the box around the corners does, by its centre and size, as Ultralytics looks at it, or each corner."""
    if abs(corners - 0.5).max() <= 0.5 + OUTSIDE:  # it may be wider than Ultralytics takes: studies were begun with it
        return True
    least, most = corners.min(0), corners.max(0)
    with np.errstate(invalid="ignore"):  # infinite ones
        centre, size = (least + most) / 2, most - least
    return bool(centre.max() <= 1 + OUTSIDE and size.max() <= 1 + OUTSIDE and centre.min() >= -OUTSIDE)


def class_fault(words: Row, classes: int) -> str | None:
    """Why a row's class is none of ``classes``; None where it is one."""
    try:
        number = _class_number(words[0])
    except ValueError:
        return f"class {words[0][:20]} is no whole number"
    return None if 0 <= number < classes else f"class {words[0][:20]} is none of the {classes} that `names` has"


def label_rows(label: Path) -> list[tuple[int, list[float]]]:
    """The rows of a label file as class number and coordinates; none where there is no file.

    Raises:
        UsageError: it holds something else than numbers, or a row begins with none that could be a class.
    """
    with _no_label_file(label):
        return [(_class_number(words[0]), [float(word) for word in words[1:]]) for words in label_lines(label)]


def objects(label: Path, rows: Iterable[Row]) -> Counter[int]:
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
    number = float(numbers([word])[0])
    if not number.is_integer():
        raise ValueError(f"{word} is no class number")
    return int(number)


@contextmanager
def _no_label_file(label: Path) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise UsageError(f"{label} is no YOLO label file: {_first_odd_row(label) or error}.") from error


def _first_odd_row(label: Path) -> str | None:
    """Where and why a row does not begin with a class; None where all do."""
    for line, words in _numbered_lines(label):
        if reason := class_fault(words, sys.maxsize):
            return f"line {line}: {_row_fault(words, 1) if len(words) == 1 else reason}"
    return None
