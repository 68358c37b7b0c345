"""Run folders of Ultralytics: what they were trained with, also where `optimizer: auto` decided."""

from __future__ import annotations

from pathlib import Path

import pytest

from petskin_tune.errors import UsageError
from petskin_tune.imports.runs import read_folder
from petskin_tune.imports.sources import read_path
from tests.support.foreign_runs import EPOCHS, rising, run_folder, tune_csv


def falling(lr0: float, lrf: float = 0.01) -> list[float]:
    """Ultralytics' linear schedule after a warm-up of one epoch."""
    return [lr0 / 3, *(round(lr0 * (1 - n / EPOCHS * (1 - lrf)), 8) for n in range(1, EPOCHS))]


@pytest.mark.parametrize("classes", [1, 7, 80])
def test_auto_of_a_short_run_is_adamw_by_its_learning_rates(tmp_path: Path, classes: int) -> None:
    lr0 = round(0.002 * 5 / (4 + classes), 6)
    folder = run_folder(tmp_path / "a", rising(0.4), optimizer="auto", warmup_epochs=1.0, rates=falling(lr0), lr0=0.01)
    found = read_folder(folder).arguments
    assert {name: found[name] for name in ("optimizer", "lr0", "momentum")} == {
        "optimizer": "AdamW",
        "lr0": lr0,
        "momentum": 0.9,
    }


@pytest.mark.parametrize("rate", [0.003, 0.7])
def test_a_learning_rate_that_auto_never_sets_leaves_lr0_unknown(tmp_path: Path, rate: float) -> None:
    folder = run_folder(tmp_path / "a", rising(0.4), optimizer="auto", warmup_epochs=1.0, rates=falling(rate))
    assert not {"lr0", "momentum"} & read_folder(folder).arguments.keys()


def test_a_run_that_does_not_say_what_it_was_trained_with_is_refused(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a", rising(0.4))
    (folder / "args.yaml").unlink()
    with pytest.raises(UsageError, match="does not say what it was trained with"):
        read_folder(folder)


def test_a_folder_of_runs_is_all_of_them(tmp_path: Path) -> None:
    run_folder(tmp_path / "train", rising(0.4))
    run_folder(tmp_path / "train2", rising(0.3))
    (tmp_path / "tune").mkdir()
    tune_csv(tmp_path / "tune" / "tune_results.csv", [{"fitness": 0.4, "lr0": 0.01}])
    found = {source.name: len(runs) for source, runs in read_path(tmp_path)}
    assert found == {"train": 1, "train2": 1, "tune_results.csv": 1}
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"holds no results\.csv"):
        read_path(tmp_path / "empty")
