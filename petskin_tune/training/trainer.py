"""The training loop: Ultralytics' building blocks in a loop of our own that can stop after any batch and go on exactly.

Read ``_do_train`` first. It does what ``BaseTrainer._do_train`` does, in the same order and with the same numbers (a
test compares the weights bit for bit), less what a single-device trial does not need (DDP, timed training, retries with
a smaller batch), and it never waits for a GPU except to validate and to take a snapshot.
"""

from __future__ import annotations

import os
import time
import warnings
from typing import Any

import numpy as np
import torch
from ultralytics.utils.torch_utils import unwrap_model

from petskin_tune import faults
from petskin_tune.protocol import (
    MASK_MAP,
    EpochDone,
    Finished,
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
from petskin_tune.training.fall_back import FallBack
from petskin_tune.training.process import isolation
from petskin_tune.training.process.channel import Channel
from petskin_tune.training.run_files import RunFiles
from petskin_tune.training.snapshots import results
from petskin_tune.training.snapshots.schedule import SnapshotKeeper
from petskin_tune.training.snapshots.state import Terms, TrainingState
from petskin_tune.training.throughput import Throughput
from petskin_tune.training.trial_trainer import TrialTrainer

PATIENT_BATCHES = 8  # a snapshot on the clock waits so many batches for an optimizer step
PATIENT_SECONDS = 1.0  # and an ordered one so long

Losses = dict[str, torch.Tensor]


class Ordered(Exception):
    """The worker's order ends the training here."""

    def __init__(self, order: Order) -> None:
        super().__init__(type(order).__name__)
        self.order = order


class ResumableTrainer(TrialTrainer):
    """Trains one trial from its beginning or from a snapshot; ``train()`` leaves how it ended in ``outcome``.

    Args:
        job: The trial.
        channel: Hears what happens, and may order the end.
        fall_back: Where to begin, and what was decided; kept up to date for the trainer that may have to follow.
    """

    def __init__(self, job: TrialJob, channel: Channel, fall_back: FallBack) -> None:
        super().__init__(job, fall_back.decisions, fall_back.state)
        self.channel = channel
        self.fall_back = fall_back
        self.outcome: Finished | Suspended | None = None
        self.validating = False
        self.batches = 0  # of an epoch
        self.warm_up_steps = 0  # batches
        self.watch = guards.LossWatch(self.device)
        self.throughput = Throughput()
        shares_processor = self.device.type == "cpu"
        self.keeper = SnapshotKeeper(
            self.save_dir / "snapshots", job.snapshot_every, channel, shares_processor=shares_processor
        )
        self.files = RunFiles(self.csv, self.best, channel, self.keeper)
        self._started_at = self.counters.position
        self._began = self._epoch_began = time.monotonic()
        self._elapsed_before = 0.0  # seconds that earlier processes spent on this trial
        self.callbacks["on_val_batch_start"].append(self._obey_in_validation)

    # ---- the loop -----------------------------------------------------------------------------------------------

    def _do_train(self) -> None:
        """Train from where the counters stand to the end, or to the worker's order."""
        self._setup_train()
        try:
            self._start()
            while not self._is_over():
                self._train_epoch()
                self._finish_epoch()
            self._snapshot_here()
            done = len(self.counters.history)
            self.outcome = Finished(done, self.counters.best_epoch, early=done < self.epochs)
        except Ordered as ordered:
            self.outcome = Suspended(self._snapshot_here() if isinstance(ordered.order, Suspend) else None)
        finally:
            self._close()

    def _is_over(self) -> bool:
        return self.counters.position.epoch >= self.epochs or self.counters.stop

    def _start(self) -> None:
        """Tell the worker what is in force and where training starts."""
        self.batches = len(self.train_loader)
        self.warm_up_steps = self._get_warmup_iterations(self.batches)
        self._started_at = self.counters.position
        self.train_loader.seek(self._started_at)
        self.throughput = Throughput()
        self._began, self._elapsed_before = time.monotonic(), self.counters.elapsed
        self.fall_back.begin(in_memory=self._may_fall_back())
        self.files.write_results(self.counters)
        if not self.fall_back.announced:
            self.channel.send(self._started())
            self.fall_back.announced = True
        if self.fall_back.just_decided:
            self._begin_snapshot()
            self.fall_back.just_decided = False
        self._obey()

    def _started(self) -> Started:
        return Started(
            pid=os.getpid(),
            preloaded=isolation.inherited_modules(),
            machine=self.machine,
            arguments={key: value for key, value in vars(self.args).items() if not key.startswith("_")},
            batch=self.batch_size,
            position=self.counters.position,
            batches=self.batches,
            history=tuple(self.counters.history),
            notes=self.notes,
        )

    def _train_epoch(self) -> None:
        """Train what is left of the current epoch."""
        counters = self.counters
        self.epoch, first = counters.position.epoch, counters.position.batch
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
            counters.position = Position(self.epoch, index + 1)
            self.watch.put(counters.position, self.loss, self.tloss)
            if step - counters.last_opt_step >= counters.accumulate:
                self.optimizer_step()
                counters.last_opt_step = step
            faults.reach("batch-done")
            self._report_progress(images, time.monotonic() - batch_began)
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
        self.counters.accumulate = max(1, int(np.interp(step, ends, [1, self.full_accumulate]).round()))
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
        self.counters.history.append(self.row())
        self.counters.times.append(self.elapsed())
        improved = self.counters.best_fitness is None or self.fitness > self.counters.best_fitness
        if improved:
            self.counters.best_fitness, self.counters.best_epoch = self.fitness, self.epoch + 1
        self.counters.stop = self.stopper(self.epoch + 1, self.fitness)
        self.counters.position = Position(self.epoch + 1, 0)
        self._report_epoch(improved, *parts)
        self._clear_memory(0.5)
        if not self._is_over():
            if self.fall_back.in_memory:
                with self.keeper.standstill():
                    self.fall_back.state = self._capture()
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
        end_of_epoch = self.counters.position.batch == 0
        is_rung = end_of_epoch and self.counters.position.epoch in self.job.rungs
        if is_rung or (self.keeper.due(end_of_epoch=end_of_epoch) and self._good_instant(float("inf"))):
            self._begin_snapshot()

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
        position, last_step = self.counters.position, self.counters.last_opt_step
        done = position.batch + self.batches * position.epoch
        missing = self.counters.accumulate - (done - 1 - last_step)  # batches to the next step
        if done - 1 == last_step or position.batch in (0, self.batches):
            return True
        return (
            missing > min(PATIENT_BATCHES, self.batches - position.batch)
            or missing * self.throughput.seconds_per_batch > seconds
        )

    def _begin_snapshot(self) -> None:
        self.keeper.begin(lambda: self._capture().to_plain(), self.counters.position)

    def _snapshot_here(self) -> SnapshotWritten | None:
        """Return a snapshot of the current position that lies on disk; None if no batch was done since the start."""
        position = self.counters.position
        if position == self._started_at:
            return None
        self.keeper.wait()
        if self.keeper.last is not None and self.keeper.last.position == position:
            return self.keeper.last
        return self.keeper.write_now(lambda: self._capture().to_plain(), position)

    def _may_fall_back(self) -> bool:
        """Say whether a decision may still send this training back to an earlier state."""
        splits = self.device.type != "cpu" and self.job.on_oom == "split"
        return splits or (self.precision == "amp" and self.decisions.precision is None)

    def _check_state(self) -> None:
        """A state with a NaN in it is never written, and not validated; waits for the device."""
        self.watch.flush()
        scaled = self.scaler.is_enabled()
        guards.check_finite(unwrap_model(self.model), self.ema.ema, self.counters.position, scaled_gradients=scaled)

    def _capture(self) -> TrainingState:
        if state := self.fall_back.at(self.counters.position):
            return state
        self._check_state()
        self.counters.elapsed = self.elapsed()
        terms = Terms(dict(self.job.identity), self.requested, self.machine, self.decisions)
        return TrainingState.capture(self.learner(), self.losses(), self.counters, terms)

    def _close(self) -> None:
        self.keeper.close()
        self.train_loader.close()
        self.test_loader.close()

    # ---- telling the worker -------------------------------------------------------------------------------------

    def elapsed(self) -> float:
        """Seconds spent training this trial, in earlier processes too as far as their snapshots reach."""
        return self._elapsed_before + time.monotonic() - self._began

    def _report_progress(self, images: int, seconds: float) -> None:
        if rate := self.throughput.add(images, seconds):
            self.channel.send(Progress(self.counters.position, self.watch.latest, rate))

    def _report_epoch(self, improved: bool, training: float, validation: float) -> None:
        history, times = self.counters.history, self.counters.times
        self.files.write_results(self.counters)
        if improved:
            metrics = {**self.metrics, "fitness": self.fitness}
            self.files.save_best(self.ema.ema, vars(self.args), metrics, self.counters.best_epoch)
        seconds = times[-1] - (times[-2] if len(times) > 1 else 0.0)
        self.channel.send(EpochDone(len(history), self.fitness, history[-1], seconds, training, validation))


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
