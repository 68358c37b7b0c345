"""The nearest right name: what a refusal adds when a person has misspelt one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST = 100  # characters of a name; a longer one is no slip of the pen, and takes long to compare


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``": did you mean `mosaic`?"`` for a near miss of a known name, whatever its case; else an empty string."""
    if len(name) > _LONGEST:
        return ""
    by_lower = {word.lower(): word for word in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f": did you mean `{by_lower[close[0]]}`?" if close else ""
