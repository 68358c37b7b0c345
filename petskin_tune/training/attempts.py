"""From a job to its last event: opens the snapshot, trains, and decides what a failure means.

A fall-back (fp32 after a NaN, micro-batches after out of memory) is a resumption with one decision more: the trainer is
thrown away and another goes on from the last good state. A fault of the machine in mid training (a loader process that
was killed, a device that failed) says little about the trial: this process dies of it, and the worker starts another.
"""

from __future__ import annotations

import gc
import sys
import traceback
from dataclasses import replace
from pathlib import Path

import torch

from petskin_tune import error_text, packages
from petskin_tune.protocol import TRAIN_LOG, Declined, Failed, Finished, Note, Suspended, TrialJob
from petskin_tune.training import causes, guards, micro_batches
from petskin_tune.training.fall_back import FallBack
from petskin_tune.training.process import environment
from petskin_tune.training.process.channel import Channel
from petskin_tune.training.snapshots import file as snapshot
from petskin_tune.training.snapshots.state import Decisions, TrainingState
from petskin_tune.training.trainer import ResumableTrainer

FinalEvent = Finished | Suspended | Failed | Declined


class _Declines(Exception):
    def __init__(self, event: Declined) -> None:
        super().__init__(event.message)
        self.event = event


def run(job: TrialJob, channel: Channel) -> FinalEvent:
    """Train ``job`` in this process and return its last event.

    Raises:
        Exception: A fault of the machine, of which this process is to die as if it had been killed itself.
    """
    fall_back = FallBack()
    try:
        environment.quiet_ultralytics()
        fall_back = FallBack(_open_snapshot(job), job.snapshot)
        return _train(job, channel, fall_back)
    except _Declines as declines:
        return declines.event
    except Exception as error:  # the worker hears of every failure, and of its kind
        kind = causes.kind_of(error)
        if kind in ("refused", "diverged"):  # where in the code says nothing more
            return Failed(kind, error_text.one_line(error))
        if fall_back.announced and guards.is_machine_fault(error):
            first_line = str(error).strip().splitlines()[0]
            channel.send(Note("machine-fault", f"its process ends of a fault of this machine: {first_line}"))
            raise
        detail = error_text.masked(traceback.format_exc())
        sys.stderr.write(detail)  # its log
        if kind == "crashed" and job.snapshot is not None and not fall_back.announced:  # maybe its fault
            said = f"{Path(job.snapshot).name} cannot be gone on from: {error_text.named(error).rstrip('.')}"
            return Declined("damaged-snapshot", f"{said}; all of it is in {Path(job.run_folder) / TRAIN_LOG}")
        said = error_text.one_line(error) if kind in ("data", "out-of-memory") else error_text.named(error)
        return Failed(kind, said, detail)


def _train(job: TrialJob, channel: Channel, fall_back: FallBack) -> FinalEvent:
    first = True
    while True:
        trainer = _trainer(job, channel, fall_back)
        if first:
            _check_machine(job, channel, trainer, fall_back.state)
        try:
            trainer.train()
            assert trainer.outcome is not None
            return trainer.outcome
        except Exception as error:  # noqa: BLE001 (what no decision helps against goes on up)
            decisions, note = _decide(error, trainer)
            channel.send(note)
            fall_back.decide(decisions, trainer.keeper.last.path if trainer.keeper.last else None)
            first = False
        del trainer
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def _trainer(job: TrialJob, channel: Channel, fall_back: FallBack) -> ResumableTrainer:
    try:
        return ResumableTrainer(job, channel, fall_back)
    except Exception as error:
        if guards.is_out_of_memory(error):  # nothing of the trial is on the device yet
            raise guards.CrowdedOut(f"the device has no memory left: {error_text.one_line(error)}") from error
        raise


def _open_snapshot(job: TrialJob) -> TrainingState | None:
    if job.snapshot is None:
        return None
    requested = {key: value for key, value in job.arguments.items() if key not in guards.LOCAL_ARGUMENTS}
    try:
        plain = snapshot.read(Path(job.snapshot))
        snapshot.check_identity(plain, job.identity, requested)
    except snapshot.SnapshotDamaged as error:
        raise _Declines(Declined("damaged-snapshot", str(error))) from error
    except snapshot.SnapshotForeign as error:
        raise _Declines(Declined("foreign-snapshot", str(error))) from error
    return TrainingState.from_plain(plain)


def _check_machine(job: TrialJob, channel: Channel, trainer: ResumableTrainer, state: TrainingState | None) -> None:
    """Record how this machine differs from the one whose state is continued, or decline where it may not."""
    recorded = state.terms.machine if state else job.recorded_machine
    if recorded is None:  # a new trial: it goes on with nothing, but stands beside the study's others
        found = packages.differences(job.environment or trainer.machine, trainer.machine)
        if found:
            channel.send(Note("machine", f"trained with {packages.said(found)}, unlike the study's first"))
        return
    found = packages.differences(recorded, trainer.machine)
    if not found:
        return
    declines = any(difference.is_decisive for difference in found) and not job.allow_different_machine
    if declines or job.exact:
        raise _Declines(Declined("different-machine", _left_alone(found, declines)))
    channel.send(Note("machine", f"goes on with {packages.said(found)}: {packages.INEXACT}"))


def _left_alone(found: list[packages.Difference], decisive: bool) -> str:
    command = packages.installation(found)
    way_on = f"type `{command}`, or " if command else ""
    leave = "allow it with --allow-different-machine" if decisive else "leave out --exact to go on here"
    return f"this machine has {packages.said(found)}: {way_on}{leave}, {packages.INEXACT}"


def _decide(error: Exception, trainer: ResumableTrainer) -> tuple[Decisions, Note]:
    """Return the decision that lets the training go on after ``error``; raises it again where there is none."""
    decisions = trainer.decisions
    if isinstance(error, guards.NonFinite) and trainer.precision == "amp" and decisions.precision is None:
        precision = "bf16" if trainer.has_bfloat16() else "fp32"
        return replace(decisions, precision=precision), Note("precision", f"{precision} from now on: {error} under AMP")
    if guards.is_out_of_memory(error):
        return _after_out_of_memory(error, trainer)
    raise error


def _after_out_of_memory(error: Exception, trainer: ResumableTrainer) -> tuple[Decisions, Note]:
    """Return smaller batches; where there are none, blame the machine if the trial has had no room to run out of.

    Raises:
        guards.CrowdedOut: Other processes hold most of the memory, or a training that ran elsewhere cannot even be set
            up.
    """
    if trainer.fall_back.state is not None and not trainer.fall_back.announced:
        raise guards.CrowdedOut(f"the trial does not fit here: {error_text.one_line(error)}") from error
    if trainer.job.on_oom == "split" and (decided := _split(trainer)):
        return decided
    if others := guards.crowded_out(trainer.device):
        raise guards.CrowdedOut(f"{others}: {error_text.one_line(error)}") from error
    raise error


def _split(trainer: ResumableTrainer) -> tuple[Decisions, Note] | None:
    """Return the decision for parts of at most half the size; None where they are of one image already."""
    decisions = trainer.decisions
    if trainer.validating:
        whole = trainer.batch_size * 2  # images of one shape: a part must not cut across two of such groups
        half = micro_batches.smaller_part(whole, decisions.validation_batch or whole)
        decided = replace(decisions, validation_batch=half)
    else:
        half = (decisions.micro_batch or trainer.batch_size) // 2
        decided = replace(decisions, micro_batch=half)
    if half < 1:
        return None
    return decided, Note("out-of-memory", decided.sentences()[-1])
