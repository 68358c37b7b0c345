"""Where a worker's next trial comes from, beside those whose owners are gone."""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

from petskin_tune.files.durable import StoreError
from petskin_tune.leases.lease import Held
from petskin_tune.leases.segments import Version
from petskin_tune.study.spec import StudySpec
from petskin_tune.trial.workplace import Workplace


class Supply(Protocol):
    """Trials to train."""

    def may_have_more(self) -> bool:
        """Whether there may be something to train that nobody trains."""

    def next(self) -> Held | None:
        """Claim it; None where there is nothing, or nothing now."""

    def end(self, *, anyway: bool = False) -> bool:
        """The study is over; False where there is something to train after all.

        Args:
            anyway: whatever else could be trained.
        """


class WholeTrials:
    """Trials that are trained to their end, or until a pruner gives them up: ``target_trials`` of them."""

    def __init__(self, place: Workplace) -> None:
        self._place = place

    def may_have_more(self) -> bool:
        """Whether the study has fewer configurations than it is to have."""
        return self._place.claims.count() < self._place.study.spec.target_trials

    def next(self) -> Held | None:
        """The oldest that waits, or a new one."""
        return self._place.claims.next_trial(self._place.study.spec.target_trials)

    def end(self, *, anyway: bool = False) -> bool:
        """Nothing is to be done."""
        return True


class SegmentedTrials:
    """Trials that are trained from rung to rung, frozen and thawed, until the budget is used up."""

    def __init__(self, place: Workplace) -> None:
        self._place = place
        self._nothing_since: Version | None = None  # of the study in which there was nothing to train
        self._asked_for: StudySpec | None = None  # what the study was then

    def may_have_more(self) -> bool:
        """Whether the search would choose something; it is asked again only when something has changed."""
        version, spec = self._place.segments.version(), self._place.study.spec
        if version == self._nothing_since and spec == self._asked_for:
            return False
        if self._place.choose().segment is not None:
            return True
        self._nothing_since, self._asked_for = version, spec
        return False

    def next(self) -> Held | None:
        """The segment that the search chooses."""
        held = self._place.segments.next(self._place.choose)
        self._place.keep_outlook()
        return held

    def end(self, *, anyway: bool = False) -> bool:
        """Tell the frozen trials, unless somebody has thawed one, and name the best; snapshots that are left go.

        Nor where one was frozen since there was nothing to train: it may be the one to train to its end.
        """
        if not self._place.segments.end(None if anyway else self._nothing_since):
            return False
        self._place.recommend()
        with suppress(StoreError):
            self._place.home.save()
            self._place.retention.catch_up()
        return True


def supply_of(place: Workplace) -> Supply:
    """As the study's sampler has it."""
    return SegmentedTrials(place) if place.study.spec.sampler.name == "freeze-thaw" else WholeTrials(place)
