"""What a training runs on, as far as it can change its results: package versions, thread count, device model."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from petskin_tune import __version__

_PACKAGES = ("ultralytics", "torch", "torchvision", "numpy", "opencv-python", "opencv-python-headless")


def describe(device: torch.device, threads: int) -> dict[str, Any]:
    """Return the machine as ``protocol.Started.machine`` describes it, plain values only."""
    return {
        "versions": _versions(),
        "threads": threads,
        "device": str(device),
        "device_model": _device_model(device),
    }


def differences(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Say how ``current`` differs from ``recorded``, one phrase each; the device's index does not count."""
    phrases = []
    old, new = recorded.get("versions", {}), current["versions"]
    for package in sorted({*old, *new}):
        if old.get(package) != new.get(package):
            phrases.append(f"{package} {new.get(package, 'absent')} instead of {old.get(package, 'none')}")
    for key, name in (("threads", "threads"), ("device_model", "device")):
        if key in recorded and recorded[key] != current[key]:
            phrases.append(f"{name} {current[key]} instead of {recorded[key]}")
    return phrases


def installation(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    """Return the command that installs the recorded versions, or '' where the packages agree."""
    old, new = recorded.get("versions", {}), current["versions"]
    wanted = [f"{name}=={old[name]}" for name in sorted(old) if name != "python" and old[name] != new.get(name)]
    return f"pip install {' '.join(wanted)}" if wanted else ""


@cache
def _versions() -> dict[str, str]:
    versions = {"petskin-tune": __version__, "python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


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
