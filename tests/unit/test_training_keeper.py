"""Snapshots are taken on the clock, cost no more than their share of the training, and keep their order."""

from __future__ import annotations

import threading

import helpers_training as helpers
import pytest

from petskin_tune import faults
from petskin_tune.protocol import Note, Position, SnapshotWritten
from petskin_tune.training import keeper as keeper_module
from petskin_tune.training import snapshot
from petskin_tune.training.keeper import SHARE, SnapshotKeeper

HERE = Position(1, 2)


class Clock:
    """Time that passes when a test says so."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def thread_time(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(keeper_module, "time", clock)
    return clock


@pytest.fixture
def channel():
    return helpers.Recorder()


@pytest.fixture
def make(tmp_path, clock, channel):
    keepers = []

    def make(every):
        keepers.append(SnapshotKeeper(tmp_path, every, channel, shares_processor=False))
        return keepers[-1]

    yield make
    for keeper in keepers:
        keeper.close()


def costing(clock, seconds):
    """Return a capture that takes so long."""

    def capture():
        clock.now += seconds
        return {"format": snapshot.FORMAT}

    return capture


def notes(channel):
    return [event for event in channel.events if isinstance(event, Note)]


def test_a_snapshot_is_due_when_its_time_has_come(make, clock):
    keeper = make(every=60.0)
    clock.now += 59.9
    assert not keeper.due(end_of_epoch=False)
    clock.now += 0.1
    assert keeper.due(end_of_epoch=False)
    keeper.write_now(costing(clock, 0.1), HERE)
    assert not keeper.due(end_of_epoch=True)


def test_an_expensive_snapshot_stretches_the_interval_and_says_so(make, clock, channel):
    keeper = make(every=60.0)
    written = keeper.write_now(costing(clock, 3.0), HERE)
    assert written.seconds == pytest.approx(3.0)
    (note,) = notes(channel)
    assert note.message == "a snapshot every 150 s instead of 60 s: one costs 3.0 s"
    clock.now += 149
    assert not keeper.due(end_of_epoch=False)
    clock.now += 1.1
    assert keeper.due(end_of_epoch=False)


def test_over_a_long_training_no_more_than_the_share_is_lost(make, clock, channel):
    keeper, began, cost = make(every=5.0), clock.now, 1.3
    while clock.now - began < 100_000:
        clock.now += 0.7  # a batch
        if keeper.due(end_of_epoch=False):
            keeper.write_now(costing(clock, cost), HERE)
    lost = sum(event.seconds for event in channel.events if isinstance(event, SnapshotWritten))
    assert 0.9 * SHARE < lost / (clock.now - began) <= SHARE * 1.01
    assert len(notes(channel)) == 1, "it says so once"


def test_every_epoch_means_the_end_of_every_epoch(make, clock):
    keeper = make(every=0)
    for _ in range(3):
        assert not keeper.due(end_of_epoch=False)
        assert keeper.due(end_of_epoch=True)
        keeper.write_now(costing(clock, 0.2), HERE)


def test_expensive_snapshots_are_not_written_every_epoch(make, clock, channel):
    keeper = make(every=0)
    keeper.write_now(costing(clock, 2.0), HERE)
    assert not keeper.due(end_of_epoch=True)
    assert notes(channel)[0].message == "a snapshot every 100 s instead of every epoch: one costs 2.0 s"
    clock.now += 101
    assert keeper.due(end_of_epoch=True)


def test_none_is_due_while_one_is_being_written(make, clock, monkeypatch):
    may_write = threading.Event()
    original = snapshot.write

    def slow(*arguments):
        may_write.wait(30)
        return original(*arguments)

    monkeypatch.setattr(snapshot, "write", slow)
    keeper = make(every=1.0)
    keeper.begin(costing(clock, 0.0), HERE)
    clock.now += 1000
    assert not keeper.due(end_of_epoch=True)
    assert keeper.last is None
    may_write.set()
    keeper.wait()
    assert keeper.due(end_of_epoch=True)
    assert keeper.last.position == HERE


def test_what_is_submitted_is_written_in_order(make, clock, channel):
    keeper = make(every=0)
    keeper.begin(costing(clock, 0.0), Position(0, 1))
    keeper.submit(lambda: channel.send(Note("weights", "")))
    keeper.begin(costing(clock, 0.0), Position(0, 2))
    keeper.close()
    told = [getattr(event, "position", "weights") for event in channel.events]
    assert told == [Position(0, 1), "weights", Position(0, 2)]


def test_a_disk_that_refuses_is_told_and_tried_again(make, clock, channel, monkeypatch):
    keeper = make(every=1.0)
    monkeypatch.setattr(faults, "_faults", {"snapshot-temporary-written": ("raise:28", None)})
    assert keeper.write_now(costing(clock, 0.0), HERE) is None
    assert "No space left on device" in notes(channel)[0].message
    monkeypatch.setattr(faults, "_faults", {})
    clock.now += 1.0
    assert keeper.due(end_of_epoch=False)
    assert keeper.write_now(costing(clock, 0.0), HERE) == keeper.last


def test_what_a_killed_process_left_half_written_is_removed(make, tmp_path):
    (tmp_path / "snapshot-00001-0000002.tmp").write_bytes(b"half")
    make(every=0)
    assert list(tmp_path.iterdir()) == []
