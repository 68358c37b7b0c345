"""The last batch of an epoch is refused where Ultralytics' own training refuses it, and nowhere else."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
from ultralytics.engine.trainer import BaseTrainer

from petskin_tune.datasets.last_batch import last_batch_fault


class _Reached(Exception):
    """The stock training got beyond its own look at the last batch."""


def stock_fault(images: int, batch: int, imgsz: int, multi_scale: float, stride: int) -> str | None:
    """What Ultralytics says of the same training."""

    def loader(*_: Any, mode: str, **__: Any) -> SimpleNamespace:
        if mode == "val":
            raise _Reached
        return SimpleNamespace(sampler=range(images), batch_size=min(batch, images), drop_last=False)

    trainer = SimpleNamespace(
        batch_size=batch,
        world_size=1,
        data={"train": "", "val": ""},
        args=SimpleNamespace(imgsz=imgsz, multi_scale=multi_scale, split="val", task="segment"),
        stride=stride,
        get_dataloader=loader,
    )
    try:
        BaseTrainer._build_train_pipeline(trainer)
    except ValueError as error:
        return str(error)
    except _Reached:
        return None
    raise AssertionError("it builds no loader for validation")


SIZES = [(32, 32), (64, 32), (96, 32), (640, 32), (64, 64), (128, 64)]  # imgsz and stride


@pytest.mark.parametrize(("imgsz", "stride"), SIZES)
def test_the_rule_is_that_of_ultralytics(imgsz: int, stride: int) -> None:
    for images, batch, scale in product((1, 2, 4, 5, 9), (1, 2, 4, 5, 16), (0.0, 0.3, 0.5, 0.51, 0.95)):
        said = last_batch_fault(images, batch, imgsz, scale, stride)
        stock = stock_fault(images, batch, imgsz, scale, stride)
        assert (said is None) == (stock is None), (images, batch, scale, stock)


def test_the_sentence_says_what_to_change() -> None:
    assert last_batch_fault(5, 4, 32) == (
        "a last batch of one image (`batch` 4, 5 to train on) cannot be trained at 32 pixels, BatchNorm has one value "
        "per channel there: take another `batch`, or an `imgsz` of 64 or more"
    )
    assert "at 32 pixels (`multi_scale` 0.6), " in str(last_batch_fault(5, 4, 96, 0.6))
