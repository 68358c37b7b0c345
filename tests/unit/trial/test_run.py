"""A run of one trial with a process that only says what it is told to: how it ends."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from petskin_tune.checkpoints.folder import FolderStore
from petskin_tune.checkpoints.uploader import Uploader
from petskin_tune.database.storage import PetskinStorage, open_storage
from petskin_tune.errors import LeaseLost
from petskin_tune.leases.heartbeat import Renewal
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.protocol import MASK_MAP, BestWeights, EpochDone, Event, Finished, Position, Started
from petskin_tune.search.pruners import Verdict
from petskin_tune.trial.listener import Surroundings
from petskin_tune.trial.outbox import Outbox
from petskin_tune.trial.process import Died
from petskin_tune.trial.run import TrialRun
from petskin_tune.trial.timings import Times
from petskin_tune.views.progress import Progress
from tests.support.leased_studies import new_study


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PetskinStorage]:
    opened = open_storage(f"sqlite:///{tmp_path_factory.mktemp('run') / 'tune.db'}")
    yield opened
    opened.engine.dispose()


class Script:
    """A runner whose process says ``events`` at once, and ends if the last of them says so."""

    def __init__(self, *events: Event) -> None:
        self._events = events
        self.has_trained = False
        self.ended = 0

    def start(self, _job: object, hear: Callable[[Event | Died], None]) -> Any:
        for event in self._events:
            hear(event)
        if isinstance(self._events[-1], Finished):
            hear(Died(0))
        return SimpleNamespace(error=None, send=lambda _order: None, wait=lambda _seconds: True, end=self._end)

    def _end(self, patience: float = 0.0) -> None:
        self.ended += 1


class Life:
    """One trial of a worker whose home is taken over while its best weights are brought into the store."""

    def __init__(self, storage: PetskinStorage, folder: Path) -> None:
        leases = new_study(storage).worker("me")
        held = leases.next_trial(1)
        assert held is not None
        self.trial = HeldTrial(leases, held)
        self.folder = folder
        (folder / "best.pt").write_bytes(b"best")

    def run(self, runner: Script) -> str:
        around = Surroundings(
            runner=cast(Any, runner),
            view=Progress(io.StringIO()),
            worker="me",
            store_name="Drive",
            make_job=lambda _remember, _refused: cast(Any, SimpleNamespace(snapshot=None, run_folder=str(self.folder))),
            make_uploader=self._uploader,
            judge=lambda _epoch, _own: Verdict(False, ""),
            on_news=lambda _news: None,
            is_saved=lambda: True,
            study_best=lambda: None,
            times=Times(),
            suspend_until=lambda: 0.0,
        )
        renewal = Renewal(self.trial)
        return TrialRun(self.trial, Outbox(self.folder / "outbox.jsonl", 1), around, renewal).run().end

    def _uploader(self, say: Callable[[str], None]) -> Uploader:
        return Uploader(
            FolderStore(self.folder / "store", network=False), "study/trial", 1, say=say, settle=_taken_over
        )


def _taken_over() -> None:
    raise LeaseLost("another worker has taken this home over")


MACHINE = {"device": "cpu", "device_model": "a processor", "versions": {}, "threads": 1}


@pytest.mark.parametrize("ends", [True, False], ids=["with its last upload", "in mid training"])
def test_a_trial_whose_home_is_taken_over_during_an_upload_ends_as_lost(
    storage: PetskinStorage, tmp_path: Path, ends: bool
) -> None:
    life = Life(storage, tmp_path)
    events: list[Event] = [
        Started(1, (), MACHINE, {"epochs": 1}, 16, Position(0, 0), 10, ()),
        EpochDone(1, 0.1, {MASK_MAP: 0.1}, seconds=1.0),
        BestWeights(str(tmp_path / "best.pt"), 1, 0.1),
    ]
    runner = Script(*events, *([Finished(1, 1)] if ends else []))
    assert life.run(runner) == "lost"
    assert runner.ended
