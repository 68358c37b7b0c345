"""The process of a trial apart from its training: away from the terminal, and what it found already imported."""

from __future__ import annotations

import contextlib
import os
import signal
import sys

_LISTED = (
    "torch",
    "torchvision",
    "cv2",
    "ultralytics",
    "ultralytics.models.yolo.segment",
    "petskin_tune.training.attempts",
)
_importer = os.getpid()


def inherited_modules() -> tuple[str, ...]:
    """Return the modules that a forkserver had imported for this process; () where it had to import them itself."""
    return tuple(name for name in _LISTED if name in sys.modules) if os.getpid() != _importer else ()


def usable_cpus() -> int:
    """Return how many CPUs this process may use, which is less than the machine has under ``taskset`` or Slurm."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ignore_signals(_: int = 0) -> None:
    """Be deaf to Ctrl-C and SIGTERM: the worker decides when trials end.

    Whoever stops a service or a batch job signals all its processes, and a training whose loader processes die cannot
    write its snapshot. Loader processes call this too (``worker_init_fn``), after torch has set handlers of its own.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def detach() -> None:
    """Leave the terminal for a session of one's own, and be deaf to its signals."""
    ignore_signals()
    with contextlib.suppress(PermissionError):  # it leads a session already
        os.setsid()
