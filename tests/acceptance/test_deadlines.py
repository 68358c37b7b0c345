"""`--max-hours`: never overrun, and little of the time left unused."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from workers import SMALL_STUDY, load, run, start, write_study

from petskin_tune.lease import read_leases
from petskin_tune.protocol import Position
from petskin_tune.storage import open_storage
from petskin_tune.views import words

SECONDS = 36.0  # of --max-hours 0.01
AGAIN_SECONDS = 15.0
BATCHES = 32  # of an epoch: 64 images
CHANGES = {"target_trials": 2, "epochs": 400, "train": {**SMALL_STUDY["train"], "batch": 2}}


@dataclass(frozen=True)
class Life:
    """One worker's life: seconds from its start, and what it printed."""

    lasted: float
    suspended_at: float  # when it said so
    output: str
    code: int


def live(folder: Path, study: Path, hours: float, **environment: str) -> Life:
    began = time.monotonic()
    worker = start("--study", str(study), "--max-hours", str(hours), cwd=folder, **environment)
    lines: list[str] = []
    suspended_at: list[float] = []

    def read() -> None:
        assert worker.stdout is not None
        for line in worker.stdout:
            lines.append(line)
            if "reached: suspending" in line:
                suspended_at.append(time.monotonic() - began)

    reader = threading.Thread(target=read)
    reader.start()
    worker.wait(timeout=120)
    lasted = time.monotonic() - began
    reader.join()  # the pipe may be held a moment longer by the forkserver
    return Life(lasted, suspended_at[0] if suspended_at else lasted, "".join(lines), worker.returncode)


def assert_in_time(life: Life, seconds: float, home: Path) -> None:
    """Never overrun; at most twice the time of snapshot, upload and release and a batch left unused.

    Snapshot and upload are what they had taken before; the release is all that the end took by the clock of the test; a
    batch is an epoch's part of what the study has recorded.
    """
    assert life.code == 75, life.output
    assert life.lasted <= seconds, life.output
    measured = re.findall(r"snapshot ([\d.]+) s, upload ([\d.]+) s, release [\d.]+ s\)$", life.output, re.MULTILINE)
    assert measured, life.output
    suspension = sum(map(float, measured[-1])) + life.lasted - life.suspended_at
    batch = max(load(home).trials[0].user_attrs["history"]["seconds"]) / BATCHES
    assert seconds - life.lasted <= 2 * suspension + batch, life.output


def durable(home: Path) -> Position:
    """Where the next worker goes on."""
    storage = open_storage(f"sqlite:///{home / 'tune.db'}")
    (lease,) = read_leases(storage, load(home)._study_id)
    assert lease.state == "released"
    assert lease.snapshot is not None
    return lease.snapshot.position


def test_a_worker_stops_in_time_in_mid_epoch_and_the_next_goes_on_at_once(tmp_path: Path) -> None:
    study = write_study(tmp_path, **CHANGES)
    life = live(tmp_path, study, SECONDS / 3600)
    assert_in_time(life, SECONDS, tmp_path / "runs")
    stops = [durable(tmp_path / "runs")]
    said = re.findall(r"--max-hours 0\.01: training stops at \d\d:\d\d:\d\d; \d+ s are kept to save it", life.output)
    assert said, life.output
    assert life.output.splitlines()[-1] == "suspended; to go on, type: tune-worker --study small"
    again = live(tmp_path, study, AGAIN_SECONDS / 3600)
    assert again.code == 75
    assert f"goes on after {words.done(stops[0])}" in again.output
    stops.append(durable(tmp_path / "runs"))
    assert stops[0] < stops[1]
    assert any(stop.batch for stop in stops), "neither was in mid epoch"
    epochs = [list(trial.intermediate_values) for trial in load(tmp_path / "runs").trials]
    assert epochs == [list(range(1, len(epochs[0]) + 1))]


@pytest.mark.slow
def test_hours_that_are_over_before_the_first_batch_leave_a_trial_that_the_next_worker_takes(tmp_path: Path) -> None:
    study = write_study(tmp_path, target_trials=1, epochs=1, train=_short())
    life = live(tmp_path, study, 3.0 / 3600)
    assert life.code == 75, life.output
    again = run("--study", str(study), cwd=tmp_path)
    assert again.returncode == 0, again.stdout


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_ten_deadlines_in_a_row_are_kept_and_lose_nothing(tmp_path: Path) -> None:
    study = write_study(tmp_path, **CHANGES)
    for number in range(10):
        seconds = 30.0 + 1.7 * number
        life = live(tmp_path, study, seconds / 3600)
        print(f"{seconds:.1f} s: lasted {life.lasted:.2f}, suspension {life.lasted - life.suspended_at:.2f}")
        assert_in_time(life, seconds, tmp_path / "runs")
    for trial in load(tmp_path / "runs").trials:  # the first may have stopped early, as it has no better epoch
        assert list(trial.intermediate_values) == list(range(1, len(trial.intermediate_values) + 1))


def _short() -> dict:
    return {**SMALL_STUDY["train"], "close_mosaic": 0, "warmup_epochs": 0}
