"""The ways in which a run of a trial ends, and how each is told to the study.

Each function ends the run, or returns None: its process is to be started again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sqlalchemy
from optuna.trial import TrialState

from petskin_tune.diagnosis.verdict import findings
from petskin_tune.error_text import tail
from petskin_tune.errors import LeaseLost, UsageError
from petskin_tune.faults import reach
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.leases.lease import MAX_CRASHES
from petskin_tune.leases.segments import SNAPSHOT_GONE
from petskin_tune.protocol import Declined, Failed, FailureKind, Finished, Suspend, Suspended
from petskin_tune.search.constraints import constraint_attrs
from petskin_tune.study import attributes
from petskin_tune.study.failures import CANNOT_START, DIES, ENDS, GIVEN_BACK, Failure, signal_name
from petskin_tune.study.stored import recorded
from petskin_tune.trial.process.runner import TrialProcess
from petskin_tune.trial.run_state import RunState

End = Literal["complete", "pruned", "frozen", "failed", "suspended", "lost", "declined"]

UPLOAD_SECONDS = 30.0  # for the newest snapshot of a trial that is given back, and the best weights of one that ends
TURN_SECONDS = 0.5  # between two looks whether it can be frozen, or has to end
NOT_WRITTEN = "the snapshot with which it was to be frozen was not written"
MAX_FALSE_STARTS = 2  # a process that dies before it trains, in a row


@dataclass(frozen=True)
class Outcome:
    """How a trial left this worker."""

    end: End
    value: float | None  # best mask mAP so far
    reason: str = ""
    kind: str = ""  # of a failure


# ---- which end it is ----


def without_process(run: RunState) -> Outcome | None:
    """The end that what is recorded makes, whatever the process does; None: none so far.

    Raises:
        Exception: what nobody foresaw, and ended the recorder's thread.
    """
    if run.recorder.error:
        raise run.recorder.error
    if run.is_lost():
        return Outcome("lost", run.best())
    verdict = run.recorder.verdict
    if not _verdict_ends(run) or verdict is None:
        return None
    if verdict.prune:
        return _tell(run, TrialState.PRUNED, "pruned", verdict.reason, {}, constraint_attrs(None))
    return Outcome("frozen", run.best(), verdict.reason)


def _verdict_ends(run: RunState) -> bool:
    verdict = run.recorder.verdict
    return verdict is not None and (verdict.prune or (verdict.freeze and run.can_freeze()))


def after_process(run: RunState) -> Outcome | None:
    """The end that the process has told before it ended, or how it died.

    Raises:
        UsageError: the trial was given back.
    """
    last = run.listener.last
    if isinstance(last, Finished):
        return complete(run, last)
    if isinstance(last, Failed):
        return fail(run, Failure(last.kind, last.message, last.detail, run.log()), last.kind)
    if isinstance(last, Declined):
        return decline(run, last)
    if isinstance(last, Suspended):
        return written_again(run)
    return crash(run)


# ---- the ends ----


def complete(run: RunState, finished: Finished) -> Outcome | None:
    """It has trained to its end.

    Raises:
        UsageError: it was to be frozen before, and was given back.
    """
    if not _is_settled(run):
        return without_process(run) or release(run)
    _require_its_snapshot(run)
    reach("before-last-tell")
    run.trial.tell(TrialState.COMPLETE, run.best(), _findings(run), constraint_attrs(None))
    return Outcome("complete", run.best(), "patience ended it early" if finished.early else "")


def _is_settled(run: RunState) -> bool:
    """Whether every epoch is reported, none ended the trial, and the best weights are in the store.

    It takes as long as the database and the store are away, or until it can be frozen, but not longer than a person
    lets it.
    """
    settled = False
    while not (settled or run.is_suspended()) and time.monotonic() < run.until:
        if run.recorder.drain(0.5) and run.uploader.drain(0.5, hurry=False):
            settled = not run.waits_its_turn()
            if not settled:
                time.sleep(TURN_SECONDS)
        if run.is_lost() or run.recorder.error:
            return False
    return settled and not (run.recorder.error or run.is_lost() or _verdict_ends(run) or run.is_suspended())


def fail(run: RunState, failure: Failure, kind: FailureKind) -> Outcome | None:
    """Tell Optuna how the trial ended, unless the failure says nothing about it (see ``study.failures``).

    Raises:
        UsageError: the trial was given back.
    """
    if not run.drained():
        return release(run)
    if ended := without_process(run):
        return ended
    _require_its_snapshot(run)  # else what it failed of did not happen: it was trained for nothing
    if kind in GIVEN_BACK:
        raise give_back(run, failure)
    # Nothing has trained in this worker yet: the next trial may well end in the same way.
    is_first_here = not run.listener.trains and not run.place.processes.has_trained
    if kind == "crashed" and is_first_here and run.trial.count_crash() < MAX_CRASHES:
        raise give_back(run, failure, CANNOT_START)
    where = f"; all of it is in {failure.log}" if failure.detail and failure.log else ""
    reason = f"{kind}: {failure.message.rstrip('.')}{where}"
    return _tell(
        run, ENDS[kind], "failed", reason, {attributes.FAILURE: failure.to_json()}, constraint_attrs(kind), kind
    )


def written_again(run: RunState) -> Outcome:
    """Its process was asked for another snapshot than the one that this machine's disk refused, and has ended.

    Raises:
        UsageError: that was refused, too; the trial was given back.
    """
    if _is_settled(run):
        _require_its_snapshot(run)
    return without_process(run) or release(run)


def _require_its_snapshot(run: RunState) -> None:
    """Give a trial back that is to be frozen and cannot be: what it has reported is half of a curve, and no end.

    Raises:
        UsageError: this machine's disk refuses its snapshot; it goes on from its last durable one.
    """
    if run.lacks_its_snapshot():
        raise give_back(run, Failure("machine", run.listener.refused or NOT_WRITTEN))


def crash(run: RunState) -> Outcome | None:
    """The process died without a word: it is started again, from the newest snapshot.

    Raises:
        UsageError: it dies before it trains, again and again; the trial was given back.
    """
    code = run.listener.died.exit_code if run.listener.died else None
    how = f"its process was killed by {signal_name(-code)}" if code and code < 0 else f"its process ended ({code})"
    if not run.listener.trains:
        _count_false_start(run, how)
        return None
    run.false_starts = 0
    try:
        crashes = run.trial.count_crash()
    except LeaseLost:
        return Outcome("lost", run.best())
    if crashes >= MAX_CRASHES:
        how = f"{how}, {crashes} times in a row without progress"
        return fail(run, Failure("crashed", how, run.log_tail(), run.log()), "crashed")
    run.listener.remember(f"crashed: {how}; it went on from its newest snapshot ({crashes} of {MAX_CRASHES})")
    return None


def _count_false_start(run: RunState, how: str) -> None:
    """A process that dies before it trains may say something about this machine, or about the trial.

    Raises:
        UsageError: it happened twice in a row; the trial was given back, and nothing counted.
    """
    run.false_starts += 1
    if run.false_starts < MAX_FALSE_STARTS:
        return
    last = tail(log := run.log_tail(), 1)
    message = f"{how}, {run.false_starts} times in a row{f' ({last[0].strip()})' if last else ''}"
    raise give_back(run, Failure("machine", message, log, run.log()), DIES)


def decline(run: RunState, declined: Declined) -> Outcome | None:
    """The process does not go on from this snapshot: on no machine like this, or only not from this one."""
    if declined.reason == "different-machine":
        if run.is_as_it_was_frozen():  # or the study would wait for a trial that it may not even need
            run.trial.freeze()
        else:
            run.trial.release("left to another machine")
        return Outcome("declined", run.best(), declined.message)
    if run.job is not None and run.job.snapshot is not None:
        run.refused.add(Path(run.job.snapshot).name)
    run.listener.remember(f"a snapshot was left aside: {declined.message}")
    return None


def suspend(run: RunState, process: TrialProcess) -> Outcome:
    """Let the process write a snapshot, bring it into the store, and give the trial back, all in the time that is left.

    A trial that has just finished is told as complete, if there is time for it.
    """
    reason = run.suspended_because
    reach("suspending")
    process.send(Suspend())
    if run.listener.trains:  # before, there is nothing to save and nobody to hear the order
        _while_time_is_left(run, process.wait)
    process.end(patience=0.0)
    last = run.listener.last
    if isinstance(last, Finished) and _while_time_is_left(run, run.recorder.drain) and not _is_to_freeze(run):
        run.suspended_because = None
        if outcome := complete(run, last):
            return outcome
    _while_time_is_left(run, run.uploader.drain)
    _while_time_is_left(run, run.recorder.drain)
    return release(run, reason)


def _while_time_is_left(run: RunState, wait: Callable[[float], bool]) -> bool:
    """Wait as long as the suspension may take, which another signal may cut short; whether it came true.

    Args:
        run: suspended.
        wait: takes the seconds to wait, and says whether it came true.
    """
    while not wait(min(TURN_SECONDS, run.left())):
        if time.monotonic() >= run.until or run.is_lost() or run.recorder.error:
            return False
    return True


def _is_to_freeze(run: RunState) -> bool:
    """Whether it is to be frozen and cannot be yet: it waits for another trial, or for its snapshot."""
    return run.waits_its_turn() or run.lacks_its_snapshot()


def end_thawed(run: RunState) -> Outcome:
    """It has no snapshot to go on from."""
    return _tell(run, TrialState.PRUNED, "pruned", SNAPSHOT_GONE, {}, constraint_attrs(None))


def give_back(run: RunState, failure: Failure, subject: str = "") -> UsageError:
    """Give the trial back and remember with it why; the sentence with which the worker ends."""
    if run.listener.trains:
        run.uploader.drain(UPLOAD_SECONDS)
    run.trial.describe({attributes.GIVEN_BACK: failure.to_json()})
    release(run, f"{failure.kind}: {failure.message}")
    verb = "go on" if run.listener.trains else "start"
    subject = (subject or GIVEN_BACK[failure.kind]).format(trial=run.trial.number, verb=verb)
    return UsageError(failure.sentence(subject, run.place.command("doctor")))


def put_back(run: RunState) -> Outcome:
    """Give back a trial that was not trained; one that was thawed for it is frozen again, and still has its snapshot.

    Released, it might be begun anew by whoever does not see that snapshot.
    """
    return release(run, frozen=run.is_as_it_was_frozen())


def release(run: RunState, reason: str | None = None, *, frozen: bool = False) -> Outcome:
    """Give the trial back, unless the database stays away: then the lease runs out by itself."""
    reason = reason or run.suspended_because or "suspended"
    try:
        if frozen:
            run.trial.freeze()
        else:
            run.trial.release(reason)
    except LeaseLost:
        return Outcome("lost", run.best())
    except sqlalchemy.exc.SQLAlchemyError:
        reason = f"{reason}; the database is away, its lease runs out by itself"
    return Outcome("suspended", run.best(), reason)


def give_up(trial: HeldTrial, reason: str, kind: FailureKind | None = None) -> Outcome:
    """Fail a trial that is not tried (once more), for its ``kind`` of failure; None: it ends whoever trains it.

    Raises:
        LeaseLost: it has another owner by now.
    """
    lease = trial.held.lease
    kind = kind or ("crashed" if lease and lease.crashes >= MAX_CRASHES else "interrupted")
    failure = {attributes.FAILURE: Failure(kind, reason).to_json()}
    trial.tell(ENDS[kind], None, failure, constraint_attrs(kind))
    return Outcome("failed", None, f"{kind}: {reason}", kind)


# ---- telling ----


def _tell(
    run: RunState,
    state: TrialState,
    end: End,
    reason: str,
    user: Mapping[str, Any],
    system: Mapping[str, Any],
    kind: str = "",
) -> Outcome:
    value = run.best() if state == TrialState.PRUNED else None
    if value is not None:
        _await_weights(run)
    try:
        run.trial.tell(state, value, {**user, **_findings(run)}, system)
    except LeaseLost:
        return Outcome("lost", run.best())
    return Outcome(end, run.best(), reason, kind)


def _await_weights(run: RunState) -> None:
    """Let the best weights come into the store, which may be among those that are kept; not for ever."""
    until = time.monotonic() + UPLOAD_SECONDS
    while not run.uploader.drain_weights(TURN_SECONDS):
        if time.monotonic() >= until or run.is_suspended() or run.is_lost() or run.recorder.error:
            return


def _findings(run: RunState) -> dict[str, Any]:
    """What the trial's curves show, as an attribute; said, too."""
    trial = run.trial.read()
    arguments = {**recorded(trial).get(attributes.ARGUMENTS, {}), **trial.params}
    found = findings(run.recorder.history, arguments)
    for sentence in found.values():
        run.say(sentence)
    return {attributes.FINDINGS: found} if found else {}
