"""From what a person typed to an open study: file, home, database, and where the study is new, data and model too."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petskin_tune.checkpoints.opening import check_store
from petskin_tune.commands.places import Places, warn_of_visible_password
from petskin_tune.database.addresses import mask, normalise_url
from petskin_tune.database.engine import has_tables
from petskin_tune.database.outages import Patience
from petskin_tune.database.privileges import require_writable
from petskin_tune.database.sqlite_file import may_write
from petskin_tune.database.storage import PetskinStorage, open_storage, unreachable
from petskin_tune.errors import UsageError
from petskin_tune.home.home import Home, resolve_home
from petskin_tune.home.replica import Mode
from petskin_tune.study import attributes
from petskin_tune.study.file import not_found, shipped
from petskin_tune.study.parser import check_study_name
from petskin_tune.study.space import fit_point
from petskin_tune.study.spec import StudySpec
from petskin_tune.study.start_points import start_points
from petskin_tune.study.study import (
    Study,
    Wanted,
    create_study,
    find_study,
    may_take_the_file,
    name_metric,
    our_names,
    refuse_deleted,
    refuse_differences,
    take_changes,
    wanted,
)

if TYPE_CHECKING:
    from petskin_tune.trial.inputs import Prepared

START_PATIENCE_SECONDS = 8.0  # a hosted database that was asleep needs a few seconds to answer
WORTH_SAYING_SECONDS = 2.0  # of waiting for a database
MOST_NAMED = 10  # studies in a sentence

Say = Callable[[str], None]


class NotBegun(UsageError):
    """The study has a file, but is not in the database yet."""


@dataclass(frozen=True)
class Opened:
    """An open study; ``prepared`` when opening it had to look at data and model."""

    home: Home
    study: Study
    prepared: Prepared | None = None


def resolve(places: Places) -> Home:
    """Where everything lies; creates nothing.

    Raises:
        UsageError: see :func:`petskin_tune.home.home.resolve_home`.
    """
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
    return find_study(open_storage(home.storage_url, read_only=_is_protected(home)), name)


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


def _open_database(home: Home) -> PetskinStorage | None:
    if home.database_is_left_over:
        return None
    url = normalise_url(home.storage_url)
    try:
        there = has_tables(url, Patience(START_PATIENCE_SECONDS))
    except Exception as error:
        raise unreachable(url, error) from error
    return open_storage(home.storage_url, read_only=_is_protected(home)) if there else None


def names(home: Home) -> list[str]:
    """The names of our studies in a home's database, which is open already or was looked for."""
    storage = _open_database(home)
    return our_names(storage) if storage else []


def only_study(places: Places) -> str:
    """The name of the only study in the places that were named.

    Raises:
        UsageError: there is none, or there are several: says which.
    """
    with open_places(places) as (home, storage):
        found = our_names(storage) if storage else []
    where = str(home.folder) if home.database else mask(normalise_url(home.storage_url))
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


# ---- patience with a database that is away ---------------------------------------------------------------------------


def _patience(home: Home, say: Say) -> Patience:
    """A worker's: endless with a database that has answered this home before, for it will come back.

    One that never did is more likely mistyped.
    """
    if not _mark_of_database(home).exists():
        return Patience(START_PATIENCE_SECONDS)
    said = False

    def on_wait(seconds: float) -> None:
        nonlocal said
        if seconds > WORTH_SAYING_SECONDS and not said:
            said = True
            say("the database is away; waiting for it, because it has answered here before")

    return Patience(None, on_wait=on_wait)


def _remember_answer(home: Home) -> None:
    if home.database is not None:
        return  # a file is there or not
    mark = _mark_of_database(home)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()


def _mark_of_database(home: Home) -> Path:
    """The empty file that says of a database that it has answered here."""
    name = hashlib.sha256(mask(normalise_url(home.storage_url)).encode()).hexdigest()[:16]
    return home.work / "databases" / name


# ---- opening ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_study(places: Places, mode: Mode = "reader", say: Say = print) -> Iterator[tuple[Home, Study]]:
    """The home and the study, which must exist; the home is closed in the end.

    Args:
        places: where.
        mode: see :meth:`petskin_tune.home.home.Home.start`.
        say: takes one sentence for people.

    Raises:
        UsageError: it does not, or see :func:`open_existing`.
    """
    asked = places.asked or wanted(places.study)
    home = resolve(places)
    try:
        if home.network and home.is_there:
            home.start(mode, say=say)
        study = open_existing(home, asked, mode=mode)
        if study is None and asked.spec is None:
            raise not_found(places.study, names(home))
        if study is None:
            raise NotBegun(f"The study {asked.name!r} has not begun yet; type: {places.to_type('tune-worker')}")
        refuse_differences(study, asked, places.typed)
        warn_of_visible_password(places)
        yield home, study
    finally:
        home.close()


def open_or_create(
    places: Places,
    say: Say,
    data: str | None = None,
    *,
    name: str | None = None,
    more_points: Sequence[Mapping[str, Any]] = (),
) -> Opened:
    """The study, created with its start points where it is new; the caller closes the home.

    Nothing is created before everything was checked.

    Args:
        places: where.
        say: prints a line.
        data: the data set on this machine instead of the study's entry.
        name: of the study, instead of the one in the file.
        more_points: tried after the study file's own start points.

    Raises:
        UsageError: the study file, the home, the data set, the model or the database cannot be used.
    """
    asked = _asked(places, name)  # 1. which study
    home = resolve(places)  # 2. where it lies
    start = functools.partial(home.start, places.mode, take_over=places.take_over, say=say)
    started = home.network and home.is_there
    if started:
        start()  # 3. such a home's database is brought to this machine before anybody looks into it
    try:
        study = open_existing(home, asked, _patience(home, say), places.mode)  # 4. is it in the database?
        before = study if study is not None and may_take_the_file(study, asked) else None
        if study is not None and before is None:
            refuse_differences(study, asked, places.typed)
            if not started:
                start()
            take_changes(study, asked)  # 5. yes: of its file, what may change
            name_metric(study)
            opened = Opened(home, study)
        else:
            draft = _draft(asked, home, places, say, data, more_points)  # 5. no: all that can refuse a new one
            if not started:
                start()
            opened = Opened(home, _create(draft, home, before), draft.prepared)  # 6. the first thing that is created
            if before is not None:
                say(f"no trial of the study {asked.name} had begun: it takes its file as it is now")
        if places.mode != "guest":
            warn_of_visible_password(places)
        _remember_answer(home)  # 7. whoever comes next waits for this database
        return opened
    except BaseException:
        home.close()
        raise


def _asked(places: Places, name: str | None) -> Wanted:
    asked = places.asked or wanted(places.study)
    if name is None or asked.spec is None:
        return asked
    check_study_name(name)
    return replace(asked, name=name, spec=asked.spec.model_copy(update={"study": name}))


def _require_writable(folder: Path) -> None:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(f"Nothing can be written to {existing}: choose another folder with --home.")


def _prepare_or_leave_nothing(spec: StudySpec, home: Home, folders: list[Path], data: str | None) -> Prepared:
    """Data set, model and store of a new study.

    Raises:
        UsageError: one of them cannot be used; what was made of the data set on the way is deleted.
    """
    from petskin_tune.trial.inputs import prepare  # only here: whoever opens a study that is there needs no pictures

    new = not home.work.exists()
    try:
        prepared = prepare(spec, home, folders, data)
        store = home.open_store(None)
        if home.asked_store is not None:
            check_store(store)
        return prepared
    except UsageError:
        if new:
            shutil.rmtree(home.work, ignore_errors=True)
            with contextlib.suppress(OSError):
                home.folder.rmdir()
        raise


@dataclass(frozen=True)
class _Draft:
    """A new study that nothing refuses; ``points`` are its start points."""

    asked: Wanted
    spec: StudySpec
    prepared: Prepared
    points: tuple[Mapping[str, Any], ...]


def _draft(
    asked: Wanted, home: Home, places: Places, say: Say, data: str | None, more_points: Sequence[Mapping[str, Any]]
) -> _Draft:
    if asked.spec is None:
        raise not_found(places.study, names(home))
    for warning in asked.warnings:
        say(f"warning: {warning}")
    folders = [asked.folder] if asked.folder else []
    _require_writable(home.folder)
    prepared = _prepare_or_leave_nothing(asked.spec, home, folders, data)
    points = start_points(asked.spec, classes=prepared.classes, train_images=prepared.train_images)
    for note in points.notes:
        say(f"note: {note}")
    offered = [fit_point(point, asked.spec.search) for point in more_points]
    for sentence in dict.fromkeys(sentence for _, misfits in offered for sentence in misfits):
        say(f"note: offered trials: {sentence}")
    return _Draft(asked, asked.spec, prepared, (*points.points, *(point for point, _ in offered)))


def _create(draft: _Draft, home: Home, before: Study | None) -> Study:
    from petskin_tune.trial.inputs import require_same_data

    asked, fingerprint = draft.asked, draft.prepared.fingerprint
    study = create_study(
        open_storage(home.storage_url),
        draft.spec,
        points=draft.points,
        attributes_of_study={
            attributes.BASE: str(asked.folder) if asked.folder and not asked.shipped else "",
            attributes.STORE: home.to_record,
            attributes.FINGERPRINT: fingerprint.to_json(),
        },
        instead_of=before,
    )
    # Meanwhile another worker may have created it, from another file or other data.
    refuse_differences(study, asked)
    require_same_data(study.attributes[attributes.FINGERPRINT], fingerprint)
    return study
