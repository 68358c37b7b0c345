from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import optuna
import pytest

from petskin_tune.errors import UsageError
from petskin_tune.protocol import Position
from petskin_tune.study import attributes
from petskin_tune.views import report
from tests.support import curves as made
from tests.support.curves import MASK
from tests.support.made_up import GONE
from tests.support.studies import NOW, a_lease, a_spec, a_study, add


def a_searched_study(complete: int) -> optuna.Study:
    study = a_study(a_spec())
    for number in range(complete):
        history = {name: [float(value) for value in values] for name, values in made.healthy(number, epochs=27).items()}
        curve = dict(enumerate(history[MASK], start=1))
        attrs = {attributes.HISTORY: history, attributes.SECONDS: 3600.0, attributes.EPOCHS: 27}
        add(study, "COMPLETE", max(history[MASK]), curve=curve, lr0=10 ** -(1 + number / complete), **attrs)
    return study


def text_of(html: str) -> str:
    """What a person reads: without scripts and tags."""
    return re.sub(r"<[^>]+>", " ", re.sub(r"<(script|style)[ >].*?</\1>", "", html, flags=re.DOTALL))


def plots_in(html: str) -> dict[str, int]:
    """How many plots each section has that has any."""
    sections = re.findall(r'<section id="([^"]+)">(.*?)</section>', html, flags=re.DOTALL)
    return {name: count for name, content in sections if (count := content.count('class="plot"'))}


def figures_in(html: str, section: str) -> list[dict[str, Any]]:
    """The figures of a section, as plotly.js gets them."""
    content = html.split(f'<section id="{section}">')[1].split("</section>")[0]
    found = re.findall(r'class="plot".*?<script type="application/json">(.*?)</script>', content, flags=re.DOTALL)
    return [json.loads(text) for text in found]


def traces_of(html: str) -> list[dict[str, Any]]:
    """The traces of "Workers and trials"."""
    (figure,) = figures_in(html, "workers-and-trials")
    return list(figure["data"])


def test_the_report_shows_best_diagnosis_plots_trials_and_failures() -> None:
    study = a_searched_study(6)
    add(study, "FAIL", failure={"kind": "data", "message": "image 7 cannot be read", "detail": ""})
    html = report.render(study, NOW)
    text = text_of(html)
    for piece in ("petskin", "best: mask mAP 0.4", "Diagnosis", "Importance of the parameters", "Trials (7)"):
        assert piece in text
    assert "image 7 cannot be read" in text
    assert plots_in(html) == {
        "best-so-far": 2,
        "learning-curves": 1,
        "importance-of-the-parameters": 1,
        "each-parameter": 2,
        "all-parameters-together": 1,
        "workers-and-trials": 1,
    }


def test_the_report_loads_nothing_from_anywhere() -> None:
    html = report.render(a_searched_study(5), NOW)
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=", html)


def test_importance_needs_four_complete_trials_and_says_so() -> None:
    html = report.render(a_searched_study(3), NOW)
    assert "Needs 4 complete trials, or 8 with pruned ones: so far 3 and 3." in text_of(html)
    assert "whose importance is known" in text_of(html)
    assert "importance-of-the-parameters" not in plots_in(html)


def test_an_empty_study_and_one_whose_values_are_all_alike_still_make_a_report() -> None:
    assert "No trial is complete yet." in text_of(report.render(a_study(a_spec()), NOW))
    study = a_study(a_spec())
    for _ in range(5):
        add(study, "COMPLETE", 0.2)
    assert "The last 5 complete trials have the same value" in text_of(report.render(study, NOW))


def test_what_a_study_says_can_put_no_markup_into_its_report() -> None:
    study = a_searched_study(4)
    attack = "<img src=x onerror=alert(1)>"
    failure = {"kind": attack, "message": attack, "detail": f"{attack}\n</pre>{attack}", "log": f"/home/{attack}"}
    add(study, "FAIL", failure=failure)
    add(study, "RUNNING", given_back=failure)
    html = report.render(study, NOW)
    assert "</pre>&lt;img" not in html
    assert attack not in html
    assert attack.replace("<", "&lt;").replace(">", "&gt;") in html


def test_what_a_study_says_can_neither_turn_the_page_nor_keep_it_from_being_written() -> None:
    study = a_searched_study(4)
    odd = "\u202egpj\ud800\udcc7"
    failure = {"kind": odd, "message": odd, "detail": odd, "log": odd}
    add(study, "FAIL", failure=failure, worker=odd)
    add(study, "COMPLETE", 0.9, curve={1: 0.9}, worker=odd, optimizer="SGD")
    study.set_user_attr("note", odd)
    html = report.render(study, NOW)
    assert "\u202e" not in html
    assert html.encode("utf-8")
    spelled = r"\u202egpj\ud800\xc7"
    assert f"<td>{spelled}</td>" in html.replace('<td class="more">', "<td>")
    (figure,) = figures_in(html, "workers-and-trials")
    assert spelled in figure["layout"]["yaxis"]["ticktext"]


def test_writing_a_report_leaves_the_study_and_optunas_verbosity_as_they_were(tmp_path: Path) -> None:
    study = a_searched_study(4)
    before, verbosity = repr(study.trials), optuna.logging.get_verbosity()
    report.write(study, tmp_path / "report.html")
    assert (repr(study.trials), optuna.logging.get_verbosity()) == (before, verbosity)
    assert (tmp_path / "report.html").stat().st_size > 1_000_000


def test_a_report_that_cannot_be_written_is_refused_before_it_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "Page", lambda *_, **__: pytest.fail("drawn for nothing"))
    with pytest.raises(UsageError, match=r"r\.html cannot be written: there is no folder .*nowhere"):
        report.write(a_study(a_spec()), tmp_path / "nowhere" / "r.html")
    assert list(tmp_path.iterdir()) == []


def test_what_was_recorded_of_a_failure_is_in_the_report_its_end_above_all() -> None:
    study = a_searched_study(4)
    detail = "Traceback\n" + "  in between\n" * 3000 + "RuntimeError: Error(s) in loading:\n\tsize mismatch for x\n"
    add(study, "FAIL", failure={"kind": "crashed", "message": "m", "detail": detail, "log": "/runs/7/train.log"})
    text = text_of(report.render(study, NOW))
    assert "size mismatch for x" in text
    assert "all of it: /runs/7/train.log" in text
    assert text.count("in between") < 30


HOLDS: dict[str, tuple[dict[str, Any] | None, str]] = {
    "trained": ({}, "running"),
    "frozen": ({"state": "frozen"}, "frozen"),
    "given back": ({"state": "released"}, "suspended"),
    "its worker is dead": ({"identity": GONE}, "suspended"),
    "its worker is silent": ({"expires_in": -5.0}, "suspended"),
    "it died at birth": (None, "suspended"),
}


@pytest.mark.parametrize("hold", HOLDS)
def test_a_trial_that_has_not_ended_is_called_by_who_holds_it(hold: str) -> None:
    lease, word = HOLDS[hold]
    study = a_searched_study(1)
    trial = add(study, "RUNNING", curve={1: 0.1})
    leases = [] if lease is None else [a_lease(trial, Position(1, 0), **lease)]
    html = report.render(study, NOW, leases)
    assert {"running", "frozen", "suspended"} & {figure["name"] for figure in traces_of(html)} == {word}
    text = text_of(html)
    assert ("No trial was interrupted." in text) is (word != "suspended")
    assert f"<td>{word}</td>" in html
