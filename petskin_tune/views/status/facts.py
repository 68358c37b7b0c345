"""The figures of a study at one instant, as every view shows them: what ``collect.py`` collects."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from petskin_tune.diagnosis.troubles import Trouble
from petskin_tune.protocol import Position
from petskin_tune.study.extent import Extent
from petskin_tune.views.holds import Hold
from petskin_tune.views.status.times import Spent


@dataclass(frozen=True)
class Best:
    """The best trial, see :func:`petskin_tune.study.best.ranking.ranked`."""

    number: int
    value: float  # mask mAP50-95
    params: Mapping[str, Any]
    state: str = "complete"  # or "pruned", where no trial is complete


@dataclass(frozen=True)
class Running:
    """A trial of ours that is not over.

    Attributes:
        hold: see :func:`petskin_tune.views.holds.hold_of`.
        last_sign: seconds since its worker was last heard of; None where nobody holds it.
        epoch: the last epoch reported, 1-based; 0: none.
        durable: the position that the store holds for certain.
        seconds_per_epoch: measured over all its workers; None before the first epoch.
        resumes: how often another process went on with it.
        seconds_lost: work done twice so far.
        crashes: deaths in a row without a newer durable position.
        disconnect_seconds: at most about what its machine's end now would cost; None where nobody trains it.
        held_seconds: since its worker began or took it; None where nobody holds it.
    """

    number: int
    hold: Hold
    worker: str
    last_sign: float | None
    epoch: int
    epochs: int | None
    value: float | None
    durable: Position | None
    seconds_per_epoch: float | None
    resumes: int
    seconds_lost: float
    crashes: int
    reason: str | None
    disconnect_seconds: float | None
    held_seconds: float | None = None


@dataclass(frozen=True)
class Defaults:
    """The trial of the defaults, by which the best is measured; ``gain`` is how much better the best is."""

    number: int
    value: float
    gain: float


@dataclass(frozen=True)
class Measured:
    """By how much a trial beats the defaults, as repetitions show it, see :class:`petskin_tune.study.best.gain.Gain`.

    Attributes:
        trial: that was repeated.
        gain: between ``low`` and ``high``; None: there are too few repetitions.
        verdict: "gain", "noise", "loss".
        sentence: for people.
    """

    trial: int
    gain: float | None
    low: float | None
    high: float | None
    verdict: str | None
    sentence: str


@dataclass(frozen=True)
class Repeated:
    """What a study of repetitions repeats, and how many pairs it has."""

    study: str
    trial: int
    pairs: int
    sentence: str


@dataclass(frozen=True)
class Waiting:
    """A point that somebody enqueued and nobody has begun."""

    number: int
    params: Mapping[str, Any]
    origin: str | None


@dataclass(frozen=True)
class Imported:
    """Runs of elsewhere, see :mod:`petskin_tune.study.foreign`: none of them counts as a trial of the study."""

    count: int
    sources: tuple[str, ...]  # of all, by number
    best: Best | None  # of those whose fitness can be compared with that of the study's trials


@dataclass(frozen=True)
class Status:
    """A study at one instant; plain values all through (:meth:`to_json`).

    Attributes:
        seconds_left: until it ends at this pace, with those who are at work now (one worker, where nobody is).
        workers: how many are at work.
        gain: what repetitions of the best trial have shown; of a study of repetitions, what they show so far.
        repeats: of a study of repetitions; None of any other.
        ahead: number of a trial that has not ended and is above the best, see
            :func:`petskin_tune.study.best.ranking.ahead`.
    """

    study: str
    at: float  # seconds since 1970
    target: int | None  # trials
    done: int  # trials of ours that are over, of whatever end
    extent: Extent
    states: Mapping[str, int]  # complete, pruned, failed, running, frozen, waiting; imported ones are none of these
    best: Best | None
    running: tuple[Running, ...]
    waiting: tuple[Waiting, ...]
    foreign: tuple[int, ...]  # numbers of RUNNING trials of others, never touched by us
    failures: Mapping[str, int]  # by kind, out-of-memory trials told as pruned included
    snapshot_every: float | None  # seconds; 0: every epoch
    store: str | None
    next_command: str
    next_reason: str
    notes: tuple[str, ...] = field(default=())
    troubles: tuple[Trouble, ...] = ()  # the newest last
    options: str = ""  # that name the study
    environment: tuple[str, ...] = field(default=())  # how this machine's packages differ from the study's
    imported: Imported | None = None  # runs of elsewhere that teach the search
    defaults: Defaults | None = None
    spent: Spent = field(default_factory=lambda: Spent(0.0, 0.0, 0.0))
    seconds_left: float | None = None
    workers: int = 0
    is_done: bool = False
    gain: Measured | None = None
    repeats: Repeated | None = None
    ahead: int | None = None

    def to_json(self) -> dict[str, Any]:
        """For ``status --json``: only what JSON can say (what is not finite becomes null)."""
        return _plain(dataclasses.asdict(self))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
