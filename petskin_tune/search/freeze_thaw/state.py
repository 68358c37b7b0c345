"""What the search sees of a study, and what it answers. Plain, frozen values: no database, no Optuna."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from petskin_tune.study.rungs import landmarks, rungs
from petskin_tune.study.spec import Choices, Range, Scalar

Point = Mapping[str, "Scalar | None"]

#: running   a worker trains it now, up to ``until``
#: leaving   it ended a segment and is to be frozen: its snapshot is not durable yet; or it is left to other workers
#: frozen    it ended a segment and its snapshot is kept: it can go on
#: complete  it reached the last epoch
#: diverged  it ended in nan, or ran out of memory: its point is a bad one
#: ended     it cannot go on (no snapshot, pruned, failed otherwise), but what it reported counts
Standing = Literal["running", "leaving", "frozen", "complete", "diverged", "ended"]


@dataclass(frozen=True)
class TrialRecord:
    """One trial as far as the search is concerned."""

    number: int
    point: Point  # values of all searched names
    curve: tuple[float, ...]  # fitness of epochs 1, 2, ..., larger is better; nan where there is no number
    standing: Standing
    until: int | None = None  # running: the epoch at which its segment ends; None: the next rung
    foreign: bool = False  # trained elsewhere: it teaches, and is neither gone on with nor recommended
    scale: int = 0  # its fitness is compared with that of trials of the same scale; 0: with the study's


@dataclass(frozen=True)
class SearchState:
    """A study at one instant. Equal states get equal answers."""

    space: Mapping[str, Range | Choices]
    epochs: int  # of a full run
    trials: tuple[TrialRecord, ...] = ()
    start: tuple[Point, ...] = ()  # start points not begun yet; names left out are drawn
    warmup: float = 1.0  # epochs whose fitness ranks nothing
    pauses: tuple[int, ...] = ()  # the rungs that the study names; none: the usual ones
    full: bool = False  # no more trials may begin
    seed: int = 0
    workers: int = 1  # how many ask
    snapshots: int = 8  # frozen trials whose snapshots are kept
    reach: int | None = None  # epochs that whoever asks has time for; None: any number
    ahead: int = 0  # epochs of the time for which an outlook is wanted
    sparse: bool = False  # fewer rungs, for a store where a snapshot is dear

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs at which a segment ends, increasing; the last is ``epochs``."""
        return self.pauses or rungs(self.epochs, self.warmup, sparse=self.sparse)

    @property
    def landmarks(self) -> tuple[int, ...]:
        """The rungs at which curves are looked at: all, unless a study names many."""
        return landmarks(self.rungs, rungs(self.epochs, self.warmup, sparse=self.sparse))

    @property
    def own(self) -> tuple[TrialRecord, ...]:
        """The trials that are not foreign."""
        return tuple(trial for trial in self.trials if not trial.foreign)

    @property
    def next_number(self) -> int:
        """The number that a new trial would get."""
        return max((trial.number for trial in self.trials), default=-1) + 1


@dataclass(frozen=True)
class Continue:
    """Thaw trial ``trial`` and train it up to and including epoch ``until``."""

    trial: int
    until: int


@dataclass(frozen=True)
class Begin:
    """Begin a new trial at ``point`` and train it up to and including epoch ``until``."""

    point: Point
    until: int
    start: bool = False  # it is the first of the state's start points


@dataclass(frozen=True)
class Forecast:
    """What the model expects of a trial at the last epoch, in units of fitness."""

    number: int
    mean: float
    low: float  # two standard deviations below
    high: float  # two above


#: start      a start point
#: first      a random one of the first configurations, before there is a model
#: model      the largest knowledge gradient per epoch
#: fallback   a random one, because the model failed
Rule = Literal["start", "first", "model", "fallback"]


@dataclass(frozen=True)
class Why:
    """The grounds of a decision, for a log or ``status``."""

    rule: Rule
    text: str
    figures: Mapping[str, float] = field(default_factory=dict)  # of the chosen segment; see ``choice``
    lengths: Mapping[str, float] = field(default_factory=dict)  # by name: small is important, 1 is a whole range


@dataclass(frozen=True)
class Outlook:
    """What ``epochs`` more may bring.

    Attributes:
        chance: that a paused trial or a new one ends above the best own one by more than ``noise``, if the best of
            all that these epochs can bring to a rung were found: so it is at most that.
        noise: standard deviation of fitness from one epoch to the next.
    """

    chance: float
    noise: float
    epochs: int


@dataclass(frozen=True)
class Decision:
    """The next segment of one worker."""

    action: Continue | Begin
    why: Why
    keep: tuple[int, ...] | None = None  # frozen trials whose snapshots are worth keeping; None: all
    outlook: Outlook | None = None  # None: there is no model, no own trial has a value, or none was wanted
