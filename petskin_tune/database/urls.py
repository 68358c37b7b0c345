"""The URL of a database: read, judged and written for people in this one place.

:func:`read_url` takes what SQLAlchemy and libpq take: user and password before the only ``@``, one host or several,
also as parameters, Unix sockets, service files. It refuses in a sentence what they would misunderstand, and quotes
nothing of it, because what is not understood may be a password.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, quote, unquote

from petskin_tune.database.hosts import is_this_machine, of_service
from petskin_tune.errors import UsageError
from petskin_tune.nearest import did_you_mean

EXPECTED = "expected sqlite:///tune.db or postgresql://USER:PASSWORD@HOST/DATABASE."
IN_MEMORY = "An SQLite database in memory is gone with its process; name a file: sqlite:///tune.db."
LARGEST_PORT = 65535
LONGEST_SCHEME = 40  # that a refusal repeats
PRINTABLE_NAME = "[A-Za-z_]{1,24}"  # of a parameter; others may be a piece of a secret
_OF_LIBPQ = """
    host hostaddr port dbname user password passfile require_auth channel_binding connect_timeout
    client_encoding options application_name fallback_application_name keepalives keepalives_idle
    keepalives_interval keepalives_count tcp_user_timeout gssencmode sslmode requiressl sslnegotiation
    sslcompression sslcert sslkey sslpassword sslcertmode sslrootcert sslcrl sslcrldir sslsni requirepeer
    ssl_min_protocol_version ssl_max_protocol_version krbsrvname gsslib gssdelegation service
    target_session_attrs load_balance_hosts min_protocol_version max_protocol_version scram_client_key
    scram_server_key sslkeylogfile servicefile
"""
LIBPQ_PARAMETERS = frozenset(_OF_LIBPQ.split())
_NO_USER = re.compile(r"[^:/?@]*:([0-9]{1,5}[/?].*|.*\?.*=.*)@")  # as in HOST:PORT/NAME?options=@
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class DatabaseUrl:
    """A URL as it was read, everything percent-decoded.

    Attributes:
        backend: which of the two databases.
        database: name of the database, or path of the file; empty: the server's default.
        user, password: empty: libpq's defaults.
        hosts: ``(name, port)`` of each server; a path names a Unix socket's folder; port None: the default.
        query: further parameters.
    """

    backend: Literal["sqlite", "postgresql"]
    database: str
    user: str | None = None
    password: str | None = None
    hosts: tuple[tuple[str, int | None], ...] = ()
    query: Mapping[str, str] = field(default_factory=dict)

    @property
    def file(self) -> Path | None:
        """The SQLite file; None for a server."""
        return Path(self.database) if self.backend == "sqlite" else None

    def other_machine(self, environ: Mapping[str, str] = os.environ) -> str | None:
        """The first of its servers that is another machine; None where all are this one."""
        if self.backend == "sqlite":
            return None
        return next((host for host in self._reached(environ) if not is_this_machine(host)), None)

    def _reached(self, environ: Mapping[str, str]) -> tuple[str, ...]:
        """The hosts that libpq would connect to, in its order of precedence."""
        if address := self.query.get("hostaddr"):
            return tuple(address.split(","))
        if self.hosts:
            return tuple(name for name, _ in self.hosts)
        service = of_service(self.query, environ)
        for source, names in ((service, ("hostaddr", "host")), (environ, ("PGHOSTADDR", "PGHOST"))):
            for name in names:
                if found := source.get(name):
                    return tuple(found.split(","))
        return ()


def file_url(path: Path) -> str:
    """The URL of an SQLite file, whatever characters its path holds."""
    return f"sqlite:///{_quoted(str(path))}"


def _quoted(path: str) -> str:
    return "".join(quote(character) if character in "%?#" else character for character in path)


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_url(text: str) -> DatabaseUrl:
    """Read the URL of a database.

    Raises:
        UsageError: it is none, neither SQLite nor PostgreSQL, ambiguous, or has parameters that nobody understands.
    """
    if text != text.strip():
        raise UsageError("The storage's URL begins or ends with a space or a line end: leave that out.")
    _require_text(text, "The storage's URL")
    match = re.fullmatch(r"([A-Za-z][\w+.-]*)://(.*)", text)
    if match is None:
        if text.lower().startswith("sqlite"):
            raise UsageError(_three_slashes(text.partition(":")[2].lstrip("/")))
        raise UsageError(f"The storage cannot be read: it is not a database URL; {EXPECTED}")
    backend = match[1].lower().partition("+")[0]
    if backend == "sqlite":
        return _sqlite(match[2])
    if backend in ("postgres", "postgresql"):
        return _postgresql(match[2])
    scheme = match[1] if len(match[1]) <= LONGEST_SCHEME else "…"
    raise UsageError(f"The storage {scheme}://… is neither SQLite nor PostgreSQL, the two that are supported.")


def _require_text(text: str, what: str) -> None:
    """Refuse what no database can be called.

    Raises:
        UsageError: control characters, or bytes that are not UTF-8.
    """
    if _CONTROL.search(text):
        raise UsageError(f"{what} holds a line end or another control character: leave that out.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{what} is not UTF-8: write other characters than those of ASCII percent-encoded.") from None


def _three_slashes(path: str) -> str:
    """What to say to ``sqlite://runs/tune.db``; the path is repeated where it can be nothing else."""
    example = path if re.fullmatch(r"[\w./ -]{1,200}", path) else "tune.db"
    return (
        "An SQLite database's URL has three slashes before a relative path and four before an absolute one: "
        f"sqlite:///{example} or sqlite:////{example}."
    )


def _sqlite(rest: str) -> DatabaseUrl:
    if not rest:
        raise UsageError(IN_MEMORY)
    if not rest.startswith("/"):
        raise UsageError(_three_slashes(rest))
    path, _, tail = rest[1:].partition("?")
    database, query = unquote(path), _parameters(tail)
    if database in ("", ":memory:") or (database.startswith("file:") and "memory" in rest):
        raise UsageError(IN_MEMORY)
    if unknown := sorted(query):
        raise UsageError(
            f"The URL of the SQLite database has {_named(unknown)}, which SQLite does not know: leave that out (in a "
            "path, ? is written %3F)."
        )
    _require_text(database, "The path of the SQLite database")
    return DatabaseUrl("sqlite", database)


def _postgresql(rest: str) -> DatabaseUrl:
    user, password, place = _split_user(rest)
    where, _, tail = place.partition("?")
    netloc, _, database = where.partition("/")
    query = _parameters(tail)
    if unknown := sorted(set(query) - LIBPQ_PARAMETERS):
        meant = did_you_mean(unknown[0], LIBPQ_PARAMETERS) if len(unknown) == 1 else ""
        way_on = f"{meant} Else leave" if meant else ": leave"
        raise UsageError(f"The storage's URL has {_named(unknown)}, which PostgreSQL does not know{way_on} that out.")
    hosts = _hosts(query.pop("host", "") or netloc, query.pop("port", ""))
    read = DatabaseUrl("postgresql", unquote(database), user, password, hosts, query)
    for part in (read.database, user or "", password or "", *(name for name, _ in hosts), *query.values()):
        _require_text(part, "A part of the storage's URL")
    return read


def _split_user(rest: str) -> tuple[str | None, str | None, str]:
    """User, password, and what stands behind the ``@``."""
    if rest.count("@") > 1 or _NO_USER.match(rest):
        raise UsageError(
            "The storage's URL has an @ that ends no user and password: write an @ in them, and in all that follows, "
            "as %40 (and / as %2F, ? as %3F, # as %23, % as %25)."
        )
    before, found, behind = rest.rpartition("@")
    user, colon, password = before.partition(":")
    if not found or "/" in user:  # an @ in the path or in a parameter
        return None, None, rest
    return unquote(user), unquote(password) if colon else None, behind


def _parameters(tail: str) -> dict[str, str]:
    """The parameters of a URL; ``host`` and ``port`` may stand there several times, and are joined by commas.

    Raises:
        UsageError: another one stands there twice, or one has no name.
    """
    found: dict[str, str] = {}
    for name, value in parse_qsl(tail, keep_blank_values=True):
        if not re.fullmatch(r"\w+", name) or (name in found and name not in ("host", "port")):
            raise UsageError(
                "The parameters of the storage's URL cannot be read: each is NAME=VALUE, behind a single ?, once, with "
                "& between them."
            )
        found[name] = f"{found[name]},{value}" if name in found else value
    return found


def _named(names: list[str]) -> str:
    shown = [f"`{name}`" if re.fullmatch(PRINTABLE_NAME, name) else "one that is not shown" for name in names[:3]]
    return f"the parameter{'' if len(names) == 1 else 's'} {', '.join(shown)}"


def _hosts(listed: str, ports: str) -> tuple[tuple[str, int | None], ...]:
    """The servers of a list with commas; ports stand behind the hosts, or in a list of their own."""
    found = [_host(item) for item in listed.split(",")] if listed else []
    if ports:
        numbers = [_port(item) for item in ports.split(",")]
        if len(numbers) == 1:
            numbers *= max(1, len(found))
        if len(numbers) != max(1, len(found)):
            raise UsageError("The storage's URL names more hosts than ports, or more ports than hosts.")
        found = [(name, number or own) for (name, own), number in zip(found or [("", None)], numbers, strict=True)]
    return tuple(found)


def _host(item: str) -> tuple[str, int | None]:
    """``(name, port)`` of ``db.example.org:5432``, ``[::1]:5432``, ``::1``, or of the folder of a Unix socket."""
    if item.startswith("/"):
        return item, None
    bracketed = re.fullmatch(r"\[([^]]*)\](?::(.*))?", item)
    if bracketed:
        return unquote(bracketed[1]), _port(bracketed[2] or "")
    if item.count(":") > 1:
        return unquote(item), None
    name, _, port = item.partition(":")
    return unquote(name), _port(port)


def _port(text: str) -> int | None:
    if not text:
        return None
    if not re.fullmatch("[0-9]{1,5}", text) or not 0 < int(text) <= LARGEST_PORT:
        raise UsageError(f"The storage is not a database URL: its port is no number from 1 to {LARGEST_PORT}.")
    return int(text)
