"""A worker's life: find work, run it, report it, stop in time.

A trial whose owner is gone comes first, then one that waits, then a new one; see ``leases.claims``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

from petskin_tune.checkpoints.retention import Keeper
from petskin_tune.errors import EXIT_DONE, EXIT_SUSPENDED, LeaseLost, UsageError
from petskin_tune.files.durable import StoreError
from petskin_tune.home.home import Home
from petskin_tune.interrupts import Interrupted, end_now, unless
from petskin_tune.leases.claims import Claims
from petskin_tune.leases.expiry import Seen
from petskin_tune.leases.heartbeat import Renewal
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.leases.lease import MAX_CRASHES, Held
from petskin_tune.protocol import FailureKind
from petskin_tune.search.constraints import constraint_attrs
from petskin_tune.study import attributes
from petskin_tune.study.failures import ENDS, Failure
from petskin_tune.study.spec import read_spec
from petskin_tune.study.study import FINISHED, Study
from petskin_tune.text import place
from petskin_tune.trial.inputs import Prepared
from petskin_tune.trial.job import TrialSetup
from petskin_tune.trial.listener import Surroundings
from petskin_tune.trial.process import Runner
from petskin_tune.trial.run import Outcome, TrialRun
from petskin_tune.trial.timings import Deadline, Times
from petskin_tune.views.progress import Progress
from petskin_tune.worker.environment import EnvironmentCheck, LeftToOthers
from petskin_tune.worker.search_health import SearchWatch, stopped_by_failures
from petskin_tune.worker.suspension import Suspension

POLL_SECONDS = 1.0  # how often a worker without work looks for some
WORTH_SAYING_SECONDS = 2.0  # of an outage


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


class Worker:
    """One worker of one study.

    Args:
        study: open.
        home: its places.
        options: of the command line.
        view: shows what happens.
        prepared: data and model, where opening the study has looked at them already.
        began: monotonic time from which ``max_hours`` counts; None: now.
    """

    def __init__(
        self,
        study: Study,
        home: Home,
        options: Options,
        view: Progress,
        prepared: Prepared | None = None,
        began: float | None = None,
    ) -> None:
        self._study = study
        self._home = home
        self._options = options
        self._view = view
        self._times = times = Times()
        self._suspension = Suspension(
            times,
            self._deadline(began, times),
            running=lambda: self._run,
            say=view.note,
            give_up=study.storage.patience.cancelled.set,
            end_now=self._end_now,
        )
        self._run: TrialRun | None = None
        self._stop_requests = int(study.attributes.get(attributes.STOP_REQUESTED, 0))
        self._declined = LeftToOthers()
        self._finished = 0
        self._study_best: float | None = None
        self._away_since: float | None = None  # the instant (monotonic) since which the database has been away
        self._waited_for: set[tuple[int, int]] = set()  # (trial id, token) of leases, said to be waited for
        self._store = home.open_store(study.store, study.uid)
        self._keeper = Keeper(study, self._store, copied=home.copied is not None)
        self._runner = Runner(home.work / "ultralytics")
        self._setup = TrialSetup(
            study,
            home,
            self._store,
            self._keeper,
            self._runner,
            worker=options.worker,
            device=options.device,
            data=options.data,
            allow_different_machine=options.allow_different_machine,
            exact=options.exact,
            prepared=prepared,
        )
        self._environment = EnvironmentCheck(study, home, allowed=options.allow_different_machine, say=view.note)
        spec = study.spec
        self._claims = Claims(
            study.storage, study.id, options.worker, spec.lease, spec.snapshot_every, alone=home.copied is not None
        )
        self._search = SearchWatch()
        study.storage.patience.seconds = None
        study.storage.patience.on_wait = self._outage

    def _deadline(self, began: float | None, times: Times) -> Deadline | None:
        if self._options.max_hours is None:
            return None
        return Deadline(time.monotonic() if began is None else began, self._options.max_hours, times)

    # ---- from other threads and signal handlers ----

    def stop(self, reason: str) -> None:
        """Suspend: snapshot, upload within a budget, release, exit 75; this process ends when its time is over."""
        self._suspension.ask(reason)

    def close(self) -> None:
        """This worker's life is over, its process's need not be."""
        self._suspension.close()

    def _end_now(self) -> None:
        """Keep the promise to be gone in time; the dead owner's trial is taken over at once on this host."""
        self._view.note("the time is over before everything was done; the lease runs out by itself")
        self._view.suspended(self._command)
        self._view.close()
        end_now(EXIT_SUSPENDED)

    # ---- the life ----

    def work(self) -> int:
        """Work until the study is done or this worker is told to stop. Returns the exit code.

        Raises:
            UsageError: the study cannot run here.
        """
        self._suspension.start()
        try:
            self._claims.adopt_unleased()
            self._show_study()
            while self._suspension.reason is None:
                if (code := self._one_step()) is not None:
                    return code
        except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError):
            if self._suspension.reason is None:
                raise
        except Interrupted:
            pass
        except LeaseLost as lost:  # not of a trial, of the whole home
            raise UsageError(f"Another worker has taken this home over, and this one stops: {lost}") from lost
        return self._say_suspended()

    def _show_study(self) -> None:
        spec = self._study.spec
        done = len(self._study.trials(*FINISHED))
        self._view.study(
            spec.study, target=spec.target_trials, done=done, best=self._best(), home=str(self._home.folder)
        )

    def _one_step(self) -> int | None:
        """Do one piece of work, or wait a moment for some; the exit code when the study is done.

        Raises:
            UsageError: the study, or all that is left of it, is for another machine.
        """
        self._home.require()
        self._study.refresh()
        self._database_answers()
        self._heed(self._study.attributes)
        leases = self._claims.read()
        if held := self._orphan(leases) or self._new_trial(leases):
            self._train(held)
        elif self._may_have_new():
            self._wait(leases)
        elif not (unfinished := self._claims.read()):  # read when no trial can be born any more
            return self._say_done()
        elif (left := {seen.lease.trial_id for seen in unfinished}) <= self._declined.trials:
            raise UsageError(self._declined.sentence(self._study.name, left))
        else:
            self._wait(unfinished)
        if self._options.max_trials is not None and self._finished >= self._options.max_trials:
            self._suspension.decide(f"--max-trials {self._options.max_trials} reached")
        return None

    def _orphan(self, leases: Sequence[Seen]) -> Held | None:
        if leases:
            self._environment.require()
        return self._claims.take_over(leases, by_command=self._options.take_over, leave=self._declined.trials)

    def _new_trial(self, leases: Sequence[Seen]) -> Held | None:
        if not self._may_have_new() or self._claims.should_wait(leases, leave=self._declined.trials):
            return None
        # Before a trial is born: a machine that cannot train must not take one.
        self._environment.require()
        unless(self._suspension.asked, self._setup.prepare)
        self._environment.begin()
        return self._claims.next_trial(self._study.spec.target_trials)

    def _wait(self, leases: Sequence[Seen]) -> None:
        """Wait a moment, and say once for each lease why this worker does nothing."""
        others = [seen.lease for seen in leases if seen.lease.trial_id not in self._declined.trials]
        if others:
            first = min(others, key=lambda lease: lease.expires_in)
            if (first.trial_id, first.token) not in self._waited_for:
                self._waited_for.add((first.trial_id, first.token))
                self._view.waiting(first.number, first.worker, max(0.0, first.expires_in))
        self._suspension.wait(POLL_SECONDS)

    def _may_have_new(self) -> bool:
        return not self._is_good_enough() and self._claims.count() < self._study.spec.target_trials

    def _is_good_enough(self) -> bool:
        stop_at, best = self._study.spec.stop_at, self._best()
        return stop_at is not None and best is not None and best >= stop_at

    def _best(self) -> float | None:
        best = self._study.best()
        self._study_best = best.value if best else None
        return self._study_best

    # ---- one trial ----

    def _train(self, held: Held) -> None:
        trial = HeldTrial(self._claims, held)
        renewal = Renewal(trial)
        renewal.start()  # before anything that may take longer than a lease: a draw, a database that is away
        started = time.monotonic()
        try:
            if held.hopeless:
                self._after(trial, _given_up(trial, held.hopeless), 0.0)
                return
            params = self._setup.parameters(trial)
            self._show_start(trial, params)
            run = TrialRun(trial, self._setup.outbox(trial), self._surroundings(trial, params), renewal)
            self._run = run
            if self._suspension.reason:
                run.suspend(self._suspension.reason)
            outcome = run.run()
        except LeaseLost:
            outcome = Outcome("lost", None)
        finally:
            self._run = None
            renewal.stop()
        self._after(trial, outcome, time.monotonic() - started)

    def _surroundings(self, trial: HeldTrial, params: Mapping[str, Any]) -> Surroundings:
        return Surroundings(
            runner=self._runner,
            view=self._view,
            worker=self._options.worker,
            store_name=place(self._store.url),
            make_job=lambda remember, refused: self._setup.job(trial, params, remember, refused),
            make_uploader=lambda say: self._setup.uploader(trial, say),
            judge=lambda epoch, own: self._setup.judge(trial, epoch, own),
            on_news=self._reported,
            is_saved=lambda: self._home.is_saved,
            study_best=lambda: self._study_best,
            times=self._times,
            suspend_until=self._suspension.until,
            doctor=f"petskin-tune doctor --study {self._study.name}{self._options.typed}",
        )

    def _show_start(self, trial: HeldTrial, params: Mapping[str, Any]) -> None:
        lease = trial.held.lease
        self._view.trial_started(
            trial.number,
            self._study.spec.target_trials,
            params,
            self._study.spec.epochs,
            self._best(),
            len(self._study.trials(TrialState.PRUNED)),
            resumed_from=lease.snapshot.position if lease and lease.snapshot else None,
        )

    def _after(self, trial: HeldTrial, outcome: Outcome, seconds: float) -> None:
        if outcome.end == "declined":
            self._declined.add(trial.held.trial_id, trial.number, outcome.reason)
            self._view.note(f"trial {trial.number} is left to another machine: {outcome.reason}")
            return
        self._view.trial_ended(trial.number, outcome.end, outcome.value, seconds, outcome.reason)
        if outcome.end in ("suspended", "lost"):
            return
        self._finished += 1
        self._tidy(trial.number)
        self._judge_the_search()

    def _tidy(self, number: int) -> None:
        """Delete what an ended trial needs no more, once a network home's database knows that it has ended."""
        try:
            self._home.save()
        except StoreError:
            self._home.epoch_saved()  # later; the end of the next trial tidies up after this one, too
        else:
            self._keeper.after(number, self._setup.folder(number))

    def _judge_the_search(self) -> None:
        """Say what is wrong with the search.

        Raises:
            UsageError: the last trials all failed in the same way.
        """
        trials = self._study.trials()
        if reason := stopped_by_failures(trials, self._study.spec):
            raise UsageError(reason)
        for sentence in self._search.news(trials, self._study.spec):
            self._view.note(f"warning: {sentence}")

    # ---- what is needed ----

    def _reported(self, news: Mapping[str, Any]) -> None:
        self._database_answers()
        self._heed(news)
        self._home.epoch_saved()

    def _heed(self, news: Mapping[str, Any]) -> None:
        """Take over what other processes said: the spec in force, a request to stop."""
        if attributes.SPEC in news:
            self._study.spec = spec = read_spec(news)
            self._claims.adjust(spec.lease, spec.snapshot_every)
        if int(news.get(attributes.STOP_REQUESTED, 0)) > self._stop_requests:
            self.stop("petskin-tune stop")

    def _outage(self, seconds: float) -> None:
        if seconds > WORTH_SAYING_SECONDS:
            self._away_since = self._away_since or time.monotonic() - seconds
            self._view.outage(seconds, self._run.waiting() if self._run else None)

    def _database_answers(self) -> None:
        since, self._away_since = self._away_since, None
        if since is not None:
            self._view.outage_over(time.monotonic() - since)

    # ---- the last line ----

    def _say_done(self) -> int:
        if not self._finished:  # whoever ended the last trial may have died of it
            self._keeper.catch_up()
        best = self._study.best()
        name = f"{self._study.name}{self._options.typed}"
        command = (
            f"petskin-tune best --study {name} --yaml best.yaml" if best else f"petskin-tune status --study {name}"
        )
        self._view.study_done(best.value if best else None, best.number if best else None, command)
        return EXIT_DONE

    def _say_suspended(self) -> int:
        if not self._anything_left():
            return self._say_done()
        self._view.suspended(self._command)
        return EXIT_SUSPENDED

    @property
    def _command(self) -> str:
        return f"tune-worker --study {self._study.name}{self._options.typed}{self._options.typed_for_workers}"

    def _anything_left(self) -> bool:
        try:
            return bool(self._claims.read()) or self._may_have_new()
        except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError):
            return True


def _given_up(trial: HeldTrial, reason: str) -> Outcome:
    """Fail a trial that ends whoever trains it.

    Raises:
        LeaseLost: it has another owner by now.
    """
    lease = trial.held.lease
    kind: FailureKind = "crashed" if lease and lease.crashes >= MAX_CRASHES else "interrupted"
    failure = {attributes.FAILURE: Failure(kind, reason).to_json()}
    trial.tell(ENDS[kind], None, failure, constraint_attrs(kind))
    return Outcome("failed", None, f"{kind}: {reason}", kind)
