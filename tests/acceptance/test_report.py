"""The report in a real browser, at the width of a desk and of a phone, in the light and in the dark."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution

from petskin_tune.checkpoints.pictures import Picture
from petskin_tune.protocol import PICTURES
from petskin_tune.views import report
from tests.support.browser import CHROMIUM, PATIENCE, browser
from tests.support.made_studies import made
from tests.support.pictures import draw
from tests.support.studies import NOW

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

WIDTHS = {"desk": 1280, "phone": 390}

# Of every plot: its traces' points and what the browser drew of them.
PLOTS = """[...document.querySelectorAll(".plot")].map((plot) => ({
  section: plot.closest("section").id,
  points: Math.max(...plot.data.map((trace) => (trace.z ?? trace.x ?? []).flat().filter((v) => v !== null).length)),
  drawn: plot.querySelectorAll(".main-svg path").length,
  right: plot.getBoundingClientRect().right,
}))"""
OVERFLOWING = """[...document.querySelectorAll("body *:not(script)")]
  .filter((part) => !part.closest(".wide") && part.getBoundingClientRect().right > innerWidth + 1)
  .map((part) => part.tagName + "." + part.className)"""
FIRST_IS_SHOWN = """() => {
  const first = document.querySelector("details.pictures img");
  return first.complete && first.naturalWidth === 670 && first.getBoundingClientRect().width > 250;
}"""
# Heads of tables that stand in more lines than they have words.
BROKEN_HEADS = """[...document.querySelectorAll("th")].filter((head) => {
  const text = document.createRange();
  text.selectNodeContents(head);
  const lines = new Set([...text.getClientRects()].map((line) => Math.round(line.top)));
  return lines.size > head.textContent.trim().split(/ +/).length;
}).map((head) => head.textContent)"""
SCALE = """() => {
  const traces = [...document.querySelectorAll(".plot")].flatMap((plot) => plot.data);
  const style = getComputedStyle(document.documentElement);
  const wanted = ["low", "middle", "high"].map((name) => style.getPropertyValue("--map-" + name).trim());
  return [traces.find((trace) => trace.type === "contour").colorscale.map(([, colour]) => colour), wanted];
}"""
UNSHOWN = """[...document.querySelectorAll('[aria-label^="Fitness over "] .xtick text')]
  .filter((number) => !number.getBoundingClientRect().width).map((number) => number.textContent)"""
CUT = """(() => {
  const around = document.querySelector(".tall");
  return around.scrollWidth - around.clientWidth;
})()"""
COLUMN = """(column) => [...document.querySelectorAll("table.trials tbody tr:not([hidden])")]
  .map((row) => row.cells[column].textContent)"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = made(60, 12, running=4)
    file = tmp_path_factory.mktemp("report") / "report.html"
    galleries = [report.Gallery(number, 0.4, _pictures(file.parent / str(number))) for number in (7, 3)]
    file.write_text(report.Page(study.study, NOW, study.leases).html(galleries), encoding="utf-8")
    return file


def _pictures(folder: Path) -> list[Picture]:
    drawn = draw(folder, (670, 1200))
    return [Picture(title, "image/jpeg", (drawn / name).read_bytes()) for name, title in PICTURES.items()]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as launched:
        yield launched


@contextmanager
def shown(chromium: Any, file: Path, width: str) -> Iterator[Any]:
    scheme = "dark" if width == "phone" else "light"
    context = chromium.new_context(viewport={"width": WIDTHS[width], "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.complaints, page.asked = [], []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(file.as_uri(), wait_until="commit")
    page.wait_for_selector("html[data-drawn=yes]", state="attached")
    page.name = width
    yield page
    context.close()


@pytest.fixture(params=WIDTHS)
def page(request: pytest.FixtureRequest, chromium: Any, file: Path) -> Iterator[Any]:
    with shown(chromium, file, request.param) as page:
        yield page


def test_a_report_is_whole_on_the_screen_and_asks_nobody(page: Any, file: Path, tmp_path: Path) -> None:
    page.screenshot(path=os.environ.get("TUNE_SCREENSHOTS", str(tmp_path)) + f"/report-{page.name}.png", full_page=True)
    assert page.complaints == []
    assert [url for url in page.asked if not url.startswith("data:")] == [file.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(OVERFLOWING) == []
    page.locator("details.pictures img").first.scroll_into_view_if_needed()
    page.wait_for_function(FIRST_IS_SHOWN)
    assert page.locator("details.pictures[open] img").count() == len(PICTURES)
    plots = page.evaluate(PLOTS)
    assert len({plot["section"] for plot in plots}) == 9
    assert [plot for plot in plots if not plot["points"] or not plot["drawn"]] == []

    assert page.evaluate(BROKEN_HEADS) == []
    drawn, wanted = page.evaluate(SCALE)
    assert drawn == wanted

    assert page.evaluate(CUT) <= 1 or page.name == "desk"  # pixels of the columns that a phone shows
    first = page.evaluate(COLUMN, 2)
    assert first[0] == max(first)
    page.locator("table.trials th", has_text="epochs").first.click()
    epochs = [int(text) for text in page.evaluate(COLUMN, 3) if text]
    assert epochs == sorted(epochs)
    assert epochs[0] < epochs[-1]

    page.locator("select").select_option("pruned")
    assert {text.partition(",")[0] for text in page.evaluate(COLUMN, 1)} == {"pruned"}
    page.locator("select").select_option("")
    page.locator("[type=search]").fill("lr0<0.001 adamw")
    rows = page.evaluate(COLUMN, 5)
    assert 0 < len(rows) < 60
    assert all(float(text) < 0.001 for text in rows)

    dark = page.name == "phone"
    assert (page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)") is not dark
    assert page.evaluate("document.querySelector('.plot').layout.font.color") == ("#e4e9ef" if dark else "#1f2933")


@pytest.mark.parametrize("width", WIDTHS)
def test_the_numbers_at_the_ends_of_a_narrow_range_are_shown(width: str, chromium: Any, tmp_path: Path) -> None:
    ranges = {"lr0": (5e-4, 2e-3, True), "mosaic": (0.0, 1.0, False), "degrees": (0.0, 45.0, False)}
    space = {name: FloatDistribution(low, high, log=log) for name, (low, high, log) in ranges.items()}
    study = optuna.create_study(study_name="narrow", direction="maximize")
    for value, place in ((0.28, 1.6), (0.22, 0.6)):
        params = {"lr0": place * 1e-3, "mosaic": place / 2, "degrees": 20 * place}
        study.add_trial(optuna.trial.create_trial(value=value, params=params, distributions=space))
    file = tmp_path / "narrow.html"
    file.write_text(report.Page(study, NOW, ()).html(), encoding="utf-8")
    with shown(chromium, file, width) as page:
        assert page.complaints == []
        assert page.locator('[aria-label^="Fitness over "]').count() == len(space)
        assert page.evaluate(UNSHOWN) == []
