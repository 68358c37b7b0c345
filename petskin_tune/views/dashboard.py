"""``petskin-tune dashboard``: optuna-dashboard on our storage, for looking only, on this machine only.

optuna-dashboard has no login and no read-only mode: an anonymous ``DELETE /api/studies/1`` works. So whatever is not a
read is refused here, and so is a ``Host`` that is not this machine, which is how a web page elsewhere would reach a
server on 127.0.0.1 through a name of its own (DNS rebinding). Others look at it through a tunnel or a reverse proxy
with a login, as in ``docker/compose.yaml``.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from petskin_tune.errors import UsageError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.study import Study

PORT = 8080
LOOPBACK = "127.0.0.1"
READS = ("GET", "HEAD")
THIS_MACHINE = ("127.0.0.1", "localhost", "[::1]")

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


class ReadOnly:
    """A WSGI application that lets reads by this machine's own names through and nothing else."""

    def __init__(self, application: Application) -> None:
        self._application = application

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        if _name_of(environ.get("HTTP_HOST", "")) not in THIS_MACHINE:
            return _refuse(start_response, "403 Forbidden", "this dashboard answers to 127.0.0.1 and localhost only")
        if environ["REQUEST_METHOD"] not in READS:
            reason = "this dashboard is for looking only; change the study with petskin-tune or Optuna"
            return _refuse(start_response, "405 Method Not Allowed", reason, ("Allow", ", ".join(READS)))
        return self._application(environ, start_response)


def _name_of(host: str) -> str:
    """The name in a Host header. Any port will do: tunnels map it."""
    name, _, port = host.rpartition(":")
    return (name if port.isdigit() else host).lower()


def _refuse(start_response: Callable[..., Any], status: str, reason: str, *headers: tuple[str, str]) -> Iterable[bytes]:
    body = json.dumps({"reason": reason}).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *headers])
    return [body]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True  # a browser that holds a connection must not keep the command alive


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Without a line for each of a browser's refreshes."""


def make_server(storage: BaseStorage, port: int = PORT) -> WSGIServer:
    """A server of the dashboard on 127.0.0.1, bound and not yet serving; port 0 takes a free one.

    Raises:
        UsageError: the port is taken or not allowed.
    """
    import optuna
    import optuna_dashboard

    # get_storage() puts Optuna's cache of finished trials in front: 5000 trials refresh in 2.5 s instead of 10.
    application = ReadOnly(optuna_dashboard.wsgi(optuna.storages.get_storage(storage)))
    try:
        server = _Server((LOOPBACK, port), _QuietHandler)
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        raise UsageError(f"Port {port} is taken or not allowed here: choose another with --port.") from None
    server.set_app(application)
    return server


def serve(storage: BaseStorage, study: Study, port: int = PORT, *, say: Callable[[str], object] = print) -> None:
    """Serve until Ctrl-C, after saying where.

    Raises:
        UsageError: the port is taken or not allowed.
    """
    with make_server(storage, port) as server:
        where = f"http://{LOOPBACK}:{server.server_port}/dashboard/studies/{study._study_id}"
        say(f"dashboard of study {study.study_name}: {where} (Ctrl-C ends it)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return
