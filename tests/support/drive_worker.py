"""A small worker for tests of a home on a Drive: its "training" is a chain of hashes, so that any slip shows.

It uses the home, the store and the uploader as the real worker does: the database is the home's, each epoch writes one
row and one snapshot, a commit points to the snapshot, and a restart goes on from the newest good one. It prints its
last state. ``python drive_worker.py HOME EPOCHS DURABLE_LOG [free]``: without ``free`` each epoch waits until it is
durable, so that a test can say at which step a fault happens; with it training never waits, as in real life. With
``EPOCHS`` 0 it trains until a file named ``enough`` lies beside the log, and logs after which epoch it ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import sqlite3
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from petskin_tune.checkpoints.base import Stored
from petskin_tune.checkpoints.keys import trial_prefix
from petskin_tune.checkpoints.restore import newest_good
from petskin_tune.checkpoints.uploader import Uploader
from petskin_tune.home.home import Home, resolve_home
from petskin_tune.protocol import Position, SnapshotWritten

SECONDS_PER_EPOCH = 0.02
SNAPSHOT_BYTES = 200_000
PATIENCE = 240.0


@dataclass(frozen=True)
class Pointer:
    key: str
    sha256: str
    position: Position


def next_state(state: str, epoch: int) -> str:
    return hashlib.sha256(f"{state} {epoch}".encode()).hexdigest()


def undisturbed(epochs: int) -> str:
    """The last state of a run that was left alone."""
    state = ""
    for epoch in range(1, epochs + 1):
        state = next_state(state, epoch)
    return state


class Study:
    """The database: a row an epoch, and what the lease would point to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._connection() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE IF NOT EXISTS epochs (epoch INTEGER PRIMARY KEY, state TEXT)")
            connection.execute("CREATE TABLE IF NOT EXISTS pointers (number INTEGER PRIMARY KEY, key, sha256, epoch)")

    @contextlib.contextmanager
    def _connection(self):  # type: ignore[no-untyped-def]
        with contextlib.closing(sqlite3.connect(self._path, timeout=PATIENCE)) as connection, connection:
            yield connection

    def report(self, epoch: int, state: str) -> None:
        with self._connection() as connection:
            (known,) = connection.execute("SELECT max(epoch) FROM epochs").fetchone()
            if epoch > (known or 0) + 1:
                sys.exit(f"epoch {epoch} was reported after epoch {known}: one is lost")
            connection.execute("INSERT OR IGNORE INTO epochs VALUES (?, ?)", (epoch, state))
            found = connection.execute("SELECT state FROM epochs WHERE epoch = ?", (epoch,)).fetchone()
            if found != (state,):
                sys.exit(f"epoch {epoch} was reported before with another state")

    def point_to(self, stored: Stored, epoch: int) -> None:
        with self._connection() as connection:
            connection.execute(
                "INSERT INTO pointers (key, sha256, epoch) VALUES (?, ?, ?)", (stored.key, stored.sha256, epoch)
            )

    def pointers(self) -> list[Pointer]:
        with self._connection() as connection:
            rows = connection.execute("SELECT key, sha256, epoch FROM pointers ORDER BY number DESC LIMIT 2").fetchall()
        return [Pointer(key, sha256, Position(epoch, 0)) for key, sha256, epoch in rows]


def run(home: Home, epochs: int, durable_log: Path, *, free: bool) -> str:
    home.start(say=lambda line: print(line, file=sys.stderr))
    assert home.database is not None
    study = Study(home.database)
    store = home.open_store(None)
    folder = home.work / "trial"
    pointers = study.pointers()
    found = newest_good(pointers, store, folder)
    for rejected in found.rejected:
        print(f"rejected {rejected.key}: {rejected.reason}", file=sys.stderr)
    state = found.path.read_text().split()[0] if found.path else ""
    start = found.pointer.position.epoch if found.pointer else 0
    log(durable_log, "resumed", start)
    uploader = Uploader(
        store,
        trial_prefix("study", 7),
        1,
        say=lambda line: print(line, file=sys.stderr),
        known=pointers,
        settle=home.save,
    )
    folder.mkdir(parents=True, exist_ok=True)
    told = epoch = start
    for epoch in range(start + 1, epochs + 1) if epochs else itertools.count(start + 1):
        time.sleep(SECONDS_PER_EPOCH)
        state = next_state(state, epoch)
        study.report(epoch, state)
        home.epoch_saved()
        path = folder / f"local-{epoch}.pt"
        path.write_text(state.ljust(SNAPSHOT_BYTES))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        snapshot = SnapshotWritten(str(path), Position(epoch, 0), SNAPSHOT_BYTES, digest, 0.0)
        uploader.submit(snapshot, lambda stored, epoch=epoch: study.point_to(stored, epoch))  # type: ignore[misc]
        if not free:
            assert uploader.drain(PATIENCE), "a snapshot did not become durable"
        durable = uploader.state.durable
        if durable and durable.epoch > told:
            told = durable.epoch
            log(durable_log, "durable", told)
        if not epochs and durable_log.with_name("enough").exists():
            break
    log(durable_log, "ended", epoch)
    assert uploader.drain(PATIENCE), "the last snapshot did not become durable"
    uploader.close()
    assert home.close(PATIENCE), "the last copy of the database did not become durable"
    return state


def log(path: Path, word: str, epoch: int) -> None:
    with open(path, "a") as file:
        file.write(f"{word} {epoch}\n")


if __name__ == "__main__":
    place, last_epoch, log_path, *how = sys.argv[1:]
    found_home = resolve_home(place, None, None, os.environ, study="demo")
    print(run(found_home, int(last_epoch), Path(log_path), free=how == ["free"]))
