"""A home and its store on a simulated Drive (a real FUSE mount), used by real processes that are killed."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from petskin_tune.errors import UsageError
from petskin_tune.home.home import resolve_home
from tests.support import drive_worker
from tests.support.drive import Faults, SimulatedDrive, unavailable
from tests.support.places import PROJECT
from tests.support.soak import first, times

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")

EPOCHS = 14
KILLS = times(20, least=7)  # at random instants
PATIENCE = 300.0


class Session:
    """One user's Drive, and machines that come and go."""

    def __init__(self, folder: Path, drive: SimulatedDrive) -> None:
        self.drive = drive
        self.home = drive.path / "petskin"
        self.log = folder / "durable.log"
        self.fired = folder / "fired"
        self.epochs = EPOCHS  # 0: until the test has seen enough
        self.free = False  # whether training goes on while snapshots are on their way
        self._said = folder / "said"  # by the newest worker, on standard error
        self._disk = folder / "disk-of-the-machine"

    def start(self, faults: str = "") -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(PROJECT), *sys.path]),
            "XDG_CACHE_HOME": str(self._disk),
            "TUNE_FAULTS": faults,
            "TUNE_FAULTS_LOG": str(self.fired),
        }
        command = [sys.executable, drive_worker.__file__, str(self.home), str(self.epochs), str(self.log)]
        command += ["free"] if self.free else []
        with open(self._said, "w") as said:
            return subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=said, text=True, cwd=PROJECT
            )

    def said(self) -> str:
        """What the newest worker has said so far."""
        return self._said.read_text()

    def enough(self) -> None:
        """Let a worker that trains until then end."""
        self.log.with_name("enough").touch()

    def end(self, worker: subprocess.Popen[str]) -> str:
        """The last state of a worker, which must be that of a run that was left alone."""
        state, _ = worker.communicate(timeout=PATIENCE)
        assert worker.returncode == 0, self.said()
        assert state.strip() == drive_worker.undisturbed(self.words("ended")[-1])
        return state.strip()

    def finish(self) -> str:
        """Run a worker to the end; what it said."""
        self.end(self.start())
        return self.said()

    def killed(self, fault: str) -> None:
        """Run a worker to its death by a fault, which must be the newest that fired."""
        worker = self.start(fault)
        worker.communicate(timeout=PATIENCE)
        assert worker.returncode == -signal.SIGKILL, self.said()
        assert self.fired.read_text().splitlines()[-1].split()[0] == fault.partition("=")[0]

    def lose_machine(self) -> int:
        shutil.rmtree(self._disk, ignore_errors=True)
        return self.drive.lose_machine()

    def words(self, word: str) -> list[int]:
        if not self.log.exists():
            return []
        return [int(line.split()[1]) for line in self.log.read_text().splitlines() if line.split()[0] == word]


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with SimulatedDrive(tmp_path / "google") as drive:
        yield Session(tmp_path, drive)


def test_a_run_left_alone_ends_as_it_should_and_leaves_few_files(session: Session) -> None:
    session.finish()
    session.drive.wait_until_synchronised()
    kept = sorted(path.name.rsplit("-", 1)[0] for path in session.drive.cloud.rglob("*.pt"))
    assert kept == [f"snapshot-1-{epoch}-0" for epoch in (EPOCHS - 1, EPOCHS)]
    assert len(list(session.drive.cloud.rglob("tune-*.db"))) == 3
    assert list(session.drive.cloud.rglob("claim-*")) == []
    assert list(session.drive.cloud.rglob("*.partial")) == []


POINTS = [
    "home-copied@2",
    "file-written@8",
    "upload-committed@3",
    "home-claiming@1",
    "file-copied@2",
    "file-copied@6",
    "file-written@3",
    "home-counted@2",
    "upload-verified@3",
    "before-old-snapshots-go@4",
    "file-emptied@3",
]


@pytest.mark.parametrize("point", first(3, POINTS))
def test_killed_at_a_named_point_with_its_machine_lost_the_run_ends_as_if_left_alone(
    session: Session, point: str
) -> None:
    session.drive.let(Faults(sync_delay=0.03, sync_rate=20e6))
    name, _, nth = point.partition("@")
    session.killed(f"{name}=kill@{nth}")
    session.lose_machine()
    session.finish()


@pytest.mark.parametrize("point", ["home-restoring", "home-restored"])
def test_killed_while_the_database_is_restored_the_next_one_restores_it(session: Session, point: str) -> None:
    session.killed("upload-committed=kill@10")
    session.lose_machine()
    session.killed(f"{point}=kill@1")
    session.finish()
    assert session.words("resumed")[-1] >= 8


def test_what_was_called_durable_is_what_the_next_machine_goes_on_from(session: Session) -> None:
    session.drive.let(Faults(delay=0.001))
    for nth in (3, 4, 5):
        session.killed(f"before-old-snapshots-go=kill@{nth}")
        session.drive.wait_until_synchronised()
        called_durable = session.words("durable")[-1]
        session.lose_machine()
        session.killed("home-counted=kill@1")
        assert session.words("resumed")[-1] >= called_durable > 0
    session.finish()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_machines_lost_at_random_with_a_drive_that_fails_and_forgets(session: Session, seed: int) -> None:
    chance = random.Random(seed)
    session.epochs, session.free = 0, True
    lost = 0
    for kill in range(KILLS):
        faults = Faults(eio_every=chance.randint(20, 60), delay=0.001, sync_delay=chance.uniform(0, 0.3), sync_rate=5e6)
        # Now and then a machine is lost before anything that it wrote has reached the cloud.
        session.drive.let(replace(faults, sync_delay=3600.0) if kill % 5 == 4 else faults)
        worker = session.start()
        wait_for_durable(session, worker, chance.randint(0, 4))
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(chance.uniform(0.0, 0.5))
        assert worker.poll() is None, session.said()
        worker.kill()
        worker.communicate()
        lost += session.lose_machine()
    session.drive.let(Faults())
    session.enough()
    session.finish()
    assert lost > 0, "no machine was lost with anything not yet synchronised"
    assert session.drive.fired()["eio"] > 0


def test_a_drive_that_fails_now_and_then_costs_time_and_nothing_else(session: Session) -> None:
    session.drive.let(Faults(eio_every=9, wrong_reads=2, delay=0.001))
    said = session.finish()
    fired = session.drive.fired()
    assert fired["eio"] > 3
    assert fired["wrong-read"] == 2
    assert "training goes on" in said


@pytest.mark.parametrize("how", ["disconnect", "unmount"])
def test_a_drive_that_goes_away_in_mid_run_is_waited_for(session: Session, how: str) -> None:
    session.epochs, session.free = 0, True
    worker = session.start()
    wait_for_durable(session, worker, 5)
    assert "training goes on" not in session.said()
    getattr(session.drive, how)()
    wait_until(lambda: "training goes on" in session.said() or worker.poll() is not None)
    assert worker.poll() is None, session.said()
    if how == "unmount":
        assert list(session.drive.path.iterdir()) == [], "something was written where Drive was mounted"
    session.drive.reconnect()
    wait_for_durable(session, worker, 1)
    session.enough()
    session.end(worker)


def test_a_damaged_newest_snapshot_and_copy_fall_back_and_are_named(session: Session) -> None:
    session.killed("upload-committed=kill@6")
    session.drive.wait_until_synchronised()
    session.lose_machine()
    newest_copy = max(session.home.rglob("tune-*.db"))
    os.truncate(newest_copy, 5000)
    with contextlib.closing(sqlite3.connect(sorted(session.drive.cloud.rglob("tune-*.db"))[-2])) as connection:
        (key,) = connection.execute("SELECT key FROM pointers ORDER BY number DESC LIMIT 1").fetchone()
    snapshot = session.home / "checkpoints" / key
    with open(snapshot, "r+b") as file:
        file.write(b"\xff")
    said = session.finish()
    assert f"({newest_copy.name} " in said
    assert "going on with the one before" in said
    assert f"rejected {key}: " in said


def test_a_second_worker_on_a_drive_in_use_is_refused(session: Session) -> None:
    session.epochs = 0
    first = session.start()
    wait_for_durable(session, first, 2)
    second = session.start()
    second.communicate(timeout=PATIENCE)
    assert second.returncode != 0
    assert "UsageError: Another worker (" in session.said()
    session.enough()
    session.end(first)


def test_a_home_on_a_drive_that_does_not_answer_is_refused_in_one_sentence(session: Session) -> None:
    session.finish()
    session.drive.disconnect()
    worker = session.start()
    worker.communicate(timeout=PATIENCE)
    said = session.said()
    assert worker.returncode != 0
    assert "petskin_tune.errors.UsageError: " in said
    assert "Transport endpoint is not connected" in said
    home = resolve_home(str(session.home), None, None, {}, study="demo")
    with pytest.raises(UsageError, match=r"does not answer \(Transport endpoint is not connected\)"):
        _ = home.is_there


def wait_for_durable(session: Session, worker: subprocess.Popen[str], times: int) -> None:
    """Return when a worker that is not to end has called so many epochs more durable."""
    wanted = len(session.words("durable")) + times
    wait_until(lambda: len(session.words("durable")) >= wanted or worker.poll() is not None)
    assert worker.poll() is None, session.said()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
