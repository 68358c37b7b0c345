"""URLs, engines and errors of the database, as far as no server is needed."""

from __future__ import annotations

import pickle
import re
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import optuna
import psycopg2
import pytest
import sqlalchemy
from optuna.exceptions import StorageInternalError
from sqlalchemy import exc
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from petskin_tune.database import engine as database
from petskin_tune.database import queries
from petskin_tune.database.addresses import mask, normalise_url, without_password
from petskin_tune.database.engine import engine_options, has_tables
from petskin_tune.database.outages import Patience, is_outage
from petskin_tune.database.refusals import refusal
from petskin_tune.database.storage import PetskinStorage, open_storage, unreachable
from petskin_tune.errors import UsageError


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[PetskinStorage]:
    opened = open_storage(f"sqlite:///{tmp_path / 'tune.db'}")
    yield opened
    opened.engine.dispose()


# ---- URLs ----


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2", "postgresql+psycopg"])
def test_every_spelling_of_postgresql_means_psycopg2(scheme: str) -> None:
    assert normalise_url(f"{scheme}://u:p@h/d").drivername == "postgresql+psycopg2"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("tune.db", "not a database URL"),
        ("postgres://u:secret@h:port/d", "not a database URL"),
        ("mysql://u:secret@h/d", "neither SQLite nor PostgreSQL"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
    ],
)
def test_a_url_that_cannot_hold_a_study_is_refused_in_a_sentence_without_its_password(url: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as refusal:
        normalise_url(url)
    assert "secret" not in str(refusal.value)


def test_a_password_is_masked_wherever_a_url_may_carry_it() -> None:
    url = normalise_url("postgresql://u:s%40cret1@h/d?password=secret2&sslpassword=secret3&sslmode=require")
    shown = mask(url)
    assert "s@cret1" not in shown
    assert "cret" not in shown
    assert shown.count("***") == 3
    assert "sslmode=require" in shown
    said = without_password(f"s@cret1 s%40cret1 secret2 {url.render_as_string(hide_password=False)}", url)
    assert "cret" not in said


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        ("postgresql://u:p@ep-x.eu-central-1.aws.neon.tech/d", "require"),
        ("postgresql://u:p@db.x.supabase.co/d", "require"),
        ("postgresql://u:p@x.aivencloud.com:1234/d", "require"),
        ("postgresql://u:p@x.aivencloud.com:1234/d?sslmode=verify-full", None),
        ("postgresql://u:p@localhost/d", None),
    ],
)
def test_hosted_servers_are_spoken_to_over_tls_unless_the_url_says_how(url: str, mode: str | None) -> None:
    assert engine_options(normalise_url(url))["connect_args"].get("sslmode") == mode


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@ep-x-pooler.eu-central-1.aws.neon.tech/d",
        "postgresql://u:p@aws-0-eu.pooler.supabase.com:6543/d",
    ],
)
def test_behind_a_transaction_pooler_no_connection_is_kept(url: str) -> None:
    assert engine_options(normalise_url(url))["poolclass"] is NullPool


def test_a_connection_whose_packets_nobody_answers_is_given_up_in_seconds_not_in_a_quarter_of_an_hour() -> None:
    options = engine_options(normalise_url("postgresql://u:p@h/d"))
    assert options["pool_pre_ping"] is True
    assert options["connect_args"]["tcp_user_timeout"] == 30_000
    assert options["connect_args"]["keepalives_idle"] == 30


# ---- outages ----


class _PostgresError(psycopg2.OperationalError):
    pgcode = None


def _error(text: str, code: str | None = None, kind: type[exc.DBAPIError] = exc.OperationalError) -> exc.DBAPIError:
    original = _PostgresError(text)
    original.pgcode = code  # type: ignore[misc]
    return kind("SELECT 1", {}, original)


@pytest.mark.parametrize(
    "error",
    [
        _error('connection to server at "h", port 5432 failed: Connection refused'),
        _error("connection to server failed: FATAL:  the database system is starting up"),
        _error("connection to server failed: FATAL:  the database system is in recovery mode"),
        _error("connection to server failed: FATAL:  sorry, too many clients already"),
        _error('could not translate host name "h" to address: Temporary failure in name resolution'),
        _error("SSL SYSCALL error: EOF detected"),
        _error("terminating connection due to administrator command", "57P01"),
        _error("terminating connection because of crash of another server process", "57P02"),
        _error("terminating connection due to idle-in-transaction timeout", "25P03", exc.InternalError),
        _error("cannot execute UPDATE in a read-only transaction", "25006", exc.InternalError),
        _error("deadlock detected", "40P01"),
        _error("could not extend file: No space left on device", "53100"),
        exc.TimeoutError("QueuePool limit of size 3 overflow 3 reached"),
        exc.PendingRollbackError("Can't reconnect until invalid transaction is rolled back", code="8s2b"),
    ],
    ids=str,
)
def test_what_passes_by_itself_is_an_outage(error: Exception) -> None:
    assert is_outage(error)
    told = StorageInternalError("as Optuna tells it")
    told.__cause__ = error
    assert is_outage(told)


@pytest.mark.parametrize(
    "error",
    [
        _error('connection to server failed: FATAL:  password authentication failed for user "u"'),
        _error('connection to server failed: FATAL:  database "d" does not exist'),
        _error("connection to server failed: fe_sendauth: no password supplied"),
        _error('relation "trials" does not exist', "42P01", exc.ProgrammingError),
        _error("duplicate key value violates unique constraint", "23505", exc.IntegrityError),
        exc.PendingRollbackError("This Session's transaction has been rolled back", code="7s2a"),
        ValueError("not of the database"),
    ],
    ids=str,
)
def test_what_stays_wrong_however_often_it_is_tried_is_no_outage(error: Exception) -> None:
    assert not is_outage(error)


def test_patience_tries_again_until_the_database_is_back_and_says_how_long_it_waits() -> None:
    waited: list[float] = []
    answers = iter([_error("Connection refused"), _error("Connection refused")])

    def call() -> str:
        if (error := next(answers, None)) is not None:
            raise error
        return "back"

    assert Patience(seconds=None, on_wait=waited.append).call(call) == "back"
    assert len(waited) == 2


def test_patience_that_is_cancelled_gives_up_at_once_with_the_last_error() -> None:
    patience = Patience(seconds=None, cancelled=threading.Event())
    calls: list[int] = []

    def call() -> None:
        calls.append(1)
        patience.cancelled.set()
        raise _error("Connection refused")

    with pytest.raises(exc.OperationalError):
        patience.call(call)
    assert calls == [1]


def test_an_sqlite_database_that_another_keeps_locked_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "SQLITE_BUSY_SECONDS", 0.01)
    storage = open_storage(f"sqlite:///{tmp_path / 'tune.db'}")
    other = sqlite3.connect(tmp_path / "tune.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waited: list[float] = []

    def let_go(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 1:
            other.execute("ROLLBACK")

    storage.patience.on_wait = let_go
    assert storage.get_all_studies() == []
    assert waited
    other.close()
    storage.engine.dispose()


# ---- opening ----


def test_looking_for_tables_creates_nothing(tmp_path: Path) -> None:
    assert not has_tables(make_url(f"sqlite:///{tmp_path / 'tune.db'}"), Patience())
    assert list(tmp_path.iterdir()) == []


def test_a_storage_survives_being_pickled_and_waits_for_outages_there_too(storage: PetskinStorage) -> None:
    optuna.create_study(storage=storage, study_name="s")
    copy = pickle.loads(pickle.dumps(storage))
    assert [study.study_name for study in copy.get_all_studies()] == ["s"]
    with copy.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    assert copy.patience.seconds is not None
    copy.engine.dispose()


def test_a_folder_with_braces_in_its_name_is_a_folder_like_any_other(tmp_path: Path) -> None:
    folder = tmp_path / "{home} {0}"
    open_storage(f"sqlite:///{folder / 'tune.db'}").engine.dispose()
    assert (folder / "tune.db").is_file()


def test_a_database_of_a_newer_petskin_tune_is_refused_with_the_way_on(storage: PetskinStorage) -> None:
    with storage.engine.begin() as connection:
        connection.execute(sqlalchemy.insert(queries.versions).values(version=queries.SCHEMA_VERSION + 1))
    with pytest.raises(UsageError, match=r'pip install -U "petskin-tune @ git\+https://'):
        open_storage(str(storage.engine.url))


def test_a_database_of_another_optuna_is_refused_in_a_sentence(storage: PetskinStorage) -> None:
    with storage.engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE alembic_version SET version_num = 'v99.0.0.a'"))
    with pytest.raises(UsageError, match=r"cannot be used: .*pip install -U optuna"):
        open_storage(str(storage.engine.url))


def test_an_older_database_of_ours_is_migrated_step_by_step(
    storage: PetskinStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add_column(connection: sqlalchemy.Connection) -> None:
        connection.execute(sqlalchemy.text("ALTER TABLE trial_leases ADD COLUMN colour TEXT"))

    version = queries.SCHEMA_VERSION + 1
    monkeypatch.setattr(queries, "SCHEMA_VERSION", version)
    monkeypatch.setitem(queries.MIGRATIONS, version - 1, add_column)
    open_storage(str(storage.engine.url)).engine.dispose()
    columns = [column["name"] for column in sqlalchemy.inspect(storage.engine).get_columns("trial_leases")]
    assert "colour" in columns
    with storage.engine.connect() as connection:
        assert queries.installed_version(connection) == version


def test_what_is_no_database_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "tune.db").write_text("a diary, not a database, and quite a long one at that\n" * 100)
    with pytest.raises(UsageError, match="cannot be opened: file is not a database"):
        open_storage(f"sqlite:///{tmp_path / 'tune.db'}")


def test_a_refusal_never_shows_the_password() -> None:
    url = normalise_url("postgresql://u:secret@h/d")
    told = unreachable(url, _error("FATAL: no such thing as secret, or secret"))
    assert "secret" not in str(told)
    told = unreachable(url, _error('FATAL: password authentication failed for user "u"'))
    assert "refuses the user or the password" in str(told)


# ---- statements ----

STATEMENT = re.compile(r"""["'](SELECT|INSERT INTO|UPDATE|DELETE FROM|ALTER|CREATE TABLE|CREATE TRIGGER|WITH) \w+""")


def test_every_sql_statement_of_ours_can_be_read_in_one_place() -> None:
    package = Path(queries.__file__).parent
    found = {path.name for path in package.rglob("*.py") if STATEMENT.search(path.read_text(encoding="utf-8"))}
    assert found == {"queries.py"}


def test_a_password_that_is_changed_in_mid_run_is_told_once_and_waited_for() -> None:
    class Denied(Exception):
        pgcode = "28P01"

    told: list[None] = []
    patience = Patience(None, on_denied=lambda: (told.append(None), patience.cancelled.set())[0])

    def denied() -> None:
        raise sqlalchemy.exc.OperationalError("SELECT 1", {}, Denied("password authentication failed"))

    with pytest.raises(sqlalchemy.exc.OperationalError):
        patience.call(denied)
    assert told == [None]
    with pytest.raises(sqlalchemy.exc.OperationalError):
        Patience(None).call(denied)  # at the door it is an error
    assert told == [None]


def test_a_full_disk_is_told_as_one() -> None:
    error = OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))
    assert "has no room left. Make room on its disk" in str(unreachable(make_url("sqlite:////x/tune.db"), error))
    assert "has no room left. Make room on its disk" in str(refusal(error))
