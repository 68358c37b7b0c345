"""How the best trial so far rose, over trials and over hours; the learning curves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from petskin_tune import text as words
from petskin_tune.views.report.parts import grid, missing, plot, section
from petskin_tune.views.report.rows import Row, Table
from petskin_tune.views.report.style import (
    GROUPS,
    HOVER,
    VALUE,
    Figure,
    Trace,
    axis,
    colour,
    counting_axis,
    dots,
    faint,
    figure,
    told,
)
from petskin_tune.views.report.summary import NONE_COMPLETE

MOST_CURVES = 1000  # drawn; of more, the best and an even choice of the others
NO_EPOCH = "No epoch is done yet."


def best_so_far(table: Table) -> str:
    """Two plots: over trials in the order of their numbers, and over hours of training."""
    title = "Best so far"
    if not table.valued:
        return missing(title, NONE_COMPLETE)
    rows = [row for row in table.rows if row.value is not None]
    of_trials = counting_axis("trial", max(row.number for row in rows))
    over_trials = _risen(rows, lambda row: float(row.number), of_trials)
    sentence = "Each dot is a trial; the line is the best so far."
    if any(row.group in ("running", "suspended", "frozen") for row in rows):
        sentence += " A trial that has not ended stands at its best epoch, and does not count for the line."
    highest = max(table.valued, key=lambda row: (row.value or 0.0, -row.number))
    if highest is not table.best:
        sentence += f" It counts single epochs: the highest, {words.score(highest.value)}, is trial {highest.number}'s."
    figures = [plot(over_trials, "The best value so far over the number of trials.", "over trials")]
    if hours := _hours(rows):
        of_hours = axis("hours of training, all workers together", rangemode="tozero")
        over_hours = _risen(rows, lambda row: hours[row.number], of_hours)
        figures.append(plot(over_hours, "The best value so far over hours of training.", "over hours"))
    return section(title, sentence, grid(figures))


def _risen(rows: Sequence[Row], place: Callable[[Row], float], x: dict[str, Any]) -> Figure:
    traces = [_group(group, [row for row in rows if row.group == group], place) for group in GROUPS]
    return figure(
        [*(trace for trace in traces if trace["x"]), _best_line(rows, place)],
        x=x,
        y=axis(VALUE, rangemode="tozero"),
    )


def _group(group: str, rows: Sequence[Row], place: Callable[[Row], float]) -> Trace:
    points = {"x": [_short(place(row)) for row in rows], "y": [_short(row.value) for row in rows]}
    return dots(GROUPS[group], group, **points, meta=told(rows), hovertemplate=HOVER)


def _best_line(rows: Sequence[Row], place: Callable[[Row], float]) -> Trace:
    best, x, y, shown = -1.0, [], [], []
    for row in sorted((row for row in rows if row.ended_with_value), key=place):
        if row.value is not None and row.value > best:
            best = row.value
            x.append(_short(place(row)))
            y.append(_short(best))
            shown.append(row)
    end = max(place(row) for row in rows)
    meta = told([*shown, shown[-1]])
    line = {"color": colour("best"), "width": 2.5, "shape": "hv"}
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "best so far",
        "x": [*x, _short(end)],
        "y": [*y, y[-1]],
        "line": line,
        "meta": meta,
        "hovertemplate": HOVER,
    }


def _hours(rows: Iterable[Row]) -> dict[int, float]:
    """Hours trained by all workers together until each trial's end; empty where nothing is known of them.

    A trial stands where it would have ended without a pause: one that was frozen is told its end with the study's.
    """
    hours: dict[int, float] = {}
    sum_of_all = 0.0
    for row in sorted(rows, key=lambda row: (_unpaused_end(row) or datetime.max, row.number)):
        sum_of_all += row.seconds
        hours[row.number] = sum_of_all / 3600
    return hours if sum_of_all else {}


def _unpaused_end(row: Row) -> datetime | None:
    if row.begin is None:
        return row.end
    trained = row.begin + timedelta(seconds=row.seconds)
    return trained if row.end is None else min(trained, row.end)


# ---- learning curves ------------------------------------------------------------------------------------------------


def learning_curves(table: Table) -> str:
    """Every trial's fitness over its epochs, the best in front."""
    title = "Learning curves"
    rows = [row for row in table.rows if row.curve]
    if not rows:
        return missing(title, NO_EPOCH)
    drawn = _chosen(rows, table)
    said = (
        "Every line is a trial"
        if len(drawn) == len(rows)
        else f"{len(drawn):,} of {len(rows):,} trials, the best ones among them"
    )
    sentence = f"{said}, epoch by epoch; a ring marks where one ended that was interrupted and went on."
    drawing = figure(
        list(_curve_traces(drawn, table.best)),
        x=counting_axis("epoch", max(row.curve[-1][0] for row in drawn)),
        y=axis(VALUE),
        height=420,
    )
    return section(title, sentence, plot(drawing, "Fitness of every trial over its epochs."))


def _chosen(rows: Sequence[Row], table: Table) -> list[Row]:
    """The best half of what is drawn, and an even choice of the others."""
    if len(rows) <= MOST_CURVES:
        return list(rows)
    first = set(table.order[: MOST_CURVES // 2])
    others = [row for row in rows if row.number not in first]
    step = len(others) / (MOST_CURVES - len(first))
    evenly = {others[int(place * step)].number for place in range(MOST_CURVES - len(first))}
    return [row for row in rows if row.number in first or row.number in evenly]


def _curve_traces(rows: Sequence[Row], best: Row | None) -> Iterator[Trace]:
    thin = len(rows) > 100
    for group, name in GROUPS.items():
        if found := [row for row in rows if row.group == group and row is not best]:
            dash = {"dash": "dot"} if group in ("frozen", "suspended", "running") else {}
            ink = colour(group, faint(len(rows)) if group in ("complete", "pruned") else 0.8)
            yield _lines(name, found, {"color": ink, "width": 1.0 if thin else 1.4, **dash})
    if resumed := [row for row in rows if row.resumes]:
        yield dots(
            "interrupted, went on",
            "resumed",
            x=[row.curve[-1][0] for row in resumed],
            y=[_short(row.curve[-1][1]) for row in resumed],
            meta=told(resumed),
            marker={"color": colour("quiet"), "size": 7, "symbol": "circle-open", "opacity": 0.8},
            hovertemplate=HOVER,
        )
    if best is not None and best.curve:
        yield _lines(f"best: trial {best.number}", [best], {"color": colour("best"), "width": 3})
        at = max(best.curve, key=lambda point: point[1])
        yield dots(None, "best", x=[at[0]], y=[_short(at[1])], meta=told([best]), hovertemplate=HOVER)


def _lines(name: str, rows: Sequence[Row], line: Trace) -> Trace:
    """All trials of a group in one trace, with a gap after each."""
    x: list[int | None] = []
    y: list[float | None] = []
    for row in rows:
        x += [*(epoch for epoch, _ in row.curve), None]
        y += [*(_short(value) for _, value in row.curve), None]
    looks = {"mode": "lines", "line": line}
    if all(len(row.curve) == 1 for row in rows):
        looks = {"mode": "markers", "marker": {"color": line["color"], "size": 5}}
    return {
        "type": "scatter",
        **looks,
        "name": name,
        "x": x,
        "y": y,
        "meta": told(rows, [len(row.curve) for row in rows]),
        "hovertemplate": "%{text}<br>epoch %{x}: %{y:.3f}<extra></extra>",
    }


def _short(value: float | None) -> float | None:
    """Enough digits for a plot; a thousand curves are a megabyte otherwise."""
    return None if value is None else float(f"{value:.4g}")
