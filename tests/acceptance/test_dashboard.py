"""The dashboard in a real browser, served by a real process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest

from petskin_tune.database.storage import open_storage
from tests.support.browser import CHROMIUM, PATIENCE, browser
from tests.support.made_up import ELSEWHERE, MadeUp

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

SERVE = """
import signal, sys, optuna
signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background job inherits it ignored
from petskin_tune.database.storage import open_storage
from petskin_tune.leases.lease import read_leases
from petskin_tune.views.dashboard.server import serve
storage = open_storage(sys.argv[1])
study = optuna.load_study(study_name="petskin", storage=storage)
serve(storage, study, port=0, read_leases=lambda: read_leases(storage, study._study_id),
      say=lambda line: print(line, flush=True))
"""


def objective(trial: optuna.Trial) -> float:
    lr0 = trial.suggest_float("lr0", 1e-5, 1e-1, log=True)
    trial.suggest_categorical("optimizer", ["SGD", "AdamW"])
    for epoch in range(1, 10):
        trial.report(0.02 * epoch * (1 - lr0), epoch)
    if trial.number % 4 == 3:
        raise optuna.TrialPruned
    return 0.18 * (1 - lr0)


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/tune.db"
    study = optuna.create_study(storage=open_storage(url), study_name="petskin", direction="maximize")
    study.optimize(objective, n_trials=8)
    return url


@pytest.fixture
def address(url: str) -> Iterator[str]:
    with served(url) as address:
        yield address


@contextmanager
def served(url: str) -> Iterator[str]:
    process = subprocess.Popen([sys.executable, "-c", SERVE, url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    yield line.split(": ")[1].split(" ")[0]
    process.send_signal(signal.SIGINT)
    assert process.wait(240) == 0


@pytest.fixture
def page() -> Iterator[Any]:
    with browser("--host-resolver-rules=MAP evil.example 127.0.0.1") as launched:
        page = launched.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(PATIENCE)
        yield page


def test_a_person_sees_the_study_and_cannot_delete_it(address: str, page: Any, url: str, tmp_path: Path) -> None:
    page.goto(address)
    page.get_by_text("petskin").first.wait_for()
    page.locator(".js-plotly-plot").first.wait_for()
    page.screenshot(path=os.environ.get("TUNE_SCREENSHOTS", str(tmp_path)) + "/dashboard.png")
    status = page.evaluate("fetch('/api/studies/1', {method: 'DELETE'}).then(answer => answer.status)")
    assert status == 405
    assert len(optuna.load_study(study_name="petskin", storage=url).trials) == 8


PLACES = {"": "Hyperparameter Importance", "/trials?numbers=1": "Trial 1 (", "/note": "Note", "/analytics": "Contour"}


@pytest.mark.parametrize("width", [1280, 390])
def test_no_page_of_a_study_is_wider_than_the_screen(address: str, page: Any, width: int, tmp_path: Path) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    troubles: list[str] = []
    page.on("console", lambda said: troubles.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    for place, text in PLACES.items():
        page.goto(address + place)
        page.get_by_role("heading", name=text).first.wait_for()
        name = f"dashboard-{place.strip('/').partition('?')[0] or 'study'}-{width}.png"
        page.screenshot(path=os.environ.get("TUNE_SCREENSHOTS", str(tmp_path)) + f"/{name}")
        assert (place, page.evaluate("document.documentElement.scrollWidth")) == (place, width)
    assert troubles == []


def test_a_name_that_somebody_else_points_to_this_machine_reads_nothing(address: str, page: Any) -> None:
    port = address.split(":")[2].split("/")[0]
    answer = page.goto(f"http://evil.example:{port}/api/studies")
    assert answer.status == 403
    assert "petskin" not in page.content()


@pytest.mark.parametrize("width", [1280, 390])
def test_who_works_on_what_is_followed_live(tmp_path: Path, page: Any, width: int) -> None:
    made = MadeUp(tmp_path)
    made.add(best=0.131, hours_ago=20)
    made.add("RUNNING", 0.121, 12, lease="running", worker="colab-one", identity=ELSEWHERE)
    page.set_viewport_size({"width": width, "height": 844})
    troubles: list[str] = []
    page.on("console", lambda said: troubles.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    with served(f"sqlite:///{tmp_path}/tune.db") as address:
        page.goto(address.partition("/dashboard")[0] + "/workers")
        page.get_by_text("colab-one").wait_for()
        made.add("RUNNING", 0.1, 3, lease="running", worker="colab-two", identity=ELSEWHERE)
        page.get_by_text("colab-two").wait_for()  # without a reload
        page.screenshot(path=os.environ.get("TUNE_SCREENSHOTS", str(tmp_path)) + f"/workers-{width}.png")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_text("no answer").wait_for()
    assert [text for text in troubles if "ERR_CONNECTION_REFUSED" not in text] == []
