"""The searches of ``real.py``: a folder and a seed in, and what was trained, seen and handed over out."""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import optuna
import yaml

from petskin_tune.study.space.arguments import arguments

MASK_MAP = "metrics/mAP50-95(M)"
# Ultralytics' own bounds (``model.tune()``) of eight of the parameters that it searches.
SPACE: dict[str, tuple[float, float]] = {
    "lr0": (1e-5, 1e-2),
    "lrf": (0.01, 1.0),
    "momentum": (0.7, 0.98),
    "weight_decay": (0.0, 0.001),
    "hsv_s": (0.0, 0.9),
    "translate": (0.0, 0.9),
    "scale": (0.0, 0.95),
    "mosaic": (0.0, 1.0),
}
LOGARITHMIC = ("lr0",)  # in our study files; model.tune() has no such thing
FIXED: dict[str, Any] = {
    "batch": 16,
    "nbs": 16,  # with the default, 64, few hundred photographs are a handful of optimizer steps an epoch
    "optimizer": "AdamW",  # what model.tune() takes where nobody names one
    "warmup_epochs": 1,
    "warmup_bias_lr": 0.0,
    "amp": False,
    "workers": 0,
}
EPOCH_LINE = re.compile(r"trial (\d+) epoch (\d+)/\d+ mask mAP")  # of the worker
STUDY = "real"
TUNE = """
import json, sys
from ultralytics import YOLO, settings
settings.update(sync=False)
order = json.loads(sys.argv[1])
YOLO(order["model"]).tune(iterations=order["iterations"], space=order["space"], resume=True, **order["arguments"])
"""
VALIDATE = """
import json, sys
from ultralytics import YOLO, settings
settings.update(sync=False)
order = json.loads(sys.argv[1])
found = YOLO(order["model"]).val(split="test", plots=False, verbose=False, **order["arguments"])
print("SCORE", float(found.results_dict[order["metric"]]))
"""
_SUBREAPER, _DIE_WITH_PARENT = 36, 1  # of Linux' prctl


@dataclass(frozen=True)
class Task:
    """What all searches have in common."""

    data: Path  # YAML with train, val and test
    weights: Path
    imgsz: int
    epochs: int  # of a full run
    runs: int

    @property
    def budget(self) -> int:
        """Epochs of a search."""
        return self.runs * self.epochs

    @property
    def fixed(self) -> dict[str, Any]:
        return {**FIXED, "imgsz": self.imgsz, "close_mosaic": max(1, self.epochs // 4)}


@dataclass
class Found:
    """What came of a search.

    Attributes:
        curve: (epochs paid, validation mask mAP50-95) of whatever was reported, in its order.
        epochs: paid in all.
        trials: that were begun.
        settings: of the weights that the user gets.
        test: mask mAP50-95 of these weights on the test images; None: the search had none to hand over.
        wall: seconds; None: the search was killed on its way, and what it took until then is not known.
        cpu: seconds of processor time, of all its processes; None: the same.
    """

    curve: list[tuple[int, float]] = field(default_factory=list)
    epochs: int = 0
    trials: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    test: float | None = None
    wall: float | None = None
    cpu: float | None = None

    def best_after(self, epochs: float) -> float | None:
        """The best validation mask mAP50-95 that was reported within so many epochs."""
        return max((value for paid, value in self.curve if paid <= epochs), default=None)


# ---- processes ----------------------------------------------------------------------------------------------------


class Meter:
    """Runs commands that end with this process, and adds up what they and all their descendants took."""

    def __init__(self, log: Path) -> None:
        self.wall, self.cpu = 0.0, 0.0
        self._log = log
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)  # a worker's server of processes outlives it by a moment

    def run(self, command: Sequence[object], folder: Path) -> None:
        """Run a command to its end; what it says is appended to the log.

        Raises:
            RuntimeError: it failed.
        """
        before, began = _processor_seconds(), time.monotonic()
        with self._log.open("a", encoding="utf-8") as log:
            done = subprocess.run(
                list(map(str, command)), cwd=folder, stdout=log, stderr=subprocess.STDOUT, env=environment(),
                preexec_fn=_die_with_parent, check=False,
            )  # fmt: skip
        _wait_for_all()
        self.wall, self.cpu = self.wall + time.monotonic() - began, self.cpu + _processor_seconds() - before
        if done.returncode:
            said = self._log.read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{said[-3000:]}")


def environment() -> dict[str, str]:
    return {**os.environ, "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "OMP_NUM_THREADS": "1"}


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _wait_for_all() -> None:
    """Processor time counts once somebody has waited for its process."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)


def on_test(task: Task, weights: Path, folder: Path) -> float:
    """Mask mAP50-95 of weights on the test images, by stock ``YOLO(weights).val()``."""
    order = {
        "model": str(weights),
        "metric": MASK_MAP,
        "arguments": _plain(task, folder) | {"exist_ok": True, "imgsz": task.imgsz, "name": "test"},
    }
    done = subprocess.run(
        [sys.executable, "-c", VALIDATE, json.dumps(order)],
        capture_output=True, text=True, cwd=folder, env=environment(), check=False,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("SCORE")]
    if done.returncode or not lines:
        raise RuntimeError(done.stdout + done.stderr)
    return float(lines[-1].split()[1])


def _plain(task: Task, folder: Path) -> dict[str, Any]:
    return {"data": str(task.data), "device": "cpu", "batch": FIXED["batch"], "workers": 0, "project": str(folder)}


# ---- ours ---------------------------------------------------------------------------------------------------------


def freeze_thaw(task: Task, folder: Path, seed: int, allowed: int) -> Found:
    """Ours with its default sampler. ``allowed`` is not looked at: its own budget ends it."""
    study = _study(task, folder, seed, {"sampler": "freeze-thaw", "budget": task.runs})
    meter = Meter(folder / "log.txt")
    meter.run(_worker(study, folder), folder)
    return _found(folder, meter)


def tpe_median(task: Task, folder: Path, seed: int, allowed: int) -> Found:
    """Ours with Optuna's TPE and the median pruner: trials are begun until ``allowed`` epochs are paid."""
    study = _study(task, folder, seed, {"sampler": "tpe", "pruner": "median", "target_trials": task.runs})
    meter = Meter(folder / "log.txt")
    meter.run([*_worker(study, folder), "--target-trials", task.runs], folder)
    while (missing := allowed - (found := _found(folder, meter)).epochs) > 0:
        target = found.trials + max(1, missing // task.epochs)
        meter.run([*_worker(study, folder), "--target-trials", target], folder)
    return found


def start_point(data: Path) -> dict[str, Any]:
    """Where all searches begin: Ultralytics' defaults, with what its ``optimizer: auto`` builds AdamW with.

    ``model.tune()`` itself would begin with AdamW at lr0 0.01, the plain default, which is for SGD.
    """
    classes = len(yaml.safe_load(data.read_text(encoding="utf-8"))["names"])
    automatic = {"lr0": round(0.01 / (4 + classes), 6), "momentum": 0.9}
    return {name: arguments()[name].default for name in SPACE} | automatic


def _study(task: Task, folder: Path, seed: int, chooser: Mapping[str, Any]) -> Path:
    content = {
        "study": STUDY,
        "model": str(task.weights),
        "data": str(task.data),
        "epochs": task.epochs,
        "train": task.fixed,
        "search": {name: {"low": low, "high": high, "log": name in LOGARITHMIC} for name, (low, high) in SPACE.items()},
        "start": [start_point(task.data)],
        "snapshot_every": "5m",
        "seed": seed,
        **chooser,
    }
    file = folder / f"{STUDY}.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return file


def _worker(study: Path, folder: Path) -> list[object]:
    command = Path(sys.executable).with_name("tune-worker")
    return [command, "--study", study, "--home", folder / "home", "--device", "cpu"]


def _found(folder: Path, meter: Meter) -> Found:
    from petskin_tune.study.best.ranking import best

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(study_name=STUDY, storage=f"sqlite:///{folder / 'home' / 'tune.db'}")
    trials = {trial.number: trial for trial in study.trials}
    reported = {(number, epoch) for number, trial in trials.items() for epoch in trial.intermediate_values}
    said = EPOCH_LINE.findall((folder / "log.txt").read_text(encoding="utf-8", errors="replace"))
    order = dict.fromkeys((int(number), int(epoch)) for number, epoch in said)  # a kill may say an epoch twice
    known = [place for place in order if place in reported]
    known += sorted(reported - set(known))  # killed between the report and the line
    curve = [(paid, trials[number].intermediate_values[epoch]) for paid, (number, epoch) in enumerate(known, 1)]
    first = best(study.trials, study.user_attrs)
    return Found(curve, len(known), len(trials), dict(first.params) if first else {}, None, meter.wall, meter.cpu)


def _our_weights(folder: Path) -> Path | None:
    file = folder / "best.pt"
    command = [Path(sys.executable).with_name("petskin-tune"), "best", "--study", STUDY, "--home", folder / "home"]
    done = subprocess.run([*command, "--weights", file], capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr or done.stdout, end="", flush=True)
        return None
    return file


# ---- Ultralytics' own ---------------------------------------------------------------------------------------------


def ultralytics(task: Task, folder: Path, seed: int, allowed: int) -> Found:
    """Stock ``model.tune()``: full runs until ``allowed`` epochs are paid. Its choices have no seed, its trainings do.

    It selects by the sum of mask and box mAP. When it is killed it begins its trial anew.
    """
    meter = Meter(folder / "log.txt")
    order = {
        "model": str(task.weights),
        "iterations": -(-allowed // task.epochs),
        "space": SPACE,
        "arguments": task.fixed
        | start_point(task.data)  # the first of its trials has the arguments that it is given
        | _plain(task, folder)
        | {"epochs": task.epochs, "plots": False, "seed": seed, "name": "tune", "verbose": False},
    }
    meter.run([sys.executable, "-c", TUNE, json.dumps(order)], folder)
    lines = (folder / "tune" / "tune_results.ndjson").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    values = [next(iter(row["datasets"].values())).get(MASK_MAP, 0.0) for row in rows]
    curve = [(paid * task.epochs, value) for paid, value in enumerate(values, 1)]
    first = max(rows, key=lambda row: row["fitness"])
    return Found(
        curve, len(rows) * task.epochs, len(rows), first["hyperparameters"], None, meter.wall, meter.cpu
    )  # fmt: skip


def _their_weights(folder: Path) -> Path | None:
    file = folder / "tune" / "weights" / "best.pt"
    return file if file.exists() else None


METHODS: dict[str, tuple[Callable[[Task, Path, int, int], Found], Callable[[Path], Path | None]]] = {
    "freeze-thaw": (freeze_thaw, _our_weights),
    "tpe-median": (tpe_median, _our_weights),
    "ultralytics": (ultralytics, _their_weights),
}


def search(method: str, task: Task, folder: Path, seed: int, allowed: int) -> dict[str, Any]:
    """One search, begun or gone on with in ``folder``; a :class:`Found` as plain values.

    Args:
        method: of :data:`METHODS`.
        task: what is trained.
        folder: the search's own.
        seed: of the search.
        allowed: epochs that a peer may pay.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    run, weights_of = METHODS[method]
    found = run(task, folder, seed, allowed)
    if not is_new:
        found.wall = found.cpu = None
    if (weights := weights_of(folder)) is not None:
        found.test = on_test(task, weights, folder)
    return asdict(found)
