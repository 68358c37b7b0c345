"""By how much the best trial of a study beats its defaults, from trainings of both under further seeds.

The trial that a search calls the best is the luckiest of many: its own value says more than its settings are worth.
Trainings that nobody chose among do not, and how far they lie apart says what a difference is worth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from petskin_tune.text import counted

CONFIDENCE = 0.95
LEAST = 2  # trainings of each; one alone does not say how far they lie apart
MOST = 1000  # that are stored

Against = Literal["defaults", "start point"]
Verdict = Literal["gain", "noise", "loss"]
Fitness = Annotated[float, Field(ge=0, le=1)]

NAMES: Mapping[Against, str] = {"defaults": "Ultralytics' defaults", "start point": "the start point"}
_ENDS: Mapping[Verdict, str] = {"gain": ", more than noise", "noise": ", within noise", "loss": ""}
_BETTER: Mapping[Against, str] = {"defaults": "the defaults are better", "start point": "the start point is better"}


@dataclass(frozen=True)
class Interval:
    """A difference of means, and between which bounds it lies."""

    difference: float
    low: float
    high: float


def welch(ours: Sequence[float], theirs: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Welch's interval of the difference of two means, which does not claim that both waver alike.

    Args:
        ours, theirs: at least two values each.
        confidence: the share of such intervals that hold the true difference.
    """
    difference = fmean(ours) - fmean(theirs)
    of_ours, of_theirs = variance(ours) / len(ours), variance(theirs) / len(theirs)
    if (error := of_ours + of_theirs) <= 0.0:  # those of each are all alike
        return Interval(difference, difference, difference)
    from scipy.special import stdtrit  # only here: most commands need none of it

    # Degrees of freedom of Welch and Satterthwaite; by shares, because squares of small errors vanish.
    shares = (of_ours / error) ** 2 / (len(ours) - 1) + (of_theirs / error) ** 2 / (len(theirs) - 1)
    half = float(stdtrit(1 / shares, (1 + confidence) / 2)) * math.sqrt(error)
    return Interval(difference, difference - half, difference + half)


class Gain(BaseModel):
    """What trainings under further seeds have shown, as the study keeps it.

    Attributes:
        trial: number of the trial that was the best then.
        against: what it was held against.
        best, defaults: mask mAP50-95 of the trainings with the settings of either.
        left_out: how many trainings ended before their last epoch: they have no value to compare.
    """

    model_config = ConfigDict(frozen=True)

    trial: Annotated[int, Field(ge=0, lt=2**31)]
    against: Against
    best: Annotated[list[Fitness], Field(max_length=MOST)]
    defaults: Annotated[list[Fitness], Field(max_length=MOST)]
    left_out: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @property
    def interval(self) -> Interval | None:
        """Of the gain; None where there are fewer than two trainings of either."""
        enough = min(len(self.best), len(self.defaults)) >= LEAST
        return welch(self.best, self.defaults) if enough else None

    @property
    def verdict(self) -> Verdict | None:
        """What the interval says; None where there is none."""
        if (found := self.interval) is None:
            return None
        return "gain" if found.low > 0 else "loss" if found.high < 0 else "noise"

    def sentence(self, best: int | None = None) -> str:
        """For people, to whom trial ``best`` is the best by now; None: the one that was measured."""
        said = f"trial {self.trial} beside {NAMES[self.against]}{self._how()}: {self._what()}{self._without()}"
        if best in (None, self.trial):
            return said
        return f"{said}; measured when trial {self.trial} was the best, by now it is trial {best}"

    def _how(self) -> str:
        few, many = sorted((len(self.best), len(self.defaults)))
        if few == many:
            return f", each trained again under {counted(few, 'further seed')}"
        return f", trained again under {len(self.best)} and {len(self.defaults)} further seeds"

    def _what(self) -> str:
        if (found := self.interval) is None:
            return f"no interval can be given before {LEAST} trainings of each are complete"
        # Of a loss the interval is that of the loss, so that the figures of a sentence have one sign.
        sign, noun = (1, "gain") if found.difference >= 0 else (-1, "loss")
        low, high = sorted((sign * found.low, sign * found.high))
        said = f"a {noun} of {abs(found.difference):.4f} ({CONFIDENCE:.0%} interval {low:.4f} to {high:.4f})"
        verdict = self.verdict or "noise"
        return f"{said}: {_BETTER[self.against]}" if verdict == "loss" else f"{said}{_ENDS[verdict]}"

    def _without(self) -> str:
        if not self.left_out:
            return ""
        verb = "is" if self.left_out == 1 else "are"
        return f"; {counted(self.left_out, 'training')} that ended early {verb} not counted"


class Repeats(BaseModel):
    """Of a study of repetitions: what it repeats.

    Attributes:
        study: name of the study that it is about.
        uid: of that study.
        trial: of that study, the best then.
        against: what the trial is held against.
    """

    model_config = ConfigDict(frozen=True)

    study: Annotated[str, Field(min_length=1, max_length=300)]
    uid: Annotated[str, Field(pattern="^[0-9a-f]{12}$")]
    trial: Annotated[int, Field(ge=0, lt=2**31)]
    against: Against

    def __str__(self) -> str:
        return f"trial {self.trial} of {self.study} and {NAMES[self.against]}, repeated under further seeds"
