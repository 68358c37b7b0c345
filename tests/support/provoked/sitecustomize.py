"""Makes happen inside the trials of a worker under test what a test cannot order from outside.

Python imports this module at its start where this folder is on PYTHONPATH. ``TUNE_FAULTS_PLAN="0=memory;3=segfault@3"``
provokes failures by trial number: what ``PROVOCATIONS`` names, ``@n`` the first n times only. What happened is appended
to the file TUNE_FAULTS_HAPPENED, one ``trial name`` a line, so that a test can assert that it did, and in how many
processes.

``TUNE_FAULTS_GPUS=1`` gives the machine GPUs of every number that are asked for, all of them its processor in truth;
which one a trial was sent to is recorded as ``trial gpu N``.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.util
import math
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

TRAINER = "petskin_tune.training.trainer"


class _AfterImport(importlib.abc.MetaPathFinder):
    """Changes the trainer's class right after its module was imported, in the forkserver or in a trial's process."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != TRAINER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None
        loader: Any = spec.loader
        execute = loader.exec_module

        def execute_and_provoke(module: Any) -> None:
            execute(module)
            _provoke(module.ResumableTrainer)

        loader.exec_module = execute_and_provoke
        return spec


def _provoke(trainer: Any) -> None:
    _around(trainer, "_overrides", _at_request)
    _around(trainer, "resume_training", _before_set_up)
    _around(trainer, "_choose_precision", _after_precision)
    _around(trainer, "_accumulate_gradients", _at_batch)


def _around(trainer: Any, name: str, change: Callable[..., Any]) -> None:
    original = getattr(trainer, name)

    @functools.wraps(original)
    def changed(self: Any, *args: Any) -> Any:
        return change(self, functools.partial(original, self, *args), *args)

    setattr(trainer, name, changed)


# ---- the four places ------------------------------------------------------------------------------------------------


def _at_request(trainer: Any, overrides: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    if not (os.environ.get("TUNE_FAULTS_GPUS") and trainer.job.device.isdigit()):
        return overrides()
    _record(trainer, f"gpu {trainer.job.device}")
    return {**overrides(), "device": "cpu"}


def _before_set_up(trainer: Any, go_on: Callable[[], None], *_: Any) -> None:
    if _planned(trainer) == "argument" and _fires(trainer):
        trainer.args.mosaic = 0.123  # behind our back
    go_on()


def _after_precision(trainer: Any, go_on: Callable[[], None]) -> None:
    go_on()
    if _planned(trainer) == "nan" and trainer.decisions.precision is None:
        trainer.precision = "amp"  # the flag alone: a CPU has no AMP


def _at_batch(trainer: Any, go_on: Callable[[], None], _batch: Any, index: int) -> None:
    import torch

    planned, place = _planned(trainer), (trainer.epoch + 1, index + 1)
    micro_batch = trainer.decisions.micro_batch or trainer.batch_size
    if (planned == "memory" and micro_batch > 4 and _fires(trainer)) or (planned == "no-memory" and _fires(trainer)):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    if planned == "segfault" and place == (1, 2) and _fires(trainer):
        os.kill(os.getpid(), signal.SIGSEGV)
    if planned == "error" and place == (2, 1) and _fires(trainer):
        torch.nn.Linear(3, 1).load_state_dict(torch.nn.Linear(2, 1).state_dict())
    if planned == "explosion":
        for group in trainer.optimizer.param_groups:
            group["lr"] = 1e6
    go_on()
    if planned == "nan" and place == (2, 3) and trainer.precision == "amp" and _fires(trainer):
        trainer.loss = torch.tensor(math.nan)
    if planned == "count":
        _record(trainer, f"batch {place}")
    if planned == "explosion":
        _record(trainer, f"batch {'finite' if trainer.loss.isfinite() else 'not finite'}")


# ---- the plan -------------------------------------------------------------------------------------------------------


def _plan() -> dict[int, str]:
    items = (item.partition("=") for item in os.environ.get("TUNE_FAULTS_PLAN", "").split(";") if item)
    return {int(number): what for number, _, what in items}


def _planned(trainer: Any) -> str | None:
    return _plan().get(trainer.job.trial, "").partition("@")[0] or None


def _fires(trainer: Any) -> bool:
    name, _, times = _plan()[trainer.job.trial].partition("@")
    with open(os.environ["TUNE_FAULTS_HAPPENED"], "a+", encoding="utf-8") as file:
        file.seek(0)
        before = file.read().splitlines().count(f"{trainer.job.trial} {name}")
    if times and before >= int(times):
        return False
    _record(trainer, name)
    return True


def _record(trainer: Any, what: str) -> None:
    with open(os.environ["TUNE_FAULTS_HAPPENED"], "a", encoding="utf-8") as file:
        file.write(f"{trainer.job.trial} {what}\n")


if os.environ.get("TUNE_FAULTS_PLAN") or os.environ.get("TUNE_FAULTS_GPUS"):
    sys.meta_path.insert(0, _AfterImport())
