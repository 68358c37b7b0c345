"""Workers that start in the same instant on an empty database share one study, and never overshoot its target."""

from __future__ import annotations

import contextlib
import json
import random
import re
import sqlite3
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from workers import SMALL_STUDY, essence, run, start, write_study

from petskin_tune.datasets import demo

TARGET = 40
TRIALS = 12  # of the study whose workers are killed
HOOKS = Path(__file__).parent / "provoked"
BATCHES = "batches.log"
LEASES_EXIST = "SELECT 1 FROM sqlite_master WHERE name = 'trial_leases'"
HELD = """
    SELECT t.number, l.identity, l.snapshot_epoch FROM trial_leases l JOIN trials t ON t.trial_id = l.trial_id
    WHERE l.state = 'running'
"""


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
    changes = {"epochs": 3, "target_trials": TRIALS, "data": "demo", "train": SMALL_STUDY["train"]}
    calm, wild = tmp_path / "calm", tmp_path / "wild"
    assert run("--study", str(tiny_study(calm, **changes)), cwd=calm, **_counting(calm)).returncode == 0
    study = tiny_study(wild, **changes)
    kills = _work_under_kills(4, study, wild, random.Random(3))
    assert len(kills) >= 4
    expected = optuna.load_study(study_name="small", storage=f"sqlite:///{calm / 'runs' / 'tune.db'}")
    survived = optuna.load_study(study_name="small", storage=f"sqlite:///{wild / 'runs' / 'tune.db'}")
    assert essence(survived) == essence(expected)
    undisturbed, done = Counter(_batches(calm)), Counter(_batches(wild))
    assert set(undisturbed.values()) == {1}
    assert set(done) == set(undisturbed)
    # A snapshot is written at the end of every epoch. What a kill costs is the epoch in work, and the one before while
    # its snapshot is not in the store yet; exactly what lies behind the newest durable snapshot is done again.
    assert any(kill.durable_epochs for kill in kills), "no kill found a trial with a snapshot"
    batches = len(undisturbed) // (TRIALS * 3)
    assert all(kill.lost <= 2 * batches for kill in kills), kills
    assert done.total() - len(done) <= sum(kill.lost for kill in kills), kills


@dataclass(frozen=True)
class Kill:
    """What was left of a trial in the instant in which its worker and its process were killed."""

    trial: int | None  # None: the worker had none
    durable_epochs: int  # in the newest durable snapshot
    lost: int  # batches that this life had done since


def _counting(cwd: Path) -> dict[str, str]:
    """Environment of workers whose trials log every batch that they do."""
    (cwd / BATCHES).touch()
    plan = ";".join(f"{number}=count" for number in range(TRIALS))
    return {"PROVOKE": plan, "PROVOKED": str(cwd / BATCHES), "PYTHONPATH": str(HOOKS)}


def _batches(cwd: Path) -> list[tuple[int, int, int]]:
    """Every batch that was done, in order: trial, epoch and batch, the last two 1-based."""
    lines = (cwd / BATCHES).read_text().splitlines()
    return [tuple(map(int, re.findall(r"\d+", line))) for line in lines]  # type: ignore[misc]


def _work_under_kills(count: int, study: Path, cwd: Path, instants: random.Random) -> list[Kill]:
    environment = _counting(cwd)

    def begin(number: int) -> tuple[Any, float]:
        worker = start("--study", str(study), "--name", f"w{number}", cwd=cwd, **environment)
        return worker, time.monotonic() + instants.uniform(20.0, 60.0)

    running = {number: begin(number) for number in range(count)}
    kills: list[Kill] = []
    counted: dict[int, int] = {}  # by trial: how much of the log an earlier kill has dealt with
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
                kills.append(_kill(worker, cwd, counted))
                running[number] = begin(number)
    return kills


def _kill(worker: subprocess.Popen[str], cwd: Path, counted: dict[int, int]) -> Kill:
    """SIGKILL the worker, its trial's process and whatever else it has started, in one instant."""
    process = psutil.Process(worker.pid)
    process.suspend()
    for _ in range(2):  # a process that forks while it is looked at is seen the second time
        for child in process.children(recursive=True):
            child.suspend()
    kill = _what_is_left(worker.pid, cwd, counted)
    for member in (*process.children(recursive=True), process):
        member.kill()
    worker.communicate()
    return kill


def _what_is_left(pid: int, cwd: Path, counted: dict[int, int]) -> Kill:
    database = cwd / "runs" / "tune.db"
    if not database.exists():
        return Kill(None, 0, 0)
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        rows = connection.execute(HELD).fetchall() if connection.execute(LEASES_EXIST).fetchone() else []
    for trial, identity, snapshot_epoch in rows:
        if json.loads(identity)["pid"] == pid:
            done = _batches(cwd)
            life = [batch for batch in done[counted.get(trial, 0) :] if batch[0] == trial]
            counted[trial] = len(done)
            return Kill(trial, snapshot_epoch or 0, sum(epoch > (snapshot_epoch or 0) for _, epoch, _ in life))
    return Kill(None, 0, 0)
