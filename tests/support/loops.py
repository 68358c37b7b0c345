"""Ultralytics' own loop and ours, on the same batches and seeds."""

from __future__ import annotations

from ultralytics.engine.trainer import BaseTrainer

from petskin_tune.protocol import MASK_MAP
from petskin_tune.training.data.order import seed_batch
from petskin_tune.training.fall_back import FallBack
from petskin_tune.training.trainer import ResumableTrainer
from tests.support import training as helpers

NEVER = 10**6  # epochs


class OurLoop(ResumableTrainer):
    """Our trainer, which may be told what fitness its epochs have."""

    script: tuple[float, ...] = ()

    def __init__(self, job):
        super().__init__(job, helpers.Recorder(), FallBack())

    def validate(self):
        metrics, fitness = super().validate()
        if self.script:
            metrics[MASK_MAP] = fitness = self.script[self.epoch]
        return metrics, fitness


class StockLoop(OurLoop):
    """Our set-up and our batches under Ultralytics' own ``_do_train``, which closes mosaic by itself."""

    _do_train = BaseTrainer._do_train

    def __init__(self, job):
        super().__init__(job)
        self.batch = 0
        self.rows = []
        self.add_callback("on_train_epoch_start", StockLoop.start_epoch)
        self.add_callback("on_train_batch_start", StockLoop.start_batch)
        self.callbacks["on_val_batch_start"].clear()

    def build_dataset(self, img_path, mode="train", batch=None):
        dataset = super().build_dataset(img_path, mode, batch)
        dataset._mosaic_until = NEVER
        return dataset

    def start_epoch(self):
        self.batch = 0

    def start_batch(self):
        seed_batch(self.args.seed, self.epoch, self.batch)
        self.batch += 1

    def validate(self):
        metrics, fitness = super().validate()
        if self.best_fitness is None or self.best_fitness < fitness:
            self.best_fitness = fitness
        return metrics, fitness

    def save_model(self):
        self.rows.append({**self.label_loss_items(self.tloss), **self.metrics, **self.lr})
        return False

    def final_eval(self):
        pass
