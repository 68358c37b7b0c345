"""A study is deleted while a worker that holds nothing, and that nobody sees, has it open."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from petskin_tune.commands.deleting import delete_study
from petskin_tune.database.storage import PetskinStorage, open_storage
from petskin_tune.errors import EXIT_DONE, EXIT_USAGE, UsageError
from petskin_tune.leases.claims import Claims
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.leases.lease import Held, read_leases
from petskin_tune.leases.segments import Begin, Choice, Continue, Segments
from petskin_tune.opening.places import Places
from petskin_tune.study import attributes
from petskin_tune.study.creation import create_study
from petskin_tune.study.spec import PrunerSpec, SamplerSpec, StudySpec
from petskin_tune.study.study import Study, delete_rows, find_study
from tests.support.segment_workers import Workers, new_study
from tests.support.simulated import PATIENCE, _state, until
from tests.support.studies import a_spec

NAME = "petskin"
WAS_DELETED = "The study 'petskin' was deleted from the database."
IS_BEING_DELETED = "The study 'petskin' is being deleted. To end it, type: petskin-tune delete petskin"


def spec() -> StudySpec:
    searched = {"sampler": SamplerSpec(name="freeze-thaw"), "pruner": PrunerSpec(name="none"), "budget": 18}
    return a_spec(epochs=9, lease=30.0, target_trials=18, **searched)


class Kept:
    """A study in a database, a worker that a fault has stopped, and the command that deletes the study."""

    def __init__(self, url: str, folder: Path) -> None:
        self.storage = open_storage(url)
        self.study = new_study(self.storage, spec())
        self.store = folder / "store"
        self.workers = Workers(url, folder)
        self._places = Places(NAME, str(folder), url, str(self.store), command="petskin-tune delete")

    def claims(self) -> Claims:
        return Claims(self.storage, self.study.fence, "before", 90.0, 300.0)

    def give_back_a_trial(self) -> None:
        claims = self.claims()
        held = Segments(claims).next(lambda: Choice(Begin({"lr0": 0.001}, 3)))
        assert held is not None
        HeldTrial(claims, held).release("suspended")

    def stopped_at(self, point: str) -> str:
        name = self.workers.start(f"{point}=stop@1")
        until(lambda: point in self.workers.fired(name), f"a worker at {point}")
        until(lambda: _state(self._pid(name)) == "T", "a stopped process")
        return name

    def go_on(self, name: str) -> int:
        os.kill(self._pid(name), signal.SIGCONT)
        process = self.workers.all[name]
        process.join(PATIENCE)
        assert process.exitcode is not None, "it does not end"
        return int(process.exitcode)

    def _pid(self, name: str) -> int:
        return int(self.workers.all[name].pid)

    def delete(self) -> int:
        return delete_study(self._places, lambda _line: None, lambda _question: True)

    def end(self) -> None:
        for process in self.workers.all.values():
            process.kill()
            process.join()


@pytest.fixture
def kept(database_url: str, tmp_path: Path) -> Iterator[Kept]:
    made = Kept(database_url, tmp_path)
    yield made
    made.end()


@pytest.fixture
def on_a_server(postgres_url: str, tmp_path: Path) -> Iterator[Kept]:
    made = Kept(postgres_url, tmp_path)
    yield made
    made.end()


@pytest.mark.parametrize("point", ["segment-chosen", "before-claim"])
@pytest.mark.parametrize("meanwhile", ["marked", "deleted", "replaced"])
def test_a_worker_that_was_about_to_claim_claims_nothing_of_a_study_that_is_deleted(
    kept: Kept, point: str, meanwhile: str
) -> None:
    if point == "before-claim":
        kept.give_back_a_trial()
    before = [(lease.number, lease.token) for lease in read_leases(kept.storage, kept.study.id)]
    worker = kept.stopped_at(point)
    if meanwhile == "marked":
        kept.study.mark_for_deletion()
    else:
        assert kept.delete() == EXIT_DONE
    new = new_study(kept.storage, spec()) if meanwhile == "replaced" else None
    if new is not None and kept.storage.engine.name == "sqlite":
        assert new.id == kept.study.id, "or it is no test of an id that is given again"
    assert kept.go_on(worker) == EXIT_USAGE
    assert (IS_BEING_DELETED if meanwhile == "marked" else WAS_DELETED) in kept.workers.said(worker)
    assert kept.workers.trainings() == []
    if meanwhile == "marked":
        assert [(lease.number, lease.token) for lease in read_leases(kept.storage, kept.study.id)] == before
        assert kept.delete() == EXIT_DONE
    if new is not None:
        new.refresh()
        assert new.trials() == []
        assert not {"petskin-tune:last-run", "petskin-tune:outlook"} & new.attributes.keys()
    assert not list(kept.store.rglob("*.pt"))


def test_a_birth_that_was_faster_keeps_its_study(on_a_server: Kept) -> None:
    kept, ended = on_a_server, []

    def delete() -> None:
        try:
            ended.append(str(kept.delete()))
        except UsageError as refused:
            ended.append(str(refused))

    kept.study.optuna.set_user_attr(attributes.DELETING, False)  # as a deletion that was refused has left it before
    worker = kept.stopped_at("before-birth")  # in its transaction
    command = threading.Thread(target=delete)
    command.start()
    try:
        until(lambda: bool(ended) or _waits_for_a_lock(kept.storage), "the command to reach the study's lock")
        assert not ended, "it did not wait for the birth"
    finally:
        os.kill(kept.workers.all[worker].pid, signal.SIGCONT)
        command.join(PATIENCE)
    (said,) = ended
    assert "1 worker at work on petskin" in said
    kept.study.refresh()  # nobody deletes it any more
    until(lambda: bool(kept.workers.trainings()), "the newborn trial to be trained")
    kept.study.request_stop()
    kept.workers.all[worker].join(PATIENCE)


def _waits_for_a_lock(storage: PetskinStorage) -> bool:
    with storage.engine.connect() as connection:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        return bool(connection.execute(text(waiting)).scalar_one())


# ---- every write of a worker -----------------------------------------------------------------------------------------


def _thawed(study: Study, claims: Claims) -> Callable[[], object]:
    held = _frozen(claims)
    return lambda: Segments(claims).next(lambda: Choice(Continue(held.number, 6)))


def _frozen(claims: Claims) -> Held:
    held = Segments(claims).next(lambda: Choice(Begin({"lr0": 0.001}, 3)))
    assert held is not None
    HeldTrial(claims, held).freeze()
    return held


def _taken_over(study: Study, claims: Claims) -> Callable[[], object]:
    held = claims.next_trial(10)
    assert held is not None
    HeldTrial(claims, held).release("suspended")
    leases = claims.read()
    return lambda: claims.take_over(leases)


def _ended(study: Study, claims: Claims) -> Callable[[], object]:
    _frozen(claims)
    return lambda: Segments(claims).end()


WRITES: dict[str, Callable[[Study, Claims], Callable[[], object]]] = {
    "a birth": lambda study, claims: lambda: claims.next_trial(10),
    "a segment": lambda study, claims: lambda: Segments(claims).next(lambda: Choice(Begin({}, 3))),
    "a thaw": _thawed,
    "a take-over": _taken_over,
    "the end": _ended,
    "an attribute": lambda study, claims: lambda: study.set_attribute("petskin-tune:recommended", {"trial": 0}),
    "an attribute once": lambda study, claims: lambda: study.set_once("petskin-tune:model", "mine"),
    "one of a list": lambda study, claims: lambda: study.add_once("petskin-tune:other-releases", "8.4.190"),
    "a change": lambda study, claims: lambda: study.change(target_trials=100),
    "a request": lambda study, claims: study.request_stop,
    "a trial to try": lambda study, claims: lambda: study.enqueue({"lr0": 0.001}, "person"),
    "a look": lambda study, claims: study.refresh,
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("meanwhile", ["marked", "deleted", "replaced"])
def test_nothing_is_written_to_a_study_that_is_deleted_nor_to_the_one_in_its_place(
    write: str, meanwhile: str, tmp_path: Path
) -> None:
    kept = Kept(f"sqlite:///{tmp_path / 'tune.db'}", tmp_path)
    study = find_study(kept.storage, NAME)
    assert study is not None
    do = WRITES[write](study, Claims(kept.storage, study.fence, "w", 90.0, 300.0))
    if meanwhile == "marked":
        kept.study.mark_for_deletion()
    else:
        assert kept.delete() == EXIT_DONE
    if meanwhile == "replaced":
        new = create_study(kept.storage, spec(), points=({"lr0": 0.002},), attributes_of_study={})
        assert new.id == study.id
        _taken_over(new, Claims(kept.storage, new.fence, "w", 90.0, 300.0))  # an equal lease of an equal trial
    before = everything(kept.storage)
    if (write, meanwhile) == ("a take-over", "deleted"):  # there is nothing to take any more
        assert do() is None
        return
    with pytest.raises(UsageError) as refused:
        do()
    assert str(refused.value).startswith(IS_BEING_DELETED if meanwhile == "marked" else WAS_DELETED)
    assert everything(kept.storage) == before


def test_of_two_who_delete_a_study_the_slower_leaves_the_one_that_has_its_id(tmp_path: Path) -> None:
    kept = Kept(f"sqlite:///{tmp_path / 'tune.db'}", tmp_path)
    assert kept.delete() == EXIT_DONE
    new = new_study(kept.storage, spec())
    assert new.id == kept.study.id
    before = everything(kept.storage)
    delete_rows(kept.study)
    assert everything(kept.storage) == before


def everything(storage: PetskinStorage) -> dict[str, list[tuple[object, ...]]]:
    """All rows of all tables."""
    with storage.engine.connect() as connection:
        names = list(connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars())
        return {name: sorted(map(tuple, connection.execute(text(f"SELECT * FROM {name}"))), key=repr) for name in names}
