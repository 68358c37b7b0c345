"""However many workers choose at once and whoever is killed, a segment is trained by one of them."""

from __future__ import annotations

import signal
import time
from itertools import cycle, islice
from pathlib import Path

import pytest
from optuna.trial import TrialState

from petskin_tune.database.storage import open_storage
from petskin_tune.leases.lease import read_leases
from petskin_tune.study.spec import PrunerSpec, SamplerSpec
from petskin_tune.study.study import find_study
from tests.support.segment_workers import Workers, new_study
from tests.support.studies import a_spec
from tests.support.trainings import fitness

EPOCHS = 9
PATIENCE = 240.0
POINTS = ("segment-chosen", "segment-claimed", "before-freeze", "frozen", "before-birth", "report-sent")


@pytest.mark.parametrize(("count", "runs"), [(6, 7), pytest.param(16, 20, marks=pytest.mark.slow)])
def test_a_segment_has_one_owner_whoever_is_killed_at_a_choice_a_claim_or_a_freeze(
    database_url: str, tmp_path: Path, count: int, runs: int
) -> None:
    storage = open_storage(database_url)
    budget = runs * EPOCHS
    searched = {"sampler": SamplerSpec(name="freeze-thaw"), "pruner": PrunerSpec(name="none"), "budget": budget}
    searched["target_trials"] = budget  # no end of configurations
    new_study(storage, a_spec(epochs=EPOCHS, lease=30.0, **searched))
    workers = Workers(database_url, tmp_path)
    doomed = {workers.start(f"{point}=kill@1"): point for point in islice(cycle(POINTS), count)}
    _until_ended(workers)  # before the others could end the study
    followers = [workers.start() for _ in doomed]
    _until_ended(workers)
    assert {workers.all[name].exitcode for name in followers} == {0}
    for name, point in doomed.items():
        assert workers.all[name].exitcode == -signal.SIGKILL, f"{name} was not killed"
        assert point in workers.fired(name)

    study = find_study(storage, "petskin")
    assert study is not None
    trials = study.trials()
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert {lease.state for lease in read_leases(storage, study.id)} == {"done"}
    for trial in trials:
        epochs = range(1, len(trial.intermediate_values) + 1)
        assert trial.intermediate_values == {n: fitness(trial.params["lr0"], n) for n in epochs}
    assert sum(len(trial.intermediate_values) for trial in trials) >= budget
    _check_that_no_two_trained_one_trial_at_a_time(workers, doomed)


def _until_ended(workers: Workers) -> None:
    deadline = time.monotonic() + PATIENCE
    for process in workers.all.values():
        process.join(deadline - time.monotonic())
        assert not process.is_alive(), "it does not end"


def _check_that_no_two_trained_one_trial_at_a_time(workers: Workers, doomed: dict[str, str]) -> None:
    dead = {workers.all[name].pid for name in doomed}
    owner: dict[int, int] = {}
    for line in workers.trainings():
        trial, pid = line["trial"], line["pid"]
        if line["event"] == "began":
            assert owner.get(trial) is None or owner[trial] in dead, f"trial {trial} was trained twice at a time"
            owner[trial] = pid
        elif owner.get(trial) == pid:
            del owner[trial]
