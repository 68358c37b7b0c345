"""Rows of a study's database that were cut short: views go on without them and say so once, whoever trains stops."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial
from sqlalchemy import event, text

from petskin_tune.database import unreadable
from petskin_tune.database.storage import models, open_storage
from petskin_tune.diagnosis import explain
from petskin_tune.errors import UsageError
from petskin_tune.leases.claims import Claims
from petskin_tune.leases.held_trial import study_news
from petskin_tune.study import attributes
from petskin_tune.study.creation import create_study
from petskin_tune.study.foreign import is_foreign
from petskin_tune.study.stored import enqueued_params, is_ours, recorded
from petskin_tune.study.study import Study, find_study, our_names
from petskin_tune.views import export, report
from petskin_tune.views.status import collect as status
from petskin_tune.views.status import text as status_text
from petskin_tune.worker import worker
from tests.support.studies import NOW, a_spec

UID = "0" * 12


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a process that has met no such row yet."""
    monkeypatch.setattr(unreadable, "_said", set())
    monkeypatch.setattr(unreadable, "_looks", False)
    yield
    for kind in (*unreadable._OF_STUDIES, *unreadable._OF_TRIALS):
        for name in ("load", "refresh"):
            if event.contains(kind, name, unreadable._look):
                event.remove(kind, name, unreadable._look)


@pytest.fixture
def database(database_url: str) -> str:
    """A study with a trial of ours, one that waits, one of a notebook and one that was imported."""
    made = create_study(
        open_storage(database_url),
        a_spec(),
        points=({"lr0": 0.01},),
        attributes_of_study={attributes.OUTLOOK: {"chance": 0.5, "noise": 0.1, "epochs": 3}},
    )
    (waiting,) = made.trials()
    system: tuple[dict[str, Any], ...] = ({attributes.MARK: "a nonce"}, {"constraints": [0.0]}, {})
    user: tuple[dict[str, Any], ...] = ({attributes.NOTES: ["a note"]}, {"mine": 1}, {attributes.FOREIGN: {}})
    for of_system, of_user in zip(system, user, strict=True):
        made.optuna.add_trial(
            create_trial(
                state=TrialState.COMPLETE,
                value=0.2,
                params=dict.fromkeys(waiting.params),
                system_attrs=of_system,
                user_attrs=of_user,
                intermediate_values={1: 0.2},
            )
        )
    return database_url


def cut(url: str, table: str, key: str) -> None:
    storage = open_storage(url)
    with storage.engine.begin() as connection:
        done = connection.execute(text(f"UPDATE {table} SET value_json = '{{' WHERE \"key\" = :key"), {"key": key})
        assert done.rowcount
    storage.engine.dispose()


def opened(url: str, *, tolerant: bool = True) -> Study:
    study = find_study(open_storage(url, tolerant=tolerant), "petskin")
    assert study is not None
    return study


def looked_at(study: Study) -> str:
    shown = status_text.render(status.collect(study.optuna, [], NOW, home=Path("/nowhere")))
    report.render(study.optuna, NOW)
    return shown + explain.of_study(study.optuna) + export.render(study.optuna)


TRIAL_ROWS = [
    ("trial_user_attributes", attributes.NOTES),
    ("trial_user_attributes", "mine"),
    ("trial_user_attributes", attributes.FOREIGN),
    ("trial_system_attributes", attributes.MARK),
    ("trial_system_attributes", attributes.POINT),
    ("trial_system_attributes", "constraints"),
]


@pytest.mark.parametrize(("table", "key"), [*TRIAL_ROWS, ("study_user_attributes", attributes.OUTLOOK)])
def test_every_view_goes_on_and_it_is_said_once(
    database: str, table: str, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cut(database, table, key)
    study = opened(database)
    assert "0.2" in looked_at(study)
    assert looked_at(study)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"the attribute `{key}` of " in line
    assert line.endswith(" in the database cannot be read, and is passed over")


def test_whose_a_trial_is_does_not_depend_on_what_is_legible(database: str) -> None:
    for table, key in TRIAL_ROWS:
        cut(database, table, key)
    waiting, ours, persons, imported = opened(database).trials()
    assert enqueued_params(waiting) == {}
    assert attributes.POINT not in waiting.system_attrs, "Optuna draws by it without a look"
    assert is_ours(ours)
    assert attributes.NOTES not in recorded(ours)
    assert persons.constraints == {}
    assert is_foreign(imported)


def test_studies_of_others_are_no_obstacle(database: str) -> None:
    storage = open_storage(database)
    other = storage.create_new_study([storage.get_study_directions(opened(database).id)[0]], "other")
    storage.set_study_user_attr(other, "theirs", 1)
    storage.set_study_system_attr(other, "theirs", 1)
    cut(database, "study_user_attributes", "theirs")
    cut(database, "study_system_attributes", "theirs")
    assert our_names(open_storage(database, tolerant=True)) == ["petskin"]


@pytest.mark.parametrize("key", [attributes.SPEC, attributes.UID])
def test_a_study_that_cannot_be_known_is_refused_with_a_way_on(database: str, key: str) -> None:
    cut(database, "study_user_attributes", key)
    with pytest.raises(UsageError, match=rf"`{key}` in the database .* Put a copy of the database in its place, or"):
        opened(database)


def test_a_worker_that_hears_of_a_damaged_spec_is_refused(database: str) -> None:
    study = opened(database)
    cut(database, "study_user_attributes", attributes.SPEC)
    with pytest.raises(unreadable.Unreadable, match="holds a row that cannot be read"):
        study.storage.transaction(lambda session: study_news(session, study.id))


@pytest.mark.parametrize(
    ("distribution", "sql"),
    [
        (FloatDistribution(0, 1), "UPDATE trial_params SET distribution_json = '{'"),
        (FloatDistribution(0, 1), "UPDATE trial_params SET param_value = 'much'"),
        (CategoricalDistribution((0.01, 0.1)), "UPDATE trial_params SET param_value = 'much'"),
        (CategoricalDistribution((0.01, 0.1)), "UPDATE trial_params SET param_value = 99"),
    ],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_trial_is_shown_without_a_parameter_that_cannot_be_read(
    database: str, distribution: BaseDistribution, sql: str, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = create_trial(value=0.3, params={"lr0": 0.01}, distributions={"lr0": distribution})
    opened(database).optuna.add_trial(drawn)
    change(database, sql)
    study = opened(database)
    assert study.trials()[-1].params == {}
    assert looked_at(study)
    (line,) = capsys.readouterr().err.splitlines()
    assert "the parameter `lr0` of trial 4 in the database cannot be read" in line


def change(url: str, sql: str) -> None:
    """As somebody's script does: SQLite takes any value in any column."""
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        assert connection.execute(sql).rowcount


NO_ROWS = [
    "UPDATE trials SET state = 'BOGUS' WHERE number = 1",
    "UPDATE trials SET datetime_complete = 'yesterday' WHERE number = 1",
    "UPDATE trials SET number = NULL WHERE number = 1",
    "UPDATE trial_values SET value_type = 'BOGUS'",
    "UPDATE trial_intermediate_values SET intermediate_value_type = 'BOGUS'",
    "UPDATE study_directions SET direction = 'BOGUS'",
]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("sql", NO_ROWS)
def test_what_only_the_writer_could_know_is_refused_with_a_way_on(database: str, sql: str) -> None:
    change(database, sql)
    with pytest.raises(UsageError, match=r"holds a row that cannot be read \(.*\)\. Put a copy of the database in its"):
        looked_at(opened(database))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "sql",
    ["UPDATE trial_values SET value = 'high'", "UPDATE trial_intermediate_values SET intermediate_value = 'high'"],
)
def test_a_fitness_that_is_no_number_is_left_out(database: str, sql: str, capsys: pytest.CaptureFixture[str]) -> None:
    change(database, sql)
    study = opened(database)
    status_text.render(status.collect(study.optuna, [], NOW, home=Path("/nowhere")))
    report.render(study.optuna, NOW)
    explain.of_study(study.optuna)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.endswith("cannot be read, and is passed over") for line in lines)


# ---- whoever trains --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("table", "key"), [row for row in TRIAL_ROWS if row[1] != "mine"])
def test_whoever_trains_is_refused_and_no_trial_is_touched(database: str, table: str, key: str) -> None:
    before = [trial.state for trial in opened(database).trials()]
    cut(database, table, key)
    study = opened(database, tolerant=False)
    with pytest.raises(unreadable.Unreadable, match=rf"cannot be read \(the attribute `{key}` of the trial's row"):
        study.trials()
    assert [trial.state for trial in opened(database).trials()] == before


def test_whoever_trains_goes_on_without_what_a_person_attached_to_a_trial(
    database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cut(database, "trial_user_attributes", "mine")
    assert len(opened(database, tolerant=False).trials()) == 4
    assert "the attribute `mine` of " in capsys.readouterr().err


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE trial_values SET value = 'high'",
        "UPDATE trial_intermediate_values SET intermediate_value = 'high'",
        "UPDATE trial_values SET objective = 5",
        "UPDATE trial_intermediate_values SET intermediate_value = NULL",
        "UPDATE trial_params SET distribution_json = '{'",
        "UPDATE trial_params SET param_value = 'much'",
        "UPDATE trial_user_attributes SET value_json = NULL",
        "UPDATE trial_user_attributes SET value_json = x'22ff22'",
        "UPDATE trial_system_attributes SET value_json = x'7bff'",
        f"UPDATE trial_system_attributes SET value_json = '{'[' * 60_000}'",
        f"UPDATE trial_system_attributes SET value_json = '{'9' * 12_000}'",
        *NO_ROWS,
    ],
    ids=lambda sql: sql[7:70],
)
def test_no_row_ends_a_worker_in_a_traceback_nor_a_trial_in_a_failure(database: str, sql: str) -> None:
    drawn = create_trial(value=0.3, params={"lr0": 0.01}, distributions={"lr0": FloatDistribution(0, 1)})
    opened(database).optuna.add_trial(drawn)
    change(database, sql)
    with pytest.raises(unreadable.Unreadable, match="Put a copy of the database in its place"):
        opened(database, tolerant=False).trials()


def test_a_row_that_cannot_be_read_is_met_in_a_transaction_first(database: str) -> None:
    cut(database, "trial_user_attributes", "mine")
    storage = open_storage(database)
    rows = storage.transaction(
        lambda session: [row.value_json for row in session.query(models.TrialUserAttributeModel)]
    )
    assert "{" in rows  # read, and not yet looked at
    keys = storage.transaction(
        lambda session: [json.loads(row.value_json) for row in session.query(models.TrialUserAttributeModel)]
    )
    assert None in keys


@pytest.mark.parametrize("key", [attributes.UID, attributes.DELETING])
def test_a_mark_of_the_study_that_cannot_be_read_lets_nobody_write(database: str, key: str) -> None:
    study = opened(database, tolerant=False)
    study.optuna.set_user_attr(key, study.uid if key == attributes.UID else True)
    cut(database, "study_user_attributes", key)
    trials = study.trials()
    with pytest.raises(unreadable.Unreadable):
        Claims(study.storage, study.fence, "me", 90.0, 300.0).next_trial(10)
    assert study.trials() == trials


def test_a_trial_of_a_damaged_database_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*_: Any) -> dict[str, Any]:
        raise unreadable.Unreadable("a row")

    monkeypatch.setattr(worker, "parameters", damaged)
    monkeypatch.setattr(worker, "give_up", lambda *_: pytest.fail("the trial was given up"))
    with pytest.raises(unreadable.Unreadable):
        worker.Worker._run(SimpleNamespace(_place=None), SimpleNamespace(), SimpleNamespace())  # type: ignore[arg-type]
