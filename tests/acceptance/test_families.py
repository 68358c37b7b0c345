"""YOLOv8, YOLO11 and YOLO26 segment: tuned from weights of other data, killed, resumed without them, and told of."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import training as helpers
from tests.support.workers import SMALL_STUDY, best_weights, fired, load, run, write_study

WIDTHS = {"v8": 0.0625, "11": 0.125, "26": 0.125}
LOSSES = {
    "v8": {"box_loss", "seg_loss", "cls_loss", "dfl_loss", "sem_loss"},
    "11": {"box_loss", "seg_loss", "cls_loss", "dfl_loss", "sem_loss"},
    "26": {"box_loss", "seg_loss", "cls_loss", "l1_loss", "sem_loss"},
}
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("family", WIDTHS)
def test_a_family_is_tuned_killed_resumed_without_its_weights_and_told_of(tmp_path: Path, family: str) -> None:
    weights = helpers.pretrained(tmp_path, str(helpers.model(tmp_path, WIDTHS[family], family)), 80)
    study = write_study(
        tmp_path,
        model=weights.name,
        epochs=2,
        target_trials=1,
        train={**SMALL_STUDY["train"], "imgsz": 32, "warmup_epochs": 0.5},
    )
    log = tmp_path / "faults.log"
    killed = run(
        "--study", str(study), cwd=tmp_path, TUNE_FAULTS="batch-done=kill-all@11", TUNE_FAULTS_LOG=str(log)
    )  # in the second epoch of eight batches
    assert killed.returncode < 0
    assert fired(log) == ["batch-done"]
    weights.unlink()

    resumed = run("--study", str(study), cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stdout
    assert "goes on after epoch 1" in resumed.stdout
    trial = load(tmp_path / "tune-home").trials[0]
    assert trial.state.name == "COMPLETE"
    assert list(trial.intermediate_values) == [1, 2]
    told = {
        name.removeprefix("train/") for name in trial.user_attrs["petskin-tune:metrics"] if name.startswith("train/")
    }
    assert told == LOSSES[family]
    assert best_weights(tmp_path / "tune-home", load(tmp_path / "tune-home"), [0])[0]
    for typed in ("status", "diagnose", "report -o report.html", "best --yaml best.yaml --weights best.pt"):
        command, *options = typed.split()
        told_of = run(command, "--study", "small", *options, cwd=tmp_path, command="petskin-tune")
        assert told_of.returncode == 0, told_of.stdout


def test_a_new_trial_asks_for_the_weights_that_a_resumed_one_did_without(tmp_path: Path) -> None:
    weights = helpers.pretrained(tmp_path, str(helpers.model(tmp_path)), 80)
    study = write_study(tmp_path, model=weights.name, epochs=2, target_trials=2)
    log = tmp_path / "faults.log"
    run("--study", str(study), cwd=tmp_path, TUNE_FAULTS="batch-done=kill-all@11", TUNE_FAULTS_LOG=str(log))
    assert fired(log) == ["batch-done"]
    weights.rename(tmp_path / "elsewhere.pt")
    resumed = run("--study", str(study), cwd=tmp_path)
    assert resumed.returncode == 2, resumed.stdout
    assert f"the model `{weights.name}` is not here" in resumed.stdout
    states = [trial.state.name for trial in load(tmp_path / "tune-home").trials]
    assert states == ["COMPLETE"], "the trial with a snapshot ends; none is begun without the weights"
    (tmp_path / "elsewhere.pt").rename(weights)
    assert run("--study", str(study), cwd=tmp_path).returncode == 0
