"""Kill it at any instant: the study ends exactly as the one that was left alone."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest
import torch

from tests.support.killing import kill_at_random
from tests.support.soak import times
from tests.support.workers import SMALL_STUDY, UNREACHABLE, best_weights, essence, fired, load, run, start, write_study

# Where the worker (or with kill-all the trial's process and the worker) dies, one after the other in one study: each
# finds what it needs in what the one before has left, and all of them before the study's four trials are done.
WORKER_POINTS = (
    "trial-born=kill",
    "before-parameters=kill",
    "parameters-stored=kill",
    "outbox-written=kill",
    "before-report=kill",
    "report-sent=kill",
    "verdict-given=kill",
    "before-snapshot-pointer=kill",
    "snapshot-committed=kill",
    "before-last-tell=kill",
    "trial-claimed=kill",  # of the trial that the last one was about to end
    "before-tell=kill",
    "told=kill",
)
CHILD_POINTS = (
    "batch-done=kill-all@1",
    "batch-done=kill-all@3",
    "epoch-batches-done=kill-all",
    "in-validation=kill-all",
    "epoch-validated=kill-all",
    "snapshot-temporary-written=kill-all",
    "snapshot-renamed=kill-all",
    "epoch-event-sent=kill-all",
)
SOME_POINTS = (  # for those who cannot wait
    "parameters-stored=kill",
    "batch-done=kill-all@3",
    "snapshot-renamed=kill-all",
    "verdict-given=kill",
    "before-tell=kill",
)
SEGMENT_POINTS = (  # of a study that freezes and thaws
    "segment-chosen=kill@2",
    "batch-done=kill-all@3",
    "verdict-given=kill",
    "before-freeze=kill",
    "frozen=kill",
    "segment-claimed=kill",
    "snapshot-renamed=kill-all",
    "before-study-end=kill",
)
KILLS = times(20, least=7)  # at random instants
TRIALS = 6  # of the study that is killed at random instants, at least
CHANGES = {
    "epochs": 4,
    "train": {**SMALL_STUDY["train"], "batch": 4, "nbs": 8, "lrf": 0.1},
    "pruner": {"name": "asha", "rungs": [1, 2], "reduction_factor": 2},
    "search": {"lr0": {"low": 2e-3, "high": 8e-3, "log": True}, "mosaic": [0.0, 1.0]},
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of the study that was left alone."""
    folder = tmp_path_factory.mktemp("undisturbed")
    result = run("--study", str(write_study(folder, **CHANGES, target_trials=4)), cwd=folder)
    assert result.returncode == 0, result.stdout
    return folder / "tune-home"


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    "points",
    [
        pytest.param(SOME_POINTS, id="some"),
        pytest.param(WORKER_POINTS, id="worker", marks=pytest.mark.slow),
        pytest.param(CHILD_POINTS, id="child", marks=pytest.mark.slow),
    ],
)
def test_a_study_killed_at_every_named_point_ends_as_the_one_left_alone(
    points: tuple[str, ...], undisturbed: Path, tmp_path: Path
) -> None:
    study = write_study(tmp_path, **CHANGES, target_trials=4)
    log = tmp_path / "fired"
    for number, fault in enumerate(points):
        result = run("--study", str(study), cwd=tmp_path, TUNE_FAULTS=fault, TUNE_FAULTS_LOG=str(log))
        assert result.returncode == -signal.SIGKILL, f"{fault}: {result.stdout}"
        assert fired(log) == [name.partition("=")[0] for name in points[: number + 1]]
    finish = run("--study", str(study), cwd=tmp_path)
    assert finish.returncode == 0, finish.stdout
    _assert_same(tmp_path / "tune-home", undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_study_that_freezes_and_thaws_ends_as_the_one_left_alone_wherever_it_is_killed(tmp_path: Path) -> None:
    calm, wild = tmp_path / "calm", tmp_path / "wild"
    sampler = {"name": "freeze-thaw", "rungs": [1, 2, 3]}
    changes = {**CHANGES, "sampler": sampler, "pruner": None, "target_trials": 9, "budget": 5}
    assert run("--study", str(write_study(calm, **changes)), cwd=calm).returncode == 0
    study, log = write_study(wild, **changes), tmp_path / "fired"
    for number, fault in enumerate(SEGMENT_POINTS):
        result = run("--study", str(study), cwd=wild, TUNE_FAULTS=fault, TUNE_FAULTS_LOG=str(log))
        assert result.returncode == -signal.SIGKILL, f"{fault}: {result.stdout}"
        assert fired(log) == [name.partition("=")[0] for name in SEGMENT_POINTS[: number + 1]]
    assert run("--study", str(study), cwd=wild).returncode == 0
    thawed = [trial for trial in load(calm / "tune-home").trials if trial.user_attrs["petskin-tune:resumes"]]
    assert thawed
    _assert_same(wild / "tune-home", calm / "tune-home")


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("sampler", ["random", "tpe", "gp"])
def test_a_study_killed_again_and_again_at_random_instants_ends_as_the_one_left_alone(
    sampler: str, tmp_path: Path
) -> None:
    options = {} if sampler == "random" else {"startup_trials": 2}
    changes = {**CHANGES, "sampler": {"name": sampler, **options}, "lease": "60s"}
    calm, wild = tmp_path / "calm", tmp_path / "wild"
    study = write_study(wild, **changes, target_trials=UNREACHABLE)
    chance = random.Random(7)
    for _ in range(KILLS):
        kill_at_random(start("--study", str(study), cwd=wild), chance)
    trials = max(TRIALS, len(load(wild / "tune-home").trials))  # however far it has come meanwhile
    finish = run("--study", str(study), "--target-trials", str(trials), cwd=wild)
    assert finish.returncode == 0, finish.stdout
    assert run("--study", str(write_study(calm, **changes, target_trials=trials)), cwd=calm).returncode == 0
    _assert_same(wild / "tune-home", calm / "tune-home")


def _assert_same(home: Path, reference: Path) -> None:
    mine, theirs = load(home), load(reference)
    assert essence(mine) == essence(theirs)
    numbers = [trial.number for trial in theirs.trials if "petskin-tune:weights" in trial.user_attrs]
    keys = {number: theirs.trials[number].user_attrs["petskin-tune:weights"] for number in numbers}
    kept = [number for number, key in keys.items() if (reference / "checkpoints" / key).exists()]
    assert kept
    weights, expected = best_weights(home, mine, kept), best_weights(reference, theirs, kept)
    for number in kept:
        assert weights[number].keys() == expected[number].keys()
        assert all(torch.equal(weights[number][name], expected[number][name]) for name in expected[number]), number
