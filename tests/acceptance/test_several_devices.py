"""`--device 0,1`: one worker for each GPU under one parent. The two GPUs are this machine's processor in truth."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from petskin_tune.database.storage import open_storage
from petskin_tune.leases.lease import read_leases
from petskin_tune.study.study import find_study
from tests.support.many import assert_exactly, settle_on_a_target, tiny_study
from tests.support.places import PROVOKED
from tests.support.workers import UNREACHABLE, Said, interrupt_stopped, load, start, stopped_by, wait_until

DEVICES = ("--device", "0,1", "--name", "gpu")
EPOCHS = 20  # of one batch each


def start_on_two(folder: Path, study: Path, **more: str) -> Said:
    hooks = {"PYTHONPATH": str(PROVOKED), "TUNE_FAULTS_GPUS": "1", "TUNE_FAULTS_HAPPENED": str(folder / "provoked.log")}
    hooks["CUDA_VISIBLE_DEVICES"] = "0,1"
    return Said(start("--study", str(study), *DEVICES, cwd=folder, **hooks, **more))


def end_of(parent: Said, code: int) -> str:
    """What parent and workers printed up to the end, which must be that of ``code``."""
    output = parent.end()
    assert parent.returncode == code, output
    assert "Traceback" not in output
    return output


def sent_to(folder: Path) -> dict[int, str]:
    """The device that each trial was sent to."""
    log = folder / "provoked.log"
    sent = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    return {int(trial): device for trial, _, device in sent}


@pytest.mark.slow
def test_two_devices_get_a_worker_each_and_share_the_study(tmp_path: Path) -> None:
    parent = start_on_two(tmp_path, tiny_study(tmp_path, target_trials=UNREACHABLE))
    wait_until(lambda: parent.returncode is not None or set(sent_to(tmp_path).values()) == {"0", "1"})
    assert parent.returncode is None, parent.text()
    target = settle_on_a_target(tmp_path / "tune-home")
    end_of(parent, 0)
    study = load(tmp_path / "tune-home")
    assert_exactly(target, study)
    device_of = sent_to(tmp_path)
    assert {trial.number: trial.user_attrs["petskin-tune:worker"] for trial in study.trials} == {
        number: f"gpu-{device}" for number, device in device_of.items()
    }
    assert set(device_of.values()) == {"0", "1"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("send", "number", "name"),
    [
        (os.kill, signal.SIGTERM, "SIGTERM"),
        (os.kill, signal.SIGINT, "Ctrl-C"),
        (os.killpg, signal.SIGINT, "Ctrl-C"),  # as a terminal does
    ],
    ids=["SIGTERM to the parent", "SIGINT to the parent", "Ctrl-C in a terminal"],
)
def test_a_signal_suspends_both_workers_and_the_same_command_goes_on_with_both_trials(
    send: Callable[[int, int], None], number: int, name: str, tmp_path: Path
) -> None:
    study = tiny_study(tmp_path, target_trials=2, epochs=EPOCHS)
    log = tmp_path / "fired"
    parent = start_on_two(tmp_path, study, TUNE_FAULTS="batch-done=stop@3", TUNE_FAULTS_LOG=str(log))
    stopped = stopped_by(log, count=2)  # both trials' processes, in their third epoch
    workers = psutil.Process(parent.pid).children()
    assert len(workers) == 2
    interrupt_stopped(parent, stopped, lambda: send(parent.pid, number), name)
    output = end_of(parent, 75)
    assert output.count("suspended; to go on, type: tune-worker") == 2
    assert not any(worker.is_running() for worker in workers)
    assert states(tmp_path / "tune-home") == ["released", "released"]

    again = end_of(start_on_two(tmp_path, study), 0)
    assert again.count("goes on after") == 2
    for trial in load(tmp_path / "tune-home").trials:
        assert list(trial.intermediate_values) == list(range(1, EPOCHS + 1))
        assert trial.user_attrs["petskin-tune:resumes"] == 1


def states(home: Path) -> list[str]:
    study = find_study(open_storage(f"sqlite:///{home / 'tune.db'}"), "small")
    assert study is not None
    return [lease.state for lease in read_leases(study.storage, study.id)]
