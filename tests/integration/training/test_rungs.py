"""At a rung a training leaves a snapshot behind and goes on: frozen there and thawed, it ends as if left alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from petskin_tune.protocol import Finished, Position, SnapshotWritten, Stop
from tests.support import training as helpers

NEVER = 1e9  # seconds: no snapshot by the clock


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("rungs")


@pytest.fixture(scope="module")
def alone(root):
    job = helpers.job(root, "alone", snapshot_every=NEVER, arguments={"epochs": 8})
    life = helpers.live(job)
    assert isinstance(life.events[-1], Finished)
    return job, life


def positions(life):
    return [event.position for event in life.events if isinstance(event, SnapshotWritten)]


def test_a_snapshot_is_taken_at_every_rung_and_training_goes_on(root, alone):
    undisturbed_job, undisturbed = alone
    assert positions(undisturbed) == [Position(8, 0)]
    job = replace(undisturbed_job, run_folder=str(root / "rungs"), rungs=(1, 3, 8))
    life = helpers.live(job)
    assert positions(life) == [Position(1, 0), Position(3, 0), Position(8, 0)]
    assert (
        helpers.differences(helpers.final_state(undisturbed_job.run_folder), helpers.final_state(job.run_folder)) == []
    )
    assert helpers.curve([life]) == helpers.curve([undisturbed])


def test_frozen_at_each_rung_and_thawed_it_ends_as_the_one_that_never_paused(root, alone):
    undisturbed_job, undisturbed = alone
    job = replace(undisturbed_job, run_folder=str(root / "frozen"), rungs=(1, 2))
    lives, newest = [], None
    for rung in job.rungs:

        def freeze(event, rung=rung):
            return Stop() if isinstance(event, SnapshotWritten) and event.position == Position(rung, 0) else None

        lives.append(helpers.live(replace(job, snapshot=newest), react=freeze))
        newest = next(event.path for event in lives[-1].events if isinstance(event, SnapshotWritten))
        assert not isinstance(lives[-1].events[-1], Finished)
    lives.append(helpers.live(replace(job, snapshot=newest)))
    assert isinstance(lives[-1].events[-1], Finished)
    assert (
        helpers.differences(helpers.final_state(undisturbed_job.run_folder), helpers.final_state(job.run_folder)) == []
    )
    assert helpers.curve(lives) == helpers.curve([undisturbed])
