"""Start console scripts by forking an interpreter that has torch and its like in memory, so that no life pays for them.

All else is as if the script were executed: a process of its own with the environment, folder, session and pipes asked
for, which runs the installed script as ``__main__``; its forkserver is its own child. Two interpreters with different
hash seeds take turns, so that nothing may depend on the order of a set. Run as a program this file is such an
interpreter.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import fcntl
import gc
import io
import itertools
import json
import multiprocessing.util
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

# Slow to import, and of others; petskin_tune and Ultralytics read the environment as they are imported.
PRELOAD = ("torch", "torchvision", "optuna", "sqlalchemy.orm", "psycopg2", "click", "yaml", "numpy", "cv2", "PIL.Image")
READ_AT_THE_START = ("PYTHON", "LC_", "LANG", "OMP_", "MKL_", "OPENBLAS_", "TORCH_", "CUDA_", "LD_", "VIRTUAL_ENV")
LARGEST_REQUEST = 1 << 20
OUT_OF_THE_WAY = 500  # of the file descriptors that are handed over


def can_fork(environment: Mapping[str, str]) -> bool:
    """Whether a process with ``environment`` does not differ in what an interpreter and torch read as they start."""
    names = {name for name in {*environment, *os.environ} if name.startswith(READ_AT_THE_START)}
    return sys.platform == "linux" and all(
        environment.get(name) == os.environ.get(name) for name in names - {"PYTHONUNBUFFERED"}
    )


class Forked:
    """A process, with as much of :class:`subprocess.Popen` as tests use.

    Args:
        script: a console script.
        arguments: of the script.
        cwd: where it works.
        environment: all of it. Its standard output and error go into one pipe, ``stdout``.
    """

    def __init__(self, script: Path, arguments: tuple[str, ...], cwd: Path, environment: Mapping[str, str]) -> None:
        read, write = os.pipe()
        ended, ending = os.pipe()
        with open(os.devnull) as nothing:
            self.args = [str(script), *arguments]
            cpus = sorted(os.sched_getaffinity(0))
            request = {"argv": self.args, "cwd": str(cwd), "environment": dict(environment), "cpus": cpus}
            self.pid = _next_interpreter().fork(request, [nothing.fileno(), write, ending])
        os.close(write)
        os.close(ending)
        self.stdout = open(read, encoding="utf-8", errors="replace")  # noqa: SIM115 (as long as the process)
        self.returncode: int | None = None
        self._ended = ended
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None: it runs."""
        return self._wait(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended.

        Raises:
            subprocess.TimeoutExpired: it runs after ``timeout`` seconds.
        """
        code = self._wait(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return code

    def _wait(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._ended], [], [], timeout)[0]:
            with self._lock:
                if self.returncode is None:
                    self.returncode = int(os.read(self._ended, 16) or b"-9")  # nothing: its interpreter was killed
                    os.close(self._ended)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """All that it says until it ends.

        Raises:
            subprocess.TimeoutExpired: it runs, or its output is held open, after ``timeout`` seconds.
        """
        if not hasattr(self, "_reader"):
            self._said: list[str] = []
            self._reader = threading.Thread(target=lambda: self._said.append(self.stdout.read()), daemon=True)
            self._reader.start()
        deadline = None if timeout is None else time.monotonic() + timeout
        self._reader.join(timeout)
        if self._reader.is_alive():
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        self.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return self._said[0], None

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)


class Interpreter:
    """The process that is forked.

    Args:
        seed: of its hashes.
    """

    def __init__(self, seed: int) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._control, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGEST_REQUEST)
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            env={**os.environ, "PYTHONHASHSEED": str(seed), "OMP_NUM_THREADS": "1"},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()
        self._lock = threading.Lock()
        atexit.register(self.close)

    def fork(self, request: dict[str, Any], descriptors: list[int]) -> int:
        """The pid of a new process; ``descriptors`` are its input, its output, and where its exit code is written."""
        with self._lock:
            socket.send_fds(self._control, [json.dumps(request).encode()], descriptors)
            return int(self._control.recv(16))

    def close(self) -> None:
        """End it; the processes go on."""
        self._control.close()
        self._process.wait()


_INTERPRETERS: list[Interpreter] = []
_TURNS = itertools.count()


def _next_interpreter() -> Interpreter:
    turn = next(_TURNS) % 2
    if turn == len(_INTERPRETERS):
        _INTERPRETERS.append(Interpreter(seed=turn + 1))
    return _INTERPRETERS[turn]


# ---- the interpreter that is forked ----------------------------------------------------------------------------------


def serve(control: socket.socket) -> dict[str, Any] | None:
    """Fork a process for each request, until the other end is closed; the request, in the new process."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    told: dict[int, int] = {}  # pid -> where its exit code is written
    while True:
        ready, _, _ = select.select([control, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _tell_who_ended(told)
        if control in ready:
            data, descriptors, _, _ = socket.recv_fds(control, LARGEST_REQUEST, 3)
            if not data:
                return None
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                request: dict[str, Any] = json.loads(data)
                _become(request, descriptors)
                return request
            told[pid] = descriptors.pop()
            for descriptor in descriptors:
                os.close(descriptor)
            control.send(str(pid).encode())


def _tell_who_ended(told: dict[int, int]) -> None:
    while told:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        os.write(told[pid], str(os.waitstatus_to_exitcode(status)).encode())
        os.close(told.pop(pid))


def _become(request: dict[str, Any], descriptors: list[int]) -> None:
    """Turn this new process into the one that was asked for, but for its program."""
    os.setsid()
    read, write, _ = descriptors
    for source, target in ((read, 0), (write, 1), (write, 2)):
        os.dup2(source, target)
    os.closerange(3, 1 << 16)
    os.sched_setaffinity(0, request["cpus"])
    _enter(request["cwd"], request["environment"])
    _wait_as_a_forkserver()


def _enter(cwd: str, environment: dict[str, str]) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 (as long as the process)
    sys.stdout = _unbuffered(1, sys.stdout)
    sys.stderr = _unbuffered(2, sys.stderr)


def _unbuffered(descriptor: int, like: TextIO) -> TextIO:
    raw = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(raw, encoding=like.encoding, errors=like.errors, write_through=True)


def _wait_as_a_forkserver() -> None:
    """Fork, before anything is opened, the process that multiprocessing's forkserver will be: it imports torch, too."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGEST_REQUEST)
    pid = os.fork()
    if pid == 0:
        ours.close()
        _be_the_forkserver(theirs)
    theirs.close()
    execute = multiprocessing.util.spawnv_passfds

    def start(path: bytes, arguments: list[str], descriptors: list[int]) -> int:
        program = arguments[-1]
        if "multiprocessing.forkserver" not in program or ours.fileno() < 0:  # it has died: the next one is executed
            return execute(path, arguments, descriptors)
        request = {
            "program": program,
            "cwd": os.getcwd(),
            "environment": dict(os.environ),
            "descriptors": descriptors,
            "blocked": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
        }
        socket.send_fds(ours, [json.dumps(request).encode()], descriptors)
        ours.close()
        return pid

    multiprocessing.util.spawnv_passfds = start


def _be_the_forkserver(control: socket.socket) -> None:
    moved = fcntl.fcntl(control.fileno(), fcntl.F_DUPFD, OUT_OF_THE_WAY)
    control.close()
    control = socket.socket(fileno=moved)
    data, received = b"", array.array("i")
    with contextlib.suppress(OSError):
        data, received, _, _ = socket.recv_fds(control, LARGEST_REQUEST, 16)
    if not data:
        os._exit(0)
    request = json.loads(data)
    moved_away = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, OUT_OF_THE_WAY) for descriptor in received]
    for descriptor, target in zip(moved_away, request["descriptors"], strict=True):
        os.dup2(descriptor, target)
    for descriptor in (*received, *moved_away, moved):
        if descriptor not in request["descriptors"]:
            os.close(descriptor)
    control.detach()
    signal.pthread_sigmask(signal.SIG_SETMASK, request["blocked"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _enter(request["cwd"], request["environment"])
    code = 1
    try:
        exec(request["program"], {"__name__": "__main__"})
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:  # noqa: BLE001 (said as an interpreter says it)
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Import, serve, and in a new process run its script."""
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in PRELOAD:
        __import__(name)
    gc.freeze()  # what is imported stays for good: no new process copies it to look for garbage
    request = serve(control)
    if request is None:
        return
    control.detach()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv[:] = request["argv"]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
