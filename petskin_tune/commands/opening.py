"""From what a person typed to an open study: file, home, database, and where the study is new, data and model too."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from petskin_tune.checkpoints.opening import check_store
from petskin_tune.database.engine import Patience, has_tables, mask, normalise_url
from petskin_tune.database.storage import open_storage, unreachable
from petskin_tune.errors import UsageError
from petskin_tune.home.home import Home, Mode, resolve_home
from petskin_tune.study import attributes
from petskin_tune.study.file import not_found
from petskin_tune.study.space import fit_point
from petskin_tune.study.spec import StudySpec
from petskin_tune.study.start_points import start_points
from petskin_tune.study.study import Study, Wanted, create_study, find_study, refuse_differences, take_changes, wanted
from petskin_tune.trial.inputs import Prepared, prepare, require_same_data

START_PATIENCE_SECONDS = 8.0  # a hosted database that was asleep needs a few seconds to answer
WORTH_SAYING_SECONDS = 2.0  # of waiting for a database at the door

Say = Callable[[str], None]


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

    @property
    def typed(self) -> str:
        """The options beside ``--study`` that a person types again to mean the same places, the password masked."""
        given = {"--home": self.home, "--storage": _masked(self.storage), "--checkpoints": self.checkpoints}
        return "".join(f" {option} {shlex.quote(value)}" for option, value in given.items() if value)

    def to_type(self, command: str, study: str | None = None) -> str:
        """``command`` as a person types it for this study (or another in the same places)."""
        return f"{command} --study {shlex.quote(study or self.study)}{self.typed}"


def _masked(url: str | None) -> str | None:
    try:
        return url and mask(normalise_url(url).set(drivername=url.partition(":")[0]))
    except UsageError:
        return None  # it is refused elsewhere, and never quoted


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


def open_existing(home: Home, asked: Wanted, patience: Patience | None = None) -> Study | None:
    """The study, if it is in the database; neither database nor tables are created, and nothing is written.

    Args:
        home: where the database is.
        asked: which study.
        patience: with a database that does not answer; None: that of a person at a prompt.

    Raises:
        UsageError: the database cannot be reached, or the study differs from the file named.
    """
    if home.database_is_left_over:
        return None
    url = normalise_url(home.storage_url)
    try:
        if not has_tables(url, patience or Patience(START_PATIENCE_SECONDS)):
            return None
    except Exception as error:
        raise unreachable(url, error) from error
    study = find_study(open_storage(home.storage_url), asked.name)
    if study is not None:
        refuse_differences(study, asked)
    return study


# ---- a worker at the door --------------------------------------------------------------------------------------------


def _at_the_door(home: Home, say: Say) -> Patience:
    """A worker's patience: endless with a database that has answered this home before, for it will come back.

    One that never did is more likely mistyped.
    """
    if not _met(home, normalise_url(home.storage_url)).exists():
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
    mark = _met(home, normalise_url(home.storage_url))
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()


def _met(home: Home, url: URL) -> Path:
    """The mark of a database that has answered here."""
    return home.work / "databases" / hashlib.sha256(mask(url).encode()).hexdigest()[:16]


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
        study = open_existing(home, asked)
        if study is None and asked.spec is None:
            raise not_found(places.study)
        if study is None:
            raise NotBegun(f"The study {asked.name!r} has not begun yet; type: {places.to_type('tune-worker')}")
        yield home, study
    finally:
        home.close()


def open_or_create(
    places: Places,
    say: Say,
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
        study = open_existing(home, asked, _at_the_door(home, say))
        if study is not None:
            if not started:
                home.start(places.mode)
            take_changes(study, asked)
            opened = Opened(home, study)
        else:
            opened = _create(asked, home, places, say, data, more_points, started)
        _remember_answer(home)
        return opened
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
        prepared = prepare(spec, home, folders, data)
        _check_new_store(home)
        return prepared
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
    say: Say,
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
    offered = [fit_point(point, asked.spec.search) for point in more_points]
    for sentence in dict.fromkeys(sentence for _, misfits in offered for sentence in misfits):
        say(f"note: offered trials: {sentence}")
    if not started:
        home.start(places.mode, take_over=places.take_over, say=say)
    study = create_study(
        open_storage(home.storage_url),
        asked.spec,
        points=(*points.points, *(point for point, _ in offered)),
        attributes_of_study={
            attributes.BASE: str(asked.folder) if asked.folder and not asked.shipped else "",
            attributes.STORE: home.to_record,
            attributes.FINGERPRINT: prepared.fingerprint.to_json(),
        },
    )
    # Meanwhile another worker may have created it, from another file or other data.
    refuse_differences(study, asked)
    require_same_data(study.attributes[attributes.FINGERPRINT], prepared.fingerprint)
    return Opened(home, study, prepared)


def _check_new_store(home: Home) -> None:
    """A store that nobody can use must not become a study's.

    Raises:
        UsageError: it refuses, or only this machine could read it.
    """
    store = home.open_store(None)
    if home.asked_store is not None:
        check_store(store)
