"""Workers that start in the same instant on an empty database share one study, and never overshoot its target."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import optuna
import psutil
import pytest

from tests.support.many import TARGET, assert_exactly, settle_on_a_target, start_together, tiny_study, wait_for_all
from tests.support.places import PROVOKED
from tests.support.workers import (
    SMALL_STUDY,
    UNREACHABLE,
    Said,
    essence,
    fired,
    load,
    run,
    start,
    wait_until,
)

TRIALS = 12  # of the study whose workers are killed
# Where in their lives workers stand still, to be killed there: in their trial's process, or in their own. Each point is
# reached in the first trial that is new to a worker at the latest, so that twelve trials are enough for all of them.
POINTS = (
    "snapshot-committed=stop@1",
    "batch-done=stop@5",
    "report-sent=stop@2",
    "in-validation=stop@1",
    "before-report=stop@1",
    "batch-done=stop@20",
    "trial-born=stop@1",
    "epoch-validated=stop@3",
    "parameters-stored=stop@1",
    "batch-done=stop@11",
)
BATCHES = "batches.log"
LEASES_EXIST = "SELECT 1 FROM sqlite_master WHERE name = 'trial_leases'"
HELD = """
    SELECT t.number, l.identity, l.snapshot_epoch FROM trial_leases l JOIN trials t ON t.trial_id = l.trial_id
    WHERE l.state = 'running'
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_workers_started_in_the_same_instant_on_an_empty_sqlite_file_share_one_study(tmp_path: Path) -> None:
    workers = start_together(2, tiny_study(tmp_path, target_trials=UNREACHABLE), tmp_path)
    for worker in workers:
        worker.wait_for("finished")
    target = settle_on_a_target(tmp_path / "tune-home")
    wait_for_all(workers)
    study = load(tmp_path / "tune-home")
    assert_exactly(target, study)
    assert {trial.user_attrs["petskin-tune:worker"] for trial in study.trials} == {"w0", "w1"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sixteen_workers_started_in_the_same_instant_on_an_empty_postgresql_share_one_study(
    tmp_path: Path, postgres_url: str
) -> None:
    outputs = wait_for_all(start_together(16, tiny_study(tmp_path), tmp_path, "--storage", postgres_url))
    study = optuna.load_study(study_name="small", storage=postgres_url)
    assert_exactly(TARGET, study)
    assert len({trial.user_attrs["petskin-tune:worker"] for trial in study.trials}) > 1
    assert not any("Traceback" in output for output in outputs)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_study_of_four_workers_that_are_killed_again_and_again_ends_as_the_undisturbed_one(tmp_path: Path) -> None:
    """Random sampler, no pruner: configurations and values do not depend on who trained what, and when."""
    changes = {"epochs": 3, "target_trials": TRIALS, "data": "demo", "train": SMALL_STUDY["train"]}
    calm, wild = tmp_path / "calm", tmp_path / "wild"
    assert run("--study", str(tiny_study(calm, **changes)), cwd=calm, **_counting(calm)).returncode == 0
    study = tiny_study(wild, **changes)
    kills = _kill_at_every_point(4, study, wild)
    wait_for_all(start_together(4, study, wild, **_counting(wild)))
    expected, survived = load(calm / "tune-home"), load(wild / "tune-home")
    assert essence(survived) == essence(expected)
    undisturbed, done = Counter(_batches(calm)), Counter(_batches(wild))
    assert set(undisturbed.values()) == {1}
    assert set(done) == set(undisturbed)
    # What a kill costs is exactly what lies behind the newest durable snapshot; one is written after every epoch.
    assert any(kill.durable_epochs for kill in kills), "no kill found a trial with a snapshot"
    assert any(kill.lost for kill in kills), "no kill cost anything"
    assert 0 < done.total() - len(done) <= sum(kill.lost for kill in kills), kills


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
    return {"TUNE_FAULTS_PLAN": plan, "TUNE_FAULTS_HAPPENED": str(cwd / BATCHES), "PYTHONPATH": str(PROVOKED)}


def _batches(cwd: Path) -> list[tuple[int, int, int]]:
    """Every batch that was done, in order: trial, epoch and batch, the last two 1-based."""
    lines = (cwd / BATCHES).read_text().splitlines()
    return [tuple(map(int, re.findall(r"\d+", line))) for line in lines]  # type: ignore[misc]


def _kill_at_every_point(count: int, study: Path, cwd: Path) -> list[Kill]:
    """Let ``count`` workers work at a time, and kill each where it stands still, until that has happened everywhere."""
    kills: list[Kill] = []
    counted: dict[int, int] = {}  # by trial: how much of the log an earlier kill has dealt with
    planned = list(POINTS)
    running: dict[str, Said] = {}
    while planned or running:
        while planned and len(running) < count:
            point = planned.pop(0)
            faults = {"TUNE_FAULTS": point, "TUNE_FAULTS_LOG": str(cwd / point)}
            worker = start("--study", str(study), "--name", f"w{len(planned)}", cwd=cwd, **_counting(cwd), **faults)
            running[point] = Said(worker)
        wait_until(
            lambda: any(fired(cwd / point) or worker.returncode is not None for point, worker in running.items())
        )
        for point, worker in list(running.items()):
            if fired(cwd / point):
                kills.append(_kill(worker, cwd, counted))
                del running[point]
            else:
                assert worker.returncode is None, f"{point} did not happen:\n{worker.text()}"
    return kills


def _kill(worker: Said, cwd: Path, counted: dict[int, int]) -> Kill:
    """SIGKILL the worker, its trial's process and whatever else it has started, in one instant."""
    process = psutil.Process(worker.pid)
    process.suspend()
    for _ in range(2):  # a process that forks while it is looked at is seen the second time
        for child in process.children(recursive=True):
            child.suspend()
    kill = _what_is_left(worker.pid, cwd, counted)
    for member in (*process.children(recursive=True), process):
        member.kill()
    worker.end()
    return kill


def _what_is_left(pid: int, cwd: Path, counted: dict[int, int]) -> Kill:
    database = cwd / "tune-home" / "tune.db"
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
