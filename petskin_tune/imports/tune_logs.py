"""The logs of Ultralytics' ``model.tune()``: ``tune_results.csv``, and since 8.4 ``tune_results.ndjson``.

A row is a whole training: its fitness at the end and the hyperparameters that were searched. A training that failed has
the fitness 0. What a fitness is, a .csv does not say (a sum over boxes and masks, weighted otherwise in every other
release); a .ndjson holds mask mAP itself.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from petskin_tune.diagnosis.curves import BOX, MASK
from petskin_tune.errors import UsageError
from petskin_tune.files.regular import read_bytes
from petskin_tune.imports.runs import Run, digest_of
from petskin_tune.study.space.arguments import LIMITS

NAMES = ("tune_results.ndjson", "tune_results.csv")
MOST = 16 << 20  # bytes
MOST_RUNS = 20_000
FITNESS_OF = "fitness of"  # how the scale of a log begins; then came, until it was named by its runs, its path
_FITNESS = "fitness"


def is_log(path: Path) -> bool:
    """Whether ``path`` is to be read by :func:`read_log`: by its name, or by its first line."""
    if path.suffix.lower() in (".ndjson", ".jsonl"):
        return True
    if path.suffix.lower() != ".csv":
        return False
    try:
        return _FITNESS in _cells(read_bytes(path, MOST).decode("utf-8-sig", "replace").partition("\n")[0])
    except OSError:
        return False


def read_log(path: Path) -> list[Run]:
    """The runs of a log, in order.

    Raises:
        UsageError: it cannot be read, is no such log, or holds no finished run.
    """
    text = _text(path)
    rows = list(_ndjson(path, text) if path.suffix.lower() != ".csv" else _table(path, text))
    if not rows:
        raise UsageError(f"{path} holds no finished run yet.")
    if len(rows) > MOST_RUNS:
        raise UsageError(f"{path} holds {len(rows)} runs, at most {MOST_RUNS} are read.")
    scale = _scale(rows)
    return [_run(path, number, scale, *row) for number, row in enumerate(rows, 1)]


def _text(path: Path) -> str:
    try:
        return read_bytes(path, MOST).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not a log of Ultralytics' tune: it is no text.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from error


_Row = tuple[float, Mapping[str, float], "bool | None"]  # fitness, hyperparameters, whether it is of masks


def _table(path: Path, text: str) -> Iterator[_Row]:
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text, newline="")) if row]
    except csv.Error:
        raise UsageError(f"{path} is not a log of Ultralytics' tune: it is no table.") from None
    if not rows or _FITNESS not in rows[0] or not set(rows[0]) & set(LIMITS):
        raise UsageError(f"{path} is not a log of Ultralytics' tune: it has no columns fitness, lr0, …")
    for row in rows[1:]:
        numbers = [_number(cell) for cell in row]
        if len(numbers) != len(rows[0]) or None in numbers:
            continue  # cut short by a kill, or a header in the middle
        known = dict(zip(rows[0], numbers, strict=True))
        fitness = known.pop(_FITNESS)
        assert fitness is not None
        yield fitness, {name: value for name, value in known.items() if value is not None}, None


def _ndjson(path: Path, text: str) -> Iterator[_Row]:
    lines = [line for line in text.splitlines() if line.strip()]
    for place, line in enumerate(lines):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            if place == len(lines) - 1 and place:
                return  # a kill cut it short
            raise UsageError(f"{path}, line {place + 1}: this is no JSON, so no log of Ultralytics' tune.") from None
        if not isinstance(found, dict) or not isinstance(found.get("hyperparameters"), dict):
            raise UsageError(f"{path}, line {place + 1}: there are no hyperparameters, so it is no log of tune.")
        known = {
            name: number for name, kept in found["hyperparameters"].items() if (number := _number(kept)) is not None
        }
        fitness, masks = _fitness_of(found)
        yield fitness, known, masks


def _fitness_of(found: Mapping[str, Any]) -> tuple[float, bool | None]:
    """Mean mask mAP over the data sets; else the fitness as it is told, and whether it is none of masks."""
    told = _number(found.get(_FITNESS))
    datasets = found.get("datasets")
    scores = [kept for kept in datasets.values() if isinstance(kept, dict)] if isinstance(datasets, dict) else []
    masks = [_number(kept.get(MASK)) for kept in scores]
    if masks and None not in masks:
        return sum(value for value in masks if value is not None) / len(masks), True
    return (math.nan if told is None else told), (False if any(BOX in kept for kept in scores) else None)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _scale(rows: Sequence[_Row]) -> str:
    """What the fitness of a log is called, by its first run that has one: the log may be moved, and goes on."""
    first = next((place for place, row in enumerate(rows, 1) if not _has_failed(row[0])), len(rows))
    begun = [[fitness, sorted(known.items())] for fitness, known, _ in rows[:first]]
    return f"{FITNESS_OF} log {digest_of(begun)[:16]}"


def _has_failed(fitness: float) -> bool:
    return not math.isfinite(fitness) or fitness == 0


def _run(path: Path, number: int, scale: str, fitness: float, known: Mapping[str, float], masks: bool | None) -> Run:
    failed = _has_failed(fitness)
    return Run(
        source=f"{path}, run {number}",
        digest=digest_of([number, fitness, sorted(known.items())]),
        arguments=known,
        final=None if failed else fitness,
        diverged=failed,
        masks=masks,
        scale="" if masks else scale,
    )


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split(",")]


def nothing_varies(runs: Sequence[Run]) -> str | None:
    """Why nothing can be learnt from a log; None where something can."""
    values = {value for run in runs for value in run.values}
    if not values:
        return f"all its {len(runs)} runs have failed (fitness 0 or none)"
    if len(values) == 1 and len(runs) > 1 and not any(run.diverged for run in runs):
        return f"all its {len(runs)} runs have the same fitness, {values.pop():g}"
    return None
