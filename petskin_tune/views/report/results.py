"""What to do with the best trial: its settings beside the defaults, and its classes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from petskin_tune import text as words
from petskin_tune.diagnosis.curves import PER_CLASS
from petskin_tune.printable import html_text
from petskin_tune.study import attributes
from petskin_tune.study.best.gain import NAMES
from petskin_tune.study.space.arguments import arguments
from petskin_tune.study.stored import recorded
from petskin_tune.views.report.parts import cell, missing, plot, section, table
from petskin_tune.views.report.rows import Row, Table
from petskin_tune.views.report.style import Figure, axis, colour, figure, label, number
from petskin_tune.views.report.summary import NONE_COMPLETE

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


def best_beside_defaults(study: Table) -> str:
    """Every setting of the best trial, what it is by default, and what was searched."""
    title = "Best settings"
    best, other = study.best, study.defaults
    if best is None:
        return missing(title, NONE_COMPLETE)
    mine = _settings(best)
    theirs = _settings(other) if other is not None else _plain_defaults(mine)
    column = f"trial {other.number}" if other is not None else "Ultralytics"
    names = [name for name in (*study.space, *sorted(mine.keys() - study.space.keys())) if name in mine]
    rows = [_setting(name, mine[name], theirs.get(name), study.space.get(name)) for name in names]
    differing = sum(not _same(mine[name], theirs.get(name)) for name in names)
    beside = (
        f"trial {other.number}, which began with {NAMES[study.reference]}"
        if other
        else "Ultralytics' defaults, which no trial tried"
    )
    if other is not None and other.number == best.number:
        sentence = f"Trial {best.number} is the best, and it is the one that began with {NAMES[study.reference]}."
    else:
        sentence = f"Trial {best.number} beside {beside}; {differing} of {len(names)} settings differ (bold)."
    return section(title, sentence, table(["setting", f"best: trial {best.number}", column, "searched in"], rows))


def _settings(row: Row) -> dict[str, Any]:
    return {**row.params, **recorded(row.trial).get(attributes.FIXED, {})}


def _plain_defaults(names: dict[str, Any]) -> dict[str, Any]:
    known = arguments()
    return {name: known[name].default for name in names if name in known}


def _setting(name: str, mine: Any, theirs: Any, searched: BaseDistribution | None) -> list[str]:
    kind = "" if _same(mine, theirs) else "differs"
    return [
        cell(name),
        cell(number(mine), kind=kind),
        cell("–" if theirs is None else number(theirs)),
        cell(_range(searched), kind="wrap"),
    ]


def _same(mine: Any, theirs: Any) -> bool:
    return bool(mine == theirs) or (theirs is not None and number(mine) == number(theirs))


def _range(known: BaseDistribution | None) -> str:
    if known is None:
        return "this trial's own"
    choices = getattr(known, "choices", None)
    if choices is not None:
        return ", ".join(number(choice) for choice in choices)
    scale = ", logarithmic" if getattr(known, "log", False) else ""
    return f"{number(known.low)} to {number(known.high)}{scale}"  # type: ignore[attr-defined]


# ---- classes --------------------------------------------------------------------------------------------------------


def classes(study: Table) -> str:
    """Mask mAP of every class, of the best trial and of the defaults."""
    title = "Classes"
    best, defaults = study.best, study.defaults
    if best is None:
        return missing(title, NONE_COMPLETE)
    mine = by_class(best)
    if not mine:
        return missing(title, "The best trial has no mask mAP by class.")
    rows = [(f"best: trial {best.number}", "best", mine)]
    if defaults is not None and defaults.number != best.number and (theirs := by_class(defaults)):
        rows.append((f"{study.reference}: trial {defaults.number}", "defaults", theirs))
    worst = min(mine, key=lambda name: mine[name])
    sentence = (
        f"{VALUE_OF} of each class at the best epoch. The weakest is {worst} with {words.score(mine[worst])}: more or "
        "better labels of it may help the mean most."
        if len(mine) > 1
        else f"{VALUE_OF} of the only class at the best epoch."
    )
    return section(title, sentence, plot(_bars(rows), "Fitness of each class."))


VALUE_OF = "Mask mAP50-95"


def by_class(row: Row) -> dict[str, float]:
    """Mask mAP50-95 by class at the trial's best epoch; without classes that have no object in the validation set."""
    known = recorded(row.trial)
    found = {name: value for name, value in known.get(attributes.METRICS, {}).items() if name.startswith(PER_CLASS)}
    if not found and row.best_epoch:
        history = known.get(attributes.HISTORY, {})
        place = row.best_epoch - 1
        found = {name: v[place] for name, v in history.items() if name.startswith(PER_CLASS) and place < len(v)}
    return {name.removeprefix(PER_CLASS): value for name, value in found.items() if math.isfinite(value)}


def _bars(rows: list[tuple[str, str, dict[str, float]]]) -> Figure:
    names = sorted(rows[0][2], key=lambda name: rows[0][2][name])
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": html_text(title),
            "y": list(range(len(names))),
            "x": [round(values.get(name, math.nan), 4) for name in names],
            "text": [words.score(values[name]) if name in values else "" for name in names],
            "textposition": "auto",
            "hoverinfo": "skip",
            "marker": {"color": colour(kind)},
        }
        for title, kind, values in reversed(rows)
    ]
    places = axis(tickvals=list(range(len(names))), ticktext=[label(name) for name in names], showgrid=False)
    size = 90 + (26 if len(rows) == 1 else 44) * len(names)
    return figure(traces, x=axis(VALUE_OF, rangemode="tozero"), y=places, height=size)
