"""The thread that keeps a lease alive: whatever else waits, whatever the database does."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from sqlalchemy import exc

from petskin_tune.database.storage import PetskinStorage, open_storage
from petskin_tune.leases import heartbeat as renewal_module
from petskin_tune.leases.claims import Claims
from petskin_tune.leases.heartbeat import Heartbeat
from petskin_tune.leases.held_trial import HeldTrial
from tests.support.leased_studies import Clock, LeasedStudy, new_study

LEASE = 0.3
SECONDS = 120.0  # for what must happen, on a busy machine


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PetskinStorage]:
    opened = open_storage(f"sqlite:///{tmp_path_factory.mktemp('renewal') / 'tune.db'}")
    yield opened
    opened.engine.dispose()


@pytest.fixture
def study(storage: PetskinStorage) -> LeasedStudy:
    return new_study(storage)


def _held(leases: Claims) -> HeldTrial:
    held = leases.next_trial(100)
    assert held is not None
    return HeldTrial(leases, held)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _beat(trial: HeldTrial) -> int:
    return trial.lease().beat


def test_a_lease_that_nothing_else_renews_is_renewed_again_and_again_until_it_is_stopped(study: LeasedStudy) -> None:
    trial = _held(study.worker("a", lease=LEASE))
    renewal = Heartbeat(trial)
    renewal.start()
    _until(lambda: _beat(trial) >= 3)
    renewal.stop()
    renewal._thread.join(SECONDS)
    assert not renewal._thread.is_alive()
    assert not renewal.lost


def test_a_lease_that_reports_renew_needs_no_renewal(study: LeasedStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = _held(study.worker("a", lease=60.0))
    renewals: list[int] = []
    monkeypatch.setattr(trial, "renew", lambda: renewals.append(1) or True)
    renewal = Heartbeat(trial)
    renewal.start()
    for epoch in range(1, 6):
        trial.report(epoch, 0.5, {})
    renewal.stop()
    renewal._thread.join(SECONDS)
    assert _beat(trial) == 5
    assert renewals == []


def test_errors_of_the_database_are_survived_and_the_lease_is_renewed_afterwards(
    study: LeasedStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = _held(study.worker("a", lease=LEASE))
    renew, failures = trial.renew, iter(range(3))

    def fail_at_first() -> bool:
        if next(failures, None) is not None:
            raise exc.OperationalError("UPDATE", {}, Exception("the database is away"))
        return renew()

    monkeypatch.setattr(trial, "renew", fail_at_first)
    renewal = Heartbeat(trial)
    renewal.start()
    _until(lambda: _beat(trial) >= 2)
    renewal.stop()
    assert next(failures, "all fired") == "all fired"
    assert not renewal.lost


def test_a_take_over_is_noticed_and_told_once(study: LeasedStudy) -> None:
    trial = _held(study.worker("a", lease=LEASE))
    told: list[str] = []
    renewal = Heartbeat(trial, lambda: told.append(threading.current_thread().name))
    taken = study.worker("b", host="there").take_over(by_command=True)
    assert taken is not None
    renewal.start()
    _until(lambda: renewal.lost)
    renewal._thread.join(SECONDS)
    assert told == ["lease"]


def test_a_lease_that_is_due_already_is_renewed_at_once(study: LeasedStudy) -> None:
    trial = _held(study.worker("a", lease=3600.0))
    trial.last_write -= 1300.0
    renewal = Heartbeat(trial)
    renewal.start()
    _until(lambda: _beat(trial) == 1)
    renewal.stop()


def test_a_lease_that_was_made_shorter_is_renewed_as_often_as_it_needs_from_then_on(study: LeasedStudy) -> None:
    leases = study.worker("a", lease=3600.0)
    trial = _held(leases)
    renewal = Heartbeat(trial)
    renewal.start()
    leases.adjust(LEASE, 300.0)
    _until(lambda: _beat(trial) >= 2)
    assert trial.lease().expires_in <= LEASE
    renewal.stop()


def test_a_renewal_that_failed_is_tried_again_within_a_third_of_the_lease(
    study: LeasedStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = _held(study.worker("a", lease=LEASE))
    clock = Clock()
    attempts: list[float] = []

    class Stopped:
        """Passes the time that the thread would have waited, until it has failed often enough."""

        def wait(self, seconds: float) -> bool:
            clock.now += seconds
            return len(attempts) == 5

    def fail() -> bool:
        attempts.append(clock.now)
        raise exc.OperationalError("UPDATE", {}, Exception("the database is away"))

    monkeypatch.setattr(trial, "renew", fail)
    monkeypatch.setattr(renewal_module, "time", SimpleNamespace(monotonic=clock))
    trial.last_write = 0.0
    renewal = Heartbeat(trial)
    monkeypatch.setattr(renewal, "_stopped", Stopped())
    renewal._work()
    pauses = [later - earlier for earlier, later in itertools.pairwise(attempts)]
    assert pauses == pytest.approx([LEASE / 3] * 4)
