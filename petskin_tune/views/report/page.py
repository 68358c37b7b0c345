"""The page: its sections in order, with everything they need inside of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from petskin_tune.diagnosis import explain as diagnose
from petskin_tune.views import status
from petskin_tune.views.report import failures, history, parameters, pictures, relations, results, timeline, trials
from petskin_tune.views.report.imported import imported
from petskin_tune.views.report.parts import anchor, preformatted, section
from petskin_tune.views.report.rows import Table, read
from petskin_tune.views.report.style import as_json, hover_texts
from petskin_tune.views.report.summary import summary

if TYPE_CHECKING:
    from optuna.study import Study

    from petskin_tune.leases.lease import Lease

LINKS = ("Best settings", "Learning curves", "Each parameter", "Workers and trials", "Failures", "Classes", "Trials")


def render(
    study: Study, now: float, leases: Sequence[Lease] = (), *, options: str = "", artifacts: Path | None = None
) -> str:
    """The report as HTML.

    Args:
        study: of Optuna, ours or anybody's.
        now: seconds since 1970.
        leases: of the study.
        options: what a person must type beside ``--study NAME`` to mean this study.
        artifacts: the folder of the study's Optuna artifacts; None: it has none.
    """
    shown = status.collect(study, leases, now, options=options)
    table = read(study, leases, {trial.number for trial in shown.running if trial.hold == "frozen"})
    sections = list(_sections(study, table, now, artifacts))
    return _page(
        table.name, f"{summary(table, shown)}{_links(table)}{''.join(sections)}", as_json(hover_texts(table.rows))
    )


def _sections(study: Study, table: Table, now: float, artifacts: Path | None) -> Iterator[str]:
    shares = parameters.importances(table)
    yield results.best_beside_defaults(table)
    yield history.best_so_far(table)
    yield history.learning_curves(table)
    yield parameters.importance_section(table, shares)
    yield parameters.each_parameter(table, shares)
    yield relations.map_of_two(table, shares)
    yield relations.together(table)
    yield results.classes(table)
    yield pictures.picture_section(pictures.pictures(study, artifacts))
    yield timeline.timeline(table, now)
    yield failures.failures(table)
    yield section("Diagnosis", "What the curves say, in words.", preformatted(diagnose.of_study(study)))
    yield trials.all_trials(table)
    yield imported(study)


def _links(table: Table) -> str:
    if not table.rows:
        return ""
    links = "".join(f'<a href="#{anchor(title)}">{escape(title)}</a>' for title in LINKS)
    return f"<nav>{links}</nav>"


def _page(name: str, body: str, texts: str) -> str:
    from plotly.offline import get_plotlyjs

    here = files(__package__)
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(name)} · petskin-tune</title><style>{(here / 'page.css').read_text()}</style>"
    )
    scripts = (
        f'<script type="application/json" id="texts">{texts}</script>'
        f"<script>{get_plotlyjs()}</script><script>{(here / 'page.js').read_text()}</script>"
    )
    return (
        f'<!doctype html><html lang="en"><head>{head}</head>'
        f"<body><h1>{escape(name)}</h1>{body}{scripts}</body></html>\n"
    )
