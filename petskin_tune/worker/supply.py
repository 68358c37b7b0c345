"""Where a worker's next trial comes from, beside those whose owners are gone."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import suppress
from itertools import count
from typing import Protocol

from petskin_tune.files.durable import StoreError
from petskin_tune.leases.lease import Held
from petskin_tune.leases.segments import Choice, Version
from petskin_tune.study.spec import StudySpec
from petskin_tune.trial.workplace import Workplace

ASKED_AGAIN_SECONDS = 10.0  # reports of other workers teach the search, and are no change of the study's version


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

    def left(self) -> Collection[int]:
        """Numbers of the trials that there is to train, where this worker leaves all of them to others."""


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

    def left(self) -> Collection[int]:
        """Those that are left have owners, or wait for one."""
        return ()


class SegmentedTrials:
    """Trials that are trained from rung to rung, frozen and thawed, until the budget is used up."""

    def __init__(self, place: Workplace) -> None:
        self._place = place
        self._asked: tuple[Version, StudySpec] | None = None  # what the study was when the search was asked last
        self._chosen = Choice(None)  # what it answered
        self._good_until = 0.0  # the instant (monotonic) from which it is asked again, unless there was nothing

    def may_have_more(self) -> bool:
        """Whether the search would choose something; it is asked again when something has changed, or after a while."""
        self._ask((self._place.segments.version(), self._place.study.spec))
        return self._chosen.segment is not None

    def _ask(self, study: tuple[Version, StudySpec]) -> None:
        known = study == self._asked and (self._chosen.segment is None or time.monotonic() < self._good_until)
        if not known:
            self._asked, self._chosen = study, self._place.choose()
            self._good_until = time.monotonic() + ASKED_AGAIN_SECONDS

    def next(self) -> Held | None:
        """The segment that the search chooses."""
        times = count()
        held = self._place.segments.next(lambda: self._choose(again=next(times) > 0))
        self._place.keep_outlook()
        return held

    def _choose(self, *, again: bool) -> Choice:
        """What was just answered, which takes up to seconds, if it still holds; ``again``: it has not held."""
        self._asked = None if again else self._asked
        self._ask((self._place.segments.version(), self._place.study.spec))
        return self._chosen

    def end(self, *, anyway: bool = False) -> bool:
        """Tell the frozen trials, unless somebody has thawed one, and name the best; snapshots that are left go.

        Nor where one was frozen since there was nothing to train: it may be the one to train to its end.
        """
        version = self._asked[0] if self._asked and not anyway else None
        if self._chosen.left and not anyway:
            return False
        if not self._place.segments.end(version):
            return False
        self._place.recommend()
        with suppress(StoreError):
            self._place.home.save()
            self._place.retention.catch_up()
        return True

    def left(self) -> Collection[int]:
        """As the search has answered, while that holds."""
        return self._chosen.left if self._asked and self._asked[0] == self._place.segments.version() else ()


def supply_of(place: Workplace) -> Supply:
    """As the study's sampler has it."""
    return SegmentedTrials(place) if place.study.spec.sampler.name == "freeze-thaw" else WholeTrials(place)
