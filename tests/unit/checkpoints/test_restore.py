from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from petskin_tune.checkpoints.base import Store, Stored
from petskin_tune.checkpoints.folder import FolderStore
from petskin_tune.checkpoints.restore import ORPHAN_SECONDS, Holding, make_room, newest_good
from petskin_tune.errors import LeaseLost
from petskin_tune.files.durable import Damaged, Unavailable
from petskin_tune.protocol import Position

UID = "study"
SIZE = 1000


@dataclass(frozen=True)
class Pointer:
    key: str
    sha256: str
    position: Position


class Shelf:
    """A folder store with a few files of a known size and age."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = FolderStore(folder / "store", network=False)

    def put(self, key: str, *, age: float = 0.0, content: bytes = b"x" * SIZE) -> Stored:
        local = self.folder / "local"
        local.write_bytes(content)
        stored = self.store.put(local, key)
        written = time.time() - age
        os.utime(self.folder / "store" / key, (written, written))
        return stored

    def snapshot(self, trial: int, epoch: int, *, age: float = 0.0) -> str:
        return self.put(f"{UID}/trial-{trial:06d}/snapshot-1-{epoch}-0-abcd.pt", age=age).key

    def pointer(self, epoch: int) -> Pointer:
        content = f"epoch {epoch} ".encode() * 500
        stored = self.put(f"{UID}/trial-000001/snapshot-1-{epoch}-0-abcd.pt", content=content)
        return Pointer(stored.key, stored.sha256, Position(epoch, 0))

    def keys(self) -> set[str]:
        return {entry.key for entry in self.store.entries()}


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


# ---- the way back ----


def test_the_newest_snapshot_is_taken_when_it_is_whole(shelf: Shelf, tmp_path: Path) -> None:
    older, newer = shelf.pointer(1), shelf.pointer(2)
    found = newest_good([newer, older], shelf.store, tmp_path / "run")
    assert found.pointer is newer
    assert found.path is not None
    assert found.path.read_bytes() == b"epoch 2 " * 500
    assert found.rejected == ()


@pytest.mark.parametrize("how", ["truncated", "bit-flipped", "missing", "emptied"])
def test_a_damaged_newest_snapshot_is_named_and_the_one_before_is_taken(shelf: Shelf, tmp_path: Path, how: str) -> None:
    older, newer = shelf.pointer(1), shelf.pointer(2)
    file = tmp_path / "store" / newer.key
    content = bytearray(file.read_bytes())
    if how == "missing":
        file.unlink()
    elif how == "bit-flipped":
        content[1234] ^= 8
        file.write_bytes(content)
    else:
        file.write_bytes(content[: 700 if how == "truncated" else 0])
    found = newest_good([newer, older], shelf.store, tmp_path / "run")
    assert found.pointer is older
    assert found.path is not None
    assert found.path.read_bytes() == b"epoch 1 " * 500
    assert [rejected.key for rejected in found.rejected] == [newer.key]
    assert newer.key.rpartition("/")[2] in found.rejected[0].reason


def test_when_no_snapshot_is_good_all_are_named(shelf: Shelf, tmp_path: Path) -> None:
    pointers = [shelf.pointer(2), shelf.pointer(1)]
    for pointer in pointers:
        (tmp_path / "store" / pointer.key).unlink()
    found = newest_good(pointers, shelf.store, tmp_path / "run")
    assert (found.path, found.pointer) == (None, None)
    assert [rejected.key for rejected in found.rejected] == [pointer.key for pointer in pointers]


def test_a_store_that_does_not_answer_says_nothing_against_a_snapshot(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise Unavailable("Input/output error")

    pointers = [shelf.pointer(2), shelf.pointer(1)]
    monkeypatch.setattr(shelf.store, "_fetch", away)
    with pytest.raises(Unavailable):
        newest_good(pointers, shelf.store, tmp_path / "run")


def test_a_snapshot_that_was_read_wrongly_once_is_read_again(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pointer = shelf.pointer(2)
    real, answers = shelf.store._fetch, [Damaged("wrong bytes, once")]

    def wrong_once(key: str, dest: Path, expected: str) -> None:
        if answers:
            raise answers.pop()
        real(key, dest, expected)

    monkeypatch.setattr(shelf.store, "_fetch", wrong_once)
    found = newest_good([pointer], shelf.store, tmp_path / "run")
    assert answers == []
    assert (found.pointer, found.rejected) == (pointer, ())


# ---- a limit ----


def bytes_in(store: Store) -> int:
    return sum(entry.size for entry in store.entries())


@dataclass(frozen=True)
class Full:
    """A store with one file of each kind, in the order in which they must go."""

    order: list[str]
    stay: set[str]
    holdings: list[Holding]


@pytest.fixture
def full(shelf: Shelf) -> Full:
    orphan = shelf.snapshot(1, 9, age=2 * ORPHAN_SECONDS)
    finished = [shelf.snapshot(2, epoch, age=50 - epoch) for epoch in (1, 2)]
    paused = [shelf.snapshot(3, epoch, age=300 - epoch) for epoch in (1, 2)]
    running = [shelf.snapshot(4, epoch, age=400 - epoch) for epoch in (1, 2)]
    fresh = shelf.snapshot(4, 3)  # its lease is being written
    weights = shelf.put(f"{UID}/trial-000002/best-2-abababababababab.pt").key
    other = shelf.put("study2/trial-000001/snapshot-1-1-0-abcd.pt", age=9 * ORPHAN_SECONDS).key
    return Full(
        order=[orphan, *finished, paused[0], running[0], paused[1]],
        stay={running[1], fresh, weights, other},
        holdings=[
            Holding(f"{UID}/trial-000002", "finished", tuple(finished[::-1]), frozenset({weights})),
            Holding(f"{UID}/trial-000003", "paused", tuple(paused[::-1])),
            Holding(f"{UID}/trial-000004", "running", tuple(running[::-1])),
        ],
    )


@pytest.mark.parametrize("wanted", range(7))
def test_what_is_needed_least_goes_first_and_no_more_than_needed(shelf: Shelf, full: Full, wanted: int) -> None:
    limit = bytes_in(shelf.store) + SIZE - wanted * SIZE
    freed = make_room(shelf.store, shelf.store.entries(), UID, full.holdings, limit=limit, incoming=SIZE)
    assert freed.deleted == tuple(full.order[:wanted])
    assert freed.short == 0
    assert bytes_in(shelf.store) + SIZE <= limit


def test_the_newest_snapshot_of_a_running_trial_stays_and_the_shortage_is_told(shelf: Shelf, full: Full) -> None:
    freed = make_room(shelf.store, shelf.store.entries(), UID, full.holdings, limit=0, incoming=SIZE)
    assert list(freed.deleted) == full.order
    assert shelf.keys() == full.stay
    assert freed.short == (len(full.stay) + 1) * SIZE


def test_without_a_limit_room_is_made_only_for_a_store_that_refused(shelf: Shelf, full: Full) -> None:
    assert make_room(shelf.store, shelf.store.entries(), UID, full.holdings, limit=None, incoming=SIZE).deleted == ()
    freed = make_room(shelf.store, shelf.store.entries(), UID, full.holdings, limit=None, incoming=2 * SIZE, full=True)
    assert freed.deleted == tuple(full.order[:2])


def test_the_only_snapshots_of_paused_trials_can_be_spared(shelf: Shelf, full: Full) -> None:
    spared = make_room(
        shelf.store, shelf.store.entries(), UID, full.holdings, limit=0, incoming=SIZE, paused=False
    ).deleted
    assert list(spared) == full.order[: len(spared)]
    rest = make_room(shelf.store, shelf.store.entries(), UID, full.holdings, limit=0, incoming=SIZE).deleted
    assert [*spared, *rest] == full.order
    assert rest


def test_what_is_left_of_a_trial_that_ended_needs_no_hour_to_become_garbage(shelf: Shelf) -> None:
    left = shelf.snapshot(5, 1)
    holding = Holding(f"{UID}/trial-000005", "finished")
    assert make_room(shelf.store, shelf.store.entries(), UID, [holding], limit=0, incoming=0).deleted == (left,)


def test_a_second_snapshot_that_nobody_needs_goes_before_the_only_one_of_another_trial(shelf: Shelf) -> None:
    newest, spare = shelf.snapshot(1, 9, age=10.0), shelf.snapshot(1, 6, age=60.0)
    only = shelf.snapshot(2, 3, age=500.0)
    holdings = [
        Holding(f"{UID}/trial-000001", "paused", snapshots=(newest,), spare=frozenset({spare})),
        Holding(f"{UID}/trial-000002", "paused", snapshots=(only,)),
    ]
    freed = make_room(shelf.store, shelf.store.entries(), UID, holdings, limit=None, incoming=SIZE, full=True)
    assert freed.deleted == (spare,)


def test_the_only_snapshot_of_a_trial_that_is_not_given_up_stays_and_the_next_one_goes(shelf: Shelf) -> None:
    needed, spared = shelf.snapshot(1, 3, age=500.0), shelf.snapshot(2, 3, age=400.0)
    holdings = [
        Holding(f"{UID}/trial-000001", "paused", snapshots=(needed,)),
        Holding(f"{UID}/trial-000002", "paused", snapshots=(spared,)),
    ]
    asked: list[str] = []

    def give_up(prefix: str) -> bool:
        asked.append(prefix)
        return prefix != f"{UID}/trial-000001"

    entries = shelf.store.entries()
    freed = make_room(shelf.store, entries, UID, holdings, limit=None, incoming=SIZE, full=True, give_up=give_up)
    assert freed.deleted == (spared,)
    assert asked == [f"{UID}/trial-000001", f"{UID}/trial-000002"]


def test_of_paused_trials_the_least_promising_one_makes_room_however_old_the_others_are(shelf: Shelf) -> None:
    best, poor = shelf.snapshot(1, 3, age=500.0), shelf.snapshot(2, 3, age=100.0)
    holdings = [
        Holding(f"{UID}/trial-000001", "paused", snapshots=(best,)),
        Holding(f"{UID}/trial-000002", "paused", snapshots=(poor,)),
    ]
    promised = {f"{UID}/trial-000001": 0.6, f"{UID}/trial-000002": 0.2}
    entries = shelf.store.entries()
    freed = make_room(shelf.store, entries, UID, holdings, limit=None, incoming=SIZE, full=True, worth=lambda: promised)
    assert freed.deleted == (poor,)


def test_nobody_is_asked_what_paused_trials_promise_unless_one_of_them_has_to_go(shelf: Shelf) -> None:
    orphan, paused = shelf.snapshot(1, 9, age=2 * ORPHAN_SECONDS), shelf.snapshot(2, 3)
    holdings = [Holding(f"{UID}/trial-000002", "paused", snapshots=(paused,))]

    def worth() -> dict[str, float]:
        raise AssertionError("a model was fitted for nothing")

    entries = shelf.store.entries()
    assert make_room(shelf.store, entries, UID, holdings, limit=10 * SIZE, incoming=1, worth=worth).deleted == ()
    freed = make_room(shelf.store, entries, UID, holdings, limit=None, incoming=SIZE, full=True, worth=worth)
    assert freed.deleted == (orphan,)


def test_nothing_makes_room_before_the_database_is_known_to_be_the_one_in_force(shelf: Shelf) -> None:
    shelf.snapshot(1, 9, age=2 * ORPHAN_SECONDS)

    def settle() -> None:
        raise LeaseLost("another machine has the home")

    entries = shelf.store.entries()
    with pytest.raises(LeaseLost):
        make_room(shelf.store, entries, UID, [], limit=0, incoming=0, settle=settle)
    assert [entry.key for entry in shelf.store.entries()] == [entry.key for entry in entries]
    assert make_room(shelf.store, entries, UID, [], limit=None, incoming=0, settle=settle).deleted == ()


def test_a_persons_files_among_those_of_a_study_are_no_orphans(shelf: Shelf) -> None:
    mine = [f"{UID}/notes.txt", f"{UID}/trial-1/best.pt", f"{UID}/mine/trial-000001/best.pt"]
    for key in mine:
        shelf.put(key, age=2 * ORPHAN_SECONDS)
    orphan = shelf.snapshot(1, 9, age=2 * ORPHAN_SECONDS)
    freed = make_room(shelf.store, shelf.store.entries(), UID, [], limit=0, incoming=0)
    assert freed.deleted == (orphan,)
    assert shelf.keys() == set(mine)
