"""``/workers``: who trains what, beside optuna-dashboard's pages; it asks for itself anew every few seconds."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from importlib.resources import files
from typing import Any

from petskin_tune import text as words
from petskin_tune.printable import html_text
from petskin_tune.views.dashboard.artifacts import Application, Environ
from petskin_tune.views.holds import EXPLAINED, WORDS
from petskin_tune.views.report.parts import quiet, table
from petskin_tune.views.status.collect import ahead_line, best_line, how_far
from petskin_tune.views.status.facts import Running, Status

PATH = "/workers"
NOW = "/workers/now"  # the part of the page that changes
MOST_FROZEN = 8  # trials that are listed, the best ones
HEAD = ("trial", "state", "epoch", "mask mAP", "an epoch takes", "for", "last heard of", "a kill costs", "worker")
# On a phone a trial is a card: no table of so many columns fits there.
STYLE = """
main th { white-space: nowrap; }
main table { margin: .8rem 0; }
@media (max-width: 700px) {
  main table, main tbody { display: block; }
  main thead { display: none; }
  main tr { display: block; border: 1px solid var(--line); border-radius: 8px; padding: .4rem .7rem; margin: .6rem 0; }
  main td { display: grid; grid-template-columns: 9rem 1fr; white-space: normal; border: 0; padding: .1rem 0; }
  main td::before { content: attr(data-name); color: var(--quiet); }
}
"""
SCRIPT = """
const place = document.getElementById("now"), state = document.getElementById("state");
const look = async () => {
  try {
    const answer = await fetch("/workers/now", { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status);
    place.innerHTML = await answer.text();
    state.textContent = "live";
  } catch (error) {
    state.textContent = "no answer: the figures below are those of the last one";
  }
  setTimeout(look, 3000);
};
setTimeout(look, 3000);
"""
_SAFE = [
    (
        "Content-Security-Policy",
        "default-src 'none'; style-src 'unsafe-inline'; connect-src 'self'; "
        f"script-src 'sha256-{base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()}'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-store"),
]


class WithWorkers:
    """A WSGI application with the page of the workers beside its own.

    Args:
        application: all other pages.
        collect: gives the study as it is now; None: it is gone.
    """

    def __init__(self, application: Application, collect: Callable[[], Status | None]) -> None:
        self._application = application
        self._collect = collect

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        asked = environ.get("PATH_INFO", "").rstrip("/")
        if asked not in (PATH, NOW):
            return self._application(environ, start_response)
        status = self._collect()
        found = quiet("The study is not there any more.") if status is None else now(status)
        content = (page(found) if asked == PATH else found).encode()
        length = ("Content-Length", str(len(content)))
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8"), length, *_SAFE])
        return [content if environ["REQUEST_METHOD"] == "GET" else b""]


def page(found: str) -> str:
    """The page around what changes, which is HTML."""
    style = (files("petskin_tune.views.report") / "page.css").read_text("utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>workers · petskin-tune</title><style>{style}{STYLE}</style></head><body><h1>Workers</h1>"
        '<nav><a href="/dashboard">the dashboard</a></nav><p class="quiet" id="state">live</p>'
        f'<main id="now">{found}</main><script>{SCRIPT}</script></body></html>\n'
    )


def now(status: Status) -> str:
    """How far the study is, who works on what, and what to type next, as HTML."""
    at = f"{datetime.fromtimestamp(status.at):%H:%M:%S}"
    return "".join([f"<p>{html_text(how_far(status))} · {at}</p>", *_best(status), *_workers(status), *_next(status)])


def _best(status: Status) -> Iterator[str]:
    if status.repeats is not None:
        yield f"<p><b>{html_text(status.repeats.sentence)}</b></p>"
    elif status.best is not None:
        yield f"<p><b>{html_text(best_line(status.best))}</b></p>"
    if above := ahead_line(status):
        yield f"<p>{html_text(above)}</p>"


def _workers(status: Status) -> Iterator[str]:
    frozen = sorted((t for t in status.running if t.hold == "frozen"), key=lambda trial: -(trial.value or 0.0))
    shown = [trial for trial in status.running if trial.hold != "frozen"] + frozen[:MOST_FROZEN]
    if not status.workers:
        yield quiet("Nobody works on it now.")
    if not shown:
        return
    yield table(HEAD, [[_cell(name, text) for name, text in zip(HEAD, _cells(trial), strict=True)] for trial in shown])
    if len(frozen) > MOST_FROZEN:
        yield quiet(f"{len(frozen) - MOST_FROZEN} more are frozen.")
    for word in dict.fromkeys(WORDS[trial.hold] for trial in shown):
        if word in EXPLAINED:
            yield quiet(f"{word}: {EXPLAINED[word]}.")


def _cell(name: str, text: str) -> str:
    return f'<td data-name="{name}">{html_text(text)}</td>'


def _cells(trial: Running) -> tuple[str, ...]:
    is_held = trial.hold == "training"
    return (
        str(trial.number),
        WORDS[trial.hold],
        f"{trial.epoch}/{trial.epochs}" if trial.epochs else str(trial.epoch),
        words.score(trial.value),
        _duration(trial.seconds_per_epoch),
        _duration(trial.held_seconds if is_held else None),
        f"{_duration(trial.last_sign)} ago" if is_held and trial.last_sign is not None else "–",
        _duration(trial.disconnect_seconds),
        " ".join(trial.worker.split()),
    )


def _duration(seconds: float | None) -> str:
    return "–" if seconds is None else words.duration(seconds)


def _next(status: Status) -> Iterator[str]:
    if status.seconds_left is not None and status.workers and not status.is_done:
        left, at = words.duration(status.seconds_left), words.clock(status.at + status.seconds_left, status.at)
        yield f"<p>About {html_text(left)} left at this pace, until {html_text(at)}.</p>"
    if not status.workers:
        reason = status.next_reason[:1].upper() + status.next_reason[1:]
        yield f'<p>{html_text(reason)}. Next, type:</p><pre class="typed">{html_text(status.next_command)}</pre>'
