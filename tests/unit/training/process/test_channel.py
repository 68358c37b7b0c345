"""The child's end of the pipe: training never waits for it, only signs of life are dropped, Stop outranks Suspend."""

from __future__ import annotations

import time
from multiprocessing import Pipe

import pytest

from petskin_tune.protocol import Note, Position, Progress, Stop, Suspend
from petskin_tune.training.process.channel import WorkerChannel


@pytest.fixture
def ends():
    ours, theirs = Pipe()
    yield ours, WorkerChannel(theirs)
    ours.close()


def wait_for(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def progress(batch):
    return Progress(Position(0, batch), {}, 1.0)


def test_events_arrive_in_order(ends):
    worker, channel = ends
    for number in range(10):
        channel.send(Note("n", str(number)))
    channel.close()
    assert [worker.recv().message for _ in range(10)] == [str(number) for number in range(10)]


def test_while_the_worker_does_not_listen_only_signs_of_life_are_dropped(ends):
    worker, channel = ends
    notes = [Note("n", f"{number} " + "x" * 100_000) for number in range(20)]  # more than the pipe holds
    for number, note in enumerate(notes):  # nobody reads meanwhile: if sending waited, this would never end
        channel.send(note)
        channel.send(progress(number))
    heard = []
    while len([event for event in heard if isinstance(event, Note)]) < len(notes):
        heard.append(worker.recv())
    assert [event for event in heard if isinstance(event, Note)] == notes
    assert len(heard) < 2 * len(notes)


def test_a_sign_of_life_arrives_while_nothing_else_waits(ends):
    worker, channel = ends
    channel.send(progress(1))
    assert worker.recv() == progress(1)


@pytest.mark.parametrize("orders", [[Stop(), Suspend()], [Suspend(), Stop()]])
def test_stop_outranks_suspend(ends, orders):
    worker, channel = ends
    assert channel.order is None
    for order in orders:
        worker.send(order)
    wait_for(lambda: channel.order == Stop())


def test_a_worker_that_closes_its_end_wants_the_training_to_stop(ends):
    worker, channel = ends
    worker.close()
    wait_for(lambda: channel.order == Stop())
    channel.send(Note("n", "nobody hears this"))
    channel.close()
