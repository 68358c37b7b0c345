"""The outlines of a label file, measured: how large they are, and which of them have no area at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import hypot
from pathlib import Path

from petskin_tune.datasets.labels.rows import BOX_WORDS, class_fault, label_lines, row_fault

_FLAT = 1e-6  # share of the image's side: an outline that nowhere leaves a line by more has no area


@dataclass(frozen=True)
class Outlines:
    """What a label file holds. Areas are shares of the image."""

    areas: Mapping[int, tuple[float, ...]] = field(default_factory=dict)  # by class number
    boxes: int = 0  # rows that are boxes and not outlines
    flat: int = 0  # outlines without an area
    below_a_pixel: int = 0  # those with less area than a pixel of the image


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
    areas: defaultdict[int, list[float]] = defaultdict(list)
    boxes = flat = small = 0
    rows = label_lines(label)
    for words in rows:
        is_box = len(words) == BOX_WORDS
        if fault := (row_fault(words) if not is_box else None) or class_fault(words, classes):
            raise ValueError(fault)
        values = [min(max(float(word), 0.0), 1.0) for word in words[1:]]  # clipped, as the training does
        area = values[2] * values[3] if is_box else _area(values[::2], values[1::2])
        areas[int(float(words[0]))].append(area)
        boxes += is_box
        none = not is_box and _is_flat(values[::2], values[1::2])
        flat += none
        small += not none and 0 < area * pixels < 1
    if 0 < boxes < len(rows):
        raise ValueError("boxes and outlines mixed")
    return Outlines({number: tuple(found) for number, found in areas.items()}, boxes, flat, small)


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
