"""The scripts of CI.

The one that runs the slow tests: one that failed is run once more, alone, and what fails twice fails the run. The one
that asks for known vulnerabilities prints them, and where nobody answers it is skipped.
"""

from __future__ import annotations

import json
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


# ---- vulnerabilities -------------------------------------------------------------------------------------------------

KNOWN = {"name": "torch", "version": "2.6.0", "vulns": [{"id": "X-1", "fix_versions": ["2.6.1"]}]}
NOT_MENDED = {"name": "torch", "version": "2.6.0", "vulns": [{"id": "X-2", "fix_versions": []}]}
HARMLESS = {"name": "click", "version": "8.1.7", "vulns": []}
UNKNOWN = {"name": "click", "version": "8.1.7", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("packages", "code", "says"),
    [
        ([HARMLESS, KNOWN], 0, "torch 2.6.0: X-1, mended in 2.6.1\npip-audit: 2 of 2 packages looked at"),
        ([UNKNOWN, NOT_MENDED], 0, "torch 2.6.0: X-2, mended in no release yet\npip-audit: 1 of 2 packages looked at"),
        ([UNKNOWN], 0, "skipped: pip-audit, no advisories can be had here: not found"),
        (None, 0, "skipped: pip-audit, no advisories can be had here: no route to host"),
    ],
)
def test_known_vulnerabilities_are_printed_and_without_an_answer_the_audit_is_skipped_by_name(
    tmp_path: Path, packages: list[dict[str, object]] | None, code: int, says: str
) -> None:
    found = json.dumps({"dependencies": packages})
    answer = f"print({found!r}, file=open(sys.argv[sys.argv.index('--output') + 1], 'w'))"
    fails = "print('no route to host', file=sys.stderr)"
    audit = tmp_path / "pip-audit"
    audit.write_text(f"#!{sys.executable}\nimport sys\n{fails if packages is None else answer}\nsys.exit(1)\n")
    audit.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([PROJECT / ".ci" / "audit"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (code, says), done.stderr


def test_ci_asks_for_known_vulnerabilities() -> None:
    assert ".ci/audit\n" in (PROJECT / ".ci" / "run").read_text()
