"""The nearest right name: what a refusal adds when a person has misspelt one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``": did you mean `mosaic`?"`` for a near miss of a known name, whatever its case; else an empty string."""
    by_lower = {word.lower(): word for word in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f": did you mean `{by_lower[close[0]]}`?" if close else ""
