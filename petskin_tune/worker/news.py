"""What of a worker's day is worth a message, in a sentence each."""

from __future__ import annotations

import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial

from petskin_tune import text as words
from petskin_tune.diagnosis.comparison import curves_of
from petskin_tune.diagnosis.curves import fitness_noise
from petskin_tune.diagnosis.search import USUAL_NOISE
from petskin_tune.errors import UsageError
from petskin_tune.leases.lease import read_leases
from petskin_tune.study import attributes
from petskin_tune.study.best.repeats import repeats_of
from petskin_tune.study.extent import Extent, begun_here, extent
from petskin_tune.trial.ends import Outcome
from petskin_tune.trial.workplace import Workplace
from petskin_tune.worker.notify import Notifier

AWAY = (sqlalchemy.exc.SQLAlchemyError, StorageInternalError)  # of a database; no message is worth waiting for it


class News:
    """Tells a person what one worker has seen.

    Args:
        place: of the worker.
        notifier: sends.
    """

    def __init__(self, place: Workplace, notifier: Notifier) -> None:
        self._study = place.study
        self._worker = place.options.worker
        self._notifier = notifier

    def trial_ended(self, number: int, outcome: Outcome, before: FrozenTrial | None) -> None:
        """A trial has left this worker; ``before`` is the study's best trial before it ran."""
        if outcome.end == "failed":
            self._tell(f"trial {number} failed: {outcome.reason}")
        elif repeats_of(self._study.attributes):
            pass  # the best of repetitions is the luckiest
        elif outcome.end == "complete" and outcome.value is not None and is_news(outcome.value, before):
            was = f", before it was {words.score(before.value)} (trial {before.number})" if before else ""
            self._tell(f"new best mask mAP {words.score(outcome.value)} (trial {number}){was}")

    def study_done(self, best: FrozenTrial | None) -> None:
        """The study is done; of several workers one says so."""
        if not self._notifier.is_on:
            return
        try:
            key = f"{attributes.TOLD}:{self._extent().whole}"
            if self._study.set_once(key, self._worker) != self._worker:
                return
        except AWAY:
            pass
        found = f": best mask mAP {words.score(best.value)} (trial {best.number})" if best else ""
        self._tell(f"study done{found}")

    def stopped(self, reason: str) -> None:
        """This worker ends with work left, and nobody asked it to just now."""
        if not self._notifier.is_on:
            return
        self._study.storage.patience.cancelled.set()  # nothing is waited for any more
        try:
            so_far = f" · {self._extent()}{self._at_work()}"
        except (*AWAY, UsageError, KeyError):  # away, or deleted
            so_far = ""
        self._tell(f"{self._worker} stopped: {reason.rstrip('.')}{so_far}")

    def _at_work(self) -> str:
        leases = read_leases(self._study.storage, self._study.id, only_unfinished=True)
        if not any(lease.state == "running" and not lease.has_run_out for lease in leases):
            return " · nobody is at work"
        return ""

    def _extent(self) -> Extent:
        return extent(self._study.spec, begun_here(self._study.trials()))

    def _tell(self, sentence: str) -> None:
        self._notifier.tell(f"{self._study.name}: {sentence}")


def is_news(value: float, before: FrozenTrial | None) -> bool:
    """Whether a value lies above the best trial's by more than that one's own noise."""
    if before is None or before.value is None:
        return True
    curves = curves_of(before)
    return value > before.value + (fitness_noise(curves) if curves else USUAL_NOISE)
