"""The worker as a person uses it: started, typed again, stopped, killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.workers import (
    BIN,
    Said,
    environment,
    essence,
    interrupt_stopped,
    load,
    run,
    small_data,
    start,
    stopped_by,
    write_study,
)

EPOCHS = 12  # of a trial that is suspended in its third
BATCHES = 8  # of an epoch


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a study that ran to its end undisturbed, and what the worker printed."""
    folder = tmp_path_factory.mktemp("finished")
    study = write_study(folder, target_trials=2)
    result = run("--study", str(study), cwd=folder)
    assert result.returncode == 0, result.stdout
    return folder, result.stdout


def test_a_study_runs_to_its_target_and_the_last_line_says_what_to_type_next(finished: tuple[Path, str]) -> None:
    folder, output = finished
    assert "trial 1 finished" in output
    assert output.splitlines()[-1].endswith("next, type: petskin-tune best --study small --yaml best.yaml")
    trials = load(folder / "tune-home").trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "COMPLETE"]
    assert trials[0].value == max(trials[0].intermediate_values.values())
    assert list(trials[0].intermediate_values) == [1, 2, 3]


def test_what_it_did_and_said_is_in_the_homes_log(finished: tuple[Path, str]) -> None:
    folder, output = finished
    (log,) = (folder / "tune-home" / "logs").iterdir()
    written = log.read_text(encoding="utf-8")
    early = output.partition("trial 1 finished")[0]  # a disk that stalls at the very end may lose the last lines
    assert all(line in written for line in early.splitlines())
    assert "trial 0 is claimed under token 1" in written
    assert "trial 0: its process has ended with exit code 0" in written


def test_one_plain_line_an_epoch_says_what_is_safe(finished: tuple[Path, str]) -> None:
    _, output = finished
    epochs = [line for line in output.splitlines() if " trial 0 epoch " in line]
    assert len(epochs) == 3
    assert all("mask mAP" in line and "best" in line for line in epochs)
    assert all(re.search("safe to stop|a power cut now would cost", line) for line in epochs)


def test_every_trial_records_what_it_ran_on_and_with(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    kept = load(folder / "tune-home").trials[0].user_attrs
    recorded = {name.removeprefix("petskin-tune:"): value for name, value in kept.items()}
    assert recorded["device"] == "cpu"
    assert set(recorded["versions"]) >= {"ultralytics", "torch", "petskin-tune"}
    assert recorded["threads"] >= 1
    assert recorded["epochs"] == 3
    assert 1 <= recorded["best_epoch"] <= 3
    assert recorded["batch"] == 8
    assert recorded["seconds"] > 0
    assert recorded["arguments"]["optimizer"] == "AdamW"
    assert recorded["metrics"]["metrics/mAP50-95(M)"] == load(folder / "tune-home").trials[0].value
    assert recorded["worker"]


def test_the_same_command_typed_again_says_that_the_study_is_done_and_starts_no_training(
    finished: tuple[Path, str],
) -> None:
    folder, _ = finished
    before = essence(load(folder / "tune-home"))
    logs = {path: path.stat().st_mtime for path in folder.rglob("train.log")}
    result = run("--study", "small.yaml", cwd=folder)
    assert result.returncode == 0
    assert "study done" in result.stdout
    assert essence(load(folder / "tune-home")) == before
    assert {path: path.stat().st_mtime for path in folder.rglob("train.log")} == logs


def test_a_raised_target_goes_on_where_the_study_stood(finished: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = finished
    home = tmp_path / "home"
    subprocess.run(["cp", "-r", str(folder / "tune-home"), str(home)], check=True)
    result = run("--study", "small.yaml", "--home", str(home), "--target-trials", "3", cwd=folder)
    assert result.returncode == 0, result.stdout
    assert len(load(home).trials) == 3
    assert essence(load(home))[:2] == essence(load(folder / "tune-home"))


def test_optuna_itself_reads_the_study(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    url = f"sqlite:///{folder / 'tune-home' / 'tune.db'}"
    listed = subprocess.run(
        [str(BIN / "optuna"), "trials", "--storage", url, "--study-name", "small", "-f", "json"],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    )
    assert '"number": 1' in listed.stdout
    code = f"import optuna; print(optuna.load_study(study_name='small', storage={url!r}).best_value)"
    plain = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(plain.stdout) == load(folder / "tune-home").best_value


def test_the_line_that_best_prints_validates_the_weights_to_the_trials_value(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    told = run("best", "--study", "small", "--weights", "my best.pt", cwd=folder, command="petskin-tune")
    assert told.returncode == 0, told.stdout
    line = told.stdout.splitlines()[-1].partition("its mask mAP again: ")[2]
    code = f"from ultralytics import YOLO\nprint({line}.results_dict['metrics/mAP50-95(M)'])"
    offline = environment(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", YOLO_CONFIG_DIR=str(folder))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=offline, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) == pytest.approx(load(folder / "tune-home").best_value, abs=1e-4)


def test_best_weights_of_the_best_trials_are_kept_and_snapshots_are_not(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    files = sorted(path.name for path in (folder / "tune-home" / "checkpoints").rglob("*") if path.is_file())
    assert [name.split("-")[0] for name in files] == ["best", "best", "results.csv", "results.csv"]
    weights = next((folder / "tune-home" / "checkpoints").rglob("best-*.pt"))
    from ultralytics import YOLO

    images = Path(small_data()).parent / "images" / "val"
    assert YOLO(str(weights)).predict(str(next(images.iterdir())), imgsz=64, verbose=False, save=False)


def test_sigterm_suspends_with_exit_code_75_and_the_next_worker_goes_on_at_once(tmp_path: Path) -> None:
    study = write_study(tmp_path, target_trials=1, epochs=EPOCHS)
    said, stopped = _stopped_in_its_third_epoch(study, tmp_path)
    interrupt_stopped(said, stopped, lambda: os.kill(said.pid, signal.SIGTERM), "SIGTERM")
    output = said.end()
    assert said.returncode == 75, output
    assert output.splitlines()[-1] == "suspended; to go on, type: tune-worker --study small"
    again = run("--study", str(study), cwd=tmp_path)
    assert again.returncode == 0, again.stdout
    assert "waiting" not in again.stdout
    assert "goes on after" in again.stdout
    trial = load(tmp_path / "tune-home").trials[0]
    assert list(trial.intermediate_values) == list(range(1, EPOCHS + 1))
    assert trial.user_attrs["petskin-tune:resumes"] == 1


def test_ctrl_c_reaches_the_worker_alone_and_suspends(tmp_path: Path) -> None:
    study = write_study(tmp_path, target_trials=1, epochs=EPOCHS)
    said, stopped = _stopped_in_its_third_epoch(study, tmp_path)
    # As a terminal does: to the whole foreground group.
    interrupt_stopped(said, stopped, lambda: os.killpg(said.pid, signal.SIGINT), "Ctrl-C")
    output = said.end()
    assert said.returncode == 75, output
    assert "KeyboardInterrupt" not in output
    assert "KeyboardInterrupt" not in next((tmp_path / "tune-home").rglob("train.log")).read_text()


def test_petskin_tune_stop_suspends_every_worker_that_runs(tmp_path: Path) -> None:
    study = write_study(tmp_path, target_trials=1, epochs=EPOCHS)
    said, stopped = _stopped_in_its_third_epoch(study, tmp_path, "epoch-event-sent=stop@3")
    asked = run("stop", "--study", "small", cwd=tmp_path, command="petskin-tune")
    assert asked.returncode == 0, asked.stdout
    os.kill(stopped[0], signal.SIGCONT)
    stopped_by(tmp_path / "fired", count=2)  # it has told its third epoch, and its worker hears of it by the report
    said.wait_for("stopping safely")
    os.kill(stopped[0], signal.SIGCONT)
    output = said.end()
    assert said.returncode == 75, output
    later = run("--study", "small", "--target-trials", "1", cwd=tmp_path)
    assert later.returncode == 0, later.stdout


def _stopped_in_its_third_epoch(study: Path, cwd: Path, *faults_after: str) -> tuple[Said, list[int]]:
    """A worker whose trial's process stands still there: what it says, and that process."""
    log = cwd / "fired"
    planned = ";".join([f"batch-done=stop@{2 * BATCHES + 1}", *faults_after])
    said = Said(start("--study", str(study), cwd=cwd, TUNE_FAULTS=planned, TUNE_FAULTS_LOG=str(log)))
    return said, stopped_by(log)


def test_max_trials_ends_the_worker_and_leaves_the_rest(tmp_path: Path) -> None:
    study = write_study(tmp_path, target_trials=2, epochs=1, train={**_train(), "close_mosaic": 0, "warmup_epochs": 0})
    result = run("--study", str(study), "--max-trials", "1", cwd=tmp_path)
    assert result.returncode == 75, result.stdout
    assert len([trial for trial in load(tmp_path / "tune-home").trials if trial.state.is_finished()]) == 1


def test_stop_at_ends_the_study_early(tmp_path: Path) -> None:
    study = write_study(tmp_path, target_trials=5, epochs=1, stop_at=0.0, train={**_train(), "close_mosaic": 0})
    result = run("--study", str(study), cwd=tmp_path)
    assert result.returncode == 0, result.stdout
    assert len(load(tmp_path / "tune-home").trials) == 1


def test_a_device_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    study = write_study(tmp_path, target_trials=2, epochs=1, train={**_train(), "close_mosaic": 0})
    result = run("--study", str(study), "--device", "cpu,cpu", cwd=tmp_path)
    assert result.returncode == 2
    assert "name each device once" in result.stdout


def _train() -> dict:
    from tests.support.workers import SMALL_STUDY

    return dict(SMALL_STUDY["train"])
