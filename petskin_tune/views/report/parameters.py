"""Which parameters matter, and where the good values of each lie."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from petskin_tune.search.samplers import GivenTrials
from petskin_tune.views.report.parts import grid, missing, plot, section
from petskin_tune.views.report.ped_anova import evaluator_kind, shares_of
from petskin_tune.views.report.rows import Row, Table
from petskin_tune.views.report.style import (
    GROUPS,
    HOVER,
    SMALL,
    Figure,
    axis,
    colour,
    dots,
    figure,
    label,
    parameter_axis,
    percent,
    position,
    told,
)
from petskin_tune.views.report.summary import NONE_COMPLETE

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

log = logging.getLogger(__name__)

ENOUGH_COMPLETE, ENOUGH_ENDED = 4, 8  # trials, either of them; of fewer, an importance says nothing
TOP = 0.1  # of the trials: what the importances explain
FEWEST_ON_TOP = 5  # trials, as the method's authors advise
MOST_DOTS = 1000  # in one of the small plots


def importances(table: Table) -> dict[str, float]:
    """The share of each parameter in what makes a trial one of the best, by PED-ANOVA; the largest first.

    Pruned trials count with the value that they had: they are not among the best, and no more is asked of them.
    Empty where nothing can be told.
    """
    if not _are_enough(table):
        return {}
    trials = [row.trial for row in table.valued]
    names = [name for name in table.distributions() if sum(name in trial.params for trial in trials) > 1]
    if not names or len({row.value for row in table.valued}) < 2:
        return {}
    given = GivenTrials([_as_complete(row) for row in table.valued])
    study = optuna.load_study(study_name="given", storage=given)
    evaluator = evaluator_kind()(target_quantile=_top_share(len(trials)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of equal values, which is said in words of our own
        try:
            found = shares_of(evaluator.evaluate(study, params=names))
        except Exception:
            log.exception("the importances cannot be told")  # of what a person's own trials may hold
            return {}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def importance_section(table: Table, shares: dict[str, float]) -> str:
    """A bar for each parameter."""
    title = "Importance of the parameters"
    if not _are_enough(table):
        so_far = f"so far {_complete(table)} and {len(table.valued)}"
        return missing(title, f"Needs {ENOUGH_COMPLETE} complete trials, or {ENOUGH_ENDED} with pruned ones: {so_far}.")
    if not shares:
        return missing(title, "Cannot be told: all values are alike, or no parameter differs.")
    top = _top_share(len(table.valued))
    sentence = (
        f"How much each parameter decides whether a trial is among the best {percent(top)} (PED-ANOVA"
        f"{'; of so few trials only a hint' if len(table.valued) < 10 * FEWEST_ON_TOP else ''})."
        f"{'' if _complete(table) == len(table.valued) else ' A pruned trial counts with what it had reached.'}"
    )
    return section(title, sentence, plot(_bars(shares), "Importance of each parameter."))


def _complete(table: Table) -> int:
    return sum(row.state == "complete" for row in table.rows)


def _are_enough(table: Table) -> bool:
    """Whether importances say anything: a search that freezes most of its trials completes few of them."""
    return _complete(table) >= ENOUGH_COMPLETE or len(table.valued) >= ENOUGH_ENDED


def _top_share(trials: int) -> float:
    return min(0.5, max(TOP, FEWEST_ON_TOP / trials))


def _bars(shares: dict[str, float]) -> Figure:
    names = list(shares)[::-1]
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": [round(100 * shares[name], 1) for name in names],
        "y": list(range(len(names))),
        "text": [percent(shares[name]) for name in names],
        "textposition": "outside",
        "cliponaxis": False,
        "hoverinfo": "skip",
        "marker": {"color": colour("complete")},
    }
    places = axis(tickvals=bars["y"], ticktext=[label(name) for name in names], showgrid=False)
    return figure(
        [bars],
        x=axis("share, %", range=[0, 112 * max(shares.values())], showgrid=False),
        y=places,
        height=70 + 30 * len(names),
    )


# ---- each parameter -------------------------------------------------------------------------------------------------


def each_parameter(table: Table, shares: dict[str, float]) -> str:
    """A small plot for each parameter, the most important first."""
    title = "Each parameter"
    rows = table.valued
    if not rows:
        return missing(title, NONE_COMPLETE)
    known = table.distributions()
    names = sorted(known, key=lambda name: -shares.get(name, 0.0))
    names = [name for name in names if any(name in row.params for row in rows)]
    if not names:
        return missing(title, "No parameter was searched.")
    drawn = thinned(rows, table, MOST_DOTS)
    sentence = (
        f"Mask mAP over the value of each parameter{', the most important first' if shares else ''}: {_legend(table)}"
    )
    if len(drawn) < len(rows):
        sentence += f" {len(drawn):,} of {len(rows):,} trials are drawn, the best ones among them."
    figures = (plot(_slice(name, known[name], drawn, table), f"Fitness over {name}.") for name in names)
    return section(title, sentence, grid(figures, "small"))


def _legend(table: Table) -> str:
    is_drawn = table.defaults is not None and table.defaults.value is not None
    reference = f", the {table.reference} a diamond" if is_drawn else ""
    return f"complete trials blue, pruned ones grey, the best a star{reference}."


def thinned(rows: Sequence[Row], table: Table, most: int) -> list[Row]:
    """At most ``most`` trials: the best half of them, and an even choice of the others."""
    if len(rows) <= most:
        return list(rows)
    first = set(table.order[: most // 2])
    others = [row for row in rows if row.number not in first]
    wanted = most - len(first)
    evenly = {others[place * len(others) // wanted].number for place in range(wanted)}
    return [row for row in rows if row.number in first or row.number in evenly]


def _slice(name: str, distribution: BaseDistribution, rows: Sequence[Row], table: Table) -> Figure:
    traces = []
    for group in GROUPS:
        found = [row for row in rows if row.group == group and name in row.params and row is not table.best]
        if found:
            traces.append(_points(group, found, name, distribution))
    for group, row in (("defaults", table.defaults), ("best", table.best)):
        if row is not None and row.value is not None and name in row.params:
            traces.append(_points(group, [row], name, distribution))
    return figure(
        traces,
        x=parameter_axis(name, distribution),
        y=axis(nticks=5, rangemode="tozero"),
        height=SMALL,
        keys=False,
    )


def _points(group: str, rows: Sequence[Row], name: str, distribution: BaseDistribution) -> dict[str, Any]:
    x = [position(row.params[name], distribution) for row in rows]
    if hasattr(distribution, "choices"):
        x = [value + _aside(row.number) for value, row in zip(x, rows, strict=True)]
    y = [row.value for row in rows]
    return dots(group, group, x=[float(f"{v:.4g}") for v in x], y=y, meta=told(rows), hovertemplate=HOVER)


def _aside(number: int) -> float:
    """A choice's dots stand beside each other, each always at its place."""
    return 0.5 * ((number * 0.618034) % 1 - 0.5)


def _as_complete(row: Row) -> FrozenTrial:
    counted = copy.copy(row.trial)
    counted.state, counted.values = TrialState.COMPLETE, [row.value]
    return counted
