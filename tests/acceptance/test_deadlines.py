"""`--max-hours`: never overrun, and little of the time left unused."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from petskin_tune import text as words
from petskin_tune.database.storage import open_storage
from petskin_tune.leases.lease import read_leases
from petskin_tune.protocol import Position
from tests.support.soak import times
from tests.support.workers import PATIENCE_SECONDS, SMALL_STUDY, UNREACHABLE, Said, load, run, start, write_study

BATCHES = 32  # of an epoch: 64 images
CHANGES = {"target_trials": 2, "epochs": 40_000, "train": {**SMALL_STUDY["train"], "batch": 2}}
KEPT = re.compile(r"--max-hours \S+: training stops at \d\d:\d\d:\d\d; (\d+) s are kept to save it")
STALLS = 2  # so many lives may meet a machine that stalls for longer than they kept: they then end themselves
CLOCK_SECONDS = 2.0  # what is kept is said in whole seconds, and looked at twice a second
OVER = "the time is over before everything was done"


@dataclass(frozen=True)
class Life:
    """One worker's life: seconds from its start, and what it printed."""

    lasted: float
    suspended_at: float | None  # when it said so
    output: str
    code: int


@pytest.fixture(scope="module")
def start_seconds(tmp_path_factory: pytest.TempPathFactory) -> float:
    """What a worker takes here and now until it has trained an epoch: the hours of the others are multiples of it."""
    folder = tmp_path_factory.mktemp("calibration")
    began = time.monotonic()
    worker = start("--study", str(write_study(folder, **CHANGES)), cwd=folder)
    said = Said(worker)
    said.wait_for("trial 0 epoch 1/")
    seconds = time.monotonic() - began
    worker.kill()
    worker.wait()
    return seconds


def live(folder: Path, study: Path, seconds: float) -> Life:
    began = time.monotonic()
    worker = start("--study", str(study), "--max-hours", str(seconds / 3600), cwd=folder)
    lines: list[str] = []
    suspended_at: list[float] = []

    def read() -> None:
        assert worker.stdout is not None
        for line in worker.stdout:
            lines.append(line)
            if "reached: stopping safely" in line:
                suspended_at.append(time.monotonic() - began)

    reader = threading.Thread(target=read)
    reader.start()
    worker.wait(timeout=seconds + PATIENCE_SECONDS)
    lasted = time.monotonic() - began
    reader.join()  # the pipe may be held a moment longer by the forkserver
    return Life(lasted, suspended_at[0] if suspended_at else None, "".join(lines), worker.returncode)


def assert_in_time(life: Life, seconds: float) -> None:
    """It measured, and suspended no earlier than it said. How much it keeps is shown in tests/unit/test_deadline.py."""
    assert life.code == 75, life.output
    assert re.search(r"stopping safely, within [\d.]+ s \(measured: ", life.output), life.output
    kept = [int(found) for found in KEPT.findall(life.output)]
    assert kept, life.output
    assert life.suspended_at is not None
    assert life.suspended_at >= seconds - 1.25 * max(kept) - CLOCK_SECONDS, life.output


def durable(home: Path) -> Position:
    """Where the next worker goes on."""
    storage = open_storage(f"sqlite:///{home / 'tune.db'}")
    (lease,) = read_leases(storage, load(home)._study_id)
    assert lease.state == "released"
    assert lease.snapshot is not None
    return lease.snapshot.position


@pytest.mark.slow
def test_a_worker_stops_in_time_in_mid_epoch_and_the_next_goes_on_at_once(tmp_path: Path, start_seconds: float) -> None:
    study = write_study(tmp_path, **CHANGES)
    seconds = 15.0 + 2 * start_seconds
    life = live(tmp_path, study, seconds)
    assert_in_time(life, seconds)
    for _ in range(STALLS):
        if OVER not in life.output:
            break
        life = live(tmp_path, study, seconds)
    assert OVER not in life.output
    assert life.output.splitlines()[-1] == "suspended; to go on, type: tune-worker --study small"
    stops = [durable(tmp_path / "tune-home")]
    again = live(tmp_path, study, 5.0 + 2 * start_seconds)
    assert again.code == 75
    assert f"goes on after {words.done(stops[0])}" in again.output
    stops.append(durable(tmp_path / "tune-home"))
    assert stops[0] < stops[1]
    assert any(stop.batch for stop in stops), "neither was in mid epoch"
    epochs = [list(trial.intermediate_values) for trial in load(tmp_path / "tune-home").trials]
    assert epochs == [list(range(1, len(epochs[0]) + 1))]


@pytest.mark.slow
def test_hours_that_are_over_before_the_first_batch_leave_a_trial_that_the_next_worker_takes(tmp_path: Path) -> None:
    study = write_study(tmp_path, target_trials=UNREACHABLE, epochs=1, train=_short())
    life = live(tmp_path, study, 3.0)
    assert life.code == 75, life.output
    again = run("--study", str(study), "--target-trials", "1", cwd=tmp_path)
    assert again.returncode == 0, again.stdout


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_deadlines_in_a_row_are_kept_and_lose_nothing(tmp_path: Path, start_seconds: float) -> None:
    study = write_study(tmp_path, **CHANGES)
    overtaken = 0
    for number in range(times(10, least=5)):
        seconds = 15.0 + 2 * start_seconds + 1.7 * number
        life = live(tmp_path, study, seconds)
        print(f"{seconds:.1f} s: lasted {life.lasted:.2f}, suspended at {life.suspended_at or 0.0:.2f}")
        assert_in_time(life, seconds)
        overtaken += OVER in life.output
    assert overtaken <= STALLS
    for trial in load(tmp_path / "tune-home").trials:  # the first may have stopped early, as it has no better epoch
        assert list(trial.intermediate_values) == list(range(1, len(trial.intermediate_values) + 1))


def _short() -> dict:
    return {**SMALL_STUDY["train"], "close_mosaic": 0, "warmup_epochs": 0}
