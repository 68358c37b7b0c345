"""Kill workers at random instants, wherever that finds them."""

from __future__ import annotations

import random
import signal
import subprocess

from tests.support.workers import Process, Said, wait_until

START_SECONDS = 2.0  # about what a forked worker takes until it trains
EPOCH_SECONDS = 1.5  # about what an epoch takes, validation and report included
LINES = (2, 4)  # of a worker: that of the study, that of its trial, its first epochs


def kill_at_random(worker: Process, chance: random.Random) -> None:
    """Kill ``worker``, which has more work than it can do, with SIGKILL at a random instant.

    A quarter of the instants lies in its start, the others after one of the first things that it says, so that a slow
    machine makes progress as a quick one does.
    """
    said = Said(worker)
    if chance.random() < 0.25:
        delay = chance.uniform(0.0, START_SECONDS)
    else:
        lines = chance.randint(*LINES)
        wait_until(lambda: len(said.lines) >= lines or worker.poll() is not None)
        delay = chance.uniform(0.0, EPOCH_SECONDS)
    try:
        worker.wait(delay)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()
    assert worker.returncode == -signal.SIGKILL, f"it ended by itself:\n{said.text()}"
