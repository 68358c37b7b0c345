"""Runs into a real database: from another study, by several at once, and what a study's own figures make of them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from click.testing import CliRunner
from optuna.trial import FrozenTrial, TrialState

from petskin_tune.cli import petskin_tune
from petskin_tune.database.storage import open_storage
from petskin_tune.imports.fitting import Terms, fit
from petskin_tune.imports.outcome import outcome
from petskin_tune.imports.runs import read_folder
from petskin_tune.imports.storing import add
from petskin_tune.imports.tune_logs import read_log
from petskin_tune.leases.claims import Claims
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.search.foreign import comparable
from petskin_tune.study import attributes
from petskin_tune.study.extent import begun_here, extent
from petskin_tune.study.foreign import foreign_of, is_foreign
from petskin_tune.study.space.parameters import distributions
from petskin_tune.study.study import Study, find_study
from tests.support import foreign_runs
from tests.support.foreign_runs import EPOCHS, SEARCH, rising, run_folder, tune_csv


def trained_here(study: Study, scores: list[float], lr0: float) -> None:
    """A complete trial as a worker leaves it."""
    claims = Claims(study.storage, study.fence, "here", 90.0, 300.0)
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


def of_folder(study: Study, folder: Path, scores: list[float], **changes: Any) -> FrozenTrial:
    return fit(read_folder(run_folder(folder, scores, **changes)), Terms(study.spec))


def curves(study: Study) -> list[list[float]]:
    return [list(trial.intermediate_values.values()) for trial in study.trials()]


def test_of_a_run_that_has_gone_on_the_longer_record_replaces_the_shorter_one(
    database_url: str, tmp_path: Path
) -> None:
    study = foreign_runs.study(open_storage(database_url))
    early, other = of_folder(study, tmp_path / "early", rising(0.4)[:3]), of_folder(study, tmp_path / "b", rising(0.3))
    add(study, [early, other])
    worker = find_study(open_storage(database_url), "petskin")
    assert worker is not None
    assert curves(worker) == [rising(0.4)[:3], rising(0.3)]  # and Optuna keeps what it has read of finished trials
    trained_here(study, rising(0.2), 0.002)

    added = add(study, [of_folder(study, tmp_path / "complete", rising(0.4))])
    assert [trial.number for trial in added.trials] == [0]
    assert added.more == {0: EPOCHS - 3}
    again = add(study, [early, of_folder(study, tmp_path / "later", rising(0.4)[:5])])
    assert (again.trials, again.more) == ([], {})
    for seen in (study, worker):
        assert curves(seen) == [rising(0.4), rising(0.3), rising(0.2)]
        assert [trial.state for trial in seen.trials()] == [TrialState.COMPLETE] * 3
        assert [trial.number for trial in seen.trials()] == [0, 1, 2]
    study.enqueue({"lr0": 0.001}, "person")
    assert [trial.number for trial in worker.trials()] == [0, 1, 2, 3]


def test_two_records_of_a_run_in_one_call_are_one_trial(database_url: str, tmp_path: Path) -> None:
    study = foreign_runs.study(open_storage(database_url))
    early, complete = (of_folder(study, tmp_path / str(n), rising(0.4)[:n]) for n in (3, EPOCHS))
    assert add(study, [early, complete]).more == {}
    assert curves(study) == [rising(0.4)]


@pytest.mark.parametrize(
    ("scores", "changes"),
    [([0.0, 0.0, 0.0], {}), ([0.1, 0.2, 0.3], {}), (rising(0.4)[:3], {"seed": 1})],
    ids=["nothing scored yet", "another curve", "another seed"],
)
def test_a_run_that_is_another_one_stays(
    database_url: str, tmp_path: Path, scores: list[float], changes: dict[str, Any]
) -> None:
    study = foreign_runs.study(open_storage(database_url))
    complete = [*scores, *rising(0.4)[3:]] if not any(scores) else rising(0.4)
    add(study, [of_folder(study, tmp_path / "early", scores, **changes)])
    add(study, [of_folder(study, tmp_path / "complete", complete)])
    assert curves(study) == [scores, complete]


def test_what_people_noted_on_a_run_that_is_replaced_stays_with_it(database_url: str, tmp_path: Path) -> None:
    study = foreign_runs.study(open_storage(database_url))
    add(study, [of_folder(study, tmp_path / "early", rising(0.4)[:3])])
    (before,) = study.trials()
    with study.storage.engine.begin() as connection:
        connection.execute(
            sqlalchemy.text("INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (:of, 'mine', '1')"),
            {"of": before._trial_id},
        )
    for key in ("dashboard:{}:note_str:0", "dashboard:{}0:note_str:0"):  # its own, and one of another trial
        study.storage.set_study_system_attr(study.id, key.format(before._trial_id), "from my laptop")
    add(study, [of_folder(study, tmp_path / "complete", rising(0.4))])
    (after,) = study.trials()
    assert after.user_attrs["mine"] == 1
    kept = study.storage.get_study_system_attrs(study.id)
    assert {key for key in kept if key.startswith("dashboard:")} == {
        f"dashboard:{after._trial_id}:note_str:0",
        f"dashboard:{before._trial_id}0:note_str:0",
    }


def as_before(trial: FrozenTrial, **changes: str) -> FrozenTrial:
    """A foreign trial as it was kept before runs were told by their settings, and logs by their first run."""
    kept = {**trial.user_attrs[attributes.FOREIGN], **changes}
    del kept["settings"]
    trial.user_attrs = {attributes.FOREIGN: kept}
    return trial


def test_a_run_that_was_imported_before_is_still_known(database_url: str, tmp_path: Path) -> None:
    study = foreign_runs.study(open_storage(database_url))
    template = as_before(of_folder(study, tmp_path / "a", rising(0.4)))
    study.optuna.add_trial(template)
    assert add(study, [of_folder(study, tmp_path / "b", rising(0.4))]).trials == []
    assert len(study.trials()) == 1


@pytest.mark.parametrize("kept_by_path", [False, True])
def test_a_log_that_has_moved_and_grown_is_compared_with_what_is_known_of_it(
    database_url: str, tmp_path: Path, kept_by_path: bool
) -> None:
    study = foreign_runs.study(open_storage(database_url))
    rows = [{"fitness": 0.3 + 0.1 * n, "lr0": 0.001 * (n + 1), "momentum": 0.9} for n in range(6)]
    terms = Terms(study.spec, assumed={"optimizer": "AdamW"})
    known, longer = (
        list(outcome("log", read_log(tune_csv(tmp_path / f"{count}.csv", rows[:count])), terms).trials)
        for count in (4, 6)
    )
    if kept_by_path:
        for trial in known:
            study.optuna.add_trial(as_before(trial, scale="fitness of /content/runs/tune_results.csv"))
    else:
        add(study, known)
    assert [trial.number for trial in add(study, longer).trials] == [4, 5]
    (scale,) = {foreign.scale for trial in study.trials() if (foreign := foreign_of(trial))}
    assert scale == "fitness of /content/runs/tune_results.csv" or not kept_by_path
    values = [trial.values[0] for trial in comparable(study.trials())]
    assert values == sorted(values)
    assert len(set(values)) == 6


def test_imported_runs_count_for_nothing_and_judge_nobody(database_url: str, tmp_path: Path) -> None:
    study = foreign_runs.study(open_storage(database_url))
    add(study, [fit(read_folder(run_folder(tmp_path / "train", rising(0.9))), Terms(study.spec))])
    trained_here(study, rising(0.4), 0.001)
    best = study.best()
    assert best is not None
    assert best.number == 1
    assert extent(study.spec, begun_here(study.trials())).done == EPOCHS
    claims = Claims(study.storage, study.fence, "here", 90.0, 300.0)
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
