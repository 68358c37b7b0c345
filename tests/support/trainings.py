"""Processes that train nothing, but know how well any configuration does: whole studies without torch, in seconds."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from pathlib import Path

from petskin_tune.files.durable import measure
from petskin_tune.protocol import (
    MASK_MAP,
    EpochDone,
    Event,
    Finished,
    Order,
    Position,
    SnapshotWritten,
    Started,
    Stop,
    Suspend,
    Suspended,
    TrialJob,
)
from petskin_tune.trial.process.runner import Died
from tests.support.workplace import MACHINE

BEST_RATE = 1e-3


def fitness(rate: float, epoch: int) -> float:
    """Mask mAP after ``epoch`` epochs (1-based): better near BEST_RATE, and rising."""
    return 0.5 * math.exp(-(math.log10(rate / BEST_RATE) ** 2)) * (1 - math.exp(-epoch / 4))


class Training:
    """One process that goes through a job's epochs, leaves snapshots at its rungs, and follows orders."""

    error: Exception | None = None

    def __init__(self, job: TrialJob, hear: Callable[[Event | Died], None]) -> None:
        self._job, self._hear = job, hear
        self._order: Order | None = None
        self._thread = threading.Thread(target=self._train, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def send(self, order: Order) -> None:
        self._order = order

    def wait(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def end(self, patience: float = 0.0) -> None:
        self._order = self._order or Stop()
        self._thread.join()

    def _train(self) -> None:
        job = self._job
        rate, last, seed = float(job.arguments["lr0"]), int(job.arguments["epochs"]), int(job.arguments["seed"])
        done = int(Path(job.snapshot).read_text()) if job.snapshot else 0
        history = tuple({MASK_MAP: fitness(rate, epoch)} for epoch in range(1, done + 1))
        self._hear(Started(1, (), MACHINE, {"epochs": last, "seed": seed}, 16, Position(done, 0), 10, history))
        for epoch in range(done + 1, last + 1):
            if self._order is not None:
                break
            value = fitness(rate, epoch)
            self._hear(EpochDone(epoch, value, {MASK_MAP: value}, seconds=1.0))
            done = epoch
            if epoch in job.rungs:
                self._hear(self._snapshot(epoch))
        if isinstance(self._order, Suspend):
            self._hear(written := self._snapshot(done))
            self._hear(Suspended(written))
        elif self._order is None:
            self._hear(Finished(last, last))
        self._hear(Died(0))

    def _snapshot(self, epoch: int) -> SnapshotWritten:
        path = Path(self._job.run_folder) / f"snapshot-{epoch}.pt"
        path.write_text(str(epoch))
        return SnapshotWritten(str(path), Position(epoch, 0), *measure(path), seconds=0.0)


class Trainings:
    """Starts them.

    Attributes:
        jobs: all that were started.
        once: called before the training of each job.
    """

    has_trained = True

    def __init__(self) -> None:
        self.jobs: list[TrialJob] = []
        self.once: Callable[[TrialJob], object] = lambda _: None

    def warm_up(self) -> None:
        """Nothing has to be imported."""

    def start(self, job: TrialJob, hear: Callable[[Event | Died], None]) -> Training:
        self.jobs.append(job)
        self.once(job)
        training = Training(job, hear)
        training.start()
        return training
