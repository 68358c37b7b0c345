"""A real PostgreSQL asked for what only it can answer: passwords, poolers, idle transactions, plain Optuna outside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import text
from sqlalchemy.engine import URL, make_url

from petskin_tune.database import engine as database
from petskin_tune.database import queries
from petskin_tune.database.storage import PetskinStorage, open_storage
from petskin_tune.errors import UsageError
from petskin_tune.leases.claims import Claims
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.leases.lease import SnapshotPointer, read_leases
from petskin_tune.protocol import Position
from tests.support.leased_studies import fence_of
from tests.support.servers import LossyLine, Server, maintenance, running_server
from tests.support.simulated import until


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture(scope="module")
def url(server: Server) -> URL:
    return make_url(server.new_database())


@pytest.fixture
def line(url: URL) -> Iterator[LossyLine]:
    line = LossyLine(url)
    yield line
    line.end()


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def _timeout_in_a_transaction(storage: PetskinStorage) -> tuple[str, int]:
    """What PostgreSQL says of the connection that a transaction uses: its patience, and its backend."""
    return storage.transaction(
        lambda session: (
            session.execute(text("SHOW idle_in_transaction_session_timeout")).scalar_one(),
            session.execute(text("SELECT pg_backend_pid()")).scalar_one(),
        )
    )


def test_every_connection_tells_the_server_when_to_give_a_silent_transaction_up(url: URL) -> None:
    storage = open_storage(_text(url))
    first, second = _timeout_in_a_transaction(storage), _timeout_in_a_transaction(storage)
    assert first == second  # the same connection, kept
    assert first[0] == "30s"


def test_behind_a_transaction_pooler_every_transaction_tells_it_on_a_connection_of_its_own(
    line: LossyLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "POOLER_PORT", line.port)
    storage = open_storage(_text(line.url))
    first, second = _timeout_in_a_transaction(storage), _timeout_in_a_transaction(storage)
    assert first[0] == second[0] == "30s"
    assert first[1] != second[1]


def test_a_transaction_that_fell_silent_is_ended_and_done_again(url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "IDLE_TRANSACTION_SECONDS", 1)
    storage = open_storage(_text(url))
    attempts: list[int] = []

    def fall_silent_once(session) -> int:
        pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
        attempts.append(pid)
        if len(attempts) == 1:
            until(lambda: not _is_there(url, pid), "the server to give the silent transaction up")  # this is the fault
        return session.execute(text("SELECT 42")).scalar_one()

    assert storage.transaction(fall_silent_once) == 42
    assert len(attempts) >= 2
    assert attempts[0] not in attempts[1:]


def _is_there(url: URL, backend: int) -> bool:
    with maintenance(url) as connection:
        asked = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {backend}"
        return connection.exec_driver_sql(asked).scalar_one() > 0


def test_connections_that_fell_silent_though_somebody_acknowledges_are_given_up_and_the_work_is_done_again(
    line: LossyLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_storage(_text(line.url))  # has its tables already when answers are no longer waited for so long
    monkeypatch.setattr(database, "ANSWER_SECONDS", 2.0)
    storage = open_storage(_text(line.url))
    attempts: list[int] = []

    def fall_silent_once(session) -> int:
        attempts.append(session.execute(text("SELECT 1")).scalar_one())
        if len(attempts) == 1:
            line.fall_silent()
        return session.execute(text("SELECT 42")).scalar_one()

    assert storage.transaction(fall_silent_once) == 42  # cut in its midst
    assert len(attempts) >= 2
    silenced = line.swallowed
    assert silenced >= 1
    line.fall_silent()
    assert storage.transaction(lambda session: session.execute(text("SELECT 43")).scalar_one()) == 43  # and before
    assert line.swallowed > silenced


def test_an_answer_that_takes_its_time_is_waited_for(url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "ANSWER_SECONDS", 120.0)
    storage = open_storage(_text(url))
    assert storage.transaction(lambda session: session.execute(text("SELECT 1 FROM pg_sleep(2)")).scalar_one()) == 1
    assert storage.patience.failures == 0


def test_a_wrong_password_is_refused_at_once_and_never_shown(server: Server, url: URL) -> None:
    with maintenance(url) as connection:
        connection.exec_driver_sql("CREATE ROLE guarded LOGIN PASSWORD 'right-one'")
        rules = Path(connection.exec_driver_sql("SHOW hba_file").scalar_one())
        rules.write_text("local all guarded scram-sha-256\n" + rules.read_text())
        connection.exec_driver_sql("SELECT pg_reload_conf()")
    refused: UsageError | None = None

    def is_refused() -> bool:
        nonlocal refused
        try:
            open_storage(_text(url.set(username="guarded", password="wr0ng-0ne")))
        except UsageError as error:
            refused = error
        return refused is not None

    until(is_refused, "the server to take the new rules")
    assert "refuses the user or the password" in str(refused)
    chain, error = [], refused
    while error is not None:
        chain.append(repr(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert "wr0ng" not in " ".join(chain)


def test_what_plain_optuna_reads_of_a_study_of_ours_is_an_ordinary_study(database_url: str) -> None:
    storage = open_storage(database_url)
    study = optuna.create_study(storage=storage, study_name="s", direction="maximize")
    leases = Claims(storage, fence_of(study), "w", 90.0, 300.0)
    for value in (0.25, 0.5):
        held = leases.next_trial(10)
        assert held is not None
        trial = HeldTrial(leases, held)
        trial.store_draw({"x": value}, {"x": optuna.distributions.FloatDistribution(0, 1)}, {}, {"origin": "search"})
        for epoch in (1, 2):
            trial.report(epoch, value * epoch / 2, {"petskin-tune:epochs": epoch})
        trial.point_to(SnapshotPointer("key", "0" * 64, Position(1, 0)))
        trial.tell(TrialState.COMPLETE, value, {}, {"constraints": [0.0]})
    plain = optuna.load_study(study_name="s", storage=database_url)
    assert (plain.best_value, plain.best_params) == (0.5, {"x": 0.5})
    assert [trial.intermediate_values for trial in plain.trials] == [{1: 0.125, 2: 0.25}, {1: 0.25, 2: 0.5}]
    assert [trial.user_attrs["petskin-tune:epochs"] for trial in plain.trials] == [2, 2]
    assert all(trial.datetime_complete >= trial.datetime_start for trial in plain.trials)
    plain.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    assert [trial.number for trial in plain.trials] == [0, 1, 2, 3]


@pytest.mark.parametrize(("version", "newer_columns"), [(1, ("lease_seconds", "until_epoch")), (2, ("until_epoch",))])
def test_a_database_from_before_is_brought_up_to_date(
    version: int, newer_columns: tuple[str, ...], database_url: str
) -> None:
    storage = open_storage(database_url)
    study = optuna.create_study(storage=storage, study_name="s", direction="maximize")
    assert Claims(storage, fence_of(study), "w", 6.0, 300.0).next_trial(1) is not None
    with storage.engine.begin() as connection:
        for column in newer_columns:
            connection.execute(text(f"ALTER TABLE trial_leases DROP COLUMN {column}"))
        connection.execute(text(f"UPDATE petskin_tune_schema SET version = {version}"))
    (lease,) = read_leases(open_storage(database_url), study._study_id)
    assert lease.seconds == (90.0 if version == 1 else 6.0)
    assert lease.until is None
    with storage.engine.connect() as connection:
        assert queries.installed_version(connection) == queries.SCHEMA_VERSION
