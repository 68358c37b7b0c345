"""The training loop: Ultralytics' building blocks in a loop of our own that can stop after any batch and go on exactly.

Read ``_do_train`` first. It does what ``BaseTrainer._do_train`` does, in the same order and with the same numbers (a
test compares the weights bit for bit), less what a single-device trial does not need (DDP, timed training, retries with
a smaller batch), and it never waits for a GPU except to validate and to take a snapshot.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics.utils.torch_utils import unwrap_model

from petskin_tune import faults
from petskin_tune.protocol import (
    MASK_MAP,
    BestWeights,
    EpochDone,
    Finished,
    Note,
    Order,
    Position,
    Progress,
    SnapshotWritten,
    Started,
    Stop,
    Suspend,
    Suspended,
    TrialJob,
)
from petskin_tune.training import guards, micro_batches
from petskin_tune.training.data.order import seed_batch
from petskin_tune.training.process import isolation
from petskin_tune.training.process.channel import Channel
from petskin_tune.training.setup import TrialSetup
from petskin_tune.training.snapshots import file as snapshot_file
from petskin_tune.training.snapshots import results, state, weights
from petskin_tune.training.snapshots.schedule import SnapshotKeeper
from petskin_tune.training.snapshots.state import Decisions

PROGRESS_EVERY = 0.5  # seconds
PATIENT_BATCHES = 8  # a snapshot on the clock waits so many batches for an optimizer step
PATIENT_SECONDS = 1.0  # and an ordered one so long

Losses = dict[str, torch.Tensor]


class Ordered(Exception):
    """The worker's order ends the training here."""

    def __init__(self, order: Order) -> None:
        super().__init__(type(order).__name__)
        self.order = order


class ResumableTrainer(TrialSetup):
    """Trains one trial from its beginning or from a snapshot; ``train()`` leaves how it ended in ``outcome``.

    Args:
        job, decisions, snapshot: As for ``TrialSetup``.
        channel: Hears what happens, and may order the end.
        announced: The worker was told where training starts, before a fall-back in the same process.
    """

    def __init__(
        self,
        job: TrialJob,
        channel: Channel,
        decisions: Decisions,
        snapshot: Mapping[str, Any] | None = None,
        *,
        announced: bool = False,
    ) -> None:
        super().__init__(job, decisions, snapshot)
        self.channel = channel
        self.outcome: Finished | Suspended | None = None
        self.validating = False
        self.watch = guards.LossWatch(self.device)
        self.keeper = SnapshotKeeper(
            self.save_dir / "snapshots", job.snapshot_every, channel, shares_processor=self.device.type == "cpu"
        )
        self.announced = announced
        known = Decisions(**snapshot["decisions"]) if snapshot else Decisions()
        self._just_decided = decisions != known  # no snapshot knows of it
        self._in_memory = snapshot and {**snapshot, "decisions": asdict(decisions)}  # where a fall-back would lead to
        self.callbacks["on_val_batch_start"].append(self._obey_in_validation)

    # ---- the loop -----------------------------------------------------------------------------------------------

    def _do_train(self) -> None:
        """Train from ``position`` to the end, or to the worker's order."""
        self._setup_train()
        try:
            self._start()
            while self.position.epoch < self.epochs and not self.stop:
                self._train_epoch()
                self._finish_epoch()
            self._snapshot_here()
            self.outcome = Finished(len(self.history), self.best_epoch, early=len(self.history) < self.epochs)
        except Ordered as ordered:
            self.outcome = Suspended(self._snapshot_here() if isinstance(ordered.order, Suspend) else None)
        finally:
            self._close()

    def _start(self) -> None:
        """Tell the worker what is in force and where training starts."""
        self.batches = len(self.train_loader)
        self.warm_up_steps = self._get_warmup_iterations(self.batches)
        self.train_loader.seek(self.position)
        self._started_at = self.position
        self._began = self._last_progress = time.monotonic()
        self._training_seconds, self._seconds_told = 0.0, 0.0  # in batches: in all, and when progress was told
        self._batches_done = self._images_since = 0
        if not self._may_fall_back():
            self._in_memory = None
        self._write_results()
        if not self.announced:
            self.channel.send(self._started())
            self.announced = True
        if self._just_decided:
            self.keeper.begin(self._capture, self.position)
        self._obey()

    def _started(self) -> Started:
        return Started(
            pid=os.getpid(),
            preloaded=isolation.inherited_modules(),
            machine=self.machine,
            arguments={key: value for key, value in vars(self.args).items() if not key.startswith("_")},
            batch=self.batch_size,
            position=self.position,
            batches=self.batches,
            history=tuple(self.history),
            notes=self.notes,
        )

    def _train_epoch(self) -> None:
        """Train what is left of the current epoch."""
        self.epoch, first = self.position.epoch, self.position.batch
        self._epoch_began = time.monotonic()
        self._set_learning_rate(start_of_epoch=first == 0)
        self._model_train()
        if first == 0:
            self.tloss = {}
        if first == self.batches:
            return  # resumed between the last batch and validation
        batch_began = time.monotonic()  # a validation or a snapshot is no part of a batch
        for index, batch in enumerate(self.train_loader, first):
            step = index + self.batches * self.epoch
            seed_batch(self.args.seed, self.epoch, index)
            self._warm_up(step)
            images = len(batch["im_file"])
            self._accumulate_gradients(batch, index)
            self.position = Position(self.epoch, index + 1)
            self.watch.put(self.position, self.loss, self.tloss)
            if step - self.last_opt_step >= self.accumulate:
                self.optimizer_step()
                self.last_opt_step = step
            faults.reach("batch-done")
            self._training_seconds += time.monotonic() - batch_began
            self._batches_done += 1
            self._report_progress(images)
            self._attend()
            batch_began = time.monotonic()

    def _set_learning_rate(self, *, start_of_epoch: bool) -> None:
        """Move the scheduler to the current epoch; in mid epoch the snapshot has the rates, warm-up's too."""
        if not start_of_epoch:
            self.scheduler.last_epoch = self.epoch
            return
        self.scheduler.last_epoch = self.epoch - 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch wants optimizer.step() before scheduler.step()
            self.scheduler.step()

    def _warm_up(self, step: int) -> None:
        """Raise accumulation, learning rates and momentum to their targets over the first ``warm_up_steps`` batches."""
        if not self.warm_up_steps or step > self.warm_up_steps:
            return
        ends = [0, self.warm_up_steps]
        self.accumulate = max(1, int(np.interp(step, ends, [1, self.full_accumulate]).round()))
        for group in self.optimizer.param_groups:
            first = self.args.warmup_bias_lr if group.get("param_group") == "bias" else 0.0
            target = group["initial_lr"] * self.lf(self.epoch)
            group["lr"] = float(np.interp(step, ends, [first, target]))
            if "momentum" in group:
                group["momentum"] = float(np.interp(step, ends, [self.args.warmup_momentum, self.args.momentum]))

    def _accumulate_gradients(self, batch: dict[str, Any], index: int) -> None:
        """Add a batch's gradients, and its losses to the epoch's running means."""
        with self.autocast():
            batch = self.preprocess_batch(batch)
        parts = []
        for images, part in micro_batches.split(batch, self.decisions.micro_batch, overlap_mask=self.args.overlap_mask):
            with self.autocast():
                loss, items = self.model(part)
                loss = loss.sum()
            self.scaler.scale(loss).backward()
            parts.append((images, loss.detach(), items))
        self.loss, self.loss_items = _join(parts)
        self.loss_names = tuple(self.loss_items)
        if not self.tloss:
            self.tloss = self.loss_items
        else:
            self.tloss = {
                key: (self.tloss[key] * index + value) / (index + 1) for key, value in self.loss_items.items()
            }

    def _finish_epoch(self) -> None:
        """Validate, record the epoch, tell the worker."""
        model = unwrap_model(self.model)
        if hasattr(model.criterion, "update"):
            model.criterion.update()
        self.lr = {f"lr/pg{index}": group["lr"] for index, group in enumerate(self.optimizer.param_groups)}
        self.ema.update_attr(self.model, include=["yaml", "nc", "args", "names", "stride", "class_weights"])
        self._check_state()
        trained = time.monotonic()
        faults.reach("epoch-batches-done")
        self._clear_memory(0.5)  # Ultralytics: prevents a peak in validation
        self.metrics, self.fitness = self.validate()
        parts = trained - self._epoch_began, time.monotonic() - trained
        faults.reach("epoch-validated")
        self.history.append(self.row())
        self.times.append(self.elapsed())
        improved = self.best_fitness is None or self.fitness > self.best_fitness
        if improved:
            self.best_fitness, self.best_epoch = self.fitness, self.epoch + 1
        self.stop = self.stopper(self.epoch + 1, self.fitness)
        self.position = Position(self.epoch + 1, 0)
        self._report_epoch(improved, *parts)
        self._clear_memory(0.5)
        if self.position.epoch < self.epochs and not self.stop:
            if self._may_fall_back():
                with self.keeper.standstill():
                    self._in_memory = self._capture()
            self._attend()

    def validate(self) -> tuple[dict[str, float], float]:
        """Validate the averaged model; fitness is mask mAP50-95 and nothing else."""
        self.validating = True
        metrics = self.validator(self)
        self.validating = False
        metrics.pop("fitness", None)  # Ultralytics adds the boxes' mAP to it
        return metrics, metrics[MASK_MAP]

    def row(self) -> dict[str, float]:
        """Return what is recorded of the epoch: Ultralytics' own columns, then masks class by class."""
        classes = results.by_class(self.validator.metrics.seg, self.validator.metrics.names)
        return {**self.label_loss_items(self.tloss), **self.metrics, **self.lr, **classes}

    # ---- between batches ----------------------------------------------------------------------------------------

    def _attend(self) -> None:
        """Follow an order and take a snapshot if one is due."""
        self._obey()
        end_of_epoch = self.position.batch == 0
        is_rung = end_of_epoch and self.position.epoch in self.job.rungs
        if is_rung or (self.keeper.due(end_of_epoch=end_of_epoch) and self._good_instant(float("inf"))):
            self.keeper.begin(self._capture, self.position)

    def _obey(self) -> None:
        order = self.channel.order
        if isinstance(order, Stop) or (isinstance(order, Suspend) and self._good_instant(PATIENT_SECONDS)):
            raise Ordered(order)

    def _obey_in_validation(self, _: object) -> None:
        faults.reach("in-validation")
        if self.channel.order is not None:
            raise Ordered(self.channel.order)

    def _good_instant(self, seconds: float) -> bool:
        """Say whether to take a snapshot now: no gradients to carry, or too long a wait for an optimizer step."""
        done = self.position.batch + self.batches * self.position.epoch
        missing = self.accumulate - (done - 1 - self.last_opt_step)  # batches to the next step
        if done - 1 == self.last_opt_step or self.position.batch in (0, self.batches):
            return True
        return (
            missing > min(PATIENT_BATCHES, self.batches - self.position.batch)
            or missing * self._batch_seconds() > seconds
        )

    def _snapshot_here(self) -> SnapshotWritten | None:
        """Return a snapshot of the current position that lies on disk; None if no batch was done since the start."""
        if self.position == self._started_at:
            return None
        self.keeper.wait()
        if self.keeper.last is not None and self.keeper.last.position == self.position:
            return self.keeper.last
        return self.keeper.write_now(self._capture, self.position)

    def _may_fall_back(self) -> bool:
        """Say whether a decision may still send this training back to an earlier state.

        That state must not lie before the last epoch that was reported, or the epochs after it would be reported twice.
        """
        splits = self.device.type == "cuda" and self.job.on_oom == "split"
        return splits or (self.precision == "amp" and self.decisions.precision is None)

    def last_good_state(self) -> Mapping[str, Any] | None:
        """Return the state to go on from after a failure; None: from the beginning.

        It is that at the epoch's start, not the newest: snapshots are written by the clock, and the same failure must
        lead back to the same place wherever they were. Only in an epoch that this process entered in the middle is it
        where it entered, because its start is nowhere; a kill between that and the snapshot of the decision is the one
        interruption that shows afterwards. (Where nothing is kept in memory, on a CPU, the newest on disk must do.)
        """
        if self.keeper.last is None or self._may_fall_back():
            return self._in_memory
        return snapshot_file.read(Path(self.keeper.last.path))

    def _check_state(self) -> None:
        """A state with a NaN in it is never written, and not validated; waits for the device."""
        self.watch.flush()
        scaled = self.scaler.is_enabled()
        guards.check_finite(unwrap_model(self.model), self.ema.ema, self.position, scaled_gradients=scaled)

    def _capture(self) -> Mapping[str, Any]:
        if self._in_memory is not None and Position(*self._in_memory["position"]) == self.position:
            return self._in_memory
        self._check_state()
        return state.capture(self)

    def _close(self) -> None:
        self.keeper.close()
        self.train_loader.close()
        self.test_loader.close()

    # ---- telling the worker -------------------------------------------------------------------------------------

    def elapsed(self) -> float:
        """Seconds spent training this trial, in earlier processes too as far as their snapshots reach."""
        return self.elapsed_before + time.monotonic() - self._began

    def _batch_seconds(self) -> float:
        """Seconds per batch in this process; 0 before the first."""
        return self._training_seconds / max(self._batches_done, 1)

    def _report_progress(self, images: int) -> None:
        self._images_since += images
        now = time.monotonic()
        if now - self._last_progress >= PROGRESS_EVERY:
            rate = self._images_since / (self._training_seconds - self._seconds_told)
            self.channel.send(Progress(self.position, self.watch.latest, rate))
            self._last_progress, self._images_since, self._seconds_told = now, 0, self._training_seconds

    def _report_epoch(self, improved: bool, training: float, validation: float) -> None:
        self._write_results()
        if improved:
            self._save_best()
        seconds = self.times[-1] - (self.times[-2] if len(self.times) > 1 else 0.0)
        self.channel.send(EpochDone(len(self.history), self.fitness, self.history[-1], seconds, training, validation))

    def _write_results(self) -> None:
        try:
            results.write(self.csv, self.history, self.times)
        except OSError as error:
            self.channel.send(Note("results-failed", f"results.csv was not written: {error}"))

    def _save_best(self) -> None:
        """Write the averaged model in the background, before any snapshot that follows."""
        epoch, fitness = self.best_epoch, self.fitness
        metrics = {**self.metrics, "fitness": fitness}
        with self.keeper.standstill():
            content = weights.checkpoint(self.ema.ema, dict(vars(self.args)), metrics, epoch)

        def write() -> None:
            try:
                weights.write(content, self.best)
            except OSError as error:
                self.channel.send(
                    Note("weights-failed", f"the best weights of epoch {epoch} were not written: {error}")
                )
            else:
                self.channel.send(BestWeights(str(self.best), epoch, fitness))

        self.keeper.submit(write)


def _join(
    parts: list[tuple[int, torch.Tensor, dict[str, torch.Tensor]]],
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss of a batch from those of its parts, and its items as means over the images."""
    if len(parts) == 1:
        return parts[0][1], parts[0][2]
    images = sum(count for count, _, _ in parts)
    loss = torch.stack([loss for _, loss, _ in parts]).sum()
    return loss, {
        key: torch.stack([items[key] * count for count, _, items in parts]).sum() / images for key in parts[0][2]
    }
