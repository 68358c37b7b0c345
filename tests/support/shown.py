"""Run in a terminal by a test: shows the views of a made-up study one after the other, and waits behind each.

::

    python -m tests.support.shown HOME VIEW…
"""

from __future__ import annotations

import contextlib
import sys

from petskin_tune.cli import petskin_tune
from petskin_tune.protocol import Position
from petskin_tune.study.extent import Extent
from petskin_tune.text import durable
from petskin_tune.views.screen import open_progress
from tests.support.terminal import ready

LOSSES = {"train/box_loss": 1.25, "train/seg_loss": 2.5, "train/cls_loss": 1.1, "train/dfl_loss": 1.3}


def live(home: str) -> None:
    """A worker's view in the middle of a trial, with lines above it."""
    view = open_progress()
    view.study("반려견-피부질환", Extent(6, 60), best=0.131, home=home)
    params = {"optimizer": "AdamW", "lr0": 9.8e-05, "lrf": 0.001, "momentum": 0.999, "weight_decay": 0.001}
    params |= {"degrees": 90.0, "mosaic": 0.5, "copy_paste": 0.1, "box": 7.5, "hsv_h": 0.015}
    view.trial_started(7, Extent(6, 60), params, 27, 0.131, 2, Position(11, 40), curve={11: 0.12})
    view.note("스냅샷을 저장할 수 없습니다: the store answered EIO, and it is tried again until it can be reached")
    view.batch(Position(11, 41), 250, LOSSES, 43.0)
    view.epoch(7, 12, 27, 0.118, 0.121, 0.131, durable(Position(11, 40), 12, "Drive"), seconds=95.0, loss=6.2)
    view.batch(Position(12, 200), 250, LOSSES, 43.0)
    view.doing("waiting for the next batch")  # which is drawn at once
    ready()
    view.suspended(
        f"tune-worker --study 반려견-피부질환 --home '{home}' --checkpoints s3://bucket/petskin --data pets.zip"
    )
    view.close()
    ready()


def main(home: str, *views: str) -> None:
    """Show the views."""
    for name in views:
        print("\x1b[H\x1b[2J\x1b[3J", end="", flush=True)
        if name == "live":
            live(home)
            continue
        with contextlib.suppress(SystemExit):
            petskin_tune([*name.split(), "--home", home])
        ready()


if __name__ == "__main__":
    main(*sys.argv[1:])
