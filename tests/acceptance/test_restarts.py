"""A suspended trial whose snapshot is whole but of no use: the doctor tells it, and the worker goes on without it."""

from __future__ import annotations

import re
import shutil
import signal
import sqlite3
from pathlib import Path

import pytest
import torch

from petskin_tune.files.durable import measure
from petskin_tune.training.snapshots import file as snapshot
from tests.support.workers import load, run, start, write_study


@pytest.fixture(scope="module")
def suspended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose one trial was suspended after its first epoch."""
    folder = tmp_path_factory.mktemp("suspended")
    work_until("trial 0 epoch 2/", "--study", str(write_study(folder, target_trials=1, epochs=30)), cwd=folder)
    return folder


pytestmark = pytest.mark.slow


def work_until(text: str, *arguments: str, cwd: Path) -> list[str]:
    """What a worker prints that is suspended after the line with ``text``."""
    worker = start(*arguments, cwd=cwd)
    assert worker.stdout is not None
    printed: list[str] = []
    for line in worker.stdout:
        printed.append(line.rstrip())
        if text in line:
            worker.send_signal(signal.SIGTERM)
    assert worker.wait() == 75, printed
    return printed


def spoil_snapshots(home: Path) -> int:
    """Give the trial's snapshots weights of another shape, and the lease the checksums of the new files."""
    with sqlite3.connect(home / "tune.db") as database:
        (row,) = database.execute("SELECT snapshot_key, previous_key FROM trial_leases").fetchall()
        keys = [key for key in row if key]
        for key in keys:
            file = home / "checkpoints" / key
            state = snapshot.read(file)
            name = next(name for name, value in state["model"].items() if value.dim() == 4)
            state["model"][name] = torch.zeros(1, 1, 1, 1)
            file.write_bytes(snapshot.write(state, file.with_suffix(".new") / "one.pt").path.read_bytes())
            shutil.rmtree(file.with_suffix(".new"))
            for which in ("snapshot", "previous"):
                sets = f"UPDATE trial_leases SET {which}_sha256 = ? WHERE {which}_key = ?"
                database.execute(sets, (measure(file)[1], key))
    return len(keys)


def doctor(folder: Path) -> tuple[int, str, str]:
    """Exit code, the line about trial 0, and all of it."""
    told = run("doctor", "--study", "small", cwd=folder, command="petskin-tune")
    lines = [line for line in told.stdout.splitlines() if re.match(r"\w+ +trial 0: ", line)]
    assert len(lines) == 1, told.stdout
    return told.returncode, lines[0], told.stdout


def files(home: Path) -> dict[str, int]:
    return {str(path): path.stat().st_size for path in (home / "checkpoints").rglob("*") if path.is_file()}


def test_the_doctor_starts_a_suspended_trial_from_its_snapshot_and_leaves_everything_as_it_was(suspended: Path) -> None:
    before = files(suspended / "tune-home")
    code, line, output = doctor(suspended)
    assert code == 0, output
    assert re.match(r"ok +trial 0: was given back \(SIGTERM\), and goes on after epoch \d", line), line
    assert files(suspended / "tune-home") == before
    assert not (suspended / "tune-home" / "work" / "trials" / "doctor").exists()
    assert load(suspended / "tune-home").trials[0].state.name == "RUNNING"


def test_a_snapshot_that_cannot_be_restored_is_told_whole_and_the_trial_begins_again(
    suspended: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    shutil.copytree(suspended, folder)
    spoilt = spoil_snapshots(folder / "tune-home")
    code, line, output = doctor(folder)
    assert code == 0, output
    assert line.startswith("warning  trial 0: was given back (SIGTERM), and starts here: snapshot-")
    assert line.count("the model cannot be built again: 1 tensors differ, the first is model.") == spoilt

    printed = work_until("trial 0 epoch 1/30", "--study", "small", cwd=folder)
    left = [line for line in printed if "a snapshot was left aside" in line]
    assert len(left) == spoilt, printed
    assert "the first is model." in left[0]
    named = re.search(r"all of it is in (\S+train\.log)$", left[0])
    assert named is not None
    assert "in rebuild" in Path(named[1]).read_text()
    (trial,) = load(folder / "tune-home").trials
    assert trial.state.name == "RUNNING"
    assert any("left aside" in note for note in trial.user_attrs["petskin-tune:notes"])
