"""The page: its sections in order, with everything they need inside of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from petskin_tune.diagnosis import explain as diagnose
from petskin_tune.printable import html_text
from petskin_tune.views.report import failures, history, parameters, pictures, relations, results, timeline, trials
from petskin_tune.views.report.imported import imported
from petskin_tune.views.report.parts import anchor, preformatted, section
from petskin_tune.views.report.pictures import Gallery
from petskin_tune.views.report.rows import Table, read
from petskin_tune.views.report.style import as_json, hover_texts
from petskin_tune.views.report.summary import summary
from petskin_tune.views.status import collect as status

if TYPE_CHECKING:
    from optuna.study import Study

    from petskin_tune.leases.lease import Lease

LINKS = (
    "Best settings",
    "Learning curves",
    "Each parameter",
    "Workers and trials",
    "Failures",
    "Classes",
    "Pictures",
    "Trials",
)
OF_A_SEARCH = ("Best settings", "Each parameter", "Classes")  # of them, what no study of repetitions has


class Page:
    """The report, drawn once; its pictures may come later.

    Args:
        study: of Optuna, ours or anybody's.
        now: seconds since 1970.
        leases: of the study.
        options: what a person must type beside ``--study NAME`` to mean this study.
        artifacts: the folder of a person's Optuna artifacts; None: there is none.
    """

    def __init__(
        self,
        study: Study,
        now: float,
        leases: Sequence[Lease] = (),
        *,
        options: str = "",
        artifacts: Path | None = None,
    ) -> None:
        self._added = pictures.added(study, artifacts)
        self._before, self._after = _halves(study, now, leases, options)

    def html(self, galleries: Sequence[Gallery] = ()) -> str:
        """The page with the pictures of these trials."""
        return f"{self._before}{pictures.picture_section(galleries, self._added)}{self._after}"


def render(
    study: Study, now: float, leases: Sequence[Lease] = (), *, options: str = "", artifacts: Path | None = None
) -> str:
    """The report as HTML, without pictures of trials; see :class:`Page`."""
    return Page(study, now, leases, options=options, artifacts=artifacts).html()


def _halves(study: Study, now: float, leases: Sequence[Lease], options: str) -> tuple[str, str]:
    """What comes before the pictures, and what comes after them."""
    shown = status.collect(study, leases, now, options=options)
    table = read(study, leases, {trial.number: trial.hold for trial in shown.running})
    shares = parameters.importances(table)
    before = f"{summary(table, shown)}{_links(table)}{''.join(_before_pictures(table, shares))}"
    after = "".join(_after_pictures(study, table, now))
    return _head(table.name) + before, after + _foot(as_json(hover_texts(table.rows)))


def _before_pictures(table: Table, shares: dict[str, float]) -> Iterator[str]:
    if table.is_of_repetitions:  # which search nothing and have no best
        yield history.learning_curves(table)
        return
    yield results.best_beside_defaults(table)
    yield history.best_so_far(table)
    yield history.learning_curves(table)
    yield parameters.importance_section(table, shares)
    yield parameters.each_parameter(table, shares)
    yield relations.map_of_two(table, shares)
    yield relations.together(table)
    yield results.classes(table)


def _after_pictures(study: Study, table: Table, now: float) -> Iterator[str]:
    yield timeline.timeline(table, now)
    yield failures.failures(table)
    yield section("Diagnosis", "What the curves say, in words.", preformatted(diagnose.of_study(study)))
    yield trials.all_trials(table)
    yield imported(study)


def _links(table: Table) -> str:
    if not table.rows:
        return ""
    titles = [title for title in LINKS if not (table.is_of_repetitions and title in OF_A_SEARCH)]
    links = "".join(f'<a href="#{anchor(title)}">{html_text(title)}</a>' for title in titles)
    return f"<nav>{links}</nav>"


def _own(name: str) -> str:
    """A file of this package's."""
    return (files(__package__) / name).read_text("utf-8")


def _head(name: str) -> str:
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{html_text(name)} · petskin-tune</title><style>{_own('page.css')}</style>"
    )
    return f'<!doctype html><html lang="en"><head>{head}</head><body><h1>{html_text(name)}</h1>'


def _foot(texts: str) -> str:
    from plotly.offline import get_plotlyjs

    return (
        f'<script type="application/json" id="texts">{texts}</script><script>{get_plotlyjs()}</script>'
        f"<script>{_own('page.js')}</script></body></html>\n"
    )
