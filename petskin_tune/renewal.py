"""Keeps the lease of a held trial alive, whatever the trial, its reports and its uploads are waiting for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import sqlalchemy

from petskin_tune.database import RETRY_MAX_SECONDS
from petskin_tune.trial import HeldTrial


class Renewal:
    """A thread that renews a lease whenever no write has done so for a third of it, and survives every outage.

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
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="lease", daemon=True)

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def stop(self) -> None:
        """Renew no more; a renewal that is under way ends by itself."""
        self._stopped.set()

    def _work(self) -> None:
        third = self._trial.leases.seconds / 3
        pause = third
        while not self._stopped.wait(pause):
            idle = time.monotonic() - self._trial.last_write
            if idle < third:
                pause = third - idle
                continue
            try:
                if not self._trial.renew():
                    self.lost = True
                    self._on_lost()
                    return
                pause = third
            except sqlalchemy.exc.SQLAlchemyError:
                pause = min(third, RETRY_MAX_SECONDS)
