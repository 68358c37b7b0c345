"""On a CUDA device: a training under AMP, suspended and resumed in other processes, beside the one left alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from petskin_tune.protocol import Finished, Progress, Started, Suspend, Suspended
from tests.support import training as helpers

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device on this machine"),
]

ARGUMENTS = {"amp": True, "batch": 16, "imgsz": 320, "nbs": 32, "epochs": 4}


def job(root, name):
    data = str(helpers.data(root, train=256, val=64))
    return helpers.job(
        root, name, device="0", threads=None, workers=2, data=data, arguments=ARGUMENTS, snapshot_every=1e9
    )


def largest_difference(one, other):
    """Return the largest absolute difference of two nested states' floating-point tensors."""
    if isinstance(one, torch.Tensor):
        return (one.double() - other.double()).abs().max().item() if one.numel() else 0.0
    if isinstance(one, dict):
        return max((largest_difference(one[key], other[key]) for key in one), default=0.0)
    if isinstance(one, (list, tuple)):
        return max((largest_difference(a, b) for a, b in zip(one, other, strict=True)), default=0.0)
    return abs(one - other) if isinstance(one, float) else 0.0


def test_a_suspended_training_under_amp_ends_as_the_one_left_alone(root, record_property, capsys):
    alone = helpers.live(job(root, "alone"))
    assert isinstance(alone.events[-1], Finished), alone.events[-1]
    suspended = job(root, "suspended")
    lives, newest = [], None
    for epoch in (0, 1, 2):

        def suspend(event, epoch=epoch):
            return Suspend() if isinstance(event, Progress) and event.position.epoch >= epoch else None

        life = helpers.live(replace(suspended, snapshot=newest), react=suspend)
        if isinstance(life.events[-1], Suspended) and life.events[-1].snapshot is not None:
            newest = life.events[-1].snapshot.path
        lives.append(life)
    lives.append(helpers.live(replace(suspended, snapshot=newest)))
    assert isinstance(lives[-1].events[-1], Finished), lives[-1].events[-1]
    assert newest is not None
    one, other = (helpers.final_state(root / name) for name in ("alone", "suspended"))
    difference = {
        "weights": largest_difference(one["state"]["model"], other["state"]["model"]),
        "ema": largest_difference(one["state"]["ema"], other["state"]["ema"]),
        "metrics": largest_difference(one["state"]["history"], other["state"]["history"]),
    }
    for name, value in difference.items():
        record_property(f"largest difference of {name}", value)
    with capsys.disabled():
        print(f"\nlargest differences on {torch.cuda.get_device_name()}: {difference}")
    assert difference["weights"] < 1e-2


def test_the_gpu_is_used_in_mixed_precision_and_fits_without_splitting(root):
    life = helpers.live(replace(job(root, "plain"), arguments={**helpers.ARGUMENTS, **ARGUMENTS, "epochs": 1}))
    started = life.events[0]
    assert isinstance(started, Started)
    assert started.machine["device"] == "cuda:0"
    assert not helpers.notes(life.events)
    assert isinstance(life.events[-1], Finished)
