"""Drawing on arrays of pixels (height, width, 3) of uint8, blue first: text, lines, and a plot's axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np

from petskin_tune.training.pictures import letters

Colour = tuple[int, int, int]  # blue, green, red

PAPER: Colour = (255, 255, 255)
INK: Colour = (51, 41, 31)
QUIET: Colour = (123, 108, 95)
GRID: Colour = (237, 232, 229)
# By class number, told apart on skin and fur.
PALETTE: Sequence[Colour] = (
    (40, 60, 230),
    (230, 130, 40),
    (80, 170, 60),
    (30, 160, 240),
    (200, 80, 150),
    (170, 170, 0),
    (160, 80, 220),
    (60, 110, 140),
    (220, 60, 60),
    (110, 190, 170),
)
SIZE = 18  # of letters on plots, in pixels
_SHIFT = 4  # bits behind the point of coordinates

Anchor = Literal["left", "centre", "right"]


def colour_of(number: int) -> Colour:
    """The colour of a class, or of a curve."""
    return PALETTE[number % len(PALETTE)]


def blank(width: int, height: int, colour: Colour = PAPER) -> np.ndarray:
    """A picture of one colour."""
    return np.full((height, width, 3), colour, np.uint8)


def put(
    picture: np.ndarray,
    text: str,
    x: float,
    y: float,
    size: int = SIZE,
    colour: Colour = INK,
    anchor: Anchor = "left",
    *,
    turned: bool = False,
) -> None:
    """Write a line of text; what lies outside of the picture is cut off.

    Args:
        picture: drawn on.
        text: anybody's.
        x: of the side that ``anchor`` names; of turned text its left edge.
        y: of the middle of the line; of turned text (read from below) the end that ``anchor`` names.
        size: of the letters.
        colour: of the letters.
        anchor: which end of the text lies at the point.
        turned: by a quarter, so that it is read from below.
    """
    mask = letters.mask(text, size)
    share = {"left": 0.0, "centre": 0.5, "right": 1.0}[anchor]
    if turned:
        mask = np.rot90(mask)
        left, top = round(x), round(y - (1 - share) * mask.shape[0])
    else:
        left, top = round(x - share * mask.shape[1]), round(y - mask.shape[0] / 2)
    _blend(picture, mask, left, top, colour)


def _blend(picture: np.ndarray, mask: np.ndarray, left: int, top: int, colour: Colour) -> None:
    from_x, from_y = max(0, -left), max(0, -top)
    to_x, to_y = min(mask.shape[1], picture.shape[1] - left), min(mask.shape[0], picture.shape[0] - top)
    if to_x <= from_x or to_y <= from_y:
        return
    share = mask[from_y:to_y, from_x:to_x, None].astype(np.float32) / 255
    under = picture[top + from_y : top + to_y, left + from_x : left + to_x]
    under[:] = (under * (1 - share) + np.array(colour, np.float32) * share).round().astype(np.uint8)


def box(picture: np.ndarray, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
    """Fill a rectangle."""
    cv2.rectangle(picture, (round(left), round(top)), (round(right) - 1, round(bottom) - 1), colour, -1)


def polyline(picture: np.ndarray, points: np.ndarray, colour: Colour, thick: int, *, closed: bool = False) -> None:
    """Draw a line through points (points, 2) in pixels, smoothly."""
    exact = np.round(points * 2**_SHIFT).astype(np.int32).reshape(-1, 1, 2)
    cv2.polylines(picture, [exact], closed, colour, thick, cv2.LINE_AA, _SHIFT)


def jpeg(picture: np.ndarray) -> bytes:
    """The picture as the content of a JPEG file."""
    return bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 84])[1])


class Axes:
    """A plot's area with its ticks; both axes are linear.

    Args:
        picture: drawn on.
        left, top, right, bottom: of the area, in pixels.
        x, y: the ranges that it shows.
    """

    def __init__(
        self,
        picture: np.ndarray,
        left: int,
        top: int,
        right: int,
        bottom: int,
        x: tuple[float, float] = (0.0, 1.0),
        y: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        self._picture = picture
        self._box = left, top, right, bottom
        self._x, self._y = x, y

    def ticks(self, *, x: bool = True, y: bool = True, size: int = SIZE - 3) -> None:
        """Draw the grid, and the numbers of the axes that are asked for."""
        left, top, right, bottom = self._box
        for value in steps(*self._y) if y else ():
            at = self.place(self._x[0], value)[1]
            polyline(self._picture, np.array([[left, at], [right, at]]), GRID, 1)
            put(self._picture, f"{value:g}", left - 8, at, size, QUIET, "right")
        for value in steps(*self._x) if x else ():
            at = self.place(value, self._y[0])[0]
            polyline(self._picture, np.array([[at, top], [at, bottom]]), GRID, 1)
            put(self._picture, f"{value:g}", at, bottom + size, size, QUIET, "centre")

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a point lies, in pixels."""
        left, top, right, bottom = self._box
        across = (x - self._x[0]) / (self._x[1] - self._x[0] or 1)
        up = (y - self._y[0]) / (self._y[1] - self._y[0] or 1)
        return left + across * (right - left), bottom - up * (bottom - top)

    def line(self, xs: Sequence[float], ys: Sequence[float], colour: Colour, thick: int = 2) -> None:
        """Draw a curve; where a number is not finite it has a gap."""
        run: list[tuple[float, float]] = []
        for x, y in [*zip(xs, ys, strict=True), (math.nan, math.nan)]:
            if math.isfinite(x) and math.isfinite(y):
                run.append(self.place(x, y))
                continue
            if len(run) == 1:
                cv2.circle(self._picture, (round(run[0][0]), round(run[0][1])), thick + 1, colour, -1, cv2.LINE_AA)
            elif run:
                polyline(self._picture, np.array(run), colour, thick)
            run = []


def steps(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from ``low`` to ``high``, at most ``most`` of them."""
    span = high - low
    if not span > 0:
        return [low]
    least = span / (most - 1)  # from one to the next
    power = 10.0 ** math.floor(math.log10(least))
    step = next((power * factor for factor in (1, 2, 2.5, 5) if power * factor >= least), 10 * power)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 10) for index in range(first, math.floor(high / step + 1e-9) + 1)]
