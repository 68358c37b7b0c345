"""When a worker makes pictures, and that nothing which happens to them reaches a trial."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from optuna.trial import TrialState

from petskin_tune.checkpoints import pictures
from petskin_tune.checkpoints.keys import trial_prefix
from petskin_tune.database.storage import PetskinStorage, open_storage
from petskin_tune.errors import UsageError
from petskin_tune.files.durable import Unavailable
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.protocol import Failed
from petskin_tune.study import attributes
from petskin_tune.trial import workplace
from petskin_tune.trial.inputs import Prepared
from petskin_tune.trial.workplace import Workplace
from petskin_tune.worker import pictures as module
from petskin_tune.worker.pictures import SHARE, START_SECONDS, Pictures
from tests.support.leased_studies import UID
from tests.support.pictures import Draughtsman, kept, weights
from tests.support.studies import a_spec
from tests.support.workers import wait_until
from tests.support.workplace import Script, a_workplace

AFFORDABLE = START_SECONDS / SHARE + 1  # seconds of a trial
LONG = 30 / SHARE  # the same: its pictures may take half a minute of real time


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PetskinStorage]:
    opened = open_storage(f"sqlite:///{tmp_path_factory.mktemp('pictures') / 'tune.db'}")
    yield opened
    opened.engine.dispose()


class Worked:
    """A worker's place after trials that were told, and their weights are in the store."""

    def __init__(self, storage: PetskinStorage, folder: Path, draughtsman: Draughtsman) -> None:
        self.draughtsman = draughtsman
        self.place: Workplace = a_workplace(storage, folder, Script(), a_spec(keep_weights=2))
        self.place.processes = cast(Any, draughtsman)
        self.folder = folder
        self.is_asked = False
        self.pictures = Pictures(self.place, lambda: self.is_asked)

    def end(self, value: float, seconds: float = LONG) -> int:
        held = self.place.claims.next_trial(10**6)
        assert held is not None
        trial = HeldTrial(self.place.claims, held)
        trial.store_draw({}, {}, {}, {attributes.ORIGIN: "search"})
        key = weights(self.place.store, UID, trial.number, self.folder / "weights.pt")
        trial.tell(TrialState.COMPLETE, value, {attributes.WEIGHTS: key, attributes.SECONDS: seconds}, {})
        return trial.number

    def made(self) -> list[int]:
        """Numbers of the trials for which a process was started."""
        return [job.trial for job in self.draughtsman.jobs]

    def has(self, number: int) -> bool:
        return pictures.find(self.place.store, UID, number) is not None


@pytest.fixture
def worked(storage: PetskinStorage, tmp_path: Path) -> Worked:
    return Worked(storage, tmp_path, Draughtsman())


def test_the_best_trials_have_pictures_made_once(worked: Worked) -> None:
    first, second, third = worked.end(0.3), worked.end(0.2), worked.end(0.1)
    worked.pictures.catch_up()
    assert worked.made() == [first, second]
    assert [worked.has(number) for number in (first, second, third)] == [True, True, False]
    best = worked.end(0.4)
    worked.pictures.catch_up()
    worked.pictures.catch_up()
    assert worked.made() == [first, second, best]


def test_what_another_has_made_is_not_made_again(worked: Worked) -> None:
    number = worked.end(0.3)
    kept(worked.place.store, UID, number, worked.folder / "drawn")
    worked.pictures.catch_up()
    assert worked.made() == []


def test_a_trial_of_a_fiftieth_that_is_too_short_costs_not_even_a_look_at_the_store(
    worked: Worked, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked.end(0.3, seconds=AFFORDABLE - 2)
    monkeypatch.setattr(worked.place.store, "entries", lambda *_: pytest.fail("the store was looked at"))
    worked.pictures.catch_up()
    assert worked.made() == []


def test_a_validation_counts_before_it_was_measured_and_what_was_measured_counts_after(worked: Worked) -> None:
    worked.place.times.validation = 30.0
    short = worked.end(0.3)
    worked.pictures.catch_up()
    assert not worked.has(short)
    long = worked.end(0.4, seconds=AFFORDABLE + 30 / SHARE)
    worked.pictures.catch_up()
    assert worked.has(long)
    assert worked.has(short)  # they took less than was feared


def test_pictures_that_take_longer_than_a_fiftieth_are_ended_and_not_tried_again(
    storage: PetskinStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    worked = Worked(storage, tmp_path, Draughtsman(hangs=True))
    monkeypatch.setattr(module, "START_SECONDS", 0.001)
    number = worked.end(0.3, seconds=0.5 / SHARE)
    with caplog.at_level(logging.WARNING):
        worked.pictures.catch_up()
    wait_until(lambda: worked.draughtsman.ended == 1 or not worked.made())
    assert "left to `report`" in caplog.text
    assert not worked.has(number)
    before = worked.made()
    worked.pictures.catch_up()
    assert worked.made() == before


def test_the_data_set_is_not_looked_at_for_pictures_but_for_the_next_trial(
    worked: Worked, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(*_: Any) -> None:
        raise UsageError("looked at")

    monkeypatch.setattr(workplace, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(workplace, "require_unchanged", look)
    number = worked.end(0.3)
    worked.pictures.catch_up()
    assert worked.has(number)
    with pytest.raises(UsageError, match="looked at"):
        worked.place.data()


def test_getting_the_data_set_does_not_count(worked: Worked, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    prepared = worked.place.known_data()

    def fetched(*_: Any) -> Prepared:
        now[0] += 1e6
        return prepared

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(workplace, "data_of", fetched)
    worked.place._inputs = None
    number = worked.end(0.3)
    worked.pictures.catch_up()
    assert (now, worked.has(number)) == ([1e6], True)


def test_a_worker_that_is_asked_to_stop_waits_for_no_picture(storage: PetskinStorage, tmp_path: Path) -> None:
    worked = Worked(storage, tmp_path, Draughtsman(hangs=True))
    start = worked.draughtsman.start

    def asked_meanwhile(*arguments: Any) -> Any:
        worked.is_asked = worked.draughtsman.is_alive()
        return start(*arguments)

    worked.draughtsman.start = asked_meanwhile  # type: ignore[method-assign]
    worked.end(0.3, seconds=1e6)
    worked.pictures.catch_up()
    wait_until(lambda: worked.draughtsman.ended == 1)
    worked.is_asked = False
    worked.draughtsman._hangs = False
    worked.pictures.catch_up()
    assert worked.made() == [0, 0]  # made later
    assert worked.has(0)


def _broken(_: Any) -> Any:
    raise RuntimeError("nobody foresaw it")


@pytest.mark.parametrize("says", [lambda _: Failed("crashed", "out of memory"), _broken], ids=["told", "unforeseen"])
def test_a_failure_is_a_line_in_the_log(
    says: Any, storage: PetskinStorage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worked = Worked(storage, tmp_path, Draughtsman(says))
    number = worked.end(0.3)
    with caplog.at_level(logging.WARNING):
        worked.pictures.catch_up()
    assert "no pictures" in caplog.text
    assert not worked.has(number)


def test_a_store_that_does_not_answer_is_a_line_in_the_log(
    worked: Worked, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: Any) -> Any:
        raise Unavailable("the bucket does not answer")

    number = worked.end(0.3)
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(worked.place.store, "entries", away)
        worked.pictures.catch_up()
    assert "the bucket does not answer" in caplog.text
    worked.pictures.catch_up()
    assert worked.has(number)


def test_what_stays_in_the_store_after_that_is_all_of_it_or_nothing(worked: Worked, monkeypatch: Any) -> None:
    def cut_short(*_: Any) -> Any:
        raise Unavailable("cut short")

    number = worked.end(0.3)
    with monkeypatch.context() as patch:
        patch.setattr(worked.place.store, "put", cut_short)
        worked.pictures.catch_up()
    prefix = trial_prefix(UID, number)
    assert [entry.key.partition("best-")[0] for entry in worked.place.store.entries(prefix)] == [f"{prefix}/"]
