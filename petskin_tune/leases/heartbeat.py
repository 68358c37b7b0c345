"""Keeps the lease of a held trial alive, whatever the trial, its reports and its uploads are waiting for."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import sqlalchemy

from petskin_tune.database.outages import RETRY_MAX_SECONDS
from petskin_tune.leases.held_trial import HeldTrial

LOOK_SECONDS = 1.0  # at most, until a lease that a person made shorter is renewed as often as it needs

log = logging.getLogger(__name__)


class Heartbeat:
    """A thread that renews a lease whenever no write has done so for a third of it, and survives every outage.

    It is started right after the claim: before a trial trains, its worker may draw for minutes or wait for a database.

    Args:
        trial: held by this worker.
        on_lost: called once, from the thread, when the trial has another owner.

    Attributes:
        lost: the trial has another owner.
    """

    def __init__(self, trial: HeldTrial, on_lost: Callable[[], None] = lambda: None) -> None:
        self.lost = False
        self._trial = trial
        self._on_lost = on_lost
        self._not_before = 0.0  # monotonic: a failed renewal is not tried again sooner
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="lease", daemon=True)

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def stop(self) -> None:
        """Renew no more; a renewal that is under way ends by itself."""
        self._stopped.set()

    def _work(self) -> None:
        while not self._stopped.wait(min(self._due_in(), LOOK_SECONDS)):
            if self._due_in() > 0:
                continue
            try:
                if not self._trial.renew():
                    self.lost = True
                    log.warning("trial %d: the lease has another owner", self._trial.number)
                    self._on_lost()
                    return
            except sqlalchemy.exc.SQLAlchemyError as error:
                log.warning("trial %d: the lease could not be renewed: %r", self._trial.number, error)
                self._not_before = time.monotonic() + min(self._third, RETRY_MAX_SECONDS)

    @property
    def _third(self) -> float:
        return self._trial.lease_seconds / 3

    def _due_in(self) -> float:
        """Seconds until the next renewal, or the next attempt."""
        return max(0.0, max(self._trial.last_write + self._third, self._not_before) - time.monotonic())
