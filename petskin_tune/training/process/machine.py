"""What a training runs on, as far as it can change its results: package versions, thread count, device, CUDA."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch

from petskin_tune import packages

_VERSIONS = packages.versions()  # while they are imported: a later `pip install` changes nothing in memory


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
