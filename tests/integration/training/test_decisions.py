"""What is decided on the way (fp32 after a NaN, micro-batches) is told, lasting, and leads back to the same place."""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from petskin_tune import faults
from petskin_tune.protocol import (
    EpochDone,
    Finished,
    Note,
    Position,
    SnapshotWritten,
    Started,
    Stop,
    Suspend,
    Suspended,
)
from petskin_tune.training import trainer
from petskin_tune.training.attempts import run
from petskin_tune.training.snapshots import file as snapshot
from petskin_tune.training.snapshots.state import Decisions, TrainingState
from petskin_tune.training.trainer import ResumableTrainer
from petskin_tune.training.trial_trainer import TrialTrainer
from tests.support import training as helpers
from tests.support.provocations import memory_for, poisoned_at

NEVER = 1e9  # seconds between snapshots
BAD_BATCH = 5  # of six; snapshots are written after batches 1 to 5


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


@pytest.fixture
def job(root, request):
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)
    return helpers.job(root, name, arguments={"epochs": 3})


def train(job, react=lambda event: None, killed_at=math.inf):
    """Train in this process; it is killed after so many batches."""
    recorder, done = helpers.Recorder(react), 0

    def reach(point):
        nonlocal done
        done += point == "batch-done"
        if done >= killed_at:
            raise Killed

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(faults, "reach", reach)
        recorder.send(run(job, recorder))
    return recorder.events


def of_type(events, kind):
    return [event for event in events if isinstance(event, kind)]


def decided(events):
    return [event for event in of_type(events, Note) if event.key == "precision"]


# ---- where a decision leads back to, and how long it lasts ---------------------------------------------------------


@pytest.fixture
def mixed(job, monkeypatch):
    """The job on a CPU that says it can train in mixed precision, and writes every snapshot asked for."""
    monkeypatch.setattr(TrialTrainer, "_mixed_precision_available", lambda self: True)
    monkeypatch.setattr(trainer, "SnapshotKeeper", helpers.waiting_keeper())
    return replace(job, arguments={**job.arguments, "amp": True}, snapshot_every=NEVER)


@pytest.mark.slow
def test_a_decision_leads_back_to_the_same_place_wherever_snapshots_were_written(mixed, monkeypatch):
    ends = []
    for every in (NEVER, helpers.EVERY_BATCH):
        poison = poisoned_at(monkeypatch, 1, BAD_BATCH, "amp")
        this = replace(mixed, run_folder=f"{mixed.run_folder}-{every}", snapshot_every=every)
        events = train(this)
        assert isinstance(events[-1], Finished), events[-1]
        assert poison.fired == 1
        written = [event.position for event in events[: events.index(*decided(events))] if hasattr(event, "sha256")]
        assert any(Position(1, 0) < position for position in written) == (every != NEVER)
        ends.append(helpers.final_state(this.run_folder))
    assert helpers.differences(*ends) == []


@pytest.mark.parametrize("epoch", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_decision_is_on_disk_before_the_training_goes_on(mixed, monkeypatch, epoch):
    alone = replace(mixed, run_folder=mixed.run_folder + "-alone")
    poisoned_at(monkeypatch, epoch, BAD_BATCH, "amp")
    assert isinstance(train(alone)[-1], Finished)
    killed = train(mixed, killed_at=epoch * 6 + BAD_BATCH + 2)
    assert len(decided(killed)) == 1
    written = of_type(killed, SnapshotWritten)[-1]
    assert written.position == Position(epoch, 0)
    resumed = train(replace(mixed, snapshot=written.path))
    assert resumed[0].position == Position(epoch, 0)
    assert any("fp32 after a non-finite loss" in note for note in resumed[0].notes)
    assert not decided(resumed)
    ends = [helpers.final_state(this.run_folder) for this in (alone, mixed)]
    assert helpers.differences(*ends) == []


@pytest.mark.slow
def test_a_decision_made_before_any_snapshot_is_made_again_in_the_same_place(mixed, monkeypatch):
    alone = replace(mixed, run_folder=mixed.run_folder + "-alone")
    poisoned_at(monkeypatch, 1, BAD_BATCH, "amp")
    train(alone)
    every_epoch = replace(mixed, snapshot_every=0)
    killed = train(every_epoch, killed_at=6 + BAD_BATCH - 1)
    resumed = train(replace(mixed, snapshot=of_type(killed, SnapshotWritten)[-1].path))
    assert len(decided(resumed)) == 1
    ends = [helpers.final_state(this.run_folder) for this in (alone, mixed)]
    assert helpers.differences(*ends) == []


@pytest.mark.slow
def test_in_an_epoch_entered_in_the_middle_a_decision_leads_back_to_where_it_was_entered(mixed, monkeypatch):
    def middle(event):
        return Stop() if isinstance(event, SnapshotWritten) and Position(1, 1) < event.position else None

    entered = of_type(train(replace(mixed, snapshot_every=helpers.EVERY_BATCH), react=middle), SnapshotWritten)[-1]
    assert Position(1, 0) < entered.position < Position(1, BAD_BATCH)
    poisoned_at(monkeypatch, 1, BAD_BATCH, "amp")
    events = train(replace(mixed, snapshot=entered.path, snapshot_every=helpers.EVERY_BATCH))
    after = events[events.index(*decided(events)) :]
    assert of_type(after, SnapshotWritten)[0].position == entered.position
    assert isinstance(events[-1], Finished)


# ---- a decision before training starts -------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_dry_step_out_of_memory_is_followed_by_a_start_that_is_told(job, monkeypatch):
    """As on a GPU: the dry step runs while the trial is set up, before the worker knows that it trains."""
    original = TrialTrainer.resume_training

    def with_dry_step(self, ckpt):
        fresh = self._state is None
        original(self, ckpt)
        if fresh:
            self.dry_step()

    monkeypatch.setattr(TrialTrainer, "resume_training", with_dry_step)
    memory = memory_for(monkeypatch, images=3)
    events = train(job, react=lambda event: Suspend() if isinstance(event, EpochDone) else None)
    assert memory.fired == 2, "8 and 4 images do not fit, 2 do"
    (started,) = of_type(events, Started)
    assert started.notes == ("micro-batches of 2 after out of memory",)
    assert (started.batch, started.position) == (8, Position(0, 0))
    assert isinstance(events[-1], Suspended)
    resumed = train(replace(job, snapshot=events[-1].snapshot.path))
    assert isinstance(resumed[-1], Finished), resumed[-1]


# ---- a change of precision in mid accumulation ----------------------------------------------------------------------


@pytest.fixture
def scaled(monkeypatch):
    """Return a function that switches the scaling of gradients, as AMP does it on a GPU, on or off."""
    original = TrialTrainer._choose_precision

    def switch(on, scale=1024.0):
        def choose(self):
            original(self)
            self.scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=on)

        monkeypatch.setattr(TrialTrainer, "_choose_precision", choose)

    return switch


@pytest.fixture
def accumulating(job, monkeypatch):
    """Return a function that trains the job into its second epoch; returns it with a snapshot in mid accumulation."""
    monkeypatch.setattr(trainer, "SnapshotKeeper", helpers.waiting_keeper())

    def stop(event):
        late = isinstance(event, SnapshotWritten) and Position(1, 0) < event.position
        return Stop() if late and snapshot.read(Path(event.path))["gradients"] else None

    def train_into(name):
        long = {**job.arguments, "nbs": 96}  # twelve batches to a step: snapshots do not wait for it
        this = replace(job, arguments=long, run_folder=f"{job.run_folder}-{name}", snapshot_every=helpers.EVERY_BATCH)
        written = of_type(train(this, react=stop), SnapshotWritten)[-1]
        assert snapshot.read(Path(written.path))["gradients"]
        return replace(this, snapshot=written.path)

    return train_into


def gradients(job):
    """Set the job up from its snapshot; return the gradients in force."""
    state = TrainingState.from_plain(snapshot.read(Path(job.snapshot)))
    setup = TrialTrainer(job, Decisions(), state)
    setup._setup_train()
    return {name: p.grad for name, p in setup.model.named_parameters() if p.grad is not None}


def test_a_training_without_amp_goes_on_with_it(accumulating, scaled):
    job = accumulating("plain")
    saved = snapshot.read(Path(job.snapshot))["gradients"]
    scaled(True)
    assert helpers.differences(gradients(job), {name: value * 1024 for name, value in saved.items()}) == []
    assert isinstance(train(job)[-1], Finished)


@pytest.mark.slow
def test_a_training_under_amp_goes_on_without_it(accumulating, scaled):
    scaled(True)
    job = accumulating("scaled")
    saved = snapshot.read(Path(job.snapshot))
    assert saved["scaler"]["scale"] == 1024
    scaled(False)
    assert helpers.differences(gradients(job), {n: value / 1024 for n, value in saved["gradients"].items()}) == []
    assert isinstance(train(job)[-1], Finished)


def test_a_training_under_amp_goes_on_under_amp_as_it_was(accumulating, scaled):
    scaled(True, scale=1024.0)
    job = accumulating("scaled")
    scaled(True, scale=8.0)
    assert helpers.differences(gradients(job), snapshot.read(Path(job.snapshot))["gradients"]) == []


def overflowing(monkeypatch, epoch, batch):
    """Let one gradient be infinite after a batch."""
    original = ResumableTrainer._accumulate_gradients

    def overflow(self, loaded, index):
        original(self, loaded, index)
        if (self.epoch, index) == (epoch, batch):
            next(parameter for parameter in self.model.parameters() if parameter.grad is not None).grad[0] = math.inf
            overflow.fired += 1

    overflow.fired = 0
    monkeypatch.setattr(ResumableTrainer, "_accumulate_gradients", overflow)
    return overflow


@pytest.mark.slow
def test_a_gradient_that_overflows_under_amp_changes_no_precision(job, scaled, monkeypatch):
    monkeypatch.setattr(TrialTrainer, "_mixed_precision_available", lambda self: True)
    monkeypatch.setattr(trainer, "SnapshotKeeper", helpers.waiting_keeper())
    scaled(True)
    overflow = overflowing(monkeypatch, 1, 5)  # the last batch of an epoch, with no step after it
    arguments = {**job.arguments, "amp": True, "nbs": 96}
    events = train(replace(job, arguments=arguments, snapshot_every=helpers.EVERY_BATCH))
    assert overflow.fired == 1
    assert isinstance(events[-1], Finished), events[-1]
    assert not helpers.notes(events)
    last = snapshot.read(Path(of_type(events, SnapshotWritten)[-1].path))
    assert last["scaler"]["scale"] == 512, "the step was not skipped"
    assert all(tensor.isfinite().all() for tensor in last["model"].values())


def test_gradients_that_overflowed_are_not_taken_over_without_amp(accumulating, scaled, monkeypatch):
    scaled(True)
    overflow = overflowing(monkeypatch, 1, 0)
    job = accumulating("overflowed")
    assert overflow.fired == 1
    scaled(False)
    assert gradients(job) == {}
    assert isinstance(train(job)[-1], Finished)


def test_a_gradient_that_is_not_finite_without_amp_ends_the_trial(job, monkeypatch):
    overflowing(monkeypatch, 1, 5)
    assert train(replace(job, arguments={**job.arguments, "nbs": 96}))[-1].kind == "diverged"
