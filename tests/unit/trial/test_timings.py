"""When a worker stops for its deadline: from measured times, said at the start and when it changes."""

from __future__ import annotations

from datetime import datetime

import pytest

from petskin_tune.trial.timings import Deadline, Times

NOON = datetime(2026, 3, 1, 12, 0, 0)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def measured(batch: float, snapshot: float, upload: float, process_end: float) -> Times:
    times = Times()
    times.saw_batch(batch)
    times.saw_snapshot(snapshot)
    times.upload, times.process_end = upload, process_end
    return times


@pytest.mark.parametrize("parts", [(0.5, 2.0, 8.0, 1.0), (0.1, 0.5, 0.3, 0.5), (2.0, 10.0, 90.0, 2.0)])
def test_enough_is_kept_and_never_more_than_twice_the_time_of_snapshot_upload_and_release_plus_a_batch(
    parts: tuple[float, float, float, float],
) -> None:
    batch, snapshot, upload, process_end = parts
    takes = snapshot + upload + process_end + 0.3  # the release and the worker's own end
    kept = Deadline(0.0, 1.0, measured(*parts)).kept()
    assert kept >= batch + takes  # the order may come right after a batch has begun
    assert kept - takes <= 2 * takes + batch


def test_before_anything_was_measured_a_share_of_the_hours_is_kept_and_a_minute_at_most() -> None:
    assert Deadline(0.0, 24.0, Times()).kept() == 60.0
    assert Deadline(0.0, 0.1, Times()).kept() == pytest.approx(18.0)


def test_it_stops_when_no_more_is_left_than_what_is_kept() -> None:
    clock = Clock()
    deadline = Deadline(100.0, 1.0, measured(1.0, 10.0, 50.0, 2.0), clock)
    clock.now = deadline.at - deadline.kept() - 1.0
    assert deadline.left() == pytest.approx(1.0)


def test_when_it_stops_is_said_at_the_start_and_again_only_when_it_changes() -> None:
    times = Times()
    deadline = Deadline(100.0, 2.0, times, Clock())
    first = deadline.news(NOON)
    assert first is not None
    assert "--max-hours 2: training stops at 13:59:00" in first
    assert "60 s are kept to save it (not measured yet)" in first
    assert deadline.news(NOON) is None
    times.saw_snapshot(10.0)
    times.upload = 70.0
    changed = deadline.news(NOON)
    assert changed is not None
    assert "13:57:59" in changed
    assert "(measured: a batch 0.0 s, snapshot 10.0 s, upload 70.0 s, release 0.5 s)" in changed
    times.upload = 71.0
    assert deadline.news(NOON) is None


def test_of_the_last_few_snapshots_the_longest_counts() -> None:
    times = measured(0.0, 40.0, 0.0, 0.0)
    with_the_slow_one = times.needed()
    for _ in range(5):
        times.saw_snapshot(2.0)
    assert times.needed() == pytest.approx(with_the_slow_one - 1.5 * 38.0)
