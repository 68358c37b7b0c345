"""What a held trial needs before its process can start: parameters, data and model, snapshot, uploader, judge."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from petskin_tune.checkpoints.base import Store
from petskin_tune.checkpoints.keys import trial_prefix
from petskin_tune.checkpoints.restore import forget_fetched, newest_good
from petskin_tune.checkpoints.retention import Keeper
from petskin_tune.checkpoints.uploader import Uploader
from petskin_tune.errors import UsageError
from petskin_tune.files.durable import measure
from petskin_tune.home.home import Home
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.leases.lease import SnapshotPointer
from petskin_tune.protocol import TrialJob
from petskin_tune.search import pruners, samplers
from petskin_tune.search.pruners import Peer, Verdict
from petskin_tune.study import attributes
from petskin_tune.study import environment as study_environment
from petskin_tune.study.space import fit_point
from petskin_tune.study.study import Study, settings_of
from petskin_tune.trial.inputs import Prepared, prepare, prepare_data, require_same_data
from petskin_tune.trial.listener import Say
from petskin_tune.trial.outbox import Outbox
from petskin_tune.trial.process import Runner, free_folder

MODEL_PATIENCE_SECONDS = 30.0  # a mounted Drive now and then refuses a read once


class TrialSetup:
    """Sets trials of one study up on this machine.

    Args:
        study: open.
        home: its places.
        store: of the study.
        keeper: of the store.
        runner: told to warm up as soon as a trial is in sight.
        worker: this worker's name.
        device: what the command line asked for.
        data: what the command line named instead of the study's data set.
        allow_different_machine: go on with trials of another release of Ultralytics.
        exact: leave trials that this machine cannot continue bit for bit.
        prepared: data and model, where they were looked at already.
    """

    def __init__(
        self,
        study: Study,
        home: Home,
        store: Store,
        keeper: Keeper,
        runner: Runner,
        *,
        worker: str,
        device: str = "",
        data: str | None = None,
        allow_different_machine: bool = False,
        exact: bool = False,
        prepared: Prepared | None = None,
    ) -> None:
        self._study = study
        self._home = home
        self._store = store
        self._keeper = keeper
        self._runner = runner
        self._worker = worker
        self._device = device
        self._data = data
        self._allow_different_machine = allow_different_machine
        self._exact = exact
        self._prepared = prepared
        self._folders: dict[int, Path] = {}  # run folders that are not where they would be, by trial number
        self._uploader: Uploader | None = None  # of the trial in work

    def prepare(self) -> Prepared:
        """Data and model on this machine; the first call may take a while, and the forkserver imports meanwhile.

        Raises:
            UsageError: they are not there, cannot be used, or are not the study's.
        """
        self._runner.warm_up()
        if self._prepared is None or not self._prepared.model:
            self._prepared = prepare(self._study.spec, self._home, self._study.folders, self._data)
            self._require_same_data(self._prepared)
        self._require_same_model(model_identity(self._prepared.model))
        return self._prepared

    def _prepare_for(self, snapshot: str | None) -> Prepared:
        """What a trial needs that goes on from ``snapshot``, which holds all of its model: weights may be gone.

        Raises:
            UsageError: see :meth:`prepare`.
        """
        if snapshot is None or attributes.MODEL not in self._study.attributes:
            return self.prepare()
        if self._prepared is None:
            self._prepared = prepare_data(self._study.spec, self._home, self._study.folders, "", self._data)
            self._require_same_data(self._prepared)
        return self._prepared

    def _require_same_data(self, prepared: Prepared) -> None:
        stored = self._study.attributes.get(attributes.FINGERPRINT)
        if stored is not None:
            require_same_data(stored, prepared.fingerprint)

    def _require_same_model(self, mine: str) -> None:
        """Refuse a model file that is not the one the study's first trial began with; that is remembered here.

        Raises:
            UsageError: it has changed.
        """
        known = self._study.attributes.get(attributes.MODEL)
        if known is None:
            self._study.set_attribute(attributes.MODEL, mine)
        elif known != mine:
            raise UsageError(
                f"The model here is not the one that this study was begun with: {mine}, not {known}. Put that file "
                "back, or begin another study."
            )

    def folder(self, number: int) -> Path:
        """The run folder of a trial on this machine."""
        return self._folders.get(number, self._home.work / "trials" / f"{self._study.uid}-{number:06d}")

    def outbox(self, trial: HeldTrial) -> Outbox:
        """The trial's outbox on this machine."""
        name = f"{self._study.uid}-{trial.number:06d}.jsonl"
        return Outbox(self._home.work / "outbox" / name, trial.held.token)

    def parameters(self, trial: HeldTrial) -> dict[str, Any]:
        """The trial's settings; its parameters are drawn, and stored in one write, where it has none yet.

        Raises:
            LeaseLost: the trial has another owner.
        """
        self._runner.warm_up()  # it imports while parameters are drawn and the snapshot is fetched
        frozen = trial.read()
        spec = self._study.spec
        if set(spec.search) <= set(frozen.params):
            return settings_of(frozen)
        # Optuna's own enqueue_trial takes anything; what does not fit must not keep the study from going on.
        fixed, misfits = fit_point(frozen.system_attrs.get("fixed_params", {}), spec.search)
        draw = samplers.draw(self._study.trials(), trial.number, spec, fixed)
        described = {attributes.ORIGIN: frozen.user_attrs.get(attributes.ORIGIN, "search")}
        described[attributes.WORKER] = self._worker
        if misfits:
            described[attributes.NOTES] = [f"enqueued: {sentence}" for sentence in misfits]
        trial.store_draw(draw.params, draw.distributions, draw.system_attrs, described)
        return settings_of(trial.read())

    def job(self, trial: HeldTrial, params: Mapping[str, Any], remember: Say, refused: set[str]) -> TrialJob:
        """The job of the trial's process.

        Args:
            trial: held by this worker.
            params: the trial's.
            remember: takes what the trial should remember about its snapshots.
            refused: names of snapshots not to resume from.

        Raises:
            StoreError: the store does not answer now.
            UsageError: see :meth:`prepare`.
        """
        recorded = trial.read().user_attrs
        folder = self.folder(trial.number)
        if not free_folder(folder):
            folder = self._folders[trial.number] = folder.with_name(f"{folder.name}-{os.getpid()}")
        folder.mkdir(parents=True, exist_ok=True)
        snapshot = self._newest_snapshot(trial, folder, remember, refused)
        prepared = self._prepare_for(snapshot)
        job = trial_job(self._study, prepared, trial.number, recorded, params, folder)
        return replace(
            job,
            device=self._device,
            allow_different_machine=self._allow_different_machine,
            exact=self._exact,
            snapshot=snapshot,
        )

    def _newest_snapshot(self, trial: HeldTrial, folder: Path, remember: Say, refused: set[str]) -> str | None:
        lease = trial.lease()
        pointers = [pointer for pointer in (lease.snapshot, lease.previous) if pointer is not None]
        usable = [pointer for pointer in pointers if PurePosixPath(pointer.key).name not in refused]
        restored = newest_good(usable, self._store, folder)
        for rejected in restored.rejected:
            remember(f"the snapshot {rejected.key} cannot be used: {rejected.reason}")
        self._pass_over(trial, pointers, restored.pointer)
        if restored.path is None:
            return None
        if self._uploader is not None:
            self._uploader.has_fetched(restored.path)
        forget_fetched(folder, but=restored.path)
        return str(restored.path)

    def _pass_over(self, trial: HeldTrial, pointers: Sequence[SnapshotPointer], good: SnapshotPointer | None) -> None:
        """Count no more on what is newer than ``good``: the next snapshot would keep it, and drop ``good`` for it.

        Where nothing is good, the lease keeps what it has until something is: a store may find its files again.
        """
        rejected = pointers[: pointers.index(good)] if good else pointers
        if not rejected:
            return
        if good is not None:
            trial.fall_back_to(good)
        if self._uploader is not None:
            self._uploader.fall_back(good, {pointer.key for pointer in rejected})

    def uploader(self, trial: HeldTrial, say: Say) -> Uploader:
        """Brings the trial's snapshots into the store."""
        lease = trial.lease()
        self._uploader = Uploader(
            self._store,
            trial_prefix(self._study.uid, trial.number),
            trial.held.token,
            say=say,
            known=[pointer for pointer in (lease.snapshot, lease.previous) if pointer is not None],
            known_weights=trial.read().user_attrs.get(attributes.WEIGHTS),
            settle=self._home.save,
            make_room=self._keeper.make_room,
            retriable=(sqlalchemy.exc.SQLAlchemyError, StorageInternalError),
        )
        return self._uploader

    def judge(self, trial: HeldTrial, epoch: int, own: Mapping[int, float]) -> Verdict:
        """The pruner's verdict on the trial after ``epoch`` (1-based), from the curves in the database."""
        spec = self._study.spec
        if not pruners.decides_at(spec, trial.number, epoch):
            return Verdict(False, "")
        reported = trial.values_at(epoch)
        peers = {number: Peer(value, state == TrialState.COMPLETE) for number, (state, value) in reported.items()}
        return pruners.verdict(spec, trial.number, epoch, own, peers)


def trial_job(
    study: Study,
    prepared: Prepared,
    number: int,
    recorded: Mapping[str, Any],
    settings: Mapping[str, Any],
    folder: Path,
) -> TrialJob:
    """The job of a trial from its beginning, on the device that Ultralytics chooses.

    Args:
        study: open.
        prepared: data and model on this machine.
        number: of the trial.
        recorded: the trial's user attributes.
        settings: what it trains with beside what the study fixes.
        folder: of the run.

    Raises:
        UsageError: the model cannot be read.
    """
    spec = study.spec
    return TrialJob(
        study=spec.study,
        trial=number,
        run_folder=str(folder),
        model=prepared.model or spec.model,
        data=str(prepared.data),
        arguments={**spec.train, **settings, "epochs": spec.epochs, "seed": spec.seed},
        device="",
        threads=recorded.get(attributes.THREADS),
        snapshot_every=spec.snapshot_every,
        identity={
            "study": study.uid,
            "trial": str(number),
            "data": prepared.fingerprint.digest,
            "model": study.attributes.get(attributes.MODEL) or model_identity(prepared.model),
        },
        recorded_machine=study_environment.of_trial(recorded),
        environment=study.attributes.get(attributes.ENVIRONMENT),
        on_oom=spec.on_oom,
        patience_epochs=spec.patience_epochs,
        workers=int(spec.train.get("workers", 2)),
    )


def model_identity(model: str) -> str:
    """What a model is: the name and the content of its file; Ultralytics' own, which is no file here, its name alone.

    Raises:
        UsageError: the file cannot be read.
    """
    path = Path(model)
    reading = Retrying(
        retry=retry_if_exception_type(OSError),
        wait=wait_random_exponential(multiplier=0.5, max=5),
        stop=stop_after_delay(MODEL_PATIENCE_SECONDS),
        reraise=True,
    )
    try:
        return reading(_identity, path)
    except OSError as error:
        raise UsageError(f"The model {model} cannot be read ({error.strerror}).") from error


def _identity(path: Path) -> str:
    if not path.is_file():
        return path.name
    status = path.stat()
    return f"{path.name} (SHA-256 {_sha256(path, status.st_mtime_ns, status.st_size)[:16]})"


@functools.lru_cache(maxsize=4)
def _sha256(path: Path, _modified: int, _size: int) -> str:
    """The SHA-256 of a file, read once in each of its states: weights are up to 140 MB."""
    return measure(path)[1]
