"""A training killed at any instant by SIGKILL, in a process of its own, ends as the one that was left alone."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from petskin_tune.protocol import EpochDone, Finished, Position, SnapshotWritten, Suspend, Suspended
from petskin_tune.training.snapshots import file as snapshot
from tests.support import training as helpers

SLOW = pytest.mark.slow
# The tiny study: 4 epochs of 6 batches, warm-up in the first, mosaic closed in the last, three batches to a step.
LONG_ACCUMULATION = {"nbs": 96}  # twelve batches to a step: snapshots do not wait for it


@pytest.fixture(scope="module")
def undisturbed(root):
    """Return a function that trains a set of arguments once, left alone."""
    trained = {}

    def train(**arguments):
        name = f"undisturbed-{arguments}"
        if name not in trained:
            life = helpers.live(helpers.job(root, name, arguments=arguments))
            assert isinstance(life.events[-1], Finished), life.events[-1]
            trained[name] = life, helpers.final_state(root / name)
        return trained[name]

    return train


def snapshot_within(first: tuple[int, int], last: tuple[int, int]):
    def reached(event):
        return isinstance(event, SnapshotWritten) and first <= (event.position.epoch, event.position.batch) <= last

    return {"kill_when": reached}


def at(fault: str):
    return {"faults": fault}


def assert_as_undisturbed(undisturbed, job, lives):
    assert isinstance(lives[-1].events[-1], Finished), lives[-1].events[-1]
    added = {key: value for key, value in job.arguments.items() if helpers.ARGUMENTS.get(key) != value}
    whole, expected = undisturbed(**added)
    assert helpers.differences(expected, helpers.final_state(job.run_folder)) == []
    assert helpers.curve(lives) == helpers.curve([whole])
    assert max(helpers.curve(lives)) == job.arguments["epochs"]


@pytest.mark.parametrize(
    ("deaths", "every", "resumed"),
    [
        pytest.param([at("batch-done=kill@3")], 0, [(0, 0), (0, 0)], id="in warm-up before any snapshot", marks=SLOW),
        pytest.param(
            [snapshot_within((0, 1), (0, 5))], helpers.EVERY_BATCH, [(0, 1), (0, 5)], id="in warm-up", marks=SLOW
        ),
        pytest.param(  # it may have come a little further before it was killed
            [snapshot_within((1, 1), (1, 5))], helpers.EVERY_BATCH, [(1, 1), (3, 6)], id="in mid epoch"
        ),
        pytest.param(
            [snapshot_within((1, 6), (1, 6))],
            helpers.EVERY_BATCH,
            [(1, 6), (1, 6)],
            id="after an epoch's last batch",
            marks=SLOW,
        ),
        pytest.param([at("epoch-batches-done=kill@2")], 0, [(1, 0), (1, 0)], id="before validation", marks=SLOW),
        pytest.param([at("in-validation=kill@2")], 0, [(1, 0), (1, 0)], id="during validation", marks=SLOW),
        pytest.param([at("epoch-validated=kill@2")], 0, [(1, 0), (1, 0)], id="after validation", marks=SLOW),
        pytest.param(
            [at("snapshot-temporary-written=kill@2")], 0, [(1, 0), (1, 0)], id="while a snapshot is written", marks=SLOW
        ),
        pytest.param(
            [at("snapshot-renamed=kill@2")], 0, [(1, 0), (1, 0)], id="between snapshot and its event", marks=SLOW
        ),
        pytest.param([at("epoch-event-sent=kill@3")], 0, [(1, 0), (3, 0)], id="after an epoch was told", marks=SLOW),
        pytest.param(
            [snapshot_within((3, 0), (3, 5))],
            helpers.EVERY_BATCH,
            [(3, 0), (3, 5)],
            id="after mosaic was closed",
            marks=SLOW,
        ),
    ],
)
def test_a_killed_training_ends_as_the_undisturbed_one(root, undisturbed, request, deaths, every, resumed):
    job = helpers.job(root, request.node.callspec.id.replace(" ", "-"), snapshot_every=every)
    lives = helpers.live_on(job, deaths)
    begun = helpers.started_at(lives[-1])
    assert resumed[0] <= (begun.epoch, begun.batch) <= resumed[1]
    assert_as_undisturbed(undisturbed, job, lives)


@pytest.mark.slow
def test_a_training_killed_in_mid_accumulation_goes_on_with_its_gradients(root, undisturbed):
    job = helpers.job(root, "accumulating", snapshot_every=helpers.EVERY_BATCH, arguments=LONG_ACCUMULATION)
    killed = helpers.live(job, **snapshot_within((1, 1), (1, 5)))
    assert snapshot.read(Path(killed.snapshot))["gradients"], "the snapshot was not in mid accumulation"
    lives = [killed, helpers.live(replace(job, snapshot=killed.snapshot))]
    assert_as_undisturbed(undisturbed, job, lives)


@pytest.mark.slow
def test_a_training_killed_five_times_at_random_instants_ends_as_the_undisturbed_one(root, undisturbed):
    job = helpers.job(root, "five-times", snapshot_every=0.1)
    instants = random.Random(7)
    lives, newest = [], None
    while len(lives) < 5:
        life = helpers.live(replace(job, snapshot=newest), kill_after=instants.uniform(0.0, 0.6))
        newest = life.snapshot or newest
        lives.append(life)
        if not life.exit_code:  # it was quicker than its killer
            break
    lives.append(helpers.live(replace(job, snapshot=newest)))
    assert sum(life.exit_code != 0 for life in lives) >= 2
    assert_as_undisturbed(undisturbed, job, lives)


@pytest.mark.parametrize("optimizer", [pytest.param("SGD", marks=SLOW), pytest.param("MuSGD", marks=SLOW)])
def test_a_killed_training_resumes_exactly_with_other_optimizers(root, undisturbed, optimizer):
    job = helpers.job(
        root, optimizer, snapshot_every=helpers.EVERY_BATCH, arguments={"optimizer": optimizer, "lr0": 0.01}
    )
    assert_as_undisturbed(undisturbed, job, helpers.live_on(job, [snapshot_within((1, 1), (1, 5))]))


@pytest.mark.slow
def test_a_killed_training_resumes_exactly_with_everything_random(root, undisturbed):
    augmented = {"mixup": 0.5, "cutmix": 0.3, "copy_paste": 0.5, "multi_scale": 0.5, "degrees": 90.0, "cls_pw": 0.5}
    job = helpers.job(root, "augmented", snapshot_every=helpers.EVERY_BATCH, arguments=augmented)
    assert_as_undisturbed(undisturbed, job, helpers.live_on(job, [snapshot_within((1, 1), (1, 5))]))


def test_a_suspended_training_ends_as_the_undisturbed_one(root, undisturbed):
    job = helpers.job(root, "suspended", snapshot_every=1e9)
    first = helpers.live(job, react=lambda event: Suspend() if isinstance(event, EpochDone) else None)
    assert isinstance(first.events[-1], Suspended)
    assert first.exit_code == 0
    written = first.events[-1].snapshot
    assert written is not None
    assert not written.position < Position(1, 0)
    lives = [first, helpers.live(replace(job, snapshot=written.path))]
    assert_as_undisturbed(undisturbed, job, lives)
