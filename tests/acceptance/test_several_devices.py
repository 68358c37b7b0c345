"""`--device 0,1`: one worker for each GPU under one parent. The two GPUs are this machine's processor in truth."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import psutil
import pytest
import sqlalchemy
from test_many_workers import assert_exactly, tiny_study
from workers import load, start, wait_until

from petskin_tune.leases import read_leases
from petskin_tune.storage import open_storage
from petskin_tune.study import find_study

HOOKS = Path(__file__).parent / "provoked"
DEVICES = ("--device", "0,1", "--name", "gpu")
EPOCHS = 12  # about a quarter of a second each: so many that both trials are in work when the signal comes
STARTED_SECONDS = 120.0


def start_on_two(folder: Path, study: Path) -> subprocess.Popen[str]:
    hooks = {"PYTHONPATH": str(HOOKS), "PROVOKE_GPUS": "1", "PROVOKED": str(folder / "provoked.log")}
    return start("--study", str(study), *DEVICES, cwd=folder, **hooks)


def end_of(parent: subprocess.Popen[str], code: int) -> str:
    """What parent and workers printed up to the end, which must be that of ``code``."""
    output, _ = parent.communicate(timeout=120)
    assert parent.returncode == code, output
    assert "Traceback" not in output
    return output


def test_two_devices_get_a_worker_each_and_share_the_study(tmp_path: Path) -> None:
    end_of(start_on_two(tmp_path, tiny_study(tmp_path, target_trials=6)), 0)
    study = load(tmp_path / "runs")
    assert_exactly(6, study)
    sent = [line.split() for line in (tmp_path / "provoked.log").read_text().splitlines()]
    device_of = {int(trial): device for trial, _, device in sent}
    assert {trial.number: trial.user_attrs["worker"] for trial in study.trials} == {
        number: f"gpu-{device}" for number, device in device_of.items()
    }
    assert set(device_of.values()) == {"0", "1"}


@pytest.mark.slow
def test_sigterm_to_the_parent_suspends_both_workers_and_the_same_command_goes_on_with_both_trials(
    tmp_path: Path,
) -> None:
    study = tiny_study(tmp_path, target_trials=2, epochs=EPOCHS)
    parent = start_on_two(tmp_path, study)
    wait_until(lambda: parent.poll() is not None or epochs_of_each(tmp_path / "runs") >= 2, STARTED_SECONDS)
    workers = psutil.Process(parent.pid).children()
    assert len(workers) == 2
    parent.send_signal(signal.SIGTERM)
    output = end_of(parent, 75)
    assert output.count("suspended; to go on, type: tune-worker") == 2
    assert not any(worker.is_running() for worker in workers)
    assert states(tmp_path / "runs") == ["released", "released"]

    again = end_of(start_on_two(tmp_path, study), 0)
    assert again.count("goes on after") == 2
    for trial in load(tmp_path / "runs").trials:
        assert list(trial.intermediate_values) == list(range(1, EPOCHS + 1))
        assert trial.user_attrs["resumes"] == 1


def epochs_of_each(home: Path) -> int:
    """How many epochs the trial of each device has reported at least."""
    try:
        reported = [len(trial.intermediate_values) for trial in load(home).trials]
    except (KeyError, sqlalchemy.exc.SQLAlchemyError):  # not there yet
        return 0
    return min(reported) if len(reported) == 2 else 0


def states(home: Path) -> list[str]:
    study = find_study(open_storage(f"sqlite:///{home / 'tune.db'}"), "small")
    assert study is not None
    return [lease.state for lease in read_leases(study.storage, study.id)]
