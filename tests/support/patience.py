"""Workers of some tests live in the test's own process, which must not end because a busy machine took its time."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("petskin_tune.worker.suspension.SIGNAL_SECONDS", 300.0)
