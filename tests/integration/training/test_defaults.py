"""`defaults` is what Ultralytics' own `optimizer: auto` trains with, batch by batch: by its own loop and optimizer."""

from __future__ import annotations

from typing import Any

import pytest

from petskin_tune.study.space.start_points import start_points
from petskin_tune.study.spec import Choices, Range, StudySpec
from tests.support import training as helpers
from tests.support.loops import OurLoop, StockLoop
from tests.support.soak import first

IMAGES, CLASSES = 48, 3  # of the demo data set
WARM_UP = {"warmup_epochs": 1}  # six batches of eight images
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "few steps": ("AdamW", {"epochs": 100, **WARM_UP}),
    "more than 10,000 steps": ("MuSGD", {"epochs": 5_100, **WARM_UP}),
    "more than 10,000 steps without warm-up": ("MuSGD", {"epochs": 5_100, "warmup_epochs": 0}),
}
BATCHES = 9  # half an epoch beyond the warm-up


class _Seen(Exception):
    """Enough batches were seen."""


def settings_by_batch(loop, job):
    """What each group of the optimizer steps with, in each of the first batches, and the optimizer's name."""
    seen: list[list[dict[str, Any]]] = []

    class Watched(loop):
        def preprocess_batch(self, batch):
            if len(seen) == BATCHES:
                raise _Seen
            seen.append([_settings(group) for group in self.optimizer.param_groups])
            return super().preprocess_batch(batch)

    trainer = Watched(job)
    with pytest.raises(_Seen):
        trainer.train()
    return type(trainer.optimizer).__name__, seen


def _settings(group):
    return {name: value for name, value in group.items() if name != "params"}


@pytest.mark.parametrize("case", first(1, CASES))
def test_the_defaults_written_out_step_as_the_stock_loop_under_auto_does(root, case):
    expected, arguments = CASES[case]
    plain = {key: value for key, value in helpers.ARGUMENTS.items() if key not in ("optimizer", "lr0", "momentum")}
    plain |= {"close_mosaic": 0, **arguments}
    stock = helpers.job(root, "stock", arguments={"optimizer": "auto", "lr0": 0.01, "momentum": 0.937, **plain})
    name, by_auto = settings_by_batch(StockLoop, stock)
    spec = StudySpec(
        study="x",
        model="m.yaml",
        data="d.yaml",
        epochs=plain["epochs"],
        train={key: value for key, value in plain.items() if key not in ("epochs", "seed")},
        search={"optimizer": Choices(choices=("SGD", "AdamW", "MuSGD")), "lr0": Range(low=1e-5, high=0.02, log=True)},
        start=("defaults",),
    )
    (point,) = start_points(spec, classes=CLASSES, train_images=IMAGES).points
    ours = helpers.job(root, "ours", arguments={**plain, **point})
    assert settings_by_batch(OurLoop, ours) == (name, by_auto)
    assert name == point["optimizer"] == expected
    assert len(by_auto) == BATCHES
