"""What petskin-tune costs beside stock Ultralytics: seconds per epoch, and the fixed cost of a trial.

    python benchmarks/overhead.py            # about six minutes on two cores, demo data, nothing to download

Printed from one run, ours and stock in turn:

* seconds per epoch of our training loop and of ``YOLO.train()`` with the same arguments (median of five runs each; the
  first epoch of every run is left out on both sides, it warms caches up);
* the fixed cost per trial, all but training and validation: ours from the second trial on (the worker's own forkserver,
  study, reports, snapshots and store included), and that of ``model.tune()`` for an iteration.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

EPOCHS = 6
ARGUMENTS: dict[str, Any] = {
    "imgsz": 64,
    "batch": 16,
    "nbs": 16,
    "optimizer": "AdamW",
    "lr0": 0.003,
    "warmup_epochs": 0.5,
    "close_mosaic": 2,
    "amp": False,
    "workers": 0,
    "mosaic": 1.0,
}
STOCK = """
import json, sys, time
from ultralytics import YOLO, settings
settings.update(sync=False)
arguments = json.loads(sys.argv[1])
model = YOLO(arguments.pop("model"))
marks = []
model.add_callback("on_train_epoch_start", lambda trainer: marks.append(time.perf_counter()))
model.add_callback("on_fit_epoch_end", lambda trainer: marks.append(time.perf_counter()))
model.train(**arguments)
epochs = [end - begin for begin, end in zip(marks[0::2], marks[1::2])][: arguments["epochs"]]
print("EPOCHS", json.dumps(epochs))
"""
TUNE = """
import json, sys, time
from ultralytics import YOLO, settings
settings.update(sync=False)
arguments = json.loads(sys.argv[1])
model = YOLO(arguments.pop("model"))
began = time.perf_counter()
model.tune(iterations=3, space={"lr0": (0.001, 0.005)}, **arguments)
print("SECONDS", time.perf_counter() - began)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="alternating runs of each side")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        data = _demo_data(place)
        ours, stock = [], []
        for run in range(runs):
            ours.append(_our_epochs(place / f"ours-{run}"))
            stock.append(_stock_epochs(place / f"stock-{run}", data))
            print(f"run {run + 1}: ours {ours[-1]:.3f} s, stock {stock[-1]:.3f} s per epoch", flush=True)
        mine, theirs = statistics.median(ours), statistics.median(stock)
        print(f"seconds per epoch, median of {runs}: ours {mine:.3f}, stock {theirs:.3f}, ratio {mine / theirs:.3f}")
        print(f"the same command on a study that is done: {_done_again(place / 'ours-0'):.2f} s")
        our_cost = _our_fixed_cost(place / "fixed")
        tune_cost = _tune_fixed_cost(place / "tune", data)
        ratio = our_cost / tune_cost
        print(f"fixed cost per trial: ours {our_cost:.2f} s, model.tune() {tune_cost:.2f} s, ratio {ratio:.3f}")


def _environment() -> dict[str, str]:
    offline = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}
    return {**os.environ, **offline}


def _demo_data(place: Path) -> Path:
    from petskin_tune.datasets import demo

    return demo.make(place / "data")


def _model() -> Path:
    return Path(__file__).with_name("small-seg.yaml")


def _study(place: Path, trials: int, epochs: int) -> Path:
    place.mkdir(parents=True)
    fixed = {name: value for name, value in ARGUMENTS.items() if name != "lr0"}
    path = place / "overhead.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "study": "overhead",
                "model": str(_model()),
                "data": "demo",
                "epochs": epochs,
                "train": fixed,
                "search": {"lr0": [0.001, 0.005]},
                "start": [{"lr0": ARGUMENTS["lr0"]}],
                "sampler": {"name": "random"},
                "pruner": {"name": "none"},
                "target_trials": trials,
                "snapshot_every": "5m",
            }
        )
    )
    return path


def _work(place: Path, study: Path) -> Any:
    import optuna

    command = [str(Path(sys.executable).parent / "tune-worker"), "--study", str(study), "--device", "cpu"]
    subprocess.run(command, cwd=place, check=True, stdout=subprocess.DEVNULL, env=_environment())
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.load_study(study_name="overhead", storage=f"sqlite:///{place / 'tune-home' / 'tune.db'}")


def _our_epochs(place: Path) -> float:
    study = _work(place, _study(place, trials=1, epochs=EPOCHS))
    return statistics.median(study.trials[0].user_attrs["petskin-tune:history"]["seconds"][1:])


def _done_again(place: Path) -> float:
    began = time.perf_counter()
    _work(place, place / "overhead.yaml")
    return time.perf_counter() - began


def _stock_epochs(place: Path, data: Path) -> float:
    arguments = {**ARGUMENTS, "model": str(_model()), "data": str(data), "epochs": EPOCHS, "device": "cpu", "seed": 0}
    arguments |= {"project": str(place), "plots": False, "val": True, "verbose": False}
    done = subprocess.run(
        [sys.executable, "-c", STOCK, json.dumps(arguments)],
        check=True, capture_output=True, text=True, env=_environment(),
    )  # fmt: skip
    line = next(line for line in done.stdout.splitlines() if line.startswith("EPOCHS"))
    return statistics.median(json.loads(line.removeprefix("EPOCHS "))[1:])


def _our_fixed_cost(place: Path) -> float:
    """From one trial's end to the next one's, less its epochs; the first trial pays for imports and is left out."""
    study = _work(place, _study(place, trials=4, epochs=1))
    ends = [trial.datetime_complete.timestamp() for trial in study.trials]
    epochs = [sum(trial.user_attrs["petskin-tune:history"]["seconds"]) for trial in study.trials]
    return statistics.median(ends[i] - ends[i - 1] - epochs[i] for i in range(1, len(ends)))


def _tune_fixed_cost(place: Path, data: Path) -> float:
    """Seconds of an iteration of model.tune(), less the epoch that its results.csv says it trained."""
    place.mkdir(parents=True)
    arguments = {**ARGUMENTS, "model": str(_model()), "data": str(data), "epochs": 1, "device": "cpu"}
    arguments |= {"project": str(place), "plots": False, "save": False, "val": True}
    arguments.pop("lr0")
    done = subprocess.run(
        [sys.executable, "-c", TUNE, json.dumps(arguments)],
        check=True, capture_output=True, text=True, env=_environment(), cwd=place,
    )  # fmt: skip
    line = next(line for line in done.stdout.splitlines() if line.startswith("SECONDS"))
    trained = [_trained_seconds(path) for path in place.rglob("results.csv")]
    return (float(line.split()[1]) - sum(trained)) / 3


def _trained_seconds(results: Path) -> float:
    rows = list(csv.DictReader(io.StringIO(results.read_text())))
    with contextlib.suppress(KeyError, IndexError):
        return float(rows[-1]["time"])
    return 0.0


if __name__ == "__main__":
    began = time.monotonic()
    main()
    print(f"({time.monotonic() - began:.0f} s in all)")
