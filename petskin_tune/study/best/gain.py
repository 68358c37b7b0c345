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

from petskin_tune.language import _, several

CONFIDENCE = 0.95
LEAST = 2  # trainings of each; one alone does not say how far they lie apart
MOST = 1000  # that are stored

Against = Literal["defaults", "start point"]
Verdict = Literal["gain", "noise", "loss"]
Fitness = Annotated[float, Field(ge=0, le=1)]

NAMES: Mapping[Against, str] = {"defaults": "Ultralytics' defaults", "start point": "the start point"}


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
        against = _("Ultralytics' defaults") if self.against == "defaults" else _("the start point")
        said = _("trial {trial} beside {against}{how}: {result}{without}").format(
            trial=self.trial, against=against, how=self._how(), result=self._what(), without=self._without()
        )
        if best in (None, self.trial):
            return said
        changed = _("{said}; measured when trial {trial} was the best, by now it is trial {best}")
        return changed.format(said=said, trial=self.trial, best=best)

    def _how(self) -> str:
        few, many = sorted((len(self.best), len(self.defaults)))
        if few == many:
            one, more = (
                _(", each trained again under {count} further seed"),
                _(", each trained again under {count} further seeds"),
            )
            return several(few, one, more)
        unlike = _(", trained again under {best} and {defaults} further seeds")
        return unlike.format(best=len(self.best), defaults=len(self.defaults))

    def _what(self) -> str:
        if (found := self.interval) is None:
            return _("no interval can be given before {least} trainings of each are complete").format(least=LEAST)
        # Of a loss the interval is that of the loss, so that the figures of a sentence have one sign.
        sign, said = (
            (1, _("a gain of {size:.4f} ({confidence:.0%} interval {low:.4f} to {high:.4f}){verdict}"))
            if found.difference >= 0
            else (-1, _("a loss of {size:.4f} ({confidence:.0%} interval {low:.4f} to {high:.4f}){verdict}"))
        )
        low, high = sorted((sign * found.low, sign * found.high))
        size = abs(found.difference)
        return said.format(size=size, confidence=CONFIDENCE, low=low, high=high, verdict=self._judged())

    def _judged(self) -> str:
        if self.verdict == "gain":
            return _(", more than noise")
        if self.verdict == "noise":
            return _(", within noise")
        return _(": the defaults are better") if self.against == "defaults" else _(": the start point is better")

    def _without(self) -> str:
        if not self.left_out:
            return ""
        one, more = (
            _("; {count} training that ended early is not counted"),
            _("; {count} trainings that ended early are not counted"),
        )
        return several(self.left_out, one, more)


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
