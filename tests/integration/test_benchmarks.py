"""The benchmarks run: nothing else would tell that one of them has fallen behind the code that it measures."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.support.places import PROJECT
from tests.support.workers import environment

BENCHMARKS = PROJECT / "benchmarks"
PATIENCE = 540


def run(*typed: str) -> str:
    done = subprocess.run(
        [sys.executable, *typed], cwd=BENCHMARKS, env=environment(), capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_the_database_costs_is_printed_beside_stock() -> None:
    said = run("database.py", "--workers", "4", "--seconds", "0.5", "--finished", "10")
    assert re.search(r"^statements of an epoch with a verdict +\d+ +\d+$", said, re.MULTILINE), said
    assert re.search(r"^claims of 64 orphans, 8 claimers at once +\d+/s", said, re.MULTILINE), said


@pytest.mark.slow
def test_workers_that_are_killed_at_random_lose_nothing_and_do_nothing_twice() -> None:
    said = run("database.py", "--workers", "6", "--kills", "0.2")
    assert re.search(r"^epochs reported, and lost +\d+, 0$", said, re.MULTILINE), said
    assert "WRONG" not in said


@pytest.mark.parametrize(
    "name", sorted(path.name for path in BENCHMARKS.glob("*.py") if "__main__" in path.read_text())
)
def test_every_benchmark_can_at_least_be_started(name: str) -> None:
    assert "usage:" in run(name, "--help")
