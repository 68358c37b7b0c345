"""Ultralytics' trainer with what one trial asks for: its data, model, optimizer, precision, and what is in force."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.data import build_dataloader
from ultralytics.models.yolo.segment import SegmentationTrainer
from ultralytics.utils import colorstr
from ultralytics.utils.torch_utils import autocast, unwrap_model

from petskin_tune.protocol import TrialJob
from petskin_tune.training import architecture, guards, micro_batches
from petskin_tune.training.data.loading import (
    StrictDataset,
    TrainDataset,
    TrainLoader,
    image_cache_bytes,
    options_of,
    read_data,
    validation_set,
)
from petskin_tune.training.data.order import seed_everything
from petskin_tune.training.process import environment, machine
from petskin_tune.training.process.isolation import ignore_signals, usable_cpus
from petskin_tune.training.snapshots.state import Counters, Decisions, Learner, Losses, TrainingState


class TrialTrainer(SegmentationTrainer):
    """A trainer that is built from a job, and from a snapshot if there is one; how it loops is a subclass's affair.

    Attributes that are not listed here are Ultralytics' own.

    Args:
        job: The trial.
        decisions: What was decided in its earlier processes, or a moment ago.
        state: To go on from; None: the beginning.

    Attributes:
        requested: Arguments as asked, without those that may differ between machines.
        counters: How far the training has come.
        precision: In force: "fp32", "amp" or "bf16".
        full_accumulate: Batches per optimizer step to which warm-up rises.
        machine: What this process runs on, see ``protocol.Started``.
        notes: Decisions and changes of arguments that are worth recording.
    """

    def __init__(self, job: TrialJob, decisions: Decisions, state: TrainingState | None = None) -> None:
        guards.check_request(job.arguments)
        self.job = job
        self.decisions = decisions
        self.requested = {key: value for key, value in job.arguments.items() if key not in guards.LOCAL_ARGUMENTS}
        self.counters = Counters()
        self.loss_items: dict[str, torch.Tensor] | None = None
        self.precision = "fp32"
        self.full_accumulate = 1
        self.notes: tuple[str, ...] = ()
        self.precision_notes: list[str] = []
        self._asked_amp: bool | str = False
        self._state = state
        if state is None:
            guards.check_model(job.model)
        super().__init__(overrides=self._overrides())
        guards.check_device(job.device, self.device)
        self.tloss: dict[str, torch.Tensor] = {}  # running means of the epoch's losses
        self.machine = machine.describe(self.device, self._set_threads())

    def _overrides(self) -> dict[str, Any]:
        patience = 0 if self.job.patience_epochs is None else self.job.patience_epochs  # 0: none, unlike the default
        return {
            "patience": patience,
            **self.job.arguments,
            "model": self.job.model,
            "data": self.job.data,
            "device": self.job.device,
            "save_dir": self.job.run_folder,
            "exist_ok": True,
            "plots": False,
            "mode": "train",
        }

    def _set_threads(self) -> int:
        """Take the thread count of the trial's first run: another one gives other gradients; at first, a person's.

        No more than this machine has CPUs for (measured: two on one CPU take three times as long as one does), unless
        torch takes more by itself.
        """
        recorded = self._state.terms.machine if self._state else self.job.recorded_machine or {}
        threads = recorded.get("threads") or self.job.threads or environment.threads_asked_for()
        if threads:
            torch.set_num_threads(min(threads, max(usable_cpus(), torch.get_num_threads())))
        return torch.get_num_threads()

    # ---- what Ultralytics asks its trainers for -----------------------------------------------------------------

    def get_dataset(self) -> dict[str, Any]:
        """Read the data set's YAML; nothing is downloaded, and a ``download:`` entry is never executed.

        Raises:
            DataError: The YAML is wrong, or what it names is not there.
        """
        return read_data(self.args.data)

    def setup_model(self) -> dict[str, Any] | None:
        """Build the model; on resumption as the snapshot knows it, without its original weights."""
        ckpt = None
        if self._state is None:
            seed_everything(self.args.seed)  # as Ultralytics did earlier: what was drawn since must not count
            ckpt = super().setup_model()
        else:
            self.model = self.get_model(cfg=self._state.model_yaml, weights=None)
            architecture.rebuild(self.model, self._state.model, self._state.layers)
        guards.check_freeze(self.model, self.args.freeze)
        return ckpt

    def get_model(self, cfg: Any = None, weights: nn.Module | None = None, verbose: bool = True) -> nn.Module:
        """Build the model without its summary, which takes longer than building it."""
        return super().get_model(cfg, weights, verbose=False)

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> StrictDataset:
        """Build the data set of one split, with Ultralytics' options for it."""
        stride = max(int(unwrap_model(self.model).stride.max()), 32)
        labels = Path(self.job.run_folder).parent / "labels"
        options = options_of(img_path, self.data, self.args, batch, stride, labels)
        if mode == "val":
            return validation_set(**options)
        return TrainDataset(
            seed=self.args.seed,
            mosaic_until=self.epochs - self.args.close_mosaic if self.args.close_mosaic else self.epochs,
            cache_bytes=int(self.job.cache_share * image_cache_bytes()) // max(self._loader_processes(), 1),
            augment=True,
            rect=False,
            pad=0.0,
            prefix=colorstr("train: "),
            **options,
        )

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """Build the loader of one split; that of training starts wherever it is told to."""
        dataset = self.build_dataset(dataset_path, mode, batch_size)
        processes = self._loader_processes()
        if isinstance(dataset, TrainDataset):
            guards.check_last_batch(len(dataset), dataset.order.batch, self.args, self.stride)
            return TrainLoader(dataset, self.epochs, processes, pin_memory=self.device.type == "cuda")
        batch = self.decisions.validation_batch or batch_size
        loader = build_dataloader(dataset, batch, processes * 2, shuffle=False, rank=-1, device=self.device)
        loader.worker_init_fn = ignore_signals  # its processes start when it is first used
        return loader

    def _loader_processes(self) -> int:
        if self.job.workers is not None:
            return self.job.workers
        if self.device.type == "cpu":
            return 0
        return min(self.args.workers, (os.cpu_count() or 1) // torch.cuda.device_count())  # as Ultralytics

    def _setup_train(self) -> None:
        """Set everything up as Ultralytics does, without the check of AMP for which it would download a model."""
        self._asked_amp, self.args.amp = self.args.amp, False
        super()._setup_train()

    def resume_training(self, ckpt: dict[str, Any] | None) -> None:
        """Choose the precision, compare what was asked with what is in force, take over the snapshot.

        ``_setup_train`` calls it at its end, with the optimizer as it was built.
        """
        self.args.amp = self._asked_amp
        self._choose_precision()
        self.notes = (*self._compare(), *self.decisions.sentences(), *self.precision_notes)
        self.full_accumulate = self.accumulate
        if self._state is not None:
            self._take_over(self._state)
            self._state = None
        else:
            self.counters.accumulate = self.full_accumulate
            if self.device.type == "cuda":
                self.dry_step()
        self.start_epoch = self.counters.position.epoch

    def _take_over(self, state: TrainingState) -> None:
        state.restore(self.learner())
        self.counters = state.counters.copy()
        losses = state.losses(self.device)
        self.tloss, self.loss, self.loss_items = losses.running, losses.last, losses.items
        self.loss_names = tuple(losses.items or ())

    # ---- what learns ------------------------------------------------------------------------------------------------

    def learner(self) -> Learner:
        """Return what learns here."""
        return Learner(unwrap_model(self.model), self.ema, self.optimizer, self.scaler, self.stopper)

    def losses(self) -> Losses:
        """Return the losses of the batch that was done last."""
        return Losses(self.tloss, self.loss, self.loss_items)

    def dry_step(self) -> None:
        """Meet the largest batch before hours are spent.

        Raises:
            torch.OutOfMemoryError: What the trial needs does not fit.
        """
        try:
            micro_batches.dry_step(unwrap_model(self.model), self.optimizer, self._backward, self.largest_batch)
        finally:
            self._clear_memory()

    def largest_batch(self) -> dict[str, Any]:
        """Return a batch as large as any that this training may meet in one pass."""
        objects = [len(label["cls"]) for label in self.train_loader.dataset.labels]
        images = self.decisions.micro_batch or self.batch_size
        channels = self.data["channels"]
        return micro_batches.largest_batch(objects, images, channels, self.stride, self.args, self.device)

    def _backward(self, batch: dict[str, Any]) -> None:
        with self.autocast():
            loss, _ = self.model(batch)
        self.scaler.scale(loss.sum()).backward()

    # ---- precision --------------------------------------------------------------------------------------------------

    def autocast(self) -> torch.autocast:
        """Return the context in which losses are computed."""
        return autocast(torch.bfloat16 if self.precision == "bf16" else self.amp, device=self.device.type)

    def has_bfloat16(self) -> bool:
        """Say whether the device computes in bfloat16 by itself."""
        return self.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)

    def _choose_precision(self) -> None:
        asked = {True: "amp", "fp16": "amp", False: "fp32"}.get(self.args.amp, self.args.amp)
        gpu = self.machine["device_model"]
        if asked == "amp" and not self._mixed_precision_available():
            asked = "fp32"
            if self.device.type == "cuda":
                self.precision_notes.append(f"fp32: mixed precision gives wrong results on {gpu}")
        if asked == "bf16" and not self.has_bfloat16():
            raise guards.Refused(f"amp='bf16' is refused: {gpu} does not compute in bfloat16")
        self.precision = self.decisions.precision or asked
        if self.precision == "bf16" and not self.has_bfloat16():  # which was decided on another GPU
            self.precision = "fp32"
            self.precision_notes.append(f"fp32 here: {gpu} does not compute in bfloat16")
        self.amp = self.precision == "amp"  # the validator reads it, and would validate bf16 in fp16
        self.scaler = torch.amp.GradScaler("cuda", enabled=self.precision == "amp")

    def _mixed_precision_available(self) -> bool:
        return self.device.type == "cuda" and not guards.breaks_mixed_precision(torch.cuda.get_device_name(self.device))

    def _compare(self) -> list[str]:
        automatic = str(self.requested.get("optimizer", "auto")).lower() == "auto"
        accumulate = max(round(self.args.nbs / self.batch_size), 1)
        decay = self.args.weight_decay * self.batch_size * accumulate / self.args.nbs
        guards.compare_optimizer(self.optimizer, vars(self.args), decay, automatic)
        return guards.compare_arguments(self.requested, vars(self.args))
