"""What all trials of one worker share on this machine: study, home, store, processes, screen, measured times."""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy
from optuna.exceptions import StorageInternalError

from petskin_tune.checkpoints.keys import trial_prefix
from petskin_tune.checkpoints.retention import Retention, clear
from petskin_tune.checkpoints.uploader import Uploader
from petskin_tune.errors import UsageError
from petskin_tune.home.home import Home
from petskin_tune.leases.claims import Claims
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.leases.lease import Lease, read_leases
from petskin_tune.leases.segments import Choice, Segments
from petskin_tune.search.segments import choose, promised, recommendation
from petskin_tune.study import attributes
from petskin_tune.study.stored import recorded
from petskin_tune.study.study import FINISHED, Study
from petskin_tune.trial.freezing import Freezing
from petskin_tune.trial.inputs import Prepared, data_of, model_identity, of_study, prepare, require_unchanged
from petskin_tune.trial.outbox import Outbox
from petskin_tune.trial.process.runner import Runner, free_folder, is_unused
from petskin_tune.trial.timings import Deadline, Times
from petskin_tune.views.progress import Progress as View

WORTH_SAYING_SECONDS = 2.0  # of an outage
LOOK_SECONDS = 60.0  # from one look at the whole data set to the next


@dataclass(frozen=True)
class Options:
    """What the command line adds to the study, for this worker alone."""

    worker: str
    device: str = ""
    data: str | None = None
    max_hours: float | None = None
    max_trials: int | None = None
    take_over: bool = False
    allow_different_machine: bool = False
    exact: bool = False
    typed: str = ""  # the options that a person types again beside ``--study NAME``
    typed_for_workers: str = ""  # those of them that other commands do not take
    command: str = ""  # what a person typed and types again to go on, where it is not `tune-worker`


class Running(Protocol):
    """The run of the trial in work, as other threads see it."""

    def suspend(self, reason: str, until: float) -> None:
        """Snapshot, upload, release; writing and uploading end at the instant (monotonic) ``until``."""

    def upload_seconds(self) -> float | None:
        """What bringing a snapshot into the store takes; None: not known yet."""

    def waiting(self) -> int:
        """Reports that wait for the database."""


class Workplace:
    """One worker's place on this machine.

    Args:
        study: open.
        home: started.
        processes: starts the trials' processes.
        view: shows what happens.
        options: of the command line.
        inputs: data and model, where opening the study has looked at them already.

    Attributes:
        store: of the study.
        retention: what stays in it.
        claims: creates and takes trials.
        times: what the parts of a suspension take, as they are measured here.
        deadline: of ``--max-hours``; None: no end of time.
        run: of the trial in work; None between trials.
        freezing: trials of this worker that are not quite frozen yet, or after which the store is still to be tidied.
        left_to_others: numbers of the trials that this worker leaves to another machine.
    """

    def __init__(
        self, study: Study, home: Home, processes: Runner, view: View, options: Options, inputs: Prepared | None = None
    ) -> None:
        self.study = study
        self.home = home
        self.processes = processes
        self.view = view
        self.options = options
        self.store = home.open_store(study.store, study.uid)
        self.times = Times()
        self.deadline: Deadline | None = None
        self.run: Running | None = None
        self.freezing: list[Freezing] = []
        self.left_to_others: set[int] = set()
        copied = home.copied is not None
        terms = (study.spec.lease, study.spec.snapshot_every)
        self.claims = Claims(study.storage, study.fence, options.worker, *terms, alone=copied)
        self.segments = Segments(self.claims)
        self.retention = Retention(
            study, self.store, copied=copied, give_up=self._give_up, worth=self._worth, settle=self.home.save
        )
        self._inputs = inputs
        self._looked_at = time.monotonic()  # at the data set, which was prepared just now or will be
        self._folders: dict[int, Path] = {}  # run folders that are not where they would be, by trial number
        self._outlook: Mapping[str, float] | None = None
        self._away_since: float | None = None  # the instant (monotonic) since which the database has been away
        self._away_said = 0.0  # seconds of the outage that were said last: twice as long is worth another line

    # ---- data and model ----

    def inputs(self) -> Prepared:
        """Data and model on this machine; the first call may take a while, and the forkserver imports meanwhile.

        Raises:
            UsageError: they are not there, cannot be used, or are not the study's.
        """
        self.processes.warm_up()
        if self._inputs is not None:
            self._look_again(self._inputs)
        if self._inputs is None or not self._inputs.model:
            self._inputs = of_study(
                prepare(self.study.spec, self.home, self.study.folders, self.options.data), self.study
            )
        self._require_same_model(model_identity(self._inputs.model))
        return self._inputs

    def inputs_for(self, snapshot: str | None) -> Prepared:
        """What a trial needs that goes on from ``snapshot``, which holds all of its model: weights may be gone.

        Raises:
            UsageError: see :meth:`inputs`.
        """
        if snapshot is None or attributes.MODEL not in self.study.attributes:
            return self.inputs()
        return self.data()

    def data(self) -> Prepared:
        """The data set on this machine, whatever became of the model.

        Raises:
            UsageError: it is not there, cannot be used, or is not the study's.
        """
        if self._inputs is not None:
            self._look_again(self._inputs)
        return self.known_data()

    def known_data(self) -> Prepared:
        """The same as this worker knows it: where it was looked at once, nobody looks whether it has changed since.

        Raises:
            UsageError: see :meth:`data`.
        """
        if self._inputs is None:
            self._inputs = data_of(self.study, self.home, self.options.data)
        return self._inputs

    def _look_again(self, inputs: Prepared) -> None:
        """Refuse a data set that has changed since this worker began; not twice for one trial."""
        if time.monotonic() - self._looked_at >= LOOK_SECONDS:
            require_unchanged(inputs, self.home)
            self._looked_at = time.monotonic()

    def _require_same_model(self, mine: str) -> None:
        """Refuse a model file that is not the one the study's first trial began with; that is remembered here.

        Raises:
            UsageError: it has changed.
        """
        known = self.study.attributes.get(attributes.MODEL) or self.study.set_once(attributes.MODEL, mine)
        if known != mine:
            raise UsageError(
                f"The model here is not the one that this study was begun with: {mine}, not {known}. Put that file "
                "back, or begin another study."
            )

    # ---- of one trial ----

    def folder(self, number: int) -> Path:
        """The run folder of a trial on this machine."""
        return self._folders.get(number, self.home.work / "trials" / f"{self.study.uid}-{number:06d}")

    def free_folder(self, number: int) -> Path:
        """The run folder of a trial, made, in which no other process trains."""
        folder = self.folder(number)
        if not free_folder(folder):
            folder = self._folders[number] = folder.with_name(f"{folder.name}-{os.getpid()}")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def clear_ended(self) -> None:
        """Delete snapshots and weights in the run folders of trials that have ended, here or elsewhere.

        Whatever the store and the network home say: nobody goes on from them.
        """
        ended = {trial.number for trial in self.study.trials(*FINISHED)}
        of_a_trial = re.compile(rf"{re.escape(self.study.uid)}-(\d+)(-\d+)?")
        for folder in (self.home.work / "trials").glob(f"{self.study.uid}-*"):
            named = of_a_trial.fullmatch(folder.name)
            if named and int(named[1]) in ended and is_unused(folder):
                clear(folder)

    def outbox(self, trial: HeldTrial) -> Outbox:
        """The trial's outbox on this machine.

        Raises:
            LeaseLost: a person deleted the trial.
        """
        name = f"{self.study.uid}-{trial.number:06d}.jsonl"
        return Outbox(self.home.work / "outbox" / name, trial.held.token, trial.birth)

    def uploader(self, trial: HeldTrial, say: Callable[[str], None]) -> Uploader:
        """Brings the trial's snapshots into the store."""
        lease = trial.lease()
        return Uploader(
            self.store,
            trial_prefix(self.study.uid, trial.number),
            trial.held.token,
            say=say,
            known=[pointer for pointer in (lease.snapshot, lease.previous) if pointer is not None],
            known_weights=recorded(trial.read()).get(attributes.WEIGHTS),
            settle=self.home.save,
            make_room=self.retention.make_room,
            retriable=(sqlalchemy.exc.SQLAlchemyError, StorageInternalError),
        )

    def _give_up(self, lease: Lease) -> bool:
        """End a frozen trial for the room of its snapshot; False: it is not frozen any more."""
        is_over = self.segments.give_up(lease)
        if is_over:
            self.home.save()  # no copy of the database must point to what is deleted then
        return is_over

    def _worth(self) -> Mapping[int, float]:
        """What each trial's last epoch is expected to be, by number."""
        return promised(self.study.trials(), read_leases(self.study.storage, self.study.id), self.study.spec)

    def choose(self, asking: int | None = None) -> Choice:
        """What to train next, see :func:`petskin_tune.search.segments.choose`."""
        leases = read_leases(self.study.storage, self.study.id)  # first: what ends in between then still runs
        seconds = self.deadline.left() if self.deadline else None
        last_run = self.study.read_attribute(attributes.LAST_RUN)  # as it is now: it belongs to the leases
        trials, spec = self.study.trials(), self.study.spec
        leave = frozenset(self.left_to_others)
        choice = choose(trials, leases, spec, asking, seconds, last_run=last_run, leave=leave)
        self._outlook = choice.outlook or self._outlook
        return choice

    def keep_outlook(self) -> None:
        """Keep what the last choice expected of another day, for people who look at the study."""
        if self._outlook not in (None, self.study.attributes.get(attributes.OUTLOOK)):
            self.study.set_attribute(attributes.OUTLOOK, dict(self._outlook or {}))

    def recommend(self) -> None:
        """Keep which trial is the best, now that the study has ended, see :mod:`petskin_tune.study.best.ranking`."""
        leases = read_leases(self.study.storage, self.study.id)
        if found := recommendation(self.study.trials(), leases, self.study.spec):
            self.study.set_attribute(attributes.RECOMMENDED, found)

    # ---- what others say ----

    def refresh(self) -> None:
        """Read what other processes have said to the study since.

        Raises:
            LeaseLost: another worker has taken the network home over.
            UsageError: somebody deleted the study, or the database's file.
        """
        self.home.require()
        self.study.storage.require_file()
        self.study.refresh()
        self.database_answers()
        self._take_terms()

    def hear(self, news: Mapping[str, Any]) -> None:
        """Take over what other processes have said to the study, which came with the answer to a report.

        Raises:
            LeaseLost: another worker has taken the network home over.
            UsageError: somebody deleted the database's file.
        """
        self.study.storage.require_file()
        self.database_answers()
        self.study.hear(news)
        self._take_terms()
        self.home.epoch_saved()

    def _take_terms(self) -> None:
        self.claims.adjust(self.study.spec.lease, self.study.spec.snapshot_every)

    def database_is_away(self, seconds: float) -> None:
        """An outage has lasted so long."""
        if seconds > max(WORTH_SAYING_SECONDS, 2 * self._away_said):
            self._away_since = self._away_since or time.monotonic() - seconds
            self._away_said = seconds
            self.view.outage(seconds, self.run.waiting() if self.run else None)

    def database_answers(self) -> None:
        """An outage, if there was one, is over."""
        since, self._away_since, self._away_said = self._away_since, None, 0.0
        if since is not None:
            self.view.outage_over(time.monotonic() - since)

    # ---- what to type ----

    @property
    def worker_command(self) -> str:
        """What to type to go on."""
        options = f"{self.options.typed}{self.options.typed_for_workers}"
        return self.options.command or f"tune-worker --study {self.study.name}{options}"

    def command(self, name: str, more: str = "", study: str = "") -> str:
        """What to type for another command on this study, or on the one that is called ``study``."""
        return f"petskin-tune {name} --study {shlex.quote(study or self.study.name)}{self.options.typed}{more}"
