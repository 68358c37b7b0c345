"""A worker's life: find work, run it, report it, stop in time.

A trial whose owner is gone comes first, then one that waits, then a new one; see ``leases.claims``.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Sequence

import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState

from petskin_tune.database.unreadable import Unreadable
from petskin_tune.errors import EXIT_DONE, EXIT_SUSPENDED, LeaseLost, UsageError
from petskin_tune.files.durable import StoreError
from petskin_tune.interrupts import Interrupted, unless
from petskin_tune.leases.expiry import Seen
from petskin_tune.leases.heartbeat import Heartbeat
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.leases.lease import Held
from petskin_tune.study import attributes
from petskin_tune.study.best.ranking import ahead, has_reached, so_far
from petskin_tune.study.best.repeats import pairs_of, repeated_by, repeats_of
from petskin_tune.study.extent import Extent, begun_here, extent
from petskin_tune.study.foreign import without_foreign
from petskin_tune.study.stored import recorded
from petskin_tune.study.study import FINISHED
from petskin_tune.trial.ends import UPLOAD_SECONDS, Outcome, give_up
from petskin_tune.trial.job import parameters
from petskin_tune.trial.run import TrialRun
from petskin_tune.trial.workplace import Workplace
from petskin_tune.worker.environment import EnvironmentCheck, LeftToOthers
from petskin_tune.worker.news import News
from petskin_tune.worker.notify import Notifier
from petskin_tune.worker.pictures import Pictures
from petskin_tune.worker.search_health import SearchWatch, stopped_by_failures
from petskin_tune.worker.supply import supply_of
from petskin_tune.worker.suspension import Suspension

POLL_SECONDS = 1.0  # how often a worker without work looks for some

log = logging.getLogger(__name__)


class Worker:
    """One worker of one study.

    Args:
        place: on this machine.
        suspension: says when to stop.
        news: sends messages to a person.
    """

    def __init__(self, place: Workplace, suspension: Suspension, news: News | None = None) -> None:
        self._place = place
        self._study = place.study
        self._claims = place.claims
        self._view = place.view
        self._suspension = suspension
        self._news = news or News(place, Notifier(None))
        self._declined = LeftToOthers()
        self._finished = 0  # trials that ended here
        self._waited_for: set[tuple[int, int]] = set()  # (trial id, token) of leases, said to be waited for
        allowed = place.options.allow_different_machine
        self._environment = EnvironmentCheck(place.study, place.home, allowed=allowed, say=place.view.note)
        self._search = SearchWatch()
        self._supply = supply_of(place)
        self._pictures = Pictures(place, suspension.asked)

    def work(self) -> int:
        """Work until the study is done or this worker is told to stop. Returns the exit code.

        Raises:
            UsageError: the study cannot run here.
        """
        patience = self._study.storage.patience
        patience.seconds, patience.on_wait = None, self._place.database_is_away
        patience.on_denied = self._suspend_without_database
        self._study.storage.watch_file()
        self._suspension.start()
        try:
            self._claims.adopt_unleased()
            self._show_study()
            while self._suspension.reason is None:
                if (code := self._one_step()) is not None:
                    return code
            self._let_freeze()
        except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError):
            self._study.storage.require_file()  # of which they may come
            if self._suspension.reason is None:
                raise
        except Interrupted:
            pass
        except LeaseLost as lost:  # not of a trial, of the whole home
            raise UsageError(f"Another worker has taken this home over, and this one stops: {lost}") from lost
        finally:
            self._end_freezing()
        return self._say_suspended()

    def _suspend_without_database(self) -> None:
        """Stop in order although the database lets this user in no more: what was trained is kept on this side."""
        if not self._suspension.asked():
            self._suspension.ask("the database refuses this user or the password by now")

    def _one_step(self) -> int | None:
        """Do one piece of work, or wait a moment for some; the exit code when the study is done.

        Raises:
            UsageError: the study, or all that is left of it, is for another machine.
        """
        self._place.refresh()
        self._tidy_frozen()
        leases = self._claims.read()
        gone = self._claims.gone(leases, by_command=self._place.options.take_over)
        if leases and not self._environment.require(gone):
            self._wait(leases)
        elif held := self._confirmed(self._orphan(leases) or self._new_trial(leases, gone), gone):
            self._train(held)
        elif self._claims.should_wait(leases, leave=self._declined.trials) or self._may_have_new():
            self._wait(leases)
        elif not (unfinished := self._claims.read()):  # read when no trial can be born any more
            return self._end()
        elif (left := {seen.lease.trial_id for seen in unfinished}) <= self._declined.trials:
            raise UsageError(self._declined.sentence(self._study.name, left))
        else:
            self._wait(unfinished)
        most = self._place.options.max_trials
        if most is not None and self._finished >= most:
            self._suspension.decide(f"--max-trials {most} reached")
        return None

    def _confirmed(self, held: Held | None, gone: Collection[tuple[int, int]]) -> Held | None:
        """What was claimed, given back where another worker has begun the study with other packages in that instant.

        Raises:
            UsageError: and has trained with them.
        """
        if held is None:
            return None
        begun = False
        try:
            begun = self._environment.begin(gone, held.trial_id)
        finally:
            if not begun:
                with contextlib.suppress(LeaseLost):
                    HeldTrial(self._claims, held).release("another worker has begun the study with other packages")
        return held if begun else None

    def _orphan(self, leases: Sequence[Seen]) -> Held | None:
        by_command = self._place.options.take_over
        held = self._claims.take_over(leases, by_command=by_command, leave=self._declined.trials)
        if held:
            before = next((seen.lease for seen in leases if seen.lease.trial_id == held.trial_id), None)
            log.info("trial %d is taken over under token %d, from %s", held.number, held.token, before)
        return held

    def _new_trial(self, leases: Sequence[Seen], gone: Collection[tuple[int, int]]) -> Held | None:
        if self._claims.should_wait(leases, leave=self._declined.trials) or not self._may_have_new():
            return None
        # Before a trial is born: a machine that cannot train must not take one.
        self._environment.require(gone)
        self._view.doing("looking at data set and model")
        unless(self._suspension.asked, self._place.inputs)
        self._view.doing("choosing the next trial")
        if not self._environment.begin(gone):
            return None
        held = self._supply.next()
        if held:
            log.info("trial %d is claimed under token %d", held.number, held.token)
        return held

    def _end(self) -> int | None:
        """The exit code, now that nobody trains; None where there is something to train after all.

        Raises:
            UsageError: it is for another machine.
        """
        if self._end_study():
            return self._say_done()
        if left := self._declined.numbered(self._supply.left()):
            raise UsageError(self._declined.sentence(self._study.name, left))
        return None

    def _end_study(self) -> bool:
        """End the study, now that nobody trains; False where there is something to train after all."""
        return self._supply.end(anyway=self._is_good_enough())

    def _may_have_new(self) -> bool:
        return not self._is_good_enough() and self._supply.may_have_more()

    def _is_good_enough(self) -> bool:
        stop_at = self._study.spec.stop_at
        return stop_at is not None and has_reached(stop_at, self._study.trials(*FINISHED))

    def _best(self) -> float | None:
        best = self._best_of_search()
        return best.value if best else None

    def _best_of_search(self) -> FrozenTrial | None:
        """The best trial; None also in a study of repetitions, where the best is the luckiest."""
        return None if repeats_of(self._study.attributes) else self._study.best()

    def _wait(self, leases: Sequence[Seen]) -> None:
        """Wait a moment, and say once for each lease why this worker does nothing."""
        left = self._declined.trials | {one.trial.held.trial_id for one in self._place.freezing}
        others = [seen.lease for seen in leases if seen.lease.trial_id not in left]
        if others:
            first = min(others, key=lambda lease: lease.expires_in)
            if (first.trial_id, first.token) not in self._waited_for:
                self._waited_for.add((first.trial_id, first.token))
                self._view.waiting(first.number, first.worker, 0.0 if first.has_run_out else first.expires_in)
        self._suspension.wait(POLL_SECONDS)

    # ---- one trial ----

    def _train(self, held: Held) -> None:
        trial = HeldTrial(self._claims, held)
        self._place.freezing = [one for one in self._place.freezing if one.trial.number != trial.number]  # thawed
        heartbeat = Heartbeat(trial)
        heartbeat.start()  # before anything that may take longer than a lease: a draw, a database that is away
        started, before = time.monotonic(), None
        try:
            before = self._study.best()
            outcome = give_up(trial, held.hopeless) if held.hopeless else self._run(trial, heartbeat)
        except LeaseLost as lost:
            log.warning("trial %d: %s", held.number, lost)
            outcome = Outcome("lost", None)
        finally:
            self._place.run = None
            if not any(one.trial is trial for one in self._place.freezing):
                heartbeat.stop()
        self._news.trial_ended(trial.number, outcome, before)
        self._after(trial, outcome, time.monotonic() - started)

    def _run(self, trial: HeldTrial, heartbeat: Heartbeat) -> Outcome:
        try:
            settings = parameters(trial, self._place)
        except Unreadable:  # the database is damaged: the trial stays as it is
            raise
        except UsageError as refusal:  # of what somebody else wrote: the next trial may be none of theirs
            return give_up(trial, str(refusal), "refused")
        lease, best = trial.held.lease, self._best()
        self._view.trial_started(
            trial.number,
            self._extent(),
            {**self._of_a_repetition(trial), **settings},
            self._study.spec.epochs,
            best,
            len(without_foreign(self._study.trials(TrialState.PRUNED))),
            resumed_from=lease.snapshot.position if lease and lease.snapshot else None,
            curve=trial.read().intermediate_values,
            ahead=self._ahead(trial.number),
        )
        self._place.run = run = TrialRun(trial, settings, self._place, heartbeat, best)
        if self._suspension.reason:
            run.suspend(self._suspension.reason, self._suspension.until())
        return run.run()

    def _of_a_repetition(self, trial: HeldTrial) -> dict[str, object]:
        """What tells one repetition from the others, for people."""
        known = recorded(trial.read())
        repeats = repeated_by(known, repeats_of(self._study.attributes))
        told = {"repeats": repeats, "seed": known.get(attributes.SEED)}
        return {name: value for name, value in told.items() if value is not None}

    def _after(self, trial: HeldTrial, outcome: Outcome, seconds: float) -> None:
        log.info("trial %d left this worker after %.1f s: %s", trial.number, seconds, outcome)
        if outcome.end == "declined":
            self._declined.add(trial.held.trial_id, trial.number, outcome.reason)
            self._place.left_to_others.add(trial.number)
            self._view.note(f"trial {trial.number} is left to another machine: {outcome.reason}")
            return
        self._view.trial_ended(trial.number, outcome.end, outcome.value, seconds, outcome.reason)
        if outcome.end in ("suspended", "lost", "frozen"):
            return
        self._place.clear_ended()
        self._tidy(lambda: self._place.retention.after(trial.number))
        self._pictures.catch_up()
        self._finished += 1
        self._judge_the_search()

    def _tidy_frozen(self) -> None:
        """Tidy the store up after those that are frozen by now; another worker may train them already.

        Raises:
            Exception: what nobody foresaw, in the thread that froze one.
        """
        over = [one for one in self._place.freezing if one.is_over]
        self._place.freezing = [one for one in self._place.freezing if one not in over]
        for one in over:
            if one.error:
                raise one.error
            if (seconds := one.upload_seconds) is not None:  # most snapshots go up while another trial runs
                self._place.times.upload = seconds
        if any(one.is_frozen for one in over):
            self._tidy(self._place.retention.catch_up)

    def _let_freeze(self) -> None:
        """Wait for what is on its way to be frozen, as long as nobody wants this worker to stop."""
        while not self._suspension.asked():
            if all(one.is_over for one in self._place.freezing):
                return self._tidy_frozen()
            self._suspension.wait(POLL_SECONDS)

    def _end_freezing(self) -> None:
        """Before this worker ends: what is on its way is frozen in the time that is left, or given back."""
        until = min(time.monotonic() + UPLOAD_SECONDS, self._suspension.until())
        for one in self._place.freezing:
            one.end(self._suspension.reason or "its worker has ended", until)
        self._place.freezing = []

    def _tidy(self, tidy: Callable[[], object]) -> None:
        """Delete what is needed no more, once a network home's database knows that it is not."""
        try:
            self._place.home.save()
        except StoreError:
            self._place.home.epoch_saved()  # later; the end of the next trial tidies up after this one, too
        else:
            tidy()

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

    # ---- what is said first and last ----

    def _show_study(self) -> None:
        spec, home = self._study.spec, str(self._place.home.folder)
        self._view.study(spec.study, self._extent(), best=self._best(), home=home)

    def _ahead(self, number: int) -> float | None:
        """The highest value of a trial but ``number`` that is not over, if it is above the best."""
        others = [trial for trial in begun_here(self._study.trials()) if trial.number != number]
        above = ahead(others, self._study.best())
        return None if above is None else so_far(above)

    def _extent(self) -> Extent:
        return extent(self._study.spec, begun_here(self._study.trials()))

    def _say_done(self) -> int:
        self._study.storage.require_file()
        if not self._finished:  # whoever ended the last trial may have died of it
            self._place.retention.catch_up()
        self._pictures.catch_up()  # those of the trial that was found to be the best in the end, too
        best = self._best_of_search()
        self._view.study_done(best.value if best else None, best.number if best else None, self._next_command(best))
        self._news.study_done(best)
        return EXIT_DONE

    def _next_command(self, best: FrozenTrial | None) -> str | None:
        """What to type when the study is done; None where the command that runs says itself what follows."""
        if (repeats := repeats_of(self._study.attributes)) is None:
            return self._place.command("best", " --yaml best.yaml") if best else self._place.command("status")
        if self._place.options.command:
            return None
        return self._place.command("best", f" --repeat {pairs_of(self._study.spec)}", study=repeats.study)

    def _say_suspended(self) -> int:
        self._end_freezing()
        self._study.storage.require_file()
        if not self._anything_left():
            return self._say_done()
        self._view.suspended(self._place.worker_command)
        if self._suspension.is_over:
            self._news.stopped(self._suspension.reason or "")
        return EXIT_SUSPENDED

    def _anything_left(self) -> bool:
        try:
            return bool(self._claims.read()) or self._may_have_new() or not self._end_study()
        except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError):
            return True
