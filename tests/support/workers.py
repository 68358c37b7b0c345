"""Start the real command, let faults happen to it, and read what it left behind."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import psutil
import yaml

from petskin_tune.datasets import demo
from tests.support.forked import Forked, can_fork

BIN = Path(sys.executable).parent
Process = Forked | subprocess.Popen[str]
# Watchdogs: what must happen is waited for, however busy the machine is, and no test asserts how quickly it came.
TIMEOUT_SECONDS = 600.0
PATIENCE_SECONDS = 300.0
UNREACHABLE = 10_000  # trials: more than a study gets through before it has been killed or stopped often enough

SMALL_STUDY: dict[str, Any] = {
    "study": "small",
    "model": str(Path(__file__).parent / "small-seg.yaml"),
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


@functools.cache
def small_data() -> str:
    """The YAML of 64 + 32 drawn images: half of what ``data: demo`` means, for all tests of this process."""
    folder = tempfile.mkdtemp(prefix="petskin-tune-data-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return str(demo.make(Path(folder) / "data", train=64, val=32))


def write_study(folder: Path, **changes: Any) -> Path:
    """Write a small study file; a trial takes a few seconds on two cores."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "small.yaml"
    content = {**SMALL_STUDY, **changes}
    path.write_text(yaml.safe_dump(content if content["data"] != "demo" else {**content, "data": small_data()}))
    return path


def environment(**more: str) -> dict[str, str]:
    """This process's environment without TUNE_* of the person who runs the tests; one thread, so that runs compare."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TUNE_")}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **more}


def start(*arguments: str, cwd: Path, command: str = "tune-worker", **more: str) -> Process:
    """Start the command in a process group of its own, its output in one pipe."""
    variables = environment(**more)
    if can_fork(variables):
        return Forked(BIN / command, arguments, cwd, variables)
    return subprocess.Popen(
        [str(BIN / command), *arguments],
        cwd=cwd,
        env=variables,
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


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for ``condition``, which must come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{condition} did not come true in {seconds} s"
        time.sleep(0.05)


def has_ended(process: psutil.Process) -> bool:
    """Whether a process runs no more; a zombie does not."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE  # where nobody reaps orphans
    except psutil.NoSuchProcess:
        return True


class Said:
    """The lines that a process has said so far, read by a thread so that its pipe never fills."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.pid = process.pid
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line)

    @property
    def returncode(self) -> int | None:
        """Its exit code; None: it runs."""
        return self._process.poll()

    def count(self, text: str) -> int:
        """How many lines with ``text`` it has said."""
        return sum(text in line for line in self.lines)

    def wait_for(self, text: str, times: int = 1) -> None:
        """Return once it has said so many lines with ``text``; it must not end before."""
        wait_until(lambda: self.count(text) >= times or self._process.poll() is not None)
        if self._process.poll() is not None:
            self.text()
        assert self.count(text) >= times, f"{text!r} was not said {times} times:\n{''.join(self.lines)}"

    def text(self) -> str:
        """All of it; waits for the rest when the process has ended."""
        if self._process.poll() is not None:
            self._thread.join(PATIENCE_SECONDS)
        return "".join(self.lines)

    def end(self) -> str:
        """Wait for the end of the process; all that it has said."""
        self._process.wait(PATIENCE_SECONDS)
        return self.text()


def fired(log: Path) -> list[str]:
    """The names of the faults that happened, oldest first."""
    return [line.split()[0] for line in log.read_text().splitlines()] if log.exists() else []


def stopped_by(log: Path, count: int = 1) -> list[int]:
    """The pids of the ``count`` processes that faults with the action ``stop`` have stopped; waits for them."""
    wait_until(lambda: len(fired(log)) >= count)
    pids = [int(line.split()[1]) for line in log.read_text().splitlines()]
    assert len(pids) == count
    wait_until(lambda: all(psutil.Process(pid).status() == psutil.STATUS_STOPPED for pid in pids))
    return pids


def interrupt_stopped(said: Said, stopped: Sequence[int], interrupt: Callable[[], object], name: str) -> None:
    """Interrupt workers whose trials' processes stand still, so that no trial ends before its worker has heard of it.

    Args:
        said: what the workers say.
        stopped: pids of the trials' processes, one for each worker; they go on as soon as their workers suspend.
        interrupt: sends the signal.
        name: of the signal, as the workers call it.
    """
    interrupt()
    said.wait_for(f"{name}: stopping safely", times=len(stopped))
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)


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
            **{name: _without_clocks(trial.user_attrs.get(f"petskin-tune:{name}")) for name in SAME_COLUMNS},
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
        key = study.trials[number].user_attrs["petskin-tune:weights"]
        model = YOLO(str(home / "checkpoints" / key)).model
        kept[number] = {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, torch.Tensor)}
    return kept
