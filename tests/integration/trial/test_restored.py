"""A database put back from a backup that is older than the store: whose snapshots are whose, and what is said of it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from petskin_tune.checkpoints.base import Entry
from petskin_tune.database.storage import open_storage
from petskin_tune.errors import UsageError
from petskin_tune.files.durable import Unavailable, measure
from petskin_tune.leases.lease import read_leases
from petskin_tune.protocol import Failed, Finished, Position, SnapshotWritten
from petskin_tune.study import attributes
from petskin_tune.study.stored import recorded
from petskin_tune.trial.workplace import Workplace
from tests.support.workplace import STARTED, Script, a_workplace, epoch_done, new_run, shown

GIVEN_BACK = Failed("machine", "no memory")


def copy(source: Path, target: Path) -> None:
    """What SQLite's `.backup` does."""
    with contextlib.closing(sqlite3.connect(source)) as one, contextlib.closing(sqlite3.connect(target)) as other:
        one.backup(other)


class Restored:
    """A worker's place whose database can be put back while its store and its disk stay as they are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script = Script()
        self.place: Workplace = a_workplace(open_storage(f"sqlite:///{folder / 'tune.db'}"), folder, self.script)

    def says(self, *events: object) -> None:
        self.script._left.append(events)

    def snapshot(self, epoch: int) -> SnapshotWritten:
        path = self.folder / f"snapshot-{epoch:05d}-0000000.pt"
        path.write_text(f"after {epoch}")
        return SnapshotWritten(str(path), Position(epoch, 0), *measure(path), seconds=0.0)

    def given_back(self, *epochs: int) -> None:
        """Train these epochs, with a snapshot of each in the store, and be given back."""
        for epoch in epochs:
            self.says(STARTED, epoch_done(epoch, epoch / 10), self.snapshot(epoch), GIVEN_BACK)
            with pytest.raises(UsageError):
                new_run(self.place).run()

    def back_up(self) -> None:
        copy(self.folder / "tune.db", self.folder / "backup.db")

    def put_back(self) -> None:
        copy(self.folder / "backup.db", self.folder / "tune.db")

    def stored(self) -> list[str]:
        return sorted(entry.key for entry in self.place.store.entries(""))


@pytest.fixture
def restored(tmp_path: Path) -> Iterator[Restored]:
    made = Restored(tmp_path)
    yield made
    made.place.study.storage.engine.dispose()


def test_a_trial_that_the_backup_never_heard_of_gives_its_snapshots_to_no_other_of_its_number(
    restored: Restored,
) -> None:
    restored.back_up()
    restored.given_back(1, 2, 3)
    left = restored.stored()
    restored.put_back()
    restored.says(STARTED, epoch_done(1, 0.01), restored.snapshot(1), Finished(1, 1))
    outcome = new_run(restored.place).run()
    (trial,) = restored.place.study.trials()
    (lease,) = read_leases(restored.place.study.storage, restored.place.study.id)
    assert (trial.number, outcome.end, outcome.value) == (0, "complete", 0.01)
    assert trial.intermediate_values == {1: 0.01}
    assert restored.script.jobs[-1].snapshot is None
    assert lease.previous is None
    assert set(left) <= set(restored.stored()), "they go when it has ended, and not before it is said"
    (note,) = recorded(trial)[attributes.NOTES]
    where = f"under {restored.place.study.uid}/trial-000000, of 3 epochs, which the database knows nothing of"
    assert note.startswith(f"the store has 2 files {where}: it is an older")
    assert note in shown(restored.place)


def test_a_trial_whose_snapshots_are_beyond_its_curve_begins_anew_and_says_what_there_is(restored: Restored) -> None:
    restored.given_back(1)
    restored.back_up()
    restored.given_back(2, 3, 4)
    restored.put_back()
    restored.says(STARTED, epoch_done(1, 0.1), epoch_done(2, 0.3), Finished(2, 2))
    outcome = new_run(restored.place).run()
    (trial,) = restored.place.study.trials()
    assert (outcome.end, outcome.value) == ("complete", 0.3)
    assert trial.intermediate_values == {1: 0.1, 2: 0.3}
    assert restored.script.jobs[-1].snapshot is None
    gone, left = recorded(trial)[attributes.NOTES]
    assert gone.endswith(" is not there")
    assert f"2 files under {restored.place.study.uid}/trial-000000, of 4 epochs" in left


def test_a_trial_that_begins_in_a_store_of_its_own_says_nothing(restored: Restored) -> None:
    restored.says(STARTED, epoch_done(1), Finished(1, 1))
    new_run(restored.place).run()
    assert attributes.NOTES not in recorded(restored.place.study.trials()[0])


def test_a_store_that_cannot_be_looked_through_holds_no_new_trial_up(
    restored: Restored, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def entries(prefix: str = "") -> list[Entry]:
        asked.append(prefix)
        raise Unavailable("the bucket is away")

    monkeypatch.setattr(restored.place.store, "entries", entries)
    restored.says(STARTED, epoch_done(1, 0.1), Finished(1, 1))
    assert new_run(restored.place).run().end == "complete"
    assert asked
