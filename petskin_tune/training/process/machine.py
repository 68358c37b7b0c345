"""What a training runs on, as far as it can change its results: package versions, thread count, device, CUDA."""

from __future__ import annotations

import importlib
import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch

from petskin_tune import packages

_MODULES = {"opencv-python": "cv2", "opencv-python-headless": "cv2"}  # of packages that are not called as theirs


def loaded_versions() -> dict[str, str]:
    """Return the versions of the packages that run here: what a module says of itself, where pip says another thing.

    A module may come from elsewhere than what pip has installed (a clone on PYTHONPATH). Where pip says the same in
    more words (``4.13.0.92`` of a ``4.13.0``), its words are kept: an index knows packages by them.
    """
    found = packages.versions()
    for package in [name for name in packages.PACKAGES if name in found]:
        said = str(getattr(importlib.import_module(_MODULES.get(package, package)), "__version__", found[package]))
        if not _is_of(found[package], said):
            found[package] = said
    return found


def _is_of(installed: str, said: str) -> bool:
    """Say whether two versions name one release; a local suffix (``+cu130``) and further numbers do not count."""
    release, public = installed.partition("+")[0], said.partition("+")[0]
    return release == public or release.startswith(f"{public}.")


_VERSIONS = loaded_versions()  # while they are imported: a later `pip install` changes nothing in memory


def describe(device: torch.device, threads: int) -> dict[str, Any]:
    """Return the machine as ``protocol.Started.machine`` describes it, plain values only."""
    return {
        "versions": dict(_VERSIONS),
        "threads": threads,
        "device": str(device),
        "device_model": _device_model(device),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
    }


def _device_model(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _processor_model()


@cache
def _processor_model() -> str:
    """Return the processor's name and the vector instructions that torch uses on it, which decide its rounding."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"
