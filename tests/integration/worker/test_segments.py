"""A whole study of the sampler freeze-thaw, by workers whose processes only pretend to train."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from petskin_tune.database.storage import PetskinStorage, open_storage
from petskin_tune.errors import EXIT_DONE, EXIT_SUSPENDED, UsageError
from petskin_tune.leases.lease import read_leases
from petskin_tune.protocol import Declined, Event, Finished, TrialJob
from petskin_tune.search import segments
from petskin_tune.search.freeze_thaw import choice
from petskin_tune.search.freeze_thaw.state import Continue, Decision, SearchState, Why
from petskin_tune.study import attributes
from petskin_tune.study.rungs import next_rung
from petskin_tune.study.spec import Choices, PrunerSpec, SamplerSpec
from petskin_tune.trial.process.runner import Died
from petskin_tune.trial.workplace import Options, Workplace
from petskin_tune.worker.suspension import Suspension
from petskin_tune.worker.worker import Worker
from tests.support.studies import a_spec
from tests.support.trainings import Trainings, fitness
from tests.support.workplace import STARTED, Process, Screen, Script, a_workplace, epoch_done, shown

EPOCHS, BUDGET = 27, 135
FIRST_RUNG = 6  # after the three epochs of the usual warm-up


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PetskinStorage]:
    opened = open_storage(f"sqlite:///{tmp_path_factory.mktemp('segments') / 'tune.db'}")
    yield opened
    opened.engine.dispose()


def a_study(
    storage: PetskinStorage, folder: Path, trainings: Trainings, *, max_trials: int | None = None, **spec: Any
) -> Workplace:
    searched = {"sampler": SamplerSpec(name="freeze-thaw"), "pruner": PrunerSpec(name="none"), "budget": BUDGET}
    asked = a_spec(epochs=EPOCHS, **{**searched, **spec})
    place = a_workplace(storage, folder, trainings, asked, max_trials=max_trials)  # type: ignore[arg-type]
    place.study.optuna.set_user_attr("petskin-tune:spec", asked.model_dump(mode="json"))
    return place


def work(place: Workplace) -> int:
    suspension = Suspension(place, None)
    try:
        return Worker(place, suspension).work()
    finally:
        suspension.close()


def paid(place: Workplace) -> int:
    return sum(len(trial.intermediate_values) for trial in place.study.trials())


def told(place: Workplace) -> list[tuple[Any, ...]]:
    """What the study says of its trials, without its clock."""
    return [
        (trial.number, trial.state.name, trial.value, trial.params, trial.intermediate_values)
        for trial in place.study.trials()
    ]


@pytest.fixture(scope="module")
def done(storage: PetskinStorage, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workplace, Trainings]:
    trainings = Trainings()
    place = a_study(storage, tmp_path_factory.mktemp("done"), trainings)
    assert work(place) == EXIT_DONE
    return place, trainings


def test_a_study_spends_its_budget_on_many_trials_and_trains_the_best_to_its_end(
    done: tuple[Workplace, Trainings],
) -> None:
    place, _ = done
    trials = place.study.trials()
    assert BUDGET <= paid(place) < BUDGET + EPOCHS + 3
    assert len(trials) > BUDGET / EPOCHS, "no more configurations than full runs"
    assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    best = place.study.best()
    assert best is not None
    assert best.value == max(trial.value for trial in trials if trial.value is not None)
    assert best.state == TrialState.COMPLETE
    assert place.study.attributes[attributes.RECOMMENDED]["trial"] == best.number


def test_a_thawed_trial_goes_on_where_it_was_frozen_and_every_epoch_is_trained_once(
    done: tuple[Workplace, Trainings],
) -> None:
    place, trainings = done
    starts = Counter(job.trial for job in trainings.jobs)
    assert max(starts.values()) > 1, "none was thawed"
    for trial in place.study.trials():
        rate = trial.params["lr0"]
        assert trial.intermediate_values == {n: fitness(rate, n) for n in range(1, len(trial.intermediate_values) + 1)}


def test_frozen_trials_end_with_the_study_as_pruned_with_their_best_epoch(done: tuple[Workplace, Trainings]) -> None:
    place, _ = done
    assert {lease.state for lease in read_leases(place.study.storage, place.study.id)} == {"done"}
    for trial in place.study.trials(TrialState.PRUNED):
        assert trial.value == max(trial.intermediate_values.values())


def test_an_ended_study_keeps_no_snapshot_and_the_weights_of_the_best(done: tuple[Workplace, Trainings]) -> None:
    place, _ = done
    assert not [entry.key for entry in place.store.entries() if "snapshot" in entry.key]


def test_uploads_of_trials_that_were_frozen_tell_how_long_a_suspension_takes(done: tuple[Workplace, Trainings]) -> None:
    place, _ = done
    assert place.times.measured


def test_another_worker_of_an_ended_study_trains_nothing(done: tuple[Workplace, Trainings]) -> None:
    place, trainings = done
    before = len(trainings.jobs)
    assert work(place) == EXIT_DONE
    assert len(trainings.jobs) == before


def test_interrupted_again_and_again_the_study_chooses_the_same(
    storage: PetskinStorage, tmp_path: Path, done: tuple[Workplace, Trainings]
) -> None:
    undisturbed, _ = done
    trainings = Trainings()
    place = a_study(storage, tmp_path, trainings)
    lives, code = 0, EXIT_SUSPENDED
    while code == EXIT_SUSPENDED:
        lives += 1
        assert lives < 200
        suspension = Suspension(place, None)
        left, begun = lives % 3, len(trainings.jobs)
        trainings.once = lambda _, suspension=suspension, left=left, begun=begun: (  # type: ignore[misc]
            suspension.ask("SIGINT") if len(trainings.jobs) - begun > left else None
        )
        try:
            code = Worker(place, suspension).work()
        finally:
            suspension.close()
            place.study.storage.patience.cancelled.clear()
    assert lives > 5
    assert code == EXIT_DONE, shown(place)
    assert told(place) == told(undisturbed)


def test_a_worker_that_stops_when_nothing_is_left_ends_the_study(storage: PetskinStorage, tmp_path: Path) -> None:
    place = a_study(storage, tmp_path, Trainings(), budget=EPOCHS, keep_frozen=100, max_trials=1)
    assert work(place) == EXIT_DONE
    assert "--max-trials 1" not in shown(place)
    assert {trial.state for trial in place.study.trials()} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert attributes.RECOMMENDED in place.study.attributes


def test_a_trial_that_another_worker_of_this_machine_has_thawed_keeps_its_files_here(
    storage: PetskinStorage, tmp_path: Path
) -> None:
    trainings = Trainings()
    place = a_study(storage, tmp_path, trainings)
    folder = place.folder(0) / "snapshots"

    def see(job: TrialJob) -> None:
        if job.trial == 1:
            while not all(one.is_over for one in place.freezing):
                time.sleep(0.01)
            folder.mkdir()
        elif job.trial == 2:
            suspension.decide("enough is seen")

    trainings.once = see
    suspension = Suspension(place, None)
    assert Worker(place, suspension).work() == EXIT_SUSPENDED
    suspension.close()
    assert folder.exists()


def test_a_worker_that_ends_by_itself_waits_for_the_snapshot_of_the_trial_that_it_freezes(
    storage: PetskinStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = Trainings()
    place = a_study(storage, tmp_path, trainings)
    suspension = Suspension(place, None)
    trainings.once = lambda _: suspension.decide("--max-trials 1 reached")
    monkeypatch.setattr("petskin_tune.worker.worker.UPLOAD_SECONDS", 0.0)
    monkeypatch.setattr("petskin_tune.trial.freezing.LOOK_SECONDS", 0.1)
    put = place.store.put

    def slow_put(path: Path, key: str) -> Any:
        time.sleep(1.0)
        return put(path, key)

    monkeypatch.setattr(place.store, "put", slow_put)
    assert Worker(place, suspension).work() == EXIT_SUSPENDED
    suspension.close()
    (lease,) = read_leases(place.study.storage, place.study.id)
    assert lease.state == "frozen"


# ---- its end ----


def a_poor_trial(place: Workplace, value: float = 0.001) -> None:
    """A complete trial of a person's own."""
    distributions = {"lr0": FloatDistribution(1e-5, 1e-1, log=True)}
    place.study.optuna.add_trial(create_trial(value=value, params={"lr0": 1e-5}, distributions=distributions))


def complete(place: Workplace) -> list[FrozenTrial]:
    """The trials of ours that were trained to their end."""
    return [trial for trial in place.study.trials(TrialState.COMPLETE) if trial.intermediate_values]


def test_a_budget_that_is_lowered_far_below_what_was_used_ends_with_its_last_run_and_a_raised_one_with_another(
    storage: PetskinStorage, tmp_path: Path
) -> None:
    trainings = Trainings()
    place = a_study(storage, tmp_path, trainings, target_trials=100)
    a_poor_trial(place)

    def lower(_: TrialJob) -> None:
        if paid(place) > EPOCHS + 9 and place.study.spec.budget == BUDGET:
            assert not complete(place)
            place.study.change(budget=EPOCHS)

    trainings.once = lower
    assert work(place) == EXIT_DONE
    (best,) = complete(place)
    assert place.study.attributes[attributes.RECOMMENDED]["trial"] == best.number
    assert place.study.optuna.user_attrs[attributes.LAST_RUN]["trial"] == best.number
    place.study.change(budget=(more := paid(place) + EPOCHS))
    assert work(place) == EXIT_DONE
    assert paid(place) >= more
    recommended = place.study.attributes[attributes.RECOMMENDED]["trial"]
    assert recommended in {trial.number for trial in complete(place)}


def goes_on(*numbers: int) -> Callable[[SearchState], Decision]:
    """A search that likes to go on with one of these trials, the first that can, or with any; else to begin one."""

    def decide(asked: SearchState) -> Decision:
        frozen = {trial.number: trial for trial in asked.trials if trial.standing == "frozen"}
        first = next((frozen[number] for number in numbers or sorted(frozen) if number in frozen), None)
        if first is None:
            return Decision(choice.at_random(asked), Why("first", "none can go on"))
        until = next_rung(asked.rungs, len(first.curve)) or asked.epochs
        return Decision(Continue(first.number, until), Why("model", "it is the best"))

    return decide


def test_a_study_that_reaches_its_stop_at_ends_the_trial_in_work_at_its_rung(
    storage: PetskinStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = Trainings()
    place = a_study(storage, tmp_path, trainings, stop_at=0.5)
    monkeypatch.setattr(segments.choice, "choose", goes_on())
    trainings.once = lambda _: a_poor_trial(place, value=0.6)
    assert work(place) == EXIT_DONE
    assert len(trainings.jobs) == 1
    ours, _ = place.study.trials()
    assert (ours.state, len(ours.intermediate_values)) == (TrialState.PRUNED, FIRST_RUNG)


def test_the_trial_that_reaches_the_stop_at_first_is_trained_to_its_end_and_ends_the_study(
    storage: PetskinStorage, tmp_path: Path
) -> None:
    place = a_study(storage, tmp_path, Trainings(), stop_at=0.3)
    assert work(place) == EXIT_DONE
    assert paid(place) < BUDGET
    (only,) = complete(place)
    assert len(only.intermediate_values) == EPOCHS
    assert only.value is not None
    assert only.value >= 0.3
    assert place.study.best() == only


def test_a_study_ends_when_every_point_of_its_space_is_complete(storage: PetskinStorage, tmp_path: Path) -> None:
    space = {"lr0": Choices(choices=(1e-3, 1e-2)), "optimizer": Choices(choices=("SGD", "AdamW"))}
    place = a_study(storage, tmp_path, Trainings(), search=space, target_trials=100)
    assert work(place) == EXIT_DONE
    assert len({tuple(trial.params.values()) for trial in place.study.trials()}) == len(place.study.trials()) == 4
    assert len(complete(place)) == 4


def test_a_trial_that_patience_ends_at_a_rung_is_complete(storage: PetskinStorage, tmp_path: Path) -> None:
    epochs = [epoch_done(epoch, value) for epoch, value in enumerate((0.3, 0.2, 0.2), 1)]
    script = Script([STARTED, *epochs, Finished(3, 1, early=True)], has_trained=True)
    sampler = SamplerSpec(name="freeze-thaw", rungs=(3, 9))
    place = a_study(storage, tmp_path, script, max_trials=1, sampler=sampler, patience_epochs=2)  # type: ignore[arg-type]
    work(place)
    (trial,) = place.study.trials()
    assert (trial.state, trial.value, len(trial.intermediate_values)) == (TrialState.COMPLETE, 0.3, 3)


# ---- trials of another machine ----


class Elsewhere(Trainings):
    """The processes of a machine that goes on with no trial of another one."""

    def __init__(self, declines: Collection[int]) -> None:
        super().__init__()
        self._declines = declines

    def start(self, job: TrialJob, hear: Callable[[Event | Died], None]) -> Any:
        if job.trial not in self._declines:
            return super().start(job, hear)
        self.jobs.append(job)
        hear(Declined("different-machine", "another torch here"))
        hear(Died(0))
        return Process(hear, lambda _: [])


def half_way(storage: PetskinStorage, folder: Path, **spec: Any) -> tuple[Workplace, set[int]]:
    """A study with trials that one machine has frozen; it was stopped then."""
    trainings = Trainings()
    place = a_study(storage, folder, trainings, **spec)
    suspension = Suspension(place, None)
    trainings.once = lambda job: suspension.decide("enough") if job.trial == 4 else None
    assert Worker(place, suspension).work() == EXIT_SUSPENDED
    suspension.close()
    frozen = {lease.number for lease in read_leases(storage, place.study.id) if lease.state == "frozen"}
    assert len(frozen) > 2
    assert len(frozen) == len(place.study.trials(TrialState.RUNNING))
    return place, frozen


def on_another_machine(place: Workplace, trainings: Trainings) -> Workplace:
    """The place of another worker of the study."""
    inputs = place.inputs()
    return Workplace(place.study, place.home, trainings, Screen(), Options(worker="other"), inputs)  # type: ignore[arg-type]


def test_paused_trials_of_another_machine_do_not_keep_a_study_from_its_end(
    storage: PetskinStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, frozen = half_way(storage, tmp_path)
    place = on_another_machine(first, trainings := Elsewhere(frozen))
    monkeypatch.setattr(segments.choice, "choose", goes_on(*frozen))
    own = max(frozen) + 1
    monkeypatch.setattr(segments.recommend, "finish", lambda *_: Continue(own, EPOCHS))
    assert work(place) == EXIT_DONE, shown(place)
    declined = [job.trial for job in trainings.jobs if job.trial in frozen]
    assert sorted(declined) == sorted(frozen), "each is chosen once"
    assert [trial.number for trial in complete(place)] == [own]
    assert {trial.state for trial in place.study.trials()} == {TrialState.COMPLETE, TrialState.PRUNED}


def test_where_the_best_trial_is_of_another_machine_the_study_is_left_to_that_one(
    storage: PetskinStorage, tmp_path: Path
) -> None:
    first, frozen = half_way(storage, tmp_path)
    first.study.change(budget=min(EPOCHS, paid(first)))
    place = on_another_machine(first, trainings := Elsewhere(frozen))
    with pytest.raises(UsageError, match=r"is for another machine, trial \d+: another torch here"):
        work(place)
    (left,) = (job.trial for job in trainings.jobs)
    leases = {lease.number: lease.state for lease in read_leases(storage, place.study.id)}
    assert {leases[number] for number in frozen} == {"frozen"}, "nothing is lost"
    assert work(first) == EXIT_DONE
    assert [trial.number for trial in complete(first)] == [left]


def test_a_worker_that_stops_does_not_end_a_study_of_which_the_best_trial_is_left(
    storage: PetskinStorage, tmp_path: Path
) -> None:
    first, frozen = half_way(storage, tmp_path)
    first.study.change(budget=min(EPOCHS, paid(first)))
    place = on_another_machine(first, Elsewhere(frozen))
    place.left_to_others |= frozen
    suspension = Suspension(place, None)
    suspension.decide("enough")
    assert Worker(place, suspension).work() == EXIT_SUSPENDED
    suspension.close()
    assert {trial.state for trial in place.study.trials()} == {TrialState.RUNNING}
