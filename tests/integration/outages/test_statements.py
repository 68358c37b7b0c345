"""The connection cut in every statement position of every write, and its acknowledgement lost: all of it or nothing.

``OPERATIONS`` has every transaction that a worker writes with. Before it is tried again the tables are as before (or,
of an operation of two transactions, as after it), and in the end they are as if nothing had happened.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState
from sqlalchemy import event

from petskin_tune.database.outages import Patience
from petskin_tune.database.storage import PetskinStorage, open_storage
from petskin_tune.errors import LeaseLost
from petskin_tune.leases.claims import Claims
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.leases.lease import Held
from petskin_tune.study import attributes
from petskin_tune.study.creation import create_study
from petskin_tune.study.study import Study
from tests.support.servers import LossyLine, Server, running_server, terminate_backend_of
from tests.support.simulated import draw, pointer
from tests.support.soak import first
from tests.support.studies import a_spec

TABLES = (
    "studies",
    "study_user_attributes",
    "trials",
    "trial_params",
    "trial_values",
    "trial_intermediate_values",
    "trial_user_attributes",
    "trial_system_attributes",
    "trial_leases",
)


@dataclass
class Case:
    """A study with one trial that ``leases`` holds, in a database of its own."""

    storage: PetskinStorage
    leases: Claims
    trial: HeldTrial
    study: Study

    def claim(self) -> None:
        elsewhere = replace(self.leases.identity, host="elsewhere")
        other = Claims(self.storage, self.study.fence, "w", 90.0, 300.0, identity=elsewhere)
        held = other.take_over(by_command=True)
        assert held is not None
        assert held.token == 2

    def birth(self) -> None:
        held = self.leases.next_trial(2)
        assert held is not None
        assert held.number == 1

    def renewal(self) -> None:
        self.storage.patience.call(lambda: self.trial.renew())


def _create_study(case: Case) -> None:
    spec = case.study.spec.model_copy(update={"study": "another"})
    created = create_study(case.storage, spec, points=({"lr0": 0.1},), attributes_of_study={attributes.BASE: ""})
    assert created.name == "another"


OPERATIONS: dict[str, Callable[[Case], Any]] = {
    "claim": Case.claim,
    "birth": Case.birth,
    "report": lambda case: case.trial.report(1, 0.1, {"history": [0.1]}),
    "snapshot pointer": lambda case: case.trial.point_to(pointer()),
    "tell": lambda case: case.trial.tell(TrialState.COMPLETE, 0.1, {"worker": "me"}, {"constraints": [0.0]}),
    "parameters": lambda case: draw(case.trial),
    "attributes": lambda case: case.trial.describe({"worker": "me"}),
    "release": lambda case: case.trial.release("suspended"),
    "count of a crash": lambda case: case.trial.count_crash(),
    "renewal": Case.renewal,
    "values at an epoch": lambda case: case.trial.values_at(1),
    "all trials": lambda case: case.storage.get_all_trials(case.study.id),
    "enqueued point": lambda case: case.study.enqueue({"lr0": 0.1}, "person"),
    "changed target": lambda case: case.study.change(target_trials=7),
    "study": _create_study,
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture(scope="module")
def storage(server: Server) -> PetskinStorage:
    return open_storage(server.new_database(), Patience(seconds=60.0))


def _new_case(storage: PetskinStorage) -> Case:
    for study in storage.get_all_studies():
        storage.delete_study(study._study_id)
    storage.patience.on_wait = lambda _: None
    spec = a_spec(study="s", epochs=3)
    study = create_study(storage, spec, points=(), attributes_of_study={})
    leases = Claims(storage, study.fence, "w", 90.0, 300.0)
    held = leases.next_trial(1)
    assert held is not None
    return Case(storage, leases, HeldTrial(leases, held), study)


@pytest.fixture(scope="module")
def admin(storage: PetskinStorage) -> Iterator[sqlalchemy.Engine]:
    """To look at ``storage`` and to cut its connections, on connections of its own."""
    engine = sqlalchemy.create_engine(storage.engine.url, isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


def _content(engine: sqlalchemy.Engine, *, steady: bool = False) -> dict[str, list[dict]]:
    """All tables; ``steady``: without what differs between two runs of the same story."""
    passing = {"nonce", "identity", "beat", "claimed_at", "expires_at", "snapshot_at", "seconds_lost"}
    passing |= {"datetime_start", "datetime_complete"}
    content = {}
    with engine.connect() as connection:
        for table in TABLES:
            rows = [dict(row) for row in connection.exec_driver_sql(f"SELECT * FROM {table}").mappings()]
            if steady:
                rows = [{k: _plain(k, v) for k, v in row.items() if k not in passing} for row in rows]
            content[table] = sorted(rows, key=repr)
    return content


def _plain(key: str, value: Any) -> Any:
    """Ids and nonces as they are in the first of all runs."""
    if key.endswith("_id") and value is not None:
        return "an id"
    return "a nonce" if isinstance(value, str) and len(value.strip('"')) in (12, 32) else value


class Cutter:
    """Cuts the connection before the n-th statement (or the COMMIT) of whatever ``storage`` does next."""

    def __init__(self, storage: PetskinStorage, admin: sqlalchemy.Engine, cut_at: int | None = None) -> None:
        self.count = 0
        self.fired = False
        self._cut_at = cut_at
        self._admin = admin
        self._listeners = (
            (storage.engine, "before_cursor_execute", lambda connection, *_: self._step(connection)),
            (storage.engine, "commit", self._step),
        )

    def __enter__(self) -> Cutter:
        for listener in self._listeners:
            event.listen(*listener)
        return self

    def __exit__(self, *_: object) -> None:
        for listener in self._listeners:
            event.remove(*listener)

    def _step(self, connection: Any) -> None:
        self.count += 1
        if self.count == self._cut_at:
            terminate_backend_of(connection, self._admin)
            self.fired = True


def _undisturbed(name: str, storage: PetskinStorage, admin: sqlalchemy.Engine) -> tuple[int, dict[str, list[dict]]]:
    """How many statements (COMMITs counted in) an operation has, and what it leaves."""
    case = _new_case(storage)
    with Cutter(storage, admin) as cutter:
        OPERATIONS[name](case)
    return cutter.count, _content(admin, steady=True)


@pytest.mark.parametrize("name", first(5, OPERATIONS))
def test_a_connection_cut_at_any_statement_leaves_no_half_done_state_and_the_next_attempt_does_it_all(
    name: str, storage: PetskinStorage, admin: sqlalchemy.Engine
) -> None:
    statements, expected = _undisturbed(name, storage, admin)
    assert statements >= 2
    for position in range(1, statements + 1):
        case = _new_case(storage)
        before = _content(admin)
        whole: list[bool] = []

        def look(_seconds: float, before: Any = before, whole: list[bool] = whole) -> None:
            whole.append(_content(admin) == before or _content(admin, steady=True) == expected)

        storage.patience.on_wait = look
        with Cutter(storage, admin, position) as cutter:
            OPERATIONS[name](case)
        assert cutter.fired, position
        assert whole[:1] == [True], position
        assert _content(admin, steady=True) == expected, position


@pytest.fixture(scope="module")
def line(storage: PetskinStorage) -> Iterator[LossyLine]:
    line = LossyLine(storage.engine.url)
    yield line
    line.end()


@pytest.fixture(scope="module")
def behind_the_line(line: LossyLine) -> PetskinStorage:
    """The same database, over the line."""
    return open_storage(line.url.render_as_string(hide_password=False), Patience(seconds=60.0))


WRITING = [name for name in OPERATIONS if name not in ("values at an epoch", "all trials")]


@pytest.mark.parametrize("name", WRITING)
def test_when_the_acknowledgement_of_a_commit_is_lost_the_next_attempt_finds_its_own_work(
    name: str, storage: PetskinStorage, admin: sqlalchemy.Engine, behind_the_line: PetskinStorage, line: LossyLine
) -> None:
    _, expected = _undisturbed(name, storage, admin)
    case = _new_case(behind_the_line)
    lost = line.lost
    with _losing_the_commit_of_a_write(behind_the_line, line):
        OPERATIONS[name](case)
    assert line.lost == lost + 1
    assert _content(admin, steady=True) == expected


@contextlib.contextmanager
def _losing_the_commit_of_a_write(storage: PetskinStorage, line: LossyLine) -> Iterator[None]:
    armed = False

    def arm(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        nonlocal armed
        if not armed and statement.strip().startswith(("INSERT", "UPDATE")):
            armed = True
            line.lose_next()

    event.listen(storage.engine, "before_cursor_execute", arm)
    yield
    event.remove(storage.engine, "before_cursor_execute", arm)


def test_a_release_whose_acknowledgement_was_lost_and_that_another_worker_used_at_once_is_no_longer_ours(
    storage: PetskinStorage, behind_the_line: PetskinStorage, line: LossyLine
) -> None:
    case = _new_case(behind_the_line)
    other = Claims(storage, case.study.fence, "b", 90.0, 300.0)
    taken: list[Held | None] = []
    behind_the_line.patience.on_wait = lambda _: taken.append(other.take_over())
    line.lose_next()
    with pytest.raises(LeaseLost):
        case.trial.release("suspended")
    assert taken[0] is not None
    assert HeldTrial(other, taken[0]).lease().worker == "b"


def test_a_study_deleted_with_optunas_own_command_leaves_no_lease(
    storage: PetskinStorage, admin: sqlalchemy.Engine
) -> None:
    case = _new_case(storage)
    url = storage.engine.url.render_as_string(hide_password=False)
    optuna.delete_study(study_name=case.study.name, storage=url)
    assert _content(admin) == {table: [] for table in TABLES}
