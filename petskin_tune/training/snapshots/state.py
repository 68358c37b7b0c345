"""A trainer's state as plain values and tensors on the CPU, and back. What is not here is a function of the job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from ultralytics.utils.torch_utils import unwrap_model

from petskin_tune.protocol import Position
from petskin_tune.training import architecture, guards
from petskin_tune.training.snapshots import file as snapshot

if TYPE_CHECKING:
    from petskin_tune.training.setup import TrialSetup
    from petskin_tune.training.trainer import ResumableTrainer


@dataclass(frozen=True)
class Decisions:
    """What was decided on the way, once for the whole trial: a resumed run does not decide again."""

    precision: str | None = None  # "fp32" or "bf16" after a non-finite loss under AMP; None: as asked
    micro_batch: int | None = None  # images per forward pass after out of memory; None: the whole batch
    validation_batch: int | None = None  # the same in validation

    def sentences(self) -> tuple[str, ...]:
        """Say what was decided, for people."""
        phrases = []
        if self.precision:
            phrases.append(f"{self.precision} after a non-finite loss")
        if self.micro_batch:
            phrases.append(f"micro-batches of {self.micro_batch} after out of memory")
        if self.validation_batch:
            phrases.append(f"validation in batches of {self.validation_batch} after out of memory")
        return tuple(phrases)


def capture(trainer: ResumableTrainer) -> dict[str, Any]:
    """Copy a trainer's state to the CPU; the device is waited for."""
    model = unwrap_model(trainer.model)
    state = {
        "model": model.state_dict(),
        "ema": trainer.ema.ema.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "gradients": {name: p.grad for name, p in model.named_parameters() if p.grad is not None},
        "running_losses": trainer.tloss,
        "loss": trainer.loss,
        "loss_items": trainer.loss_items,
    }
    return {
        "format": snapshot.FORMAT,
        "identity": dict(trainer.job.identity),
        "requested": trainer.requested,
        "machine": trainer.machine,
        "decisions": asdict(trainer.decisions),
        "position": [trainer.position.epoch, trainer.position.batch],
        "model_yaml": model.yaml,
        "layers": architecture.layers(model),
        "ema_updates": trainer.ema.updates,
        "last_opt_step": trainer.last_opt_step,
        "accumulate": trainer.accumulate,
        "scaler": trainer.scaler.state_dict(),
        "stopper": {key: getattr(trainer.stopper, key) for key in ("best_fitness", "best_epoch", "possible_stop")},
        "stop": trainer.stop,
        "best_fitness": trainer.best_fitness,
        "best_epoch": trainer.best_epoch,
        "history": [dict(row) for row in trainer.history],
        "times": list(trainer.times),
        "elapsed": trainer.elapsed(),
        **_to_cpu(state),
    }


def restore(trainer: TrialSetup, state: Mapping[str, Any]) -> None:
    """Give a trainer that was just set up the state that ``capture`` took."""
    model = unwrap_model(trainer.model)
    model.load_state_dict(state["model"])
    trainer.ema.ema.load_state_dict(state["ema"])
    trainer.ema.updates = state["ema_updates"]
    _restore_optimizer(trainer.optimizer, state["optimizer"])
    _restore_gradients(trainer, state)
    for name, value in state["stopper"].items():
        setattr(trainer.stopper, name, value)
    trainer.position = Position(*state["position"])
    trainer.tloss = _to_device(state["running_losses"], trainer.device)
    trainer.loss = _to_device(state["loss"], trainer.device)
    trainer.loss_items = _to_device(state["loss_items"], trainer.device)
    trainer.loss_names = tuple(state["loss_items"] or ())
    for name in ("last_opt_step", "accumulate", "stop", "best_fitness", "best_epoch"):
        setattr(trainer, name, state[name])
    trainer.history = list(state["history"])
    trainer.times = list(state["times"])
    trainer.elapsed_before = state["elapsed"]
    _restore_criterion(trainer)


def _restore_gradients(trainer: TrialSetup, state: Mapping[str, Any]) -> None:
    """Take over gradients in mid accumulation and their scale; they are scaled anew where the precision has changed.

    AMP's may have overflowed, and its scaler would skip their step. Without a scaler nothing would: they are dropped.
    """
    if state["scaler"]:  # empty where there was no AMP
        trainer.scaler.load_state_dict(state["scaler"])
    factor = trainer.scaler.get_scale() / state["scaler"].get("scale", 1.0)
    gradients = state["gradients"]
    if not trainer.scaler.is_enabled() and not guards.all_finite(gradients.values()):
        gradients = {}
    parameters = dict(unwrap_model(trainer.model).named_parameters())
    for name, gradient in gradients.items():
        parameters[name].grad = gradient.to(trainer.device, copy=True).mul_(factor)


def _restore_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    saved = _to_cpu(saved)  # load_state_dict keeps tensors of the right device, and steps change them in place
    for group, current in zip(saved["param_groups"], optimizer.param_groups, strict=True):
        if "fused" in current:
            group["fused"] = current["fused"]  # the device in use, not the snapshot's, decides about the kernel
    optimizer.load_state_dict(saved)


def _restore_criterion(trainer: TrialSetup) -> None:
    """End-to-end losses shift their weights once an epoch."""
    model = unwrap_model(trainer.model)
    criterion = model.init_criterion()
    if hasattr(criterion, "update"):
        for _ in range(trainer.position.epoch):
            criterion.update()
    model.criterion = criterion


def _to_cpu(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _to_cpu(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_cpu(item) for item in value]
    return value


def _to_device(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _to_device(item, device) for key, item in value.items()}
    return value
