"""What a held trial is given before its process starts: on a real study with leases and a folder store."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from petskin_tune.checkpoints.folder import FolderStore
from petskin_tune.checkpoints.keys import trial_prefix
from petskin_tune.checkpoints.restore import LATE_SECONDS
from petskin_tune.checkpoints.uploader import Uploader
from petskin_tune.database.storage import PetskinStorage, open_storage
from petskin_tune.errors import UsageError
from petskin_tune.files.durable import Unavailable, measure
from petskin_tune.home.home import IN_THE_HOME
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.leases.lease import SnapshotPointer
from petskin_tune.protocol import Position, SnapshotWritten, TrialJob
from petskin_tune.study import attributes
from petskin_tune.trial import inputs
from petskin_tune.trial.inputs import model_identity
from petskin_tune.trial.job import make_job
from tests.support.leased_studies import LeasedStudy
from tests.support.studies import a_spec
from tests.support.workplace import UID, Script, a_workplace

PATIENCE = 240.0  # seconds


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PetskinStorage]:
    opened = open_storage(f"sqlite:///{tmp_path_factory.mktemp('setup') / 'tune.db'}")
    yield opened
    opened.engine.dispose()


class Machine:
    """A worker on a disk of its own, with a trial in its hands."""

    def __init__(self, storage: PetskinStorage, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []
        self.place = a_workplace(storage, folder, Script())
        self.study = self.place.study
        self.store = self.place.store
        self.model = folder / "mine-seg.yaml"
        held = self.place.claims.next_trial(1)
        assert held is not None
        self.trial = HeldTrial(self.place.claims, held)
        self.uploader = self.place.uploader(self.trial, self.said.append)

    def restart(self) -> Uploader:
        """The uploader of a worker that has just started."""
        self.uploader.close()
        self.uploader = self.place.uploader(self.trial, self.said.append)
        return self.uploader

    def add_snapshot(self, epoch: int) -> SnapshotPointer:
        """A snapshot that the lease points to."""
        file = self.folder / "local"
        file.write_text(f"epoch {epoch} " * 500)
        stored = self.store.put(file, f"{trial_prefix(UID, self.trial.number)}/snapshot-1-{epoch}-0-{epoch:08x}.pt")
        pointer = SnapshotPointer(stored.key, stored.sha256, Position(epoch, 0))
        self.trial.point_to(pointer)
        return pointer

    def damage(self, pointer: SnapshotPointer) -> None:
        (self.folder / "store" / pointer.key).write_text("")

    def job(self, *refused: SnapshotPointer) -> TrialJob:
        names = {pointer.key.rpartition("/")[2] for pointer in refused}
        return make_job(self.trial, self.place, {}, self.uploader, remember=self.said.append, refused=names)

    def train(self, uploader: Uploader, epoch: int, batch: int) -> SnapshotPointer:
        """Its process writes a snapshot, which is brought into the store."""
        file = self.folder / f"snapshot-{epoch}-{batch}.pt"
        file.write_text(f"epoch {epoch} {batch} " * 500)
        size, sha256 = measure(file)
        pointers: list[SnapshotPointer] = []

        def commit(stored: Any) -> None:
            pointers.append(SnapshotPointer(stored.key, stored.sha256, Position(epoch, batch)))
            self.trial.point_to(pointers[0])

        uploader.submit(SnapshotWritten(str(file), Position(epoch, batch), size, sha256, 0.0), commit)
        assert uploader.drain(PATIENCE)
        return pointers[0]

    def pointers(self) -> tuple[SnapshotPointer | None, SnapshotPointer | None]:
        lease = self.trial.lease()
        return lease.snapshot, lease.previous

    def fetched(self) -> list[str]:
        """The names of the snapshots in the run folder, fetched ones and halves of them."""
        folder = self.place.folder(self.trial.number)
        return sorted(path.name for path in folder.iterdir() if "snapshot" in path.name)


@pytest.fixture
def machine(storage: PetskinStorage, tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(storage, tmp_path)
    yield machine
    machine.uploader.close()


# ---- the snapshot to go on from ----


@pytest.mark.parametrize("why", ["damaged in the store", "refused by the process"])
def test_the_snapshot_that_training_goes_on_from_outlives_the_newer_one_that_is_no_good(
    machine: Machine, why: str
) -> None:
    good, bad = machine.add_snapshot(1), machine.add_snapshot(2)
    uploader = machine.restart()
    if why == "damaged in the store":
        machine.damage(bad)
    job = machine.job(*([bad] if why == "refused by the process" else []))
    assert job.snapshot is not None
    assert Path(job.snapshot).read_text().startswith("epoch 1 ")
    assert machine.pointers() == (good, None)
    assert uploader.state.durable == good.position, "what is no good was called safe"
    newer = machine.train(uploader, 1, 40)
    assert machine.pointers() == (newer, good)
    machine.store.fetch(good.key, machine.folder / "back", good.sha256)
    newest = machine.train(uploader, 1, 80)
    assert machine.pointers() == (newest, newer)
    assert {entry.key for entry in machine.store.entries()} == {newest.key, newer.key}


def test_after_a_fall_back_progress_counts_from_where_training_stands(machine: Machine) -> None:
    machine.add_snapshot(1)
    machine.damage(machine.add_snapshot(3))
    machine.trial.count_crash()
    uploader = machine.restart()
    machine.job()
    machine.train(uploader, 2, 0)
    assert machine.trial.lease().progressed()


def test_when_no_snapshot_is_good_the_lease_keeps_both_until_there_are_new_ones(machine: Machine) -> None:
    first, second = machine.add_snapshot(1), machine.add_snapshot(2)
    uploader = machine.restart()
    for pointer in (first, second):
        machine.damage(pointer)
    assert machine.job().snapshot is None
    assert machine.pointers() == (second, first)
    assert uploader.state.durable is None


def test_with_a_good_newest_snapshot_nothing_changes(machine: Machine) -> None:
    first, second = machine.add_snapshot(1), machine.add_snapshot(2)
    uploader = machine.restart()
    assert machine.job().snapshot is not None
    assert machine.pointers() == (second, first)
    assert uploader.state.durable == second.position


# ---- its file on this disk ----


def test_a_fetched_snapshot_stays_until_training_has_written_two_of_its_own(machine: Machine) -> None:
    machine.add_snapshot(1)
    uploader = machine.restart()
    fetched = Path(machine.job().snapshot or "")
    machine.train(uploader, 1, 40)
    assert fetched.exists()
    machine.train(uploader, 1, 80)
    assert not fetched.exists()


def test_what_was_fetched_for_earlier_processes_goes_once_the_next_snapshot_is_here(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.add_snapshot(1)
    machine.restart()
    first = Path(machine.job().snapshot or "")
    half = first.with_name(f".{first.name}.12345678.partial")
    half.write_text("half of it")
    second = machine.add_snapshot(2)
    with monkeypatch.context() as away:
        away.setattr(machine.store, "_fetch", _refuse)
        with pytest.raises(Unavailable):
            machine.job()
    assert machine.fetched() == sorted([half.name, first.name])
    machine.job()
    assert machine.fetched() == [second.key.rpartition("/")[2]]


def _refuse(*_: object) -> None:
    raise Unavailable("Input/output error")


# ---- the model ----


def test_a_snapshot_is_of_a_model_by_name_and_content(machine: Machine) -> None:
    identity = machine.job().identity["model"]
    digest = measure(machine.model)[1]
    assert identity == f"mine-seg.yaml (SHA-256 {digest[:16]})"
    elsewhere = machine.folder / "elsewhere" / machine.model.name
    elsewhere.parent.mkdir()
    elsewhere.write_text(machine.model.read_text())
    assert model_identity(str(elsewhere)) == identity
    machine.model.write_text("nc: 8\n")
    assert model_identity(str(machine.model)) != identity
    assert model_identity("yolov8n-seg.yaml") == "yolov8n-seg.yaml"


def test_a_model_file_is_read_once_in_each_of_its_states(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def count(path: Path) -> tuple[int, str]:
        read.append(path)
        return measure(path)

    monkeypatch.setattr(inputs, "measure", count)
    for _ in range(3):
        machine.job()
    assert read == [machine.model]
    os.utime(machine.model, (1, 1))
    machine.job()
    assert len(read) == 2


def test_a_model_that_was_edited_or_replaced_is_refused_rather_than_mixed_into_the_study(machine: Machine) -> None:
    machine.job()
    assert machine.study.optuna.user_attrs[attributes.MODEL] == model_identity(str(machine.model))
    machine.model.write_text("nc: 8\n")
    with pytest.raises(UsageError, match=r"The model here is not the one .*: mine-seg.yaml \(SHA-256 "):
        machine.place.inputs()
    with pytest.raises(UsageError, match="begin another study"):
        machine.job()
    machine.model.write_text("nc: 7\n")
    machine.job()


def test_of_two_workers_that_begin_a_study_with_different_models_the_second_is_refused(machine: Machine) -> None:
    """It opened the study before the first one wrote down its model."""
    assert attributes.MODEL not in machine.study.attributes
    machine.study.optuna.set_user_attr(attributes.MODEL, "mine-seg.yaml (SHA-256 0123456789abcdef)")
    with pytest.raises(UsageError, match=r"not mine-seg.yaml \(SHA-256 0123456789abcdef\)"):
        machine.job()
    kept = machine.study.optuna.user_attrs[attributes.MODEL]
    assert kept == "mine-seg.yaml (SHA-256 0123456789abcdef)"


def test_a_model_that_cannot_be_read_once_is_read_again(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = [OSError(5, "Input/output error")]

    def refuse_once(path: Path) -> tuple[int, str]:
        if refusals:
            raise refusals.pop()
        return measure(path)

    monkeypatch.setattr(inputs, "measure", refuse_once)
    inputs._sha256.cache_clear()
    assert "SHA-256" in machine.job().identity["model"]
    assert refusals == []


# ---- what is left on this machine ----


def test_trials_that_have_ended_leave_no_snapshot_on_this_disk_whatever_the_store_says(machine: Machine) -> None:
    """Here or elsewhere: a trial that was suspended here may have ended on another machine."""
    ended, other = machine.place.folder(machine.trial.number), machine.place.folder(7)
    beside = ended.with_name(f"{ended.name}-4711")
    names = ("snapshots/snapshot-00001-0000000.pt", "snapshot-1-1-0-abcd.pt", "weights/best.pt", "train.log")
    for folder in (ended, beside, other):
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("x")
    machine.place.clear_ended()
    assert (ended / names[0]).exists(), "it has not ended"
    machine.trial.tell(TrialState.COMPLETE, 0.3, {}, {})
    with open(beside / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        machine.place.clear_ended()
        assert (beside / names[0]).exists(), "somebody trains there"
    machine.place.clear_ended()
    assert sorted(path.name for path in ended.rglob("*")) == ["train.log"]
    assert sorted(path.name for path in beside.rglob("*")) == ["lock", "train.log"]
    assert (other / names[0]).exists()


@pytest.mark.parametrize("database_is_in_the_home", [True, False])
def test_a_homes_own_store_is_there_with_its_database(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, database_is_in_the_home: bool
) -> None:
    """A database of elsewhere says nothing of whether the home's disk is mounted."""
    place = machine.place
    place.home.local_checkpoints = False
    monkeypatch.setattr(type(place.study), "store", IN_THE_HOME, raising=False)
    database = machine.folder / "tune.db" if database_is_in_the_home else None
    monkeypatch.setattr(type(place.home), "database", database, raising=False)
    machine.trial.point_to(SnapshotPointer("uid/gone/snapshot-1-1-0-abcd.pt", "0" * 64, Position(1, 0)))
    if database_is_in_the_home:
        assert machine.job().snapshot is None
    else:
        with pytest.raises(Unavailable, match="is not there"):
            machine.job()


# ---- a snapshot that is not to be seen ----


def hide(machine: Machine, pointer: SnapshotPointer) -> Callable[[], object]:
    """Its file is not to be seen; what shows it again."""
    file = machine.folder / "store" / pointer.key
    hidden = file.rename(machine.folder / "hidden")
    return lambda: hidden.rename(file)


def test_a_fresh_snapshot_that_a_network_disk_does_not_show_yet_is_waited_for(machine: Machine) -> None:
    machine.place.home.local_checkpoints = False
    machine.place.store = FolderStore(machine.folder / "store", network=True)
    show = hide(machine, machine.add_snapshot(1))
    uploader = machine.restart()
    with pytest.raises(Unavailable, match=r"snapshot-1-1-0-00000001.pt is not there, but is only minutes old"):
        machine.job()
    assert (machine.said, uploader.state.durable) == ([], Position(1, 0)), "nothing is known against it"
    show()
    assert machine.job().snapshot is not None


@pytest.mark.parametrize("why", ["it is old", "it is damaged", "a disk that shows all", "insisted upon"])
def test_a_snapshot_that_is_gone_is_not_waited_for(machine: Machine, why: str) -> None:
    machine.place.home.local_checkpoints = why == "insisted upon"
    machine.place.store = FolderStore(machine.folder / "store", network=why != "a disk that shows all")
    pointer = machine.add_snapshot(1)
    if why == "it is damaged":
        machine.damage(pointer)
    else:
        hide(machine, pointer)
    if why == "it is old":
        LeasedStudy(machine.study.storage, machine.study.optuna).shift(LATE_SECONDS + 1.0)
    assert machine.job().snapshot is None


def test_with_an_older_snapshot_in_sight_training_goes_on_at_once(machine: Machine) -> None:
    machine.place.home.local_checkpoints = False
    machine.place.store = FolderStore(machine.folder / "store", network=True)
    older = machine.add_snapshot(1)
    hide(machine, machine.add_snapshot(2))
    assert machine.job().snapshot is not None
    assert machine.pointers() == (older, None)


def test_a_worker_ends_a_frozen_trial_whose_snapshot_makes_room(machine: Machine) -> None:
    machine.trial.report(1, 0.3, {})
    pointer = machine.add_snapshot(1)
    machine.trial.freeze()
    machine.study.spec = a_spec(store_limit=1)
    assert machine.place.retention.make_room(100, full=False).deleted == (pointer.key,)
    ended = machine.trial.read()
    assert (ended.state, ended.value) == (TrialState.PRUNED, 0.3)
