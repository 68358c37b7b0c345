"""Sheets of photographs: what the labels say on the left, what the model says on the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from petskin_tune.columns import cut
from petskin_tune.training.pictures import letters
from petskin_tune.training.pictures.canvas import INK, PAPER, QUIET, blank, box, colour_of, polyline, put

TILE = 320  # pixels: the longer side of a photograph on a sheet
PER_SHEET = 4
MOST_NAMED = 6  # predictions on a photograph: under more names nothing is seen of it
LONGEST_NAME = 18  # columns of a class's name on a photograph
_GAP, _HEADING, _CAPTION = 10, 30, 22  # pixels between tiles, above the first row, above each other row
_SIZE = 15  # of letters
_SHARE = 0.38  # how much of a mask's colour covers the photograph


@dataclass(frozen=True)
class Outlined:
    """An object on a photograph.

    Attributes:
        number: of its class.
        outlines: polygons (points, 2) in pixels of the tile.
        confidence: of a prediction; None: a label.
    """

    number: int
    outlines: tuple[np.ndarray, ...]
    confidence: float | None = None


@dataclass(frozen=True)
class Shown:
    """A photograph to be shown.

    Attributes:
        name: of the image.
        pixels: (height, width, 3), as large as on the sheet, blue first.
        labels: the objects that it is labelled with.
        predictions: the objects that the model finds, the surest first.
    """

    name: str
    pixels: np.ndarray
    labels: Sequence[Outlined]
    predictions: Sequence[Outlined]


def tile_size(height: int, width: int) -> tuple[int, int]:
    """Height and width in pixels of a photograph on a sheet."""
    scale = TILE / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def outlines_of(mask: np.ndarray) -> tuple[np.ndarray, ...]:
    """The outlines of a mask (height, width) of bool, in its pixels."""
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return tuple(outline.reshape(-1, 2).astype(np.float32) for outline in found)


def sheet(shown: Sequence[Shown], names: Sequence[str], first: int) -> np.ndarray:
    """A sheet of photographs, one a row.

    Args:
        shown: at most ``PER_SHEET`` of them.
        names: of the classes.
        first: the number of the first, for its caption.
    """
    heights = [one.pixels.shape[0] + _CAPTION + _GAP for one in shown]
    picture = blank(2 * TILE + 3 * _GAP, _HEADING + sum(heights))
    right = 2 * _GAP + TILE
    put(picture, "labels", _GAP, _HEADING / 2, _SIZE + 2)
    put(picture, "predictions", right, _HEADING / 2, _SIZE + 2)
    top = _HEADING
    for number, (one, height) in enumerate(zip(shown, heights, strict=True), first):
        more = len(one.predictions) - MOST_NAMED
        put(picture, f"{number}  {cut(one.name, 38 if more > 0 else 80)}", _GAP, *_caption_at(top))
        if more > 0:
            put(picture, f"{len(one.predictions)} shown; named: the surest {MOST_NAMED}", right, *_caption_at(top))
        for left, objects in ((_GAP, one.labels), (right, one.predictions)):
            tile = _drawn(one.pixels, objects, names)
            at = left + (TILE - tile.shape[1]) // 2
            picture[top + _CAPTION : top + _CAPTION + tile.shape[0], at : at + tile.shape[1]] = tile
        top += height
    return picture


def _caption_at(top: int) -> tuple[float, int, tuple[int, int, int]]:
    """Where a caption stands in its row, its size, its colour."""
    return top + _CAPTION / 2 - 1, _SIZE - 2, QUIET


def _drawn(pixels: np.ndarray, objects: Sequence[Outlined], names: Sequence[str]) -> np.ndarray:
    """The photograph with its objects: masks first, so that no mask lies on a name."""
    tile, cover = pixels.copy(), pixels.copy()
    for one in reversed(objects):  # the surest last, on top
        cv2.fillPoly(cover, [outline.round().astype(np.int32) for outline in one.outlines], colour_of(one.number))
    cv2.addWeighted(cover, _SHARE, tile, 1 - _SHARE, 0, tile)
    for one in reversed(objects):
        for outline in one.outlines:
            polyline(tile, outline, colour_of(one.number), 2, closed=True)
    taken: list[tuple[float, float, float, float]] = []
    predicted = any(one.confidence is not None for one in objects)
    for one in objects[:MOST_NAMED] if predicted else objects:
        if one.outlines:
            _write_name(tile, one, names, taken)
    return tile


def _write_name(
    tile: np.ndarray, one: Outlined, names: Sequence[str], taken: list[tuple[float, float, float, float]]
) -> None:
    """The class's name at the top of its object, a line lower where another name is."""
    name = cut(names[one.number] if one.number < len(names) else f"class {one.number}", LONGEST_NAME)
    text = name if one.confidence is None else f"{name} {one.confidence:.2f}"
    points = np.concatenate(one.outlines)
    wide, high = letters.width(text, _SIZE) + 6, _SIZE + 5
    left = float(np.clip(points[:, 0].min(), 0, max(0, tile.shape[1] - wide)))
    top = float(np.clip(points[:, 1].min() - high, 0, max(0, tile.shape[0] - high)))
    while top + 2 * high <= tile.shape[0] and any(_overlap((left, top, wide, high), other) for other in taken):
        top += high
    taken.append((left, top, wide, high))
    colour = colour_of(one.number)
    box(tile, left, top, left + wide, top + high, colour)
    put(tile, text, left + 3, top + high / 2, _SIZE, INK if sum(colour) > 400 else PAPER)


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return abs(one[0] - other[0]) * 2 < one[2] + other[2] and abs(one[1] - other[1]) < min(one[3], other[3])
