"""What a few batches of a trial took, as its process tells it: validation and snapshot are no part of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from petskin_tune.datasets import demo
from petskin_tune.doctor.probe import TRAIN_BATCHES, Probe, _Listener, measure
from petskin_tune.protocol import EpochDone, Position, Progress, SnapshotWritten

IMAGES = {"train": 96, "val": 64}


def epoch(number: int, training: float, validation: float) -> EpochDone:
    return EpochDone(number, 0.1, {}, training + validation + 5.0, training, validation)


def listener(*events: object) -> _Listener:
    heard = _Listener(IMAGES)
    for event in events:
        heard._hear(event)  # type: ignore[arg-type]
    return heard


def test_the_second_epoch_is_measured_by_its_own_batches() -> None:
    measured = listener(
        Progress(Position(0, 5), {}, 30.0), epoch(1, 8.0, 4.0), Progress(Position(1, 1), {}, 2.0), epoch(2, 0.3, 1.6)
    )._measured()
    assert measured is not None
    assert measured.images_per_second == pytest.approx(96 / 0.3)
    assert measured.validated_per_second == pytest.approx(64 / 1.6)


def test_where_the_first_epoch_takes_too_long_what_was_heard_of_it_must_do() -> None:
    measured = listener(*(Progress(Position(0, batch), {}, rate) for batch, rate in enumerate((1.0, 4.0, 4.2))))
    assert measured._measured() is not None
    assert measured._measured().images_per_second == pytest.approx(4.0)  # type: ignore[union-attr]
    assert listener()._measured() is None


def test_progress_of_a_third_epoch_alone_is_no_error() -> None:
    """It begins while the snapshot of the second is still being written."""
    written = SnapshotWritten("x", Position(1, 0), 1, "x", 0.1, 0.4)
    measured = listener(epoch(1, 8.0, 4.0), epoch(2, 0.3, 1.6), Progress(Position(2, 1), {}, 400.0), written)
    assert measured._measured() is not None


def test_the_part_that_is_measured_keeps_as_many_of_its_images_decoded_as_the_whole_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = demo.make(tmp_path / "data", train=5 * TRAIN_BATCHES, val=4)
    jobs = []
    monkeypatch.setattr(_Listener, "run", lambda self, runner, job: jobs.append(job) or Probe())
    for batch in (1, 8):
        measure(
            None,  # type: ignore[arg-type]
            tmp_path / "probe",
            data=data,
            model="model.yaml",
            arguments={"batch": batch},
            on_oom="split",
            seed=0,
        )
    assert [job.cache_share for job in jobs] == [0.2, 1.0]
