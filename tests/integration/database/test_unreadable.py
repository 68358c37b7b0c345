"""Rows of a study's database that were cut short: views and workers go on without them, and say so once."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial
from sqlalchemy import text

from petskin_tune.database import unreadable
from petskin_tune.database.storage import open_storage
from petskin_tune.diagnosis import explain
from petskin_tune.errors import UsageError
from petskin_tune.leases.held_trial import study_news
from petskin_tune.study import attributes
from petskin_tune.study.creation import create_study
from petskin_tune.study.foreign import is_foreign
from petskin_tune.study.stored import enqueued_params, is_ours, recorded
from petskin_tune.study.study import Study, find_study, our_names
from petskin_tune.views import export, report
from petskin_tune.views.status import collect as status
from petskin_tune.views.status import text as status_text
from tests.support.studies import NOW, a_spec

UID = "0" * 12


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unreadable, "_said", set())


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


def opened(url: str) -> Study:
    study = find_study(open_storage(url), "petskin")
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
    assert our_names(open_storage(database)) == ["petskin"]


@pytest.mark.parametrize("key", [attributes.SPEC, attributes.UID])
def test_a_study_that_cannot_be_known_is_refused_with_a_way_on(database: str, key: str) -> None:
    cut(database, "study_user_attributes", key)
    with pytest.raises(UsageError, match=rf"`{key}` in the database .* Put a copy of the database in its place, or"):
        opened(database)


def test_a_worker_that_hears_of_a_damaged_spec_is_refused(database: str) -> None:
    study = opened(database)
    cut(database, "study_user_attributes", attributes.SPEC)
    news = study.storage.transaction(lambda session: study_news(session, study.id))
    with pytest.raises(UsageError, match="not as petskin-tune writes it"):
        study.hear(news)


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
