"""``petskin-tune trials``: the table of all trials for people, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from petskin_tune import columns as fitting
from petskin_tune import text as words
from petskin_tune.printable import printable
from petskin_tune.views.holds import EXPLAINED
from petskin_tune.views.trials.rows import Row, Trials

LONGEST_VALUE = 24  # columns of a parameter's value in the table


def render(trials: Trials, rows: Sequence[Row], columns: int = words.WIDTH) -> str:
    """The table in at most ``columns``, as many parameters in it as fit."""
    if not rows:
        return words.page([f"study {trials.study} has no {'such ' if trials.rows else ''}trial"])
    cells = [("trial", "state", "mask mAP", "epochs", "time"), *map(_cells, rows)]
    if trials.repeats:
        cells = [(*cell, *more) for cell, more in zip(cells, [("repeats", "seed"), *map(_repeats, rows)], strict=True)]
    shown, left_out = _parameters(trials.differing, rows, columns - max(map(fitting.width, fitting.table(cells))))
    wide = [(*cell, *more) for cell, more in zip(cells, [shown, *(_values(row, shown) for row in rows)], strict=True)]
    lines = _note(trials.repeats, columns) if trials.repeats else []
    lines += fitting.table(wide, right=(0, 2, 3))
    if any(row.best for row in rows):
        lines.append("* the best trial")
    said = dict.fromkeys(row.doing for row in rows if row.doing in EXPLAINED)
    lines += [line for word in said for line in _note(f"{word}: {EXPLAINED[word]}", columns)]
    if left_out:
        lines += _note(f"no room for {', '.join(left_out)}; all of it: --csv, or --trial N", columns)
    return words.page(lines)


def _note(text: str, columns: int) -> list[str]:
    return fitting.wrapped(printable(text), columns, then="  ")


def _cells(row: Row) -> tuple[str, ...]:
    epochs = f"{row.epochs}/{row.of}" if row.of else str(row.epochs)
    took = "–" if row.seconds is None else words.duration(row.seconds)
    doing = fitting.cut(" ".join(printable(row.doing).split()), LONGEST_VALUE)
    return f"{row.number}{'*' if row.best else ' '}", doing, words.score(row.value), epochs, took


def _repeats(row: Row) -> tuple[str, str]:
    return row.repeats or "–", "–" if row.seed is None else str(row.seed)


def _values(row: Row, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(_value(row, name) for name in names)


def _value(row: Row, name: str) -> str:
    shown = printable(words.parameter(row.params[name])) if name in row.params else "–"
    return fitting.cut(" ".join(shown.split()), LONGEST_VALUE)


def _parameters(names: Sequence[str], rows: Sequence[Row], room: int) -> tuple[tuple[str, ...], list[str]]:
    """Those that fit into ``room`` columns, and those that do not."""
    shown: list[str] = []
    left_out: list[str] = []
    for name in names:
        needed = 2 + max(fitting.width(name), *(fitting.width(_value(row, name)) for row in rows))
        if needed <= room:
            shown.append(name)
            room -= needed
        else:
            left_out.append(name)
    return tuple(shown), left_out


# ---- for programs ----------------------------------------------------------------------------------------------------


def to_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each row with all its fields."""
    return [asdict(row) for row in rows]


def to_csv(trials: Trials, rows: Sequence[Row]) -> str:
    """A header and one line a trial: its fields, then its parameters, every number in full."""
    fields = [name for name in Row.__dataclass_fields__ if name not in ("params", "doing")]
    names = sorted(trials.differing)
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow([*fields, *names])
    for row in rows:
        known = asdict(row)
        writer.writerow([known[field] for field in fields] + [row.params.get(name) for name in names])
    return written.getvalue()
