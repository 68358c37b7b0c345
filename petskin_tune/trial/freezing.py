"""A trial on its way to being frozen: its last snapshot goes into the store while its worker trains another one."""

from __future__ import annotations

import logging
import threading
import time
from typing import Protocol

import sqlalchemy

from petskin_tune.checkpoints.uploader import Uploader
from petskin_tune.errors import LeaseLost
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.trial.outbox import Outbox
from petskin_tune.trial.recorder import Recorder

LOOK_SECONDS = 0.5  # between two looks at what else was said

log = logging.getLogger(__name__)


class Renewal(Protocol):
    """Keeps a lease alive, see :class:`petskin_tune.leases.heartbeat.Heartbeat`."""

    lost: bool

    def stop(self) -> None:
        """Renew no more."""


class Freezing:
    """A thread that waits until reports, snapshot and best weights of a held trial are durable, then freezes its lease.

    The trial's process has ended. Until the end of this, the lease says that the trial runs, and is renewed.

    Args:
        trial: held by this worker.
        recorder, uploader: of its run; closed here.
        outbox: of its run; emptied here, once the lease says ``frozen``.
        renewal: of its lease; stopped here.

    Attributes:
        trial: as it was given.
        error: what nobody foresaw.
    """

    def __init__(
        self, trial: HeldTrial, recorder: Recorder, uploader: Uploader, outbox: Outbox, renewal: Renewal
    ) -> None:
        self.trial = trial
        self.error: Exception | None = None
        self._recorder, self._uploader, self._outbox, self._renewal = recorder, uploader, outbox, renewal
        self._is_wanted_back = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"freeze {trial.number}", daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether the trial is no more in this worker's hands."""
        return not self._thread.is_alive()

    def end(self, reason: str, until: float) -> None:
        """Freeze the trial by the instant (monotonic) ``until``, or give it back: it goes on from what is durable."""
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
            if self._is_durable():
                self.trial.freeze()
                self._outbox.discard()
                log.info("trial %d is frozen", self.trial.number)
        except (LeaseLost, sqlalchemy.exc.SQLAlchemyError) as error:
            log.warning("trial %d is not frozen: %r", self.trial.number, error)
        except Exception as error:  # noqa: BLE001 - the worker's own thread raises it
            self.error = error
        finally:
            self._recorder.close()
            self._uploader.close()
            self._renewal.stop()

    def _is_durable(self) -> bool:
        """Wait for it; False: the trial is another worker's, or is wanted back."""
        while not self._is_wanted_back.is_set():
            if self._recorder.error:
                raise self._recorder.error
            if self._renewal.lost or self._recorder.lost or self._uploader.state.lost:
                return False
            if self._recorder.drain(LOOK_SECONDS) and self._uploader.drain(LOOK_SECONDS):
                return True
        return False
