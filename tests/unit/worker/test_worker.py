"""What a worker does when …: a row of situations, with processes that follow a script and waits that take no time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState, create_trial

from petskin_tune import packages
from petskin_tune.database.storage import PetskinStorage, open_storage
from petskin_tune.errors import EXIT_DONE, EXIT_SUSPENDED, LeaseLost, UsageError
from petskin_tune.identity import Identity
from petskin_tune.leases.claims import Claims
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.leases.lease import MAX_CRASHES, Held, read_leases
from petskin_tune.protocol import Declined, Failed, Finished
from petskin_tune.study import attributes
from petskin_tune.study.spec import SamplerSpec
from petskin_tune.trial.process.runner import Died
from petskin_tune.trial.workplace import Workplace
from petskin_tune.worker.suspension import Suspension
from petskin_tune.worker.worker import Worker
from tests.support.studies import a_spec
from tests.support.workplace import STARTED, Script, a_workplace, epoch_done, shown

LEASE = 90.0  # seconds
TRAINS = (STARTED, epoch_done(1), Finished(1, 1))


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PetskinStorage]:
    opened = open_storage(f"sqlite:///{tmp_path_factory.mktemp('worker') / 'tune.db'}")
    yield opened
    opened.engine.dispose()


class Waits(Suspension):
    """Waits without waiting: something happens instead."""

    def __init__(self, place: Workplace) -> None:
        super().__init__(place, None)
        self.happens: list[Callable[[], object]] = []

    def start(self) -> None:
        """No thread watches: what is asked for is asked by the test."""

    def wait(self, seconds: float) -> None:
        assert self.happens, f"it waits, and nothing will ever happen:\n{shown(self._place)}"
        self.happens.pop(0)()


@dataclass
class Life:
    """A worker on a study of its own."""

    place: Workplace
    script: Script
    suspension: Waits = field(init=False)

    def __post_init__(self) -> None:
        self.suspension = Waits(self.place)

    @property
    def study(self) -> optuna.Study:
        return self.place.study.optuna

    @property
    def said(self) -> str:
        return shown(self.place)

    def work(self) -> int:
        return Worker(self.place, self.suspension).work()

    def states(self) -> list[str]:
        return [trial.state.name for trial in self.study.get_trials(deepcopy=False)]

    def trained(self) -> list[int]:
        return [job.trial for job in self.script.jobs]

    def other(self, name: str = "other") -> Claims:
        """Another worker, on a machine that this one cannot look at."""
        elsewhere = replace(Identity.mine(), host="elsewhere")
        return Claims(self.place.study.storage, self.place.study.fence, name, LEASE, 300.0, identity=elsewhere)

    def held_by_another(self) -> HeldTrial:
        other = self.other()
        held = other.next_trial(10**6)
        assert held is not None
        trial = HeldTrial(other, held)
        trial.store_draw({}, {}, {}, {})
        return trial

    def let_expire(self) -> None:
        self.shift_leases(-3600)

    def shift_leases(self, seconds: int) -> None:
        """As they would be, had they been written so much later."""
        with self.place.study.storage.engine.begin() as connection:
            connection.exec_driver_sql(
                f"UPDATE trial_leases SET expires_at = expires_at + {seconds}, claimed_at = claimed_at + {seconds}"
            )


@pytest.fixture
def begin(storage: PetskinStorage, tmp_path: Path) -> Callable[..., Life]:
    shared = storage

    def begin(
        *says: Any,
        target: int = 2,
        options: dict[str, Any] | None = None,
        storage: PetskinStorage = shared,
        **spec: Any,
    ) -> Life:
        script = Script(*(says or [TRAINS] * 20))
        asked = a_spec(target_trials=target, epochs=1, sampler=SamplerSpec(name="random"), **spec)
        place = a_workplace(storage, tmp_path, script, asked, **(options or {}))
        place.study.optuna.set_user_attr("petskin-tune:spec", asked.model_dump(mode="json"))
        return Life(place, script)

    return begin


def test_a_new_study_is_worked_through_to_its_target(begin: Callable[..., Life]) -> None:
    life = begin(target=3)
    assert life.work() == EXIT_DONE
    assert life.states() == ["COMPLETE"] * 3
    assert "petskin-tune best --study petskin --yaml best.yaml" in life.said


def test_claims_take_overs_processes_failures_and_all_that_was_said_are_logged(
    begin: Callable[..., Life], caplog: pytest.LogCaptureFixture
) -> None:
    failed = Failed("diverged", "the loss is not finite", "Traceback: in epoch 2")
    life = begin((STARTED, failed), TRAINS, target=2)
    life.held_by_another().release("SIGTERM")
    with caplog.at_level("DEBUG", logger="petskin_tune"):
        life.work()
    said = [record.getMessage() for record in caplog.records if record.name == "petskin_tune.views.progress"]
    assert said == life.said.splitlines()
    assert "trial 0 is taken over under token 2, from Lease(" in caplog.text
    assert "trial 1 is claimed under token 1" in caplog.text
    assert "trial 0 failed: diverged: the loss is not finite\nTraceback: in epoch 2" in caplog.text
    assert "trial 1: its process has ended with exit code 0" in caplog.text
    assert "the trial's process says Finished(" in caplog.text
    assert "trial 1 left this worker after" in caplog.text


def test_a_study_that_is_done_is_said_to_be_done_and_nothing_is_trained(begin: Callable[..., Life]) -> None:
    life = begin(target=1)
    life.work()
    again = Life(life.place, Script())
    assert again.work() == EXIT_DONE
    assert again.trained() == []


def test_a_trial_that_was_given_back_comes_before_a_new_one(begin: Callable[..., Life]) -> None:
    life = begin(target=3)
    life.held_by_another()
    life.held_by_another().release("SIGTERM")
    life.place.options = replace(life.place.options, max_trials=1)
    assert life.work() == EXIT_SUSPENDED
    assert life.trained() == [1]


def test_a_trial_that_a_person_enqueued_comes_before_a_new_one(begin: Callable[..., Life]) -> None:
    life = begin(target=1)
    number = life.place.study.enqueue({"lr0": 0.005}, "person")
    assert life.work() == EXIT_DONE
    assert life.trained() == [number]
    assert life.study.trials[number].params["lr0"] == 0.005


def test_a_lone_worker_waits_for_a_lease_that_may_be_a_dead_ones_and_takes_the_trial(
    begin: Callable[..., Life],
) -> None:
    life = begin(target=1)
    trial = life.held_by_another()
    life.suspension.happens = [lambda: trial.release("SIGTERM")]
    assert life.work() == EXIT_DONE
    assert life.trained() == [trial.number]
    assert life.said.count("waiting") == 1


def test_a_lease_by_a_clock_that_was_hours_ahead_is_not_said_to_last_for_hours(begin: Callable[..., Life]) -> None:
    life = begin(target=1)
    trial = life.held_by_another()
    life.shift_leases(3 * 3600)
    life.suspension.happens = [lambda: trial.release("SIGTERM")]
    assert life.work() == EXIT_DONE
    assert f"trial {trial.number} is held by other by a lease that has run out; waiting" in life.said


def test_a_study_at_its_target_is_not_done_while_another_worker_trains(begin: Callable[..., Life]) -> None:
    life = begin(target=1)
    trial = life.held_by_another()
    life.suspension.happens = [
        lambda: trial.renew(),
        lambda: trial.tell(TrialState.COMPLETE, 0.5, {}, {}),
    ]
    assert life.work() == EXIT_DONE
    assert life.trained() == []
    assert life.suspension.happens == []


def test_a_trial_that_another_worker_takes_while_this_one_prepares_is_waited_for(
    begin: Callable[..., Life], monkeypatch: pytest.MonkeyPatch
) -> None:
    life = begin(target=1)
    trials: list[HeldTrial] = []
    inputs = life.place.inputs

    def slow_inputs() -> Any:
        trials.append(life.held_by_another())
        return inputs()

    monkeypatch.setattr(life.place, "inputs", slow_inputs)
    life.suspension.happens = [lambda: trials[0].tell(TrialState.COMPLETE, 0.5, {}, {})]
    assert life.work() == EXIT_DONE
    assert life.suspension.happens == []


def test_a_target_that_is_raised_meanwhile_counts(begin: Callable[..., Life]) -> None:
    life = begin(target=1)
    trial = life.held_by_another()

    def raise_target() -> None:
        life.place.study.change(target_trials=2)
        trial.renew()

    life.suspension.happens = [raise_target, lambda: trial.tell(TrialState.COMPLETE, 0.5, {}, {})]
    assert life.work() == EXIT_DONE
    assert sorted(life.states()) == ["COMPLETE"] * 2


def test_what_is_left_for_another_machine_ends_the_worker_with_its_reason(begin: Callable[..., Life]) -> None:
    life = begin([Declined("different-machine", "another torch here")], target=1)
    with pytest.raises(UsageError, match="trial 0: another torch here"):
        life.work()
    assert "trial 0 is left to another machine: another torch here" in life.said


def test_a_worker_ends_after_so_many_trials(begin: Callable[..., Life]) -> None:
    life = begin(target=5, options={"max_trials": 2})
    assert life.work() == EXIT_SUSPENDED
    assert life.states() == ["COMPLETE"] * 2
    assert "tune-worker --study petskin" in life.said.splitlines()[-1]


def test_a_good_enough_value_ends_the_study(begin: Callable[..., Life]) -> None:
    life = begin(target=5, stop_at=0.1)
    assert life.work() == EXIT_DONE
    assert life.states() == ["COMPLETE"]


def test_a_worker_that_is_asked_to_stop_takes_no_further_trial(begin: Callable[..., Life]) -> None:
    life = begin(target=5)
    life.script.once_started = lambda: life.suspension.ask("SIGINT")
    assert life.work() == EXIT_SUSPENDED
    assert len(life.trained()) == 1
    assert "Ctrl-C: stopping safely, within" in life.said
    assert "Ctrl-C again stops at once" in life.said
    life.suspension.close()


def test_a_trial_that_ends_whoever_trains_it_fails_without_a_process(begin: Callable[..., Life]) -> None:
    life = begin(target=1)
    trial = life.held_by_another()
    for _ in range(MAX_CRASHES):
        trial.count_crash()
    trial.release("SIGTERM")
    assert life.work() == EXIT_DONE
    assert (life.trained(), life.states()) == ([], ["FAIL"])
    assert f"it ended its worker {MAX_CRASHES} times in a row without progress" in life.said


def test_a_trial_that_was_lost_is_left_alone_and_the_next_one_is_trained(begin: Callable[..., Life]) -> None:
    life = begin([...], TRAINS, target=2)
    taken: list[Held | None] = []

    def take_over() -> None:
        taken.append(life.other().take_over(by_command=True))
        for event in TRAINS:
            life.script.processes[0].says(event)
        life.script.processes[0].says(Died(0))

    life.script.once_started = take_over
    life.suspension.happens = [lambda: HeldTrial(life.other(), _of(taken)).tell(TrialState.COMPLETE, 0.5, {}, {})]
    assert life.work() == EXIT_DONE
    assert life.trained() == [0, 1]
    assert "now belongs to another worker" in life.said


def _of(taken: list[Held | None]) -> Held:
    (held,) = taken
    assert held is not None
    return held


def test_trials_that_all_fail_alike_end_the_worker(begin: Callable[..., Life]) -> None:
    fails = [STARTED, Failed("refused", "ValueError: no such loss", "")]
    life = begin(*[fails] * 5, target=5, max_identical_failures=3)
    with pytest.raises(UsageError, match="no such loss"):
        life.work()
    assert life.states() == ["FAIL"] * 3


def test_a_device_that_is_not_here_costs_a_trial_nothing_however_often_the_worker_is_started(
    begin: Callable[..., Life],
) -> None:
    missing = [Failed("machine", "ValueError: Invalid CUDA 'device=0' requested", "")]
    life = begin(*[missing] * 7, TRAINS, target=1)
    trial = life.held_by_another()
    trial.release("SIGTERM")
    for _ in range(7):
        with pytest.raises(UsageError, match="Training cannot start on this machine: ValueError: Invalid CUDA"):
            Life(life.place, life.script).work()
        (lease,) = read_leases(life.place.study.storage, life.place.study.id)
        assert (lease.number, lease.state, lease.crashes, lease.vanishes) == (trial.number, "released", 0, 0)
    assert Life(life.place, life.script).work() == EXIT_DONE
    assert (set(life.trained()), life.states()) == ({trial.number}, ["COMPLETE"])


def test_a_home_that_is_taken_over_ends_the_worker(begin: Callable[..., Life], monkeypatch: pytest.MonkeyPatch) -> None:
    life = begin()

    def taken_over() -> None:
        raise LeaseLost("somebody else claims it")

    monkeypatch.setattr(life.place.home, "require", taken_over)
    with pytest.raises(UsageError, match="Another worker has taken this home over"):
        life.work()


def test_another_release_is_no_other_than_the_study_was_begun_with_while_nothing_was_trained(
    begin: Callable[..., Life], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Failed("machine", "ImportError: cannot import name 'YOLO'", "Traceback")
    life = begin((broken,), *[TRAINS] * 2, target=2)
    with pytest.raises(UsageError, match="cannot import name"):
        life.work()
    (lease,) = read_leases(life.place.study.storage, life.place.study.id)
    assert lease.state == "released"
    here = packages.here()
    mended = {**here, "versions": {**here["versions"], "ultralytics": "8.4.1"}}
    monkeypatch.setattr("petskin_tune.packages.here", lambda: mended)
    assert life.work() == EXIT_DONE
    assert life.states() == ["COMPLETE"] * 2
    in_force = life.study.user_attrs[attributes.ENVIRONMENT]
    assert in_force["versions"] == mended["versions"]


def test_a_worker_whose_packages_others_have_replaced_gives_its_trial_back(
    begin: Callable[..., Life], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker records its own and claims a trial, in the instant before this one's claim."""
    life = begin(target=3)
    here = packages.here()
    others = {**here, "versions": {**here["versions"], "ultralytics": "8.4.1"}}
    claim, overtaken = life.place.claims.next_trial, []

    def overtake(target: int) -> Held | None:
        if not overtaken:
            life.study.set_user_attr(attributes.ENVIRONMENT, others)
            overtaken.append(life.held_by_another())
        return claim(target)

    monkeypatch.setattr(life.place.claims, "next_trial", overtake)

    def trains() -> None:
        overtaken[0].describe({attributes.VERSIONS: others["versions"], attributes.DEVICE_MODEL: "Tesla T4"})

    life.suspension.happens = [trains]
    with pytest.raises(UsageError, match=r"instead of 8\.4\.1, with which the study"):
        life.work()
    assert life.trained() == []
    assert [lease.state for lease in read_leases(life.place.study.storage, life.place.study.id)] == [
        "running",
        "released",
    ]


def test_a_study_that_somebody_deletes_ends_the_worker(begin: Callable[..., Life]) -> None:
    life = begin(target=2)
    life.script.once_started = lambda: None
    storage = life.place.study.storage
    life.held_by_another()
    life.suspension.happens = [lambda: storage.delete_study(life.place.study.id)]
    with pytest.raises(UsageError, match="was deleted from the database"):
        life.work()


def test_a_database_that_lets_the_user_in_no_more_suspends_the_worker_in_order(begin: Callable[..., Life]) -> None:
    class Denied(Exception):
        pgcode = "28P01"

    def denied() -> None:
        raise sqlalchemy.exc.OperationalError("SELECT 1", {}, Denied("password authentication failed"))

    life = begin(target=2)
    life.held_by_another()
    patience = life.place.study.storage.patience
    life.held_by_another()
    life.suspension.happens = [lambda: patience.call(denied)]
    try:
        assert life.work() == EXIT_SUSPENDED
    finally:
        life.suspension.close()
        patience.cancelled.clear()
        patience.on_denied = None
    assert life.said.count("the database refuses this user or the password by now: stopping safely, within") == 1


def test_a_database_file_that_is_deleted_in_mid_run_ends_the_worker_and_is_written_back(
    begin: Callable[..., Life], tmp_path: Path
) -> None:
    path = tmp_path / "own.db"
    opened = open_storage(f"sqlite:///{path}")
    life = begin(target=2, storage=opened)
    life.held_by_another()
    life.held_by_another()
    life.suspension.happens = [path.unlink, *[lambda: life.suspension.decide("the test is over")] * 2]
    with pytest.raises(UsageError, match=r"own\.db was deleted while this worker had it open.* was written back there"):
        life.work()
    assert path.is_file()
    opened.engine.dispose()


def test_every_lease_is_done_when_the_study_is(begin: Callable[..., Life]) -> None:
    life = begin(target=2)
    life.work()
    leases = read_leases(life.place.study.storage, life.place.study.id)
    assert [lease.state for lease in leases] == ["done", "done"]


def test_a_trial_with_settings_that_no_study_file_could_have_fails_and_the_next_one_is_trained(
    begin: Callable[..., Life],
) -> None:
    life = begin(target=2)
    evil = {attributes.FIXED: {"pretrained": "http://127.0.0.1/evil.pt"}, attributes.ORIGIN: "person"}
    life.study.enqueue_trial({"lr0": 0.01}, user_attrs=evil)
    assert life.work() == EXIT_DONE
    assert life.states() == ["FAIL", "COMPLETE"]
    assert life.trained() == [1]
    assert "`pretrained` cannot be searched" in life.study.trials[0].user_attrs[attributes.FAILURE]["message"]


def test_a_person_s_trials_of_every_kind_keep_no_worker_from_its_own(begin: Callable[..., Life]) -> None:
    life = begin(target=1)
    notes = {"failure": "oom, by hand", "history": 3, "weights": "runs/best.pt", "fixed": {"mosaic": 0.0}}
    life.study.add_trial(create_trial(value=0.2, user_attrs=notes))
    life.study.add_trial(create_trial(state=TrialState.FAIL, user_attrs=notes))
    life.study.enqueue_trial({"lr0": 0.01}, user_attrs=notes)
    assert life.work() == EXIT_DONE
    assert life.trained() == [2]
    assert "mosaic" not in life.script.jobs[0].arguments, "what a person notes is no setting"
    assert life.states() == ["COMPLETE", "FAIL", "COMPLETE"]


def test_a_point_whose_names_and_values_would_command_a_terminal_is_refused_in_plain_letters(
    begin: Callable[..., Life],
) -> None:
    life = begin(target=3)
    for evil in ({"\x1b]0;name\x07": 0.1}, {"cos_lr": "\u202e\x1b[2J"}):
        noted = {attributes.FIXED: evil, attributes.ORIGIN: "person"}
        life.study.enqueue_trial({"lr0": 0.01}, user_attrs=noted)
    assert life.work() == EXIT_DONE
    assert life.states() == ["FAIL", "FAIL", "COMPLETE"]
    assert not {"\x1b", "\x07", "\u202e"} & set(life.said)
    assert r"\x1b]0;name\x07" in life.said
    assert r"\u202e\x1b[2J" in life.said


def test_what_was_enqueued_before_names_had_a_prefix_is_trained_as_it_was_asked(begin: Callable[..., Life]) -> None:
    life = begin(target=1)
    asked = {"origin": "person", "fixed": {"mosaic": 0.5}}
    known = {"fixed_params": {"lr0": 0.01}, attributes.ENQUEUED: "n"}
    life.study.add_trial(create_trial(state=TrialState.WAITING, user_attrs=asked, system_attrs=known))
    assert life.work() == EXIT_DONE
    assert life.script.jobs[0].arguments["mosaic"] == 0.5
    kept = life.study.trials[0].user_attrs
    assert (kept[attributes.ORIGIN], kept[attributes.FIXED]) == ("person", {"mosaic": 0.5})
