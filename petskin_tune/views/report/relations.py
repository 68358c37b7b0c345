"""Parameters together: parallel coordinates of all of them, and a map of the two most important."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from petskin_tune import text as words
from petskin_tune.views.report.parameters import thinned
from petskin_tune.views.report.parts import missing, plot, section
from petskin_tune.views.report.rows import Row, Table
from petskin_tune.views.report.style import (
    HOVER,
    Figure,
    Trace,
    axis,
    colour,
    dots,
    faint,
    figure,
    label,
    number,
    parameter_axis,
    percent,
    told,
    unit,
)

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

MOST_LINES = 300  # besides the best tenth
TOP = 0.1
ENOUGH_FOR_MAP = 8  # trials
CELLS = 33  # of the map, to each side
REACH = 0.1  # of each range: how far a trial speaks for its neighbourhood
LEAST_WEIGHT = 0.2  # of one trial: where less is known the map is empty

Array = np.ndarray[Any, np.dtype[np.float64]]


def together(table: Table) -> str:
    """Every trial as a line through all of its parameters: one row each, so that any number of them fits a phone."""
    title = "All parameters together"
    space = table.distributions()
    rows = [row for row in table.valued if space.keys() <= row.params.keys()]
    if len(rows) < 2 or len(space) < 2:
        return missing(title, "Needs two trials with the same two parameters or more.")
    known = [row.number for row in rows]
    top = [number for number in table.order if number in set(known)][: max(5, round(TOP * len(rows)))]
    sentence = (
        f"Every line is a trial, from its mask mAP at the top through the value of each parameter; the best "
        f"{words.counted(len(top), 'trial')} of {len(rows):,} are blue, the very best is thick: where blue lines "
        "meet, a value is good."
    )
    drawing = figure(
        list(_lines(rows, top, table)),
        x=axis(range=[-0.04, 1.04], visible=False, fixedrange=True),
        y=axis(
            tickvals=list(range(len(space) + 1)),
            ticktext=[label(name) for name in (*list(space)[::-1], "mask mAP")],
            range=[-0.6, len(space) + 0.4],
            gridcolor=colour("line"),
            fixedrange=True,
        ),
        height=60 + 54 * (len(space) + 1),
        keys=False,
        annotations=[*_ends(rows, space)],
    )
    return section(title, sentence, plot(drawing, "Parallel coordinates of all parameters."))


def _lines(rows: Sequence[Row], top: Sequence[int], table: Table) -> Iterator[Trace]:
    space = table.distributions()
    low, high = _values(rows)
    best = table.best
    others = thinned([row for row in rows if row.number not in set(top)], table, MOST_LINES)
    groups = [
        (others, {"color": colour("pruned", faint(2 * len(others))), "width": 0.8}),
        ([row for row in rows if row.number in set(top)], {"color": colour("complete", faint(len(top))), "width": 1.2}),
        ([best] if best is not None and best.number in top else [], {"color": colour("best"), "width": 3}),
    ]
    for found, line in groups:
        if found:
            x: list[float | None] = []
            y: list[float | None] = []
            for row in found:
                value = 0.5 if high == low else ((row.value or 0.0) - low) / (high - low)
                places = [unit(row.params[name], space[name]) for name in list(space)[::-1]]
                x += [*(round(place, 4) for place in (*places, value)), None]
                y += [*range(len(space) + 1), None]
            yield {
                "type": "scatter",
                "mode": "lines",
                "x": x,
                "y": y,
                "line": {**line, "shape": "linear"},
                "meta": told(found, [len(space) + 1] * len(found)),
                "hovertemplate": HOVER,
            }


def _values(rows: Sequence[Row]) -> tuple[float, float]:
    values = [row.value for row in rows if row.value is not None]
    return min(values), max(values)


def _ends(rows: Sequence[Row], space: dict[str, BaseDistribution]) -> Iterator[dict[str, Any]]:
    """What stands at the ends of each row, or at each choice."""
    low, high = _values(rows)
    for place, known in enumerate(list(space.values())[::-1]):
        choices = getattr(known, "choices", None)
        if choices is not None:
            for choice in choices:
                yield _mark(unit(choice, known), place, label(choice))
        else:
            yield _mark(0.0, place, number(known.low), "left")  # type: ignore[attr-defined]
            yield _mark(1.0, place, number(known.high), "right")  # type: ignore[attr-defined]
    yield _mark(0.0, len(space), words.score(low), "left")
    yield _mark(1.0, len(space), words.score(high), "right")


def _mark(x: float, y: int, text: str, side: str = "center") -> dict[str, Any]:
    font = {"size": 11, "color": colour("quiet")}
    return {
        "x": x,
        "y": y,
        "text": text,
        "xanchor": side,
        "yanchor": "top",
        "showarrow": False,
        "font": font,
        "bgcolor": colour("veil"),
    }


# ---- the map of two -------------------------------------------------------------------------------------------------


def map_of_two(table: Table, shares: dict[str, float]) -> str:
    """Fitness over the two most important numbers."""
    title = "The two that matter most"
    known = table.distributions()
    numbers = [name for name in shares if not hasattr(known[name], "choices")][:2]
    if len(numbers) < 2:
        return missing(title, "Needs two parameters that are numbers and whose importance is known.")
    rows = [row for row in table.valued if all(name in row.params for name in numbers)]
    if len(rows) < ENOUGH_FOR_MAP:
        return missing(title, f"Needs {ENOUGH_FOR_MAP} trials, there are {len(rows)}.")
    chosen = shares[numbers[0]] + shares[numbers[1]]
    sentence = (
        f"Mask mAP over {numbers[0]} and {numbers[1]} ({percent(chosen)} of the importance), smoothed: bright is good, "
        "empty is untried. A pruned trial counts with what it had reached."
    )
    drawing = _map(numbers[0], numbers[1], rows, table)
    return section(title, sentence, plot(drawing, f"Fitness over {numbers[0]} and {numbers[1]}."))


def _map(first: str, second: str, rows: Sequence[Row], table: Table) -> Figure:
    known = table.distributions()
    points = np.array([[unit(row.params[name], known[name]) for name in (first, second)] for row in rows])
    values = np.array([row.value for row in rows], dtype=float)
    surface = smoothed(points, values)
    ends = np.linspace(0, 1, CELLS)
    contour = {
        "type": "contour",
        "x": [float(f"{_value(place, known[first]):.4g}") for place in ends],
        "y": [float(f"{_value(place, known[second]):.4g}") for place in ends],
        "z": [[None if np.isnan(value) else round(float(value), 4) for value in line] for line in surface],
        "colorscale": [
            [place, colour(f"map-{name}")] for place, name in ((0.0, "low"), (0.5, "middle"), (1.0, "high"))
        ],
        "contours": {"coloring": "heatmap"},
        "line": {"width": 0.5, "color": colour("card")},
        "ncontours": 12,
        "hoverinfo": "skip",
        "colorbar": {"thickness": 10, "outlinewidth": 0, "tickfont": {"color": colour("quiet")}},
    }
    drawn = thinned(rows, table, MOST_LINES)
    traces = [contour, _dots("complete", [row for row in drawn if row is not table.best], first, second)]
    traces[1]["marker"] = {"color": colour("ink"), "size": 4, "opacity": 0.45}
    for group, row in (("defaults", table.defaults), ("best", table.best)):
        if row is not None and first in row.params and second in row.params:
            traces.append(_dots(group, [row], first, second))
    return figure(
        traces,
        x=parameter_axis(first, known[first]),
        y=parameter_axis(second, known[second]),
        height=400,
        keys=False,
    )


def _dots(group: str, rows: Sequence[Row], first: str, second: str) -> Trace:
    x, y = ([row.params[name] for row in rows] for name in (first, second))
    return dots(group, group, x=x, y=y, meta=told(rows), hovertemplate=HOVER)


def smoothed(points: Array, values: Array) -> Array:
    """The mean of the values around each cell, weighted by a Gaussian; NaN where nobody was near.

    Args:
        points: shape (n, 2), between 0 and 1; x first.
        values: shape (n,).

    Returns:
        shape (CELLS, CELLS): rows along y.
    """
    centres = np.linspace(0, 1, CELLS)
    along_x, along_y = (np.exp(-0.5 * ((centres[:, None] - points[:, axis]) / REACH) ** 2) for axis in (0, 1))
    weights = along_y @ along_x.T
    means = (along_y * values) @ along_x.T / np.maximum(weights, 1e-12)
    return np.where(weights < LEAST_WEIGHT, np.nan, means)


def _value(place: float, known: BaseDistribution) -> float:
    """The inverse of :func:`petskin_tune.views.report.style.unit`."""
    low, high = float(known.low), float(known.high)  # type: ignore[attr-defined]
    return float(low * (high / low) ** place) if getattr(known, "log", False) else low + place * (high - low)
