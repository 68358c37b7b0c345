"""`petskin-tune train`: the best trial at length and on all data, suspended and typed again."""

from __future__ import annotations

import signal
from pathlib import Path

import optuna
import pytest
from workers import load, run, start, wait_until, write_study

from petskin_tune import attributes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished study of two trials of an epoch each, on a part of its data."""
    folder = tmp_path_factory.mktemp("searched")
    changes = {"subset": {"train": 16, "val": 8}, "epochs": 1, "target_trials": 2}
    result = run("--study", str(write_study(folder, **changes)), cwd=folder)
    assert result.returncode == 0, result.stdout
    return folder


def test_the_best_is_trained_on_all_data_and_the_same_command_goes_on_where_it_stood(searched: Path) -> None:
    command = ("train", "--study", "small", "--epochs", "4")
    worker = start(*command, cwd=searched, command="petskin-tune")
    wait_until(lambda: len(_final(searched).trials) == 1 and len(_final(searched).trials[0].intermediate_values) >= 1)
    worker.send_signal(signal.SIGTERM)
    output, _ = worker.communicate(timeout=60)
    assert worker.returncode == 75, output
    assert output.splitlines()[-1] == "suspended; to go on, type: tune-worker --study small-top-1-4-epochs"
    again = run(*command, cwd=searched, command="petskin-tune")
    assert again.returncode == 0, again.stdout
    assert "goes on after" in again.stdout
    (trial,) = _final(searched).trials
    assert trial.params == load(searched / "runs").best_trial.params
    assert list(trial.intermediate_values) == [1, 2, 3, 4]
    splits = _final(searched).user_attrs[attributes.FINGERPRINT]["splits"]
    images = {name: split["images"] for name, split in splits.items()}
    assert images == {"train": 64, "val": 32}


def test_a_trial_that_there_is_not_is_named(searched: Path) -> None:
    refused = run("train", "--study", "small", "--epochs", "4", "--trial", "7", cwd=searched, command="petskin-tune")
    assert refused.returncode == 2
    assert refused.stdout == "error: The study small has no finished trial 7.\n"


def _final(folder: Path) -> optuna.Study:
    url = f"sqlite:///{folder / 'runs' / 'tune.db'}"
    if "small-top-1-4-epochs" not in optuna.get_all_study_names(url):
        return optuna.create_study()
    return optuna.load_study(study_name="small-top-1-4-epochs", storage=url)
