"""A psycopg2 connection that does not wait for ever for an answer.

Keepalives and ``tcp_user_timeout`` notice a peer whose kernel is silent. A server that hangs, or a proxy before a
server that is gone, still acknowledges every packet: only a deadline of our own ends that wait.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import psycopg2
import psycopg2.extensions


class PunctualConnection(psycopg2.extensions.connection):
    """Whatever is not answered within ``seconds`` ends the connection: psycopg2 and SQLAlchemy see that it was lost.

    Args:
        dsn: psycopg2's.
        more: psycopg2's.
        seconds: for each statement, commit and rollback.
    """

    def __init__(self, dsn: str, *more: Any, seconds: float) -> None:
        super().__init__(dsn, *more)
        self.seconds = seconds
        self.cursor_factory = _PunctualCursor

    def commit(self) -> None:
        """As psycopg2's, within the time."""
        with self.in_time():
            super().commit()

    def rollback(self) -> None:
        """As psycopg2's, within the time."""
        with self.in_time():
            super().rollback()

    @contextlib.contextmanager
    def in_time(self) -> Iterator[None]:
        """End the connection unless the block is left within the time."""
        timer = threading.Timer(self.seconds, self._hang_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _hang_up(self) -> None:
        """Wake the thread that waits in libpq: it reads the end of the stream."""
        with contextlib.suppress(OSError, psycopg2.Error), socket.socket(fileno=os.dup(self.fileno())) as end:
            end.shutdown(socket.SHUT_RDWR)


class _PunctualCursor(psycopg2.extensions.cursor):
    connection: PunctualConnection

    def execute(self, query: Any, vars: Any = None) -> None:
        with self.connection.in_time():
            super().execute(query, vars)

    def executemany(self, query: Any, vars_list: Any) -> None:
        with self.connection.in_time():
            super().executemany(query, vars_list)
