"""Whether the trials that failed or were given back can start on this machine: each is started as a worker would.

For ``petskin-tune doctor``: nothing of it is written to the study. A trial goes as far as its first event, which is
behind everything that can go wrong at a start: data, model, optimizer, snapshot, device.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from petskin_tune.checkpoints.base import Store
from petskin_tune.checkpoints.restore import newest_good
from petskin_tune.error_text import tail
from petskin_tune.files.durable import StoreError
from petskin_tune.language import _
from petskin_tune.leases.lease import Lease, read_leases
from petskin_tune.protocol import TRAIN_LOG, Declined, Event, Failed, Position, Started, Stop, TrialJob
from petskin_tune.study.stored import recorded
from petskin_tune.study.study import Study, settings_of
from petskin_tune.trial.inputs import Prepared
from petskin_tune.trial.job import trial_job
from petskin_tune.trial.process.runner import Died, Runner

MOST_TRIED = 3  # trials that were given back, oldest first, as a worker takes them
LONGEST_SECONDS = 240.0


@dataclass(frozen=True)
class Attempt:
    """What became of one trial's start.

    Attributes:
        number: of the trial.
        position: where it would go on; None: it did not start.
        problem: why it did not, or from another place than its newest snapshot.
    """

    number: int
    position: Position | None
    problem: str = ""


def given_back(study: Study) -> list[tuple[FrozenTrial, Lease]]:
    """The trials that nobody trains at this moment, with their leases, by number: released ones, and silent ones."""
    trials = {trial._trial_id: trial for trial in study.trials(TrialState.RUNNING)}
    leases = read_leases(study.storage, study.id, only_unfinished=True)
    left = [lease for lease in leases if lease.state == "released" or lease.has_run_out]
    return [(trials[lease.trial_id], lease) for lease in left if lease.trial_id in trials]


def attempts(study: Study, prepared: Prepared, store: Store, runner: Runner, folder: Path) -> Iterator[Attempt]:
    """Start trials that were given back, one after the other, and stop them at once.

    Args:
        study: open.
        prepared: data and model on this machine.
        store: of the study.
        runner: whose forkserver is used.
        folder: for their runs, on this machine's disk; deleted in the end.
    """
    drawn = [pair for pair in given_back(study) if set(study.spec.search) <= set(pair[0].params)]
    for trial, lease in drawn[:MOST_TRIED]:
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            job = trial_job(study, prepared, trial.number, recorded(trial), settings_of(trial, study.spec), folder)
            yield _attempt(replace(job, allow_different_machine=True), lease, store, runner)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _attempt(job: TrialJob, lease: Lease, store: Store, runner: Runner) -> Attempt:
    """Start from the newest snapshot, from the one before where that is no good, and at last from the beginning."""
    left = [pointer for pointer in (lease.snapshot, lease.previous) if pointer is not None]
    problems: list[str] = []
    while True:
        try:
            found = newest_good(left, store, Path(job.run_folder))
        except StoreError as error:
            return Attempt(job.trial, None, _("its snapshot cannot be had: {error}").format(error=error))
        unusable = _("the snapshot {key} cannot be used: {reason}")
        problems += [unusable.format(key=rejected.key, reason=rejected.reason) for rejected in found.rejected]
        start = _Start(runner, replace(job, snapshot=str(found.path) if found.path else None))
        problems += [start.problem] if start.problem else []
        if not start.declined or found.pointer is None:
            return Attempt(job.trial, start.position, "; ".join(problems))
        left = left[left.index(found.pointer) + 1 :]


class _Start:
    """A trial's process until it says that it trains, or why not."""

    def __init__(self, runner: Runner, job: TrialJob) -> None:
        self.position: Position | None = None
        self.problem = ""
        self.declined = False
        self._job = job
        self._over = threading.Event()
        process = runner.start(job, self._hear)
        try:
            if not self._over.wait(LONGEST_SECONDS):
                self.problem = _("it did not train within {seconds:.0f} s").format(seconds=LONGEST_SECONDS)
        finally:
            process.send(Stop())
            process.end()

    def _hear(self, event: Event | Died) -> None:
        if self._over.is_set():
            return
        if isinstance(event, Started):
            self.position = event.position
        elif isinstance(event, Failed):
            self.problem = f"{event.kind}: {event.message}"
        elif isinstance(event, Declined):
            self.declined = True
            self.problem = event.message.partition("; all of it is in")[0]  # that file is deleted with this run
        elif isinstance(event, Died):
            ended = _("its process ended with {code}: {line}")
            self.problem = ended.format(code=event.exit_code, line=self._last_line())
        else:
            return
        self._over.set()

    def _last_line(self) -> str:
        try:
            text = (Path(self._job.run_folder) / TRAIN_LOG).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return _("it left no log")
        return " ".join(tail(text, 1)) or _("its log is empty")
