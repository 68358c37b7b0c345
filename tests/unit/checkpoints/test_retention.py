"""What stays of a study's trials in its store: on a real study with leases and a folder store, without a training."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState, create_trial

from petskin_tune.checkpoints import retention as keeping
from petskin_tune.checkpoints.base import Entry, Stored
from petskin_tune.checkpoints.folder import FolderStore
from petskin_tune.checkpoints.keys import results_key, trial_prefix, weights_key
from petskin_tune.checkpoints.restore import ORPHAN_SECONDS
from petskin_tune.checkpoints.retention import Retention
from petskin_tune.database.storage import PetskinStorage, open_storage
from petskin_tune.files.durable import Full, Unavailable
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.leases.lease import Lease, SnapshotPointer, read_leases
from petskin_tune.leases.segments import Choice, Continue, Segments
from petskin_tune.protocol import MASK_MAP, EpochDone, Position
from petskin_tune.study import attributes
from petskin_tune.study.spec import SamplerSpec
from petskin_tune.study.study import Study
from petskin_tune.trial.recorder import appended, summary
from tests.support.leased_studies import UID, LeasedStudy, new_study
from tests.support.pictures import kept
from tests.support.studies import a_spec


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PetskinStorage]:
    opened = open_storage(f"sqlite:///{tmp_path_factory.mktemp('keeping') / 'tune.db'}")
    yield opened
    opened.engine.dispose()


class Shelf:
    """A study whose best trial's weights are kept, its store, and its trials in the hands of one worker each."""

    def __init__(self, storage: PetskinStorage, folder: Path) -> None:
        self.leased: LeasedStudy = new_study(storage)
        self.folder = folder
        self.store = FolderStore(folder / "store", network=False)
        self.study = Study(storage, self.leased.optuna, a_spec(keep_weights=1), UID)
        self.keeper = Retention(self.study, self.store)

    def begin(self, *curve: float) -> HeldTrial:
        """A trial that has trained for as many epochs, with two snapshots and best weights in the store."""
        leases = self.leased.worker("a worker")
        held = leases.next_trial(10**6)
        assert held is not None
        trial = HeldTrial(leases, held)
        history: dict[str, list[float]] = {}
        for epoch, fitness in enumerate(curve, start=1):
            done = EpochDone(epoch, fitness, {"train/box_loss": 1 / epoch, MASK_MAP: fitness}, seconds=60.0)
            history = appended(history, epoch, {**done.metrics, attributes.SECONDS_COLUMN: done.seconds})
            trial.report(epoch, fitness, summary(history))
        prefix = trial_prefix(UID, trial.number)
        for epoch in (1, 2):
            stored = self.store.put(self._file(), f"{prefix}/snapshot-1-{epoch}-0-abcd.pt")
            trial.point_to(SnapshotPointer(stored.key, stored.sha256, Position(epoch, 0)))
        stored = self.store.put(self._file(), weights_key(prefix, 1, "ab" * 32))
        trial.describe({attributes.WEIGHTS: stored.key})
        return trial

    def end(self, *curve: float) -> HeldTrial:
        trial = self.begin(*curve)
        trial.tell(TrialState.COMPLETE, max(curve), {}, {})
        return trial

    def after(self, trial: HeldTrial) -> None:
        self.keeper.after(trial.number)

    def kinds(self, trial: HeldTrial) -> list[str]:
        """What of a trial is in the store: the first words of its files' names."""
        found = self.store.entries(trial_prefix(UID, trial.number))
        return [entry.key.rpartition("/")[2].partition("-")[0].removesuffix(".csv") for entry in found]

    def _file(self) -> Path:
        path = self.folder / "local"
        path.write_bytes(b"x" * 100)
        return path


@pytest.fixture
def shelf(storage: PetskinStorage, tmp_path: Path) -> Shelf:
    return Shelf(storage, tmp_path)


ALL = ["best", "snapshot", "snapshot"]


# ---- curves ----


def test_the_best_trial_keeps_weights_and_curves_and_the_others_nothing(shelf: Shelf) -> None:
    good, bad = shelf.end(0.1, 0.3), shelf.end(0.1, 0.2)
    shelf.after(bad)
    assert shelf.kinds(good) == ["best", "results"]
    assert shelf.kinds(bad) == []


def test_curves_whose_worker_died_with_the_end_of_their_trial_are_kept_at_the_next_one(shelf: Shelf) -> None:
    trial = shelf.end(0.1, 0.3, 0.2)  # nobody tidies up after it
    shelf.after(shelf.end(0.1))
    kept = shelf.folder / "store" / results_key(trial_prefix(UID, trial.number))
    with open(kept, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", "time", "train/box_loss", MASK_MAP]
    assert [float(row[MASK_MAP]) for row in rows] == [0.1, 0.3, 0.2]
    assert [(row["epoch"], row["time"]) for row in rows] == [("1", "60"), ("2", "120"), ("3", "180")]


def test_curves_that_a_killed_worker_left_half_written_are_written_again(shelf: Shelf) -> None:
    trial = shelf.end(0.1, 0.3)
    kept = shelf.folder / "store" / results_key(trial_prefix(UID, trial.number))
    kept.write_text("epoch,ti")
    shelf.after(trial)
    whole = kept.read_text()
    assert whole.startswith("epoch,time,")
    written = kept.stat().st_mtime_ns
    shelf.after(trial)
    assert kept.stat().st_mtime_ns == written, "it was there"


def test_a_store_that_refuses_after_one_trial_has_its_curves_after_the_next(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = shelf.end(0.1, 0.3)
    with monkeypatch.context() as away:
        away.setattr(shelf.store, "put", _refuse)
        shelf.after(trial)
    assert shelf.kinds(trial) == ALL, "what could not be kept must not make room for anything"
    shelf.after(shelf.end(0.1))
    assert shelf.kinds(trial) == ["best", "results"]


def test_curves_are_kept_for_a_best_trial_without_weights(shelf: Shelf) -> None:
    trial = shelf.begin(0.1, 0.3)
    trial.describe({attributes.WEIGHTS: None})
    trial.tell(TrialState.COMPLETE, 0.3, {}, {})
    for _ in range(2):
        shelf.after(trial)
        assert shelf.kinds(trial) == ["results"]


def _refuse(*_: object) -> None:
    raise Unavailable("Input/output error")


# ---- a trial that ends meanwhile ----


@pytest.mark.parametrize("first", ["trials", "leases"])
def test_the_weights_of_a_trial_that_ends_elsewhere_meanwhile_stay(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    ended, elsewhere = shelf.end(0.1), shelf.begin(0.1, 0.3)
    waiting = [lambda: elsewhere.tell(TrialState.COMPLETE, 0.3, {}, {})]
    owner, name = (shelf.study, "trials") if first == "trials" else (keeping, "read_leases")
    real = getattr(owner, name)

    def read(*arguments: Any) -> Any:
        found = real(*arguments)
        if waiting and tidying:
            waiting.pop()()
        return found

    tidying = False
    monkeypatch.setattr(owner, name, read)
    monkeypatch.setattr(shelf.keeper, "_keep_curves", lambda: None)
    tidying = True
    shelf.after(ended)
    assert waiting == [], "it did not end meanwhile"
    assert "best" in shelf.kinds(elsewhere)


# ---- a search that says at its end which trial is the best ----


def test_all_complete_trials_keep_their_weights_until_the_search_has_said_which_is_the_best(shelf: Shelf) -> None:
    shelf.study.spec = shelf.study.spec.model_copy(update={"sampler": SamplerSpec(name="freeze-thaw")})
    luckiest, best = shelf.end(0.1, 0.9), shelf.end(0.5, 0.6)
    shelf.after(best)
    assert shelf.kinds(luckiest) == shelf.kinds(best) == ["best", "results"]
    shelf.study.set_attribute(attributes.RECOMMENDED, {"trial": best.number, "ended": 2, "reason": "by its curve"})
    shelf.keeper.catch_up()
    assert (shelf.kinds(luckiest), shelf.kinds(best)) == ([], ["best", "results"])


# ---- a frozen trial ----


def test_a_frozen_trial_keeps_its_weights_and_one_snapshot(shelf: Shelf) -> None:
    frozen = shelf.begin(0.1, 0.3)
    frozen.freeze()
    shelf.after(frozen)
    assert shelf.kinds(frozen) == ["best", "snapshot"]
    lease = next(lease for lease in read_leases(shelf.study.storage, shelf.study.id))
    assert lease.snapshot is not None
    assert lease.snapshot.key in [entry.key for entry in shelf.store.entries()]


def test_what_a_worker_that_thaws_a_trial_has_just_uploaded_stays(shelf: Shelf) -> None:
    frozen = shelf.begin(0.1, 0.3)
    frozen.freeze()
    fresh = f"{trial_prefix(UID, frozen.number)}/snapshot-2-3-0-abcd.pt"
    shelf.store.put(shelf._file(), fresh)  # the tidying worker has read the lease before it was claimed
    shelf.after(shelf.end(0.1))
    assert fresh in [entry.key for entry in shelf.store.entries()]


# ---- a database that is copied ----


def test_where_the_database_is_copied_a_trial_keeps_all_it_has_until_the_next_one_has_ended(shelf: Shelf) -> None:
    shelf.keeper = Retention(shelf.study, shelf.store, copied=True)
    first = shelf.end(0.1)
    shelf.after(first)
    assert shelf.kinds(first)[-2:] == ["snapshot", "snapshot"]
    second = shelf.end(0.3)
    shelf.after(second)
    assert shelf.kinds(first) == []
    assert shelf.kinds(second) == ["best", "results", "snapshot", "snapshot"]
    third = shelf.end(0.2)
    shelf.after(third)
    assert shelf.kinds(second) == ["best", "results"]
    assert shelf.kinds(third) == ALL


def test_room_is_made_of_what_the_last_ended_trial_may_need_only_when_nothing_else_is_left(shelf: Shelf) -> None:
    shelf.keeper = Retention(shelf.study, shelf.store, copied=True)
    earlier, last = shelf.end(0.1), shelf.end(0.3)  # and then their worker could not tidy up
    running = shelf.begin(0.1)
    shelf.study.spec = a_spec(keep_weights=1, store_limit=sum(entry.size for entry in shelf.store.entries()))
    shelf.keeper.make_room(300, False)
    assert shelf.kinds(earlier) == []
    assert shelf.kinds(last) == shelf.kinds(running) == ALL
    shelf.keeper.make_room(500, False)
    assert shelf.kinds(last) == shelf.kinds(running) == ["best", "snapshot"]


def test_who_finds_the_study_done_brings_the_curves_that_a_killed_worker_left(shelf: Shelf) -> None:
    last = shelf.end(0.3)  # and then its worker was killed
    assert "results" not in shelf.kinds(last)
    assert shelf.keeper.catch_up()
    assert shelf.kinds(last) == ["best", "results"]


# ---- pictures ----


def test_pictures_stay_as_long_as_their_trials_weights_and_go_with_them(shelf: Shelf, tmp_path: Path) -> None:
    first = shelf.end(0.1, 0.3)
    shelf.after(first)
    kept(shelf.store, UID, first.number, tmp_path / "drawn")
    worse = shelf.end(0.1, 0.2)
    kept(shelf.store, UID, worse.number, tmp_path / "drawn")
    shelf.after(worse)
    assert shelf.kinds(first) == ["best", "pictures", "results"]
    assert shelf.kinds(worse) == []
    shelf.after(shelf.end(0.4))
    assert shelf.kinds(first) == []


def test_pictures_go_before_any_snapshot_when_room_is_needed_for_they_can_be_made_again(
    shelf: Shelf, tmp_path: Path
) -> None:
    best = shelf.end(0.3)
    shelf.after(best)
    running = shelf.begin(0.1)
    kept(shelf.store, UID, best.number, tmp_path / "drawn")
    size = sum(entry.size for entry in shelf.store.entries())
    shelf.study.spec = a_spec(keep_weights=1, store_limit=size)
    freed = shelf.keeper.make_room(100, full=False)
    assert [key.rpartition("/")[2][:8] for key in freed.deleted] == ["pictures"]
    assert shelf.kinds(best) == ["best", "results"]
    assert shelf.kinds(running) == ALL


def test_a_persons_own_trials_take_no_place_of_a_trial_with_weights(shelf: Shelf) -> None:
    ours = shelf.end(0.1, 0.3)
    for _ in range(5):
        shelf.study.optuna.add_trial(create_trial(value=0.9))
    shelf.after(ours)
    assert shelf.kinds(ours) == ["best", "results"]


# ---- room that only frozen trials can make ----


def frozen(shelf: Shelf, *curve: float) -> HeldTrial:
    trial = shelf.begin(*curve)
    trial.freeze()
    return trial


def make_all_room(shelf: Shelf, give_up: Callable[[Lease], bool]) -> None:
    shelf.study.spec = a_spec(keep_weights=1, store_limit=1)
    Retention(shelf.study, shelf.store, give_up=give_up).make_room(100, full=False)


def test_a_frozen_trial_ends_before_its_only_snapshot_makes_room(shelf: Shelf) -> None:
    trial, segments = frozen(shelf, 0.1, 0.3), Segments(shelf.leased.worker("another"))
    there: list[list[str]] = []

    def give_up(lease: Lease) -> bool:
        there.append(shelf.kinds(trial))
        return segments.give_up(lease)

    make_all_room(shelf, give_up)
    assert there == [["best", "snapshot"]]
    assert shelf.kinds(trial) == ["best"]
    ended = trial.read()
    assert (ended.state, ended.value) == (TrialState.PRUNED, 0.3)


def test_the_snapshot_of_a_trial_that_was_thawed_since_the_leases_were_read_stays(shelf: Shelf) -> None:
    trial, segments = frozen(shelf, 0.1, 0.3), Segments(shelf.leased.worker("another"))

    def give_up(lease: Lease) -> bool:
        assert segments.next(lambda: Choice(Continue(trial.number, 3))) is not None
        return segments.give_up(lease)

    make_all_room(shelf, give_up)
    assert shelf.kinds(trial) == ["best", "snapshot"]
    assert trial.read().state == TrialState.RUNNING


def test_no_snapshot_goes_before_a_copy_of_the_database_knows_that_its_trial_is_over(shelf: Shelf) -> None:
    trial, segments = frozen(shelf, 0.1, 0.3), Segments(shelf.leased.worker("another"))
    drive = [Full("a quota"), Full("a quota"), None]  # what the home says to each copy

    def give_up(lease: Lease) -> bool:
        is_over = segments.give_up(lease)
        if refusal := drive.pop(0):
            raise refusal
        return is_over

    shelf.study.spec = a_spec(keep_weights=1, store_limit=1)
    keeper = Retention(shelf.study, shelf.store, copied=True, give_up=give_up)
    for _ in range(2):
        with pytest.raises(Full):
            keeper.make_room(100, full=False)
        assert trial.read().state == TrialState.PRUNED
        assert shelf.kinds(trial) == ["best", "snapshot"]
    keeper.make_room(100, full=False)
    assert drive == []
    assert shelf.kinds(trial) == ["best"]


def test_two_uploads_at_once_may_end_the_same_frozen_trial(shelf: Shelf) -> None:
    trial, segments = frozen(shelf, 0.1, 0.3), Segments(shelf.leased.worker("another"))
    others = [True]  # an upload of another thread, which comes in between

    def give_up(lease: Lease) -> bool:
        if others:
            others.clear()
            keeper.make_room(100, full=False)
        return segments.give_up(lease)

    shelf.study.spec = a_spec(keep_weights=1, store_limit=1)
    keeper = Retention(shelf.study, shelf.store, give_up=give_up)
    keeper.make_room(100, full=False)
    assert others == []
    assert shelf.kinds(trial) == ["best"]


def test_where_nobody_can_end_a_frozen_trial_its_only_snapshot_stays(shelf: Shelf) -> None:
    trial = frozen(shelf, 0.1, 0.3)
    shelf.study.spec = a_spec(keep_weights=1, store_limit=1)
    shelf.keeper.make_room(100, full=False)
    assert shelf.kinds(trial) == ["best", "snapshot"]


def test_the_only_snapshot_of_a_trial_that_was_given_back_makes_no_room(shelf: Shelf) -> None:
    trial = shelf.begin(0.1, 0.3)
    trial.release("SIGTERM")
    make_all_room(shelf, lambda _: True)
    assert shelf.kinds(trial) == ["best", "snapshot"]


# ---- what is written meanwhile ----


def fresh(shelf: Shelf, trial: HeldTrial) -> Stored:
    return shelf.store.put(shelf._file(), f"{trial_prefix(UID, trial.number)}/snapshot-1-3-0-abcd.pt")


@pytest.mark.parametrize("why", ["a trial has ended", "room is needed"])
def test_a_snapshot_that_is_committed_while_the_store_is_listed_stays_however_old_it_looks(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    ended, trial = shelf.end(0.1), shelf.begin(0.1, 0.3)
    real, committed = shelf.store.entries, []

    def entries(prefix: str = "") -> list[Entry]:
        if not committed:
            stored = fresh(shelf, trial)
            os.utime(shelf.folder / "store" / stored.key, (1, 1))
            trial.point_to(SnapshotPointer(stored.key, stored.sha256, Position(3, 0)))
            committed.append(stored.key)
        return real(prefix)

    monkeypatch.setattr(shelf.keeper, "_keep_curves", lambda: None)
    monkeypatch.setattr(shelf.store, "entries", entries)
    if why == "a trial has ended":
        shelf.after(ended)
    else:
        shelf.study.spec = a_spec(keep_weights=1, store_limit=1)
        shelf.keeper.make_room(100, full=False)
    assert committed[0] in [entry.key for entry in real()]


def test_a_machine_whose_clock_is_ahead_deletes_no_fresh_upload_and_still_deletes_what_is_old(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, trial = shelf.end(0.1), shelf.begin(0.1, 0.3)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 2 * ORPHAN_SECONDS)
    stored = fresh(shelf, trial)
    shelf.after(ended)
    assert stored.key in [entry.key for entry in shelf.store.entries()], "its lease is being written"
    written = real() - 1.1 * ORPHAN_SECONDS
    os.utime(shelf.folder / "store" / stored.key, (written, written))
    shelf.after(ended)
    assert stored.key not in [entry.key for entry in shelf.store.entries()]
