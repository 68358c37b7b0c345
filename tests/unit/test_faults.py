"""Planned faults happen where they are planned: the process does nothing after the point."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REACH = """
import os, threading
from petskin_tune import faults

def work():
    faults.reach("before")
    faults.reach("here")
    os.write(1, b"it went on")

threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
PATIENCE = 120.0


@pytest.mark.parametrize("action", ["stop", "kill"])
def test_no_thread_that_reached_the_point_goes_on_after_a_fault_that_ends_or_stops_its_process(
    action: str, tmp_path: Path
) -> None:
    log = tmp_path / "fired"
    environment = {"TUNE_FAULTS": f"here={action}", "TUNE_FAULTS_LOG": str(log), "PYTHONPATH": ":".join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", REACH], stdout=subprocess.PIPE, env=environment)
    deadline = time.monotonic() + PATIENCE
    while action == "stop" and _state(process.pid) != "T":
        assert time.monotonic() < deadline
        time.sleep(0.005)
    if action == "stop":
        process.kill()
    said, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said) == (-signal.SIGKILL, b"")
    assert {line.split()[0] for line in log.read_text().splitlines()} == {"here"}


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
