"""Real input: pretrained weights fine-tuned on photographs. Skipped by name where they are not at hand."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from tests.support.places import SHARED
from tests.support.workers import run, write_study

DATA, WEIGHTS = SHARED / "data" / "pets" / "data.yaml", SHARED / "weights" / "yolov8n-seg.pt"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not (DATA.exists() and WEIGHTS.exists()), reason=f"no photographs and weights in {SHARED}")
def test_three_trials_on_photographs_of_pets_find_their_masks(tmp_path: Path) -> None:
    study = write_study(
        tmp_path,
        study="pets",
        model=str(WEIGHTS),
        data=str(DATA),
        epochs=4,
        train={"imgsz": 128, "batch": 16, "warmup_epochs": 0.5, "optimizer": "AdamW"},
        search={"lr0": {"low": 1e-4, "high": 2e-3, "log": True}, "momentum": [0.8, 0.95]},
        target_trials=3,
    )
    result = run("--study", str(study), cwd=tmp_path)
    assert result.returncode == 0, result.stdout
    found = optuna.load_study(study_name="pets", storage=f"sqlite:///{tmp_path / 'tune-home' / 'tune.db'}")
    assert len(found.trials) == 3
    assert found.best_value > 0.30
