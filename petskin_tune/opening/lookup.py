"""Where everything lies, and which studies are there; nothing is created."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

from petskin_tune.database.addresses import mask, normalise_url
from petskin_tune.database.engine import has_tables
from petskin_tune.database.outages import Patience
from petskin_tune.database.privileges import require_writable
from petskin_tune.database.sqlite_file import may_write
from petskin_tune.database.storage import PetskinStorage, open_storage, unreachable
from petskin_tune.errors import UsageError
from petskin_tune.home.home import DATABASE, Home, resolve_home
from petskin_tune.home.replica import Mode
from petskin_tune.opening.patience import START_PATIENCE_SECONDS, Say
from petskin_tune.opening.places import Places, tell_of_overlooked_studies
from petskin_tune.study.study import Study, find_study, our_names, refuse_deleted
from petskin_tune.study.study_file.file import shipped
from petskin_tune.study.wanted import Wanted

MOST_NAMED = 10  # studies in a sentence


def resolve(places: Places) -> Home:
    """Where everything lies; creates nothing.

    Raises:
        UsageError: see :func:`petskin_tune.home.home.resolve_home`.
    """
    tell_of_overlooked_studies(places)
    return resolve_home(
        places.home,
        places.storage,
        places.checkpoints,
        os.environ,
        study=places.study,
        ephemeral=places.ephemeral,
        local_checkpoints=places.local_checkpoints,
        command=places.command,
    )


def open_existing(home: Home, asked: Wanted, patience: Patience | None = None, mode: Mode = "reader") -> Study | None:
    """The study, if it is in the database; neither database nor tables are created, and nothing is written.

    Whether it is the one that the file describes is not looked at.

    Args:
        home: where the database is.
        asked: which study.
        patience: with a database that does not answer; None: that of a person at a prompt.
        mode: a ``reader`` needs no right to write.

    Raises:
        UsageError: the database cannot be reached, may only be read, or the study is being deleted.
    """
    study = find_existing(home, asked.name, patience, mode)
    if study is not None:
        refuse_deleted(study)
    return study


def find_existing(home: Home, name: str, patience: Patience | None = None, mode: Mode = "reader") -> Study | None:
    """The study of that name, also where somebody has begun to delete it; see :func:`open_existing`.

    Raises:
        UsageError: the database cannot be reached, or may only be read.
    """
    storage = _open_database(home, patience, mode)
    return find_study(storage, name) if storage else None


@contextlib.contextmanager
def open_places(
    places: Places, mode: Mode = "reader", say: Say = print
) -> Iterator[tuple[Home, PetskinStorage | None]]:
    """The home and its database, None where there is none yet; the home is closed in the end.

    Raises:
        UsageError: the home cannot be used, or the database cannot be reached.
    """
    home = resolve(places)
    try:
        if home.network and home.is_there:
            home.start(mode, say=say)
        yield home, _open_database(home)
    finally:
        home.close()


def _open_database(home: Home, patience: Patience | None = None, mode: Mode = "reader") -> PetskinStorage | None:
    """The home's database; None where there is none yet, and none is made.

    Raises:
        UsageError: it cannot be reached, or may only be read by whoever is no ``reader``.
    """
    if home.database_is_left_over:
        return None
    url = normalise_url(home.storage_url)
    patience = patience or Patience(START_PATIENCE_SECONDS)
    try:
        there = has_tables(url, patience)
        if mode != "reader":
            patience.call(lambda: require_writable(url))
    except Exception as error:
        raise unreachable(url, error) from error
    if not there:
        return None
    return open_storage(home.storage_url, read_only=_is_protected(home), tolerant=mode == "reader")


def names(home: Home) -> list[str]:
    """The names of our studies in a home's database, which is open already or was looked for."""
    storage = _open_database(home)
    return our_names(storage) if storage else []


def place_of(home: Home) -> str:
    """Where its studies lie, for people: the home, or the database that was named instead of the home's."""
    file = home.database
    if file is None:
        return mask(normalise_url(home.storage_url))
    return str(home.folder if file.parent in (home.folder, home.work.parent) and file.name == DATABASE else file)


def only_study(places: Places) -> str:
    """The name of the only study in the places that were named; studies of repetitions are not looked at.

    Raises:
        UsageError: there is none, or there are several: says which.
    """
    with open_places(places) as (home, storage):
        found = our_names(storage, repetitions=False) if storage else []
    where = place_of(home)
    if not found:
        raise UsageError(f"There is no study in {where} yet: name one with --study, such as {_some(shipped())}.")
    if len(found) > 1:
        raise UsageError(f"There are {len(found)} studies in {where}, {_some(found)}: name one with --study.")
    return found[0]


def _some(found: Sequence[str]) -> str:
    return ", ".join(found[:MOST_NAMED]) + (", …" if len(found) > MOST_NAMED else "")


def _is_protected(home: Home) -> bool:
    """Whether the database is a file that this user may only read."""
    return home.database is not None and home.database.is_file() and not may_write(home.database)
