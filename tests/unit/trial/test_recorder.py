"""The recorder's order and its exactly-once: on a real study, without a training."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from petskin_tune.database.storage import PetskinStorage, open_storage
from petskin_tune.errors import LeaseLost
from petskin_tune.leases.claims import Claims
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.protocol import MASK_MAP, EpochDone, Note, Position, Started
from petskin_tune.search.pruners import Verdict
from petskin_tune.study import attributes
from petskin_tune.trial.outbox import Outbox
from petskin_tune.trial.recorder import Recorder
from tests.support.leased_studies import LeasedStudy, new_study

SECONDS = 120.0  # for what must happen, on a busy machine


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PetskinStorage]:
    opened = open_storage(f"sqlite:///{tmp_path_factory.mktemp('recorder') / 'tune.db'}")
    yield opened
    opened.engine.dispose()


@pytest.fixture
def study(storage: PetskinStorage) -> LeasedStudy:
    return new_study(storage)


def _epoch(number: int, fitness: float | None = None) -> EpochDone:
    value = number / 10 if fitness is None else fitness
    return EpochDone(number, value, {MASK_MAP: value, "train/box_loss": 1 / number}, seconds=60.0)


def _started(*epochs: EpochDone) -> Started:
    rows = [{**epoch.metrics, "epoch": epoch.epoch, attributes.SECONDS_COLUMN: epoch.seconds} for epoch in epochs]
    return Started(1, (), {}, {}, 16, Position(len(epochs), 0), 10, tuple(rows))


def _never(_epoch: int, _curve: Mapping[int, float]) -> Verdict:
    return Verdict(False, "")


class _Owner:
    """A worker with a recorder on a trial; ``judged`` are the epochs that were judged, in order."""

    def __init__(self, study: LeasedStudy, folder: Path, name: str, prune_at: int | None = None) -> None:
        self.leases: Claims = study.worker(name)
        self.folder = folder
        self.prune_at = prune_at
        self.judged: list[int] = []
        self.news: list[Mapping[str, Any]] = []

    def take(self) -> Recorder:
        held = self.leases.take_over(by_command=True) or self.leases.next_trial(100)
        assert held is not None
        self.trial = HeldTrial(self.leases, held)
        outbox = Outbox(self.folder / f"{held.number}.jsonl", held.token)
        self.recorder = Recorder(self.trial, outbox, self._judge, lambda: None, self.news.append)
        return self.recorder

    def _judge(self, epoch: int, curve: Mapping[int, float]) -> Verdict:
        assert max(curve) == epoch  # it is reported before it is judged, and the next is not
        self.judged.append(epoch)
        return Verdict(epoch == self.prune_at, "simulated")


def _curve(owner: _Owner) -> dict[int, float]:
    return owner.trial.read().intermediate_values


def test_epochs_are_reported_in_order_each_judged_before_the_next_with_all_their_figures(
    study: LeasedStudy, tmp_path: Path
) -> None:
    owner = _Owner(study, tmp_path, "a")
    recorder = owner.take()
    recorder.start()
    for number in (1, 2, 3):
        recorder.heard(_epoch(number))
    assert recorder.drain(SECONDS)
    assert _curve(owner) == {1: 0.1, 2: 0.2, 3: 0.3}
    assert owner.judged == [1, 2, 3]
    attrs = owner.trial.read().user_attrs
    assert attrs[attributes.HISTORY][MASK_MAP] == [0.1, 0.2, 0.3]
    assert attrs[attributes.HISTORY]["epoch"] == [1, 2, 3]
    assert (attrs[attributes.EPOCHS], attrs[attributes.BEST_EPOCH], attrs[attributes.SECONDS]) == (3, 3, 180.0)
    assert attrs[attributes.METRICS]["train/box_loss"] == 1 / 3


def test_after_the_verdict_to_prune_no_epoch_is_reported(study: LeasedStudy, tmp_path: Path) -> None:
    owner = _Owner(study, tmp_path, "a", prune_at=2)
    recorder = owner.take()
    recorder.start()
    for number in (1, 2, 3, 4):
        recorder.heard(_epoch(number))
    assert recorder.drain(SECONDS)
    assert recorder.verdict is not None
    assert list(_curve(owner)) == [1, 2]


def test_the_next_owner_on_the_disk_sends_what_was_unsent_up_to_the_verdict_and_once(
    study: LeasedStudy, tmp_path: Path
) -> None:
    first = _Owner(study, tmp_path, "a")
    first.take()
    first.trial.report(1, 0.1, {})
    outbox = Outbox(tmp_path / "0.jsonl", 1)
    for number in (1, 2, 3, 4, 5, 6):  # and 2 to 6 never got through; then it was killed
        outbox.add(_epoch(number))
    second = _Owner(study, tmp_path, "b", prune_at=4)
    recorder = second.take()
    recorder.start()
    assert recorder.drain(SECONDS)
    assert list(_curve(second)) == [1, 2, 3, 4]
    assert second.judged == [1, 2, 3, 4]
    assert recorder.verdict is not None


def test_a_verdict_that_died_with_its_worker_is_given_by_the_next(study: LeasedStudy, tmp_path: Path) -> None:
    first = _Owner(study, tmp_path, "a")
    first.take()
    for number in (1, 2):
        first.trial.report(number, number / 10, {})
    second = _Owner(study, tmp_path / "another disk", "b", prune_at=2)
    recorder = second.take()
    recorder.start()
    recorder.heard(_epoch(3))
    assert recorder.drain(SECONDS)
    assert recorder.verdict is not None
    assert list(_curve(second)) == [1, 2]


def test_the_late_outbox_of_an_owner_before_the_last_is_dropped(study: LeasedStudy, tmp_path: Path) -> None:
    first = _Owner(study, tmp_path / "disk 1", "a")
    first.take()
    Outbox(tmp_path / "disk 1" / "0.jsonl", 1).add(_epoch(1, 0.99))
    second = _Owner(study, tmp_path / "disk 2", "b")
    recorder = second.take()
    recorder.start()
    recorder.heard(_epoch(1))
    assert recorder.drain(SECONDS)
    third = _Owner(study, tmp_path / "disk 1", "c")
    recorder = third.take()
    recorder.start()
    assert recorder.drain(SECONDS)
    assert _curve(third) == {1: 0.1}
    assert third.trial.held.token == 3


def test_epochs_behind_a_gap_wait_until_training_comes_by_again(study: LeasedStudy, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "0.jsonl", 1)
    for number in (1, 3):
        outbox.add(_epoch(number))
    owner = _Owner(study, tmp_path, "a")
    recorder = owner.take()
    recorder.start()
    assert recorder.drain(SECONDS)
    assert list(_curve(owner)) == [1]
    recorder.heard(_started(_epoch(1), _epoch(2), _epoch(3)))
    assert recorder.drain(SECONDS)
    assert list(_curve(owner)) == [1, 2, 3]


def test_what_a_snapshot_remembers_and_the_database_does_not_is_reported(study: LeasedStudy, tmp_path: Path) -> None:
    owner = _Owner(study, tmp_path, "a")
    recorder = owner.take()
    recorder.start()
    recorder.heard(_started(_epoch(1), _epoch(2)), {attributes.WORKER: "a"})
    recorder.heard(_epoch(3))
    assert recorder.drain(SECONDS)
    assert _curve(owner) == {1: 0.1, 2: 0.2, 3: 0.3}
    attrs = owner.trial.read().user_attrs
    assert attrs[attributes.HISTORY]["train/box_loss"] == [1, 1 / 2, 1 / 3]
    assert attrs[attributes.SECONDS] == 180.0
    assert attrs[attributes.WORKER] == "a"


def test_an_epoch_that_comes_out_otherwise_the_second_time_is_noted_and_the_first_figure_stays(
    study: LeasedStudy, tmp_path: Path
) -> None:
    owner = _Owner(study, tmp_path, "a")
    recorder = owner.take()
    recorder.start()
    for fitness in (0.1, 0.1, 0.2, 0.2):
        recorder.heard(_epoch(1, fitness))
    assert recorder.drain(SECONDS)
    assert _curve(owner) == {1: 0.1}
    (note,) = owner.trial.read().user_attrs[attributes.NOTES]
    assert "0.2" in note
    assert "first figure stays" in note


def test_notes_are_kept_with_those_of_earlier_owners(study: LeasedStudy, tmp_path: Path) -> None:
    for name in ("a", "b"):
        owner = _Owner(study, tmp_path, name)
        recorder = owner.take()
        recorder.start()
        recorder.heard(Note("key", f"said by {name}"))
        assert recorder.drain(SECONDS)
    assert owner.trial.read().user_attrs[attributes.NOTES] == ["said by a", "said by b"]


def test_a_worker_that_lost_its_trial_reports_nothing_more_and_keeps_what_waits(
    study: LeasedStudy, tmp_path: Path
) -> None:
    first = _Owner(study, tmp_path / "disk 1", "a")
    recorder = first.take()
    recorder.start()
    second = _Owner(study, tmp_path / "disk 2", "b")
    second.take()
    recorder.heard(_epoch(1))
    assert recorder.drain(SECONDS)
    assert recorder.lost
    assert _curve(second) == {}
    with pytest.raises(LeaseLost):
        recorder.do(lambda: None)


def test_what_nobody_foresaw_is_kept_for_the_worker_to_raise(study: LeasedStudy, tmp_path: Path) -> None:
    owner = _Owner(study, tmp_path, "a")
    recorder = owner.take()
    recorder.start()

    def fail() -> None:
        raise ZeroDivisionError("unforeseen")

    with pytest.raises(ZeroDivisionError):
        recorder.do(fail)
    assert not recorder.drain(SECONDS)
    assert isinstance(recorder.error, ZeroDivisionError)


def test_an_action_runs_after_everything_heard_before(study: LeasedStudy, tmp_path: Path) -> None:
    owner = _Owner(study, tmp_path, "a")
    recorder = owner.take()
    recorder.start()
    recorder.heard(_epoch(1))
    seen: list[list[int]] = []
    recorder.do(lambda: seen.append(list(_curve(owner))))
    assert seen == [[1]]


def test_a_closed_recorder_writes_nothing_more_and_leaves_what_waits_in_the_outbox(
    study: LeasedStudy, tmp_path: Path
) -> None:
    owner = _Owner(study, tmp_path, "a")
    recorder = owner.take()
    busy, go_on = threading.Event(), threading.Event()

    def hold_up(_epoch: int, _curve: Mapping[int, float]) -> Verdict:
        busy.set()
        assert go_on.wait(SECONDS)
        return Verdict(False, "")

    recorder._judge = hold_up
    recorder.start()
    recorder.heard(_epoch(1))
    recorder.heard(_epoch(2))
    assert busy.wait(SECONDS)
    assert not recorder.drain(0.1)
    assert recorder.waiting() == 2
    recorder.close()
    go_on.set()
    recorder._thread.join(SECONDS)
    assert list(_curve(owner)) == [1]
    assert [epoch.epoch for epoch in Outbox(tmp_path / "0.jsonl", 1).take_over()] == [1, 2]
    with pytest.raises(LeaseLost):
        recorder.do(lambda: None)


def test_a_full_disk_costs_the_outbox_and_not_the_report(
    study: LeasedStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Outbox, "add", full)
    owner = _Owner(study, tmp_path, "a")
    recorder = owner.take()
    recorder.start()
    recorder.heard(_epoch(1))
    assert recorder.drain(SECONDS)
    assert _curve(owner) == {1: 0.1}
    (note,) = owner.trial.read().user_attrs[attributes.NOTES]
    assert "No space left" in note


def test_news_of_other_processes_come_with_the_report(study: LeasedStudy, tmp_path: Path) -> None:
    study.optuna.set_user_attr(attributes.STOP_REQUESTED, 1)
    owner = _Owner(study, tmp_path, "a")
    recorder = owner.take()
    recorder.start()
    recorder.heard(_epoch(1))
    assert recorder.drain(SECONDS)
    assert owner.news == [{attributes.STOP_REQUESTED: 1}]


def test_a_trial_that_a_person_finished_is_lost_and_keeps_the_persons_state(study: LeasedStudy, tmp_path: Path) -> None:
    owner = _Owner(study, tmp_path, "a")
    recorder = owner.take()
    recorder.start()
    study.optuna.tell(owner.trial.number, state=TrialState.FAIL)
    recorder.heard(_epoch(1))
    assert recorder.drain(SECONDS)
    assert recorder.lost
    assert (owner.trial.read().state, _curve(owner)) == (TrialState.FAIL, {})


def test_a_trial_from_before_names_had_a_prefix_goes_on_with_its_history_and_its_notes(
    study: LeasedStudy, tmp_path: Path
) -> None:
    before = _Owner(study, tmp_path, "a")
    before.take()
    history = {"epoch": [1], MASK_MAP: [0.1], "train/box_loss": [1.0], "seconds": [60.0]}
    before.trial.report(1, 0.1, {"history": history, "notes": ["said before"], "origin": "search"})
    before.trial.release("suspended")
    owner = _Owner(study, tmp_path, "b")
    recorder = owner.take()
    recorder.start()
    recorder.heard(_epoch(2))
    recorder.heard(Note("incident", "said now"))
    assert recorder.drain(SECONDS)
    kept = owner.trial.read().user_attrs
    columns = {"epoch": [1, 2], MASK_MAP: [0.1, 0.2], "train/box_loss": [1.0, 0.5], "seconds": [60.0, 60.0]}
    assert kept[attributes.HISTORY] == columns
    assert (kept[attributes.EPOCHS], kept[attributes.NOTES]) == (2, ["said before", "said now"])


def test_work_that_has_begun_is_waited_for_although_the_recorder_was_closed(study: LeasedStudy, tmp_path: Path) -> None:
    recorder = _Owner(study, tmp_path, "a").take()
    recorder.start()
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def action() -> None:
        begun.set()
        assert may_end.wait(SECONDS)

    def caller() -> None:
        recorder.do(action)
        ended.set()

    threading.Thread(target=caller, daemon=True).start()
    assert begun.wait(SECONDS)
    recorder.close()
    assert not ended.wait(0.5), "it went away from a transaction that may still succeed"
    may_end.set()
    assert ended.wait(SECONDS)


def test_work_that_was_not_begun_when_the_recorder_was_closed_never_is(study: LeasedStudy, tmp_path: Path) -> None:
    recorder = _Owner(study, tmp_path, "a").take()
    done: list[str] = []
    recorder.close()
    with pytest.raises(LeaseLost):
        recorder.do(lambda: done.append("it"))  # its thread does not run yet
    recorder.start()
    recorder.drain(SECONDS)
    assert done == []
