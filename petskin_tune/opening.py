"""From what a person typed to an open study: file, home, database, and where the study is new, data and model too."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from petskin_tune import attributes
from petskin_tune.database import Patience, has_tables, normalise_url
from petskin_tune.errors import UsageError
from petskin_tune.home import Home, Mode, resolve_home
from petskin_tune.preparation import Prepared, prepare
from petskin_tune.spec import StudySpec
from petskin_tune.start_points import start_points
from petskin_tune.storage import open_storage, unreachable
from petskin_tune.study import Study, Wanted, create_study, find_study, reconcile, wanted
from petskin_tune.study_file import not_found

START_PATIENCE_SECONDS = 8.0  # a hosted database that was asleep needs a few seconds to answer


class NotBegun(UsageError):
    """The study has a file, but is not in the database yet."""


@dataclass(frozen=True)
class Places:
    """The options that every command takes."""

    study: str
    home: str | None = None
    storage: str | None = None
    checkpoints: str | None = None
    mode: Mode = "owner"
    take_over: bool = False
    ephemeral: bool = False
    local_checkpoints: bool = False
    command: str = "tune-worker"
    asked: Wanted | None = None  # what ``study`` means, where no file or database need be asked


@dataclass(frozen=True)
class Opened:
    """An open study; ``prepared`` when opening it had to look at data and model."""

    home: Home
    study: Study
    prepared: Prepared | None = None


def resolve(places: Places) -> Home:
    """Where everything lies; creates nothing.

    Raises:
        UsageError: see :func:`petskin_tune.home.resolve_home`.
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


def open_existing(home: Home, asked: Wanted) -> Study | None:
    """The study, if it is in the database; neither database nor tables are created.

    Raises:
        UsageError: the database cannot be reached, or the study differs from the file named.
    """
    if home.database_is_left_over:
        return None
    url = normalise_url(home.storage_url)
    try:
        if not Patience(START_PATIENCE_SECONDS).call(lambda: has_tables(url)):
            return None
    except Exception as error:
        raise unreachable(url, error) from error
    study = find_study(open_storage(home.storage_url), asked.name)
    if study is not None:
        reconcile(study, asked)
    return study


@contextlib.contextmanager
def open_study(
    places: Places, mode: Mode = "reader", say: Callable[[str], None] = print
) -> Iterator[tuple[Home, Study]]:
    """The home and the study, which must exist; the home is closed in the end.

    Args:
        places: where.
        mode: see :meth:`petskin_tune.home.Home.start`.
        say: takes one sentence for people.

    Raises:
        UsageError: it does not, or see :func:`open_existing`.
    """
    asked = places.asked or wanted(places.study)
    home = resolve(places)
    try:
        if home.network and home.is_there:
            home.start(mode, say=say)
        study = open_existing(home, asked)
        if study is None and asked.spec is None:
            raise not_found(places.study)
        if study is None:
            raise NotBegun(f"The study {asked.name!r} has not begun yet; type: tune-worker --study {places.study}")
        yield home, study
    finally:
        home.close()


def open_or_create(
    places: Places,
    say: Callable[[str], None],
    data: str | None = None,
    *,
    name: str | None = None,
    more_points: tuple[Mapping[str, Any], ...] = (),
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
    asked = places.asked or wanted(places.study)
    if name is not None and asked.spec is not None:
        asked = replace(asked, name=name, spec=asked.spec.model_copy(update={"study": name}))
    home = resolve(places)
    started = home.network and home.is_there  # whose database is brought to this machine first
    if started:
        home.start(places.mode, take_over=places.take_over, say=say)
    try:
        study = open_existing(home, asked)
        if study is not None:
            if not started:
                home.start(places.mode)
            return Opened(home, study)
        return _create(asked, home, places, say, data, more_points, started)
    except BaseException:
        home.close()
        raise


def _require_writable(folder: Path) -> None:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(f"Nothing can be written to {existing}: choose another folder with --home.")


def _prepare_or_leave_nothing(spec: StudySpec, home: Home, folders: list[Path], data: str | None) -> Prepared:
    new = not home.work.exists()
    try:
        return prepare(spec, home, folders, data)
    except UsageError:
        if new:  # what was made of the data set on the way is of no use without the study
            shutil.rmtree(home.work, ignore_errors=True)
            with contextlib.suppress(OSError):
                home.folder.rmdir()
        raise


def _create(
    asked: Wanted,
    home: Home,
    places: Places,
    say: Callable[[str], None],
    data: str | None,
    more_points: tuple[Mapping[str, Any], ...],
    started: bool,
) -> Opened:
    if asked.spec is None:
        raise not_found(places.study)
    for warning in asked.warnings:
        say(f"warning: {warning}")
    folders = [asked.folder] if asked.folder else []
    _require_writable(home.folder)
    prepared = _prepare_or_leave_nothing(asked.spec, home, folders, data)
    points = start_points(asked.spec, classes=prepared.classes, train_images=prepared.train_images)
    for note in points.notes:
        say(f"note: {note}")
    if not started:
        home.start(places.mode, take_over=places.take_over, say=say)
    study = create_study(
        open_storage(home.storage_url),
        asked.spec,
        points=(*points.points, *more_points),
        attributes_of_study={
            attributes.BASE: str(asked.folder) if asked.folder and not asked.shipped else "",
            attributes.STORE: home.to_record,
            attributes.FINGERPRINT: prepared.fingerprint.to_json(),
        },
    )
    return Opened(home, study, prepared)
