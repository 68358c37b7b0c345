"""The next morning's `pip install` brought another Ultralytics, or the next machine is another one."""

from __future__ import annotations

import os
import signal
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from petskin_tune.study import attributes
from tests.support import releases
from tests.support.workers import (
    SMALL_STUDY,
    Said,
    interrupt_stopped,
    load,
    run,
    start,
    stopped_by,
    write_study,
)

TRAIN = {**SMALL_STUDY["train"], "batch": 16, "nbs": 16, "close_mosaic": 0, "warmup_epochs": 0}
BATCHES = 4  # of 16 images each
INSTALLED = version("ultralytics")
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a command that finds an older release of Ultralytics first."""
    return {"PYTHONPATH": releases.install(releases.OLDER, tmp_path_factory.mktemp("older"))}


def suspended(folder: Path, target: int = 2, epochs: int = 1, **environment: str) -> Path:
    """The file of a study whose first trial was suspended in the epoch after so many."""
    study = write_study(folder, target_trials=target, epochs=3, train=TRAIN)
    log = folder / "fired"
    faults = {"TUNE_FAULTS": f"batch-done=stop@{epochs * BATCHES + 1}", "TUNE_FAULTS_LOG": str(log)}
    said = Said(start("--study", str(study), cwd=folder, **faults, **environment))
    interrupt_stopped(said, stopped_by(log), lambda: os.kill(said.pid, signal.SIGTERM), "SIGTERM")
    output = said.end()
    assert said.returncode == 75, output
    assert epochs_reported(folder / "tune-home") == epochs
    return study


def epochs_reported(home: Path) -> int:
    try:
        return sum(len(trial.intermediate_values) for trial in load(home).trials)
    except (KeyError, sqlalchemy.exc.SQLAlchemyError):  # not there yet
        return 0


def everything(home: Path) -> dict[str, Any]:
    """All that says whether something was trained, claimed or born."""
    engine = sqlalchemy.create_engine(f"sqlite:///{home / 'tune.db'}")
    with engine.connect() as connection:
        leases = [tuple(row) for row in connection.execute(sqlalchemy.text("SELECT * FROM trial_leases"))]
    engine.dispose()
    logs = {str(path): path.stat().st_mtime_ns for path in home.rglob("train.log")}
    trials = [(trial.state, trial.params, trial.intermediate_values, trial.user_attrs) for trial in load(home).trials]
    return {"leases": leases, "trials": trials, "logs": logs}


def errors(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("error: ")]


def notes(home: Path, number: int) -> str:
    return "\n".join(load(home).trials[number].user_attrs.get(attributes.NOTES, []))


@pytest.mark.slow
def test_another_ultralytics_is_refused_before_anything_happens_and_the_first_one_goes_on_to_the_end(
    older: dict[str, str], tmp_path: Path
) -> None:
    study = suspended(tmp_path, target=1)
    home = tmp_path / "tune-home"
    before = everything(home)
    refused = run("--study", str(study), "--target-trials", "2", cwd=tmp_path, **older)
    assert refused.returncode == 2, refused.stdout
    assert errors(refused.stdout) == [
        f"error: This machine has ultralytics {releases.OLDER} instead of {INSTALLED}, with which the study small was "
        f"begun: type `pip install -r {home / 'environment.txt'}`, or go on with --allow-different-machine, which is "
        "recorded."
    ]
    assert everything(home) == before
    assert f"ultralytics=={INSTALLED}\n" in (home / "environment.txt").read_text()

    again = run("--study", str(study), "--target-trials", "1", cwd=tmp_path)
    assert again.returncode == 0, again.stdout
    assert "goes on after" in again.stdout
    assert list(load(home).trials[0].intermediate_values) == [1, 2, 3]
    assert "undisturbed" not in notes(home, 0)


@SLOW
def test_another_ultralytics_that_a_person_allows_goes_on_and_study_and_trials_remember_it(
    older: dict[str, str], tmp_path: Path
) -> None:
    study = suspended(tmp_path)
    home = tmp_path / "tune-home"
    result = run("--study", str(study), "--allow-different-machine", cwd=tmp_path, **older)
    assert result.returncode == 0, result.stdout
    phrase = f"ultralytics {releases.OLDER} instead of {INSTALLED}"
    assert f"goes on with {phrase}: no longer exactly as undisturbed" in notes(home, 0)
    assert f"trained with {phrase}" in notes(home, 1)
    assert load(home).trials[1].user_attrs[attributes.VERSIONS]["ultralytics"] == releases.OLDER
    assert load(home).user_attrs[attributes.OTHER_RELEASES] == [releases.OLDER]
    status = run("status", "--study", "small", cwd=tmp_path, command="petskin-tune")
    said = " ".join(status.stdout.split())
    assert f"trained with ultralytics {INSTALLED} and, as a person allowed, with {releases.OLDER}" in said
    assert "this machine has" not in status.stdout
    status = run("status", "--study", "small", cwd=tmp_path, command="petskin-tune", **older)
    said = " ".join(status.stdout.split())
    assert "this machine has" in said
    assert f"a worker here is refused: type `pip install -r {home / 'environment.txt'}`" in said
    done = run("--study", str(study), cwd=tmp_path, **older)
    assert (done.returncode, errors(done.stdout)) == (0, []), "there was nothing left to refuse"

    final = ("train", "--study", "small", "--epochs", "1")
    refused = run(*final, cwd=tmp_path, command="petskin-tune", **older)
    assert refused.returncode == 2, refused.stdout
    assert refused.stdout.startswith(f"error: This machine has {phrase}, with which the study small was begun: ")
    trained = run(*final, cwd=tmp_path, command="petskin-tune")
    assert trained.returncode == 0, trained.stdout


@SLOW
def test_a_trial_that_a_person_let_another_ultralytics_begin_is_left_to_it(
    older: dict[str, str], tmp_path: Path
) -> None:
    """By a worker that finds nothing else to do, which then says so and does not ask to be started again."""
    study = suspended(tmp_path, target=1)
    home = tmp_path / "tune-home"
    first = run("--study", str(study), "--max-trials", "1", cwd=tmp_path)
    assert first.returncode == 0, first.stdout
    log = tmp_path / "fired again"
    faults = {"TUNE_FAULTS": f"batch-done=stop@{BATCHES + 1}", "TUNE_FAULTS_LOG": str(log)}
    typed = ("--study", str(study), "--target-trials", "2", "--allow-different-machine")
    worker = Said(start(*typed, cwd=tmp_path, **older, **faults))
    interrupt_stopped(worker, stopped_by(log), lambda: os.kill(worker.pid, signal.SIGTERM), "SIGTERM")
    output = worker.end()
    assert worker.returncode == 75, output
    assert output.splitlines()[-1].endswith("tune-worker --study small --allow-different-machine")
    curve = load(home).trials[1].intermediate_values
    left = run("--study", str(study), "--target-trials", "2", cwd=tmp_path)
    assert left.returncode == 2, left.stdout
    assert errors(left.stdout) == [
        "error: What is left of the study small is for another machine, trial 1: this machine has ultralytics "
        f"{INSTALLED} instead of {releases.OLDER}: type `pip install ultralytics=={releases.OLDER}`, or allow it with "
        "--allow-different-machine, no longer exactly as undisturbed."
    ]
    assert load(home).trials[1].intermediate_values == curve


@SLOW
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="this machine has one CPU")
def test_fewer_cpus_are_recorded_or_with_exact_left_to_a_machine_that_has_as_many(tmp_path: Path) -> None:
    # Threads that wait for each other without spinning, for the sake of whoever else uses this machine.
    study = suspended(tmp_path, target=1, epochs=0, OMP_NUM_THREADS="2", GOMP_SPINCOUNT="0")
    home = tmp_path / "tune-home"
    assert load(home).trials[0].user_attrs[attributes.THREADS] == 2
    every_cpu = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(every_cpu)})  # of what is started from here on, too
    try:
        curve = load(home).trials[0].intermediate_values
        left = run("--study", str(study), "--exact", cwd=tmp_path)
        assert left.returncode == 2, left.stdout
        assert errors(left.stdout) == [
            "error: What is left of the study small is for another machine, trial 0: this machine has threads 1 "
            "instead of 2: leave out --exact to go on here, no longer exactly as undisturbed."
        ]
        assert load(home).trials[0].intermediate_values == curve
        result = run("--study", str(study), cwd=tmp_path)
    finally:
        os.sched_setaffinity(0, every_cpu)
    assert result.returncode == 0, result.stdout
    assert "goes on with threads 1 instead of 2: no longer exactly as undisturbed" in notes(home, 0)
    assert list(load(home).trials[0].intermediate_values) == [1, 2, 3]


def test_exact_and_different_are_not_asked_for_at_once(tmp_path: Path) -> None:
    study = write_study(tmp_path)
    refused = run("--study", str(study), "--exact", "--allow-different-machine", cwd=tmp_path)
    assert refused.returncode == 2
    assert errors(refused.stdout) == [
        "error: Name either --exact or --allow-different-machine: one leaves what the other goes on with."
    ]
    assert not (tmp_path / "tune-home").exists()
