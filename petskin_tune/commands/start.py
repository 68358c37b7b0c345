"""Start one worker in this process, or one per GPU under it."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from petskin_tune.commands.opening import Opened, Places, open_or_create, resolve
from petskin_tune.errors import EXIT_DONE, EXIT_SUSPENDED, EXIT_UNFORESEEN, EXIT_USAGE, UsageError
from petskin_tune.home.home import Mode
from petskin_tune.identity import process_age
from petskin_tune.interrupts import Interrupted, Signals, unless
from petskin_tune.trial.process import Runner
from petskin_tune.trial.timings import SIGNAL_SECONDS, Deadline
from petskin_tune.trial.workplace import Options, Workplace
from petskin_tune.views.progress import Progress, open_progress
from petskin_tune.worker.suspension import Suspension
from petskin_tune.worker.worker import Worker


def start_worker(
    places: Places,
    signals: Signals,
    *,
    data: str | None,
    device: str,
    name: str | None,
    max_hours: float | None,
    target_trials: int | None,
    max_trials: int | None,
    take_over: bool,
    allow_different_machine: bool,
    exact: bool,
) -> int:
    """Run a worker, or one for each of several devices, to its end. Returns the exit code.

    Raises:
        UsageError: wrong usage, or a study that cannot run.
    """
    if exact and allow_different_machine:
        raise UsageError("Name either --exact or --allow-different-machine: one leaves what the other goes on with.")
    began = _began()
    devices = device_list(device)
    if len(devices) > 1 and signals.came is None:
        return _one_worker_each(devices, places, take_over, began, signals)
    for_workers = f" --data {shlex.quote(data)}" if data else ""
    for_workers += " --exact" if exact else " --allow-different-machine" if allow_different_machine else ""
    view = open_progress()
    signals.before_exit = view.close
    try:
        opened = unless(lambda: signals.came is not None, lambda: _open(places, view, data, target_trials, take_over))
        options = Options(
            typed=places.typed,
            typed_for_workers=for_workers,
            worker=name or f"{socket.gethostname()}-{os.getpid()}",
            device=devices[0],
            data=data,
            max_hours=max_hours,
            max_trials=max_trials,
            take_over=take_over,
            allow_different_machine=allow_different_machine,
            exact=exact,
        )
        processes = Runner(opened.home.work / "ultralytics")
        place = Workplace(opened.study, opened.home, processes, view, options, opened.prepared)
        deadline = None if max_hours is None else Deadline(began, max_hours, place.times)
        return _work(place, Suspension(place, deadline), signals)
    except Interrupted:
        view.suspended(f"tune-worker --study {shlex.quote(places.study)}{places.typed}{for_workers}")
        return EXIT_SUSPENDED
    finally:
        view.close()


def _open(places: Places, view: Progress, data: str | None, target_trials: int | None, take_over: bool) -> Opened:
    mode: Mode = "guest" if os.environ.get(GUEST) else "owner"
    opened = open_or_create(replace(places, take_over=take_over, mode=mode), view.note, data)
    if target_trials is not None and target_trials != opened.study.spec.target_trials:
        opened.study.change(target_trials=target_trials)
    return opened


def _work(place: Workplace, suspension: Suspension, signals: Signals) -> int:
    signals.tell(suspension.ask)
    try:
        return Worker(place, suspension).work()
    finally:
        if not place.home.close(LAST_COPY_SECONDS):
            place.view.note("the home does not answer: its copy of the database is older than what was done here")
        suspension.close()


def _began() -> float:
    """The instant (monotonic) at which the command was typed: imports, and a parent's start, count for its hours."""
    if (typed_at := os.environ.get(GUEST)) is not None:
        return time.monotonic() - max(0.0, time.time() - float(typed_at))
    return time.monotonic() - min(process_age(), LONGEST_START_SECONDS)


LONGEST_START_SECONDS = 30.0  # an older process was not started by the command
GUEST = "TUNE_GUEST"  # set for the workers of several devices, whose parent owns the home: when they began (UNIX time)
LAST_COPY_SECONDS = 5.0  # what a network home gets for its last copy, within the time that a suspension may take
SHORTEST_COPY_SECONDS = 1.0  # where the workers took all of it


# ---- several devices -------------------------------------------------------------------------------------------------


def device_list(text: str) -> list[str]:
    """The devices that ``--device`` names: ``""`` (this machine's own choice), ``cpu``, ``0``, ``0,1`` or ``all``.

    Raises:
        UsageError: it names none, or the same one twice.
    """
    if text == "all":
        devices = visible_gpus()
        if not devices:
            raise UsageError("--device all: no GPU is visible here; nvidia-smi lists what there is.")
        return devices
    devices = [part.strip() for part in text.split(",")]
    for device in devices:
        if device not in ("", "cpu", "mps") and not device.isdigit():
            raise UsageError(
                f"--device {text}: {device!r} is none; name cpu, a GPU's number, a list such as 0,1, or all."
            )
    if len(devices) > 1 and ("" in devices or len(set(devices)) < len(devices)):
        raise UsageError(f"--device {text}: name each device once.")
    return devices


def visible_gpus() -> list[str]:
    """Numbers of the GPUs that this process may use, as CUDA counts them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [str(index) for index, part in enumerate(visible.split(",")) if part.strip()]
    folder = Path("/proc/driver/nvidia/gpus")
    return [str(index) for index in range(len(list(folder.iterdir())))] if folder.is_dir() else []


def _one_worker_each(devices: list[str], places: Places, take_over: bool, began: float, signals: Signals) -> int:
    """Start this very command once for each device, hand signals on, and sum up how they ended.

    On a network home this process is the one that owns it, and keeps the copies of its database. Its last copy needs
    time after the workers' end, so their hours begin that much earlier.
    """
    typed_at = time.time() - (time.monotonic() - began)
    home = resolve(places)
    if not home.network:
        return _Workers(signals).work(devices, typed_at)
    home.start("owner", take_over=take_over, say=print)
    workers = _Workers(signals)
    try:
        return workers.work(devices, typed_at - LAST_COPY_SECONDS)
    finally:
        home.close(max(SHORTEST_COPY_SECONDS, min(LAST_COPY_SECONDS, SIGNAL_SECONDS - workers.seconds_since_told())))


class _Workers:
    """The workers of several devices, and the signals that are handed on to them."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._processes: list[subprocess.Popen[bytes]] = []
        self._told_at: float | None = None

    def work(self, devices: list[str], began: float) -> int:
        """Start one worker for each of ``devices``, their hours counting from ``began`` (UNIX time); one exit code."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._hand_on)
        for command in _commands(devices):
            self._processes.append(subprocess.Popen(command, env={**os.environ, GUEST: repr(began)}))
        if self._told_at is not None or self._signals.came is not None:  # meanwhile; whoever runs by now was not told
            self._hand_on(signal.SIGTERM, None)
        codes = [process.wait() for process in self._processes]
        return worst([EXIT_SUSPENDED if self._died_of_it(code) else code for code in codes])

    def seconds_since_told(self) -> float:
        """Since a signal was handed on first; 0 if none was."""
        return 0.0 if self._told_at is None else time.monotonic() - self._told_at

    def _hand_on(self, number: int, _frame: object) -> None:
        self._told_at = self._told_at or time.monotonic()
        for process in self._processes:
            if process.poll() is None and number != signal.SIGINT:  # a Ctrl-C reaches the whole group by itself
                process.send_signal(number)

    def _died_of_it(self, code: int) -> bool:
        """Whether a signal came before a worker could hear it: it had begun nothing."""
        return self._told_at is not None and -code in (signal.SIGINT, signal.SIGTERM)


def _commands(devices: list[str]) -> list[list[str]]:
    """What was typed, once for each device."""
    if _has_option("--name"):
        names = {device: ["--name", f"{_option('--name')}-{device}"] for device in devices}
    else:
        names = {device: [] for device in devices}
    shared = [*_this_command(), *_without_options("--device", "--name")]
    later = [argument for argument in shared if argument != "--take-over"]  # or siblings take from each other
    return [[*(later if index else shared), "--device", device, *names[device]] for index, device in enumerate(devices)]


def worst(codes: list[int]) -> int:
    """One exit code for several workers: an error first, then work left, then done."""
    for code in (EXIT_USAGE, EXIT_SUSPENDED, EXIT_DONE):
        if code in codes and all(other in (EXIT_USAGE, EXIT_SUSPENDED, EXIT_DONE) for other in codes):
            return code
    return EXIT_UNFORESEEN


def _this_command() -> list[str]:
    return [sys.executable, "-c", "from petskin_tune.cli import tune_worker; tune_worker()"]


def _option(name: str) -> str:
    arguments = sys.argv[1:]
    for index, argument in enumerate(arguments):
        if argument == name and index + 1 < len(arguments):
            return arguments[index + 1]
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
    return ""


def _has_option(name: str) -> bool:
    return any(argument == name or argument.startswith(f"{name}=") for argument in sys.argv[1:])


def _without_options(*names: str) -> list[str]:
    kept: list[str] = []
    skip = False
    for argument in sys.argv[1:]:
        if skip:
            skip = False
        elif argument in names:
            skip = True
        elif not argument.startswith(tuple(f"{name}=" for name in names)):
            kept.append(argument)
    return kept
