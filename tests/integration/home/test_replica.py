"""A home on a network disk, shared by machines that are folders here: each has a local disk of its own."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from petskin_tune import faults
from petskin_tune.errors import LeaseLost, UsageError
from petskin_tune.files import temporary
from petskin_tune.files.durable import PASSING, Damaged, Unavailable
from petskin_tune.home import claim as home_claim
from petskin_tune.home import copies as home_copies
from petskin_tune.home.claim import Claim
from petskin_tune.home.copies import Copies, LocalState
from petskin_tune.home.replica import DatabaseReplica
from petskin_tune.identity import Identity

PATIENCE = 120.0  # seconds; no test waits so long unless it fails
NEVER = 3600.0


class Machine:
    """One machine with a local disk; its commands see the same home as the others'."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.home = folder / "drive" / "petskin"
        self.local = folder / name
        self.database = self.local / "tune.db"
        self.said: list[str] = []
        self.open_ones: list[DatabaseReplica] = []

    def start(
        self, mode: Any = "owner", *, take_over: bool = False, beat: float = NEVER, watch: float = 0.05
    ) -> DatabaseReplica:
        self.home.mkdir(parents=True, exist_ok=True)
        found = DatabaseReplica(self.home, self.database, self.said.append, beat_seconds=beat, watch_seconds=watch)
        found.open(mode, take_over=take_over)
        self.open_ones.append(found)
        return found

    def add(self, *epochs: int) -> None:
        with contextlib.closing(sqlite3.connect(self.database)) as connection, connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("CREATE TABLE IF NOT EXISTS epochs (epoch INTEGER)")
            connection.executemany("INSERT INTO epochs VALUES (?)", [(epoch,) for epoch in epochs])

    def epochs(self) -> list[int]:
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            return [row[0] for row in connection.execute("SELECT epoch FROM epochs ORDER BY epoch")]

    def lose(self) -> None:
        """The machine vanishes: nothing more is written by it, its disk is gone."""
        for running in self.open_ones:
            running._claim.owned = False
            running._lost = LeaseLost("the machine is gone")
            running.close(PATIENCE)
        self.open_ones.clear()
        for path in [*self.local.iterdir()]:
            path.unlink()

    def copies(self) -> list[str]:
        return sorted(path.name for path in (self.home / "database").glob("tune-*.db"))

    def claims(self) -> list[str]:
        return sorted(path.name for path in (self.home / "database").glob("claim-*"))


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Machine]]:
    made: dict[str, Machine] = {}

    def use(name: str) -> Machine:
        """From here on, commands are typed on this machine."""
        mine = Identity(host=name, boot=name, pid_namespace="1", pid=os.getpid(), started=0.0)
        monkeypatch.setattr(home_claim.Identity, "mine", classmethod(lambda _cls: mine))
        monkeypatch.setattr(home_claim.Identity, "is_of_this_host", lambda self: self.host == name)
        monkeypatch.setattr(home_claim.Identity, "is_alive", lambda self: True if self.host == name else None)
        return made.setdefault(name, Machine(tmp_path, name))

    monkeypatch.setattr(home_claim, "LOOK_SECONDS", 0.01)
    yield use
    for machine in made.values():
        for running in machine.open_ones:
            running.close(0.0)


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Callable[[], list[str]]]:
    """Plan faults for this process; the answer tells which fired."""

    def plan_faults(text: str) -> Callable[[], list[str]]:
        log = tmp_path / "fired"
        log.unlink(missing_ok=True)
        monkeypatch.setenv("TUNE_FAULTS_LOG", str(log))
        monkeypatch.setattr(faults, "_faults", faults._parse(text))
        faults._reached.clear()
        return lambda: [line.split()[0] for line in log.read_text().splitlines()] if log.exists() else []

    return plan_faults


# ---- copies ----


def test_the_database_never_lies_in_the_home_and_its_copies_are_whole_databases(machines: Any) -> None:
    first = machines("first")
    database = first.start()
    first.add(1, 2)
    database.save()
    assert not list(first.home.rglob("tune.db*"))
    (copy,) = first.copies()
    with contextlib.closing(sqlite3.connect(first.home / "database" / copy)) as connection:
        assert connection.execute("SELECT count(*) FROM epochs").fetchone() == (2,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert len(list((first.home / "database").glob("tune-*"))) == 1


def test_another_machine_goes_on_where_the_lost_one_was_saved(machines: Any) -> None:
    first = machines("first")
    database = first.start()
    first.add(1, 2)
    database.request_save()
    wait_until(lambda: database.is_saved)
    first.add(3)
    first.lose()
    second = machines("second")
    second.start(take_over=True)
    assert second.epochs() == [1, 2]


def test_a_copy_is_taken_of_a_database_in_use_without_the_writes_that_are_open(machines: Any) -> None:
    first = machines("first")
    database = first.start()
    first.add(1)
    with contextlib.closing(sqlite3.connect(first.database, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO epochs VALUES (99)")
        database.save()
        writer.execute("ROLLBACK")
    first.lose()
    second = machines("second")
    second.start(take_over=True)
    assert second.epochs() == [1]


def test_the_three_newest_copies_stay(machines: Any) -> None:
    first = machines("first")
    database = first.start()
    for epoch in range(1, 6):
        first.add(epoch)
        database.save()
    assert [name.split("-")[3] for name in first.copies()] == ["000003", "000004", "000005"]


def test_nothing_is_written_when_nothing_has_changed(machines: Any) -> None:
    first = machines("first")
    database = first.start()
    first.add(1)
    database.save()
    before = first.copies()
    database.save()
    assert database.close(PATIENCE)
    assert first.copies() == before


@pytest.mark.parametrize("how", ["truncated", "bit-flipped", "missing"])
def test_a_damaged_newest_copy_falls_back_to_the_one_before_and_says_so(machines: Any, how: str) -> None:
    first = machines("first")
    database = first.start()
    for epoch in (1, 2):
        first.add(epoch)
        database.save()
    first.lose()
    newest = first.home / "database" / first.copies()[-1]
    content = bytearray(newest.read_bytes())
    if how == "missing":
        newest.unlink()
    elif how == "truncated":
        newest.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 1
        newest.write_bytes(content)
    second = machines("second")
    second.start(take_over=True)
    assert second.epochs() == [1]
    said = [line for line in second.said if "cannot be used" in line]
    assert len(said) == (how != "missing")
    assert all(newest.name in line and "going on with the one before" in line for line in said)


def test_after_a_fall_back_new_copies_are_newer_than_the_damaged_one(machines: Any) -> None:
    first = machines("first")
    database = first.start()
    for epoch in (1, 2, 3):
        first.add(epoch)
        database.save()
    first.lose()
    newest = first.home / "database" / first.copies()[-1]
    newest.write_bytes(b"")
    second = machines("second")
    database = second.start(take_over=True)
    second.add(4)
    database.save()
    second.lose()
    third = machines("third")
    third.start(take_over=True)
    assert third.epochs() == [1, 2, 4]


def test_when_no_copy_is_whole_no_empty_study_takes_their_place(machines: Any) -> None:
    first = machines("first")
    database = first.start()
    first.add(1)
    database.save()
    first.lose()
    (first.home / "database" / first.copies()[0]).write_bytes(b"")
    second = machines("second")
    with pytest.raises(UsageError, match=r"None of the 1 copies of the database in .* is whole"):
        second.start(take_over=True)
    assert not second.database.exists()
    assert second.claims() == first.claims()


def test_an_older_copy_never_replaces_what_this_disk_holds(machines: Any) -> None:
    first = machines("first")
    database = first.start()
    first.add(1)
    database.save()
    first.add(2)
    database._lost = LeaseLost("as if it were killed before its next copy")
    database.close(PATIENCE)
    again = first.start(take_over=True)
    assert first.epochs() == [1, 2]
    again.save()
    first.lose()
    second = machines("second")
    second.start(take_over=True)
    assert second.epochs() == [1, 2]


@pytest.mark.parametrize("point", ["home-counted", "file-copied", "file-written", "home-copied"])
def test_a_copy_that_ends_at_any_point_loses_nothing_of_this_disk(machines: Any, plan: Any, point: str) -> None:
    first = machines("first")
    database = first.start()
    first.add(1)
    database.save()
    first.add(2)
    fired = plan(f"{point}=raise@1")
    with pytest.raises(RuntimeError):
        database.save()
    assert fired() == [point]
    first.add(3)
    database._lost = LeaseLost("as if it were killed there")
    database.close(PATIENCE)
    first.start(take_over=True)
    assert first.epochs() == [1, 2, 3]


def test_a_database_that_belongs_to_a_deleted_home_does_not_come_back(machines: Any) -> None:
    first = machines("first")
    database = first.start()
    first.add(1)
    assert database.close(PATIENCE)
    for path in [*(first.home / "database").iterdir()]:
        path.unlink()
    first.start()
    assert not first.database.exists()
    (aside,) = first.local.glob("*.aside")
    assert any("belongs to another home" in line and str(aside) in line for line in first.said)


def test_a_damaged_database_on_this_disk_is_set_aside_and_the_copy_restored(machines: Any) -> None:
    first = machines("first")
    database = first.start()
    first.add(*range(2000))
    assert database.close(PATIENCE)
    content = bytearray(first.database.read_bytes())
    content[4096:12288] = bytes(8192)
    first.database.write_bytes(content)
    first.start()
    assert len(first.epochs()) == 2000
    assert any("is damaged: it was set aside" in line for line in first.said)


def test_a_newest_copy_that_was_read_wrongly_once_is_read_again(machines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = machines("first")
    database = first.start()
    for epoch in (1, 2):
        first.add(epoch)
        database.save()
    first.lose()
    real, answers = home_copies.copy_out, [Damaged("wrong bytes, once")]

    def wrong_once(source: Path, target: Path, expected: str) -> None:
        if answers:
            raise answers.pop()
        real(source, target, expected)

    monkeypatch.setattr(home_copies, "copy_out", wrong_once)
    second = machines("second")
    second.start(take_over=True)
    assert answers == []
    assert second.epochs() == [1, 2]
    assert not any("cannot be used" in line for line in second.said)


# ---- a home that refuses ----


def test_a_home_that_refuses_once_while_the_database_is_restored_is_asked_again(
    machines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = machines("first")
    database = first.start()
    first.add(1)
    database.save()
    first.lose()
    real, refusals = home_copies.copy_out, [Unavailable("tune.db: Input/output error")] * 2

    def refuse(source: Path, target: Path, expected: str) -> None:
        if refusals:
            raise refusals.pop()
        real(source, target, expected)

    monkeypatch.setattr(home_copies, "copy_out", refuse)
    second = machines("second")
    second.start(take_over=True)
    assert refusals == []
    assert second.epochs() == [1]


def test_a_full_disk_of_this_machine_ends_neither_the_signs_of_life_nor_the_copies(
    machines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refused = temporary.tempfile.TemporaryDirectory, []

    def full_at_first(**options: Any) -> Any:
        if database_is_open and len(refused) < 2:
            refused.append(True)
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(**options)

    database_is_open = False
    monkeypatch.setattr(temporary.tempfile, "TemporaryDirectory", full_at_first)
    first = machines("first")
    database = first.start(beat=0.05)
    database_is_open = True
    wait_until(lambda: len(refused) == 2)
    first.add(1)
    database.request_save()
    wait_until(lambda: database.is_saved)
    (before,) = first.claims()[-1:]
    wait_until(lambda: first.claims()[-1:] > [before])
    assert "No space left on device" in " ".join(first.said)


def test_a_home_that_refuses_is_tried_again_while_training_goes_on(machines: Any, plan: Any) -> None:
    first = machines("first")
    database = first.start()
    first.add(1)
    fired = plan(f"file-copied=raise:{errno.EIO}@1")
    database.request_save()
    wait_until(lambda: database.is_saved)
    wait_until(lambda: first.said[-1] == "The database is copied to the home again.")
    assert fired() == ["file-copied"]
    assert "The home refuses (" in first.said[-2]


def test_a_copy_that_the_home_refuses_is_told_to_who_asked_for_it(machines: Any, plan: Any) -> None:
    first = machines("first")
    database = first.start()
    first.add(1)
    fired = plan(f"file-copied=raise:{errno.ENOTCONN}@1")
    with pytest.raises(Unavailable):
        database.save()
    assert fired() == ["file-copied"]
    assert issubclass(Unavailable, PASSING)


def test_the_last_copy_is_given_up_in_time_and_said(machines: Any, plan: Any) -> None:
    first = machines("first")
    database = first.start()
    first.add(1)
    fired = plan(f"file-copied=raise:{errno.EIO}")
    database.request_save()
    wait_until(lambda: bool(fired()))
    assert not database.close(0.2)
    wait_until(lambda: "last changes are not in the home yet" in first.said[-1])
    plan("")
    again = first.start(take_over=True)
    assert first.epochs() == [1]
    assert again.close(PATIENCE)


# ---- one worker at a time ----


def test_a_second_worker_on_this_machine_is_refused_at_once(machines: Any) -> None:
    first = machines("first")
    first.start()
    with pytest.raises(UsageError, match=r"Another worker \(first, pid \d+\) uses this home.*--take-over"):
        first.start(watch=NEVER)


def test_a_worker_elsewhere_that_gives_signs_of_life_is_not_disturbed(machines: Any) -> None:
    machines("first").start(beat=0.02)
    second = machines("second")
    with pytest.raises(UsageError, match=r"Another worker \(first, pid \d+\) uses this home"):
        second.start(watch=NEVER)
    assert "looking for" in second.said[0]


def test_a_worker_elsewhere_without_a_sign_of_life_is_gone_after_the_watch(machines: Any) -> None:
    first = machines("first")
    first.start()
    first.add(1)
    first.lose()
    second = machines("second")
    second.start(watch=0.05)
    assert "looking for 0 s whether it lives" in second.said[0]


class Watcher:
    """A claimer whose clock is ahead by twenty minutes, and for which time passes only while it watches an owner."""

    def __init__(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.each_look: Callable[[], None] = lambda: None
        self.said: list[str] = []
        folder = machine.home / "database"
        self._claim = Claim(folder, Copies(folder), self.said.append, clock=lambda: self.now, sleep=self._sleep)
        ahead = home_claim.time.time() + 1200.0
        monkeypatch.setattr(home_claim.time, "time", lambda: ahead)
        monkeypatch.setattr(home_claim, "LOOK_SECONDS", 2.0)  # whole ones, so that sums are exact

    def take(self) -> None:
        self._claim.take(above=home_copies.NOTHING.rank)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds
        self.each_look()


def test_a_living_owner_whose_clock_is_twenty_minutes_behind_keeps_its_home(
    machines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = machines("first").start()
    second = Watcher(machines("second"), monkeypatch)

    def beat_once_it_is_due() -> None:
        if second.now == home_claim.BEAT_SECONDS:
            owner._claim.beat()

    second.each_look = beat_once_it_is_due
    with pytest.raises(UsageError, match=r"Another worker \(first, pid \d+\) uses this home"):
        second.take()
    owner.save()


def test_a_sign_of_life_of_long_ago_needs_a_shorter_watch(machines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = machines("first")
    first.start()
    first.lose()
    second = Watcher(machines("second"), monkeypatch)
    second.take()
    assert home_claim.BEAT_SECONDS < second.now == home_claim.LONG_GONE_WATCH_SECONDS < home_claim.WATCH_SECONDS
    (said,) = second.said
    assert "Another worker used this home: looking for 60 s whether it lives" in said


def test_a_worker_that_closed_lets_the_next_one_in_at_once(machines: Any) -> None:
    first = machines("first")
    database = first.start()
    first.add(1)
    assert database.close(PATIENCE)
    assert first.claims() == []
    second = machines("second")
    second.start(watch=NEVER)
    assert second.epochs() == [1]


def test_a_worker_that_was_taken_over_finds_out_and_its_copies_never_count(machines: Any) -> None:
    first = machines("first")
    old = first.start()
    first.add(1)
    old.save()
    second = machines("second")
    new = second.start(take_over=True)
    second.add(2)
    new.save()
    machines("first")
    first.add(100)
    with pytest.raises(LeaseLost, match="taken this home over"):
        old.save()
    with pytest.raises(LeaseLost):
        old.request_save()
    assert not old.close(PATIENCE)
    second = machines("second")
    second.add(3)
    new.save()
    assert new.close(PATIENCE)
    machines("first").start(watch=NEVER)
    assert first.epochs() == [1, 2, 3]


def test_a_copy_that_a_displaced_worker_had_begun_is_older_than_its_successors(machines: Any) -> None:
    first = machines("first")
    old = first.start()
    first.add(1)
    old.save()
    second = machines("second")
    new = second.start(take_over=True)
    second.add(2)
    new.save()
    machines("first")
    old._claim.check = lambda: None  # type: ignore[method-assign] - it had checked just before the take-over
    for epoch in range(100, 110):
        first.add(epoch)
        old.save()
    third = machines("third")
    third.start(take_over=True)
    assert third.epochs() == [1, 2]


def test_of_two_that_claim_at_once_one_stays(machines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = machines("first"), machines("second")
    owners = iter(["aaaaaaaa", "bbbbbbbb"])
    monkeypatch.setattr(home_claim, "_new_owner", lambda: next(owners))
    (first.home / "database").mkdir(parents=True)
    (first.home / "database" / "home-0").write_text("")
    started: list[DatabaseReplica] = []

    def both_at_once(point: str) -> None:
        if point == "home-claiming" and not started:
            started.append(None)  # type: ignore[arg-type]
            started[0] = second.start()

    monkeypatch.setattr(home_claim, "reach", both_at_once)
    with pytest.raises(UsageError, match="uses this home"):
        first.start()
    assert len(second.claims()) == 1
    second.add(1)
    started[0].save()


# ---- guests and readers ----


def test_a_command_that_writes_joins_the_worker_of_this_machine(machines: Any) -> None:
    first = machines("first")
    worker = first.start()
    first.add(1)
    worker.save()
    guest = first.start("guest")
    first.add(2)
    assert guest.close(PATIENCE)
    assert first.claims() != [], "the worker still owns the home"
    first.add(3)
    worker.save()
    assert worker.close(PATIENCE)
    second = machines("second")
    second.start(watch=NEVER)
    assert second.epochs() == [1, 2, 3]


def test_a_command_that_writes_is_refused_while_a_worker_elsewhere_lives(machines: Any) -> None:
    machines("first").start(beat=0.02)
    with pytest.raises(UsageError, match="uses this home"):
        machines("second").start("guest", watch=NEVER)


def test_a_command_that_writes_while_nobody_works_owns_the_home_meanwhile(machines: Any) -> None:
    first = machines("first")
    guest = first.start("guest")
    first.add(1)
    assert len(first.claims()) == 1
    assert guest.close(PATIENCE)
    assert first.claims() == []
    second = machines("second")
    second.start(watch=NEVER)
    assert second.epochs() == [1]


def test_a_reader_sees_the_newest_copy_and_leaves_no_trace_in_the_home(machines: Any) -> None:
    first = machines("first")
    worker = first.start()
    first.add(1)
    worker.save()
    before = sorted(first.home.rglob("*"))
    second = machines("second")
    reader = second.start("reader", watch=NEVER)
    assert second.epochs() == [1]
    reader.close(PATIENCE)
    assert sorted(first.home.rglob("*")) == before
    machines("first")
    first.add(2)
    worker.save()
    machines("second").start("reader", watch=NEVER)
    assert second.epochs() == [1, 2]


def test_a_reader_of_a_home_that_is_not_there_creates_nothing(machines: Any, tmp_path: Path) -> None:
    lone = machines("lone")
    database = DatabaseReplica(tmp_path / "nowhere", lone.database, lone.said.append)
    database.open("reader")
    database.close(PATIENCE)
    assert list(tmp_path.iterdir()) == []


def test_a_database_in_use_is_never_replaced(machines: Any) -> None:
    first = machines("first")
    old = first.start()
    first.add(1)
    old.save()
    second = machines("second")
    new = second.start(take_over=True)
    second.add(2)
    assert new.close(PATIENCE)
    machines("first")
    with pytest.raises(UsageError, match="end it first"):
        first.start(take_over=True)
    assert first.epochs() == [1]
    assert first.claims() == []
    reader = first.start("reader")
    assert "may be older" in first.said[-1]
    reader.close(PATIENCE)
    old.close(PATIENCE)
    first.start()
    assert first.epochs() == [1, 2]


def test_what_was_written_down_on_this_disk_is_read_back_or_nothing(tmp_path: Path) -> None:
    for text in ("", "{}", "[]", '{"home": "x", "version": {"rank": {"term": 1}, "counter": 2}}'):
        (tmp_path / "state.json").write_text(text)
        assert LocalState.read(tmp_path / "state.json") is None
    assert LocalState.read(tmp_path / "nowhere") is None


def wait_until(condition: Callable[[], bool]) -> None:
    import time

    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def test_a_disk_of_this_machine_that_refuses_for_a_while_does_not_end_the_copies(machines: Any) -> None:
    machine = machines("one")
    replica = machine.start()
    machine.add(1)
    in_the_way = machine.local / "save.lock"
    in_the_way.unlink(missing_ok=True)
    in_the_way.mkdir()
    replica.request_save()
    wait_until(lambda: any(line.startswith("The home refuses") for line in machine.said))
    replica.require()
    in_the_way.rmdir()
    wait_until(lambda: replica.is_saved)


def test_a_worker_is_told_when_nothing_is_copied_any_more(machines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("nobody foresaw this")

    machine = machines("one")
    replica = machine.start()
    machine.add(1)
    monkeypatch.setattr("petskin_tune.home.replica.take_copy", broken)
    replica.request_save()
    wait_until(lambda: replica._failure is not None)
    with pytest.raises(RuntimeError, match="no more copied"):
        replica.require()
