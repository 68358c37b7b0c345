"""Whatever the settings and wherever it is interrupted, however often: a training ends as the one left alone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petskin_tune.protocol import EpochDone, Failed, Finished, SnapshotWritten
from tests.support import training as helpers
from tests.support.soak import times

# How often a training of two epochs of three batches that is left alone reaches a point, at least (no snapshot is begun
# while one is being written): the first kill comes at one of these instants, so that it happens.
REACHED = {"batch-done": 6, "in-validation": 2, "epoch-batches-done": 2, "epoch-validated": 2, "snapshot-renamed": 1}


@pytest.fixture(scope="module")
def left_alone(root):
    @cache
    def end(arguments):
        job = helpers.job(root, f"alone-{hash(arguments)}", arguments=dict(arguments), data=str(small(root)))
        events = helpers.run_here(job)
        assert isinstance(events[-1], Finished), events[-1]
        curve = {event.epoch: event.metrics for event in events if isinstance(event, EpochDone)}
        return helpers.final_state(job.run_folder), curve

    return end


def small(root):
    return helpers.data(root, train=24, val=8)


choices = st.fixed_dictionaries(
    {
        "epochs": st.just(2),
        "optimizer": st.sampled_from(["SGD", "AdamW", "MuSGD"]),
        "nbs": st.sampled_from([8, 16, 32]),
        "warmup_epochs": st.sampled_from([0, 1.5]),
        "close_mosaic": st.sampled_from([0, 1]),
        "multi_scale": st.sampled_from([0.0, 0.5]),
    }
)
instants = [(point, nth) for point, times in REACHED.items() for nth in range(1, times + 1)]
kills = st.lists(st.sampled_from(instants), min_size=1, max_size=4)


@settings(max_examples=5, derandomize=True)
@given(arguments=choices, kills=kills, every=st.sampled_from([0.0, 1e-6]))
def test_a_training_interrupted_anywhere_ends_as_the_one_left_alone(root, left_alone, arguments, kills, every):
    assert_exact(root, left_alone, arguments, kills, every)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@settings(max_examples=times(150, least=30))
@given(arguments=choices, kills=kills, every=st.sampled_from([0.0, 1e-6]))
def test_many_more_end_as_the_ones_left_alone(root, left_alone, arguments, kills, every):
    assert_exact(root, left_alone, arguments, kills, every)


def assert_exact(root, left_alone, arguments, kills, every):
    folder = f"run-{abs(hash((*arguments.values(), *kills, every)))}"
    job = helpers.job(root, folder, arguments=arguments, data=str(small(root)), snapshot_every=every)
    told, newest, happened = {}, None, []
    for point, nth in [*kills, (None, 0)]:
        events = helpers.run_here(replace(job, snapshot=newest), point, nth)
        happened.append(not isinstance(events[-1], Finished))
        for event in events:
            if isinstance(event, EpochDone):
                assert told.setdefault(event.epoch, event.metrics) == event.metrics
            if isinstance(event, SnapshotWritten):
                newest = event.path
        if isinstance(events[-1], Finished):
            break
        assert not isinstance(events[-1], Failed), events[-1]
    assert happened[0], "the first kill did not happen"
    expected, curve = left_alone(tuple(arguments.items()))
    assert helpers.differences(expected, helpers.final_state(job.run_folder)) == []
    assert told == curve
    assert Path(job.run_folder, "weights/best.pt").exists()
    shutil.rmtree(job.run_folder)
