"""Several GPUs: one worker process for each, under one parent that hands signals on and sums up how they ended."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from petskin_tune.errors import EXIT_DONE, EXIT_SUSPENDED, EXIT_UNFORESEEN, EXIT_USAGE, UsageError
from petskin_tune.interrupts import CTRL_C_OF_PARENT, Signals

RESTARTS = 3  # of a worker that died, while another one lives
LOOK_SECONDS = 0.2  # how often somebody looks whether one has
_GPU = re.compile(r"\+?\d+|(GPU|MIG)-\S+")  # a number, or a device's own name
_CUDA = re.compile(r"(?:cuda:)?(\d+)", re.ASCII)  # as Ultralytics and torch name a GPU
# Drivers that list no GPUs under /proc: ROCm's, WSL's, Jetson's. What they have is seen when a trial starts.
_OTHER_DRIVERS = tuple(map(Path, ("/dev/kfd", "/dev/dxg", "/dev/nvhost-gpu", "/dev/nvgpu")))
# `python -c` would look modules up in the current folder first, before those that are installed.
SAFE_PATH = ["-P"] if sys.version_info >= (3, 11) else []


def device_list(text: str) -> list[str]:
    """What ``--device`` names: ``""`` (this machine's own choice), ``cpu``, ``0``, ``cuda:0``, ``0,1`` or ``all``.

    Raises:
        UsageError: it names none, the same one twice, or a GPU that is not here.
    """
    if text == "all":
        devices = visible_gpus()
        if not devices:
            raise UsageError("--device all: no GPU is visible here; nvidia-smi lists what there is.")
        return devices
    devices = [_plain(part.strip()) for part in text.split(",")]
    gpus = [device for device in devices if device.isdecimal()]
    for device in devices:
        if device not in ("", "cpu", "mps", *gpus):
            raise UsageError(
                f"--device {text}: {device!r} is none; name cpu, a GPU's number, a list such as 0,1, or all."
            )
    if "mps" in devices and sys.platform != "darwin":
        raise UsageError(f"--device {text}: there is no mps here, which is Apple's; name cpu, or a GPU's number.")
    if len(devices) > 1 and ("" in devices or len(set(devices)) < len(devices)):
        raise UsageError(f"--device {text}: name each device once.")
    _require_gpus(text, gpus)
    return devices


def _plain(device: str) -> str:
    """``cuda:0`` and ``cuda`` as the number that they mean."""
    if device == "cuda":
        return "0"
    named = _CUDA.fullmatch(device)
    return (named[1].lstrip("0") or "0") if named else device


def _require_gpus(text: str, gpus: Sequence[str]) -> None:
    """Refuse a GPU that is not here, as far as that is known without asking CUDA.

    Raises:
        UsageError: it is not.
    """
    visible = visible_gpus()
    if not visible and any(driver.exists() for driver in _OTHER_DRIVERS):
        return
    for gpu in gpus:
        if gpu not in visible:
            there = f"visible are {', '.join(visible)}" if visible else "none is visible: name cpu, or leave it out"
            raise UsageError(f"--device {text}: there is no GPU {gpu} here; {there}.")


def visible_gpus() -> list[str]:
    """Numbers of the GPUs that this process may use, as CUDA counts them.

    CUDA hides what ``CUDA_VISIBLE_DEVICES`` lists from its first entry on that is no device: -1, NoDevFiles, a space.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        named = list(itertools.takewhile(_GPU.fullmatch, (part.strip() for part in visible.split(","))))
        return [str(index) for index in range(len(named))] if len(set(named)) == len(named) else []
    folder = Path("/proc/driver/nvidia/gpus")
    return [str(index) for index in range(len(list(folder.iterdir())))] if folder.is_dir() else []


class WorkerProcesses:
    """The worker processes of several devices, and the signals that are handed on to them.

    Args:
        signals: what has come so far; from the start of the processes on, signals are handed on to them.
    """

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._processes: dict[str, subprocess.Popen[bytes]] = {}  # by device
        self._told = False  # whether a signal was handed on
        self._terminated_at: float | None = None  # instant (monotonic) of the first SIGTERM

    def work(self, program: str, requests: Mapping[str, bytes], again: Mapping[str, bytes] | None = None) -> int:
        """Run one process for each device to its end; one exit code for all of them.

        One that dies while others live is started again, a few times: else its device would stand idle for days.

        Args:
            program: Python that each process executes.
            requests: by device, what its process reads from its standard input. It may hold secrets, which every user
                of this machine could read among a process's arguments.
            again: the same for a process that is started again; None: ``requests``.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._hand_on)
        for device, request in requests.items():
            self._start(program, device, request)
        left = dict.fromkeys(requests, RESTARTS)
        while running := [device for device, process in self._processes.items() if process.poll() is None]:
            for device in self._processes.keys() - running:
                if left[device] and self._is_to_go_on(device):
                    left[device] -= 1
                    self._start(program, device, (again or requests)[device])
            time.sleep(LOOK_SECONDS)
        codes = [process.wait() for process in self._processes.values()]
        return worst([EXIT_SUSPENDED if self._died_of_it(code) else code for code in codes])

    def _start(self, program: str, device: str, request: bytes) -> None:
        self._processes[device] = _started(program, device, request)
        if self._told or self._signals.came is not None:  # meanwhile; whoever runs by now was not told
            self._hand_on(signal.SIGTERM, None)

    def _is_to_go_on(self, device: str) -> bool:
        """Whether a worker that has ended is started again: for a reason that nobody foresaw, such as out of memory."""
        code = self._processes[device].returncode
        if code in (EXIT_DONE, EXIT_SUSPENDED, EXIT_USAGE) or self._told:
            return False
        sys.stderr.write(f"the worker of device {device} has ended with exit code {code}: it is started again\n")
        return True

    def seconds_since_sigterm(self) -> float:
        """Since the first SIGTERM, behind which somebody may kill; 0 if there was none."""
        return 0.0 if self._terminated_at is None else time.monotonic() - self._terminated_at

    def _hand_on(self, number: int, _frame: object) -> None:
        self._told = True
        if number == signal.SIGTERM:
            self._terminated_at = self._terminated_at or time.monotonic()
        for process in list(self._processes.values()):
            if process.poll() is None:
                process.send_signal(CTRL_C_OF_PARENT if number == signal.SIGINT else number)

    def _died_of_it(self, code: int) -> bool:
        """Whether a signal came before a worker could hear it: it had begun nothing."""
        return self._told and -code in (signal.SIGINT, signal.SIGTERM, CTRL_C_OF_PARENT)


def _started(program: str, device: str, request: bytes) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        *SAFE_PATH,
        "-c",
        program,
        f"--device={device}",
    ]  # the last is for whoever lists the processes
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin:  # it has ended already: its exit code says how
        process.stdin.write(request)
    return process


def worst(codes: Sequence[int]) -> int:
    """One exit code for several workers: an error first, then work left, then done."""
    for code in (EXIT_USAGE, EXIT_SUSPENDED, EXIT_DONE):
        if code in codes and all(other in (EXIT_USAGE, EXIT_SUSPENDED, EXIT_DONE) for other in codes):
            return code
    return EXIT_UNFORESEEN
