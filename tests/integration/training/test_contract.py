"""The stock loop of Ultralytics and ours, fed the same batches and seeds, end with the same weights bit for bit.

When a release of Ultralytics changes its loop, this fails, and not a user's run.
"""

from __future__ import annotations

import pytest

from petskin_tune.protocol import MASK_MAP, Finished
from tests.support import training as helpers
from tests.support.loops import OurLoop, StockLoop


def weights(trainer):
    return {"model": trainer.model.state_dict(), "ema": trainer.ema.ema.state_dict()}


def train_both(job, script=()):
    trained = []
    for loop in (StockLoop, OurLoop):
        trainer = loop(job)
        trainer.script = script
        trainer.train()
        trained.append(trainer)
    return trained


def assert_equal(stock, ours):
    assert helpers.differences(weights(stock), weights(ours)) == []
    assert helpers.differences(stock.optimizer.state_dict(), ours.optimizer.state_dict()) == []
    assert stock.ema.updates == ours.ema.updates > 0
    assert [ultralytics_own(row) for row in ours.counters.history] == stock.rows


def ultralytics_own(row):
    return {name: value for name, value in row.items() if not name.startswith(f"{MASK_MAP}/")}


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"optimizer": "SGD", "lr0": 0.01, "nbs": 8}, id="SGD, every batch a step"),
        pytest.param({"optimizer": "AdamW", "nbs": 16}, id="AdamW, two batches a step"),
        pytest.param({"optimizer": "MuSGD", "lr0": 0.01, "nbs": 32}, id="MuSGD, four batches a step", marks=SLOW),
        pytest.param({"warmup_epochs": 2.5, "epochs": 3, "nbs": 32}, id="warm-up that ends in mid epoch", marks=SLOW),
        pytest.param({"warmup_epochs": 0}, id="no warm-up", marks=SLOW),
        pytest.param({"close_mosaic": 0, "cos_lr": True}, id="mosaic to the end, cosine rates", marks=SLOW),
        pytest.param({"close_mosaic": 2, "mixup": 0.5, "copy_paste": 0.5}, id="mosaic, mixup and copy-paste closed"),
        pytest.param({"multi_scale": 0.5, "cls_pw": 0.5}, id="multi-scale and class weights", marks=SLOW),
        pytest.param({"freeze": 3}, id="frozen layers", marks=SLOW),
    ],
)
def test_both_loops_end_with_the_same_weights(root, arguments):
    stock, ours = train_both(helpers.job(root, "run", arguments={"epochs": 3, **arguments}))
    assert_equal(stock, ours)
    assert ours.outcome.epochs == len(ours.counters.history) == 3
    assert helpers.differences(initial_weights(ours.job), ours.model.state_dict()) != []


def initial_weights(job):
    trainer = OurLoop(job)
    trainer._setup_train()
    return trainer.model.state_dict()


@pytest.mark.slow
def test_both_loops_stop_early_at_the_same_epoch(root):
    job = helpers.job(root, "early", arguments={"epochs": 9, "patience": 2})
    stock, ours = train_both(job, script=(0.1, 0.3, 0.2, 0.2, 0.4, 0.5, 0.5, 0.5, 0.5))
    assert_equal(stock, ours)
    assert ours.outcome == Finished(epochs=4, best_epoch=2, early=True)
