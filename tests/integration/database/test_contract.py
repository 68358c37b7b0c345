"""Optuna's own contract for storages, passed by ours on SQLite and on PostgreSQL."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
import sqlalchemy
from optuna.testing.pytest_storages import StorageTestCase

from petskin_tune.database.addresses import normalise_url
from petskin_tune.database.storage import PetskinStorage, open_storage


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PetskinStorage]:
    """One database for all: creating Optuna's tables takes longer than the tests."""
    if request.param == "sqlite":
        storage = open_storage(f"sqlite:///{tmp_path_factory.mktemp('contract') / 'tune.db'}")
    else:
        server = normalise_url(request.getfixturevalue("postgres"))
        name = f"contract_{uuid.uuid4().hex[:12]}"
        with sqlalchemy.create_engine(server, isolation_level="AUTOCOMMIT").connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        storage = open_storage(server.set(database=name).render_as_string(hide_password=False))
    yield storage
    storage.remove_session()
    storage.engine.dispose()


class TestPetskinStorageKeepsOptunasContract(StorageTestCase):
    @pytest.fixture
    def storage(self, opened: PetskinStorage) -> PetskinStorage:
        for study in opened.get_all_studies():
            opened.delete_study(study._study_id)
        return opened
