"""One trial on this machine, from the claim to its end: its process, its reports, its snapshots, its lease.

Four threads beside the worker's own: the listener of the trial's process, the recorder that writes to the study, the
uploader that writes to the store, and the one that renews the lease. None of them waits for another's trouble.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from petskin_tune.error_text import named, shortened
from petskin_tune.errors import UsageError
from petskin_tune.files.durable import Full, StoreError
from petskin_tune.interrupts import Interrupted, unless
from petskin_tune.leases.heartbeat import Heartbeat
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.protocol import Stop, Suspend, TrialJob
from petskin_tune.study.failures import Failure
from petskin_tune.trial import ends
from petskin_tune.trial.ends import Outcome
from petskin_tune.trial.job import SnapshotGone, judge, make_job
from petskin_tune.trial.listener import Listener
from petskin_tune.trial.process.runner import TrialProcess
from petskin_tune.trial.recorder import Recorder
from petskin_tune.trial.run_state import RunState
from petskin_tune.trial.workplace import Workplace

STORE_PAUSE_SECONDS = 3.0  # between two tries to get a snapshot from a store that does not answer

log = logging.getLogger(__name__)


class TrialRun:
    """One run of one held trial.

    Args:
        trial: held by this worker.
        settings: what it trains with beside what the study fixes.
        place: this worker's.
        heartbeat: started; whoever claimed the trial stops it.
        best: the study's best value so far, for people.
    """

    def __init__(
        self,
        trial: HeldTrial,
        settings: Mapping[str, Any],
        place: Workplace,
        heartbeat: Heartbeat,
        best: float | None = None,
    ) -> None:
        self._trial = trial
        self._settings = settings
        self._place = place
        self._best_before = best
        self._state = RunState(trial, place, heartbeat)

    # ---- from other threads ----

    def suspend(self, reason: str, until: float) -> None:
        """Let the trial write a snapshot and give it back; the run then ends as suspended.

        Args:
            reason: for people.
            until: the instant (monotonic) at which writing and uploading end.
        """
        self._state.suspend(reason, until)

    def upload_seconds(self) -> float | None:
        """What bringing a snapshot into the store takes, as far as it was seen."""
        return self._state.uploader.state.expected_seconds if self._state.has_begun else None

    def waiting(self) -> int:
        """Reports that wait for the database."""
        return self._state.recorder.waiting() if self._state.has_begun else 0

    # ---- the run ----

    def run(self) -> Outcome:
        """Train the trial to its end, its verdict, or the order to suspend.

        Raises:
            UsageError: it cannot be trained here, or not at all for now; it was given back.
            LeaseLost: another worker has it.
            Exception: what nobody foresaw; the lease then runs out by itself.
        """
        trial, place, state = self._trial, self._place, self._state
        outbox = place.outbox(trial)
        state.recorder = Recorder(
            trial, outbox, lambda epoch, own: judge(trial, place, epoch, own), state.notify, place.hear
        )
        state.uploader = place.uploader(trial, state.say)
        state.listener = Listener(trial, place, state.recorder, state.uploader, state.changed, self._best_before)
        state.has_begun = True
        outcome = None
        try:
            state.recorder.start()
            outcome = self._until_end()
        except UsageError as refusal:
            log.warning("trial %d is given back: %s", trial.number, refusal)
            ends.release(state, shortened(str(refusal)))
            raise
        finally:
            state.listener.show_pending(at_once=True)
            if outcome and outcome.end == "frozen":
                state.freeze()
            else:
                state.recorder.close()
                state.uploader.close()
        if outcome.end not in ("suspended", "lost", "frozen"):
            outbox.discard()
        return outcome

    def _until_end(self) -> Outcome:
        state = self._state
        while True:
            if not state.drained():  # what an earlier owner left behind may already end the trial
                return ends.release(state)
            if ended := ends.without_process(state):
                return ended
            state.listener.begin_again()
            try:
                process = self._start_process()
            except SnapshotGone:
                return ends.end_thawed(state)
            if process is None:
                return ends.put_back(state)
            try:
                ended = self._watch(process)
            finally:
                process.end()
            if ended:
                return ended

    def _start_process(self) -> TrialProcess | None:
        """The trial's process; None when a person wants to stop before it runs."""
        state = self._state
        state.job = job = self._make_job()
        if job is None:
            return None
        log.info("trial %d: training goes on from %s", job.trial, job.snapshot or "its beginning")
        try:  # a forkserver answers only after its imports, which take their time on a slow machine
            return unless(state.is_suspended, lambda: self._place.processes.start(job, state.listener.hear))
        except Interrupted:
            return None
        except OSError as error:
            raise ends.give_back(state, Failure("machine", named(error))) from error

    def _make_job(self) -> TrialJob | None:
        """The job, from the newest good snapshot; None when it cannot be had before a person wants to stop."""
        state, said = self._state, False
        while not (state.is_suspended() or state.is_lost()):
            try:
                return unless(state.is_suspended, self._new_job)
            except Interrupted:
                break
            except OSError as error:  # of this machine's disk
                raise ends.give_back(state, Failure("machine", named(error))) from error
            except Full as error:  # this machine's disk, which has no room for what is fetched
                raise ends.give_back(state, Failure("machine", str(error))) from error
            except StoreError as error:
                log.warning("trial %d: no snapshot yet: %s", self._trial.number, error)
                if not said:
                    state.say(f"its snapshot cannot be had now ({error}); trying again until it can")
                    said = True
            with state.changed:
                state.changed.wait(STORE_PAUSE_SECONDS)
        return None

    def _new_job(self) -> TrialJob:
        state = self._state
        remember, refused = state.listener.remember, state.refused
        return make_job(self._trial, self._place, self._settings, state.uploader, remember=remember, refused=refused)

    def _watch(self, process: TrialProcess) -> Outcome | None:
        """The outcome; None when the process crashed and is to be started again.

        Raises:
            Exception: what nobody foresaw, and ended the thread that listens or the one that uploads.
        """
        state, asked_again = self._state, False
        while True:
            with state.changed:
                if state.listener.died is None:
                    state.changed.wait(0.5)
            state.listener.show_pending()
            if process.error:
                raise process.error
            state.uploader.raise_failure()
            if state.is_decided():
                process.send(Stop())
                process.end()
                return ends.without_process(state)
            if state.listener.died is not None:
                return ends.after_process(state)
            if state.is_suspended():
                return ends.suspend(state, process)
            if state.lacks_its_snapshot() and state.listener.refused and not asked_again:
                process.send(
                    Suspend()
                )  # one from further on will do; where it is refused, too, the trial is given back
                asked_again = True
