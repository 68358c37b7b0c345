"""`petskin-tune import` as a person types it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from optuna.trial import create_trial

from petskin_tune.cli import petskin_tune
from petskin_tune.database.storage import open_storage
from petskin_tune.study.space.parameters import distributions
from petskin_tune.study.study import Study
from tests.support import foreign_runs
from tests.support.foreign_runs import rising, run_folder, tune_csv

ROWS = [{"fitness": 0.3 + 0.02 * n, "lr0": 1e-4 * (n + 1), "momentum": 0.9} for n in range(5)]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    (tmp_path / "home").mkdir()
    return foreign_runs.study(open_storage(f"sqlite:///{tmp_path}/home/tune.db"))


def typed(tmp_path: Path, *words: str | Path) -> Result:
    where = ["--study", "petskin", "--home", str(tmp_path / "home")]
    return CliRunner().invoke(petskin_tune, ["import", *where, *map(str, words)])


def test_runs_are_imported_once_and_the_next_choice_is_told(study: Study, tmp_path: Path) -> None:
    for n in range(4):
        run_folder(tmp_path / f"train{n}", rising(0.3 + 0.05 * n), lr0=1e-4 * (n + 1))
    log = tune_csv(tmp_path / "tune_results.csv", ROWS)
    words = [*(tmp_path / f"train{n}" for n in range(4)), log, "--assume", "optimizer=AdamW"]
    said = typed(tmp_path, *words)
    assert said.exit_code == 0, said.output
    assert len(study.trials()) == 9
    assert f"imported {tmp_path / 'train3'}: trial 3, best mask mAP 0.449" in said.output
    assert f"imported {log}: 5 of 5 runs, trials 4 to 8, best fitness 0.380" in said.output
    assert "the knowledge of 9 runs of elsewhere; the best of them, 0.449 in trial 3" in said.output
    assert "its next configuration is the model's, not a random one: lr0=" in said.output
    assert "petskin-tune try --study petskin" in said.output

    again = typed(tmp_path, *words)
    assert again.exit_code == 0
    assert len(study.trials()) == 9
    assert f"known already: {log}" in again.output


def test_a_run_that_has_gone_on_takes_the_place_of_what_was_imported_of_it(study: Study, tmp_path: Path) -> None:
    early = run_folder(tmp_path / "early", rising(0.4)[:4])
    complete = run_folder(tmp_path / "complete", rising(0.4))
    assert "trial 0, best mask mAP 0.375" in typed(tmp_path, early).output
    said = typed(tmp_path, complete)
    assert said.exit_code == 0, said.output
    assert f"imported {complete}: 5 more epochs of trial 0, best mask mAP 0.399\n" in said.output
    assert f"known already: {early}" in typed(tmp_path, early).output
    assert [len(trial.intermediate_values) for trial in study.trials()] == [foreign_runs.EPOCHS]


def test_what_does_not_fit_is_left_out_and_the_rest_is_imported(study: Study, tmp_path: Path) -> None:
    run_folder(tmp_path / "short", rising(0.3), epochs=100)
    run_folder(tmp_path / "good", rising(0.3))
    said = typed(tmp_path, tmp_path / "short", tmp_path / "good")
    assert said.exit_code == 0, said.output
    assert len(study.trials()) == 1
    assert f"left out {tmp_path / 'short'}: it is a run of 100 epochs" in said.output


@pytest.mark.parametrize("bad", ["nothing at all", "a,b\n1,2\n", "fitness,lr0\n"])
def test_a_file_that_is_no_run_is_refused_in_one_sentence_and_nothing_is_imported(
    study: Study, tmp_path: Path, bad: str
) -> None:
    run_folder(tmp_path / "good", rising(0.3))
    (tmp_path / "bad.csv").write_text(bad)
    said = typed(tmp_path, tmp_path / "good", tmp_path / "bad.csv")
    assert said.exit_code == 2
    assert said.output.startswith("error: ")
    assert said.output.count("\n") == 1
    assert study.trials() == []


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["nowhere/results.csv"], "There is no nowhere/results.csv"),
        (["petskin"], "petskin is the study itself"),
        (["other"], "no study `other`"),
        (["good", "--assume", "optimizer"], "write --assume NAME=VALUE"),
        (["good", "--assume", "optimiser=SGD"], "did you mean `optimizer`"),
        (["good", "--assume", "epochs=many"], "must be a whole number"),
        (["detection"], "no mask mAP"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_sentence(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    run_folder(tmp_path / "good", rising(0.3))
    run_folder(tmp_path / "detection", rising(0.3), masks=False)
    said = typed(tmp_path, *words)
    assert said.exit_code == 2, said.output
    assert why in said.output
    assert said.output.count("\n") == 1
    assert study.trials() == []


def test_imported_runs_are_shown_as_such_and_are_never_the_best(study: Study, tmp_path: Path) -> None:
    run_folder(tmp_path / "good", rising(0.3), batch=32)
    assert typed(tmp_path, tmp_path / "good").exit_code == 0
    where = ["--study", "petskin", "--home", str(tmp_path / "home")]
    status = CliRunner().invoke(petskin_tune, ["status", *where]).output
    assert "0 of 90 epochs trained (none begun)" in status
    assert "imported: 1 run of elsewhere" in status
    assert "best: " not in status
    best = CliRunner().invoke(petskin_tune, ["best", *where])
    assert best.exit_code == 2
    assert "no finished trial yet" in best.output
    told = CliRunner().invoke(petskin_tune, ["diagnose", *where, "--trial", "0"]).output
    assert "trial 0 (imported)" in told
    assert "batch 32, not 16" in told


@pytest.mark.parametrize("more", [(), ("--from-storage",)], ids=["here", "from storage"])
def test_a_study_whose_name_is_that_of_a_folder_can_be_imported(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    """Its home is called as the study, as in the documents."""
    other = foreign_runs.study(study.storage, study="other")
    params = {"lr0": 0.001, "momentum": 0.9}
    ended = create_trial(
        value=0.4, params=params, distributions=distributions(foreign_runs.SEARCH), intermediate_values={9: 0.4}
    )
    other.optuna.add_trial(ended)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    said = typed(tmp_path, "other", *more, *([f"sqlite:///{tmp_path}/home/tune.db"] if more else []))
    assert said.exit_code == 0, said.output
    assert "imported study other" in said.output
    assert len(study.trials()) == 1
