"""Snapshots are taken on the clock, cost no more than their share of the training, and keep their order."""

from __future__ import annotations

import threading

import pytest
import torch

from petskin_tune import faults
from petskin_tune.protocol import Note, Position, SnapshotWritten
from petskin_tune.training.snapshots import file as snapshot
from petskin_tune.training.snapshots import schedule as keeper_module
from petskin_tune.training.snapshots.schedule import SHARE, UNNOTICED, SnapshotKeeper
from tests.support import training as helpers

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
    clock.now += 59
    assert not keeper.due(end_of_epoch=False)
    assert notes(channel) == [], "it was not to be expected yet"
    clock.now += 90
    assert not keeper.due(end_of_epoch=False)
    (note,) = notes(channel)
    assert note.message == "a snapshot every 150 s instead of 60 s: one costs 3.0 s"
    clock.now += 1.1
    assert keeper.due(end_of_epoch=False)


def test_over_a_long_training_no_more_than_the_share_is_lost(make, clock, channel):
    keeper, began, cost = make(every=5.0), clock.now, 1.3
    while clock.now - began < 20_000:
        clock.now += 0.7  # a batch
        if keeper.due(end_of_epoch=False):
            keeper.write_now(costing(clock, cost), HERE)
    lost = sum(event.seconds for event in channel.events if isinstance(event, SnapshotWritten))
    assert 0.9 * SHARE < lost / (clock.now - began) <= SHARE * 1.01
    assert len(notes(channel)) == 1, "it says so once"


def epochs_of(seconds, clock, keeper, cost, copies=0.0, count=100):
    """Train epochs with a snapshot where one is due; return the epochs after which one was taken."""
    taken = []
    for epoch in range(count):
        clock.now += seconds
        assert not keeper.due(end_of_epoch=False)
        with keeper.standstill():
            clock.now += copies
        if keeper.due(end_of_epoch=True):
            keeper.write_now(costing(clock, cost), HERE)
            taken.append(epoch)
    return taken


@pytest.mark.parametrize(("seconds", "cost"), [(1.0, UNNOTICED), (60.0, 1.2), (300.0, 6.0)])
def test_every_epoch_means_the_end_of_every_epoch(make, clock, channel, seconds, cost):
    """Where it costs no more than 2 %, or less than anybody notices."""
    assert epochs_of(seconds, clock, make(every=0), cost) == list(range(100))
    assert notes(channel) == []


@pytest.mark.parametrize("seconds", [1.2, 6.0, 60.0])
@pytest.mark.parametrize("cost", [0.2, 0.5, 2.0])
def test_snapshots_that_cost_too_much_for_their_epochs_are_not_written_after_each(make, clock, channel, seconds, cost):
    began = clock.now
    taken = epochs_of(seconds, clock, make(every=0), cost)
    written = [event.seconds for event in channel.events if isinstance(event, SnapshotWritten)]
    assert len(written) == len(taken) > 1
    noticed = sum(seconds - UNNOTICED for seconds in written[:-1])  # those after which there was time to make up
    assert noticed <= SHARE * (clock.now - began)
    assert (len(taken) == 100) == (cost - UNNOTICED <= SHARE * seconds) == (notes(channel) == [])


def test_skipped_epochs_are_told_once(make, clock, channel):
    epochs_of(5.0, clock, make(every=0), 2.1)
    (note,) = notes(channel)
    assert note.message == "a snapshot every 100 s instead of every epoch: one costs 2.1 s"


def test_other_copies_count_and_leave_less_for_snapshots(make, clock, channel):
    """Copies of 1 % of the time, which no interval changes, leave 1 % for the snapshots themselves."""
    began = clock.now
    taken = epochs_of(10.0, clock, make(every=0), 0.5, copies=0.1)
    written = [event.seconds for event in channel.events if isinstance(event, SnapshotWritten)]
    assert sum(written) == pytest.approx(0.5 * len(taken) + 0.1 * taken[-1], abs=0.2)
    assert sum(written) - len(taken) * UNNOTICED <= SHARE * (clock.now - began)
    assert taken[2] - taken[1] == 4, "without those copies it would be every second epoch"


def test_copies_that_take_more_than_the_share_do_not_end_the_snapshots(make, clock):
    taken = epochs_of(1.0, clock, make(every=0), 0.2, copies=0.5)
    assert taken[-1] - taken[-2] == 14, "one in 20 s: a quarter of the share"


def test_none_is_due_while_one_is_being_written(make, clock, monkeypatch):
    may_write = threading.Event()
    original = snapshot.write

    def slow(*arguments):
        assert may_write.wait(240)
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


def test_a_disk_that_is_really_full_is_told_at_once_and_tried_again(make, clock, channel):
    keeper = make(every=1.0)
    state = {"format": snapshot.FORMAT, "model": {str(index): torch.zeros(50_000) for index in range(5)}}
    with helpers.full_disk(500_000):
        assert keeper.write_now(lambda: state, HERE) is None
        keeper.wait()
    assert "File too large" in notes(channel)[0].message
    clock.now += 1.0
    assert keeper.due(end_of_epoch=False)
    assert keeper.write_now(lambda: state, HERE) == keeper.last is not None


def test_what_nobody_foresaw_in_writing_is_raised_at_the_next_snapshot(make, clock, monkeypatch):
    keeper = make(every=0)
    monkeypatch.setattr(faults, "_faults", {"snapshot-temporary-written": ("raise", None)})
    keeper.begin(costing(clock, 0.0), HERE)
    with pytest.raises(RuntimeError, match="fault at snapshot-temporary-written"):
        keeper.begin(costing(clock, 0.0), HERE)


def test_what_a_killed_process_left_half_written_is_removed(make, tmp_path):
    (tmp_path / "snapshot-00001-0000002.pt.partial").write_bytes(b"half")
    make(every=0)
    assert list(tmp_path.iterdir()) == []
