"""SQLAlchemy's form of a database's URL, and what people may read of it."""

from __future__ import annotations

import re
import urllib.parse
from pathlib import Path

from sqlalchemy.engine import URL

from petskin_tune.database.urls import file_url, read_url
from petskin_tune.error_text import HARMLESS, masked, masked_url, shortened

DEFAULT_PORT = 5432
LONGEST_URL = 200  # characters of one in a sentence
LONGEST_DRIVER_TEXT = 600
_SAID_BY_LIBPQ = """
    a accepting access address an and are at authentication available be by certificate client closed connect
    connection could database denied directory does encryption entry error exist expired failed fatal file for
    from given has host hostname in invalid is it known lost name no not of on or password permission port
    postgres postgresql refused resolution role root running schema server service socket ssl such table tcp
    ip temporary that the this timeout to translate unable unexpectedly unexpected up user was with
"""
COMMON_WORDS = frozenset(_SAID_BY_LIBPQ.split())


def normalise_url(url: str) -> URL:
    """SQLAlchemy's URL of what a person typed; every spelling of PostgreSQL means psycopg2.

    Raises:
        UsageError: see :func:`petskin_tune.database.urls.read_url`.
    """
    read = read_url(url)
    if read.backend == "sqlite":
        return URL.create("sqlite", database=read.database, query=read.query)
    query, (host, port) = dict(read.query), read.hosts[0] if read.hosts else (None, None)
    if len(read.hosts) > 1 or (host or "").startswith(("/", "@")):  # as only libpq reads it
        query["host"] = ",".join(name for name, _ in read.hosts)
        if any(number for _, number in read.hosts):
            query["port"] = ",".join(str(number or DEFAULT_PORT) for _, number in read.hosts)
        host = port = None
    return URL.create("postgresql+psycopg2", read.user, read.password, host or None, port, read.database or None, query)


def hosts_of(url: URL) -> list[str]:
    """The servers of a URL that :func:`normalise_url` returned."""
    return str(url.query.get("host") or url.host or "").split(",")


def mask(url: URL) -> str:
    """The URL for people's eyes, without password and without what may be a secret."""
    if url.get_backend_name() == "sqlite":
        return shortened(file_url(Path(str(url.database))), LONGEST_URL)
    text = url.set(drivername="postgresql").render_as_string(hide_password=False)
    return shortened(masked_url(text).replace("%2F", "/").replace("%2C", ","), LONGEST_URL)


def without_password(text: str, url: URL) -> str:
    """What a driver said about the URL, in one line; nothing of it where it repeats a secret.

    Words are never blotted out of it: in ``database "***" does not exist`` one could read the password.
    """
    said = " ".join(text.split())
    public = {url.username, url.database, *hosts_of(url), *(v for k, v in url.query.items() if k in HARMLESS)}
    rest = _without(said, {str(part) for part in public if part})
    secrets = {str(url.password)} if url.password else set()
    secrets |= {str(value) for key, value in url.query.items() if key not in HARMLESS}
    spellings = {*secrets, *map(urllib.parse.quote_plus, secrets), *map(urllib.parse.quote, secrets)}
    if any(_repeats(rest, secret) for secret in spellings):
        return "its answer is not shown, because the password stands in it"
    return shortened(masked(said), LONGEST_DRIVER_TEXT)


def _without(text: str, words: set[str]) -> str:
    for word in sorted(words, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", " ", text)
    return text


def _repeats(text: str, secret: str) -> bool:
    if secret.lower() in COMMON_WORDS:  # it stands in what libpq says to everybody
        return False
    return re.search(rf"(?<!\w){re.escape(secret)}(?!\w)", text) is not None
