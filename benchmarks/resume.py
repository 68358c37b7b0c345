"""What a killed training costs, beside stock Ultralytics' ``resume=True``; and what snapshots cost, by model.

    python benchmarks/resume.py                   # demo data, two cores, nothing to download
    python benchmarks/resume.py --models n s m    # which YOLOv8-seg sizes; x takes 6 GB of memory

Printed from one run:

* seconds from SIGKILL to the end of the first new batch of the continued trial, by the real ``tune-worker`` started at
  once, beside the same command that starts the same trial without a snapshot (medians of alternating runs), and the
  same two for stock: ``YOLO(last.pt).train(resume=True)`` and ``YOLO(model).train(…)``;
* work done twice after a kill in the middle of an epoch;
* the largest difference between the weights of the killed run and of the undisturbed one, averaged (EMA), in fp32;
* a snapshot's size, the seconds that training stands still for it and that writing takes, and the share of training
  time, at one every five minutes with AdamW.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

EPOCHS = 4
BATCH = 8
TRAIN_IMAGES = 1280  # 160 batches an epoch, which takes longer than SNAPSHOT_EVERY
BATCHES = TRAIN_IMAGES // BATCH
KILLED_AFTER = 2 * BATCHES + BATCHES // 2  # batches: in the middle of the third epoch
SNAPSHOT_EVERY = 2.0  # seconds, so that a run of a minute has some
SHIPPED_INTERVAL = 300.0  # seconds between snapshots, as a study has it that says nothing
ARGUMENTS: dict[str, Any] = {
    "imgsz": 64,
    "batch": BATCH,
    "nbs": BATCH,
    "optimizer": "AdamW",
    "lr0": 0.003,
    "warmup_epochs": 0.5,
    "close_mosaic": 1,
    "amp": False,
    "workers": 0,
}
STOCK = """
import json, os, signal, sys, time
import torch
from ultralytics import YOLO, settings
settings.update(sync=False)
order = json.loads(sys.argv[1])
model = YOLO(order["model"])
done = 0

def after_batch(trainer):
    global done
    done += 1
    if done == 1:
        open(order["first_batch"], "w").close()
    if done == order["kill_after"]:
        os.kill(os.getpid(), signal.SIGKILL)

def at_the_end(trainer):
    torch.save(trainer.ema.ema.float().state_dict(), order["weights"])

model.add_callback("on_train_batch_end", after_batch)
model.add_callback("on_train_end", at_the_end)
model.train(**order["arguments"])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="alternating starts of each kind")
    parser.add_argument("--models", nargs="*", default=list("nsmlx"), choices=list("nsmlx"))
    parser.add_argument("--one-model", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one_model:
        print(json.dumps(_snapshot_cost(options.one_model)))
        return
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        data = _demo_data(place)
        _compare_starts(place, data, options.runs)
        _compare_weights(place, data)
    _print_snapshots(options.models)
    print(f"({time.monotonic() - began:.0f} s in all)")


def _demo_data(place: Path) -> Path:
    from petskin_tune.datasets import demo

    return demo.make(place / "data", train=TRAIN_IMAGES)


def _model() -> Path:
    return Path(__file__).with_name("small-seg.yaml")


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", **more}


# ---- from the kill to the first batch --------------------------------------------------------------------------------


def _compare_starts(place: Path, data: Path, runs: int) -> None:
    """Ours and stock in turn, with and without something to go on from."""
    ours_new, ours_resumed = OurTrial(place / "ours-new", data), OurTrial(place / "ours-resumed", data)
    stock_new, stock_resumed = StockRun(place / "stock-new", data), StockRun(place / "stock-resumed", data)
    ours_resumed.live(kill_after=KILLED_AFTER)
    stock_resumed.live(kill_after=KILLED_AFTER)
    twice = KILLED_AFTER - ours_resumed.durable_batches()
    stock_twice = KILLED_AFTER - 2 * BATCHES  # it goes on from the end of an epoch
    ours_new.live(kill_after=1)  # creates the study, which the starts below find
    seconds: dict[str, list[float]] = {"ours new": [], "ours resumed": [], "stock new": [], "stock resumed": []}
    for _ in range(runs):
        seconds["ours new"].append(ours_new.live(kill_after=1))
        seconds["ours resumed"].append(ours_resumed.live(kill_after=1))
        seconds["stock new"].append(stock_new.live(kill_after=1))
        seconds["stock resumed"].append(stock_resumed.live(kill_after=1, resume=True))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for side in ("ours", "stock"):
        new, resumed = medians[f"{side} new"], medians[f"{side} resumed"]
        print(
            f"from SIGKILL to the first new batch, {side}: {resumed:.2f} s; a plain start {new:.2f} s; "
            f"ratio {resumed / new:.2f}"
        )
    print(
        f"work done twice after a kill at batch {KILLED_AFTER % BATCHES} of {BATCHES} of epoch 3: ours {twice} batches "
        f"(a snapshot every {SNAPSHOT_EVERY:.0f} s), stock {stock_twice}",
        flush=True,
    )


class OurTrial:
    """A study of one trial, worked on by the real command, which dies when it has trained so many batches."""

    def __init__(self, place: Path, data: Path) -> None:
        place.mkdir()
        self.place = place
        self._study = place / "resume.yaml"
        fixed = {name: value for name, value in ARGUMENTS.items() if name != "lr0"}
        description = {
            "study": "resume",
            "model": str(_model()),
            "data": str(data),
            "epochs": EPOCHS,
            "train": fixed,
            "search": {"lr0": [0.001, 0.005]},
            "start": [{"lr0": ARGUMENTS["lr0"]}],
            "sampler": {"name": "random"},
            "pruner": {"name": "none"},
            "target_trials": 1,
            "snapshot_every": f"{SNAPSHOT_EVERY:.0f}s",
        }
        self._study.write_text(yaml.safe_dump(description))

    def live(self, kill_after: int | None = None) -> float:
        """Start the command; seconds until its trial had done ``kill_after`` batches and was killed, or until its end.

        The point is a named one of ours (``petskin_tune.faults``), so that the instant is known exactly.
        """
        log = self.place / "died"
        log.unlink(missing_ok=True)
        faults = {"TUNE_FAULTS": f"batch-done=kill-all@{kill_after}", "TUNE_FAULTS_LOG": str(log)} if kill_after else {}
        command = [str(Path(sys.executable).parent / "tune-worker"), "--study", str(self._study), "--device", "cpu"]
        began = time.time()
        done = subprocess.run(
            command, cwd=self.place, capture_output=True, text=True, env=_environment(**faults), check=False
        )
        if done.returncode != (-signal.SIGKILL if kill_after else 0):
            raise RuntimeError(done.stdout + done.stderr)
        return (log.stat().st_mtime if kill_after else time.time()) - began

    def durable_batches(self) -> int:
        """How many batches the snapshot holds that the trial's lease points to."""
        with closing(sqlite3.connect(self.place / "tune-home" / "tune.db")) as connection:
            epoch, batch = connection.execute("SELECT snapshot_epoch, snapshot_batch FROM trial_leases").fetchone()
        return int(epoch * BATCHES + batch)

    def weights(self) -> dict[str, Any]:
        """The best averaged weights that the store keeps."""
        import torch

        (path,) = (self.place / "tune-home" / "checkpoints").rglob("best-*.pt")
        kept = torch.load(path, weights_only=False)
        if kept["best_epoch"] * BATCHES <= KILLED_AFTER:
            raise RuntimeError(
                f"the best weights are of epoch {kept['best_epoch']}, before the kill: they prove nothing"
            )
        return dict(kept["model"].state_dict())


class StockRun:
    """``YOLO.train()`` with the same arguments, which dies when it has trained so many batches."""

    def __init__(self, place: Path, data: Path) -> None:
        place.mkdir()
        self.place = place
        self._data = data

    def live(self, kill_after: int = 0, *, resume: bool = False) -> float:
        """Start it; seconds until the end of its first batch."""
        last = self.place / "run" / "weights" / "last.pt"
        plain = {
            "data": str(self._data),
            "epochs": EPOCHS,
            "device": "cpu",
            "seed": 0,
            "plots": False,
            "exist_ok": True,
        }
        first_batch = self.place / "first-batch"
        order = {
            "model": str(last if resume else _model()),
            "arguments": {"resume": True}
            if resume
            else {**ARGUMENTS, **plain, "project": str(self.place), "name": "run", "verbose": False},
            "kill_after": kill_after,
            "first_batch": str(first_batch),
            "weights": str(self.place / "weights.pt"),
        }
        began = time.time()
        done = subprocess.run(
            [sys.executable, "-c", STOCK, json.dumps(order)],
            cwd=self.place, capture_output=True, text=True, env=_environment(), check=False,
        )  # fmt: skip
        if done.returncode != (-signal.SIGKILL if kill_after else 0):
            raise RuntimeError(done.stdout + done.stderr)
        return first_batch.stat().st_mtime - began

    def weights(self) -> dict[str, Any]:
        """The averaged weights after the last epoch."""
        import torch

        return dict(torch.load(self.place / "weights.pt", weights_only=True))


# ---- what came out ---------------------------------------------------------------------------------------------------


def _compare_weights(place: Path, data: Path) -> None:
    """Train to the end, left alone and killed in the middle of the third epoch."""
    sides: dict[str, tuple[Any, Any]] = {
        "ours": (OurTrial(place / "ours-whole", data), OurTrial(place / "ours-killed", data)),
        "stock": (StockRun(place / "stock-whole", data), StockRun(place / "stock-killed", data)),
    }
    found = {}
    for side, (whole, killed) in sides.items():
        whole.live()
        killed.live(kill_after=KILLED_AFTER)
        killed.live(**({"resume": True} if side == "stock" else {}))
        found[side] = _largest_difference(whole.weights(), killed.weights())
    print(
        f"largest difference of a weight from the undisturbed run: ours {found['ours']:.3g} (best weights), "
        f"stock {found['stock']:.3g} (last weights)",
        flush=True,
    )


def _largest_difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Of what training learns: weights and biases, not the running statistics and counters beside them."""
    assert one.keys() == other.keys()
    learnt = [name for name in one if name.endswith(("weight", "bias"))]
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in learnt)


# ---- what snapshots cost ---------------------------------------------------------------------------------------------


def _print_snapshots(models: list[str]) -> None:
    """One process per model, so that the large ones find the memory of the small ones free again."""
    print("model           size  stands still   writing  share of training time, one every 5 min")
    for size in models:
        done = subprocess.run(
            [sys.executable, __file__, "--one-model", size],
            check=True, capture_output=True, text=True, env=_environment(),
        )  # fmt: skip
        cost = json.loads(done.stdout.splitlines()[-1])
        megabytes, still, writing = cost["bytes"] / 1e6, cost["still"], cost["writing"]
        print(
            f"yolov8{size}-seg {megabytes:6.0f} MB {still:11.2f} s {writing:7.2f} s  {still / SHIPPED_INTERVAL:.2%}, "
            f"and {(still + cost['processor']) / SHIPPED_INTERVAL:.2%} where training needs the core that writes",
            flush=True,
        )


def _snapshot_cost(size: str) -> dict[str, float]:
    """Train two batches of a model of full size and take a snapshot; what it cost.

    ``still``: seconds in which training stands still while the state is copied; ``writing``: seconds until the file is
    on disk, hashed and synchronised; ``processor``: the part of them in which a core is busy, which a training on this
    machine's cores loses too.
    """
    from petskin_tune.protocol import TrialJob
    from petskin_tune.training import attempts
    from petskin_tune.training.snapshots import file as snapshot
    from petskin_tune.training.snapshots import schedule as keeper

    cost: dict[str, float] = {}
    capture_and_begin, write = keeper.SnapshotKeeper.begin, snapshot.write

    def timed_begin(self: keeper.SnapshotKeeper, *arguments: Any) -> None:
        began = time.monotonic()
        capture_and_begin(self, *arguments)
        cost["still"] = time.monotonic() - began

    def timed_write(state: Mapping[str, Any], path: Path) -> snapshot.Written:
        began, busy = time.monotonic(), time.thread_time()
        written = write(state, path)
        cost.update(
            bytes=written.size, writing=time.monotonic() - began, processor=time.thread_time() - busy
        )  # fmt: skip
        return written

    keeper.SnapshotKeeper.begin = timed_begin  # type: ignore[method-assign]
    snapshot.write = timed_write
    with tempfile.TemporaryDirectory() as folder:
        from petskin_tune.datasets import demo

        job = TrialJob(
            study="resume",
            trial=0,
            run_folder=f"{folder}/run",
            model=f"yolov8{size}-seg.yaml",
            data=str(demo.make(Path(folder) / "data", train=4, val=2)),
            arguments={**ARGUMENTS, "batch": 2, "epochs": 1, "seed": 0},
            device="cpu",
            snapshot_every=SHIPPED_INTERVAL,
            workers=0,
        )
        ended = attempts.run(job, _Silent())
    if "bytes" not in cost:
        raise RuntimeError(str(ended))
    return cost


class _Silent:
    """A channel without a worker behind it."""

    order = None

    def send(self, event: object) -> None:
        """Nobody listens."""


if __name__ == "__main__":
    main()
