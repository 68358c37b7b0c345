"""What an epoch leaves in the run's folder beside snapshots: ``results.csv`` and the best weights.

A disk that refuses them ends no training: the worker hears of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from petskin_tune.protocol import BestWeights, Note
from petskin_tune.training.process.channel import Channel
from petskin_tune.training.snapshots import results, weights
from petskin_tune.training.snapshots.schedule import SnapshotKeeper
from petskin_tune.training.snapshots.state import Counters


class RunFiles:
    """The files of one run.

    Args:
        table: Path of ``results.csv``.
        best: Path of the best weights.
        channel: Hears of every file written, and of what failed.
        keeper: Writes weights in the background, before any snapshot that follows.
    """

    def __init__(self, table: Path, best: Path, channel: Channel, keeper: SnapshotKeeper) -> None:
        self._table = table
        self._best = best
        self._channel = channel
        self._keeper = keeper

    def write_results(self, counters: Counters) -> None:
        """Write one row for each epoch done."""
        try:
            results.write(self._table, counters.history, counters.times)
        except OSError as error:
            self._channel.send(Note("results-failed", f"results.csv was not written: {error}"))

    def save_best(self, ema: nn.Module, arguments: Mapping[str, Any], metrics: Mapping[str, float], epoch: int) -> None:
        """Write the averaged model in the background.

        Args:
            ema: Is copied at once.
            arguments: In force.
            metrics: Of the epoch, ``fitness`` among them.
            epoch: 1-based.
        """
        with self._keeper.standstill():
            content = weights.checkpoint(ema, dict(arguments), dict(metrics), epoch)

        def write() -> None:
            try:
                weights.write(content, self._best)
            except Exception as error:  # noqa: BLE001  nobody else would hear of it
                reason = error if isinstance(error, OSError) else repr(error)
                self._channel.send(
                    Note("weights-failed", f"the best weights of epoch {epoch} were not written: {reason}")
                )
            else:
                self._channel.send(BestWeights(str(self._best), epoch, metrics["fitness"]))

        self._keeper.submit(write)
