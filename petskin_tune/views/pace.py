"""How far the trial in work is, how fast it goes, and what is left of it and of the study at that pace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from petskin_tune.protocol import Position
from petskin_tune.study.extent import Extent


@dataclass
class TrialPace:
    """The trial in work.

    Attributes:
        position: where it stands.
        batches: of an epoch; 0: not known yet.
        losses: running means of the epoch in work.
        fitness, best: mask mAP50-95 of the last epoch and of the best one.
        durable: what is said of its safety.
        began_at: epochs that the study counts as trained since before.
        paced_from: (clock, epochs done) when the first batch was heard of.
        epoch_seconds: what the last epoch took, validation included.
    """

    number: int
    params: Mapping[str, object]
    epochs: int
    position: Position
    batches: int = 0
    losses: Mapping[str, float] = field(default_factory=dict)
    images_per_second: float = 0.0
    fitness: float | None = None
    best: float | None = None
    durable: str = ""
    began_at: int = 0
    paced_from: tuple[float, float] | None = None
    epoch_seconds: float | None = None

    def saw_batch(
        self, now: float, position: Position, batches: int, losses: Mapping[str, float], images_per_second: float
    ) -> None:
        """``position.batch`` of ``batches`` batches are done at the time ``now``."""
        self.position, self.batches = position, batches
        self.losses, self.images_per_second = losses or self.losses, images_per_second
        if self.paced_from is None:
            self.paced_from = (now, self.epochs_done())

    def saw_epoch(self, epoch: int, fitness: float, best: float, durable: str, seconds: float | None) -> None:
        """Epoch ``epoch`` (1-based) is done, validation included, in ``seconds``."""
        self.position = Position(epoch, 0)
        self.fitness, self.best, self.durable = fitness, best, durable
        self.epoch_seconds = seconds

    def epochs_done(self) -> float:
        """How many, the part of the one in work included."""
        return self.position.epoch + (self.position.batch / self.batches if self.batches else 0.0)

    def seconds_left(self, now: float) -> float | None:
        """What is left at the pace so far, validation included; None before there is a pace."""
        left = self.epochs - self.epochs_done()
        gained = self.epochs_done() - self.paced_from[1] if self.paced_from else 0.0
        if self.epoch_seconds is not None and gained < 1:
            return left * self.epoch_seconds
        return left * (now - self.paced_from[0]) / gained if self.paced_from and gained > 0 else None

    def epoch_seconds_left(self) -> float | None:
        """Of the epoch in work, if it takes what the one before took; None: there was none."""
        if self.epoch_seconds is None or not self.batches:
            return None
        return self.epoch_seconds * (1 - self.position.batch / self.batches)


@dataclass
class StudyPace:
    """The study, as this worker alone would go on with it.

    Attributes:
        ended: seconds of each trial that ended here.
    """

    extent: Extent = field(default_factory=lambda: Extent(0, None))
    ended: list[float] = field(default_factory=list)

    def seconds_left(self, trial: TrialPace, left: float) -> float | None:
        """What the study takes this worker alone, of which its trial takes ``left``; None: not known yet."""
        if self.extent.of is None:
            return None
        if self.extent.unit == "epoch":
            epochs = trial.epochs - trial.epochs_done()
            trained = trial.epochs_done() - trial.began_at
            # However little is left of the budget: what is trained last is trained to its end.
            return max(left, (self.extent.left - trained) * left / epochs) if epochs > 0 else None
        others = max(0, self.extent.left - 1)
        if not self.ended:
            return left if not others else None
        return left + others * sum(self.ended) / len(self.ended)
