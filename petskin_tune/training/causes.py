"""What an error says about a trial: the one place where errors are told apart by their causes.

What comes of each kind is the worker's affair (``petskin_tune/study/failures.py``).
"""

from __future__ import annotations

import re

from petskin_tune.protocol import FailureKind
from petskin_tune.training import guards
from petskin_tune.training.data.labels import DataError

# What torch, its libraries and Ultralytics say where there is no GPU, a driver is broken or missing, or a disk is full.
_MACHINE = re.compile(
    r"no nvidia driver|nvidia driver on your system is too old|driver version is insufficient|cuda driver error"
    r"|no cuda gpus are available|no cuda-capable device|not compiled with cuda|invalid cuda 'device="
    r"|cuda unknown error|cuda initialization|nvml|no space left on device|unable to open shared memory object"
    r"|unable to write to file </torch_|not linked with support for|does not compute in bfloat16|there is none here"
    r"|no hip gpus are available|cuda call failed lazily|disk quota exceeded|read-only file system|input/output error"
    r"|pytorchstreamwriter failed|inline_container|library version mismatch",
    re.IGNORECASE,
)
_OF_THE_KERNELS_INPUT = re.compile("device-side assert", re.IGNORECASE)  # indices out of range, for one


def kind_of(error: BaseException) -> FailureKind:
    """Return the kind of failure that ``error`` is.

    ``machine`` is only what would happen to any trial here: a file that cannot be read or written, a library that
    cannot be loaded, a device that is not there or does not work. What is not recognised is the trial's own.
    """
    if isinstance(error, guards.Refused):
        return "machine" if _MACHINE.search(str(error)) else "refused"
    if isinstance(error, DataError):
        return "data"
    if isinstance(error, guards.CrowdedOut):
        return "machine"
    if isinstance(error, guards.NonFinite):
        return "diverged"
    if guards.is_out_of_memory(error):
        return "out-of-memory"
    if _OF_THE_KERNELS_INPUT.search(str(error)):
        return "crashed"
    if isinstance(error, (OSError, ImportError)) or guards.is_machine_fault(error) or _MACHINE.search(str(error)):
        return "machine"
    return "crashed"
