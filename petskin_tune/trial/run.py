"""One trial on this machine, from the claim to its end: its process, its reports, its snapshots, its lease.

Four threads beside the worker's own: the listener of the trial's process, the recorder that writes to the study, the
uploader that writes to the store, and the one that renews the lease. None of them waits for another's trouble.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sqlalchemy
from optuna.trial import TrialState

from petskin_tune.diagnosis.verdict import findings
from petskin_tune.error_text import LONGEST_DETAIL, named, shortened, tail
from petskin_tune.errors import LeaseLost, UsageError
from petskin_tune.faults import reach
from petskin_tune.files.durable import StoreError
from petskin_tune.interrupts import Interrupted, unless
from petskin_tune.leases.heartbeat import Renewal
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.leases.lease import MAX_CRASHES
from petskin_tune.protocol import (
    TRAIN_LOG,
    Declined,
    Failed,
    FailureKind,
    Finished,
    Stop,
    Suspend,
    Suspended,
    TrialJob,
)
from petskin_tune.search.constraints import constraint_attrs
from petskin_tune.study import attributes
from petskin_tune.study.failures import CANNOT_START, DIES, ENDS, GIVEN_BACK, Failure, signal_name
from petskin_tune.trial.listener import Surroundings, TrialEvents
from petskin_tune.trial.outbox import Outbox
from petskin_tune.trial.process import TrialProcess
from petskin_tune.trial.recorder import Recorder

End = Literal["complete", "pruned", "failed", "suspended", "lost", "declined"]

STORE_PAUSE_SECONDS = 3.0  # between two tries to get a snapshot from a store that does not answer
UPLOAD_SECONDS = 30.0  # for the newest snapshot of a trial that is given back
MAX_FALSE_STARTS = 2  # a process that dies before it trains, in a row


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
            UsageError: it cannot be trained here, or not at all for now; it was given back.
            Exception: what nobody foresaw; the lease then runs out by itself.
        """
        try:
            self._recorder.start()
            outcome = self._run_until_end()
        except UsageError as refusal:
            self._released(shortened(str(refusal)))
            raise
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
        except OSError as error:
            raise self._given_back(Failure("machine", named(error))) from error

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
            except OSError as error:  # of this machine's disk
                raise self._given_back(Failure("machine", named(error))) from error
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
                if self._events.died is None:
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
            return self._failed(Failure(last.kind, last.message, last.detail, self._log()), last.kind)
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

    def _failed(self, failure: Failure, kind: FailureKind) -> Outcome | None:
        """Tell Optuna how the trial ended, unless the failure says nothing about it (see ``study.failures``).

        Raises:
            UsageError: the trial was given back.
        """
        if not self._drain():
            return self._released(self._suspend_reason or "suspended")
        if ended := self._ended_without_process():
            return ended
        if kind in GIVEN_BACK:
            raise self._given_back(failure)
        if kind == "crashed" and self._is_first_here() and self._attempts_are_left():
            raise self._given_back(failure, CANNOT_START)
        where = f"; all of it is in {failure.log}" if failure.detail and failure.log else ""
        reason = f"{kind}: {failure.message.rstrip('.')}{where}"
        told = {attributes.FAILURE: failure.to_json()}
        return self._tell(ENDS[kind], "failed", reason, told, constraint_attrs(kind), kind)

    def _is_first_here(self) -> bool:
        """Whether nothing has trained in this worker yet: the next trial may well end in the same way."""
        return not self._events.trains and not self._around.runner.has_trained

    def _attempts_are_left(self) -> bool:
        """Use one of the trial's attempts up; whether it was not the last one."""
        return self._trial.count_crash() < MAX_CRASHES

    def _given_back(self, failure: Failure, subject: str = "") -> UsageError:
        """Give the trial back and remember with it why; the sentence with which the worker ends."""
        if self._events.trains:
            self._uploader.drain(UPLOAD_SECONDS)
        self._trial.describe({attributes.GIVEN_BACK: failure.to_json()})
        self._released(f"{failure.kind}: {failure.message}")
        verb = "go on" if self._events.trains else "start"
        subject = (subject or GIVEN_BACK[failure.kind]).format(trial=self._trial.number, verb=verb)
        return UsageError(failure.sentence(subject, self._around.doctor))

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
        """The process died without a word: it is started again, from the newest snapshot.

        Raises:
            UsageError: it dies before it trains, again and again; the trial was given back.
        """
        code = self._events.died.exit_code if self._events.died else None
        how = f"its process was killed by {signal_name(-code)}" if code and code < 0 else f"its process ended ({code})"
        if not self._events.trains:
            self._never_started(how)
            return None
        try:
            crashes = self._trial.count_crash()
        except LeaseLost:
            return self._outcome("lost")
        if crashes >= MAX_CRASHES:
            how = f"{how}, {crashes} times in a row without progress"
            return self._failed(Failure("crashed", how, self._log_tail(), self._log()), "crashed")
        self._events.remember(f"crashed: {how}; it went on from its newest snapshot ({crashes} of {MAX_CRASHES})")
        return None

    def _never_started(self, how: str) -> None:
        """A process that dies before it trains may say something about this machine, or about the trial.

        Raises:
            UsageError: it happened twice in a row; the trial was given back, and nothing counted.
        """
        self._false_starts += 1
        if self._false_starts < MAX_FALSE_STARTS:
            return
        last = tail(log := self._log_tail(), 1)
        message = f"{how}, {self._false_starts} times in a row{f' ({last[0].strip()})' if last else ''}"
        raise self._given_back(Failure("machine", message, log, self._log()), DIES)

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

    def _log(self) -> str:
        """The file to which the trial's process writes; it stays when the trial has ended."""
        return str(Path(self._job.run_folder) / TRAIN_LOG) if self._job else ""

    def _log_tail(self) -> str:
        try:
            return Path(self._log()).read_text(errors="replace")[-LONGEST_DETAIL:]
        except OSError:
            return ""

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    @property
    def _is_lost(self) -> bool:
        return self._renewal.lost or self._recorder.lost or self._uploader.state.lost
