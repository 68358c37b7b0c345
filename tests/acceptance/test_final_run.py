"""`petskin-tune train`: the best trial at length and on all data, suspended and typed again."""

from __future__ import annotations

import os
import random
import shutil
import signal
from pathlib import Path

import optuna
import pytest
import torch

from petskin_tune.study import attributes
from tests.support.killing import kill_at_random
from tests.support.workers import Said, best_weights, interrupt_stopped, load, run, start, stopped_by, write_study

pytestmark = pytest.mark.slow

EPOCHS = 10
KILLS = 10
LONG = 4 * KILLS  # epochs: more than fit between so many kills


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished study of two trials of an epoch each, on a part of its data."""
    folder = tmp_path_factory.mktemp("searched")
    changes = {"subset": {"train": 16, "val": 8}, "epochs": 1, "target_trials": 2}
    result = run("--study", str(write_study(folder, **changes)), cwd=folder)
    assert result.returncode == 0, result.stdout
    return folder


def test_the_best_is_trained_on_all_data_and_the_same_command_goes_on_where_it_stood(searched: Path) -> None:
    command = ("train", "--study", "small", "--epochs", str(EPOCHS))
    log = searched / "fired"
    faults = {"TUNE_FAULTS": "batch-done=stop@9", "TUNE_FAULTS_LOG": str(log)}  # the first of the second epoch
    said = Said(start(*command, cwd=searched, command="petskin-tune", **faults))
    interrupt_stopped(said, stopped_by(log), lambda: os.kill(said.pid, signal.SIGTERM), "SIGTERM")
    output = said.end()
    assert said.returncode == 75, output
    assert output.splitlines()[-1] == f"suspended; to go on, type: petskin-tune {' '.join(command)}"
    again = run(*command, cwd=searched, command="petskin-tune")
    assert again.returncode == 0, again.stdout
    assert "goes on after" in again.stdout
    (trial,) = _final(searched).trials
    assert trial.params == load(searched / "tune-home").best_trial.params
    assert list(trial.intermediate_values) == list(range(1, EPOCHS + 1))
    splits = _final(searched).user_attrs[attributes.FINGERPRINT]["splits"]
    images = {name: split["images"] for name, split in splits.items()}
    assert images == {"train": 64, "val": 32}


def test_a_trial_that_there_is_not_is_named(searched: Path) -> None:
    refused = run("train", "--study", "small", "--epochs", "4", "--trial", "7", cwd=searched, command="petskin-tune")
    assert refused.returncode == 2
    assert refused.stdout == "error: The study small has no finished trial 7.\n"


@pytest.mark.timeout(1200)
def test_a_final_run_killed_ten_times_at_random_ends_with_the_weights_of_an_undisturbed_one(
    searched: Path, tmp_path: Path
) -> None:
    undisturbed, killed = (shutil.copytree(searched, tmp_path / name) for name in ("undisturbed", "killed"))
    command = ("train", "--study", "small", "--epochs", str(LONG))
    chance = random.Random(14)
    for _ in range(KILLS):
        kill_at_random(start(*command, cwd=killed, command="petskin-tune"), chance)
    kept = []
    for folder in (undisturbed, killed):
        ended = run(*command, cwd=folder, command="petskin-tune")
        assert ended.returncode == 0, ended.stdout
        study = _final(folder, LONG)
        assert list(study.trials[0].intermediate_values) == list(range(1, LONG + 1))
        kept.append((study.trials[0], best_weights(folder / "tune-home", study, [0])[0]))
    (whole, whole_weights), (resumed, resumed_weights) = kept
    assert resumed.user_attrs[attributes.RESUMES] >= KILLS // 2 > whole.user_attrs[attributes.RESUMES] == 0
    assert resumed.intermediate_values == whole.intermediate_values
    assert whole_weights.keys() == resumed_weights.keys()
    assert all(torch.equal(tensor, resumed_weights[name]) for name, tensor in whole_weights.items())


def _final(folder: Path, epochs: int = EPOCHS) -> optuna.Study:
    return load(folder / "tune-home", f"small-top-1-{epochs}-epochs")
