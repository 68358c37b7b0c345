"""Which release of Ultralytics the project may allow: the contract and resume tests against the newest one there is.

``pytest -m slow -s tests/integration/training/test_releases.py`` says whether the cap in pyproject.toml can be
raised. A newer release that differs is a warning here, never a failure: nobody gets it before the cap says so.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.support import releases

TESTS = ("tests/integration/training/test_contract.py", "tests/integration/training/test_kills.py")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_the_newest_release_is_the_one_that_is_allowed_or_what_differs_is_said(tmp_path: Path) -> None:
    assert all((releases.PROJECT / name).is_file() for name in TESTS)  # whatever the newest release is
    cap, newest = releases.cap(), releases.newest()
    if newest == cap:
        print(f"\nultralytics {cap}, the newest release that pyproject.toml allows, is the newest there is")
        return
    differs = failures_with(newest, tmp_path / "newest")
    if not differs:
        print(f"\nnothing differs with ultralytics {newest}: pyproject.toml, which allows {cap}, may allow it")
        return
    warnings.warn(f"with ultralytics {newest} {len(differs)} tests fail: {', '.join(differs)}", stacklevel=1)
    broken = failures_with(cap, tmp_path / "cap")
    assert not broken, f"ultralytics {cap}, which pyproject.toml allows, fails"


def failures_with(release: str, folder: Path) -> list[str]:
    """The names of the contract and resume tests that fail with a release of Ultralytics."""
    environment = {**os.environ, "PYTHONPATH": releases.install(release, folder / "packages")}
    code = "import ultralytics; print(ultralytics.__version__)"
    asked = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert asked.stdout.split()[-1] == release, "another release is first on the path"
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", f"--junitxml={folder / 'results.xml'}", *TESTS]
    done = subprocess.run(command, env=environment, cwd=releases.PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    cases = list(ElementTree.parse(folder / "results.xml").iter("testcase"))
    assert len(cases) > len(TESTS), done.stdout
    return [case.attrib["name"] for case in cases if case.find("failure") is not None or case.find("error") is not None]
