"""The first command that a person types, in an empty folder and with every default: what README promises of it."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from petskin_tune.study import attributes
from tests.support.workers import BIN, environment, load

LEAST_TRIALS = 8
LEAST_MASK_MAP = 0.30
NEXT = "next, type: petskin-tune best --study demo --yaml best.yaml"


def type_it(folder: Path) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Seconds that ``tune-worker --study demo`` took, and how it ended; torch takes as many threads as it likes."""
    defaults = {name: value for name, value in environment().items() if name != "OMP_NUM_THREADS"}
    began = time.monotonic()
    done = subprocess.run(
        [BIN / "tune-worker", "--study", "demo"],
        cwd=folder, env=defaults, text=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return time.monotonic() - began, done


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_finds_masks_and_freezes_and_thaws_and_typed_again_trains_nothing(tmp_path: Path) -> None:
    seconds, done = type_it(tmp_path)
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1].endswith(NEXT)
    study = load(tmp_path / "runs", "demo")
    states = [trial.state.name for trial in study.trials]
    frozen = states.count("PRUNED")
    thawed = sum(trial.user_attrs[attributes.RESUMES] > 0 for trial in study.trials)
    said = f"{frozen} of them frozen at the end, {thawed} thawed on the way, best {study.best_value:.3f}"
    print(f"demo: {len(states)} trials in {seconds:.0f} s, {said}")
    assert len(states) >= LEAST_TRIALS
    assert frozen >= 1
    assert thawed >= 1
    assert set(states) == {"COMPLETE", "PRUNED"}
    assert study.best_value >= LEAST_MASK_MAP

    logs = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("train.log")}
    again = [type_it(tmp_path) for _ in range(3)]
    quickest = min(seconds for seconds, _ in again)
    print(f"typed again: {quickest:.2f} s, the best of three")
    assert all(result.returncode == 0 and result.stdout.splitlines()[-1].endswith(NEXT) for _, result in again)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("train.log")} == logs != {}
    assert len(load(tmp_path / "runs", "demo").trials) == len(states)
