"""What schedulers do to a worker: SIGTERM, a grace period, SIGKILL, and again by its exit code until all is done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from petskin_tune.errors import EXIT_SUSPENDED
from tests.support.places import PROJECT
from tests.support.workers import BIN, TIMEOUT_SECONDS, Said, environment, load, start, write_study

GRACE_SECONDS = 30.0  # of a preempted node
PATIENCE = 240.0


def action(code: int) -> str:
    """What the Job does with a pod whose worker ended so, by the rules in deploy/kubernetes.yaml."""
    job = yaml.safe_load((PROJECT / "deploy" / "kubernetes.yaml").read_text())
    rules: list[dict[str, Any]] = job["spec"]["podFailurePolicy"]["rules"]
    return next((rule["action"] for rule in rules if code in rule.get("onExitCodes", {}).get("values", [])), "Count")


def evict(process: subprocess.Popen[str] | Any) -> int:
    """SIGTERM, the grace period, SIGKILL; the exit code."""
    os.kill(process.pid, signal.SIGTERM)
    try:
        return int(process.wait(GRACE_SECONDS))
    except subprocess.TimeoutExpired:
        process.kill()
        return int(process.wait(PATIENCE))


@pytest.mark.slow
def test_a_job_whose_pods_are_evicted_and_lost_ends_with_every_trial_complete(tmp_path: Path) -> None:
    study = write_study(tmp_path, target_trials=2, epochs=30)
    typed = ("--study", str(study), "--name", "pod")

    evicted = start(*typed, cwd=tmp_path)
    Said(evicted).wait_for("trial 0 epoch 2/30")
    code = evict(evicted)
    assert code in (EXIT_SUSPENDED, -signal.SIGKILL)  # a busy machine may take longer than it is given
    assert action(EXIT_SUSPENDED) == "Ignore"

    lost = start(*typed, cwd=tmp_path)  # the node is gone without a word
    Said(lost).wait_for("trial 0 epoch 4/30")
    for process in [*psutil.Process(lost.pid).children(recursive=True), psutil.Process(lost.pid)]:
        process.kill()
    assert action(lost.wait(PATIENCE)) == "Count"

    last = Said(start(*typed, cwd=tmp_path))
    said = last.end()
    assert last.returncode == 0, said
    assert "trial 0 (0 of 2 trials done) goes on after" in said
    assert [trial.state.name for trial in load(tmp_path / "tune-home").trials] == ["COMPLETE"] * 2


@pytest.mark.slow
def test_a_task_of_an_array_suspends_requeues_itself_and_ends_the_study(tmp_path: Path) -> None:
    study = write_study(tmp_path, target_trials=1, epochs=30)
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text('#!/bin/sh\necho "scontrol $*"\n')
    scontrol.chmod(0o755)
    path = os.pathsep.join([str(scontrol.parent), str(BIN), str(Path(sys.executable).parent), os.environ["PATH"]])
    variables = environment(PATH=path, SLURM_ARRAY_JOB_ID="17", SLURM_ARRAY_TASK_ID="3")

    def task() -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", PROJECT / "deploy" / "slurm.sh", str(study)],
            cwd=tmp_path, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    first = task()
    said = Said(first)
    said.wait_for("trial 0 epoch 2/30")
    first.send_signal(signal.SIGTERM)
    assert first.wait(PATIENCE) == 0, said.text()
    assert said.text().splitlines()[-2:] == ["scontrol requeue 17_3", "work is left: requeued"]

    again = task()
    output, _ = again.communicate(timeout=TIMEOUT_SECONDS)
    assert again.returncode == 0, output
    assert "trial 0 (0 of 1 trial done) goes on after" in output
    assert "requeue" not in output
    assert [trial.state.name for trial in load(tmp_path / "tune-home").trials] == ["COMPLETE"]
