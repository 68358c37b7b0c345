"""Where a training goes on after a failure that a decision helps against: fp32 after a NaN, micro-batches."""

from __future__ import annotations

from pathlib import Path

from petskin_tune.protocol import Position
from petskin_tune.training.snapshots import file as snapshot_file
from petskin_tune.training.snapshots.state import Decisions, TrainingState


class FallBack:
    """The state to go on from, which one trainer of a process hands to the next.

    It is the state at the epoch's start, not the newest: snapshots are written by the clock, and the same failure must
    lead back to the same place wherever they were. (It must not lie before the last epoch that was reported either, or
    the epochs after it would be reported twice.) Only in an epoch that this process entered in the middle is it where
    it entered, because its start is nowhere. Where no decision can follow any more, nothing is kept in memory, and the
    newest snapshot on disk must do.

    Args:
        state: That this process begins with; None: the beginning of the trial.
        path: The file that it comes from.

    Attributes:
        state: To go on from; None: the beginning, or (while nothing is kept in memory) a file.
        decisions: In force.
        just_decided: No snapshot on disk knows of the last decision.
        announced: The worker was told where training starts.
    """

    def __init__(self, state: TrainingState | None = None, path: str | None = None) -> None:
        self.state = state
        self.decisions = state.terms.decisions if state else Decisions()
        self.just_decided = False
        self.announced = False
        self.in_memory = True
        self._path = path

    def begin(self, *, in_memory: bool) -> None:
        """Training begins: hold on to the state only where a decision may lead back to it."""
        self.in_memory = in_memory
        if not in_memory:
            self.state = None

    def at(self, position: Position) -> TrainingState | None:
        """Return the state if it is that of a position."""
        return self.state if self.state is not None and self.state.counters.position == position else None

    def decide(self, decisions: Decisions, newest: str | None) -> None:
        """Go on with other decisions after a failure.

        Args:
            decisions: What is in force from now on.
            newest: The newest snapshot that the failed trainer has written; None: it has written none.

        Raises:
            SnapshotDamaged: The file to go on from cannot be read.
        """
        path = newest or self._path
        if not self.in_memory and path is not None:
            self.state = TrainingState.from_plain(snapshot_file.read(Path(path)))
        if self.state is not None:
            self.state = self.state.decided(decisions)
        self.decisions, self.just_decided, self.in_memory = decisions, True, True
