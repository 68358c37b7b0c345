"""Studies of trials that take a second, for several workers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna

from petskin_tune.database.storage import open_storage
from petskin_tune.datasets import demo
from petskin_tune.study.study import find_study
from tests.support.workers import SMALL_STUDY, Said, start, write_study

TARGET = 40  # trials
MORE = 10  # trials that workers share once each has finished one


def tiny_study(folder: Path, **changes: Any) -> Path:
    """A study whose trials take about a second: one epoch on eight images of 32 pixels."""
    data = demo.make(folder / "data", train=8, val=4, imgsz=32)
    train = {**SMALL_STUDY["train"], "imgsz": 32, "batch": 8, "nbs": 8, "close_mosaic": 0, "warmup_epochs": 0}
    return write_study(folder, **{"data": str(data), "epochs": 1, "train": train, "target_trials": TARGET, **changes})


def start_together(count: int, study: Path, cwd: Path, *options: str, **environment: str) -> list[Said]:
    """Start ``count`` workers at once; what each says."""
    started = (start("--study", str(study), "--name", f"w{n}", *options, cwd=cwd, **environment) for n in range(count))
    return [Said(worker) for worker in started]


def wait_for_all(workers: list[Said]) -> list[str]:
    """What each of the workers has said up to its end, which must be that of a study that is done."""
    outputs = [worker.end() for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * len(workers), "\n".join(outputs)
    return outputs


def settle_on_a_target(home: Path) -> int:
    """Let a study that had no end in sight end after a few more trials; after how many in all."""
    study = find_study(open_storage(f"sqlite:///{home / 'tune.db'}"), "small")
    assert study is not None
    target = 0
    while len(study.trials()) > target:  # the workers go on meanwhile
        target = len(study.trials()) + MORE
        study.change(target_trials=target)
    return target


def assert_exactly(target: int, study: optuna.Study) -> None:
    trials = study.trials
    assert len(trials) == target
    assert {trial.state.name for trial in trials} == {"COMPLETE"}
    assert sorted(trial.number for trial in trials) == list(range(target))
    assert all(list(trial.intermediate_values) == [1] for trial in trials)
