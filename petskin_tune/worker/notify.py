"""Messages to a person who does not look: one small JSON POST that Slack, Discord and ntfy read.

Never more than one a minute: what happens meanwhile is joined to the next one. The address is a secret: it is kept in
this process alone, and no error quotes it. Nothing that goes wrong here reaches the training.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from petskin_tune.error_text import masked, shortened
from petskin_tune.errors import UsageError
from petskin_tune.files import regular
from petskin_tune.files.paths import typed
from petskin_tune.printable import printable

EVERY_SECONDS = 60.0
ANSWER_SECONDS = 10.0  # that a server may take
LARGEST_FILE = 64 * 1024  # bytes of a file that holds an address
MOST_LINES = 8  # of a message
MOST_CHARACTERS = 1800  # of these: Discord refuses a message of more than 2000
VARIABLE = "TUNE_NOTIFY"
# Slack reads `text`, Discord `content`; ntfy takes its message from the body by this template.
HEADERS = {
    "Content-Type": "application/json",
    "User-Agent": "petskin-tune",
    "X-Title": "petskin-tune",
    "X-Template": "yes",
    "X-Message": "{{.text}}",
}

log = logging.getLogger(__name__)

Send = Callable[[str, str], None]


def address(asked: str | None, environ: Mapping[str, str]) -> str | None:
    """The address that ``--notify`` or ``TUNE_NOTIFY`` names: a URL, or a file that holds one; None: nobody is told.

    Raises:
        UsageError: it is neither. What was given is not quoted.
    """
    given = asked or environ.get(VARIABLE) or None
    if given is None:
        return None
    where = "--notify" if asked else VARIABLE
    if "://" not in given:
        given = _first_line(given, where)
    try:
        parts = urlsplit(given)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not re.fullmatch(r"[!-~]+", given):
        raise UsageError(f"{where} must be an https:// address, or a file that holds one.")
    return given


def _first_line(file: str, where: str) -> str:
    try:
        return regular.read_text(typed(file), LARGEST_FILE).partition("\n")[0].strip()
    except (OSError, ValueError):
        raise UsageError(f"{where} must be an https:// address, or a file that holds one and can be read.") from None


def post(url: str, text: str) -> None:
    """Send one message.

    Raises:
        OSError: the server cannot be reached, or refuses it.
        http.client.HTTPException: it does not speak HTTP.
    """
    body = json.dumps({"text": text, "content": text}).encode()
    request = urllib.request.Request(url, data=body, headers=HEADERS, method="POST")
    with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
        answer.read(1)


class Notifier:
    """Sends messages from a thread of its own.

    Args:
        url: see :func:`address`; None: nothing is sent.
        every: seconds between two messages.
        send: delivers one message to an address.
    """

    def __init__(self, url: str | None, *, every: float = EVERY_SECONDS, send: Send = post) -> None:
        self._url = url
        self._every = every
        self._send = send
        self._waiting: list[str] = []
        self._allowed_at = 0.0  # instant (monotonic) of the next message
        self._closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def is_on(self) -> bool:
        """Whether anybody is told."""
        return self._url is not None

    def tell(self, text: str) -> None:
        """Send ``text`` as soon as a message may be sent; returns at once."""
        if self._url is None:
            return
        with self._changed:
            self._waiting.append(harmless(text))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="notify", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def give_up(self) -> None:
        """Send nothing more of what waits."""
        with self._changed:
            if self._waiting:
                log.warning("a notification was left out: a person would not wait for it")
            self._waiting.clear()
            self._closed = True
            self._changed.notify_all()

    def close(self, patience: float) -> None:
        """Send what waits, within ``patience`` seconds, and nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(max(0.0, patience))
            if self._thread.is_alive():
                log.warning("a notification was left out: it could not be sent in time")

    def _work(self) -> None:
        while (text := self._next()) is not None:
            assert self._url is not None
            try:
                self._send(self._url, text)
            except (OSError, http.client.HTTPException, ValueError) as error:
                log.warning("a notification could not be sent: %s", _why(error))

    def _next(self) -> str | None:
        """The next message, when one may be sent; None: there is none and will be none."""
        with self._changed:
            while not self._waiting or time.monotonic() < self._allowed_at:
                if self._closed and not self._waiting:
                    return None
                self._changed.wait(max(0.0, self._allowed_at - time.monotonic()) if self._waiting else None)
            lines, self._waiting = self._waiting, []
            self._allowed_at = time.monotonic() + self._every
        return _joined(lines)


def _joined(lines: list[str]) -> str:
    left = len(lines) - MOST_LINES
    if sum(map(len, lines[-MOST_LINES:])) > MOST_CHARACTERS:
        lines = [shortened(line, MOST_CHARACTERS // min(len(lines), MOST_LINES)) for line in lines]
    return "\n".join(lines if left <= 0 else [f"({left} earlier messages are left out)", *lines[left:]])


def harmless(text: str) -> str:
    """One line without secrets that calls nobody (``@everyone``, ``<!channel>``)."""
    line = shortened(masked(printable(" ".join(text.split()))))
    return line.replace("@", "@\u200b").replace("<", "‹").replace(">", "›")


def _why(error: Exception) -> str:
    """What went wrong, without the address."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code}"
    reason = getattr(error, "reason", error)
    code = getattr(reason, "errno", None)
    return f"{type(reason).__name__}{f' ({os.strerror(code)})' if isinstance(code, int) and code > 0 else ''}"
