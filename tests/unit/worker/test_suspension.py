"""How long a worker that is asked to stop takes, and that nobody asks it after its end."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest

from petskin_tune.trial.timings import Times
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
    suspension = Suspension(cast(Any, place), None)
    suspension.ask("SIGTERM")
    try:
        left = suspension.seconds_left()
        assert within - 5.0 < left <= (within if within < UPLOAD_SECONDS else place.times.needed())
    finally:
        suspension.close()
