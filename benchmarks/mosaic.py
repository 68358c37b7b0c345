"""What mosaic costs and does beside stock Ultralytics: images decoded, seconds per epoch, final mask mAP over seeds.

    python benchmarks/mosaic.py            # minutes on two cores, demo data, nothing to download
    python benchmarks/mosaic.py --seeds 0  # without the last part

Mosaic makes one image of four. Stock takes the three others from a buffer of what its loader process decoded lately,
which is fast and cannot be resumed; ours come from a window of the epoch's own order and a cache of decoded images.
Printed, ours and stock in turn, every run in a process of its own with mosaic 1.0:

* images decoded per training sample (every call of Ultralytics' ``imread`` for a training image counts) and seconds
  per epoch, in the second of two epochs, whose caches are warm. The data set is larger than the cache of decoded
  images, as a real one is: ours may keep CACHED_IMAGES of IMAGES;
* mask mAP50-95 after the last epoch of a training of the demo study's length, mean and spread over seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

IMAGES, IMGSZ = 4000, 64
CACHED_IMAGES = 1600  # windows reach back 768 images (32 of every 24th batch), and hold what theirs reached back to
SEEDS = 5
MASK_MAP = "metrics/mAP50-95(M)"
ARGUMENTS: dict[str, Any] = {
    "imgsz": IMGSZ,
    "optimizer": "AdamW",
    "lr0": 0.003,
    "momentum": 0.9,
    "warmup_epochs": 1,
    "warmup_bias_lr": 0.0,
    "amp": False,
    "workers": 0,  # Ultralytics' own choice on a CPU
    "mosaic": 1.0,
}
DECODING = {**ARGUMENTS, "epochs": 2, "batch": 16, "nbs": 16, "close_mosaic": 0}
LEARNING = {**ARGUMENTS, "epochs": 12, "batch": 4, "nbs": 4, "close_mosaic": 3}  # the demo study's


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="trainings of each side for the last part")
    parser.add_argument("--one", nargs=2, metavar=("SIDE", "REQUEST"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        side, request = options.one
        print("RESULT", json.dumps(train(side, **json.loads(request))))
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        decoding(place)
        if options.seeds:
            learning(place, options.seeds)


def decoding(place: Path) -> None:
    data = demo_data(place / "many", train=IMAGES, val=8)
    print(f"{IMAGES} images, {CACHED_IMAGES} of them in our cache, mosaic 1.0, second epoch:")
    for side in ("ours", "stock"):
        result = in_a_process(side, place / f"decoding-{side}", data, DECODING, seed=0)
        decoded = result["decoded"][1] / IMAGES
        print(f"  {side:5} {decoded:.2f} images decoded per sample, {result['seconds'][1]:.1f} s", flush=True)


def learning(place: Path, seeds: int) -> None:
    data = demo_data(place / "demo", train=64, val=32)
    reached: dict[str, list[float]] = {"ours": [], "stock": []}
    for seed in range(seeds):
        for side, values in reached.items():
            result = in_a_process(side, place / f"learning-{side}-{seed}", data, LEARNING, seed)
            values.append(result["fitness"][-1])
    print(f"mask mAP50-95 after {LEARNING['epochs']} epochs with mosaic 1.0, {seeds} seeds:")
    for side, values in reached.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        each = " ".join(f"{value:.3f}" for value in values)
        print(f"  {side:5} {statistics.mean(values):.3f}, standard deviation {spread:.3f} ({each})")


def demo_data(folder: Path, train: int, val: int) -> str:
    from petskin_tune.datasets import demo

    return str(demo.make(folder, train=train, val=val, imgsz=IMGSZ))


def in_a_process(side: str, folder: Path, data: str, arguments: dict[str, Any], seed: int) -> dict[str, Any]:
    request = json.dumps({"folder": str(folder), "data": data, "arguments": {**arguments, "seed": seed}})
    environment = {**os.environ, "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}
    done = subprocess.run(
        [sys.executable, __file__, "--one", side, request], capture_output=True, text=True, env=environment
    )
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not results:
        raise SystemExit(f"{side} failed: {done.stderr[-2000:]}")
    return json.loads(results[-1].removeprefix("RESULT "))


# ---- one training, in its own process --------------------------------------------------------------------------------


def train(side: str, folder: str, data: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Train; for each epoch, return the training images decoded, seconds without validation, and mask mAP50-95."""
    with decodes_of(Path(data).parent / "images" / "train") as decoded:
        watch = Watch(decoded)
        (train_ours if side == "ours" else train_stock)(watch, folder, data, arguments)
    return {"decoded": watch.decoded, "seconds": watch.seconds, "fitness": watch.fitness[: arguments["epochs"]]}


@contextmanager
def decodes_of(folder: Path) -> Iterator[list[str]]:
    """Yield a list that grows by a file's name whenever an image below ``folder`` is decoded for training."""
    from ultralytics.data import base

    decoded: list[str] = []
    imread = base.imread

    def counting(filename: str, *arguments: Any, **options: Any) -> Any:
        if Path(filename).is_relative_to(folder):
            decoded.append(filename)
        return imread(filename, *arguments, **options)

    base.imread = counting
    try:
        yield decoded
    finally:
        base.imread = imread


class Watch:
    """What is noted of every epoch; both sides' trainers call it at the same places."""

    def __init__(self, decoded: list[str]) -> None:
        self._decoded = decoded
        self.decoded: list[int] = []
        self.seconds: list[float] = []
        self.fitness: list[float] = []

    def begin(self) -> None:
        self._before, self._began = len(self._decoded), time.perf_counter()

    def trained(self) -> None:
        self.decoded.append(len(self._decoded) - self._before)
        self.seconds.append(time.perf_counter() - self._began)

    def validated(self, metrics: dict[str, float]) -> None:
        self.fitness.append(float(metrics[MASK_MAP]))


def train_stock(watch: Watch, folder: str, data: str, arguments: dict[str, Any]) -> None:
    from ultralytics import YOLO, settings

    settings.update(sync=False)
    model = YOLO(architecture())
    model.add_callback("on_train_epoch_start", lambda trainer: watch.begin())
    model.add_callback("on_train_epoch_end", lambda trainer: watch.trained())
    model.add_callback("on_fit_epoch_end", lambda trainer: watch.validated(trainer.metrics))
    model.train(**arguments, data=data, device="cpu", project=folder, plots=False, verbose=False)


def train_ours(watch: Watch, folder: str, data: str, arguments: dict[str, Any]) -> None:
    from petskin_tune.protocol import EpochDone, Finished, TrialJob
    from petskin_tune.training import attempts, trial_trainer
    from petskin_tune.training.trainer import ResumableTrainer

    class Channel:
        order = None

        def send(self, event: object) -> None:
            if isinstance(event, EpochDone):
                watch.validated(dict(event.metrics))

    train_epoch = ResumableTrainer._train_epoch

    def watched(self: ResumableTrainer) -> None:
        watch.begin()
        train_epoch(self)
        watch.trained()

    ResumableTrainer._train_epoch = watched  # type: ignore[method-assign]
    trial_trainer.image_cache_bytes = lambda: CACHED_IMAGES * IMGSZ * IMGSZ * 3  # type: ignore[assignment]
    job = TrialJob(
        study="mosaic",
        trial=0,
        run_folder=folder,
        model=architecture(),
        data=data,
        arguments=arguments,
        device="cpu",
        workers=0,
    )
    ended = attempts.run(job, Channel())
    if not isinstance(ended, Finished):
        raise RuntimeError(str(ended))


def architecture() -> str:
    return str(Path(__file__).with_name("small-seg.yaml"))


if __name__ == "__main__":
    began = time.monotonic()
    main()
    if "--one" not in sys.argv:
        print(f"({time.monotonic() - began:.0f} s in all)")
