"""The job of a trial's process: its parameters, its snapshot, the arguments in force; and the verdict on an epoch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from optuna.trial import TrialState

from petskin_tune.checkpoints.keys import snapshot_position, trial_prefix
from petskin_tune.checkpoints.restore import LATE_SECONDS, Rejected, forget_fetched, newest_good
from petskin_tune.checkpoints.uploader import Uploader
from petskin_tune.files.durable import StoreError, Unavailable
from petskin_tune.home.home import IN_THE_HOME
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.leases.lease import Lease, SnapshotPointer
from petskin_tune.leases.segments import NO_SNAPSHOT
from petskin_tune.protocol import TrialJob
from petskin_tune.search import pruners, samplers
from petskin_tune.search.pruners import Peer, Verdict
from petskin_tune.study import attributes
from petskin_tune.study import environment as study_environment
from petskin_tune.study.space.parameters import fit_point
from petskin_tune.study.stored import enqueued_params, recorded
from petskin_tune.study.study import Study, settings_of
from petskin_tune.text import counted
from petskin_tune.trial.inputs import Prepared, model_identity
from petskin_tune.trial.workplace import Workplace

STRANGERS_SECONDS = 5.0  # how long a store is looked through for files that the database knows nothing of


class SnapshotGone(Exception):
    """A thawed trial has no snapshot: to train it from its beginning is not what was chosen."""


def parameters(trial: HeldTrial, place: Workplace) -> dict[str, Any]:
    """The trial's settings; its parameters are drawn, and stored in one write, where it has none yet.

    Raises:
        LeaseLost: the trial has another owner.
    """
    place.processes.warm_up()  # it imports while parameters are drawn and the snapshot is fetched
    frozen = trial.read()
    spec = place.study.spec
    if set(spec.search) <= set(frozen.params):
        return settings_of(frozen, spec)
    # Optuna's own enqueue_trial takes anything; what does not fit must not keep the study from going on.
    fixed, misfits = fit_point(enqueued_params(frozen), spec.search)
    draw = samplers.draw(place.study.trials(), trial.number, spec, fixed)
    described = {attributes.ORIGIN: "search", **recorded(frozen), attributes.WORKER: place.options.worker}
    if misfits:
        described[attributes.NOTES] = [f"enqueued: {sentence}" for sentence in misfits]
    trial.store_draw(draw.params, draw.distributions, draw.system_attrs, described)
    return settings_of(trial.read(), spec)


def make_job(
    trial: HeldTrial,
    place: Workplace,
    settings: Mapping[str, Any],
    uploader: Uploader,
    *,
    remember: Callable[[str], None],
    refused: Collection[str] = (),
) -> TrialJob:
    """The job of the trial's process, from the newest good snapshot.

    Args:
        trial: held by this worker.
        place: this worker's.
        settings: what the trial trains with beside what the study fixes.
        uploader: of the trial; told which snapshot training goes on from.
        remember: takes what the trial should remember about its snapshots.
        refused: names of snapshots not to resume from.

    Raises:
        StoreError: the store does not answer now.
        SnapshotGone: it was frozen, and no snapshot of it is good; not where only its last machine has them.
        UsageError: see :meth:`petskin_tune.trial.workplace.Workplace.inputs`.
    """
    known = recorded(trial.read())
    folder = place.free_folder(trial.number)
    snapshot = _newest_snapshot(trial, place, folder, uploader, remember, refused)
    if snapshot is None and trial.held.thawed and not place.home.local_checkpoints:
        raise SnapshotGone
    job = trial_job(place.study, place.inputs_for(snapshot), trial.number, known, settings, folder)
    return replace(
        job,
        device=place.options.device,
        allow_different_machine=place.options.allow_different_machine,
        exact=place.options.exact,
        snapshot=snapshot,
    )


def _lies_beside_the_database(place: Workplace) -> bool:
    """Whether the store is the home's own, and so is the database: whoever reads one has the other's disk."""
    home, database = place.home, place.home.database
    beside = home.copied is not None or (database is not None and database.is_relative_to(home.folder))
    return beside and place.study.store == IN_THE_HOME


def _require_gone(lease: Lease, newest: Rejected, place: Workplace) -> None:
    """Make sure that a trial has no good snapshot any more, rather than one that is not to be seen here and now.

    Args:
        lease: of the trial.
        newest: what is said of its newest snapshot.
        place: this worker's.

    Raises:
        Unavailable: nothing is known of it.
    """
    store = place.store
    if place.home.local_checkpoints or _lies_beside_the_database(place):  # no other machine still brings it
        return
    store.require()  # a disk of its own may not be mounted yet: nothing is known of what lies there
    if newest.missing and store.shows_late and _is_young(lease, newest.key):
        raise Unavailable(f"{newest.reason}, but is only minutes old: this disk may show it later")


def _is_young(lease: Lease, key: str) -> bool:
    """Whether ``key`` is the newest snapshot of a trial, and became durable lately."""
    if lease.snapshot is None or lease.snapshot.key != key or lease.snapshot_age is None:
        return False
    return 0 <= lease.snapshot_age < LATE_SECONDS


def _newest_snapshot(
    trial: HeldTrial,
    place: Workplace,
    folder: Path,
    uploader: Uploader,
    remember: Callable[[str], None],
    refused: Collection[str],
) -> str | None:
    """The path of the newest good snapshot, fetched; no more is counted on what is newer and no good.

    The next snapshot would keep such a one as the one before, and drop the good one for it. Where nothing is good, the
    lease keeps what it has until something is: a store may find its files again.
    """
    lease = trial.lease()
    pointers = [pointer for pointer in (lease.snapshot, lease.previous) if pointer is not None]
    usable = [pointer for pointer in pointers if PurePosixPath(pointer.key).name not in refused]
    restored = newest_good(usable, place.store, folder)
    if restored.path is None and restored.rejected:
        _require_gone(lease, restored.rejected[0], place)
    for rejected in restored.rejected:
        remember(f"the snapshot {rejected.key} cannot be used: {rejected.reason}")
    good = restored.pointer
    if passed_over := pointers[: pointers.index(good)] if good else pointers:
        if good is not None:
            trial.fall_back_to(good)
        uploader.fall_back(good, {pointer.key for pointer in passed_over})
    if restored.path is None:
        _tell_of_strangers(trial, place, pointers, remember)
        return None
    uploader.has_fetched(restored.path)
    forget_fetched(folder, but=restored.path)
    return str(restored.path)


def _tell_of_strangers(
    trial: HeldTrial, place: Workplace, pointers: Sequence[SnapshotPointer], remember: Callable[[str], None]
) -> None:
    """Say what lies in the store under the number of a trial that begins anew, and the database knows nothing of.

    A database that was put back from an older copy gives numbers a second time, and points to what went since.
    Nobody can tell whether such files are this trial's: it does not go on from them.
    """
    prefix = trial_prefix(place.study.uid, trial.number)
    known = {*(pointer.key for pointer in pointers), recorded(trial.read()).get(attributes.WEIGHTS)}
    keys: list[str] = []

    def look() -> None:
        with suppress(StoreError):
            keys.extend(entry.key for entry in place.store.entries(prefix) if entry.key not in known)

    looking = threading.Thread(target=look, name="look for strangers", daemon=True)
    looking.start()
    looking.join(STRANGERS_SECONDS)  # a store that is away, or hangs, holds no training up
    if not keys:
        return
    reached = [position.epoch for key in keys if (position := snapshot_position(key)) is not None]
    how_far = f", of {max(reached)} epochs" if reached else ""
    remember(
        f"the store has {counted(len(keys), 'file')} under {prefix}{how_far}, which the database knows nothing of: it "
        "is an older copy, or a worker died while it uploaded. The trial begins anew, and they go when it ends"
    )


def trial_job(
    study: Study,
    prepared: Prepared,
    number: int,
    known: Mapping[str, Any],
    settings: Mapping[str, Any],
    folder: Path,
) -> TrialJob:
    """The job of a trial from its beginning, on the device that Ultralytics chooses.

    Args:
        study: open.
        prepared: data and model on this machine.
        number: of the trial.
        known: what is recorded with the trial.
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
        arguments={**spec.train, **settings, "epochs": spec.epochs, "seed": known.get(attributes.SEED, spec.seed)},
        device="",
        threads=known.get(attributes.THREADS),
        snapshot_every=spec.snapshot_every,
        rungs=spec.sampler.rungs or (),
        identity={
            "study": study.uid,
            "trial": str(number),
            "data": prepared.fingerprint.digest,
            "model": study.attributes.get(attributes.MODEL) or model_identity(prepared.model),
        },
        recorded_machine=study_environment.of_trial(known),
        environment=study.attributes.get(attributes.ENVIRONMENT),
        on_oom=spec.on_oom,
        patience_epochs=spec.patience_epochs,
        workers=int(spec.train.get("workers", 2)),
    )


def judge(trial: HeldTrial, place: Workplace, epoch: int, own: Mapping[int, float]) -> Verdict:
    """The verdict on the trial after ``epoch`` (1-based), from the curves in the database."""
    spec = place.study.spec
    if pruners.is_over(spec, epoch, own):
        return Verdict(False, "")
    if spec.sampler.name == "freeze-thaw":
        return _segment_verdict(trial, place, epoch)
    if not pruners.decides_at(spec, trial.number, epoch):
        return Verdict(False, "")
    reported = trial.values_at(epoch)
    peers = {number: Peer(value, state == TrialState.COMPLETE) for number, (state, value) in reported.items()}
    return pruners.verdict(spec, trial.number, epoch, own, peers)


def _segment_verdict(trial: HeldTrial, place: Workplace, epoch: int) -> Verdict:
    """Whether a trial that has reached the end of its segment goes on at once, or is kept for later."""
    until = trial.lease().until
    if until is None or epoch < until:
        return Verdict(False, "")
    becomes = place.segments.may_go_on(trial, epoch, lambda: place.choose(trial.number))
    if becomes == "ends":
        return Verdict(True, NO_SNAPSHOT)
    return Verdict(False, "others are worth more for now", freeze=True) if becomes == "freezes" else Verdict(False, "")
