"""Pieces of the page as HTML; every text is escaped here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from petskin_tune.printable import html_text
from petskin_tune.views.report.style import Figure, Trace, as_json

SIGNS = {"circle-open": "dot ring", "x-thin": "dot cross"}  # in the legend, of symbols in a plot


def section(title: str, sentence: str | None, *content: str) -> str:
    """A titled part of the page: what it shows in a sentence, and the content, which is HTML."""
    said = f"<p>{html_text(sentence)}</p>" if sentence else ""
    return f'<section id="{anchor(title)}"><h2>{html_text(title)}</h2>{said}{"".join(content)}</section>'


def missing(title: str, reason: str) -> str:
    """A part that has nothing to show, and why."""
    return section(title, None, quiet(reason))


def anchor(title: str) -> str:
    """The part's name in links."""
    return re.sub(r"[^a-z]+", "-", re.sub(r"\(.*?\)", "", title.lower())).strip("-")


def plot(figure: Figure, says: str, title: str | None = None) -> str:
    """A figure, drawn by ``page.js``; ``says`` is read to those who do not see it."""
    height = figure["layout"]["height"]
    keys = _keys(figure)
    head = f"<figcaption>{html_text(title)}</figcaption>" if title else ""
    data = f'<script type="application/json">{as_json(figure)}</script>'
    drawn = f'<div class="plot" role="img" aria-label="{html_text(says)}" style="height:{height}px">{data}</div>'
    return f"<figure>{head}{keys}{drawn}</figure>"


def _keys(figure: Figure) -> str:
    """The legend as buttons that turn their trace off and on: plotly.js's own takes half of a phone's plot."""
    named = [(place, trace) for place, trace in enumerate(figure["data"]) if "name" in trace]
    if not figure["keys"] or len(named) < 2:
        return ""
    buttons = "".join(_key(place, trace) for place, trace in named)
    return f'<div class="keys">{buttons}</div>'


def _key(place: int, trace: Trace) -> str:
    """A button with the sign of a trace; its name is escaped already, as plotly.js takes it."""
    sign, drawn = _sign(trace)
    ink = drawn["color"].removeprefix("colour:").partition("/")[0]
    style = f"--key: var(--{ink})"
    return (
        f'<button type="button" aria-pressed="true" data-trace="{place}" style="{style}">'
        f'<i class="{sign}"></i>{trace["name"]}</button>'
    )


def _sign(trace: Trace) -> tuple[str, Trace]:
    """The classes of the sign that looks like what is drawn, and the line or marker that has its colour."""
    if trace["type"] == "bar":
        return "bar", trace["marker"]
    if "lines" in trace["mode"]:
        return "line dotted" if "dash" in trace["line"] else "line", trace["line"]
    return SIGNS.get(trace["marker"].get("symbol", ""), "dot"), trace["marker"]


def grid(figures: Iterable[str], kind: str = "") -> str:
    """Figures beside each other, as many as there is room for."""
    return f'<div class="grid {kind}">{"".join(figures)}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are HTML already."""
    first = "".join(f"<th>{html_text(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{first}</tr></thead><tbody>{body}</tbody></table></div>'


def cell(text: str, *, kind: str = "") -> str:
    """A cell of a table."""
    kinds = f"{kind} text".strip() if len(text) > 40 else kind
    return f'<td class="{kinds}">{html_text(text)}</td>' if kinds else f"<td>{html_text(text)}</td>"


def preformatted(text: str) -> str:
    """Lines as they are."""
    return f"<pre>{html_text(text)}</pre>"


def quiet(text: str) -> str:
    """A remark."""
    return f'<p class="quiet">{html_text(text)}</p>'
