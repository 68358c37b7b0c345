"""Each kind of failure provoked for real in trials of the real worker, and recorded by its name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import optuna
import pytest
from PIL import Image

from petskin_tune.datasets import demo
from tests.support.places import PROVOKED
from tests.support.workers import SMALL_STUDY, fired, load, run, write_study

PLAN = {0: "memory", 1: "nan", 2: "argument", 3: "segfault", 4: "segfault@2", 5: "no-memory", 6: "error"}


def provoked(folder: Path, plan: dict[int, str], **changes: Any) -> tuple[optuna.Study, str, list[str]]:
    """Run a study to its end with failures by trial number.

    Returns:
        the study, what the worker printed, and what was provoked, oldest first.
    """
    study = write_study(folder, target_trials=len(plan), **changes)
    log = folder / "provoked.log"
    environment = {
        "TUNE_FAULTS_PLAN": ";".join(f"{number}={what}" for number, what in plan.items()),
        "TUNE_FAULTS_HAPPENED": str(log),
    }
    result = run("--study", str(study), cwd=folder, PYTHONPATH=str(PROVOKED), **environment)
    assert result.returncode == 0, result.stdout
    return load(folder / "tune-home"), result.stdout, log.read_text().splitlines()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[optuna.Study, str, list[str], Path]:
    """One study in which every trial fails in its own way, run to its end by one worker."""
    folder = tmp_path_factory.mktemp("failing")
    return (*provoked(folder, PLAN), folder)


def kind(trial: optuna.trial.FrozenTrial) -> str | None:
    failure = trial.user_attrs.get("petskin-tune:failure")
    return failure["kind"] if failure else None


def test_every_failure_is_told_apart_and_none_is_a_fitness_of_zero(
    study: tuple[optuna.Study, str, list[str], Path],
) -> None:
    trials = study[0].trials
    assert [(trial.state.name, kind(trial)) for trial in trials] == [
        ("COMPLETE", None),
        ("COMPLETE", None),
        ("FAIL", "refused"),
        ("FAIL", "crashed"),
        ("COMPLETE", None),
        ("PRUNED", "out-of-memory"),
        ("FAIL", "crashed"),
    ]
    assert [trial.values for trial in trials if kind(trial)] == [None, None, None, None]


def test_status_counts_the_failures_by_their_names(study: tuple[optuna.Study, str, list[str], Path]) -> None:
    told = run("status", "--study", "small", "--json", cwd=study[3], command="petskin-tune")
    assert json.loads(told.stdout)["failures"] == {"refused": 1, "crashed": 2, "out-of-memory": 1}


def test_out_of_memory_keeps_the_effective_batch_by_micro_batches(
    study: tuple[optuna.Study, str, list[str], Path],
) -> None:
    trial = study[0].trials[0]
    assert study[2].count("0 memory") == 1
    assert trial.user_attrs["petskin-tune:batch"] == 8
    assert any("micro-batches of 4" in note for note in trial.user_attrs["petskin-tune:notes"])
    assert len(trial.intermediate_values) == 3


def test_a_nan_under_amp_goes_on_in_fp32_from_the_last_good_snapshot(
    study: tuple[optuna.Study, str, list[str], Path],
) -> None:
    trial = study[0].trials[1]
    assert study[2].count("1 nan") == 1
    decided = "fp32 from now on: the loss was not finite in epoch 2, batch 3 under AMP"
    assert decided in trial.user_attrs["petskin-tune:notes"]
    assert list(trial.intermediate_values) == [1, 2, 3]


def test_an_argument_changed_behind_our_back_is_refused_with_both_values(
    study: tuple[optuna.Study, str, list[str], Path],
) -> None:
    message = study[0].trials[2].user_attrs["petskin-tune:failure"]["message"]
    assert "mosaic=" in message
    assert "0.123 would be run" in message


def test_a_process_that_segfaults_three_times_without_progress_ends_its_trial_with_the_end_of_its_log(
    study: tuple[optuna.Study, str, list[str], Path],
) -> None:
    trial = study[0].trials[3]
    assert study[2].count("3 segfault") == 3
    assert "SIGSEGV, 3 times in a row without progress" in trial.user_attrs["petskin-tune:failure"]["message"]
    assert "Segmentation fault" in trial.user_attrs["petskin-tune:failure"]["detail"]


def test_a_process_that_segfaults_twice_is_started_again_and_its_trial_completes(
    study: tuple[optuna.Study, str, list[str], Path],
) -> None:
    trial = study[0].trials[4]
    assert study[2].count("4 segfault") == 2
    assert list(trial.intermediate_values) == [1, 2, 3]
    assert (
        sum("crashed: its process was killed by SIGSEGV" in note for note in trial.user_attrs["petskin-tune:notes"])
        == 2
    )


SHAPES = "size mismatch for weight: copying a param with shape torch.Size([1, 2]) from checkpoint"


def test_an_error_is_told_whole_and_its_traceback_is_in_the_file_that_is_named_after_the_trial_has_ended(
    study: tuple[optuna.Study, str, list[str], Path],
) -> None:
    loaded, printed, happened, folder = study
    assert happened.count("6 error") == 1
    (line,) = [line for line in printed.splitlines() if line.startswith("trial 6 failed")]
    assert f"crashed: RuntimeError: Error(s) in loading state_dict for Linear: {SHAPES}" in line
    named = re.search(r"all of it is in (\S+train\.log)", line)
    assert named is not None
    log = Path(named[1]).read_text()
    assert "in _at_batch" in log
    assert SHAPES in log
    assert loaded.trials[6].user_attrs["petskin-tune:failure"]["log"] == named[1]
    for view in (("status",), ("diagnose", "--trial", "6")):
        told = run(view[0], "--study", "small", *view[1:], cwd=folder, command="petskin-tune").stdout
        assert SHAPES in " ".join(told.split()), told
    assert run("report", "--study", "small", cwd=folder, command="petskin-tune").returncode == 0
    assert SHAPES in (folder / "report.html").read_text()


def test_memory_that_no_split_saves_is_told_to_the_sampler_as_a_constraint(
    study: tuple[optuna.Study, str, list[str], Path],
) -> None:
    assert study[2].count("5 no-memory") >= 2  # it was tried with smaller parts
    assert constraints(study[0].trials[5]) == {"oom": 1.0, "diverged": 0.0}
    assert constraints(study[0].trials[0]) == {"oom": 0.0, "diverged": 0.0}


def constraints(trial: optuna.trial.FrozenTrial) -> dict[str, float]:
    prefix = "constraints:"
    return {key.removeprefix(prefix): value for key, value in trial.system_attrs.items() if key.startswith(prefix)}


@pytest.mark.slow
def test_a_learning_rate_of_a_million_is_pruned_within_two_batches_and_no_split_is_made_under_on_oom_prune(
    tmp_path: Path,
) -> None:
    study, _, happened = provoked(tmp_path, {0: "explosion", 1: "no-memory"}, on_oom="prune")
    diverged, out_of_memory = study.trials
    assert (diverged.state.name, kind(diverged)) == ("PRUNED", "diverged")
    assert constraints(diverged) == {"oom": 0.0, "diverged": 1.0}
    assert diverged.values is None
    batches = [line for line in happened if line.startswith("0 batch")]
    assert 1 <= len(batches) - batches.index("0 batch not finite") <= 2
    assert (out_of_memory.state.name, kind(out_of_memory)) == ("PRUNED", "out-of-memory")
    assert happened.count("1 no-memory") == 1
    assert constraints(out_of_memory) == {"oom": 1.0, "diverged": 0.0}


@pytest.mark.slow
def test_trials_that_all_fail_in_the_same_way_end_the_worker(tmp_path: Path) -> None:
    study = write_study(tmp_path, target_trials=5, max_identical_failures=2)
    environment = {"TUNE_FAULTS_PLAN": "0=error;1=error", "TUNE_FAULTS_HAPPENED": str(tmp_path / "provoked.log")}
    result = run("--study", str(study), cwd=tmp_path, PYTHONPATH=str(PROVOKED), **environment)
    assert result.returncode == 2, result.stdout
    assert "The last 2 trials all failed in the same way, crashed: RuntimeError:" in result.stdout.splitlines()[-1]
    trials = load(tmp_path / "tune-home").trials
    assert [(trial.state.name, kind(trial)) for trial in trials] == [("FAIL", "crashed"), ("FAIL", "crashed")]


def test_an_image_that_cannot_be_read_is_named_and_costs_no_trial_anything(tmp_path: Path) -> None:
    data = demo.make(tmp_path / "images", train=16, val=8)
    whole = sorted((data.parent / "images" / "train").iterdir())[3]
    spoilt = whole.with_suffix(".jpg")
    Image.open(whole).save(spoilt)
    whole.unlink()
    content = spoilt.read_bytes()
    spoilt.write_bytes(content[:-200] + bytes(200))
    study = write_study(tmp_path, data=str(data), target_trials=1, epochs=1, train=_short(), start=["defaults"])
    refused = run("--study", str(study), cwd=tmp_path)
    assert refused.returncode == 2, refused.stdout
    last = refused.stdout.splitlines()[-1]
    assert last.startswith(f"error: {spoilt}: cut short")
    assert not list((tmp_path / "tune-home").glob("*.db"))  # not even the study has begun
    spoilt.write_bytes(content)
    mended = run("--study", str(study), cwd=tmp_path)
    assert mended.returncode == 0, mended.stdout
    (trial,) = load(tmp_path / "tune-home").trials
    assert (trial.state.name, trial.user_attrs["petskin-tune:origin"]) == ("COMPLETE", "start point")


@pytest.mark.slow
def test_a_device_that_is_not_here_costs_no_trial_anything(tmp_path: Path) -> None:
    study = write_study(tmp_path, target_trials=1, epochs=1, train=_short(), start=["defaults"])
    refused = run("--study", str(study), "--device", "7", cwd=tmp_path, CUDA_VISIBLE_DEVICES="0,1,2,3,4,5,6,7")
    assert refused.returncode == 2, refused.stdout
    assert "error: Training cannot start on this machine: ValueError: Invalid CUDA 'device=7'" in refused.stdout
    assert [trial.state.name for trial in load(tmp_path / "tune-home").trials] == ["RUNNING"]
    mended = run("--study", str(study), "--device", "cpu", cwd=tmp_path)
    assert mended.returncode == 0, mended.stdout
    (trial,) = load(tmp_path / "tune-home").trials
    assert (trial.state.name, trial.user_attrs["petskin-tune:origin"]) == ("COMPLETE", "start point")


def _short() -> dict[str, Any]:
    return {**SMALL_STUDY["train"], "close_mosaic": 0, "warmup_epochs": 0}


@pytest.mark.slow
def test_a_trial_that_a_full_disk_keeps_from_being_frozen_is_given_back_and_goes_on_when_there_is_room(
    tmp_path: Path,
) -> None:
    study = write_study(tmp_path, sampler={"name": "freeze-thaw", "rungs": 1}, pruner="none", budget=2)
    log = tmp_path / "fired"
    faults = {"TUNE_FAULTS": "snapshot-temporary-written=raise:28", "TUNE_FAULTS_LOG": str(log)}
    full = run("--study", str(study), cwd=tmp_path, **faults)
    assert full.returncode == 2, full.stdout
    assert "error: Training cannot go on on this machine: no snapshot of epoch " in full.stdout
    assert "No space left on device" in full.stdout
    assert len(fired(log)) >= 2, "another one was tried"
    (given_back,) = load(tmp_path / "tune-home").trials
    assert (given_back.state.name, len(given_back.intermediate_values)) == ("RUNNING", 1)
    again = run("--study", str(study), cwd=tmp_path)
    assert again.returncode == 0, again.stdout
    trials = load(tmp_path / "tune-home").trials
    assert all(len(trial.intermediate_values) == 3 for trial in trials if trial.state.name == "COMPLETE")
    assert {trial.state.name for trial in trials} == {"COMPLETE", "PRUNED"}
