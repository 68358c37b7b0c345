"""What a trial's process says reaches whom it concerns, once."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, cast

from petskin_tune.protocol import Position, SnapshotWritten, Suspended
from petskin_tune.trial.listener import Listener
from petskin_tune.trial.timings import Times

SNAPSHOT = SnapshotWritten("/run/snapshots/snapshot-00002-0000040.pt", Position(2, 40), 1000, "ab" * 32, 0.1, 0.5)


def test_the_snapshot_of_a_suspension_is_brought_into_the_store_once() -> None:
    submitted: list[SnapshotWritten] = []
    uploader = SimpleNamespace(submit=lambda snapshot, commit: submitted.append(snapshot))
    around = SimpleNamespace(times=Times())
    events = Listener(cast(Any, None), cast(Any, around), cast(Any, None), cast(Any, uploader), threading.Condition())
    events.hear(SNAPSHOT)
    events.hear(Suspended(SNAPSHOT))
    assert submitted == [SNAPSHOT]
    assert events.last == Suspended(SNAPSHOT)
