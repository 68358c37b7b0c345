"""What a failure of a trial means for the trial: it ends with it, or it is given back because nothing of it is its own.

Which kind a failure is, the trial's process says (``training/causes.py``). What comes of each kind stands here alone.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from petskin_tune.error_text import LONGEST_DETAIL, masked

if TYPE_CHECKING:
    from petskin_tune.protocol import FailureKind

# How a kind that ends its trial is told, so that every sampler learns from it.
ENDS: Mapping[FailureKind, TrialState] = {
    "diverged": TrialState.PRUNED,
    "out-of-memory": TrialState.PRUNED,
    "crashed": TrialState.FAIL,
    "refused": TrialState.FAIL,
    "interrupted": TrialState.FAIL,
}
# Kinds that the point is to blame for: the search learns to keep away from it.
BAD_POINTS: tuple[FailureKind, ...] = tuple(kind for kind, state in ENDS.items() if state == TrialState.PRUNED)
# Kinds that say nothing about the trial: it is given back as it is, none of its attempts is used up, and the worker
# ends with this sentence. Every other trial would meet the same.
GIVEN_BACK: Mapping[str, str] = {
    "machine": "Training cannot {verb} on this machine",
    "data": "The data set here cannot be trained on",
}
CANNOT_START = "Trial {trial} cannot {verb}"  # for a reason of its own, as far as anybody knows
DIES = "The process of trial {trial} dies before it trains"  # which may be the trial's fault or the machine's


@dataclass(frozen=True)
class Failure:
    """A failure as it is kept with its trial.

    Attributes:
        kind: see ``protocol.FailureKind``.
        message: one sentence.
        detail: the traceback or the end of the log, at most ``LONGEST_DETAIL`` characters.
        log: the file with all of it, on the machine of the worker that trained the trial.
    """

    kind: str
    message: str
    detail: str = ""
    log: str = ""

    def to_json(self) -> dict[str, str]:
        """As an attribute of the trial, without passwords."""
        return {
            "kind": self.kind,
            "message": masked(self.message),
            "detail": masked(self.detail)[-LONGEST_DETAIL:],
            "log": self.log,
        }

    @staticmethod
    def read(kept: Mapping[str, Any] | None) -> Failure | None:
        """What a trial's attribute says, if it has one."""
        return Failure(*(str(kept.get(name, "")) for name in ("kind", "message", "detail", "log"))) if kept else None

    def sentence(self, subject: str, doctor: str) -> str:
        """What a person is told when the worker ends of it.

        Args:
            subject: what cannot be done.
            doctor: what to type to have it looked at.
        """
        log = f" All of it is in {self.log}." if self.log else ""
        return f"{subject}: {self.message.rstrip('.')}.{log} Look at it with: {doctor}"


def signal_name(number: int) -> str:
    """A signal's name, and what it mostly means."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    return f"{name}, mostly for lack of memory" if number == signal.SIGKILL else name
