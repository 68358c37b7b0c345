"""PostgreSQL's databases of other encodings than UTF-8, and names that are not ASCII."""

from __future__ import annotations

import uuid

import pytest
import sqlalchemy

from petskin_tune.database import engine
from petskin_tune.database.addresses import normalise_url
from petskin_tune.database.engine import has_tables
from petskin_tune.database.outages import Patience
from petskin_tune.database.storage import open_storage
from petskin_tune.errors import UsageError
from petskin_tune.study.creation import create_study
from petskin_tune.study.study import find_study, our_names
from tests.support.servers import maintenance
from tests.support.studies import a_spec

KOREAN = "피부 연구"


def new_database(postgres: str, encoding: str) -> str:
    url = normalise_url(postgres)
    name = f"test_{uuid.uuid4().hex[:12]}"
    with maintenance(url) as connection:
        connection.exec_driver_sql(
            f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
        )
    return url.set(database=name).render_as_string(hide_password=False)


@pytest.mark.parametrize("typed", ["", "&client_encoding=latin1"])
def test_a_database_without_an_encoding_holds_every_name(
    postgres: str, typed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    url = new_database(postgres, "SQL_ASCII") + typed
    create_study(open_storage(url), a_spec(study=KOREAN), points=(), attributes_of_study={}).optuna.set_user_attr(
        KOREAN, KOREAN
    )
    storage = open_storage(url)
    found = find_study(storage, KOREAN)
    assert found is not None
    assert found.optuna.user_attrs[KOREAN] == KOREAN
    assert our_names(storage) == [KOREAN]


@pytest.mark.parametrize("encoding", ["LATIN1", "EUC_KR"])
def test_no_study_begins_in_a_database_that_cannot_hold_every_name(
    postgres: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_database(postgres, encoding)
    assert not has_tables(normalise_url(url), Patience(0))
    with pytest.raises(UsageError, match=rf"^The database has the encoding {encoding}, .* ENCODING 'UTF8'"):
        open_storage(url)
    with sqlalchemy.create_engine(normalise_url(url)).connect() as connection:
        assert sqlalchemy.inspect(connection).get_table_names() == []
    monkeypatch.setattr(engine, "_require_unicode", lambda _: None)  # as releases before
    create_study(open_storage(url), a_spec(), points=(), attributes_of_study={})
    monkeypatch.undo()
    assert our_names(open_storage(url)) == ["petskin"]  # it goes on
