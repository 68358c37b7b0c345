"""Errors as people read them: the whole message in one line, the end of a traceback, and no password in either."""

from __future__ import annotations

import re

from petskin_tune import printable

LONGEST_MESSAGE = 400  # characters of an error's message in a sentence
HEAD = 250  # of them, of a longer one, from its beginning; its end says what came of it
LONGEST_DETAIL = 6000  # characters kept of a traceback or a log
# Names of schemes and of secrets are no longer than this: a text of one endless word takes no time with its square.
_URL = re.compile(r"[\w+.-]{1,40}://\S+")
_URL_TO_THE_END = re.compile(r"[\w+.-]{1,40}://.+", re.DOTALL)
_NO_PORT = re.compile(r"^([^/?:\[\]]+:)(?![0-9]{0,5}(?:[/?,]|$))[^?]*")
_NAME = re.compile(r"[A-Za-z_-]{1,24}")  # of a parameter; others may be a piece of a secret
_AFTER_A_URL = "\"'`.,;:)]}>"  # of the sentence around it
_SECRET = re.compile(
    r"((?:password|passwd|secret|token|api_?key|access_?key|signature)\w{0,100}[\"']?\s*[=:]\s*[\"']?)[^\s\"'&,;]+",
    re.IGNORECASE,
)
# Parameters of URLs whose values are no secrets: what is not listed is masked.
_SHOWN = """
    application_name channel_binding client_encoding connect_timeout connection_limit dbname gssencmode host
    hostaddr keepalives keepalives_count keepalives_idle keepalives_interval load_balance_hosts pgbouncer port
    schema service sslmode sslnegotiation sslsni target_session_attrs tcp_user_timeout timeout user
"""
HARMLESS = frozenset(_SHOWN.split())


def masked_url(url: str) -> str:
    """A URL as people may read it: no password, and no value of a parameter that is not in :data:`HARMLESS`.

    A password that was not percent-encoded may hold any character: all between the user and the last ``@`` is masked,
    and everything where a ``?`` before an ``@`` leaves open what is what.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "***"
    if "@" in rest and not (scheme.startswith("sqlite") and rest.startswith("/")):
        before, _, rest = rest.rpartition("@")
        if "?" in before:
            return f"{scheme}://***"
        rest = f"{_masked_user(before)}@{rest}"
    else:
        rest = _NO_PORT.sub(r"\1***", rest)  # as in ``USER:PASSWORD``, the host forgotten
    place, mark, parameters = rest.partition("?")
    return f"{scheme}://{place}{mark}{'&'.join(map(_masked_parameter, parameters.split('&')))}"


def masked_word(word: str) -> str:
    """A word that was typed, whose URL goes on to its end: a password in it may have spaces."""
    return _URL_TO_THE_END.sub(lambda found: masked_url(found[0]), word)


def _masked_user(before: str) -> str:
    user, colon, _ = before.partition(":")
    if not colon and "@" not in before:
        return before
    return "***" if set(user) & set("@/#") else f"{user}:***"


def _masked_parameter(parameter: str) -> str:
    name, equals, _ = parameter.partition("=")
    if name.lower() in HARMLESS or not parameter:
        return parameter
    return f"{name}=***" if equals and _NAME.fullmatch(name) else "***"


def _masked_in_text(match: re.Match[str]) -> str:
    url = match[0].rstrip(_AFTER_A_URL)
    return masked_url(url) + match[0][len(url) :]


def masked(text: str) -> str:
    """``text`` without the secrets of URLs, and without what is called a password, a secret, a token or a key."""
    return _SECRET.sub(r"\1***", _URL.sub(_masked_in_text, text))


def one_line(error: BaseException) -> str:
    """The whole message of an error in one line, at most ``LONGEST_MESSAGE`` characters of it.

    torch puts a traceback before the message of what a loader process raised; that is left out.
    """
    lines = str(error).strip().splitlines()
    if any("Traceback" in line for line in lines):
        named = f"{type(error).__module__}.{type(error).__qualname__}: "
        names = (named, named.rpartition(".")[2])
        starts = [index for index, line in enumerate(lines) if line.startswith(names)]
        lines = lines[starts[-1] if starts else -1 :]
        for name in names:
            lines[0] = lines[0].removeprefix(name)
    return shortened(masked(" ".join(" ".join(lines).split())))


def named(error: BaseException) -> str:
    """:func:`one_line` after the name of the error's class."""
    said = one_line(error)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def shortened(text: str, longest: int = LONGEST_MESSAGE) -> str:
    """``text``, or its beginning and its end where it is longer than ``longest`` characters."""
    return printable.shortened(text, longest, longest * HEAD // LONGEST_MESSAGE)


def tail(text: str, lines: int, width: int | None = None) -> list[str]:
    """The last ``lines`` lines that are not empty, each cut to ``width`` characters."""
    last = [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]
    return [line if width is None or len(line) <= width else f"{line[: width - 1]}…" for line in last]
