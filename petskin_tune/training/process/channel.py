"""The child's end of the line to its worker: events go out through a thread, orders come in through another."""

from __future__ import annotations

import queue
import threading
from multiprocessing.connection import Connection
from typing import Protocol

from petskin_tune import faults
from petskin_tune.protocol import EpochDone, Event, Order, Progress, Stop, Suspend


class Channel(Protocol):
    """What a trainer needs of its worker."""

    @property
    def order(self) -> Order | None:
        """The order in force; Stop outranks Suspend."""

    def send(self, event: Event) -> None:
        """Tell the worker; never waits."""


class WorkerChannel:
    """A channel over a pipe. Training never waits for it: Progress is dropped while the pipe is busy, else nothing.

    A worker that has closed its end wants no more: that is an order to stop.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._order: Order | None = None
        self._sender = threading.Thread(target=self._send_all, name="events", daemon=True)
        self._sender.start()
        threading.Thread(target=self._receive_all, name="orders", daemon=True).start()

    @property
    def order(self) -> Order | None:
        """The order in force; Stop outranks Suspend."""
        return self._order

    def send(self, event: Event) -> None:
        """Queue an event; Progress only while no other waits."""
        if not (isinstance(event, Progress) and not self._events.empty()):
            self._events.put(event)

    def close(self) -> None:
        """Send what is queued, then return."""
        self._events.put(None)
        self._sender.join()

    def _send_all(self) -> None:
        while (event := self._events.get()) is not None:
            try:
                self._connection.send(event)
            except OSError:
                self._order = Stop()
                return
            if isinstance(event, EpochDone):
                faults.reach("epoch-event-sent")

    def _receive_all(self) -> None:
        while True:
            try:
                order = self._connection.recv()
            except (EOFError, OSError):
                self._order = Stop()
                return
            if isinstance(order, Stop) or (isinstance(order, Suspend) and self._order is None):
                self._order = order
