"""Errors as people read them: the whole message in one line, the end of a traceback, and no password in either."""

from __future__ import annotations

import re

from petskin_tune import printable

LONGEST_MESSAGE = 400  # characters of an error's message in a sentence
HEAD = 250  # of them, of a longer one, from its beginning; its end says what came of it
LONGEST_DETAIL = 6000  # characters kept of a traceback or a log
_PASSWORD = re.compile(r"(\w+://[^\s:/@]*):[^\s/@]+@")
_SECRET = re.compile(
    r"((?:password|passwd|secret|token|api_?key|access_?key|signature)\w*[\"']?\s*[=:]\s*[\"']?)[^\s\"'&,;]+",
    re.IGNORECASE,
)


def masked(text: str) -> str:
    """``text`` without the passwords of URLs, and without what is called a password, a secret, a token or a key."""
    return _SECRET.sub(r"\1***", _PASSWORD.sub(r"\1:***@", text))


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
