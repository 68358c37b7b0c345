"""When a worker makes pictures: between two trials, once for each trial that is kept, in a fiftieth of its time."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial

from petskin_tune.checkpoints import pictures
from petskin_tune.errors import UsageError
from petskin_tune.files.durable import StoreError
from petskin_tune.interrupts import Interrupted, unless
from petskin_tune.study import attributes
from petskin_tune.study.stored import recorded
from petskin_tune.trial.pictures import Maker, NotMade, wanted
from petskin_tune.trial.workplace import Workplace

SHARE = 0.02  # of what a trial took, at most
START_SECONDS = 4.0  # of the process, and to fetch the weights, until it was measured

log = logging.getLogger(__name__)


class Pictures:
    """The pictures of one worker's study.

    Args:
        place: of the worker.
        asked: whether somebody wants the worker to stop.
    """

    def __init__(self, place: Workplace, asked: Callable[[], bool]) -> None:
        self._place = place
        self._asked = asked
        self._settled: set[int] = set()  # numbers of the trials whose pictures are there, or were tried once
        self._took: float | None = None  # seconds, the last time

    def catch_up(self) -> None:
        """Make what is missing and affordable; what is not is left to ``petskin-tune report``. Never raises."""
        try:
            for trial in wanted(self._place.study):
                if self._asked():
                    return
                if trial.number not in self._settled and self._seconds_for(trial) >= self._expected():
                    self._settle(trial)
        except (StoreError, UsageError, sqlalchemy.exc.SQLAlchemyError, StorageInternalError) as error:
            log.warning("no pictures: %s", error)
        except Exception:  # nothing depends on them
            log.exception("no pictures")

    def _seconds_for(self, trial: FrozenTrial) -> float:
        deadline = self._place.deadline
        return min(SHARE * recorded(trial).get(attributes.SECONDS, 0.0), deadline.left() if deadline else math.inf)

    def _expected(self) -> float:
        return self._took if self._took is not None else START_SECONDS + (self._place.times.validation or 0.0)

    def _settle(self, trial: FrozenTrial) -> None:
        """Make the pictures of a trial unless they are there, in the time that they may take.

        The data set is not looked at for them: of many files on a slow disk that takes minutes, and the next trial
        does so. Where no trial has needed it here, getting it does not count.
        """
        place = self._place
        place.view.doing(f"making pictures of what trial {trial.number} has learnt")
        try:
            prepared = unless(self._asked, place.known_data)
        except Interrupted:
            return
        began = time.monotonic()
        until = began + self._seconds_for(trial)
        maker = Maker(place.study, place.store, place.processes, place.home.work, place.options.device)

        def make() -> str | None:
            if pictures.find(place.store, place.study.uid, trial.number) is not None:
                return None
            return maker.make(trial, prepared)

        try:
            key = unless(lambda: self._asked() or time.monotonic() > until, make)
        except Interrupted:
            maker.cancel()
            if self._asked():
                return
            log.warning("pictures of trial %d are left to `report`: they would take too long", trial.number)
        except NotMade as reason:
            log.warning("no pictures of trial %d: %s", trial.number, reason)
        else:
            if key is not None:
                self._took = time.monotonic() - began
                share = self._took / max(recorded(trial)[attributes.SECONDS], 1e-9)
                log.info("%s is made, in %.1f s, %.1f %% of its trial's time", key, self._took, 100 * share)
        self._settled.add(trial.number)
