"""What must not go on: a non-finite loss, arguments other than those asked for; and how out of memory is recognised."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from ultralytics.cfg import get_cfg
from ultralytics.utils import DEFAULT_CFG_DICT

from petskin_tune.datasets.last_batch import last_batch_fault
from petskin_tune.errors import UsageError
from petskin_tune.files import model_kinds
from petskin_tune.owned_arguments import OWNED
from petskin_tune.protocol import Position
from petskin_tune.text import size

# Owned arguments that a trial's job carries all the same.
_OF_THE_JOB = frozenset({"epochs", "seed"})
# Arguments that say where and how comfortably a training runs, not what it computes.
LOCAL_ARGUMENTS = frozenset(
    {"data", "device", "exist_ok", "mode", "model", "name", "plots", "project", "save", "save_dir", "save_period"}
    | {"verbose", "workers", "cache", "patience"}
)
_OWN_CONTEXT = 2**30  # bytes that CUDA and its libraries take of a device, beside what is allocated
_MUCH_MEMORY = 2**30  # bytes
_OUT_OF_MEMORY = (  # Ultralytics' list, in lower case
    "out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_internal_error",
    "unable to find an engine",
)
_MACHINE_FAULT = re.compile(  # of torch's data loader whose process was killed, and of its CUDA errors
    r"DataLoader worker \(pid.*\) (is killed by signal|exited unexpectedly)|pin memory thread|cuda error|cudnn error",
    re.IGNORECASE,
)
_BREAKS_MIXED_PRECISION = re.compile(
    r"(nvidia|geforce|quadro|tesla).*?(1660|1650|1630|t400|t550|t600|t1000|t1200|t2000|k40m)", re.IGNORECASE
)


class Refused(Exception):
    """What was asked is not what would be run; the message says which argument."""


class CrowdedOut(Exception):
    """The device's memory is taken by others: what does not fit now says nothing about the trial."""


class NonFinite(Exception):
    """The training has diverged: a loss or a weight is NaN or infinite."""

    def __init__(self, what: str, position: Position) -> None:
        super().__init__(f"{what} was not finite in epoch {position.epoch + 1}, batch {position.batch}")
        self.position = position


def check_request(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that this trainer cannot honour.

    Raises:
        Refused: One of them is set.
    """
    for name, value in arguments.items():
        if name in OWNED and name not in _OF_THE_JOB | LOCAL_ARGUMENTS and not _is_default(name, value):
            raise Refused(f"{name}={value!r} is refused: {OWNED[name]}")
    try:
        get_cfg(overrides=dict(arguments))
    except (SyntaxError, TypeError, ValueError) as error:  # an unknown name, a wrong type, a value out of range
        raise Refused(f"Ultralytics refuses the arguments: {' '.join(str(error).split())}") from error
    batch = arguments.get("batch", 16)
    if not isinstance(batch, int) or batch < 1:
        raise Refused(f"batch={batch!r} is refused: a batch size must be written out")


def _is_default(name: str, value: Any) -> bool:
    return value is None or value == ("segment" if name == "task" else DEFAULT_CFG_DICT.get(name))


def check_model(path: str) -> None:
    """Refuse a model that does not segment, by the rule by which a study's model is refused.

    Raises:
        Refused: It is of another task, no model that can be trained, or no file: Ultralytics would fetch a URL.
    """
    if "://" in path:
        raise Refused(f"model={path!r} is refused: give the path of a file")
    try:
        model_kinds.require_segmentation(Path(path))
    except UsageError as error:
        raise Refused(str(error)) from error


def check_device(asked: str, device: torch.device) -> None:
    """Refuse a device other than the one that was asked for: Ultralytics takes the CPU where there is no MPS.

    Raises:
        Refused: There is none here, which says nothing about the trial.
    """
    if asked == "mps" and device.type != "mps":
        raise Refused(f"device={asked!r} was asked for, there is none here")


def check_freeze(model: nn.Module, freeze: Any) -> None:
    """Refuse to freeze every layer; the rule is that of Ultralytics' ``_setup_train``.

    Args:
        model: That was built.
        freeze: How many layers, which ones by number or name, or None.

    Raises:
        Refused: Nothing is left to train.
    """
    frozen = freeze if isinstance(freeze, list) else range(freeze) if isinstance(freeze, int) else []
    names = [*(f"model.{layer}." for layer in frozen), ".dfl"]
    if all(any(name in parameter for name in names) for parameter, _ in model.named_parameters()):
        raise Refused(f"freeze={freeze!r} is refused: it leaves none of the model's {len(model.model)} layers to train")


def check_last_batch(images: int, batch: int, arguments: SimpleNamespace, stride: int) -> None:
    """Refuse what BatchNorm cannot compute, by the rule by which a study is refused.

    Args:
        images: To train on.
        batch: Images in a batch.
        arguments: In force.
        stride: The model's largest, in pixels.

    Raises:
        Refused: An epoch's last batch has one value per channel somewhere.
    """
    if fault := last_batch_fault(images, batch, arguments.imgsz, arguments.multi_scale, stride):
        raise Refused(fault)


def compare_arguments(requested: Mapping[str, Any], in_force: Mapping[str, Any]) -> list[str]:
    """Compare what was asked with what the trainer runs with.

    Returns:
        Sentences about changes that were announced by Ultralytics and are worth recording.

    Raises:
        Refused: An argument was changed behind our back.
    """
    notes = []
    automatic = str(requested.get("optimizer", "")).lower() == "auto"
    for name in sorted(requested.keys() - LOCAL_ARGUMENTS):
        asked, got = requested[name], in_force.get(name)
        if _same(asked, got):
            continue
        if automatic and name in {"optimizer", "lr0", "momentum", "warmup_bias_lr"}:
            notes.append(f"{name} is {got!r}: optimizer auto chose it")
        elif name == "max_det" and got > asked:
            notes.append(f"max_det is {got}: some images hold more than {asked} objects")
        else:
            raise Refused(f"{name}={asked!r} was asked for, {got!r} would be run")
    return notes


def compare_optimizer(
    optimizer: torch.optim.Optimizer, arguments: Mapping[str, Any], weight_decay: float, automatic: bool
) -> None:
    """Check that the optimizer's groups carry the arguments' values.

    Args:
        optimizer: As it was built, before warm-up.
        arguments: In force.
        weight_decay: The argument, scaled to the batch size as Ultralytics does.
        automatic: Ultralytics chose optimizer, learning rate and momentum.

    Raises:
        Refused: A group differs.
    """
    name = type(optimizer).__name__
    if not automatic and name.lower() != str(arguments["optimizer"]).lower():
        raise Refused(f"optimizer={arguments['optimizer']!r} was asked for, {name} would be run")
    for group in optimizer.param_groups:
        rates = {arguments["lr0"], arguments["lr0"] * 3} if name == "MuSGD" else {arguments["lr0"]}
        momentum = group["betas"][0] if "betas" in group else group["momentum"]
        decays = {weight_decay, 0.0}
        for what, value, allowed in (
            ("learning rate", group["initial_lr"], rates),
            ("momentum", momentum, set() if automatic else {arguments["momentum"]}),
            ("weight decay", group["weight_decay"], decays),
        ):
            if allowed and not any(_same(value, expected) for expected in allowed):
                raise Refused(f"a {what} of {sorted(allowed)} was asked for, the optimizer has {value}")


def breaks_mixed_precision(gpu: str) -> bool:
    """Say whether AMP is known to give NaN or nothing on this GPU (the list in Ultralytics' ``check_amp``)."""
    return _BREAKS_MIXED_PRECISION.search(gpu) is not None


def is_out_of_memory(error: BaseException) -> bool:
    """Recognise out of memory as torch raises it: by type, or by the messages of its libraries."""
    if isinstance(error, getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error).lower() for message in _OUT_OF_MEMORY)


def crowded_out(device: torch.device) -> str | None:
    """Say how much of the GPU's memory other processes hold; None where this one has more, or nobody knows.

    Where the others have most of it, out of memory says nothing about the trial.
    """
    if device.type != "cuda":
        return None
    try:
        free, total = torch.cuda.mem_get_info(device)
        ours = torch.cuda.memory_reserved(device)
    except RuntimeError:
        return None
    others = total - free - ours - _OWN_CONTEXT
    if others <= max(_MUCH_MEMORY, ours):
        return None
    return f"other processes hold about {size(others)} of the GPU's {size(total)}"


def is_machine_fault(error: BaseException) -> bool:
    """Recognise what says nothing about the trial: a loader process was killed, or the device failed."""
    if is_out_of_memory(error):
        return False
    if isinstance(error, getattr(torch, "AcceleratorError", ())):  # since torch 2.8
        return True
    return isinstance(error, RuntimeError) and _MACHINE_FAULT.search(str(error)) is not None


@torch.no_grad()
def all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Say whether all floating-point tensors are finite; the device is waited for once."""
    floating = [tensor for tensor in tensors if tensor.is_floating_point() and tensor.numel()]
    if not floating:
        return True
    largest = torch._foreach_norm(floating, ord=math.inf)
    return bool(torch.stack([norm.float() for norm in largest]).isfinite().all())


def check_finite(model: nn.Module, ema: nn.Module, position: Position, *, scaled_gradients: bool = False) -> None:
    """Raise NonFinite if a weight, a buffer or a gradient is not finite; waits for the device.

    Args:
        model, ema: What is trained, and its average.
        position: Where.
        scaled_gradients: They are scaled under AMP, where they overflow now and then: ``GradScaler`` skips their step.
    """
    parameters = [] if scaled_gradients else model.parameters()
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not all_finite([*model.state_dict().values(), *ema.state_dict().values(), *gradients]):
        raise NonFinite("a weight", position)


class LossWatch:
    """Reads the losses of every batch without making a GPU wait: each one a batch late, from pinned memory.

    While batch *i* is computed, the main process has queued it and waits for the values of batch *i - 1*. On a CPU,
    where there is nothing to wait for, values are read at once.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pending: tuple[Position, Sequence[str], torch.Tensor, torch.cuda.Event] | None = None
        self.latest: dict[str, float] = {}

    def put(self, position: Position, loss: torch.Tensor, running: Mapping[str, torch.Tensor]) -> None:
        """Hand over the loss of the batch at ``position`` and the running means of its parts.

        Raises:
            NonFinite: This loss (CPU) or that of the batch before (GPU) is not finite.
        """
        values = torch.stack([loss.detach().float(), *(value.detach().float() for value in running.values())])
        if self._device.type != "cuda":
            self._take(position, tuple(running), values)
            return
        host = torch.empty(len(values), pin_memory=True)
        host.copy_(values, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        previous, self._pending = self._pending, (position, tuple(running), host, event)
        self._wait(previous)

    def flush(self) -> None:
        """Read what is still on its way.

        Raises:
            NonFinite: The last loss is not finite.
        """
        previous, self._pending = self._pending, None
        self._wait(previous)

    def _wait(self, pending: tuple[Position, Sequence[str], torch.Tensor, torch.cuda.Event] | None) -> None:
        if pending is not None:
            position, names, host, event = pending
            event.synchronize()
            self._take(position, names, host)

    def _take(self, position: Position, names: Sequence[str], values: torch.Tensor) -> None:
        loss, *running = values.tolist()
        if not math.isfinite(loss):
            raise NonFinite("the loss", position)
        self.latest = dict(zip(names, running, strict=True))


def _same(asked: Any, got: Any) -> bool:
    if isinstance(asked, (int, float)) and isinstance(got, (int, float)):
        return math.isclose(asked, got, rel_tol=1e-9, abs_tol=0.0)
    return str(asked).lower() == str(got).lower() if isinstance(asked, str) else asked == got
