"""The store and the uploader on a simulated Drive (a real FUSE mount)."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from petskin_tune.checkpoints import keys
from petskin_tune.checkpoints.base import Stored
from petskin_tune.checkpoints.folder import FolderStore
from petskin_tune.checkpoints.opening import open_store
from petskin_tune.checkpoints.uploader import Uploader
from petskin_tune.files.disks import is_network, mount_of
from petskin_tune.files.durable import Damaged, Full, Unavailable
from petskin_tune.protocol import Position, SnapshotWritten
from tests.support.drive import Faults, SimulatedDrive, unavailable

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")

KEY = "study/trial-000007/snapshot-1-2-3-abc.pt"
SIZE = 500_000
PATIENCE = 240.0


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[SimulatedDrive]:
    with SimulatedDrive(tmp_path / "google") as drive:
        yield drive


@pytest.fixture
def local(tmp_path: Path) -> Path:
    path = tmp_path / "local.pt"
    path.write_bytes(os.urandom(SIZE))
    return path


def snapshot_of(local: Path, epoch: int) -> SnapshotWritten:
    return SnapshotWritten(
        str(local), Position(epoch, 0), SIZE, hashlib.sha256(local.read_bytes()).hexdigest(), seconds=0.0
    )


def test_a_mounted_drive_is_known_by_its_mount(drive: SimulatedDrive, tmp_path: Path) -> None:
    assert mount_of(drive.path / "not" / "yet").kind == "fuse.drive"
    assert is_network(drive.path / "not" / "yet")
    assert not is_network(tmp_path)


def test_what_was_put_reaches_the_cloud_and_what_was_deleted_leaves_it_empty_first(
    drive: SimulatedDrive, local: Path, tmp_path: Path
) -> None:
    store = open_store(str(drive.path / "store"))
    stored = store.put(local, KEY)
    drive.wait_until_synchronised()
    assert (drive.cloud / "store" / KEY).read_bytes() == local.read_bytes()
    drive.lose_machine()
    store.fetch(KEY, tmp_path / "back.pt", stored.sha256)
    drive.let(Faults(sync_delay=0.05))
    store.delete(KEY)
    drive.wait_until_synchronised()
    assert not (drive.cloud / "store" / KEY).exists()


def test_a_full_drive_is_told_as_full_and_the_snapshot_follows_once_there_is_room(
    drive: SimulatedDrive, local: Path
) -> None:
    said: list[str] = []
    committed: list[Stored] = []
    drive.let(Faults(quota=SIZE // 2))
    store = FolderStore(drive.path / "store")
    with pytest.raises(Full):
        store.put(local, KEY)
    uploader = Uploader(store, keys.trial_prefix("study", 7), 1, say=said.append)
    try:
        uploader.submit(snapshot_of(local, 3), committed.append)
        wait_until(lambda: bool(said))
        assert not uploader.drain(0.0)
        assert said[0].startswith("The store is full (writing snapshot-1-3-0-")
        assert drive.fired()["quota"] > 1
        drive.let(Faults())
        assert uploader.drain(PATIENCE)
    finally:
        uploader.close()
    assert len(committed) == 1


def test_a_disconnected_drive_is_unavailable_and_an_unmounted_one_is_not_taken_for_empty(
    drive: SimulatedDrive, local: Path, tmp_path: Path
) -> None:
    store = FolderStore(drive.path / "store")
    stored = store.put(local, KEY)
    drive.disconnect()
    for _ in range(2):
        with pytest.raises(Unavailable):
            store.fetch(KEY, tmp_path / "back.pt", stored.sha256)
        with pytest.raises(Unavailable):
            store.put(local, f"{KEY}2")
        with pytest.raises(Unavailable):
            store.entries()
        drive.unmount()
    drive.reconnect()
    store.fetch(KEY, tmp_path / "back.pt", stored.sha256)


def test_bytes_that_are_read_back_wrong_do_not_count_as_stored(drive: SimulatedDrive, local: Path) -> None:
    store = FolderStore(drive.path / "store")
    drive.let(Faults(wrong_reads=1))
    with pytest.raises(Damaged):
        store.put(local, KEY)
    assert drive.fired()["wrong-read"] == 1
    assert store.entries() == []
    store.put(local, KEY)


def test_a_drive_that_hangs_holds_up_neither_training_nor_the_end(drive: SimulatedDrive, local: Path) -> None:
    drive.let(Faults(delay=3600.0))
    uploader = Uploader(FolderStore(drive.path / "store"), keys.trial_prefix("study", 7), 1, say=print)
    uploader.submit(snapshot_of(local, 3), lambda _stored: None)
    assert not uploader.drain(0.3)
    uploader.close(timeout=0.3)  # neither waits for an hour
    assert uploader.state.durable is None
    assert uploader._thread.is_alive(), "the Drive did not hang"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
