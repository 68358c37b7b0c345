"""The script that runs the slow tests: one that failed is run once more, alone, and what fails twice fails the run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.places import PROJECT

SLOW = PROJECT / ".ci" / "slow"
TESTS = """
import pathlib, pytest
seen = pathlib.Path(__file__).with_name("seen")

@pytest.mark.slow
@pytest.mark.parametrize("place", ["a b [한]"])
def test_now_and_then(place):
    if not seen.exists():
        seen.touch()
        assert False, "the first time"

@pytest.mark.slow
def test_always():
    assert {always}

@pytest.mark.slow
def test_never_again():
    with open(seen.with_name("runs"), "a") as file:
        file.write("run\\n")

def test_that_is_quick():
    assert False, "it is none of the slow ones"
"""


def slow(folder: Path, tests: str) -> subprocess.CompletedProcess[str]:
    """Run the script on a project of one file."""
    (folder / "test_it.py").write_text(tests)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run([SLOW, "test_it.py"], cwd=folder, env=kept | {"PATH": path}, capture_output=True, text=True)


@pytest.mark.parametrize("always", [True, False])
def test_a_slow_test_that_failed_is_run_once_more_alone_and_one_that_fails_twice_fails_the_run(
    tmp_path: Path, always: bool
) -> None:
    done = slow(tmp_path, TESTS.replace("{always}", str(always)))
    assert done.returncode == (0 if always else 1), done.stdout
    passed = [line for line in done.stdout.splitlines() if line.startswith("failed, then passed alone: ")]
    assert len(passed) == 1
    assert "::test_now_and_then[" in passed[0]
    assert ("failed twice: test_it.py::test_always" in done.stdout) is not always
    assert (tmp_path / "runs").read_text() == "run\n", "a test that had passed was run again"


def test_what_is_no_matter_of_single_tests_fails_the_run_at_once(tmp_path: Path) -> None:
    done = slow(tmp_path, "import nothing_of_that_name\n")
    assert done.returncode == 2, done.stdout
    assert "alone" not in done.stdout
