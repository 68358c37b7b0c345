"""Workers that start in the same instant on an empty database share one study, and never overshoot its target."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from workers import SMALL_STUDY, essence, run, start, write_study

from petskin_tune.datasets import demo

TARGET = 40


def tiny_study(folder: Path, **changes: Any) -> Path:
    """A study whose trials take about a second: one epoch on eight images of 32 pixels."""
    data = demo.make(folder / "data", train=8, val=4, imgsz=32)
    train = {**SMALL_STUDY["train"], "imgsz": 32, "batch": 8, "nbs": 8, "close_mosaic": 0, "warmup_epochs": 0}
    return write_study(folder, **{"data": str(data), "epochs": 1, "train": train, "target_trials": TARGET, **changes})


def work_together(count: int, study: Path, cwd: Path, *options: str) -> list[str]:
    """Start ``count`` workers at once and wait for all; what each printed."""
    workers = [start("--study", str(study), "--name", f"w{number}", *options, cwd=cwd) for number in range(count)]
    outputs = [worker.communicate(timeout=900)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * count, "\n".join(outputs)
    return outputs


def assert_exactly(target: int, study: optuna.Study) -> None:
    trials = study.trials
    assert len(trials) == target
    assert {trial.state.name for trial in trials} == {"COMPLETE"}
    assert sorted(trial.number for trial in trials) == list(range(target))
    assert all(list(trial.intermediate_values) == [1] for trial in trials)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_workers_started_in_the_same_instant_on_an_empty_sqlite_file_share_one_study(tmp_path: Path) -> None:
    work_together(2, tiny_study(tmp_path), tmp_path)
    study = optuna.load_study(study_name="small", storage=f"sqlite:///{tmp_path / 'runs' / 'tune.db'}")
    assert_exactly(TARGET, study)
    assert {trial.user_attrs["worker"] for trial in study.trials} == {"w0", "w1"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sixteen_workers_started_in_the_same_instant_on_an_empty_postgresql_share_one_study(
    tmp_path: Path, postgres_url: str
) -> None:
    outputs = work_together(16, tiny_study(tmp_path), tmp_path, "--storage", postgres_url)
    study = optuna.load_study(study_name="small", storage=postgres_url)
    assert_exactly(TARGET, study)
    assert len({trial.user_attrs["worker"] for trial in study.trials}) > 1
    assert not any("Traceback" in output for output in outputs)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_study_of_four_workers_that_are_killed_again_and_again_ends_as_the_undisturbed_one(tmp_path: Path) -> None:
    """Random sampler, no pruner: configurations and values do not depend on who trained what, and when."""
    changes = {"epochs": 3, "target_trials": 12, "data": "demo", "train": SMALL_STUDY["train"]}
    calm, wild = tmp_path / "calm", tmp_path / "wild"
    assert run("--study", str(tiny_study(calm, **changes)), cwd=calm).returncode == 0
    study = tiny_study(wild, **changes)
    kills = _work_under_kills(4, study, wild, random.Random(3))
    assert kills >= 4
    expected = optuna.load_study(study_name="small", storage=f"sqlite:///{calm / 'runs' / 'tune.db'}")
    survived = optuna.load_study(study_name="small", storage=f"sqlite:///{wild / 'runs' / 'tune.db'}")
    assert essence(survived) == essence(expected)
    # Snapshots are written at the end of every epoch: a kill costs at most the epoch in work and the one before,
    # whose snapshot may not have been in the store yet.
    seconds = sum(sum(trial.user_attrs["history"]["seconds"]) for trial in survived.trials)
    epoch = seconds / sum(trial.user_attrs["epochs"] for trial in survived.trials)
    assert _seconds_lost(survived) <= kills * 2 * epoch * 4


def _work_under_kills(count: int, study: Path, cwd: Path, instants: random.Random) -> int:
    def begin(number: int) -> tuple[Any, float]:
        worker = start("--study", str(study), "--name", f"w{number}", cwd=cwd)
        return worker, time.monotonic() + instants.uniform(20.0, 60.0)

    running = {number: begin(number) for number in range(count)}
    kills = 0
    deadline = time.monotonic() + 1200
    while running:
        assert time.monotonic() < deadline
        time.sleep(0.1)
        for number, (worker, end) in list(running.items()):
            if worker.poll() is not None:
                assert worker.returncode == 0, worker.communicate()[0]
                worker.communicate()
                del running[number]
            elif time.monotonic() > end:
                os.kill(worker.pid, signal.SIGKILL)
                worker.communicate()
                kills += 1
                running[number] = begin(number)
    return kills


def _seconds_lost(study: optuna.Study) -> float:
    from petskin_tune.leases import read_leases
    from petskin_tune.storage import open_storage

    storage = open_storage(study._storage._backend.url)  # type: ignore[attr-defined]
    return sum(lease.seconds_lost for lease in read_leases(storage, study._study_id))
