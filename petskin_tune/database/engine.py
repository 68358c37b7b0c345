"""Engines that survive hosted servers, and tables created without a race."""

from __future__ import annotations

import contextlib
import fcntl
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy
import tenacity
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import event
from sqlalchemy.engine import URL, Engine
from sqlalchemy.pool import NullPool

from petskin_tune.database import queries, sqlite_file
from petskin_tune.database.addresses import hosts_of
from petskin_tune.database.outages import Patience
from petskin_tune.database.timeouts import PunctualConnection
from petskin_tune.errors import UsageError
from petskin_tune.packages import UPGRADE
from petskin_tune.retries import Jitter

SQLITE_BUSY_SECONDS = 60.0
CONNECT_SECONDS = 10
UNACKNOWLEDGED_SECONDS = 30  # after which a connection whose packets nobody acknowledges is given up
ANSWER_SECONDS = 60.0  # the same, of a server or a proxy that acknowledges them and answers nothing
IDLE_TRANSACTION_SECONDS = 30  # after which PostgreSQL rolls back for a worker that stopped or vanished half-way
WITHOUT_CONVERSION = ("UTF8", "SQL_ASCII")  # encodings of a database in which UTF-8 is kept as it is
CREATION_SECONDS = 300  # at most, until another process may try
CREATION_ATTEMPTS = 5  # against a dashboard that creates Optuna's tables at the same time, without our lock
POOLER_PORT = 6543  # Supabase's transaction pooler
HOSTED = (".neon.tech", ".supabase.co", ".supabase.com", ".aivencloud.com")  # speak TLS only
CREATION_LOCK = 0x7065_7473_6B69_6E  # "petskin": PostgreSQL's advisory lock around the creation of tables


def engine_options(url: URL) -> dict[str, Any]:
    """Arguments of ``create_engine`` for servers that drop idle connections and pause (Neon, Supabase, Aiven)."""
    if url.get_backend_name() == "sqlite":
        return {"creator": functools.partial(sqlite_file.connect, str(url.database), "rw", SQLITE_BUSY_SECONDS)}
    arguments: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "keepalives": 1,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 5,
        "tcp_user_timeout": UNACKNOWLEDGED_SECONDS * 1000,  # keepalives say nothing while something is unanswered
        "application_name": "petskin-tune",
        "connection_factory": functools.partial(PunctualConnection, seconds=ANSWER_SECONDS),
    }
    if any(host.endswith(HOSTED) for host in hosts_of(url)):
        arguments["sslmode"] = "require"
    arguments = {name: value for name, value in arguments.items() if name not in url.query}
    arguments["client_encoding"] = "utf8"  # whatever the database's, or the environment's, is: names are Unicode
    if _is_pooler(url):
        return {"poolclass": NullPool, "connect_args": arguments}
    return {
        "pool_pre_ping": True,
        "pool_recycle": 300,
        "pool_size": 3,
        "max_overflow": 3,
        "connect_args": arguments,
    }


def _is_pooler(url: URL) -> bool:
    """Whether a transaction pooler stands in between: it keeps connections for us, and forgets what was SET on them."""
    ports = {str(url.port), *str(url.query.get("port", "")).split(",")}
    return str(POOLER_PORT) in ports or any("-pooler" in host for host in hosts_of(url))


def prepare(engine: Engine) -> None:
    """See to it that no process that stops half-way keeps the others out for good."""
    if engine.name == "sqlite":
        _prepare_sqlite(engine)
    else:
        _prepare_postgresql(engine)


def _prepare_sqlite(engine: Engine) -> None:
    """WAL and BEGIN IMMEDIATE: several processes of one host may write; a reader never turns into a writer half-way."""

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # pysqlite must not emit a BEGIN of its own
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {int(SQLITE_BUSY_SECONDS * 1000)}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _prepare_postgresql(engine: Engine) -> None:
    """A worker that was stopped, or whose machine vanished, in mid transaction does not hold its locks for good."""
    setting = f"idle_in_transaction_session_timeout = {IDLE_TRANSACTION_SECONDS * 1000}"
    if _is_pooler(engine.url):

        @event.listens_for(engine, "begin")
        def _on_begin(connection: Any) -> None:
            connection.exec_driver_sql(f"SET LOCAL {setting}")

    else:

        @event.listens_for(engine, "connect")
        def _on_connect(connection: Any, _record: Any) -> None:
            with connection.cursor() as cursor:
                cursor.execute(f"SET {setting}")
            connection.commit()


# ---- creation --------------------------------------------------------------------------------------------------------


def require_tables(engine: Engine) -> None:
    """Refuse tables of another version, where they may not be brought up to date.

    Raises:
        UsageError: they belong to another petskin-tune.
    """
    version = _version(engine)
    _refuse_newer(version)
    if version != queries.SCHEMA_VERSION:
        raise UsageError(
            "The database was made by an older petskin-tune, and this user may not write to it: let one who may look "
            "first."
        )


def _refuse_newer(version: int | None) -> None:
    if version is not None and version > queries.SCHEMA_VERSION:
        raise UsageError(
            f"The database was made by a newer petskin-tune (schema {version}, known here: {queries.SCHEMA_VERSION}); "
            f"upgrade with: {UPGRADE}"
        )


def create_tables(url: URL) -> None:
    """Create Optuna's tables and ours where they are missing; of racing processes one does it, the others wait.

    Raises:
        UsageError: the tables belong to another version of Optuna or to a newer petskin-tune.
    """
    engine = _unpooled_engine(url)
    try:
        if _version(engine) != queries.SCHEMA_VERSION:
            with _creation_lock(engine):
                _create(url, engine)
    finally:
        engine.dispose()


def has_tables(url: URL, patience: Patience) -> bool:
    """Whether our tables exist there. Creates nothing, not even an empty SQLite file."""
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_file():
        return False
    options = reading(url) if url.get_backend_name() == "sqlite" else unpooled(url)
    engine = sqlalchemy.create_engine(url, **options)  # not prepared: that would turn on WAL
    try:
        return patience.call(lambda: _version(engine)) is not None
    finally:
        engine.dispose()


@contextlib.contextmanager
def named_incompatibility() -> Iterator[None]:
    """Turn Optuna's complaint about tables of another version into a sentence.

    Raises:
        UsageError: Optuna complained.
    """
    try:
        yield
    except RuntimeError as error:
        raise UsageError(f"The database cannot be used: {' '.join(str(error).split())}") from error


def unpooled(url: URL) -> dict[str, Any]:
    """Arguments of ``create_engine`` for a few statements."""
    if url.get_backend_name() == "sqlite":
        return {"poolclass": NullPool, "connect_args": {"timeout": SQLITE_BUSY_SECONDS}}
    return {"poolclass": NullPool, "connect_args": engine_options(url)["connect_args"]}


def reading(url: URL) -> dict[str, Any]:
    """Arguments of ``create_engine`` for an SQLite file to which nothing is written; each time it is looked at anew."""
    connect = functools.partial(sqlite_file.connect, str(url.database), "ro", SQLITE_BUSY_SECONDS)
    return {"poolclass": NullPool, "creator": connect}


def _unpooled_engine(url: URL) -> Engine:
    engine = sqlalchemy.create_engine(url, **unpooled(url))
    prepare(engine)
    return engine


def _version(engine: Engine) -> int | None:
    with engine.connect() as connection:
        return queries.installed_version(connection)


def _require_unicode(engine: Engine) -> None:
    """Refuse a database of PostgreSQL's that cannot hold whatever a study, a class or a worker is called.

    Raises:
        UsageError: says what to create instead.
    """
    with engine.connect() as connection:
        raw = connection.connection.dbapi_connection
        encoding = raw.get_parameter_status("server_encoding") if isinstance(raw, PunctualConnection) else None
    if encoding not in (None, *WITHOUT_CONVERSION):
        raise UsageError(
            f"The database has the encoding {encoding}, which cannot hold every name: create another, CREATE DATABASE "
            "NAME ENCODING 'UTF8' TEMPLATE template0, and give its URL."
        )


def _create(url: URL, engine: Engine) -> None:
    version = _version(engine)
    _refuse_newer(version)
    if version is None:  # a study that was begun in such a database goes on
        _require_unicode(engine)
    _create_optunas(url)
    with engine.begin() as connection:
        queries.create_or_migrate(connection)


def _was_created_meanwhile(error: BaseException) -> bool:
    """Whether a table or a row was missing one moment and there the next: a stock Optuna creates its tables, too."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    text = str(getattr(cause, "orig", "")).lower()
    return any(words in text for words in ("already exists", "duplicate key", "unique constraint"))


@tenacity.retry(
    retry=tenacity.retry_if_exception(_was_created_meanwhile),
    stop=tenacity.stop_after_attempt(CREATION_ATTEMPTS),
    wait=Jitter(multiplier=0.5, max=0.5, min=0.05),
    reraise=True,
)
def _create_optunas(url: URL) -> None:
    with named_incompatibility():
        RDBStorage(optunas_url(url), engine_kwargs=unpooled(url))


def optunas_url(url: URL) -> str:
    """The URL as Optuna takes it, which fills in braces."""
    return url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")


@contextlib.contextmanager
def _creation_lock(engine: Engine) -> Iterator[None]:
    if engine.name == "postgresql":
        with engine.connect() as connection, connection.begin():  # of the transaction: works behind a pooler, too
            raw = connection.connection.dbapi_connection
            assert isinstance(raw, PunctualConnection)
            raw.seconds = CREATION_SECONDS
            connection.execute(
                sqlalchemy.text(f"SET LOCAL idle_in_transaction_session_timeout = {CREATION_SECONDS * 1000}")
            )
            connection.execute(queries.KEEP_CREATORS_OUT, {"key": CREATION_LOCK})
            yield
        return
    with open(f"{engine.url.database}.lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released with the file
        yield
