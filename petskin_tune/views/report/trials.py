"""The table of all trials; ``page.js`` sorts and filters it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from petskin_tune import text as words
from petskin_tune.printable import html_text
from petskin_tune.views.report.parts import quiet, section
from petskin_tune.views.report.rows import Row, Table
from petskin_tune.views.report.style import number

MAIN = ("trial", "state", "mask mAP", "epochs", "time")  # columns that a phone shows
MORE = ("best epoch", "resumes", "worker", "curves")


def all_trials(study: Table) -> str:
    """Every trial, the best first, those without a final value last; repetitions in the order of their pairs."""
    title = f"Trials ({len(study.rows)})"
    if not study.rows:
        return section(title, None, quiet("None has begun yet."))
    names = list(study.space)
    rows = list(study.rows) if study.is_of_repetitions else _best_first(study)
    states = sorted({row.state for row in rows})
    sentence = f"{'' if study.is_of_repetitions else _order(study)}Press a column's head to sort by it."
    return f'<div class="broad">{section(title, sentence, _controls(states), _table(rows, names))}</div>'


def _best_first(study: Table) -> list[Row]:
    """Those that ended with a value by their rank, then the others by their best epoch."""
    place = {number: index for index, number in enumerate(study.order)}

    def key(row: Row) -> tuple[int, float, int]:
        return place.get(row.number, len(place)), math.inf if row.value is None else -row.value, row.number

    return sorted(study.rows, key=key)


def _order(study: Table) -> str:
    if 0 < len(study.order) < len(study.rows):
        return "The best first; trials without a final value follow, by their best epoch. "
    return "The best first. " if study.order else "No trial has a final value yet: the best epoch first. "


def _controls(states: Sequence[str]) -> str:
    options = "".join(f"<option>{html_text(state)}</option>" for state in states)
    return (
        '<div class="controls">'
        '<input type="search" placeholder="filter: adamw, map&gt;0.3, lr0&lt;0.001, …" aria-label="filter">'
        f'<select aria-label="state"><option value="">every state</option>{options}</select>'
        '<label><input type="checkbox"> all columns</label>'
        '<span class="quiet count"></span></div>'
    )


def _table(rows: Sequence[Row], names: Sequence[str]) -> str:
    heads = [_head(name, more=False) for name in MAIN] + [_head(name, more=True) for name in (*names, *MORE)]
    body = "".join(f"<tr>{''.join(_cells(row, names))}</tr>" for row in rows)
    return (
        '<div class="wide tall"><table class="trials"><thead><tr>'
        f"{''.join(heads)}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _head(name: str, *, more: bool) -> str:
    return f'<th{_kind(more)} tabindex="0" aria-sort="none">{html_text(name)}</th>'


def _kind(more: bool) -> str:
    return ' class="more"' if more else ""


def _cells(row: Row, names: Sequence[str]) -> list[str]:
    seconds = words.duration(row.seconds) if row.seconds else ""
    state = row.state if row.kind is None else f"{row.state}, {row.kind}"
    return [
        _cell(str(row.number)),
        _cell(state),
        _cell("" if row.value is None else words.score(row.value), row.value),
        _cell(str(len(row.curve) or "")),
        _cell(seconds, round(row.seconds)),
        *(_cell(number(row.params[name]) if name in row.params else "", more=True) for name in names),
        _cell(str(row.best_epoch or ""), more=True),
        _cell(str(row.resumes or ""), more=True),
        _cell(row.worker or "", more=True),
        _cell(", ".join(row.findings), more=True),
    ]


def _cell(text: str, key: float | None = None, *, more: bool = False) -> str:
    """``key``: what it is sorted by where that is not the text."""
    by = "" if key is None or not text else f' data-v="{key:.6g}"'
    return f"<td{_kind(more)}{by}>{html_text(text)}</td>"
