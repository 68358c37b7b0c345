"""``petskin-tune report``: one HTML file that shows a study, to keep or to send; it loads nothing from anywhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petskin_tune import text as words
from petskin_tune.diagnosis import explain as diagnose
from petskin_tune.diagnosis.comparison import curves_of
from petskin_tune.diagnosis.troubles import DETAIL_LINES, DETAIL_WIDTH
from petskin_tune.diagnosis.verdict import judge
from petskin_tune.error_text import shortened, tail
from petskin_tune.files import regular
from petskin_tune.files.paths import writing
from petskin_tune.study import attributes
from petskin_tune.study.failures import Failure
from petskin_tune.study.foreign import foreign_of, is_foreign
from petskin_tune.study.ranking import ranked
from petskin_tune.study.stored import recorded
from petskin_tune.study.trials import failure_of
from petskin_tune.views import status

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial
    from plotly.graph_objects import Figure

    from petskin_tune.leases.lease import Lease

ENOUGH_FOR_IMPORTANCE = 4  # complete trials; of fewer, an importance says nothing
VALUE = "mask mAP50-95"
NONE_COMPLETE = "No trial is complete yet."

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #d9e2ec; padding-bottom: .3rem; }
table { border-collapse: collapse; font-size: 13px; } .wide { overflow-x: auto; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #e4e7eb; white-space: nowrap; }
td.text { white-space: normal; min-width: 16rem; } pre { background: #f5f7fa; padding: 1rem; white-space: pre-wrap; }
.figure { overflow-x: auto; } .quiet { color: #616e7c; }
"""


def write(study: Study, dest: Path, leases: Sequence[Lease] = ()) -> None:
    """Write the report of ``study`` to ``dest``, plots and their library included (about 5 MB).

    Args:
        study: of Optuna, ours or anybody's.
        dest: a file.
        leases: of the study.

    Raises:
        UsageError: ``dest`` cannot be written.
    """
    with writing(dest):
        regular.write_text(dest, render(study, time.time(), leases))


def render(study: Study, now: float, leases: Sequence[Lease] = ()) -> str:
    """The report as HTML.

    Args:
        study: of Optuna, ours or anybody's.
        now: seconds since 1970.
        leases: of the study.
    """
    from plotly.offline import get_plotlyjs

    shown = status.collect(study, leases, now)
    frozen = {trial.number for trial in shown.running if trial.hold == "frozen"}
    trials = study.get_trials(deepcopy=False)
    with _copy(study, trials) as copy:
        sections = [
            _section("Diagnosis", _preformatted(diagnose.of_study(study))),
            *_plots(copy, copy.get_trials(deepcopy=False)),
            _section(f"Trials ({len(trials)})", _trials_table(trials, frozen, study.user_attrs)),
            _section("Failures", _failures_table(trials)),
            *_imported(trials),
        ]
    name = escape(study.study_name)
    body = f"<h1>{name}</h1>{_summary(shown)}<script>{get_plotlyjs()}</script>" + "".join(sections)
    head = f'<meta charset="utf-8"><title>{name} · petskin-tune</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


@contextmanager
def _copy(study: Study, trials: Sequence[FrozenTrial]) -> Iterator[Study]:
    """The study in memory: every plot reads all trials, and they should all see the same ones.

    Imported ones, of which no plot would say that they are, keep their numbers and nothing else.
    """
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        copy = optuna.create_study(study_name=study.study_name, directions=study.directions)
        nothing = optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL)
        copy.add_trials([nothing if is_foreign(trial) else trial for trial in trials])
        yield copy
    finally:
        optuna.logging.set_verbosity(verbosity)


# ---- plots ----------------------------------------------------------------------------------------------------------


def _plots(study: Study, trials: Sequence[FrozenTrial]) -> Iterator[str]:
    from optuna import visualization as plots

    complete = sum(trial.state.name == "COMPLETE" for trial in trials)
    none_complete = None if complete else NONE_COMPLETE
    no_epoch = None if any(trial.intermediate_values for trial in trials) else "No epoch is done yet."
    too_few = f"Needs {ENOUGH_FOR_IMPORTANCE} complete trials, there are {complete}."
    few = too_few if complete < ENOUGH_FOR_IMPORTANCE else None
    figures: list[tuple[str, str | None, Callable[[], Figure]]] = [
        ("History", none_complete, lambda: plots.plot_optimization_history(study, target_name=VALUE)),
        ("Curves", no_epoch, lambda: _curves(study)),
        ("Importance of the parameters", few, lambda: plots.plot_param_importances(study, target_name=VALUE)),
        ("Each parameter", none_complete, lambda: plots.plot_slice(study, target_name=VALUE)),
    ]
    for title, missing, make in figures:
        yield _section(title, _quiet(missing) if missing else _figure(make))


def _curves(study: Study) -> Figure:
    from optuna import visualization as plots

    return plots.plot_intermediate_values(study).update_xaxes(title="epoch").update_yaxes(title=VALUE)


def _figure(make: Callable[[], Figure]) -> str:
    try:
        figure = make()
    except (ValueError, RuntimeError) as error:  # Optuna: all values alike, or no parameter that all trials share
        return _quiet(f"Cannot be drawn: {error}")
    figure.update_layout(template="plotly_white", title=None, margin={"t": 20})
    html = figure.to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False, "responsive": True})
    return f'<div class="figure">{html}</div>'


# ---- tables and text ------------------------------------------------------------------------------------------------


def _summary(shown: status.Status) -> str:
    best = f"<p><b>{escape(status.best_line(shown.best))}</b></p>" if shown.best else _quiet(NONE_COMPLETE)
    return _quiet(status.headline(shown)) + best


def _trials_table(trials: Sequence[FrozenTrial], frozen: Collection[int], stored: Mapping[str, Any]) -> str:
    names = sorted({name for trial in trials for name in trial.params})
    head = ["trial", "state", VALUE, "best epoch", "epochs", "time", "resumes", "curves", *names]
    first = ranked(trials, stored)
    known = {trial.number for trial in first}
    rest = [trial for trial in trials if trial.number not in known]
    return _table(head, ([_cell(cell) for cell in _trial_row(trial, names, frozen)] for trial in (*first, *rest)))


def _value(trial: FrozenTrial) -> float | None:
    """The trial's own value, or the best epoch so far; None before its first."""
    values = trial.values or [value for value in trial.intermediate_values.values() if math.isfinite(value)]
    return max(values, default=None)


def _trial_row(trial: FrozenTrial, names: Sequence[str], frozen: Collection[int]) -> list[str]:
    attrs = recorded(trial)
    curves = curves_of(trial)
    seconds = attrs.get(attributes.SECONDS)
    state = "frozen" if trial.number in frozen else "imported" if is_foreign(trial) else trial.state.name.lower()
    return [
        str(trial.number),
        state,
        "" if (value := _value(trial)) is None else words.score(value),
        str(attrs.get(attributes.BEST_EPOCH, "")),
        str(attrs.get(attributes.EPOCHS, "")),
        words.duration(seconds) if seconds else "",
        str(attrs.get(attributes.RESUMES, "")),
        ", ".join(finding.kind for finding in judge(curves)) if curves else "",
        *(words.parameter(trial.params[name]) if name in trial.params else "" for name in names),
    ]


def _failures_table(trials: Sequence[FrozenTrial]) -> str:
    failed = [(trial, failure) for trial in trials if (failure := failure_of(trial))]
    if not failed:
        return _quiet("None.")
    rows = [
        [
            _cell(str(trial.number)),
            _cell(failure.kind if trial.state.is_finished() else f"{failure.kind} (given back)"),
            f'<td class="text">{_folded(failure)}</td>',
        ]
        for trial, failure in failed
    ]
    return _table(["trial", "kind", "message"], rows)


def _imported(trials: Sequence[FrozenTrial]) -> Iterator[str]:
    """Where runs of elsewhere are from, and how they differ from the study's; nothing where there are none."""
    found = [(trial, foreign) for trial in trials if (foreign := foreign_of(trial))]
    if found:
        rows = (map(_cell, (str(trial.number), kept.source, "; ".join(kept.notes))) for trial, kept in found)
        yield _section(f"Imported ({len(found)})", _table(["trial", "source", "noted"], ([*row] for row in rows)))


def _folded(failure: Failure) -> str:
    """The message, and what was recorded beside it for those who want it."""
    message = escape(shortened(failure.message))
    lines = tail(failure.detail, DETAIL_LINES, DETAIL_WIDTH) + ([f"all of it: {failure.log}"] if failure.log else [])
    if not lines:
        return message
    return f"<details><summary>{message or 'detail'}</summary>{_preformatted(chr(10).join(lines))}</details>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are HTML already."""
    first = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{first}</tr>{body}</table></div>'


def _cell(text: str) -> str:
    return f'<td class="text">{escape(text)}</td>' if len(text) > 40 else f"<td>{escape(text)}</td>"


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _preformatted(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"


def _quiet(text: str) -> str:
    return f'<p class="quiet">{escape(text)}</p>'
