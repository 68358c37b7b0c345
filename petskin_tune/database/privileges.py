"""Whether this user may write to a database, asked before anything is tried."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy
from sqlalchemy.engine import URL, Connection

from petskin_tune.database import queries
from petskin_tune.database.addresses import mask
from petskin_tune.database.engine import unpooled
from petskin_tune.database.sqlite_file import may_write
from petskin_tune.errors import UsageError


def require_writable(url: URL) -> None:
    """Refuse a database that this user may only read, or in which the tables are missing and may not be created.

    Raises:
        UsageError: says what is missing.
        sqlalchemy.exc.SQLAlchemyError: it cannot be asked.
    """
    if url.get_backend_name() == "sqlite":
        file = Path(str(url.database))
        if file.is_file() and not may_write(file):
            raise read_only(f"the database {file}", "its file, or the folder in which it lies, may not be written to")
        return
    engine = sqlalchemy.create_engine(url, **unpooled(url))
    try:
        with engine.connect() as connection:
            missing = _missing(connection)
    finally:
        engine.dispose()
    if missing:
        raise read_only(f"the database {mask(url)}", missing)


def _missing(connection: Connection) -> str:
    """What this user may not do; empty: it may do all."""
    rights = connection.execute(queries.RIGHTS).one()
    if rights.read_only:
        return "its transactions are set to be read-only"
    if rights.protected:
        return f"it may not write to the table {rights.protected}"
    if queries.installed_version(connection) is None and not rights.may_create:
        return "it has no right to CREATE tables in the schema"
    return ""


def read_only(what: str, why: str) -> UsageError:
    """What a command that writes says of a database that may only be read."""
    return UsageError(
        f"This user may only read {what}: {why}. Come as a user who may write to it; to look at the study, type: "
        "petskin-tune status, show, best, diagnose or report."
    )
