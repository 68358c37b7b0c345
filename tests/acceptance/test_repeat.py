"""`petskin-tune best --repeat`, suspended, killed and typed again: the same figures as undisturbed."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from petskin_tune.study import attributes
from petskin_tune.study.best.repeats import gain_of
from tests.support.workers import (
    Said,
    essence,
    fired,
    interrupt_stopped,
    load,
    run,
    start,
    stopped_by,
    write_study,
)

pytestmark = pytest.mark.slow

REPEAT = ("best", "--study", "small", "--repeat", "2")
CHANGES: dict[str, Any] = {"epochs": 2, "target_trials": 1}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished study of one trial, and what its repetitions show."""
    folder = tmp_path_factory.mktemp("undisturbed")
    searched = run("--study", str(write_study(folder, **CHANGES)), cwd=folder)
    assert searched.returncode == 0, searched.stdout
    shutil.copytree(folder, folder.with_name("searched"))
    repeated = run(*REPEAT, cwd=folder, command="petskin-tune")
    assert repeated.returncode == 0, repeated.stdout
    (folder / "said").write_text(repeated.stdout)
    return folder


def test_the_best_and_the_defaults_are_trained_again_and_the_gain_is_said(undisturbed: Path) -> None:
    trials = load(undisturbed / "tune-home", "small-repeat-0").trials
    searched = load(undisturbed / "tune-home")
    assert [trial.user_attrs[attributes.SEED] for trial in trials] == [1, 1, 2, 2]
    assert [trial.user_attrs[attributes.ARGUMENTS]["seed"] for trial in trials] == [1, 1, 2, 2]
    assert trials[0].params == trials[2].params == searched.trials[0].params
    assert trials[1].params == trials[3].params != trials[0].params
    losses = [trial.user_attrs[attributes.HISTORY]["train/seg_loss"] for trial in trials]  # nothing is found so soon
    assert len({tuple(loss) for loss in losses}) == 4, "other settings and other seeds train otherwise"
    gain = gain_of(searched.user_attrs)
    assert gain is not None
    assert (gain.best, gain.defaults) == ([t.value for t in trials[::2]], [t.value for t in trials[1::2]])
    lines = (undisturbed / "said").read_text().splitlines()
    assert lines[-1] == gain.sentence()
    assert lines[-2] == "study done"
    assert len(searched.trials) == 1
    for command in ("best", "status", "diagnose"):
        shown = run(command, "--study", "small", cwd=undisturbed, command="petskin-tune").stdout
        assert gain.sentence() in " ".join(shown.split()), command


def test_suspended_and_killed_the_same_command_goes_on_and_shows_the_same(undisturbed: Path) -> None:
    folder, log = undisturbed.with_name("searched"), undisturbed.with_name("fired")
    faults = {"TUNE_FAULTS": "batch-done=stop@9", "TUNE_FAULTS_LOG": str(log)}
    said = Said(start(*REPEAT, cwd=folder, command="petskin-tune", **faults))
    interrupt_stopped(said, stopped_by(log), lambda: os.kill(said.pid, signal.SIGTERM), "SIGTERM")
    output = said.end()
    assert said.returncode == 75, output
    assert output.splitlines()[-1] == f"suspended; to go on, type: petskin-tune {' '.join(REPEAT)}"
    faults["TUNE_FAULTS"] = "before-last-tell=kill@2"
    killed = run(*REPEAT, cwd=folder, command="petskin-tune", **faults)
    assert killed.returncode == -signal.SIGKILL, killed.stdout
    assert fired(log) == ["batch-done", "before-last-tell"]
    again = run(*REPEAT, cwd=folder, command="petskin-tune")
    assert again.returncode == 0, again.stdout
    mine, theirs = (load(place / "tune-home", "small-repeat-0") for place in (folder, undisturbed))
    assert essence(mine) == essence(theirs)
    assert again.stdout.splitlines()[-1] == (undisturbed / "said").read_text().splitlines()[-1]
