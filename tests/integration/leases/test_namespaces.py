"""Containers on one host share its boot id, and each has its own pid 1: no one is dead because he cannot be seen."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from petskin_tune.database.storage import PetskinStorage, open_storage
from tests.support import simulated
from tests.support.simulated import LONG, let_the_lease_run_out, until

LOOKS = 20  # after which a worker would have taken what it takes at once
UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


def _can_unshare() -> bool:
    return bool(shutil.which("unshare")) and subprocess.run([*UNSHARE, "true"], check=False).returncode == 0


pytestmark = pytest.mark.skipif(not _can_unshare(), reason="no right to make a pid namespace here")


class Container:
    """A simulated worker that holds a trial, and takes over what it can, in a pid namespace of its own."""

    def __init__(self, log: Path, storage: PetskinStorage, study_id: int) -> None:
        self.log = log
        url = storage.engine.url.render_as_string(hide_password=False)
        options = {"url": url, "study_id": study_id, "log": str(log), "lease": LONG, "name": log.stem}
        command = [*UNSHARE, sys.executable, simulated.__file__, "hold", json.dumps(options)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def events(self, event: str) -> list[dict]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in map(json.loads, lines) if line["event"] == event]

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture
def containers(database_url: str, tmp_path: Path) -> Iterator[tuple[PetskinStorage, list[Container]]]:
    storage = open_storage(database_url)
    study_id = optuna.create_study(storage=storage, study_name="s", direction="maximize")._study_id
    both = [Container(tmp_path / f"{name}.jsonl", storage, study_id) for name in ("one", "two")]
    yield storage, both
    for container in both:
        container.kill()


def test_of_two_workers_in_two_pid_namespaces_neither_takes_the_others_living_trial_and_one_takes_the_dead_ones(
    containers: tuple[PetskinStorage, list[Container]],
) -> None:
    storage, (one, two) = containers
    for container in (one, two):
        until(lambda container=container: bool(container.events("born")), "a trial in each container")
    pids = {identity["pid"] for identity in _identities(storage)}
    assert len({identity["boot"] for identity in _identities(storage)}) == 1
    assert len({identity["pid_namespace"] for identity in _identities(storage)}) == 2
    assert pids == {1}  # each is the first process of its namespace
    _let_look(one, two)
    assert one.events("claimed") == two.events("claimed") == one.events("lost") == two.events("lost") == []
    one.kill()
    _let_look(two)
    assert two.events("claimed") == []  # nothing tells it that the other is dead: it waits
    of_the_dead = one.events("born")[0]["trial"]
    let_the_lease_run_out(storage, of_the_dead)
    until(lambda: bool(two.events("claimed")), "the dead one's trial")
    (claim,) = two.events("claimed")
    assert (claim["trial"], claim["token"]) == (of_the_dead, 2)


def _let_look(*containers: Container) -> None:
    """Return when each of them has looked for orphans a number of times more."""
    wanted = [(container, len(container.events("looked")) + LOOKS) for container in containers]
    for container, looks in wanted:
        until(lambda container=container, looks=looks: len(container.events("looked")) >= looks, "more looks")


def _identities(storage: PetskinStorage) -> list[dict]:
    with storage.engine.connect() as connection:
        return [json.loads(row.identity) for row in connection.exec_driver_sql("SELECT identity FROM trial_leases")]
