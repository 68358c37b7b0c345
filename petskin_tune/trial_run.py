"""One trial on this machine, from the claim to its end: its process, its reports, its snapshots, its lease.

Four threads beside the worker's own: the listener of the trial's process, the recorder that writes to the study, the
uploader that writes to the store, and the one that renews the lease. None of them waits for another's trouble.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sqlalchemy
from optuna.trial import TrialState

from petskin_tune import attributes
from petskin_tune.durable import StoreError
from petskin_tune.errors import LeaseLost, UsageError
from petskin_tune.faults import reach
from petskin_tune.interruption import Interrupted, unless
from petskin_tune.judgement import findings
from petskin_tune.leases import MAX_CRASHES
from petskin_tune.outbox import Outbox
from petskin_tune.protocol import (
    Declined,
    Failed,
    FailureKind,
    Finished,
    Stop,
    Suspend,
    Suspended,
    TrialJob,
)
from petskin_tune.recorder import Recorder
from petskin_tune.renewal import Renewal
from petskin_tune.runner import TrialProcess
from petskin_tune.search.constraints import constraint_attrs
from petskin_tune.trial import HeldTrial
from petskin_tune.trial_events import Surroundings, TrialEvents

End = Literal["complete", "pruned", "failed", "suspended", "lost", "declined"]

STORE_PAUSE_SECONDS = 3.0  # between two tries to get a snapshot from a store that does not answer
LOG_TAIL = 6000  # characters kept of a failed trial's log: a stack, and what Python lists after it
MAX_FALSE_STARTS = 2  # a process that dies before it trains, in a row
STATES: dict[str, TrialState] = {  # how each kind of failure is told, so that every sampler learns from it
    "diverged": TrialState.PRUNED,
    "out-of-memory": TrialState.PRUNED,
    "data": TrialState.FAIL,
    "crashed": TrialState.FAIL,
    "refused": TrialState.FAIL,
    "interrupted": TrialState.FAIL,
}


@dataclass(frozen=True)
class Outcome:
    """How a trial left this worker."""

    end: End
    value: float | None  # best mask mAP so far
    reason: str = ""
    kind: str = ""  # of a failure


class TrialRun:
    """One run of one held trial.

    Args:
        trial: held by this worker.
        outbox: of the trial on this disk.
        around: what it needs of its worker.
        renewal: started; whoever claimed the trial stops it.
    """

    def __init__(self, trial: HeldTrial, outbox: Outbox, around: Surroundings, renewal: Renewal) -> None:
        self._trial = trial
        self._outbox = outbox
        self._around = around
        self._changed = threading.Condition()
        self._suspend_reason: str | None = None
        self._renewal = renewal
        self._job: TrialJob | None = None
        self._false_starts = 0
        self._refused: set[str] = set()  # names of snapshots that the process would not resume from
        self._recorder = Recorder(trial, outbox, around.judge, self._notify, around.on_news)
        self._uploader = around.make_uploader(lambda text: self._events.say(text))
        self._events: TrialEvents = TrialEvents(trial, around, self._recorder, self._uploader, self._changed)

    # ---- from other threads ----

    def suspend(self, reason: str) -> None:
        """Let the trial write a snapshot and give it back; the run then ends as suspended."""
        with self._changed:
            self._suspend_reason = self._suspend_reason or reason
            self._changed.notify_all()

    def upload_seconds(self) -> float | None:
        """What bringing a snapshot into the store takes, as far as it was seen."""
        return self._uploader.state.expected_seconds

    def waiting(self) -> int:
        """Reports that wait for the database."""
        return self._recorder.waiting()

    # ---- the run ----

    def run(self) -> Outcome:
        """Train the trial to its end, its verdict, or the order to suspend.

        Raises:
            Exception: what nobody foresaw; the lease then runs out by itself.
        """
        try:
            self._recorder.start()
            outcome = self._run_until_end()
        finally:
            self._events.show_pending(at_once=True)
            self._recorder.close()
            self._uploader.close()
        if outcome.end not in ("suspended", "lost"):
            self._outbox.discard()
        return outcome

    def _run_until_end(self) -> Outcome:
        while True:
            if not self._drain():  # what an earlier owner left behind may already end the trial
                return self._released(self._suspend_reason or "suspended")
            if ended := self._ended_without_process():
                return ended
            self._events.begin_again()
            process = self._start_process()
            if process is None:
                return self._released(self._suspend_reason or "suspended")
            try:
                ended = self._watch(process)
            finally:
                process.end()
            if ended:
                return ended

    def _start_process(self) -> TrialProcess | None:
        """The trial's process; None when a person wants to stop before it runs."""
        self._job = job = self._make_job()
        if job is None:
            return None
        try:  # a forkserver answers only after its imports, which take their time on a slow machine
            return unless(
                lambda: self._suspend_reason is not None,
                lambda: self._around.runner.start(job, self._events.hear),
            )
        except Interrupted:
            return None

    def _make_job(self) -> TrialJob | None:
        """The job, from the newest good snapshot; None when it cannot be had before a person wants to stop."""
        said = False
        while self._suspend_reason is None and not self._renewal.lost:
            try:
                return unless(
                    lambda: self._suspend_reason is not None,
                    lambda: self._around.make_job(self._events.remember, self._refused),
                )
            except Interrupted:
                break
            except StoreError as error:
                if not said:
                    self._events.say(f"its snapshot cannot be had now ({error}); trying again until it can")
                    said = True
            with self._changed:
                self._changed.wait(STORE_PAUSE_SECONDS)
        return None

    def _ended_without_process(self) -> Outcome | None:
        if self._recorder.error:
            raise self._recorder.error
        if self._is_lost:
            return self._outcome("lost")
        if self._recorder.verdict:
            return self._pruned()
        return None

    def _watch(self, process: TrialProcess) -> Outcome | None:
        """The outcome; None when the process crashed and is to be started again.

        Raises:
            Exception: what nobody foresaw, and ended the thread that listens or the one that uploads.
        """
        while True:
            with self._changed:
                self._changed.wait(0.5)
            self._events.show_pending()
            if process.error:
                raise process.error
            self._uploader.raise_failure()
            if self._recorder.error or self._is_lost or self._recorder.verdict:
                process.send(Stop())
                process.end()
                return self._ended_without_process()
            if self._events.died is not None:
                return self._conclude()
            if self._suspend_reason is not None:
                return self._suspend(process)

    def _conclude(self) -> Outcome | None:
        last = self._events.last
        if isinstance(last, Finished):
            return self._complete(last)
        if isinstance(last, Failed):
            return self._failed(last.kind, last.message, last.detail)
        if isinstance(last, Declined):
            return self._declined(last)
        if isinstance(last, Suspended):
            return self._released(self._suspend_reason or "suspended")
        return self._crashed()

    # ---- the ends ----

    def _complete(self, finished: Finished) -> Outcome | None:
        if not self._settle():
            return self._ended_without_process() or self._released(self._suspend_reason or "suspended")
        reach("before-last-tell")
        self._trial.tell(TrialState.COMPLETE, self._best(), self._findings(), constraint_attrs(None))
        return self._outcome("complete", "patience ended it early" if finished.early else "")

    def _drain(self) -> bool:
        """Wait until every report is in the database, however long it is away; False: a person will not wait."""
        while not self._recorder.drain(0.5):
            if self._recorder.error:
                return True
            if self._suspend_reason is not None:
                return False
        return True

    def _settle(self) -> bool:
        """Whether every epoch is reported, none ended the trial, and the best weights are in the store.

        It takes as long as the database and the store are away, but not longer than a person lets it.
        """
        while self._suspend_reason is None:
            if self._recorder.drain(0.5) and self._uploader.drain(0.5):
                break
            if self._is_lost or self._recorder.error:
                return False
        return self._ended_without_process() is None and self._suspend_reason is None

    def _pruned(self) -> Outcome:
        verdict = self._recorder.verdict
        assert verdict is not None
        return self._tell(TrialState.PRUNED, "pruned", verdict.reason, {}, constraint_attrs(None))

    def _failed(self, kind: FailureKind, message: str, detail: str) -> Outcome | None:
        if not self._drain():
            return self._released(self._suspend_reason or "suspended")
        if ended := self._ended_without_process():
            return ended
        if kind == "crashed" and not self._events.trains and not self._around.runner.has_trained:
            self._refuse_the_machine(message)
        failure = {attributes.FAILURE: {"kind": kind, "message": message, "detail": detail[-LOG_TAIL:]}}
        state = STATES[kind]
        return self._tell(state, "failed", f"{kind}: {message}", failure, constraint_attrs(kind), kind)

    def _tell(
        self,
        state: TrialState,
        end: End,
        reason: str,
        user: Mapping[str, Any],
        system: Mapping[str, Any],
        kind: str = "",
    ) -> Outcome:
        value = self._best() if state == TrialState.PRUNED else None
        try:
            self._trial.tell(state, value, {**user, **self._findings()}, system)
        except LeaseLost:
            return self._outcome("lost")
        return self._outcome(end, reason, kind)

    def _findings(self) -> dict[str, Any]:
        """What the trial's curves show, as an attribute; said, too."""
        recorded = self._trial.read()
        arguments = {**recorded.user_attrs.get(attributes.ARGUMENTS, {}), **recorded.params}
        found = findings(self._recorder.history, arguments)
        for sentence in found.values():
            self._events.say(sentence)
        return {attributes.FINDINGS: found} if found else {}

    def _crashed(self) -> Outcome | None:
        code = self._events.died.exit_code if self._events.died else None
        how = f"its process was killed by {signal_name(-code)}" if code and code < 0 else f"its process ended ({code})"
        if not self._events.trains:
            self._never_started(how)
            return None
        try:
            crashes = self._trial.leases.count_crash(self._trial.held)
        except LeaseLost:
            return self._outcome("lost")
        if crashes >= MAX_CRASHES:
            return self._failed("crashed", f"{how}, {crashes} times in a row without progress", self._log_tail())
        self._events.remember(f"crashed: {how}; it went on from its newest snapshot ({crashes} of {MAX_CRASHES})")
        return None

    def _refuse_the_machine(self, message: str) -> None:
        """What no trial of this worker gets past says nothing about this one; unless it happened again and again.

        Raises:
            UsageError: the trial is given back.
        """
        if self._trial.leases.count_crash(self._trial.held) < MAX_CRASHES:
            self._trial.release(f"training cannot start on this machine: {message}")
            raise UsageError(
                f"Training cannot start on this machine: {message.rstrip('.')}. Look at it with: petskin-tune doctor"
            )

    def _never_started(self, how: str) -> None:
        """A process that dies before it trains says something about this machine, not about the trial.

        Raises:
            UsageError: it happened twice in a row; the trial is given back.
        """
        self._false_starts += 1
        if self._false_starts < MAX_FALSE_STARTS:
            return
        self._trial.release(f"training cannot start on this machine: {how}")
        reason = self._log_tail().strip().splitlines()
        raise UsageError(
            f"Training cannot start on this machine: {how}{f' ({reason[-1]})' if reason else ''}. "
            "Look at it with: petskin-tune doctor"
        )

    def _declined(self, declined: Declined) -> Outcome | None:
        if declined.reason == "different-machine":
            self._trial.release("left to another machine")
            return self._outcome("declined", declined.message)
        if self._job is not None and self._job.snapshot is not None:
            self._refused.add(Path(self._job.snapshot).name)
        self._events.remember(f"a snapshot was left aside: {declined.message}")
        return None

    def _suspend(self, process: TrialProcess) -> Outcome:
        reason = self._suspend_reason or "suspended"
        until = self._around.suspend_until()
        reach("suspending")
        process.send(Suspend())
        if self._events.trains:  # before, there is nothing to save and nobody to hear the order
            process.wait(max(0.1, until - time.monotonic()))
        process.end(patience=0.0)
        if isinstance(self._events.last, Finished) and self._recorder.drain(max(0.1, until - time.monotonic())):
            self._suspend_reason = None
            if outcome := self._complete(self._events.last):
                return outcome
        self._uploader.drain(max(0.1, until - time.monotonic()))
        self._recorder.drain(max(0.1, until - time.monotonic()))
        return self._released(reason)

    def _released(self, reason: str) -> Outcome:
        """Give the trial back, unless the database stays away: then the lease runs out by itself."""
        try:
            self._trial.release(reason)
        except LeaseLost:
            return self._outcome("lost")
        except sqlalchemy.exc.SQLAlchemyError:
            return self._outcome("suspended", f"{reason}; the database is away, its lease runs out by itself")
        return self._outcome("suspended", reason)

    def _outcome(self, end: End, reason: str = "", kind: str = "") -> Outcome:
        return Outcome(end, self._best(), reason, kind)

    def _best(self) -> float | None:
        return max((value for value in self._recorder.curve.values() if not math.isnan(value)), default=None)

    def _log_tail(self) -> str:
        if self._job is None:
            return ""
        try:
            return (Path(self._job.run_folder) / "train.log").read_text(errors="replace")[-LOG_TAIL:]
        except OSError:
            return ""

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    @property
    def _is_lost(self) -> bool:
        return self._renewal.lost or self._recorder.lost or self._uploader.state.lost


def signal_name(number: int) -> str:
    """A signal's name, and what it mostly means."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    return f"{name}, mostly for lack of memory" if number == signal.SIGKILL else name
