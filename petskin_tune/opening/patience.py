"""How long a worker waits for a database that does not answer: endlessly, if it has answered this home before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from petskin_tune import variables
from petskin_tune.database.addresses import mask, normalise_url
from petskin_tune.database.outages import Patience
from petskin_tune.home.home import Home

START_PATIENCE_SECONDS = 8.0  # a hosted database that was asleep needs a few seconds to answer
WORTH_SAYING_SECONDS = 2.0  # of waiting for a database

Say = Callable[[str], None]


def patience_of(home: Home, say: Say) -> Patience:
    """A worker's: endless with a database that has answered this home before, for it will come back.

    One that never did is more likely mistyped, unless ``TUNE_PATIENCE_SECONDS`` says how long to wait for it: a machine
    that a scheduler starts in the place of a lost one has seen no answer yet.

    Raises:
        UsageError: that variable is no number of seconds.
    """
    has_answered = _mark_of_database(home).exists()
    said = False

    def on_wait(seconds: float) -> None:
        nonlocal said
        if seconds > WORTH_SAYING_SECONDS and not said:
            said = True
            why = "it has answered here before" if has_answered else f"{variables.PATIENCE} says so"
            say(f"the database is away; waiting for it, because {why}")

    if has_answered:
        return Patience(None, on_wait=on_wait)
    asked = variables.seconds(variables.PATIENCE, 0.0)
    return Patience(asked, on_wait=on_wait) if asked > START_PATIENCE_SECONDS else Patience(START_PATIENCE_SECONDS)


def remember_answer(home: Home) -> None:
    """Whoever opens this home next waits for its database, however long it is away."""
    if home.database is not None:
        return  # a file is there or not
    mark = _mark_of_database(home)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()


def _mark_of_database(home: Home) -> Path:
    """The empty file that says of a database that it has answered here."""
    name = hashlib.sha256(mask(normalise_url(home.storage_url)).encode()).hexdigest()[:16]
    return home.work / "databases" / name
