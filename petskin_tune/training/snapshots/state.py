"""The state of a training: what a snapshot holds, taken from the parts that compute and given back to them.

A snapshot's file is ``TrainingState.to_plain()``: one dictionary with the fields of ``Terms``, ``Counters`` and
``TrainingState`` side by side, and ``format``. Tensors lie on the CPU. What is not here is a function of the job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import torch
from torch import nn
from ultralytics.utils.torch_utils import EarlyStopping, ModelEMA

from petskin_tune.protocol import SNAPSHOT_FORMAT, Position
from petskin_tune.training import architecture, guards

Tensors = Mapping[str, torch.Tensor]

_OF_STOPPER = ("best_fitness", "best_epoch", "possible_stop")


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


@dataclass(frozen=True)
class Terms:
    """Which trial it is, and under what it trains."""

    identity: Mapping[str, str]  # study, trial, data, model: what a snapshot must match
    requested: Mapping[str, Any]  # training arguments as asked, without those that may differ between machines
    machine: Mapping[str, Any]  # versions, threads, device, device_model, cuda of the process that wrote it
    decisions: Decisions


@dataclass
class Counters:
    """How far a training has come, in plain numbers; it changes with every batch."""

    position: Position = field(default_factory=lambda: Position(0, 0))  # in the file as [epoch, batch]
    last_opt_step: int = -1  # the batch, counted from the first epoch's first, after which the optimizer stepped
    accumulate: int = 1  # batches per optimizer step, rising in warm-up
    stop: bool = False  # patience ended the training
    best_fitness: float | None = None  # mask mAP50-95 of the best epoch; None: no epoch is done
    best_epoch: int = 0  # 1-based; 0: none yet
    history: list[dict[str, float]] = field(default_factory=list)  # metrics of the epochs done, oldest first
    times: list[float] = field(default_factory=list)  # and when each was done, in seconds of training
    elapsed: float = 0.0  # seconds spent on this trial when the state was taken, in earlier processes too

    def copy(self) -> Counters:
        """Return counters that share nothing with these."""
        return replace(self, history=[dict(row) for row in self.history], times=list(self.times))


@dataclass(frozen=True)
class Losses:
    """The losses of the batch that was done last; scalars on the training's device."""

    running: dict[str, torch.Tensor]  # means over the epoch's batches, by name; empty before the first
    last: torch.Tensor | None  # what the gradients are of, summed over the batch's images
    items: dict[str, torch.Tensor] | None  # its parts, by name, as means over the images


@dataclass(frozen=True)
class Learner:
    """What learns: objects of torch and Ultralytics, on the training's device."""

    model: nn.Module  # not wrapped
    ema: ModelEMA  # the model's average, which is validated
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler  # disabled unless training is in AMP
    stopper: EarlyStopping

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return next(self.model.parameters()).device


@dataclass(frozen=True)
class TrainingState:
    """All of a training at one position: another process that takes it over goes on bit for bit."""

    terms: Terms
    counters: Counters
    model_yaml: Mapping[str, Any]  # the architecture, as Ultralytics builds the model from it
    layers: Sequence[str] | None  # ``architecture.layers`` of the model; None in files from before they were recorded
    model: Tensors  # state dict: fp32 weights and buffers in training
    ema: Tensors  # state dict of their average
    ema_updates: int  # steps it has averaged
    optimizer: Mapping[str, Any]  # state dict; its groups hold the learning rates and momenta in force
    gradients: Tensors  # by parameter, shaped as it; in mid accumulation, multiplied by the scaler's scale
    scaler: Mapping[str, Any]  # state dict; empty without AMP
    stopper: Mapping[str, Any]  # best_fitness, best_epoch, possible_stop of Ultralytics' early stopping
    running_losses: Tensors  # see ``Losses``
    loss: torch.Tensor | None
    loss_items: Tensors | None

    @classmethod
    def capture(cls, learner: Learner, losses: Losses, counters: Counters, terms: Terms) -> TrainingState:
        """Copy the state of a training to the CPU; the device is waited for."""
        model = learner.model
        return cls(
            terms=terms,
            counters=counters.copy(),
            model_yaml=model.yaml,
            layers=architecture.layers(model),
            model=_to_cpu(model.state_dict()),
            ema=_to_cpu(learner.ema.ema.state_dict()),
            ema_updates=learner.ema.updates,
            optimizer=_to_cpu(learner.optimizer.state_dict()),
            gradients=_to_cpu({name: p.grad for name, p in model.named_parameters() if p.grad is not None}),
            scaler=learner.scaler.state_dict(),
            stopper={name: getattr(learner.stopper, name) for name in _OF_STOPPER},
            running_losses=_to_cpu(losses.running),
            loss=_to_cpu(losses.last),
            loss_items=_to_cpu(losses.items),
        )

    def restore(self, learner: Learner) -> None:
        """Give the state to a learner that was just built."""
        learner.model.load_state_dict(self.model)
        learner.ema.ema.load_state_dict(self.ema)
        learner.ema.updates = self.ema_updates
        _restore_optimizer(learner.optimizer, self.optimizer)
        self._restore_gradients(learner)
        for name, value in self.stopper.items():
            setattr(learner.stopper, name, value)
        _restore_criterion(learner.model, self.counters.position.epoch)

    def losses(self, device: torch.device) -> Losses:
        """Return the losses on a device."""
        values = (self.running_losses, self.loss, self.loss_items)
        return Losses(*(_to_device(value, device) for value in values))

    def decided(self, decisions: Decisions) -> TrainingState:
        """Return this state with what was decided since."""
        return replace(self, terms=replace(self.terms, decisions=decisions))

    def to_plain(self) -> dict[str, Any]:
        """Return the state as its file holds it: plain values and tensors."""
        own = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in ("terms", "counters")}
        position = self.counters.position
        return {
            "format": SNAPSHOT_FORMAT,
            **vars(self.terms),
            "decisions": asdict(self.terms.decisions),
            **vars(self.counters),
            "position": [position.epoch, position.batch],
            **own,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> TrainingState:
        """Return the state that a file of this format holds.

        Raises:
            KeyError: A part of it is missing.
        """
        terms = {**_of(Terms, plain), "decisions": Decisions(**plain["decisions"])}
        counters = {**_of(Counters, plain), "position": Position(*plain["position"])}
        own = _of(cls, {"layers": None, **plain, "terms": Terms(**terms), "counters": Counters(**counters)})
        return cls(**own)

    def _restore_gradients(self, learner: Learner) -> None:
        """Take over gradients in mid accumulation and their scale; they are scaled anew where the precision changed.

        AMP's may have overflowed, and its scaler would skip their step. Without a scaler nothing would: they are
        dropped.
        """
        scaler = learner.scaler
        if self.scaler:  # empty where there was no AMP
            scaler.load_state_dict(dict(self.scaler))
        factor = scaler.get_scale() / self.scaler.get("scale", 1.0)
        gradients = self.gradients
        if not scaler.is_enabled() and not guards.all_finite(gradients.values()):
            gradients = {}
        parameters = dict(learner.model.named_parameters())
        for name, gradient in gradients.items():
            parameters[name].grad = gradient.to(learner.device, copy=True).mul_(factor)


def _of(record: type, plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a record's fields."""
    return {item.name: plain[item.name] for item in fields(record)}


def _restore_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    saved = _to_cpu(saved)  # load_state_dict keeps tensors of the right device, and steps change them in place
    for group, current in zip(saved["param_groups"], optimizer.param_groups, strict=True):
        if "fused" in current:
            group["fused"] = current["fused"]  # the device in use, not the snapshot's, decides about the kernel
    optimizer.load_state_dict(saved)


def _restore_criterion(model: nn.Module, epochs: int) -> None:
    """End-to-end losses shift their weights once an epoch."""
    criterion = model.init_criterion()
    if hasattr(criterion, "update"):
        for _ in range(epochs):
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
