"""YOLO label files of outlines: where they lie, how they are read, and what stops a training at one.

The one place of these rules: ``data check``, the fingerprint, ``init`` and the training itself ask here. Where
Ultralytics leaves an image out with a warning, or fails at the first batch (boxes alone), a training of ours ends and
names the row.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from petskin_tune.errors import UsageError
from petskin_tune.files import regular
from petskin_tune.text import counted

OUTSIDE = 0.01  # how far a coordinate may lie outside of the image: Ultralytics' tolerance
_FEWEST_CORNERS = 3  # of an outline
BOX_WORDS = 5  # of a row that is a box: class, x, y, width, height

Row = Sequence[str]  # the words of a line that is not empty


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


def outline_rows(label: Path, classes: int) -> list[list[str]]:
    """The rows of a label file that a training on ``classes`` classes takes; none where there is no file.

    Raises:
        UsageError: as :func:`label_lines`, or a row is none that it takes; "FILE, line 3: …".
    """
    lines = _numbered_lines(label)
    if fault := _first_fault(lines, classes):
        raise UsageError(f"{label}, {fault}")
    return [words for _, words in lines]


def first_fault(label: Path, classes: int) -> str | None:
    """Where and why a label file stops a training on ``classes`` classes: "line 3: …"; None where it does not.

    Raises:
        UsageError: as :func:`label_lines`.
    """
    return _first_fault(_numbered_lines(label), classes)


def _first_fault(lines: Iterable[tuple[int, Row]], classes: int) -> str | None:
    for line, words in lines:
        if reason := row_fault(words) or class_fault(words, classes):
            return f"line {line}: {reason}"
    return None


def row_fault(words: Row) -> str | None:
    """Why a row of a label file is no outline, whatever its class; None where it is one."""
    if len(words) == 1 and set(",;") & set(words[0]):
        return f"{words[0][:20]!r}…: its values are to be separated by spaces"
    if len(words) < 1 + 2 * _FEWEST_CORNERS or len(words) % 2 == 0:
        what = "a box without an outline" if len(words) == BOX_WORDS else counted(len(words), "value")
        return f"{what}, where a class and {_FEWEST_CORNERS} or more x y pairs are needed"
    for word in words[1:]:
        try:
            inside = -OUTSIDE <= float(word) <= 1 + OUTSIDE
        except ValueError:
            return f"{word[:20]!r} is no number"
        if not inside:
            return "a coordinate outside 0 to 1"
    return None


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
    if not float(word).is_integer():
        raise ValueError(f"{word} is no class number")
    return int(float(word))


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
            return f"line {line}: {row_fault(words) if len(words) == 1 else reason}"
    return None
