"""``petskin-tune studies``: what lies in a home or a database."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import optuna

from petskin_tune import columns as fitting
from petskin_tune import text as words
from petskin_tune.errors import UsageError
from petskin_tune.leases.lease import read_leases
from petskin_tune.printable import printable
from petskin_tune.study import attributes
from petskin_tune.study.best.ranking import best
from petskin_tune.study.best.repeats import repeats_of
from petskin_tune.study.extent import begun_here, extent
from petskin_tune.study.trials import spec_of
from petskin_tune.views.holds import hold_of

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from petskin_tune.database.storage import PetskinStorage

LEAST_NAME = 12  # columns


@dataclass(frozen=True)
class StudyRow:
    """One study; plain values all through.

    Attributes:
        trials: in the database, those that wait included.
        done: trials that are over, or epochs that are trained, of ``of``; ``unit`` says which.
        best: mask mAP50-95.
        last_sign: seconds since a worker was last heard of, or a trial ended; None: never.
        workers: that are at work now.
        created: ISO 8601, UTC: when its first trial began; None: none has.
        state: "" or what is unusual: "being deleted", "not ours", "cannot be read".
        repeats: of a study of repetitions what it repeats, in words.
    """

    study: str
    trials: int
    done: int
    of: int | None
    unit: str
    best: float | None
    last_sign: float | None
    workers: int
    created: str | None
    state: str
    repeats: str = ""


def collect(storage: PetskinStorage, now: float) -> list[StudyRow]:
    """All studies of the database in the order in which they were created; nothing is written.

    Args:
        storage: open.
        now: seconds since 1970.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows = []
    for name in optuna.get_all_study_names(storage):
        with suppress(KeyError):  # it was deleted meanwhile
            rows.append(_row(storage, name, now))
    return rows


def _row(storage: PetskinStorage, name: str, now: float) -> StudyRow:
    study = optuna.Study(study_name=name, storage=storage)
    trials = study.get_trials(deepcopy=False)
    stored = study.user_attrs
    state = "" if attributes.SPEC in stored else "not ours"
    state = "being deleted" if stored.get(attributes.DELETING) else state
    try:
        spec, leases = spec_of(study), read_leases(storage, study._study_id)
        repeats = repeats_of(stored) if spec else None
    except UsageError:
        spec, leases, repeats, state = None, [], None, "cannot be read"
    done = extent(spec, begun_here(trials) if spec else trials)
    first = None if repeats else best(trials, stored)  # of repetitions it is the luckiest
    begun = [trial.datetime_start.timestamp() for trial in trials if trial.datetime_start]
    signs = [lease.silence for lease in leases] + [now - at for trial in trials if (at := _ended(trial))]
    return StudyRow(
        study=name,
        trials=len(trials),
        done=done.done,
        of=done.of,
        unit=done.unit,
        best=first.values[0] if first else None,
        last_sign=max(0.0, min(signs)) if signs else None,
        workers=sum(lease.trial_state == "RUNNING" and hold_of(lease) == "training" for lease in leases),
        created=_iso(min(begun, default=None)),
        state=state,
        repeats=str(repeats or ""),
    )


def _ended(trial: FrozenTrial) -> float | None:
    return trial.datetime_complete.timestamp() if trial.datetime_complete else None


def _iso(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="seconds")


def to_json(rows: Sequence[StudyRow]) -> list[dict[str, Any]]:
    """Each row with all its fields."""
    return [asdict(row) for row in rows]


def render(rows: Sequence[StudyRow], where: str) -> str:
    """The table for people, in at most 80 columns; a name that is longer is cut."""
    if not rows:
        return words.page([f"there is no study in {where}"])
    cells = [("done", "mask mAP", "last sign of life", "begun"), *map(_cells, rows)]
    room = max(LEAST_NAME, words.WIDTH - 2 - max(map(fitting.width, fitting.table(cells))))
    names = ["study", *(fitting.cut(" ".join(printable(row.study).split()), room) for row in rows)]
    lines = fitting.table([(name, *row) for name, row in zip(names, cells, strict=True)], right=(2,))
    for row in rows:
        if row.repeats:
            lines += words.wrapped(printable(f"{row.study} is {row.repeats}"), "")
    return words.page(lines)


def _cells(row: StudyRow) -> tuple[str, ...]:
    unit = " epochs" if row.unit == "epoch" else ""
    seen = "never" if row.last_sign is None else f"{words.duration(row.last_sign)} ago"
    now = f"{words.counted(row.workers, 'worker')} at work" if row.workers else seen
    begun = datetime.fromisoformat(row.created).astimezone().strftime("%Y-%m-%d %H:%M") if row.created else "–"
    more = f" and {row.done - row.of} more" if row.of is not None and row.done > row.of else ""
    return (
        f"{row.done}{unit}" if row.of is None else f"{min(row.done, row.of)}/{row.of}{unit}{more}",
        words.score(row.best),
        row.state or now,
        begun,
    )
