"""The plots of one validation: confusions, curves by class, mask mAP by class, and the losses of the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from petskin_tune.columns import cut
from petskin_tune.training.pictures import letters
from petskin_tune.training.pictures.canvas import (
    GRID,
    INK,
    PAPER,
    QUIET,
    SIZE,
    Axes,
    Colour,
    blank,
    box,
    colour_of,
    put,
)

WIDTH = 760  # pixels: on a phone, half of that is shown
LONGEST_NAME = 22  # columns of a class's name
MOST_CURVES = 20  # classes with a curve of their own
MOST_NUMBERED = 16  # rows of a confusion matrix whose cells have numbers
MOST_ROWS = 60  # classes of a plot; of more, the weakest
BACKGROUND = "background"
BEST: Colour = (222, 111, 47)  # blue, as the report's complete trials
VALIDATION: Colour = (12, 89, 232)

_TITLE = 34  # pixels of a plot's title


def _titled(title: str, height: int) -> np.ndarray:
    picture = blank(WIDTH, height)
    put(picture, title, 16, _TITLE / 2 + 4, SIZE + 1)
    return picture


# ---- confusions -----------------------------------------------------------------------------------------------------


def confusion_matrix(matrix: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """How often an object of each class (column) was taken for each class (row).

    Args:
        matrix: (classes + 1, classes + 1) of counts by predicted and by true class; the last of each is no object.
        names: of the classes.
    """
    shown = [cut(name, LONGEST_NAME) for name in (*names, BACKGROUND)]
    count = len(shown)
    if count > MOST_ROWS:
        shown = []
    shares = matrix / np.maximum(matrix.sum(0, keepdims=True), 1)
    size = SIZE if count <= MOST_NUMBERED else max(7, SIZE * MOST_NUMBERED // count)
    margin = min(260, max([letters.width(name, size) for name in shown], default=0) + 54)
    side, top = WIDTH - margin - 20, _TITLE + 10
    cell = side / count
    picture = _titled("What the objects of each class were taken for", top + side + margin)
    picture[top : top + side, margin : margin + side] = _field(shares, side)
    for place, name in enumerate(shown):
        middle = (place + 0.5) * cell
        put(picture, name, margin - 8, top + middle, size, anchor="right")
        put(picture, name, margin + middle - 0.65 * size, top + side + 8, size, anchor="right", turned=True)
    _numbers(picture[top : top + side, margin : margin + side], matrix, shares)
    put(picture, "predicted", 4, top + side / 2, SIZE - 2, QUIET, "centre", turned=True)
    put(picture, "true", margin + side / 2, top + side + margin - 16, SIZE - 2, QUIET, "centre")
    return picture


def _field(shares: np.ndarray, side: int) -> np.ndarray:
    """The cells, the bluer the larger their share; with a line around each where they are large enough."""
    white, blue = np.array(PAPER, float), np.array(BEST, float)
    cells = (white + (blue - white) * shares[..., None]).astype(np.uint8)
    field = cv2.resize(cells, (side, side), interpolation=cv2.INTER_NEAREST)
    if len(shares) <= MOST_ROWS:
        for line in range(len(shares) + 1):
            at = min(side - 1, round(line * side / len(shares)))
            field[at], field[:, at] = GRID, GRID
    return field


def _numbers(field: np.ndarray, matrix: np.ndarray, shares: np.ndarray) -> None:
    """The counts, where there is room for them."""
    cell = len(field) / len(matrix)
    size = min(SIZE, round(cell / 3))
    if size < 8:
        return
    for row, column in np.argwhere(matrix).tolist():
        colour = PAPER if shares[row, column] > 0.55 else INK
        put(field, f"{matrix[row, column]:g}", (column + 0.5) * cell, (row + 0.5) * cell, size, colour, "centre")


# ---- curves by class ------------------------------------------------------------------------------------------------


def curves(
    xs: np.ndarray, by_class: np.ndarray, names: Sequence[str], title: str, axes: tuple[str, str], values: Sequence[str]
) -> np.ndarray:
    """A curve for each class, and thick their mean.

    Args:
        xs: (points,) from 0 to 1.
        by_class: (classes, points) from 0 to 1.
        names: of these classes.
        title: of the plot.
        axes: what they show, across and up.
        values: what is said of the mean and of each class, beside its name.
    """
    entries = [("all classes", INK, 4)]
    entries += [(cut(name, LONGEST_NAME), colour_of(index), 2) for index, name in enumerate(names)]
    if len(names) > MOST_CURVES:
        entries = entries[:1]
    row = SIZE + 8
    keys = (len(entries) + 1) // 2 * row
    picture = _titled(title, 560 + keys)
    area = Axes(picture, 70, _TITLE + 16, WIDTH - 24, 490)
    area.ticks()
    put(picture, axes[0], (70 + WIDTH - 24) / 2, 534, SIZE - 2, QUIET, "centre")
    put(picture, axes[1], 2, (_TITLE + 16 + 490) / 2, SIZE - 2, QUIET, "centre", turned=True)
    mean = by_class.mean(0) if len(by_class) else np.zeros_like(xs)
    for ys, (_, colour, thick) in reversed(list(zip([mean, *by_class], entries, strict=False))):
        area.line(xs.tolist(), ys.tolist(), colour, thick)
    for index, (name, colour, _) in enumerate(entries):
        left, middle = 16 + index % 2 * WIDTH / 2, 556 + index // 2 * row
        box(picture, left, middle - 3, left + 26, middle + 3, colour)
        put(picture, f"{name}  {values[index]}", left + 34, middle)
    return picture


# ---- values by class ------------------------------------------------------------------------------------------------


def bars(names: Sequence[str], values: Sequence[float], title: str) -> np.ndarray:
    """A bar for each class, the best at the top."""
    order = sorted(range(len(names)), key=lambda index: -values[index])[-MOST_ROWS:]
    row = SIZE + 16
    shown = [cut(names[index], LONGEST_NAME) for index in order]
    margin = min(280, max((letters.width(name, SIZE) for name in shown), default=0) + 28)
    picture = _titled(title, _TITLE + 16 + row * max(1, len(order)) + 12)
    highest = max([values[index] for index in order], default=0.0) or 1.0
    for place, (index, name) in enumerate(zip(order, shown, strict=True)):
        top = _TITLE + 12 + place * row
        long = max(2.0, values[index] / highest * (WIDTH - margin - 90))
        put(picture, name, margin - 10, top + row / 2, anchor="right")
        box(picture, margin, top + 4, margin + long, top + row - 4, colour_of(index))
        put(picture, f"{values[index]:.3f}", margin + long + 8, top + row / 2)
    return picture


# ---- losses ---------------------------------------------------------------------------------------------------------


def losses(history: Mapping[str, Sequence[float]]) -> np.ndarray:
    """Every part of the loss over epochs, in training and in validation.

    Args:
        history: ``{column of results.csv: one value an epoch}``.
    """
    parts = [
        name.removeprefix("train/")
        for name, values in history.items()
        if name.startswith("train/") and name.endswith("_loss") and any(values)  # some are of other models
    ]
    rows = max(1, (len(parts) + 1) // 2)
    picture = _titled("Losses over epochs", _TITLE + 30 + 260 * rows)
    for index, (name, colour) in enumerate((("training", BEST), ("validation", VALIDATION))):
        left = WIDTH - 300 + index * 140
        box(picture, left, 18, left + 22, 24, colour)
        put(picture, name, left + 28, 21, SIZE - 2)
    for index, part in enumerate(parts):
        _panel(picture, history, part, index % 2 * WIDTH // 2, _TITLE + 16 + index // 2 * 260)
    return picture


def _panel(picture: np.ndarray, history: Mapping[str, Sequence[float]], part: str, left: int, top: int) -> None:
    found = [(history.get(f"{kind}/{part}", ()), colour) for kind, colour in (("train", BEST), ("val", VALIDATION))]
    finite = [value for values, _ in found for value in values if np.isfinite(value)]
    last = max(len(values) for values, _ in found)
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    room = (high - low) * 0.06 or 0.5
    area = Axes(
        picture, left + 66, top + 30, left + WIDTH // 2 - 20, top + 216, (1, max(2, last)), (low - room, high + room)
    )
    put(picture, part.replace("_", " "), left + 66, top + 14, SIZE - 2)
    area.ticks()
    for values, colour in found:
        area.line([float(epoch) for epoch in range(1, len(values) + 1)], list(values), colour)
