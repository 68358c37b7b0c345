"""SQL URLs, engines that survive hosted servers, outages told from errors, tables created without a race."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy
import tenacity
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import event
from sqlalchemy.engine import URL, Engine
from sqlalchemy.pool import NullPool

from petskin_tune.database import queries, sqlite_file
from petskin_tune.database.timeouts import PunctualConnection
from petskin_tune.database.urls import file_url, read_url
from petskin_tune.error_text import HARMLESS, masked, masked_url, shortened
from petskin_tune.errors import UsageError
from petskin_tune.retries import retrying

SQLITE_BUSY_SECONDS = 60.0
CONNECT_SECONDS = 10
UNACKNOWLEDGED_SECONDS = 30  # after which a connection whose packets nobody acknowledges is given up
ANSWER_SECONDS = 60.0  # the same, of a server or a proxy that acknowledges them and answers nothing
IDLE_TRANSACTION_SECONDS = 30  # after which PostgreSQL rolls back for a worker that stopped or vanished half-way
RETRY_MAX_SECONDS = 10.0  # never further apart, so that an owner is back before a claimer's grace has passed
CREATION_SECONDS = 300  # at most, until another process may try
CREATION_ATTEMPTS = 5  # against a dashboard that creates Optuna's tables at the same time, without our lock
POOLER_PORT = 6543  # Supabase's transaction pooler
HOSTED = (".neon.tech", ".supabase.co", ".supabase.com", ".aivencloud.com")  # speak TLS only
DEFAULT_PORT = 5432
LONGEST_URL = 200  # characters of one in a sentence
LONGEST_DRIVER_TEXT = 600
_SAID_BY_LIBPQ = """
    a accepting access address an and are at authentication available be by certificate client closed connect
    connection could database denied directory does encryption entry error exist expired failed fatal file for
    from given has host hostname in invalid is it known lost name no not of on or password permission port
    postgres postgresql refused resolution role root running schema server service socket ssl such table tcp
    ip temporary that the this timeout to translate unable unexpectedly unexpected up user was with
"""
COMMON_WORDS = frozenset(_SAID_BY_LIBPQ.split())
CREATION_LOCK = 0x7065_7473_6B69_6E  # "petskin": PostgreSQL's advisory lock around the creation of tables

Result = TypeVar("Result")


# ---- URLs and engines ------------------------------------------------------------------------------------------------


def normalise_url(url: str) -> URL:
    """SQLAlchemy's URL of what a person typed; every spelling of PostgreSQL means psycopg2.

    Raises:
        UsageError: see :func:`petskin_tune.database.urls.read_url`.
    """
    read = read_url(url)
    if read.backend == "sqlite":
        return URL.create("sqlite", database=read.database, query=read.query)
    query, (host, port) = dict(read.query), read.hosts[0] if read.hosts else (None, None)
    if len(read.hosts) > 1 or (host or "").startswith(("/", "@")):  # as only libpq reads it
        query["host"] = ",".join(name for name, _ in read.hosts)
        if any(number for _, number in read.hosts):
            query["port"] = ",".join(str(number or DEFAULT_PORT) for _, number in read.hosts)
        host = port = None
    return URL.create("postgresql+psycopg2", read.user, read.password, host or None, port, read.database or None, query)


def hosts_of(url: URL) -> list[str]:
    """The servers of a URL that :func:`normalise_url` returned."""
    return str(url.query.get("host") or url.host or "").split(",")


def mask(url: URL) -> str:
    """The URL for people's eyes, without password and without what may be a secret."""
    if url.get_backend_name() == "sqlite":
        return shortened(file_url(Path(str(url.database))), LONGEST_URL)
    text = url.set(drivername="postgresql").render_as_string(hide_password=False)
    return shortened(masked_url(text).replace("%2F", "/").replace("%2C", ","), LONGEST_URL)


def without_password(text: str, url: URL) -> str:
    """What a driver said about the URL, in one line; nothing of it where it repeats a secret.

    Words are never blotted out of it: in ``database "***" does not exist`` one could read the password.
    """
    said = " ".join(text.split())
    public = {url.username, url.database, *hosts_of(url), *(v for k, v in url.query.items() if k in HARMLESS)}
    rest = _without(said, {str(part) for part in public if part})
    secrets = {str(url.password)} if url.password else set()
    secrets |= {str(value) for key, value in url.query.items() if key not in HARMLESS}
    spellings = {*secrets, *map(urllib.parse.quote_plus, secrets), *map(urllib.parse.quote, secrets)}
    if any(_repeats(rest, secret) for secret in spellings):
        return "its answer is not shown, because the password stands in it"
    return shortened(masked(said), LONGEST_DRIVER_TEXT)


def _without(text: str, words: set[str]) -> str:
    for word in sorted(words, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", " ", text)
    return text


def _repeats(text: str, secret: str) -> bool:
    if secret.lower() in COMMON_WORDS:  # it stands in what libpq says to everybody
        return False
    return re.search(rf"(?<!\w){re.escape(secret)}(?!\w)", text) is not None


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


# ---- outages ---------------------------------------------------------------------------------------------------------

# Connection, idle too long, a standby, deadlock, resources, lock, shutdown, disk.
_TRANSIENT_SQLSTATES = ("08", "25P03", "25006", "40", "53", "55P03", "57", "58")
CONNECTION_WAS_LOST = "8s2b"  # https://sqlalche.me/e/20/8s2b
_TRANSIENT_SQLITE = ("locked", "busy", "disk i/o", "full")
_DENIED = ("authentication failed", "no password supplied", "is not permitted to log in", "no pg_hba.conf entry")
_PERMANENT_CONNECT = (*_DENIED, "does not exist", "invalid connection option")


def is_outage(error: BaseException | None) -> bool:
    """Whether the database was away, restarting or busy, so that the same call may succeed later."""
    while error is not None:
        if isinstance(error, sqlalchemy.exc.DBAPIError):
            return _is_transient(error)
        if isinstance(error, sqlalchemy.exc.TimeoutError):  # the pool had no connection to give
            return True
        if isinstance(error, sqlalchemy.exc.PendingRollbackError) and error.code == CONNECTION_WAS_LOST:
            return True  # Optuna tried another statement on it before it gave up
        error = error.__cause__
    return False


def _is_transient(error: sqlalchemy.exc.DBAPIError) -> bool:
    text = str(error.orig).lower()
    if type(error.orig).__module__.startswith("sqlite3"):
        return isinstance(error, sqlalchemy.exc.OperationalError) and any(word in text for word in _TRANSIENT_SQLITE)
    if error.connection_invalidated or isinstance(error, sqlalchemy.exc.InterfaceError):
        return True
    if any(word in text for word in _PERMANENT_CONNECT):
        return False
    code = getattr(error.orig, "pgcode", None)
    if code is not None:
        return str(code).startswith(_TRANSIENT_SQLSTATES)
    return isinstance(error, sqlalchemy.exc.OperationalError) or "connection" in text


def of_database(error: BaseException | None) -> sqlalchemy.exc.DBAPIError | None:
    """The database's error behind ``error``, as SQLAlchemy tells it; Optuna wraps it."""
    while error is not None and not isinstance(error, sqlalchemy.exc.DBAPIError):
        error = error.__cause__
    return error


def is_denied(error: BaseException) -> bool:
    """Whether the server does not let this user in, or not any more: a password that was changed."""
    found = of_database(error)
    if found is None or found.orig is None:
        return False
    code = str(getattr(found.orig, "pgcode", None) or "")
    return code.startswith("28") or any(words in str(found.orig) for words in _DENIED)


def _nobody(_seconds: float) -> None:
    pass


@dataclass
class Patience:
    """How long a call waits for a database that is away, and who is told.

    Attributes:
        seconds: give up after so long; None: never.
        cancelled: set it, and a waiting call gives up at once.
        on_wait: called with the seconds that the database has been away, before every new attempt.
        on_denied: called when the server lets this user in no more, which is then waited for as for an outage; None:
            that is an error.
        failures: how often a call has found it away so far, in whatever thread.
    """

    seconds: float | None = 15.0
    cancelled: threading.Event = field(default_factory=threading.Event)
    on_wait: Callable[[float], None] = _nobody
    on_denied: Callable[[], None] | None = None
    failures: int = 0

    def _passes(self, error: BaseException) -> bool:
        return is_outage(error) or (self.on_denied is not None and is_denied(error))

    def call(self, function: Callable[[], Result]) -> Result:
        """The result of ``function``, tried again while the database is away (its last error when patience ends)."""

        def before_sleep(state: tenacity.RetryCallState) -> None:
            self.failures += 1
            error = state.outcome.exception() if state.outcome else None
            if self.on_denied is not None and error is not None and is_denied(error):
                self.on_denied()
            self.on_wait(state.seconds_since_start or 0.0)

        again = retrying(
            self.seconds,
            self._passes,
            stopped=self.cancelled,
            pauses=(0.1, RETRY_MAX_SECONDS),
            before_pause=before_sleep,
        )
        return again(function)


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
            "upgrade with: pip install -U petskin-tune"
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


def _create(url: URL, engine: Engine) -> None:
    _refuse_newer(_version(engine))
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
    wait=tenacity.wait_random(0.05, 0.5),
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
