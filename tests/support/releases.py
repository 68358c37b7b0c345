"""Real releases of Ultralytics beside the installed one, on the path of the commands and tests that are started."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.places import PROJECT

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "1", "--timeout", "20")
OLDER = "8.4.185"  # trains as it is, but differently: its SegmentLoss26 lacks the mask-aware assigner of 8.4.190


def install(release: str, folder: Path) -> str:
    """Put a release of Ultralytics alone into ``folder``, and return it for PYTHONPATH. Skips without an index."""
    command = [*PIP, "install", "-q", "--no-deps", "--target", str(folder), f"ultralytics=={release}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no package index has ultralytics {release} here: {done.stderr.strip()[-200:]}")
    return str(folder)


def unpack(release: str, folder: Path) -> str:
    """Unpack a release of Ultralytics in ``folder``, and return where it lies, for PYTHONPATH. Skips without an index.

    Nothing is installed.
    """
    command = [*PIP, "download", "-q", "--no-deps", "--only-binary", ":all:", "--dest", str(folder / "wheel")]
    done = subprocess.run([*command, f"ultralytics=={release}"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no package index has ultralytics {release} here: {done.stderr.strip()[-200:]}")
    (wheel,) = (folder / "wheel").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "source")
    return str(folder / "source")


def newest() -> str:
    """The newest release of Ultralytics that the package index has. Skips without an index."""
    done = subprocess.run([*PIP, "index", "versions", "ultralytics"], capture_output=True, text=True, check=False)
    found = re.search(r"Available versions: ([\w.]+)", done.stdout)
    if found is None:
        pytest.skip(f"no package index answers here: {done.stderr.strip()[-200:]}")
    return found[1]


def cap() -> str:
    """The newest release that this project allows."""
    found = re.search(r'"ultralytics[^"]*<=([\d.]+)"', (PROJECT / "pyproject.toml").read_text())
    assert found, "pyproject.toml does not cap ultralytics"
    return found[1]
