"""Who holds a trial that is not over, in the words of ``status`` and ``trials``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from petskin_tune.leases.lease import Lease

Hold = Literal["training", "dead", "silent", "released", "frozen", "unowned"]

WORDS: Mapping[Hold, str] = {
    "training": "training",
    "dead": "worker died",
    "silent": "no answer",
    "released": "suspended",
    "frozen": "frozen",
    "unowned": "suspended",
}
# What a person who reads the word for the first time asks.
EXPLAINED: Mapping[str, str] = {
    "worker died": "its worker has ended without a word; the next tune-worker on this machine goes on at once",
    "no answer": "its worker was not heard of lately and may be gone; the next tune-worker finds out and goes on",
    "suspended": "the next tune-worker goes on with it",
    "frozen": "kept for later while the search trains others",
}


def hold_of(lease: Lease | None) -> Hold:
    """Who holds the trial with this lease.

    "training": a worker that may well live. "dead": its process has ended, as this machine can see. "silent": the
    lease ran out. "released": it was given back. "frozen": the search pays for others now. "unowned": it lost its
    owner at birth.
    """
    if lease is None:
        return "unowned"
    if lease.state in ("released", "frozen"):
        return "frozen" if lease.state == "frozen" else "released"
    if lease.identity.is_alive() is False:
        return "dead"
    return "silent" if lease.has_run_out else "training"
