"""How every plot looks: one place for colours, axes, sizes and hover texts.

A figure is plain data for plotly.js. A colour is ``"colour:NAME"`` or ``"colour:NAME/SHARE"``, resolved by ``page.js``
to the CSS variable of that name in ``page.css``, which differs between light and dark. Names of trials, parameters and
classes come from others: whatever of them plotly.js shows as text goes through :func:`plain`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from petskin_tune import text as words
from petskin_tune.printable import html_text, in_json

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from petskin_tune.views.report.rows import Row

Figure = dict[str, Any]
Trace = dict[str, Any]

VALUE = "mask mAP50-95"
HEIGHT = 320  # pixels of a plot
SMALL = 210  # of one of many
LONGEST_LABEL = 24  # characters beside an axis: more leaves a phone no room for the plot
FEW = 8  # numbers that a phone has room for beside each other
HOVER_WIDTH = 36  # characters of a line of settings

# How a group of trials is drawn, the ones in front last.
GROUPS: Mapping[str, str] = {
    "pruned": "pruned",
    "complete": "complete",
    "failed": "ended by a failure",
    "frozen": "frozen",
    "suspended": "suspended",
    "running": "running",
}


def colour(name: str, share: float = 1.0) -> str:
    """The CSS variable ``--NAME`` as a colour of a figure; ``share`` of it covers what lies beneath."""
    return f"colour:{name}" if share == 1.0 else f"colour:{name}/{share}"


def faint(lines: int) -> float:
    """How much one of many lines covers, so that where many lie can be told from where one does."""
    return min(0.75, max(0.12, 40 / max(lines, 1)))


def plain(text: object) -> str:
    """Text of others as plotly.js shows it unchanged: it reads some HTML."""
    return html_text(str(text), quote=False)


def label(text: object) -> str:
    """The same, short enough to stand beside an axis."""
    full = str(text)
    return plain(full if len(full) <= LONGEST_LABEL else full[: LONGEST_LABEL - 1] + "…")


def number(value: object) -> str:
    """A value as a person types it: ``1e-5``, ``0.0008163``, ``AdamW``."""
    if not isinstance(value, float):
        return str(value)
    mantissa, e, exponent = f"{value:.4g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if e else mantissa


def percent(share: float) -> str:
    """A share of something: ``12 %``."""
    return f"{share:.0%}".replace("%", " %") if share >= 0.01 or share == 0 else "below 1 %"


# ---- figures --------------------------------------------------------------------------------------------------------

LAYOUT: dict[str, Any] = {
    "height": HEIGHT,
    "margin": {"l": 8, "r": 20, "t": 8, "b": 8},  # on the right: half of a number at the end of an axis
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12, "color": colour("ink")},
    "hovermode": "closest",
    "hoverlabel": {
        "bgcolor": colour("card"),
        "bordercolor": colour("line"),
        "font": {"color": colour("ink")},
        "align": "left",
    },
    "showlegend": False,  # `parts.py` makes one of HTML
}


def figure(
    traces: Sequence[Trace], *, x: Mapping[str, Any], y: Mapping[str, Any], keys: bool = True, **layout: Any
) -> Figure:
    """Traces on two axes.

    Args:
        traces: of plotly.js.
        x, y: see :func:`axis`.
        keys: whether traces that have names get a legend.
        layout: goes over the usual one.
    """
    return {"data": list(traces), "layout": LAYOUT | {"xaxis": x, "yaxis": y} | layout, "keys": keys}


def axis(title: str | None = None, **more: Any) -> dict[str, Any]:
    """An axis that makes its own room."""
    known = {
        "automargin": True,
        "gridcolor": colour("grid"),
        "linecolor": colour("line"),
        "tickcolor": colour("line"),
        "tickfont": {"color": colour("quiet")},
        "zeroline": False,
    }
    if title:
        known["title"] = {"text": title, "standoff": 8, "font": {"color": colour("quiet")}}
    return known | more


def counting_axis(title: str, most: float, **more: Any) -> dict[str, Any]:
    """An axis of whole numbers from 0 to ``most``: of few, plotly.js would write halves."""
    return axis(title, rangemode="tozero", **({"dtick": 1} if most <= FEW else {}), **more)


def parameter_axis(name: str, distribution: BaseDistribution, *, titled: bool = True, ticks: int = 4) -> dict[str, Any]:
    """The axis of a parameter: logarithmic where it is searched so, choices at 0, 1, 2, …"""
    title = label(name) if titled else None
    choices = getattr(distribution, "choices", None)
    if choices is not None:
        places = list(range(len(choices)))
        return axis(title, tickvals=places, ticktext=[label(c) for c in choices], range=[-0.5, len(choices) - 0.5])
    low, high = float(distribution.low), float(distribution.high)  # type: ignore[attr-defined]
    if getattr(distribution, "log", False):
        values = decades(low, high, ticks)
        edges = math.log10(low), math.log10(high)
        margin = 0.04 * (edges[1] - edges[0])
        return axis(
            title,
            type="log",
            tickvals=values,
            ticktext=[number(value) for value in values],
            range=[edges[0] - margin, edges[1] + margin],
        )
    margin = 0.04 * (high - low)
    return axis(title, range=[low - margin, high + margin], nticks=ticks + 1)


def decades(low: float, high: float, most: int) -> list[float]:
    """Powers of ten within a range, at most ``most``; of a range without two of them, its ends."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    if last - first < 1:
        return [low, high]
    step = max(1, math.ceil((last - first + 1) / most))
    return [float(f"1e{power}") for power in range(first, last + 1, step)]


def position(value: Any, distribution: BaseDistribution) -> float:
    """Where a value stands on :func:`parameter_axis`."""
    choices = getattr(distribution, "choices", None)
    return float(value) if choices is None else float(choices.index(value)) if value in choices else math.nan


def unit(value: Any, distribution: BaseDistribution) -> float:
    """Where a value stands between the ends of what is searched, 0 to 1; NaN outside of all choices."""
    choices = getattr(distribution, "choices", None)
    if choices is not None:
        return (position(value, distribution) + 0.5) / len(choices)
    scale = math.log if getattr(distribution, "log", False) else float
    low, high = scale(distribution.low), scale(distribution.high)  # type: ignore[attr-defined]
    return (scale(value) - low) / (high - low) if high > low else 0.5


def dots(name: str | None, group: str, **more: Any) -> Trace:
    """A trace of one marker a trial; with a name it is in the legend."""
    known = {
        "type": "scatter",
        "mode": "markers",
        **({"name": name} if name else {}),
        "marker": {"color": colour(group), **MARKERS.get(group, {"size": 7})},
    }
    return known | more


MARKERS: Mapping[str, Mapping[str, Any]] = {
    "best": {"size": 13, "symbol": "star", "line": {"width": 1, "color": colour("card")}},
    "defaults": {"size": 10, "symbol": "diamond", "line": {"width": 1, "color": colour("card")}},
    "complete": {"size": 6, "opacity": 0.75},
    "pruned": {"size": 5, "opacity": 0.6},
    "failed": {"size": 6, "symbol": "x-thin", "line": {"width": 1.5, "color": colour("failed")}},
    "frozen": {"size": 6, "symbol": "circle-open", "line": {"width": 1.5}},
    "suspended": {"size": 6, "symbol": "circle-open", "line": {"width": 1.5}},
    "running": {"size": 6, "symbol": "circle-open", "line": {"width": 1.5}},
}


# ---- trials in hover texts ------------------------------------------------------------------------------------------


def told(rows: Sequence[Row], lengths: Sequence[int] | None = None) -> dict[str, Any]:
    """The trial behind each point: ``page.js`` puts its text beside it.

    Args:
        rows: one a point, or one a run of points.
        lengths: of the runs, each followed by a gap.
    """
    return {"trials": [row.number for row in rows], **({"lengths": list(lengths)} if lengths is not None else {})}


HOVER = "%{text}<extra></extra>"


def hover_texts(rows: Sequence[Row]) -> dict[int, str]:
    """What is said of a trial wherever it is pointed at: its number, how it ended, and its settings."""
    return {row.number: _hover_text(row) for row in rows}


def _hover_text(row: Row) -> str:
    ended = row.state if row.kind is None else f"{row.state}, {row.kind}"
    resumed = f", went on {words.counted(row.resumes, 'time')} after an end" if row.resumes else ""
    value = "" if row.value is None else f": {words.score(row.value)}"
    lines = [f"<b>trial {row.number}</b> ({plain(ended[:60])}{resumed}){value}"]
    line = ""
    for name, setting in row.params.items():
        piece = f"{str(name)[:40]}={number(setting)[:40]}"
        if line and len(line) + len(piece) > HOVER_WIDTH:
            lines.append(plain(line))
            line = ""
        line = f"{line} {piece}".strip()
    return "<br>".join([*lines, *([plain(line)] if line else [])])


def as_json(content: Any) -> str:
    """JSON that may stand inside of ``<script>``, whatever strings it has; what is not finite is null."""
    try:
        text = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(content), separators=(",", ":"), ensure_ascii=False)
    return in_json(text).replace("<", "\\u003c")


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content
