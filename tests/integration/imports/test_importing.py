"""Runs into a real database: from another study, by several at once, and what a study's own figures make of them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from click.testing import CliRunner
from optuna.trial import TrialState

from petskin_tune.cli import petskin_tune
from petskin_tune.database.storage import open_storage
from petskin_tune.imports.fitting import Terms, fit
from petskin_tune.imports.runs import read_folder
from petskin_tune.imports.storing import add
from petskin_tune.leases.claims import Claims
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.study import attributes
from petskin_tune.study.extent import begun_here, extent
from petskin_tune.study.foreign import is_foreign
from petskin_tune.study.space.parameters import distributions
from petskin_tune.study.study import Study, find_study
from tests.support import foreign_runs
from tests.support.foreign_runs import EPOCHS, SEARCH, rising, run_folder


def trained_here(study: Study, scores: list[float], lr0: float) -> None:
    """A complete trial as a worker leaves it."""
    claims = Claims(study.storage, study.id, "here", 90.0, 300.0)
    held = claims.next_trial(60)
    assert held is not None
    trial = HeldTrial(claims, held)
    trial.store_draw({"lr0": lr0, "momentum": 0.9}, distributions(SEARCH), {}, {attributes.ORIGIN: "search"})
    for epoch, score in enumerate(scores, 1):
        trial.report(epoch, score, {})
    trial.tell(TrialState.COMPLETE, max(scores), {}, {})


def test_several_who_import_the_same_runs_at_once_import_them_once(database_url: str, tmp_path: Path) -> None:
    study = foreign_runs.study(open_storage(database_url))
    runs = [read_folder(run_folder(tmp_path / f"train{n}", rising(0.3), lr0=1e-4 * (n + 1))) for n in range(6)]
    trials = [fit(run, Terms(study.spec)) for run in runs]

    def import_them() -> None:
        mine = find_study(open_storage(database_url), "petskin")
        assert mine is not None
        add(mine, trials)

    threads = [threading.Thread(target=import_them) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stored = study.trials()
    assert sorted(trial.number for trial in stored) == list(range(6))
    assert [trial.intermediate_values for trial in stored] == [dict(enumerate(rising(0.3), 1))] * 6


def test_imported_runs_count_for_nothing_and_judge_nobody(database_url: str, tmp_path: Path) -> None:
    study = foreign_runs.study(open_storage(database_url))
    add(study, [fit(read_folder(run_folder(tmp_path / "train", rising(0.9))), Terms(study.spec))])
    trained_here(study, rising(0.4), 0.001)
    best = study.best()
    assert best is not None
    assert best.number == 1
    assert extent(study.spec, begun_here(study.trials())).done == EPOCHS
    claims = Claims(study.storage, study.id, "here", 90.0, 300.0)
    assert claims.count() == 1
    held = claims.next_trial(60)
    assert held is not None
    assert HeldTrial(claims, held).values_at(3).keys() == {1}


@pytest.mark.parametrize("by_url", [False, True])
def test_another_study_is_imported_by_name_here_or_by_url(database_url: str, tmp_path: Path, by_url: bool) -> None:
    there = f"sqlite:///{tmp_path}/other.db" if by_url else database_url
    other = foreign_runs.study(open_storage(there), study="older")
    for n in range(4):
        trained_here(other, rising(0.3 + 0.05 * n), 1e-4 * (n + 1))
    study = foreign_runs.study(open_storage(database_url))
    where = ["--study", "petskin", "--storage", database_url, "--home", str(tmp_path / "home")]
    words = ["older", *(["--from-storage", there] if by_url else [])]
    said = CliRunner().invoke(petskin_tune, ["import", *where, *words])
    assert said.exit_code == 0, said.output
    found = study.trials()
    assert all(is_foreign(trial) for trial in found)
    assert [trial.intermediate_values for trial in found] == [t.intermediate_values for t in other.trials()]
    assert [trial.params for trial in found] == [trial.params for trial in other.trials()]
    assert "imported study older: 4 of 4 runs, trials 0 to 3" in said.output
    assert "its next configuration is the model's" in said.output
