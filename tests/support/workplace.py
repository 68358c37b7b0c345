"""A worker's place on this machine, made by hand: a real study, home and store, and processes that follow a script."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from petskin_tune.database.storage import PetskinStorage
from petskin_tune.datasets.fingerprint import Fingerprint
from petskin_tune.home.home import Home
from petskin_tune.leases.heartbeat import Heartbeat
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.protocol import MASK_MAP, EpochDone, Event, Order, Position, Started, TrialJob
from petskin_tune.study.study import Study
from petskin_tune.trial.inputs import Prepared
from petskin_tune.trial.process.runner import Died
from petskin_tune.trial.run import TrialRun
from petskin_tune.trial.workplace import Options, Workplace
from petskin_tune.views.progress import Progress
from tests.support.leased_studies import UID, new_study
from tests.support.studies import a_spec

MACHINE = {"device": "cpu", "device_model": "a processor", "versions": {}, "threads": 1}
STARTED = Started(1, (), MACHINE, {"epochs": 3}, 16, Position(0, 0), 10, ())


def epoch_done(epoch: int, fitness: float = 0.1) -> EpochDone:
    return EpochDone(epoch, fitness, {MASK_MAP: fitness}, seconds=1.0)


class Process:
    """A trial's process that has said what its script says; it goes on when it is told something."""

    error: Exception | None = None

    def __init__(
        self, hear: Callable[[Event | Died], None], answers: Callable[[Order], Sequence[Event | Died]]
    ) -> None:
        self._hear = hear
        self._answers = answers
        self.orders: list[Order] = []

    def send(self, order: Order) -> None:
        self.orders.append(order)
        for event in self._answers(order):
            self._hear(event)

    def says(self, event: Event | Died) -> None:
        """It says something more."""
        self._hear(event)

    def wait(self, _seconds: float) -> bool:
        return True

    def end(self, patience: float = 0.0) -> None:
        """It is ended already."""


class Screen(Progress):
    """Plain lines that a test can read."""

    def __init__(self) -> None:
        self.shown = io.StringIO()
        super().__init__(self.shown)


class Script:
    """Starts processes that say, one after the other, what they are told to.

    Args:
        says: for each process what it says at once; it ends by itself unless the last of it is ``...``.
        answers: what a process says to an order.
    """

    def __init__(
        self,
        *says: Sequence[Any],
        has_trained: bool = False,
        answers: Callable[[Order], Sequence[Event]] = lambda _: (),
    ) -> None:
        self._left = list(says)
        self._answers = answers
        self.once_started: Callable[[], object] = lambda: None  # done when the first process has said its first words
        self.has_trained = has_trained
        self.jobs: list[TrialJob] = []
        self.processes: list[Process] = []

    def warm_up(self) -> None:
        """Nothing has to be imported."""

    def start(self, job: TrialJob, hear: Callable[[Event | Died], None]) -> Process:
        self.jobs.append(job)
        said = self._left.pop(0)
        for event in said:
            if event is not ...:
                hear(event)
        if not said or (said[-1] is not ... and not isinstance(said[-1], Died)):
            hear(Died(0))
        self.processes.append(Process(hear, self._answers))
        if len(self.processes) == 1:
            self.once_started()
        return self.processes[-1]


def a_workplace(storage: PetskinStorage, folder: Path, script: Script, spec: Any = None, **options: Any) -> Workplace:
    """A place in ``folder`` for a study of its own; what people see of it is in ``shown(place)``."""
    study = Study(storage, new_study(storage).optuna, spec or a_spec(), UID)
    home = Home(folder, str(storage.url), str(folder / "store"), folder / "work", network=False)
    home.local_checkpoints = True
    model = folder / "mine-seg.yaml"
    model.write_text("nc: 7\n")
    inputs = Prepared(folder / "data.yaml", str(model), Fingerprint("digest", ("a",), {}), classes=1, train_images=1)
    known = {"worker": "me", **options}
    return Workplace(study, home, cast(Any, script), Screen(), Options(**known), inputs)


def shown(place: Workplace) -> str:
    """What people have seen of it."""
    assert isinstance(place.view, Screen)
    return place.view.shown.getvalue()


def new_run(place: Workplace, held: Any = None) -> TrialRun:
    """A run of a trial that is born, or taken over."""
    held = held or place.claims.take_over() or place.claims.next_trial(10**6)
    assert held is not None
    trial = HeldTrial(place.claims, held)
    return TrialRun(trial, {}, place, Heartbeat(trial))
