"""Kill and resume under AMP on a CUDA device; prints the largest difference of a weight, for the documentation.

pytest -m gpu -s tests/integration/test_gpu.py
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from petskin_tune.protocol import EpochDone, Finished, SnapshotWritten, Started, TrialJob
from tests.support import training as helpers

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]

NOISE = 10.0  # times the difference of two undisturbed runs: what they differ by grows with every step


def mixed_precision_job(root: Path, run: str) -> TrialJob:
    return helpers.job(root, run, device="0", snapshot_every=helpers.EVERY_BATCH, arguments={"amp": True})


def finished(job: TrialJob) -> dict[str, Any]:
    """Train ``job`` left alone; what it ends with."""
    life = helpers.live(job)
    assert isinstance(life.events[-1], Finished), life.events[-1]
    assert any(isinstance(event, Started) and event.arguments["amp"] for event in life.events)
    return helpers.final_state(job.run_folder)


def largest_difference(one: Any, other: Any) -> float:
    """The largest difference of a number anywhere in two nested values of the same shape."""
    if isinstance(one, torch.Tensor):
        return float((one.double() - other.double()).abs().max()) if one.numel() else 0.0
    if isinstance(one, Mapping):
        assert one.keys() == other.keys()
        return max((largest_difference(one[key], other[key]) for key in one), default=0.0)
    if isinstance(one, (list, tuple)):
        return max((largest_difference(*pair) for pair in zip(one, other, strict=True)), default=0.0)
    return 0.0


def in_mid_epoch(event: Any) -> bool:
    return isinstance(event, SnapshotWritten) and (1, 1) <= (event.position.epoch, event.position.batch) <= (1, 5)


def test_a_training_under_amp_killed_in_mid_epoch_ends_as_the_undisturbed_one(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    reference = finished(mixed_precision_job(tmp_path, "undisturbed"))
    again = finished(mixed_precision_job(tmp_path, "undisturbed-again"))
    job = mixed_precision_job(tmp_path, "killed")
    lives = helpers.live_on(job, [{"kill_when": in_mid_epoch}])
    assert isinstance(lives[-1].events[-1], Finished), lives[-1].events[-1]
    epochs = {event.epoch for life in lives for event in life.events if isinstance(event, EpochDone)}
    assert epochs == set(range(1, job.arguments["epochs"] + 1))
    parts = ("model", "ema", "optimizer")
    killed = helpers.final_state(job.run_folder)
    noise = max(largest_difference(reference["state"][part], again["state"][part]) for part in parts)
    difference = max(largest_difference(reference["state"][part], killed["state"][part]) for part in parts)
    device = torch.cuda.get_device_name(0)
    print(f"\n{device}, AMP: killed and resumed {difference:.3g}, two undisturbed runs {noise:.3g}")
    record_property("largest difference", difference)
    record_property("largest difference of two undisturbed runs", noise)
    assert difference <= NOISE * noise, "a resumed run differs although undisturbed ones agree"
