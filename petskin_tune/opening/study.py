"""From what a person typed to an open study: file, home, database, and where the study is new, data and model too."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from petskin_tune.errors import UsageError
from petskin_tune.home.home import Home
from petskin_tune.home.replica import Mode
from petskin_tune.opening.beginning import begin_study, draft_study
from petskin_tune.opening.lookup import names, open_existing, resolve
from petskin_tune.opening.patience import Say, patience_of, remember_answer
from petskin_tune.opening.places import Places, warn_of_visible_password
from petskin_tune.study.creation import name_metric
from petskin_tune.study.study import Study
from petskin_tune.study.study_file.file import not_found
from petskin_tune.study.study_file.parser import check_study_name
from petskin_tune.study.wanted import Wanted, may_take_the_file, refuse_differences, take_changes, wanted

if TYPE_CHECKING:
    from petskin_tune.trial.inputs import Prepared


_BEFORE_WORKERS = ("petskin-tune import", "petskin-tune try")  # what they add is to be there when training begins


class NotBegun(UsageError):
    """The study has a file, but is not in the database yet."""


@dataclass(frozen=True)
class Opened:
    """An open study; ``prepared`` when opening it had to look at data and model."""

    home: Home
    study: Study
    prepared: Prepared | None = None


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
            first = "petskin-tune init" if places.command in _BEFORE_WORKERS else "tune-worker"
            raise NotBegun(f"The study {asked.name!r} has not begun yet; type: {places.to_type(first)}")
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
        study = open_existing(home, asked, patience_of(home, say), places.mode)  # 4. is it in the database?
        before = study if study is not None and may_take_the_file(study, asked) else None
        if study is not None and before is None:
            refuse_differences(study, asked, places.typed)
            if not started:
                start()
            take_changes(study, asked)  # 5. yes: of its file, what may change
            name_metric(study)
            opened = Opened(home, study)
        else:
            draft = draft_study(asked, home, places, say, data, more_points)  # 5. no: all that can refuse a new one
            if not started:
                start()
            opened = Opened(
                home, begin_study(draft, home, before), draft.prepared
            )  # 6. the first thing that is created
            if before is not None:
                say(f"no trial of the study {asked.name} had begun: it takes its file as it is now")
        if places.mode != "guest":
            warn_of_visible_password(places)
        remember_answer(home)  # 7. whoever comes next waits for this database
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
