"""The files that an Ultralytics training leaves behind: ``results.csv`` and the ``args.yaml`` beside it.

What Ultralytics has written over the years is read alike: padded headers, epochs that count from 0, rows repeated
after a resume, a last line that a kill cut short, two trainings in one file. The files may come from anywhere: each is
read in bounded time, and whatever is wrong with it is one sentence.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from petskin_tune.diagnosis.curves import BOX, MASK, Curves, from_history
from petskin_tune.errors import UsageError
from petskin_tune.files.paths import is_there
from petskin_tune.files.regular import read_bytes
from petskin_tune.files.yaml_guard import BadYaml, load_yaml
from petskin_tune.language import _, several

MOST_RESULTS = 4 << 20  # bytes of a results.csv: about 20,000 epochs
MOST_ARGUMENTS = 256 << 10  # bytes of an args.yaml, which has about 3,000
LARGEST_NUMBER = 1e15  # of an argument; a larger one is a mistake,
LONGEST_TEXT = 200  # characters; and so is a longer text
Scalar = str | int | float | bool | None


def read_run(path: Path) -> Curves:
    """Curves of a ``results.csv`` or of the run folder that holds it; ``args.yaml`` beside it gives the arguments.

    Raises:
        UsageError: there is no such file, it cannot be read, or it is not Ultralytics'.
    """
    file = path / "results.csv" if is_there(path) and path.is_dir() else path
    if not is_there(file):
        raise UsageError(f"There is no {file}; give a results.csv of Ultralytics or the run folder that holds one.")
    run = _last_run(file)
    arguments, fault = _read_arguments(file.with_name("args.yaml"))
    curves = from_history(run.columns(), arguments)
    return replace(curves, remarks=tuple(remark for remark in (run.remark, fault) if remark))


# ---- results.csv ----


@dataclass
class _Run:
    """The rows of one training, by epoch: what was done again, or never again, counts as it was done last."""

    header: list[str]
    rows: dict[float, list[float]] = field(default_factory=dict)
    before: int = 0  # trainings before it in the same file

    def columns(self) -> dict[str, list[float]]:
        table = [self.rows[epoch] for epoch in sorted(self.rows)]
        return {name: [row[index] for row in table] for index, name in enumerate(self.header)}

    def take(self, epoch: float, numbers: list[float]) -> None:
        """The next row. A run that was resumed from an earlier epoch has not done what came after that: it goes."""
        while self.rows and next(reversed(self.rows)) >= epoch:
            self.rows.popitem()
        self.rows[epoch] = numbers

    @property
    def remark(self) -> str:
        if not self.before:
            return ""
        return _("The file holds {count} trainings, one after the other; this is the last one, of {epochs}.").format(
            count=self.before + 1, epochs=several(len(self.rows), _("{count} epoch"), _("{count} epochs"))
        )

    def successor(self, header: list[str]) -> _Run:
        """The training that begins behind this one; one that got no further than its first epoch does not count."""
        return _Run(header, before=self.before + (len(self.rows) > 1))


def _last_run(file: Path) -> _Run:
    """The last training that ``file`` holds.

    Raises:
        UsageError: the file cannot be read, is not Ultralytics', or holds no epoch.
    """
    run: _Run | None = None
    for row in _rows(file):
        if {MASK, BOX} & set(row):
            if run is None or row != run.header:
                run = run.successor(row) if run else _Run(row)
        elif run is None:
            break
        elif (numbers := _numbers(row)) is not None and len(numbers) == len(run.header):
            epoch = numbers[run.header.index("epoch")] if "epoch" in run.header else math.nan
            epoch = epoch if math.isfinite(epoch) else len(run.rows) + 1.0
            if _begins_again(epoch, run.rows):
                run = run.successor(run.header)
            run.take(epoch, numbers)
    if run is None:
        raise UsageError(f"{file} is not a results.csv of Ultralytics: it has no column {MASK} or {BOX}.")
    if not run.rows:
        raise UsageError(f"{file} holds no finished epoch yet.")
    return run


def _begins_again(epoch: float, rows: dict[float, list[float]]) -> bool:
    """Whether the numbers begin again at the first: no resume goes back so far, another training's do (exist_ok)."""
    return bool(rows) and (epoch == next(iter(rows)) or (epoch <= 1 and epoch < next(reversed(rows))))


def _rows(file: Path) -> Iterator[list[str]]:
    """The lines of a CSV file, cells stripped, empty lines left out."""
    try:
        text = read_bytes(file, MOST_RESULTS).decode("utf-8-sig")
        for row in csv.reader(io.StringIO(text, newline="")):
            if row:
                yield [cell.strip() for cell in row]
    except (UnicodeDecodeError, csv.Error):
        raise UsageError(f"{file} is not a results.csv of Ultralytics: it is no text.") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}.") from error


def _numbers(row: list[str]) -> list[float] | None:
    try:
        return [float(cell) if cell else math.nan for cell in row]
    except ValueError:  # a word among the numbers
        return None


# ---- args.yaml ----


def _read_arguments(file: Path) -> tuple[dict[str, Scalar], str]:
    """The arguments that ``file`` gives, as far as they are plain values, and what was wrong with it."""
    try:
        found = load_yaml(file, most=MOST_ARGUMENTS)
    except FileNotFoundError:
        return {}, ""
    except (OSError, BadYaml) as error:
        reason = getattr(error, "strerror", None) or error
        return {}, _("The diagnosis does without {file}: {reason}.").format(file=file.name, reason=reason)
    if not isinstance(found, dict):
        return {}, _("The diagnosis does without {file}: it holds no `name: value` lines.").format(file=file.name)
    said = {name: str(value) if isinstance(value, list) else value for name, value in found.items()}  # `classes`
    return {name: value for name, value in said.items() if isinstance(name, str) and _is_plain(value)}, ""


def _is_plain(value: Any) -> bool:
    if isinstance(value, (int, float)):
        return abs(value) <= LARGEST_NUMBER  # not so for nan
    return value is None or (isinstance(value, str) and len(value) <= LONGEST_TEXT)
