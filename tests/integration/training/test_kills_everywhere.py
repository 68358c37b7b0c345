"""Whatever model, optimizer and arguments: a training killed by SIGKILL at random ends as the one left alone.

Every pair of a model and an optimizer, of a model and an argument, and of an optimizer and an argument is among the
trainings that `pytest -m slow` kills; with PETSKIN_TUNE_ALL_KILLS=1 it kills every combination of the three.
"""

from __future__ import annotations

import os
import random
import signal
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from petskin_tune.protocol import Finished
from tests.support import training as helpers
from tests.support.soak import part

MODELS = ("pretrained", "own", "v8", "11", "26")
OPTIMIZERS = {
    "SGD": {"lr0": 0.01, "momentum": 0.9},
    "AdamW": {"lr0": 0.003, "momentum": 0.9},
    "MuSGD": {"lr0": 0.01, "momentum": 0.9},
}
ARGUMENTS = {
    "mosaic": {"mosaic": 1.0, "close_mosaic": 1},
    "copy_paste": {"copy_paste": 0.7, "mosaic": 0.5, "close_mosaic": 0},
    "multi_scale": {"multi_scale": 0.5},
    "nbs 24": {"nbs": 24},
    "freeze": {"freeze": 3},
    "single class": {},
}
SHORT = {"epochs": 2, "imgsz": 32, "batch": 4, "nbs": 8}  # of four batches and one of validation
POINTS = [  # and how often each is reached, at least
    ("batch-done", 7),
    ("in-validation", 2),
    ("epoch-batches-done", 2),
    ("epoch-validated", 2),
    ("snapshot-temporary-written", 3),
    ("snapshot-renamed", 3),
]


def combinations():
    """Yield model, optimizer, arguments: all, or those in which every pair is."""
    for (i, model), (j, arguments) in product(enumerate(MODELS), enumerate(ARGUMENTS)):
        for k, optimizer in enumerate(OPTIMIZERS):
            if k == (i + j) % len(OPTIMIZERS) or os.environ.get("PETSKIN_TUNE_ALL_KILLS"):
                yield model, optimizer, arguments


@pytest.fixture(scope="module")
def model(root):
    """Return a function that returns the path of a model."""

    def path(name: str) -> Path:
        if name == "pretrained":
            return helpers.pretrained(root, str(helpers.model(root)), 80)
        if name != "own":
            return helpers.model(root, 0.0625 if name == "v8" else 0.125, name)
        own = root / "own"
        if not own.exists():  # fine-tuned on other classes from weights of 80
            data = str(helpers.data(root, train=16, val=4))
            job = helpers.job(root, "own", model=str(path("pretrained")), data=data, arguments={**SHORT, "epochs": 1})
            assert isinstance(helpers.live(job).events[-1], Finished)
        return own / "weights" / "best.pt"

    return path


ALWAYS = ("pretrained", "AdamW", "copy_paste")
KINDS = [
    pytest.param(*kind, id=", ".join(kind), marks=() if kind == ALWAYS else pytest.mark.slow)
    for kind in (ALWAYS, *part((kind for kind in combinations() if kind != ALWAYS), least=14))
]


@pytest.mark.parametrize(("name", "optimizer", "arguments"), KINDS)
def test_a_training_killed_at_random_ends_as_the_one_left_alone(root, model, name, optimizer, arguments):
    run = f"{name}-{optimizer}-{arguments}".replace(" ", "-")
    chance = random.Random(run)
    alone = helpers.job(
        root,
        f"alone-{run}",
        model=str(model(name)),
        data=str(helpers.data(root, train=16, val=4, classes=1 if arguments == "single class" else 2)),
        arguments={**SHORT, **OPTIMIZERS[optimizer], **ARGUMENTS[arguments], "optimizer": optimizer},
    )
    undisturbed = helpers.live(alone)
    assert isinstance(undisturbed.events[-1], Finished), undisturbed.events[-1]

    job = replace(alone, run_folder=str(root / f"killed-{run}"), snapshot_every=helpers.EVERY_BATCH)
    lives = killed_twice(job, chance)
    assert helpers.differences(helpers.final_state(alone.run_folder), helpers.final_state(job.run_folder)) == []
    assert helpers.curve(lives) == helpers.curve([undisturbed])


def killed_twice(job, chance):
    """Kill a job at a random point, then after a random event at whatever instant the signal comes; let it end."""
    point, most = chance.choice(POINTS)
    fault = f"{point}=kill@{chance.randint(1, most)}"
    first = helpers.live(job, faults=fault)
    assert first.exit_code == -signal.SIGKILL, f"{fault} did not kill: {first.events[-1]}"
    assert first.fired, f"{fault} did not fire"
    left = chance.randint(1, 3)  # events

    def last_event(event):
        nonlocal left
        left -= 1
        return left == 0

    second = helpers.live(replace(job, snapshot=first.snapshot), kill_when=last_event)
    lives, newest = [first, second], second.snapshot or first.snapshot
    if second.exit_code:  # else it was quicker than the signal
        lives.append(helpers.live(replace(job, snapshot=newest)))
    assert isinstance(lives[-1].events[-1], Finished), lives[-1].events[-1]
    return lives
