"""The outlines of a label file, measured: how large they are, and which of them have no area at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import hypot
from pathlib import Path

from petskin_tune.datasets.labels.rows import (
    BOX_WORDS,
    OUTSIDE,
    Row,
    class_fault,
    distinct,
    label_lines,
    numbers,
    row_faults,
)

_FLAT = 1e-6  # share of the image's side: an outline that nowhere leaves a line by more has no area


@dataclass(frozen=True)
class Outlines:
    """What a label file holds. Areas are shares of the image."""

    areas: Mapping[int, tuple[float, ...]] = field(default_factory=dict)  # by class number
    boxes: int = 0  # rows that are boxes and not outlines
    flat: int = 0  # outlines without an area
    below_a_pixel: int = 0  # those with less area than a pixel of the image
    beyond: int = 0  # outlines that reach outside of the image, by more than a rounded number does
    repeated: int = 0  # outlines that are there already, and are trained once


def read_outlines(label: Path, classes: int, pixels: int = 0) -> Outlines:
    """Measure what a label file holds; rows that are boxes are counted and measured, too.

    Args:
        label: the file; a missing one holds nothing.
        classes: how many the data set names.
        pixels: of the image; 0 where that is not known.

    Raises:
        ValueError: a row is none that a training takes; the text says why.
        UsageError: it is no text, or cannot be read.
    """
    rows = label_lines(label)
    boxes = sum(len(words) == BOX_WORDS for words in rows)
    if 0 < boxes < len(rows):
        raise ValueError("boxes and outlines mixed")
    for words, fault in zip(rows, [None] * boxes if boxes else row_faults(rows), strict=True):
        if reason := fault or class_fault(words, classes):
            raise ValueError(reason)
    return _boxes(rows) if boxes else _outlines(rows, pixels)


def _boxes(rows: Sequence[Row]) -> Outlines:
    areas: defaultdict[int, list[float]] = defaultdict(list)
    for words in rows:
        values = numbers(words)
        width, height = values[3:].astype(float).clip(0, 1).tolist()
        areas[int(values[0])].append(width * height)
    return Outlines(_whole(areas), boxes=len(rows))


def _outlines(rows: Sequence[Row], pixels: int) -> Outlines:
    areas: defaultdict[int, list[float]] = defaultdict(list)
    flat = small = beyond = 0
    found = distinct(rows)
    for outline in found:
        beyond += bool(abs(outline.corners - 0.5).max() > 0.5 + OUTSIDE)
        xs, ys = outline.corners.astype(float).clip(0, 1).T.tolist()  # clipped, as the training does
        area = _area(xs, ys)
        areas[outline.number].append(area)
        none = _is_flat(xs, ys)
        flat += none
        small += not none and 0 < area * pixels < 1
    return Outlines(_whole(areas), 0, flat, small, beyond, len(rows) - len(found))


def _whole(areas: Mapping[int, Sequence[float]]) -> dict[int, tuple[float, ...]]:
    return {number: tuple(found) for number, found in areas.items()}


def _area(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The area inside a ring of corners (the shoelace formula)."""
    turned = zip(xs, ys, [*xs[1:], xs[0]], [*ys[1:], ys[0]], strict=True)
    return abs(sum(x * next_y - next_x * y for x, y, next_x, next_y in turned)) / 2


def _is_flat(xs: Sequence[float], ys: Sequence[float]) -> bool:
    """Whether all corners lie on one line, or in one point; a ring that crosses itself has an area."""
    far = max(zip(xs, ys, strict=True), key=lambda corner: hypot(corner[0] - xs[0], corner[1] - ys[0]))
    along, across = far[0] - xs[0], far[1] - ys[0]
    length = hypot(along, across)
    return length < _FLAT or all(
        abs(along * (y - ys[0]) - across * (x - xs[0])) < _FLAT * length for x, y in zip(xs, ys, strict=True)
    )
