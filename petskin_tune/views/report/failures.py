"""What went wrong: how often each kind, and each failure with what was recorded of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from petskin_tune import text as words
from petskin_tune.diagnosis.troubles import DETAIL_LINES, DETAIL_WIDTH
from petskin_tune.error_text import shortened, tail
from petskin_tune.printable import html_text
from petskin_tune.study.failures import Failure
from petskin_tune.study.trials import failure_of
from petskin_tune.views.report.parts import cell, plot, preformatted, quiet, section, table
from petskin_tune.views.report.rows import Row, Table
from petskin_tune.views.report.style import Figure, axis, colour, figure, label

MOST_SHOWN = 20  # failures in the table, the newest


def failures(study: Table) -> str:
    """A bar for each kind, and a table of the newest failures."""
    found = [(row, failure) for row in study.rows if (failure := failure_of(row.trial))]
    if not found:
        return section("Failures", None, quiet("None."))
    kinds = Counter(failure.kind for _, failure in found)
    ended = sum(row.trial.state.is_finished() for row, _ in found)
    sentence = f"{words.counted(ended, 'trial')} of {len(study.rows):,} ended by a failure"
    if given_back := len(found) - ended:
        sentence += (
            f", {words.counted(given_back, 'trial')} {'was' if given_back == 1 else 'were'} given back and can go on"
        )
    told = [row for row, _ in found if row.state == "pruned"]
    if told:
        sentence += (
            "; diverged ones and those out of memory are pruned for Optuna, so that every sampler learns from them"
        )
    shown = found[-MOST_SHOWN:]
    left = f"The last {len(shown)} of {len(found):,}:" if len(shown) < len(found) else ""
    drawn = plot(_bars(kinds), "Failures by kind.") if len(kinds) > 1 else ""
    return section("Failures", f"{sentence}.", drawn, quiet(left) if left else "", _table(shown))


def _bars(kinds: Counter[str]) -> Figure:
    ordered = kinds.most_common()[::-1]
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": [count for _, count in ordered],
        "y": list(range(len(ordered))),
        "text": [f"{count:,}" for _, count in ordered],
        "textposition": "outside",
        "cliponaxis": False,
        "hoverinfo": "skip",
        "marker": {"color": colour("failed")},
    }
    places = axis(tickvals=bars["y"], ticktext=[label(kind) for kind, _ in ordered], showgrid=False)
    most = max(kinds.values())
    return figure(
        [bars],
        x=axis("trials", range=[0, 1.12 * most], showgrid=False, tickformat=",d", dtick=1 if most < 6 else None),
        y=places,
        height=70 + 30 * len(ordered),
    )


def _table(found: Sequence[tuple[Row, Failure]]) -> str:
    rows = [
        [
            cell(str(row.number)),
            cell(failure.kind if row.trial.state.is_finished() else f"{failure.kind} (given back)"),
            f'<td class="text">{_folded(failure)}</td>',
        ]
        for row, failure in found
    ]
    return table(["trial", "kind", "message"], rows)


def _folded(failure: Failure) -> str:
    """The message, and what was recorded beside it for those who want it."""
    message = html_text(shortened(failure.message))
    lines = tail(failure.detail, DETAIL_LINES, DETAIL_WIDTH) + ([f"all of it: {failure.log}"] if failure.log else [])
    if not lines:
        return message
    return f"<details><summary>{message or 'detail'}</summary>{preformatted(chr(10).join(lines))}</details>"
