"""Kill workers at random instants, wherever that finds them."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
import time

START_SECONDS = 4.0  # about what a worker takes until it trains
EPOCH_SECONDS = 1.5  # about what an epoch takes, validation and report included
PATIENCE_SECONDS = 120.0


class Said:
    """The lines that a process has said so far, read by a thread so that its pipe never fills."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line)

    def wait_for(self, count: int) -> None:
        """Return once it has said ``count`` lines, or has ended."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(self.lines) < count and self._process.poll() is None:
            assert time.monotonic() < deadline, f"{count} lines were not said:\n{self.text()}"
            time.sleep(0.01)

    def text(self) -> str:
        """All of it; waits for the rest when the process has ended."""
        if self._process.poll() is not None:
            self._thread.join(PATIENCE_SECONDS)
        return "".join(self.lines)


def kill_at_random(worker: subprocess.Popen[str], chance: random.Random) -> str | None:
    """Kill ``worker`` with SIGKILL at a random instant; what it said if it was quicker and ended by itself, else None.

    A quarter of the instants lies in its start, the others after one of the first things that it says, so that a slow
    machine makes progress as a quick one does.
    """
    said = Said(worker)
    if chance.random() < 0.25:
        delay = chance.uniform(0.0, START_SECONDS)
    else:
        said.wait_for(chance.randint(2, 4))
        delay = chance.uniform(0.0, EPOCH_SECONDS)
    try:
        worker.wait(delay)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()
    if worker.returncode == -signal.SIGKILL:
        return None
    return said.text()
