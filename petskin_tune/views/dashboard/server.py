"""``petskin-tune dashboard``: optuna-dashboard on our storage, for looking only, on this machine only.

optuna-dashboard has no login and no read-only mode: an anonymous ``DELETE /api/studies/1`` works. So whatever is not a
read is refused here (but with ``--write``), and so is a ``Host`` that is not this machine, which is how a web page
elsewhere would reach a server on 127.0.0.1 through a name of its own (DNS rebinding). With ``--write`` a page elsewhere
is refused by the ``Origin`` that its browser sends. Others look at it through a tunnel or a reverse proxy with a login,
as in ``docker/compose.yaml``; a proxy on another machine needs ``--host`` and ``--behind-proxy``
(:mod:`petskin_tune.views.dashboard.names`).
"""

from __future__ import annotations

import errno
import json
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from petskin_tune.database.garbage import rarely_collected
from petskin_tune.errors import UsageError
from petskin_tune.views.dashboard.names import HERE, Names

if TYPE_CHECKING:
    from optuna.storages import RDBStorage, _CachedStorage
    from optuna.study import Study

    from petskin_tune.checkpoints.artifacts import Artifacts
    from petskin_tune.leases.lease import Lease
    from petskin_tune.views.dashboard.notes import Notes
    from petskin_tune.views.status.facts import Status

PORT = 8080
READS = ("GET", "HEAD")
REASON = "this dashboard is for looking only; to change the study here, start it with --write"
WHERE = "this dashboard answers to 127.0.0.1 and localhost only"
WHERE_BEHIND = "this dashboard does not answer to this name; if it is the proxy's, start it with --public-name NAME"
# optuna-dashboard's pages are as wide as a desk; on a phone, what stands beside one another there stands below.
STYLE = """<style>@media (max-width: 700px) {
  main { min-width: 0; flex: 1 1 0; padding-bottom: 4rem; }
  main .MuiBox-root { max-width: 100%; }
  main .MuiGrid-item { flex-basis: 100%; max-width: 100%; }
  main .MuiCardContent-root, main .MuiTableContainer-root { overflow-x: auto; }
  main .MuiBox-root:has(> .MuiDivider-vertical) { flex-direction: column; }
  main .MuiBox-root:has(> .MuiDivider-vertical) > :first-child { width: 100%; height: 11rem; min-height: 0; }
  main .MuiBox-root:has(> .MuiChip-root), main .MuiCardContent-root > .MuiBox-root { flex-wrap: wrap; }
}</style>"""
BANNER = """<div style="position:fixed;right:8px;bottom:8px;z-index:9999;padding:2px 10px;border-radius:6px;
font:12px system-ui,sans-serif;background:#1f2933;color:#fff;opacity:.85;max-width:90vw"
>{reason}<a href="/workers" style="color:#9ecbff">workers</a></div>"""

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


class Guarded:
    """A WSGI application that answers to its own names only, and unless told otherwise to reads only."""

    def __init__(self, application: Application, *, write: bool = False, names: Names = HERE) -> None:
        self._application = application
        self._write = write
        self._names = names

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        with rarely_collected():  # of a study with thousands of trials an answer is a million objects
            return self._answer(environ, start_response)

    def _answer(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not self._names.answers_to(environ.get("HTTP_HOST", "")):
            return _refuse(start_response, "403 Forbidden", WHERE_BEHIND if self._names.behind_proxy else WHERE)
        reads = environ["REQUEST_METHOD"] in READS
        if not reads and not self._write:
            return _refuse(start_response, "405 Method Not Allowed", REASON, ("Allow", ", ".join(READS)))
        if not reads and not self._names.may_change(environ.get("HTTP_ORIGIN")):
            return _refuse(start_response, "403 Forbidden", "only the dashboard's own pages may change the study")
        answer = _leading_nowhere_else(start_response)
        if not environ.get("PATH_INFO", "").startswith("/dashboard"):
            return self._application(environ, answer)
        banner = BANNER.format(reason="" if self._write else f"{REASON} · ")
        return _with_banner(self._application, banner, environ, answer)


def _leading_nowhere_else(start_response: Callable[..., Any]) -> Callable[..., Any]:
    """Redirects without scheme and host: the browser knows the proxy's, and ``X-Forwarded-Host`` may name anybody's."""

    def answer(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
        kept = [(name, _path(value) if name.lower() == "location" else value) for name, value in headers]
        return start_response(status, kept, *more)

    return answer


def _path(url: str) -> str:
    return urlsplit(url)._replace(scheme="", netloc="").geturl()


def _with_banner(
    application: Application, banner: str, environ: Environ, start_response: Callable[..., Any]
) -> Iterable[bytes]:
    """The application's page, for a phone too, with what we say on it: it is for looking only, and who works where."""
    answer: list[Any] = []
    fresh = {name: value for name, value in environ.items() if name != "HTTP_IF_MODIFIED_SINCE"}
    page = b"".join(application({**fresh, "HTTP_ACCEPT_ENCODING": "identity"}, lambda *given: answer.extend(given)))
    page = page.replace(b"</body>", f"{STYLE}{banner}</body>".encode())
    kept = [(name, value) for name, value in answer[1] if name.lower() not in ("content-length", "last-modified")]
    length = [("Content-Length", str(len(page)))] if environ["REQUEST_METHOD"] == "GET" else []
    start_response(answer[0], [*kept, *length])
    return [page]


def _refuse(start_response: Callable[..., Any], status: str, reason: str, *headers: tuple[str, str]) -> Iterable[bytes]:
    body = json.dumps({"reason": reason}).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *headers])
    return [body]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True  # a browser that holds a connection must not keep the command alive


class _ServerOfIPv6(_Server):
    address_family = socket.AF_INET6


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Without a line for each of a browser's refreshes."""


def make_server(
    storage: RDBStorage | _CachedStorage,
    port: int = PORT,
    *,
    write: bool = False,
    notes: Callable[[int], Notes | None] = lambda study_id: None,
    artifacts: Artifacts | None = None,
    study_id: int | None = None,
    collect: Callable[[], Status | None] = lambda: None,
    names: Names = HERE,
) -> WSGIServer:
    """A server of the dashboard, bound and not yet serving; port 0 takes a free one.

    Args:
        storage: of the studies; a cache of it that the notes are read through, too, spares a second reading.
        port: to listen on.
        write: whether studies can be changed from this machine's browsers.
        notes: see :class:`petskin_tune.views.dashboard.storage.DashboardStorage`.
        artifacts: of the study ``study_id``; None: no page shows any.
        study_id: Optuna's.
        collect: gives the study as it is now, for the page of its workers; None: it is gone.
        names: where it listens, and to which names it answers.

    Raises:
        UsageError: the port is taken or not allowed, or the address is not this machine's.
    """
    import optuna_dashboard

    from petskin_tune.views.dashboard.artifacts import ForTheDashboard, ToLookAt, arguments_of
    from petskin_tune.views.dashboard.serialised import make_faster
    from petskin_tune.views.dashboard.storage import DashboardStorage
    from petskin_tune.views.dashboard.workers import WithWorkers

    seen = DashboardStorage(storage, notes, lambda shown: artifacts if shown == study_id else None)
    store = ForTheDashboard(artifacts, lambda trial_id: arguments_of(storage, trial_id)) if artifacts else None
    make_faster()
    pages = optuna_dashboard.wsgi(seen, artifact_store=store)
    application = Guarded(WithWorkers(ToLookAt(pages), collect), write=write, names=names)
    server = _bound(names, port)
    server.set_app(application)
    return server


def _bound(names: Names, port: int) -> WSGIServer:
    try:
        return (_ServerOfIPv6 if names.is_ipv6 else _Server)((names.address, port), _QuietHandler)
    except OSError as error:
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise UsageError(f"This machine has no address {names.address}: choose another with --host.") from None
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        raise UsageError(f"Port {port} is taken or not allowed here: choose another with --port.") from None


def serve(
    storage: RDBStorage,
    study: Study,
    port: int = PORT,
    *,
    write: bool = False,
    read_leases: Callable[[], Sequence[Lease]] = tuple,
    options: str = "",
    artifacts: Artifacts | None = None,
    say: Callable[[str], object] = print,
    names: Names = HERE,
) -> None:
    """Serve until Ctrl-C, after saying where.

    Args:
        storage: of the study.
        study: that the address leads to; it gets a note.
        port: to listen on.
        write: whether it can be changed there.
        read_leases: reads those of the study.
        options: what a person must type beside ``--study NAME`` to mean this study.
        artifacts: of the study; None: no page shows any.
        say: prints a line.
        names: where it listens, and to which names it answers.

    Raises:
        UsageError: the port is taken or not allowed, or the address is not this machine's.
    """
    from optuna.storages import _CachedStorage

    from petskin_tune.views.dashboard.notes import notes_if_there
    from petskin_tune.views.dashboard.workers import PATH

    number = study._study_id

    def collect() -> Status | None:
        return status_if_there(study, read_leases, options)

    def notes(study_id: int) -> Notes | None:
        return notes_if_there(study, read_leases, options) if study_id == number else None

    cached = study._storage if isinstance(study._storage, _CachedStorage) else storage
    with make_server(
        cached, port, write=write, notes=notes, artifacts=artifacts, study_id=number, collect=collect, names=names
    ) as server:
        where = f"http://{names.shown}:{server.server_port}"
        say(f"dashboard of study {study.study_name}: {where}/dashboard/studies/{number} (Ctrl-C ends it)")
        say(f"its workers, live: {where}{PATH}")
        if names.behind_proxy:
            say("it has no login of its own: let nobody but the proxy reach this address")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


def status_if_there(study: Study, read_leases: Callable[[], Sequence[Lease]], options: str = "") -> Status | None:
    """The study as it is now; None where somebody has deleted it while it is shown."""
    from petskin_tune.views.status import collect as status

    try:
        return status.collect(study, read_leases(), time.time(), options=options)
    except (KeyError, UsageError):
        return None
