"""The uploader against a real folder store whose steps a test can hold up or let fail."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

from petskin_tune.checkpoints import keys
from petskin_tune.checkpoints import uploader as uploading
from petskin_tune.checkpoints.base import Entry, Store, Stored
from petskin_tune.checkpoints.folder import FolderStore
from petskin_tune.checkpoints.restore import Freed
from petskin_tune.checkpoints.uploader import Uploader
from petskin_tune.errors import LeaseLost
from petskin_tune.files.durable import Damaged, Full, StoreError, Unavailable
from petskin_tune.protocol import BestWeights, Position, SnapshotWritten

PREFIX = "study/trial-000007"
PATIENCE = 120.0  # seconds; no test waits so long unless it fails


class HeldUpStore(Store):
    """A folder store whose writes wait for ``gate`` and then fail with what stands first in ``refusals``."""

    def __init__(self, folder: Path) -> None:
        self.url = str(folder)
        self.inner = FolderStore(folder, network=False)
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.refusals: list[StoreError] = []
        self.refused: list[StoreError] = []
        self.refuse_deletes = 0
        self.leaves_parts = False  # whether a refused write leaves its file behind
        self.found: list[int] = []  # how many files lay there at the begin of each write

    def put(self, local: Path, key: str) -> Stored:
        self.entered.release()
        assert self.gate.wait(PATIENCE)
        self.found.append(len(self.entries()))
        if self.refusals:
            if self.leaves_parts:
                self.inner.put(local, key)
            self.refused.append(self.refusals.pop(0))
            raise self.refused[-1]
        return self.inner.put(local, key)

    def _fetch(self, key: str, dest: Path, expected: str) -> None:
        self.inner.fetch(key, dest, expected)

    def delete(self, key: str) -> None:
        if self.refuse_deletes:
            self.refuse_deletes -= 1
            raise Unavailable("deleting: Input/output error")
        self.inner.delete(key)

    def entries(self, prefix: str = "") -> list[Entry]:
        return self.inner.entries(prefix)

    def positions(self) -> list[Position | None]:
        return sorted(keys.snapshot_position(entry.key) for entry in self.entries())  # type: ignore[type-var]


@dataclass(frozen=True)
class Known:
    key: str
    sha256: str
    position: Position


class Trial:
    """One trial's uploader, with what it said and what was committed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = HeldUpStore(folder / "store")
        self.said: list[str] = []
        self.committed: list[Stored] = []
        self.opened: list[Uploader] = []

    def uploader(self, **options: object) -> Uploader:
        uploader = Uploader(self.store, PREFIX, 1, say=self.said.append, **options)  # type: ignore[arg-type]
        self.opened.append(uploader)
        return uploader

    def snapshot(self, epoch: int, batch: int = 0) -> SnapshotWritten:
        path = self.folder / f"snapshot-{epoch}-{batch}.pt"
        content = f"state after {epoch} {batch}".encode() * 1000
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        return SnapshotWritten(str(path), Position(epoch, batch), len(content), digest, 0.0)

    def here(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("snapshot-*.pt"))


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    trial = Trial(tmp_path)
    yield trial
    trial.store.gate.set()
    for uploader in trial.opened:
        uploader.close()


def test_a_snapshot_is_committed_only_once_it_lies_verified_in_the_store(trial: Trial, tmp_path: Path) -> None:
    def commit(stored: Stored) -> None:
        trial.store.fetch(stored.key, tmp_path / "back.pt", stored.sha256)
        trial.committed.append(stored)

    uploader = trial.uploader()
    snapshot = trial.snapshot(3, 40)
    uploader.submit(snapshot, commit)
    assert uploader.drain(PATIENCE)
    assert [stored.sha256 for stored in trial.committed] == [snapshot.sha256]
    assert keys.snapshot_position(trial.committed[0].key) == Position(3, 40)
    assert uploader.state.durable == uploader.state.here == Position(3, 40)
    assert uploader.state.expected_seconds is not None
    assert trial.said == []


def test_at_most_one_snapshot_waits_and_a_newer_one_replaces_it(trial: Trial) -> None:
    uploader = trial.uploader()
    trial.store.gate.clear()
    uploader.submit(trial.snapshot(1), trial.committed.append)
    assert trial.store.entered.acquire(timeout=PATIENCE)
    for epoch in (2, 3, 4):
        uploader.submit(trial.snapshot(epoch), trial.committed.append)
    assert (uploader.state.durable, uploader.state.here) == (None, Position(4, 0))
    trial.store.gate.set()
    assert uploader.drain(PATIENCE)
    assert [keys.snapshot_position(stored.key) for stored in trial.committed] == [Position(1, 0), Position(4, 0)]
    assert trial.here() == ["snapshot-3-0.pt", "snapshot-4-0.pt"]


def test_the_two_newest_stay_in_the_store_and_on_this_disk(trial: Trial) -> None:
    uploader = trial.uploader()
    for epoch in range(1, 6):
        uploader.submit(trial.snapshot(epoch), trial.committed.append)
        assert uploader.drain(PATIENCE)
    assert trial.store.positions() == [Position(4, 0), Position(5, 0)]
    assert trial.here() == ["snapshot-4-0.pt", "snapshot-5-0.pt"]


def test_what_the_lease_pointed_to_before_counts_among_the_two(trial: Trial) -> None:
    first = trial.uploader()
    for epoch in (1, 2):
        first.submit(trial.snapshot(epoch), trial.committed.append)
        assert first.drain(PATIENCE)
    known = [Known(s.key, s.sha256, keys.snapshot_position(s.key) or Position(0, 0)) for s in trial.committed[::-1]]
    second = trial.uploader(known=known)
    assert second.state.durable == Position(2, 0)
    second.submit(trial.snapshot(3), trial.committed.append)
    assert second.drain(PATIENCE)
    assert trial.store.positions() == [Position(2, 0), Position(3, 0)]


def test_after_a_fall_back_the_rejected_snapshot_is_neither_safe_nor_one_of_the_two_that_stay(trial: Trial) -> None:
    first = trial.uploader()
    for epoch in (1, 2):
        first.submit(trial.snapshot(epoch), trial.committed.append)
        assert first.drain(PATIENCE)
    good, bad = (Known(s.key, s.sha256, keys.snapshot_position(s.key) or Position(0, 0)) for s in trial.committed)
    second = trial.uploader(known=[bad, good])
    second.fall_back(good, {bad.key})
    assert second.state.durable == second.state.here == Position(1, 0)
    second.submit(trial.snapshot(1, 40), trial.committed.append)
    assert second.drain(PATIENCE)
    assert good.key in {entry.key for entry in trial.store.entries()}
    second.submit(trial.snapshot(1, 80), trial.committed.append)
    assert second.drain(PATIENCE)
    assert trial.store.positions() == [Position(1, 40), Position(1, 80)]


def test_when_all_snapshots_are_rejected_nothing_is_called_safe_and_two_new_ones_take_their_place(trial: Trial) -> None:
    first = trial.uploader()
    for epoch in (1, 2):
        first.submit(trial.snapshot(epoch), trial.committed.append)
        assert first.drain(PATIENCE)
    known = [Known(s.key, s.sha256, keys.snapshot_position(s.key) or Position(0, 0)) for s in trial.committed[::-1]]
    second = trial.uploader(known=known)
    second.fall_back(None, {pointer.key for pointer in known})
    assert second.state.durable is None
    second.submit(trial.snapshot(0, 40), trial.committed.append)
    assert second.drain(PATIENCE)
    assert len(trial.store.entries()) == 3, "the lease may still point to what was rejected"
    second.submit(trial.snapshot(0, 80), trial.committed.append)
    assert second.drain(PATIENCE)
    assert trial.store.positions() == [Position(0, 40), Position(0, 80)]


def test_the_file_of_a_fetched_snapshot_stays_until_two_newer_ones_lie_here(trial: Trial) -> None:
    fetched = Path(trial.snapshot(1).path)
    uploader = trial.uploader()
    uploader.has_fetched(fetched)
    uploader.submit(trial.snapshot(2), trial.committed.append)
    assert uploader.drain(PATIENCE)
    assert fetched.exists()
    uploader.submit(trial.snapshot(3), trial.committed.append)
    assert uploader.drain(PATIENCE)
    assert trial.here() == ["snapshot-2-0.pt", "snapshot-3-0.pt"]


def test_a_store_that_is_away_is_tried_until_it_is_back_and_both_are_said_once(trial: Trial) -> None:
    trial.store.refusals = [Unavailable("writing x: Input/output error")] * 3
    uploader = trial.uploader()
    uploader.submit(trial.snapshot(1), trial.committed.append)
    assert uploader.drain(PATIENCE)
    assert len(trial.store.refused) == 3
    assert len(trial.committed) == 1
    assert trial.said[0] == (
        "The snapshot of epoch 1 is not safe yet (writing x: Input/output error): "
        "training goes on, and it is tried again."
    )
    assert trial.said[1].startswith("The snapshot of epoch 1 is in the store, after ")
    assert len(trial.said) == 2
    assert uploader.state.trouble is None


@pytest.mark.parametrize("refusal", [Unavailable, Full, Damaged])
def test_what_a_refused_write_left_in_the_store_goes_before_the_next_one(
    trial: Trial, refusal: type[StoreError]
) -> None:
    trial.store.leaves_parts = True
    trial.store.refusals = [refusal("reading x back: Input/output error")] * 4
    room: list[int] = []

    def make_room(_size: int, _full: bool, _paused: bool) -> Freed:
        room.append(len(trial.store.entries()))
        return Freed((), 0)

    uploader = trial.uploader(make_room=make_room)
    uploader.submit(trial.snapshot(1), trial.committed.append)
    assert uploader.drain(PATIENCE)
    assert len(trial.store.refused) == 4
    assert trial.store.found == room == [0, 0, 0, 0, 0]
    assert [entry.key for entry in trial.store.entries()] == [trial.committed[0].key]


def test_a_refused_write_of_best_weights_deletes_nothing_that_the_trial_may_point_to(trial: Trial) -> None:
    (trial.folder / "best").write_bytes(b"best")
    key = keys.weights_key(PREFIX, 1, hashlib.sha256(b"best").hexdigest())
    trial.store.inner.put(trial.folder / "best", key)
    trial.store.refusals = [Unavailable("away")] * 2
    uploader = trial.uploader(known_weights=key)
    uploader.submit_weights(BestWeights(str(trial.folder / "best"), 1, 0.1), trial.committed.append)
    assert uploader.drain(PATIENCE)
    assert trial.store.found == [1, 1, 1]


def test_while_the_store_is_away_the_state_says_what_is_durable_and_what_is_here(trial: Trial) -> None:
    uploader = trial.uploader()
    uploader.submit(trial.snapshot(11), trial.committed.append)
    assert uploader.drain(PATIENCE)
    trial.store.refusals = [Unavailable("writing x: Input/output error")] * 10_000
    uploader.submit(trial.snapshot(14), trial.committed.append)
    wait_until(lambda: uploader.state.trouble is not None)
    assert not uploader.drain(0.0)
    state = uploader.state
    assert (state.durable, state.here) == (Position(11, 0), Position(14, 0))
    assert state.trouble == "writing x: Input/output error"
    assert trial.store.refused


def test_uploads_and_each_new_attempt_are_logged(trial: Trial, caplog: pytest.LogCaptureFixture) -> None:
    trial.store.refusals = [Unavailable("writing x: Input/output error")]
    uploader = trial.uploader()
    with caplog.at_level("DEBUG", logger="petskin_tune"):
        uploader.submit(trial.snapshot(11), trial.committed.append)
        assert uploader.drain(PATIENCE)
    assert "the next follows: Unavailable('writing x: Input/output error')" in caplog.text
    key = trial.committed[0].key
    assert caplog.text.index(f"{key} is in the store, ") < caplog.text.index(f"{key} is recorded, after ")


def test_a_newer_snapshot_takes_the_place_of_one_that_the_store_refused(trial: Trial) -> None:
    trial.store.refusals = [Unavailable("away")]
    trial.store.gate.clear()
    uploader = trial.uploader()
    uploader.submit(trial.snapshot(1), trial.committed.append)
    assert trial.store.entered.acquire(timeout=PATIENCE)
    uploader.submit(trial.snapshot(2), trial.committed.append)
    trial.store.gate.set()
    assert uploader.drain(PATIENCE)
    assert trial.store.refused
    assert [keys.snapshot_position(stored.key) for stored in trial.committed] == [Position(2, 0)]


def test_a_file_that_came_back_damaged_is_sent_again_under_a_new_key(trial: Trial) -> None:
    trial.store.refusals = [Damaged("came back with another content")]
    uploader = trial.uploader()
    uploader.submit(trial.snapshot(1), trial.committed.append)
    assert uploader.drain(PATIENCE)
    assert trial.store.refused
    assert len(trial.committed) == 1


def test_a_full_store_is_said_room_is_made_and_training_is_never_held_up(trial: Trial) -> None:
    asked: list[tuple[int, bool, bool]] = []

    def make_room(size: int, full: bool, paused: bool) -> Freed:
        asked.append((size, full, paused))
        return Freed((), 0)

    trial.store.refusals = [Full("writing x: No space left on device")] * 3
    uploader = trial.uploader(make_room=make_room)
    snapshot = trial.snapshot(1)
    uploader.submit(snapshot, trial.committed.append)
    assert uploader.drain(PATIENCE)
    assert len(trial.store.refused) == 3
    refused_once = [(snapshot.size, False, True), (snapshot.size, True, True)]
    assert asked == [*refused_once, *[(snapshot.size, True, False)] * 2], (
        "of what stays full after it had its room, no more paused trials are deleted"
    )
    trial.store.refusals = [Full("writing x: No space left on device")]
    uploader.submit(trial.snapshot(2), trial.committed.append)
    assert uploader.drain(PATIENCE)
    assert [(full, paused) for _, full, paused in asked[4:]] == [(False, True), (True, True)]
    assert trial.said[0] == (
        "The store is full (writing x: No space left on device): training goes on, and the upload is tried again; "
        "make room there."
    )
    assert len(trial.said) == 4


def test_a_limit_that_cannot_be_kept_is_said_once_and_the_snapshot_is_kept_all_the_same(trial: Trial) -> None:
    uploader = trial.uploader(make_room=lambda size, full, paused: Freed((), 3_000_000))
    for epoch in (1, 2):
        uploader.submit(trial.snapshot(epoch), trial.committed.append)
        assert uploader.drain(PATIENCE)
    assert len(trial.committed) == 2
    assert trial.said == [
        "The store stays 3 MB over its limit: what is left are snapshots that running trials need and weights to keep; "
        "raise store_limit or lower keep_weights."
    ]


def test_a_lost_lease_ends_the_upload_quietly_and_takes_its_file_back(trial: Trial) -> None:
    def lost(_stored: Stored) -> None:
        raise LeaseLost

    uploader = trial.uploader()
    uploader.submit(trial.snapshot(1), lost)
    assert not uploader.drain(PATIENCE)
    assert uploader.state.lost
    assert trial.said == []
    assert trial.store.entries() == []


def test_a_database_that_is_away_is_asked_again_without_another_upload(trial: Trial) -> None:
    class DatabaseAway(Exception):
        pass

    answers: list[Exception | None] = [DatabaseAway("at host, SELECT secret"), DatabaseAway("again"), None]

    def commit(stored: Stored) -> None:
        if error := answers.pop(0):
            raise error
        trial.committed.append(stored)

    uploader = trial.uploader(retriable=(DatabaseAway,))
    uploader.submit(trial.snapshot(1), commit)
    assert uploader.drain(PATIENCE)
    assert answers == []
    assert trial.store.entered.acquire(blocking=False)
    assert not trial.store.entered.acquire(blocking=False), "it was uploaded twice"
    assert "the database does not answer" in trial.said[0]
    assert "secret" not in " ".join(trial.said)


def test_a_snapshot_whose_commit_may_have_reached_the_database_stays_until_two_newer_are_sure(trial: Trial) -> None:
    class AnswerLost(Exception):
        pass

    def commit_but_lose_the_answer(_stored: Stored) -> None:
        uploader.submit(trial.snapshot(3), trial.committed.append)
        raise AnswerLost

    uploader = trial.uploader(retriable=(AnswerLost,))
    uploader.submit(trial.snapshot(1), trial.committed.append)
    assert uploader.drain(PATIENCE)
    uploader.submit(trial.snapshot(2), commit_but_lose_the_answer)
    assert uploader.drain(PATIENCE)
    assert trial.store.positions() == [Position(1, 0), Position(2, 0), Position(3, 0)]
    uploader.submit(trial.snapshot(4), trial.committed.append)
    assert uploader.drain(PATIENCE)
    assert trial.store.positions() == [Position(3, 0), Position(4, 0)]


def test_nothing_older_is_deleted_before_the_commit_is_settled(trial: Trial) -> None:
    answers: list[Exception | None] = [None, None, Unavailable("the home refuses"), None]
    seen: list[list[Position | None]] = []

    def settle() -> None:
        seen.append(trial.store.positions())
        if error := answers.pop(0):
            raise error

    uploader = trial.uploader(settle=settle)
    for epoch in (1, 2, 3):
        uploader.submit(trial.snapshot(epoch), trial.committed.append)
        assert uploader.drain(PATIENCE)
    first_three = [Position(1, 0), Position(2, 0), Position(3, 0)]
    assert seen == [first_three[:1], first_three[:2], first_three, first_three]
    assert trial.store.positions() == first_three[1:]
    assert len(trial.committed) == 3, "settling again must not commit again"


def test_a_local_snapshot_that_is_damaged_or_gone_is_never_committed(trial: Trial) -> None:
    uploader = trial.uploader()
    flipped = trial.snapshot(1)
    Path(flipped.path).write_bytes(b"x" * flipped.size)
    uploader.submit(flipped, trial.committed.append)
    assert uploader.drain(PATIENCE)
    gone = trial.snapshot(2)
    Path(gone.path).unlink()
    uploader.submit(gone, trial.committed.append)
    assert uploader.drain(PATIENCE)
    assert trial.committed == []
    assert trial.said[0] == "The snapshot of epoch 1 was not kept: its file on this machine's disk is damaged."
    assert trial.said[1].startswith("The snapshot of epoch 2 was not kept: ")
    assert uploader.state.durable is None


def test_best_weights_go_first_and_replace_the_ones_before(trial: Trial) -> None:
    order: list[str] = []
    uploader = trial.uploader()
    trial.store.gate.clear()
    uploader.submit(trial.snapshot(1), lambda stored: order.append(stored.key))
    assert trial.store.entered.acquire(timeout=PATIENCE)
    uploader.submit(trial.snapshot(2), lambda stored: order.append(stored.key))
    weights = trial.folder / "best.pt"
    weights.write_bytes(b"first")
    uploader.submit_weights(BestWeights(str(weights), 2, 0.1), lambda stored: order.append(stored.key))
    trial.store.gate.set()
    assert uploader.drain(PATIENCE)
    assert [PurePosixPath(key).name.partition("-")[0] for key in order] == ["snapshot", "best", "snapshot"]
    weights.write_bytes(b"second")
    uploader.submit_weights(BestWeights(str(weights), 3, 0.2), lambda stored: order.append(stored.key))
    assert uploader.drain(PATIENCE)
    kept = [key for key in (entry.key for entry in trial.store.entries()) if keys.digest_in(key)]
    assert kept == [order[-1]]
    trial.store.fetch(kept[0], trial.folder / "back.pt")
    assert (trial.folder / "back.pt").read_bytes() == b"second"


def test_weights_that_change_while_they_are_sent_are_sent_again(trial: Trial) -> None:
    weights = trial.folder / "best.pt"
    weights.write_bytes(b"first")
    trial.store.gate.clear()
    uploader = trial.uploader()
    uploader.submit_weights(BestWeights(str(weights), 2, 0.1), trial.committed.append)
    assert trial.store.entered.acquire(timeout=PATIENCE)
    weights.write_bytes(b"second")
    trial.store.gate.set()
    assert uploader.drain(PATIENCE)
    (stored,) = trial.committed
    assert stored.sha256 == hashlib.sha256(b"second").hexdigest()
    assert [entry.key for entry in trial.store.entries()] == [stored.key]
    assert "changed while it was read" in trial.said[0]


def test_weights_of_an_earlier_owner_go_once_better_ones_are_settled(trial: Trial) -> None:
    old = keys.weights_key(PREFIX, 1, hashlib.sha256(b"old").hexdigest())
    (trial.folder / "old").write_bytes(b"old")
    trial.store.inner.put(trial.folder / "old", old)
    (trial.folder / "new").write_bytes(b"new")
    uploader = trial.uploader(known_weights=old)
    uploader.submit_weights(BestWeights(str(trial.folder / "new"), 2, 0.2), trial.committed.append)
    assert uploader.drain(PATIENCE)
    assert [entry.key for entry in trial.store.entries()] == [trial.committed[0].key]


def test_a_deletion_that_the_store_refuses_is_made_up_for_with_the_next_snapshot(trial: Trial) -> None:
    uploader = trial.uploader()
    for epoch in (1, 2):
        uploader.submit(trial.snapshot(epoch), trial.committed.append)
        assert uploader.drain(PATIENCE)
    trial.store.refuse_deletes = 1
    uploader.submit(trial.snapshot(3), trial.committed.append)
    assert uploader.drain(PATIENCE)
    assert trial.store.refuse_deletes == 0
    assert len(trial.store.entries()) == 3
    uploader.submit(trial.snapshot(4), trial.committed.append)
    assert uploader.drain(PATIENCE)
    assert trial.store.positions() == [Position(3, 0), Position(4, 0)]


def test_draining_gives_up_in_time_and_closing_does_not_wait_for_a_store_that_refuses(trial: Trial) -> None:
    trial.store.refusals = [Unavailable("away")] * 10_000
    uploader = trial.uploader()
    uploader.submit(trial.snapshot(1), trial.committed.append)
    assert not uploader.drain(0.1)
    uploader.close(PATIENCE)
    assert not uploader._thread.is_alive()
    assert trial.committed == []


def test_a_fault_of_our_own_in_a_commit_is_not_hidden(trial: Trial, recwarn: pytest.WarningsRecorder) -> None:
    def wrong(_stored: Stored) -> None:
        raise ZeroDivisionError

    uploader = trial.uploader()
    hook: Callable[..., None] = threading.excepthook
    threading.excepthook = lambda _arguments: None
    try:
        uploader.submit(trial.snapshot(1), wrong)
        with pytest.raises(RuntimeError, match="upload of snapshots has failed"):
            uploader.drain(PATIENCE)
    finally:
        uploader.close(PATIENCE)
        threading.excepthook = hook
    with pytest.raises(RuntimeError):
        uploader.submit(trial.snapshot(2), trial.committed.append)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


# ---- what waited long in the store for its commit ----


def bring(trial: Trial, what: str, commit: Callable[[Stored], None]) -> None:
    """A snapshot or weights into the store, to the end."""
    uploader = trial.uploader()
    if what == "snapshot":
        uploader.submit(trial.snapshot(1), commit)
    else:
        (trial.folder / "best").write_bytes(b"best")
        uploader.submit_weights(BestWeights(str(trial.folder / "best"), 1, 0.1), commit)
    assert uploader.drain(PATIENCE)


@pytest.mark.parametrize("what", ["snapshot", "weights"])
def test_what_went_as_an_orphan_while_the_database_was_away_goes_up_again_before_it_is_committed(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(uploading, "ORPHAN_SECONDS", 0.0)
    refused: list[Stored] = []

    def commit(stored: Stored) -> None:
        if not refused:
            refused.append(stored)
            trial.store.delete(stored.key)  # another worker tidies up
            raise Unavailable("the database does not answer")
        trial.committed.append(stored)

    bring(trial, what, commit)
    assert [entry.key for entry in trial.store.entries()] == [trial.committed[0].key]
    assert (trial.committed[0].key == refused[0].key) == (what == "weights")


@pytest.mark.parametrize("what", ["snapshot", "weights"])
def test_what_went_as_an_orphan_during_a_commit_that_an_outage_held_up_goes_up_and_is_committed_again(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(uploading, "ORPHAN_SECONDS", 0.0)
    deleted: list[str] = []

    def commit(stored: Stored) -> None:
        if not deleted:
            deleted.append(stored.key)
            trial.store.delete(stored.key)  # another worker, whom the database answered first, tidies up
        trial.committed.append(stored)

    bring(trial, what, commit)
    assert len(trial.committed) == 2
    assert [entry.key for entry in trial.store.entries()] == [trial.committed[-1].key]


@pytest.mark.parametrize(("what", "waited"), [("snapshot", "a moment"), ("weights", "long, and are still there")])
def test_what_is_surely_in_the_store_goes_up_once(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, what: str, waited: str
) -> None:
    refused: list[Stored] = []

    def commit(stored: Stored) -> None:
        if not refused:
            refused.append(stored)
            raise Unavailable("the database does not answer")
        trial.committed.append(stored)

    if waited != "a moment":
        monkeypatch.setattr(uploading, "ORPHAN_SECONDS", 0.0)
    bring(trial, what, commit)
    assert trial.committed == refused
    assert trial.store.found == [0]


def test_a_snapshot_whose_commit_may_have_been_lost_stays_while_it_goes_up_again(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploading, "ORPHAN_SECONDS", 0.0)
    attempts: list[Stored] = []

    def commit(stored: Stored) -> None:
        attempts.append(stored)
        assert {one.key for one in attempts} <= {entry.key for entry in trial.store.entries()}
        if len(attempts) == 1:
            raise Unavailable("the acknowledgement was lost")
        trial.committed.append(stored)

    uploader = trial.uploader()
    uploader.submit(trial.snapshot(1), commit)
    assert uploader.drain(PATIENCE)
    assert len(attempts) == 2
    for epoch in (2, 3):
        uploader.submit(trial.snapshot(epoch), trial.committed.append)
        assert uploader.drain(PATIENCE)
    assert trial.store.positions() == [Position(2, 0), Position(3, 0)]
