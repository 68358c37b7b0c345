"""A trial on its way to being frozen: its last snapshot goes into the store while its worker trains another one."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Protocol

import sqlalchemy

from petskin_tune.checkpoints.retention import clear
from petskin_tune.checkpoints.uploader import Uploader
from petskin_tune.errors import LeaseLost
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.protocol import Position
from petskin_tune.trial.outbox import Outbox
from petskin_tune.trial.recorder import Recorder

LOOK_SECONDS = 0.5  # between two looks at what else was said
NOT_KEPT = "the snapshot with which it was to be frozen is lost"

log = logging.getLogger(__name__)


class Renewal(Protocol):
    """Keeps a lease alive, see :class:`petskin_tune.leases.heartbeat.Heartbeat`."""

    lost: bool

    def stop(self) -> None:
        """Renew no more."""


class Freezing:
    """A thread that waits until reports, snapshot and best weights of a held trial are durable, then freezes its lease.

    The trial's process has ended. Until the end of this, the lease says that the trial runs, and is renewed. What the
    trial has on this machine goes before the lease lets another worker of this machine in, who uses the same files.

    Args:
        trial: held by this worker.
        recorder, uploader: of its run; closed here.
        outbox, folder: of its run; emptied here.
        renewal: of its lease; stopped here.

    Attributes:
        trial: as it was given.
        is_frozen: whether its lease says so.
        error: what nobody foresaw.
    """

    def __init__(
        self, trial: HeldTrial, recorder: Recorder, uploader: Uploader, outbox: Outbox, folder: Path, renewal: Renewal
    ) -> None:
        self.trial = trial
        self.is_frozen = False
        self.error: Exception | None = None
        self._recorder, self._uploader, self._renewal = recorder, uploader, renewal
        self._outbox, self._folder = outbox, folder
        self._is_wanted_back, self._is_ending = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"freeze {trial.number}", daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether the trial is no more in this worker's hands."""
        return not self._thread.is_alive()

    @property
    def upload_seconds(self) -> float | None:
        """What bringing its snapshot into the store took; None: it was not brought."""
        return self._uploader.state.expected_seconds

    def end(self, reason: str, until: float) -> None:
        """Freeze the trial by the instant (monotonic) ``until``, or give it back: it goes on from what is durable."""
        self._is_ending.set()
        self._thread.join(max(0.0, until - time.monotonic()))
        if self.is_over:
            return
        self._is_wanted_back.set()
        self._thread.join(2 * LOOK_SECONDS)
        try:
            self.trial.release(reason)
        except (LeaseLost, sqlalchemy.exc.SQLAlchemyError) as error:
            log.warning("trial %d is not given back, its lease runs out by itself: %r", self.trial.number, error)

    def _work(self) -> None:
        try:
            if self._is_settled():
                self._let_go()
        except (LeaseLost, sqlalchemy.exc.SQLAlchemyError) as error:
            log.warning("trial %d is not frozen: %r", self.trial.number, error)
        except Exception as error:
            log.exception("trial %d is not frozen", self.trial.number)
            self.error = error  # the worker's own thread raises it
        finally:
            self._recorder.close()
            self._uploader.close()
            self._renewal.stop()

    def _let_go(self) -> None:
        """Freeze the trial; give it back where its snapshot did not get up, and so has to be trained again."""
        durable, reported = self._uploader.state.durable, max(self._recorder.curve, default=0)
        if durable is None or durable < Position(reported, 0):
            log.warning("trial %d is given back: %s", self.trial.number, NOT_KEPT)
            self.trial.release(NOT_KEPT)
            return
        self.trial.describe({})  # raises where it is another worker's, who may train in this folder
        clear(self._folder)
        self._outbox.discard()
        self.trial.freeze()
        self.is_frozen = True
        log.info("trial %d is frozen", self.trial.number)

    def _is_settled(self) -> bool:
        """Wait until nothing is on its way; False: the trial is another worker's, or is wanted back."""
        while not self._is_wanted_back.is_set():
            if self._recorder.error:
                raise self._recorder.error
            if self._renewal.lost or self._recorder.lost or self._uploader.state.lost:
                return False
            hurry = self._is_ending.is_set()
            if self._recorder.drain(LOOK_SECONDS) and self._uploader.drain(LOOK_SECONDS, hurry=hurry):
                return True
        return False
