"""The curves of one training, from columns as Ultralytics names them, and how noisy they are.

What Ultralytics has written over the years is read alike: epochs that count from 0, validation losses that are 0 or
infinite because an old validator summed them up in half precision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from petskin_tune.errors import UsageError
from petskin_tune.language import _

Array = np.ndarray[Any, np.dtype[np.float64]]
History = Mapping[str, Sequence[float]]

MASK = "metrics/mAP50-95(M)"
BOX = "metrics/mAP50-95(B)"
MASK_NAME, BOX_NAME = "mask mAP", "box mAP"
PER_CLASS = MASK + "/"  # followed by a class's name, where a trial records its classes one by one

# The least noise of mask mAP50-95 seen in public YOLO segmentation runs of 50 or more epochs (median 0.007).
LEAST_NOISE = 0.001

LARGEST = 1e12  # a loss or rate beyond it is as good as infinite, and its squares can still be summed up
MOST_EPOCHS = 1_000_000  # numbers beyond it are no epochs


@dataclass(frozen=True)
class Curves:
    """One value an epoch in every array; ``None`` where the run did not record it.

    Attributes:
        epochs: 1-based numbers.
        fitness: mask mAP50-95, or box mAP50-95 of a run without masks.
        fitness_name: which of the two.
        train_loss: sum of the training losses; not finite where the run diverged.
        val_loss: sum of those validation losses that were recorded as finite numbers.
        learning_rate: the smallest of the parameter groups (biases warm up from above).
        mask: mask mAP50-95.
        box: box mAP50-95.
        classes: mask mAP50-95 by class; of a trial, of those classes that have objects in the validation set.
        arguments: what is known of Ultralytics' arguments, possibly nothing.
        validated: whether an epoch was; with ``val: false`` only the last is, and the scores of the others are 0.
        remarks: sentences on what of the run's files was left out.
    """

    epochs: Array
    fitness: Array
    fitness_name: str
    train_loss: Array | None
    val_loss: Array | None
    learning_rate: Array | None
    mask: Array | None
    box: Array | None
    classes: Mapping[str, Array] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    validated: Array | None = None
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.epochs)

    @property
    def score(self) -> str:
        """:attr:`fitness_name` as it is said."""
        return _("mask mAP") if self.fitness_name == MASK_NAME else _("box mAP")

    @cached_property
    def best(self) -> int:
        """Index of the best epoch."""
        return int(np.nanargmax(self.fitness)) if np.isfinite(self.fitness).any() else 0

    def number(self, index: int) -> int:
        """The 1-based number of the epoch at ``index``."""
        return int(self.epochs[index])

    def rate(self, index: int) -> float | None:
        """The learning rate at ``index``; None where it is not recorded."""
        rate = float(self.learning_rate[index]) if self.learning_rate is not None else 0.0
        return rate if math.isfinite(rate) and rate > 0 else None

    @property
    def mosaic_closes(self) -> int:
        """Index of the first epoch without mosaic, where the training loss drops by itself; ``len``: none."""
        if self.planned is None:
            return _sudden_drop(self.train_loss, len(self))
        without = self.asked("close_mosaic", 10) if self.asked("mosaic", 1.0) else 0
        return int(np.searchsorted(self.epochs, self.planned - without, side="right"))

    @property
    def planned(self) -> int | None:
        """How many epochs were asked for; None: not known."""
        epochs = self.asked("epochs", 0)
        return int(epochs) if 1 <= epochs <= MOST_EPOCHS else None

    @property
    def in_progress(self) -> bool:
        """Whether fewer epochs are done than were asked for: it goes on, or was pruned."""
        return self.planned is not None and self.number(-1) < self.planned

    @property
    def has_ended(self) -> bool:
        """Whether all epochs that were asked for are done."""
        return self.planned is not None and not self.in_progress

    def asked(self, name: str, otherwise: float) -> float:
        """The number that was asked for as argument ``name``; ``otherwise`` where that is not known or no number."""
        try:
            value = float(self.arguments[name])
        except (KeyError, TypeError, ValueError, OverflowError):
            return otherwise
        return value if math.isfinite(value) else otherwise

    def sound(self) -> Curves:
        """The epochs that can be judged: validated, with a loss and a score that are numbers."""
        good = np.isfinite(self.fitness)
        good &= True if self.train_loss is None else np.isfinite(self.train_loss)
        good &= True if self.validated is None else self.validated > 0
        if good.all():
            return self
        kept: dict[str, Any] = {
            known.name: values[good]
            for known in fields(self)
            if isinstance(values := getattr(self, known.name), np.ndarray)
        }
        return replace(self, **kept, classes={name: values[good] for name, values in self.classes.items()})


def from_history(history: History, arguments: Mapping[str, Any] | None = None) -> Curves:
    """Curves from columns as ``results.csv`` names them.

    Raises:
        UsageError: there is neither mask nor box mAP, or not a single epoch.
    """
    columns = {name.strip(): _bounded(name.strip(), values) for name, values in history.items()}
    fitness_column = MASK if MASK in columns else BOX
    if fitness_column not in columns or not len(columns[fitness_column]):
        raise UsageError(f"There is no column {MASK} or {BOX} with at least one epoch: nothing to diagnose.")
    length = len(columns[fitness_column])
    columns = {name: values for name, values in columns.items() if len(values) == length}
    fitness = columns[fitness_column]
    return Curves(
        epochs=_epochs(columns.get("epoch"), length),
        fitness=fitness,
        fitness_name=MASK_NAME if fitness_column == MASK else BOX_NAME,
        train_loss=_sum([values for name, values in columns.items() if name.startswith("train/")]),
        val_loss=_sum(
            [v for name, v in columns.items() if name.startswith("val/") and np.isfinite(v).all() and v.any()]
        ),
        learning_rate=_least([values for name, values in columns.items() if name.startswith("lr/")]),
        mask=columns.get(MASK),
        box=columns.get(BOX),
        classes={name.removeprefix(PER_CLASS): v for name, v in columns.items() if name.startswith(PER_CLASS)},
        arguments=dict(arguments or {}),
        validated=_validated(columns, arguments or {}),
    )


def _bounded(name: str, values: Sequence[float]) -> Array:
    """A column as numbers that can be reckoned with: a score is a share, and a loss of 1e300 has diverged."""
    column = np.asarray(values, dtype=float)
    if name.startswith("metrics/"):
        return np.where((column >= 0) & (column <= 1), column, np.nan)
    return np.where(np.abs(column) <= LARGEST, column, np.where(np.isnan(column), np.nan, np.copysign(np.inf, column)))


def _epochs(told: Array | None, length: int) -> Array:
    """The 1-based numbers of the epochs: as told where those are numbers that rise, else counted."""
    if told is None or not ((told >= 0) & (told <= MOST_EPOCHS) & (told == np.floor(told))).all():
        return np.arange(1, length + 1, dtype=float)
    if not (np.diff(told) > 0).all():
        return np.arange(1, length + 1, dtype=float)
    return told + 1 if told[0] == 0 else told


def _validated(columns: Mapping[str, Array], arguments: Mapping[str, Any]) -> Array | None:
    """1 for each epoch that was validated, 0 where it was not; None without validation losses.

    A run with ``val: false`` validates its last epoch and writes 0 for the others, if it comes to its last. Of any
    other run whose last row is all 0, the zeros are what a dead model scored.
    """
    losses = [values for name, values in columns.items() if name.startswith("val/")]
    scores = [values for name, values in columns.items() if name.startswith("metrics/")]
    if not losses:
        return None
    told = np.any([*losses, *scores], axis=0).astype(float)
    return told if told[-1] or arguments.get("val") is False else np.ones_like(told)


def _sum(columns: list[Array]) -> Array | None:
    return np.sum(columns, axis=0) if columns else None


def _least(columns: list[Array]) -> Array | None:
    return np.min(columns, axis=0) if columns else None


# ---- estimates ------------------------------------------------------------------------------------------------------


def noise(values: Array) -> float:
    """Standard deviation of a curve's noise from one epoch to the next, whatever its trend.

    From the median absolute second difference, which a smooth trend does not move: for white noise of deviation s,
    second differences have deviation s * sqrt(6), and 1.4826 makes the median of a normal distribution a deviation.
    """
    if len(values) < 4:
        return 0.0
    return float(1.4826 * np.median(np.abs(np.diff(values, 2))) / math.sqrt(6))


def fitness_noise(curves: Curves) -> float:
    """Noise of the fitness, at least the least that real runs show."""
    finite = curves.fitness[np.isfinite(curves.fitness)]
    return max(noise(finite), LEAST_NOISE)


def smooth(values: Array) -> Array:
    """Median of each value and its two neighbours."""
    padded = np.concatenate([values[:1], values, values[-1:]])
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, 3), axis=1)


def change(values: Array) -> float:
    """Change over all of ``values`` along a straight line through them, as a share of their mean."""
    if len(values) < 2 or not (level := abs(float(np.mean(values)))):
        return 0.0
    slope = np.polyfit(np.arange(len(values)), values, 1)[0]
    return float(slope * (len(values) - 1) / level)


def gain(values: Array, deviation: float) -> tuple[float, float]:
    """By how much the second half of ``values`` lies above the first, and that difference's standard error.

    Args:
        values: a stretch of a curve.
        deviation: of the whole curve's noise.
    """
    half = len(values) // 2
    if half < 1:
        return 0.0, math.inf
    difference = float(np.mean(values[-half:]) - np.mean(values[:half]))
    return difference, deviation * math.sqrt(2 / half)


def _sudden_drop(loss: Array | None, length: int) -> int:
    """Index at which the loss suddenly falls in the second half of a run, as it does when mosaic is closed."""
    if loss is None or length < 12 or not np.isfinite(loss).all():
        return length
    steps = np.diff(loss)[length // 2 :]
    usual = np.median(np.abs(np.diff(loss)))
    at = int(np.argmin(steps))
    is_sudden = steps[at] < -6 * usual and steps[at] < -0.03 * loss[length // 2 + at]
    return length // 2 + at + 1 if is_sudden else length
