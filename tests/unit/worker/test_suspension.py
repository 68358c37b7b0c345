"""How long a worker that is asked to stop takes, and that nobody asks it after its end."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from petskin_tune.trial.timings import Deadline, Times
from petskin_tune.worker.suspension import Suspension
from tests.support.workers import wait_until

UPLOAD_SECONDS = 400.0  # of a slow Drive


class Run:
    """A trial whose snapshots take long to bring into the store."""

    def __init__(self) -> None:
        self.suspended: list[str] = []

    def upload_seconds(self) -> float:
        return UPLOAD_SECONDS

    def suspend(self, reason: str, until: float) -> None:
        self.suspended.append(reason)


@pytest.fixture
def place() -> Any:
    view = SimpleNamespace(note=lambda _: None, doing=lambda _: None)
    patience = SimpleNamespace(cancelled=SimpleNamespace(set=lambda: None))
    study = SimpleNamespace(stop_requests=0, storage=SimpleNamespace(patience=patience))
    return SimpleNamespace(deadline=None, times=Times(), run=Run(), study=study, view=view)


def test_a_suspension_without_max_hours_is_given_the_time_that_uploads_take(place: Any) -> None:
    suspension = Suspension(cast(Any, place), None)
    suspension.start()
    wait_until(lambda: place.times.upload == UPLOAD_SECONDS)
    suspension.ask("SIGINT")
    try:
        assert suspension.seconds_left() > UPLOAD_SECONDS
        assert place.run.suspended == ["SIGINT"]
    finally:
        suspension.close()


def test_who_asks_after_the_end_is_not_heard(place: Any) -> None:
    suspension = Suspension(cast(Any, place), None)
    suspension.close()
    suspension.ask("SIGINT")
    assert (suspension.reason, suspension.seconds_left(), place.run.suspended) == (None, math.inf, [])


@pytest.mark.parametrize(("grace", "within"), [(None, 12.0), ("170", 170.0), ("5", 12.0), ("100000", UPLOAD_SECONDS)])
def test_after_sigterm_a_suspension_takes_no_longer_than_its_grace(
    grace: str | None, within: float, place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("petskin_tune.worker.suspension.SIGNAL_SECONDS", 12.0)
    monkeypatch.delenv("TUNE_GRACE_SECONDS", raising=False)
    if grace is not None:
        monkeypatch.setenv("TUNE_GRACE_SECONDS", grace)
    place.times.upload = UPLOAD_SECONDS
    place.times.saw_snapshot(1.0)
    suspension = Suspension(cast(Any, place), None)
    suspension.ask("SIGTERM")
    try:
        left = suspension.seconds_left()
        assert within - 5.0 < left <= (within if within < UPLOAD_SECONDS else place.times.needed())
    finally:
        suspension.close()


@pytest.mark.parametrize(
    ("reason", "grace", "within"),
    [
        ("SIGTERM", None, 12.0),
        ("SIGTERM", "170", 170.0),
        ("SIGTERM", "5", 12.0),
        ("SIGINT", None, 600.0),
        ("petskin-tune stop", None, 600.0),
        ("the database refuses this user or the password by now", None, 12.0),
    ],
)
@pytest.mark.parametrize("snapshots", [0, 1], ids=["nothing is measured", "no upload is"])
def test_while_nothing_is_measured_a_suspension_may_use_all_the_time_that_its_sender_leaves(
    reason: str, grace: str | None, within: float, snapshots: int, place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("petskin_tune.worker.suspension.SIGNAL_SECONDS", 12.0)
    monkeypatch.delenv("TUNE_GRACE_SECONDS", raising=False)
    if grace is not None:
        monkeypatch.setenv("TUNE_GRACE_SECONDS", grace)
    for _ in range(snapshots):
        place.times.saw_snapshot(1.0)
    assert not place.times.measured
    suspension = Suspension(cast(Any, place), None)
    suspension.ask(reason)
    try:
        assert within - 5.0 < suspension.seconds_left() <= within
    finally:
        suspension.close()


def test_what_is_not_measured_ends_at_the_end_of_the_hours_all_the_same(place: Any) -> None:
    deadline = Deadline(time.monotonic(), 30.0 / 3600, place.times)
    suspension = Suspension(cast(Any, place), deadline)
    suspension.ask("SIGINT")
    try:
        assert suspension.seconds_left() <= 30.0
    finally:
        suspension.close()


def test_sigterm_behind_a_ctrl_c_leaves_its_grace_and_no_more(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("petskin_tune.worker.suspension.SIGNAL_SECONDS", 12.0)
    monkeypatch.delenv("TUNE_GRACE_SECONDS", raising=False)
    suspension = Suspension(cast(Any, place), None)
    suspension.ask("SIGINT")
    before = suspension.seconds_left()
    suspension.ask("SIGTERM")
    try:
        assert before > 500.0
        assert suspension.seconds_left() <= 12.0
    finally:
        suspension.close()


# A store that takes three times as long as a worker has after a signal that nobody gave more time for.
SLOW_STORE = """
import threading, time
from types import SimpleNamespace
from petskin_tune.interrupts import Signals
from petskin_tune.trial.timings import Times
from petskin_tune.worker import suspension

suspension.SIGNAL_SECONDS = 1.0
wanted = threading.Event()
run = SimpleNamespace(upload_seconds=lambda: None, suspend=lambda reason, until: wanted.set())
view = SimpleNamespace(note=print, doing=print, suspended=print, close=lambda: None)
storage = SimpleNamespace(patience=SimpleNamespace(cancelled=threading.Event()))
study = SimpleNamespace(stop_requests=0, storage=storage)
place = SimpleNamespace(deadline=None, times=Times(), run=run, study=study, view=view, worker_command="")
with Signals() as signals:
    own = suspension.Suspension(place, None)
    own.start()
    signals.tell(own.ask)
    print("trains", flush=True)
    wanted.wait()
    began = time.monotonic()
    while (took := time.monotonic() - began) < 3 * suspension.SIGNAL_SECONDS:
        time.sleep(0.1)
    print(f"uploaded in {took} s", flush=True)
raise SystemExit(75)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_snapshot_is_brought_into_a_slow_store_after_a_signal(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_GRACE_SECONDS", "170")
    worker = subprocess.Popen([sys.executable, "-c", SLOW_STORE], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    assert worker.stdout.readline() == "trains\n"
    worker.send_signal(number)
    output, _ = worker.communicate(timeout=120)
    assert worker.returncode == 75
    assert "stopping safely" in output, "the signal was heard"
    assert float(output.splitlines()[-1].split()[2]) >= 3.0, output
