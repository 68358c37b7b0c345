"""Start the real command, let faults happen to it, and read what it left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import yaml

BIN = Path(sys.executable).parent
TIMEOUT_SECONDS = 600.0

SMALL_STUDY: dict[str, Any] = {
    "study": "small",
    "model": "demo-seg.yaml",
    "data": "demo",
    "epochs": 3,
    "train": {
        "imgsz": 64,
        "batch": 8,
        "nbs": 8,
        "optimizer": "AdamW",
        "warmup_epochs": 0.5,
        "close_mosaic": 1,
        "amp": False,
        "workers": 0,
    },
    "search": {"lr0": {"low": 1e-3, "high": 5e-3, "log": True}, "mosaic": [0.0, 1.0]},
    "sampler": {"name": "random"},
    "pruner": {"name": "none"},
    "target_trials": 3,
    "snapshot_every": 0,
    "lease": "6s",
}


def write_study(folder: Path, **changes: Any) -> Path:
    """Write a small study file; a trial takes a few seconds on two cores."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({**SMALL_STUDY, **changes}))
    return path


def environment(**more: str) -> dict[str, str]:
    """This process's environment without TUNE_* of the person who runs the tests; one thread, so that runs compare."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TUNE_")}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **more}


def start(*arguments: str, cwd: Path, command: str = "tune-worker", **more: str) -> subprocess.Popen[str]:
    """Start the command in a process group of its own, its output in one pipe."""
    return subprocess.Popen(
        [str(BIN / command), *arguments],
        cwd=cwd,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(*arguments: str, cwd: Path, command: str = "tune-worker", **more: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    process = start(*arguments, cwd=cwd, command=command, **more)
    try:
        output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        raise AssertionError(f"{command} did not end in {TIMEOUT_SECONDS} s:\n{output}") from None
    return subprocess.CompletedProcess(arguments, process.returncode, output)


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for ``condition``, which must come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{condition} did not come true in {seconds} s"
        time.sleep(0.05)


def fired(log: Path) -> list[str]:
    """The names of the faults that happened, oldest first."""
    return [line.split()[0] for line in log.read_text().splitlines()] if log.exists() else []


def load(home: Path, name: str = "small") -> optuna.Study:
    """The study as plain Optuna reads it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.load_study(study_name=name, storage=f"sqlite:///{home / 'tune.db'}")


SAME_COLUMNS = ("metrics", "history", "batch", "epochs", "best_epoch", "arguments")
CLOCKS_AND_PLACES = ("seconds", "time", "save_dir", "name", "project", "data", "model")


def essence(study: optuna.Study) -> list[dict[str, Any]]:
    """What must be equal however often the study was interrupted: everything but clocks, workers and file names."""
    return [
        {
            "number": trial.number,
            "state": trial.state.name,
            "params": trial.params,
            "values": trial.values,
            "curve": trial.intermediate_values,
            **{name: _without_clocks(trial.user_attrs.get(name)) for name in SAME_COLUMNS},
        }
        for trial in study.trials
    ]


def _without_clocks(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: entry for key, entry in value.items() if key not in CLOCKS_AND_PLACES}


def best_weights(home: Path, study: optuna.Study, numbers: Sequence[int]) -> dict[int, dict[str, Any]]:
    """The kept best weights of trials as tensors, by trial number."""
    import torch
    from ultralytics import YOLO

    kept = {}
    for number in numbers:
        key = study.trials[number].user_attrs["weights"]
        model = YOLO(str(home / "checkpoints" / key)).model
        kept[number] = {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, torch.Tensor)}
    return kept
