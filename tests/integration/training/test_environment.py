"""A trial that goes on where something is not as it was: told, recorded, or left to another machine."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace

import pytest
import torch

from petskin_tune.protocol import Declined, EpochDone, Finished, Note, Started, Suspend
from petskin_tune.training.attempts import run
from tests.support import training as helpers

INEXACT = "no longer exactly as undisturbed"


@pytest.fixture(scope="module")
def suspended(root):
    """A trial that was suspended after its first epoch, and what it ran on."""
    job = helpers.job(root, "suspended", arguments={"epochs": 2})
    events = train(job, react=lambda event: Suspend() if isinstance(event, EpochDone) else None)
    (started,) = [event for event in events if isinstance(event, Started)]
    return replace(job, snapshot=events[-1].snapshot.path), dict(started.machine)


def train(job, react=lambda event: None):
    recorder = helpers.Recorder(react)
    recorder.send(run(job, recorder))
    return recorder.events


def begun_on(machine, **changes):
    """What a trial that never wrote a snapshot recorded of another machine."""
    packages = {name: value for name, value in changes.items() if name in machine["versions"]}
    others = {name: value for name, value in changes.items() if name not in packages}
    return {**machine, "versions": {**machine["versions"], **packages}, **others}


def told_of_the_machine(events):
    return [event.message for event in events if isinstance(event, Note) and event.key == "machine"]


def test_the_same_machine_goes_on_without_a_word_and_so_it_does_where_only_that_will_do(suspended, root):
    job, machine = suspended
    events = train(replace(job, run_folder=str(root / "same"), exact=True, recorded_machine=machine))
    assert isinstance(events[-1], Finished)
    assert told_of_the_machine(events) == []


@pytest.mark.parametrize(
    ("changes", "phrase", "advice"),
    [
        ({"torch": "2.6.0"}, "instead of 2.6.0", "type `pip install torch==2.6.0`, or leave out --exact"),
        ({"device_model": "another processor"}, "instead of another processor", "leave out --exact"),
    ],
    ids=["torch", "processor"],
)
def test_another_torch_or_device_is_recorded_or_left_alone(suspended, root, changes, phrase, advice):
    job, machine = suspended
    new = replace(job, snapshot=None, recorded_machine=begun_on(machine, **changes), run_folder=str(root / phrase))
    (declined,) = train(replace(new, exact=True))
    assert isinstance(declined, Declined)
    assert declined.reason == "different-machine"
    assert phrase in declined.message
    assert advice in declined.message
    events = train(new, react=lambda event: Suspend() if isinstance(event, Started) else None)
    (note,) = told_of_the_machine(events)
    assert phrase in note
    assert note.endswith(INEXACT)


def test_another_ultralytics_is_declined_unless_it_is_allowed(suspended, root):
    job, machine = suspended
    recorded = begun_on(machine, ultralytics="8.4.150")
    new = replace(job, snapshot=None, recorded_machine=recorded, run_folder=str(root / "release"))
    (declined,) = train(new)
    assert isinstance(declined, Declined)
    assert "`pip install ultralytics==8.4.150`, or allow it with --allow-different-machine" in declined.message
    allowed = replace(new, allow_different_machine=True)
    (note,) = told_of_the_machine(train(allowed, react=lambda event: Suspend() if isinstance(event, Started) else None))
    assert "instead of 8.4.150" in note


def test_a_new_trial_on_another_machine_than_the_studys_first_says_so(suspended, root):
    job, machine = suspended
    study = {**begun_on(machine, numpy="1.26.0"), "snapshot_format": 1}
    new = replace(job, snapshot=None, environment=study, run_folder=str(root / "new"))
    (note,) = told_of_the_machine(train(new, react=lambda event: Suspend() if isinstance(event, Started) else None))
    assert "instead of 1.26.0, unlike the study's first" in note


@contextlib.contextmanager
def one_cpu():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="this machine has one CPU")
def test_where_there_are_fewer_cpus_than_threads_the_trial_goes_on_with_fewer_and_says_so(suspended, root):
    job, _ = suspended
    before = torch.get_num_threads()
    try:
        two = replace(job, snapshot=None, threads=2, run_folder=str(root / "two"))
        events = train(two, react=lambda event: Suspend() if isinstance(event, Started) else None)
        (started,) = [event for event in events if isinstance(event, Started)]
        assert started.machine["threads"] == 2
        two = replace(two, recorded_machine=started.machine)
        with one_cpu():
            (declined,) = train(replace(two, exact=True))
            assert isinstance(declined, Declined)
            assert "threads 1 instead of 2" in declined.message
            events = train(two)
            assert told_of_the_machine(events) == [f"goes on with threads 1 instead of 2: {INEXACT}"]
            assert isinstance(events[-1], Finished)
            assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
