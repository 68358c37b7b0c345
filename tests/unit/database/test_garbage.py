from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import optuna
import pytest

from petskin_tune.database import trial_rows
from petskin_tune.database.garbage import RARELY, rarely_collected
from petskin_tune.database.storage import open_storage


def test_whoever_is_last_to_leave_finds_the_collector_as_it_was() -> None:
    usual = gc.get_threshold()
    first, second = rarely_collected(), rarely_collected()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert gc.get_threshold()[0] == RARELY
    second.__exit__(None, None, None)
    assert gc.get_threshold() == usual


def test_a_collector_that_somebody_has_switched_off_stays_so() -> None:
    usual = gc.get_threshold()
    gc.set_threshold(0)
    try:
        with rarely_collected():
            assert gc.get_threshold()[0] == 0
        assert gc.get_threshold()[0] == 0
    finally:
        gc.set_threshold(*usual)


def test_trials_are_read_while_garbage_is_collected_rarely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/tune.db")
    study = optuna.create_study(storage=storage)
    study.optimize(lambda trial: trial.suggest_float("lr0", 0.0, 1.0), n_trials=2)
    seen: list[int] = []
    usual = trial_rows.read

    def read(*asked: Any) -> Any:
        seen.append(gc.get_threshold()[0])
        return usual(*asked)

    monkeypatch.setattr(trial_rows, "read", read)
    before = gc.get_threshold()
    assert len(optuna.load_study(study_name=study.study_name, storage=storage).trials) == 2
    assert seen == [RARELY]
    assert gc.get_threshold() == before
