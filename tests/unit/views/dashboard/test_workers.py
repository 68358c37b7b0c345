from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from petskin_tune.leases.lease import read_leases
from petskin_tune.views.dashboard import workers
from petskin_tune.views.dashboard.workers import WithWorkers
from petskin_tune.views.status import collect
from petskin_tune.views.status.facts import Status
from tests.support.made_up import MadeUp, a_varied_study


def of(made: MadeUp) -> Status:
    study = made.study
    return collect.collect(study.optuna, read_leases(study.storage, study.id), time.time(), options="--home here")


@pytest.fixture
def status(tmp_path: Path) -> Status:
    return of(a_varied_study(tmp_path))


def asked(application: WithWorkers, path: str, method: str = "GET") -> tuple[str, dict[str, str], str]:
    given: list[Any] = []
    body = b"".join(application({"PATH_INFO": path, "REQUEST_METHOD": method}, lambda *told: given.extend(told)))
    return given[0], dict(given[1]), body.decode()


def other(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"another page"]


def test_every_trial_that_is_not_over_stands_beside_its_worker_and_what_a_kill_costs(status: Status) -> None:
    shown = workers.now(status)
    for word in ("코랩-세션-하나", "training", "worker died", "suspended", "frozen", "12/27", "0.114"):
        assert word in shown
    assert "its worker has ended without a word" in shown


def test_who_comes_when_nobody_works_reads_what_to_type(tmp_path: Path) -> None:
    made = MadeUp(tmp_path)
    made.add("RUNNING", 0.06, 3, lease="frozen")
    shown = workers.now(of(made))
    assert "Nobody works on it now." in shown
    assert "tune-worker --study petskin --home here" in shown


def test_names_of_others_are_text(tmp_path: Path) -> None:
    made = MadeUp(tmp_path)
    made.add("RUNNING", 0.06, 3, lease="running", worker="<img src=x onerror=alert(1)>\u202e\x1b[2J")
    shown = workers.now(of(made))
    assert "&lt;img src=x" in shown
    assert not {"\u202e", "\x1b"} & set(shown)


def test_the_page_runs_its_own_script_alone_and_is_never_kept(status: Status) -> None:
    code, headers, body = asked(WithWorkers(other, lambda: status), "/workers")
    assert code == "200 OK"
    assert headers["Cache-Control"] == "no-store"
    assert "script-src 'sha256-" in headers["Content-Security-Policy"]
    assert f"<script>{workers.SCRIPT}</script>" in body
    assert body.count("<script") == 1
    assert asked(WithWorkers(other, lambda: status), "/workers/now")[2] in body


def test_other_pages_are_the_dashboards_and_a_study_that_is_gone_is_told(status: Status) -> None:
    gone = WithWorkers(other, lambda: None)
    assert asked(gone, "/dashboard")[2] == "another page"
    assert asked(gone, "/workersX")[2] == "another page"
    assert "not there any more" in asked(gone, "/workers/")[2]
    code, headers, body = asked(gone, "/workers", "HEAD")
    assert (code, body) == ("200 OK", "")
    assert int(headers["Content-Length"]) > 0
