"""The doctor's checks, in their order: packages, places, files, a few real batches, trials that wait, the disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import sqlalchemy
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from petskin_tune import packages
from petskin_tune import text as words
from petskin_tune.checkpoints.opening import check_store
from petskin_tune.database import queries
from petskin_tune.database.addresses import mask, normalise_url
from petskin_tune.database.engine import engine_options
from petskin_tune.database.privileges import require_writable
from petskin_tune.database.refusals import AFTER_DAMAGE
from petskin_tune.database.sqlite_file import is_whole
from petskin_tune.database.storage import unreachable
from petskin_tune.datasets.trainable import without_labels
from petskin_tune.doctor import training_checks
from petskin_tune.doctor.estimate import Estimate
from petskin_tune.doctor.examination import Check, Examination, called
from petskin_tune.error_text import shortened
from petskin_tune.errors import UsageError
from petskin_tune.home.home import Home, sqlite_file
from petskin_tune.language import _, several
from petskin_tune.opening.beginning import require_writable_folder
from petskin_tune.opening.lookup import names, open_existing
from petskin_tune.opening.refusals import SCREEN, as_refusal
from petskin_tune.study import attributes
from petskin_tune.study import environment as study_environment
from petskin_tune.study.study import Study
from petskin_tune.study.study_file.file import not_found
from petskin_tune.study.wanted import may_take_the_file, refuse_differences
from petskin_tune.trial.inputs import prepare_data, prepare_model, require_same_data, warned

SKEW_SECONDS = 30.0  # between this clock and the database's, beyond which times in the study are misleading
PACKAGES = ("ultralytics", "torch", "optuna", "sqlalchemy")
SUPPORTED_ULTRALYTICS = "8.4."


def run(found: Examination) -> Iterator[Check]:
    """All checks in the order in which one needs what the other found; what cannot be looked at is left out."""
    yield _versions()
    database = _checked(found, "database", lambda: _database(found))
    yield database
    if found.study is None and found.asked.spec is None:
        if database.verdict == "problem":
            return  # nothing more is known of the study
        raise not_found(found.places.study, names(found.home))
    if found.study is not None and (check := _environment(found.study, found.home)):
        yield check
    yield _checked(found, "clock", lambda: _clock(found))
    yield _checked(found, "store", lambda: _store(found))
    yield _checked(found, "weights", lambda: _weights(found))
    yield _checked(found, "data", lambda: _data(found))
    yield from _by_training(found)
    yield _checked(found, "disk", lambda: _disk(found))


def _by_training(found: Examination) -> Iterator[Check]:
    try:
        disturbs = training_checks.would_disturb(found)
    except Exception as error:  # noqa: BLE001 (raised again, unless it is a refusal)
        yield _problem("training", error)
        return
    if disturbs:
        yield Check("training", "warning", _("not tried: a worker trains on this machine, and would be disturbed"))
        return
    if found.model is not None and found.prepared is not None:
        yield _checked(found, "training", lambda: training_checks.training(found))
    if found.probe is not None and found.probe.started is not None:
        yield training_checks.device(found)
    yield from _as_far_as_possible(found, "trials", training_checks.trials(found))


def _doing(name: str) -> str:
    """What is said while a check takes long."""
    known = {
        "weights": _("looking at the weights, which are fetched where they are not here"),
        "data": _("looking at every image and label of the data set"),
        "training": _("training a few batches, which may take a minute"),
        "trials": _("starting the trials that wait, each from its snapshot"),
    }
    return known.get(name) or _("looking at the {name}").format(name=called(name))


def _checked(found: Examination, name: str, look: Callable[[], Check]) -> Check:
    try:
        with found.pulse.during(_doing(name)):
            return look()
    except Exception as error:  # noqa: BLE001 (raised again, unless it is a refusal)
        return _problem(name, error)


def _as_far_as_possible(found: Examination, name: str, checks: Iterator[Check]) -> Iterator[Check]:
    try:
        with found.pulse.during(_doing(name)):
            yield from checks
    except Exception as error:  # noqa: BLE001 (raised again, unless it is a refusal)
        yield _problem(name, error)


def _problem(name: str, error: Exception) -> Check:
    """What a refusal is to the doctor; what nobody foresaw is raised."""
    if (refusal := as_refusal(error)) is None:
        raise error
    return Check(name, "problem", shortened(str(refusal), SCREEN))


def _versions() -> Check:
    found: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    said = ", ".join(f"{package} {number or _('missing')}" for package, number in found.items())
    missing = [package for package, number in found.items() if number is None]
    if missing:
        install = _("{versions}; type: pip install {missing}").format(versions=said, missing=" ".join(missing))
        return Check("versions", "problem", install)
    if not str(found["ultralytics"]).startswith(SUPPORTED_ULTRALYTICS):
        advice = f"pip install 'ultralytics=={SUPPORTED_ULTRALYTICS}*'"
        trains_with = _("{versions}; this petskin-tune trains with {command}").format(versions=said, command=advice)
        return Check("versions", "problem", trains_with)
    return Check("versions", "ok", said)


def _database(found: Examination) -> Check:
    url = normalise_url(found.home.storage_url)
    _require_whole(found.home.database)
    study = open_existing(found.home, found.asked)
    if study is not None:
        study.storage.tolerant = False  # as a worker reads it
    if study is not None and not may_take_the_file(study, found.asked):
        refuse_differences(study, found.asked, found.places.typed)
        found.study = study
    where = mask(url)
    _require_rights(url)
    if found.study is not None:
        trials = several(len(found.study.trials()), _("{count} trial"), _("{count} trials"))
        return Check("database", "ok", _("{where} has the study, {trials}").format(where=where, trials=trials))
    file = sqlite_file(found.home.storage_url)
    if file is not None:
        require_writable_folder(file.parent)
    return Check("database", "ok", _("{where} answers; the study is not begun").format(where=where))


def _require_whole(file: Path | None) -> None:
    if file is not None and file.is_file() and not is_whole(file):
        raise UsageError(f"{file} is damaged, says SQLite's quick_check. {AFTER_DAMAGE}")


def _require_rights(url: URL) -> None:
    try:
        require_writable(url)
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise unreachable(url, error) from error


def _environment(study: Study, home: Home) -> Check | None:
    """Whether this machine's packages are those that the study was begun with; None before it was."""
    trials = study.trials()
    environment = study_environment.of_study(study.attributes, trials)
    if environment is None:
        return None
    lines, refused = study_environment.news(study.name, study.attributes, trials, home.folder)
    if lines:
        return Check("environment", "problem" if refused else "warning", "; ".join(lines))
    release = environment["versions"].get(packages.ULTRALYTICS)
    same = _("the packages that the study was begun with, ultralytics {release}").format(release=release)
    return Check("environment", "ok", same)


def _clock(found: Examination) -> Check:
    url = normalise_url(found.home.storage_url)
    if url.get_backend_name() == "sqlite":
        return Check("clock", "ok", _("the database uses this machine's"))
    engine = sqlalchemy.create_engine(url, poolclass=NullPool, connect_args=engine_options(url)["connect_args"])
    try:
        with engine.connect() as connection:
            before = time.time()
            theirs = float(connection.execute(queries.CLOCK["postgresql"]).scalar_one())
            skew = (before + time.time()) / 2 - theirs
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise unreachable(url, error) from error
    finally:
        engine.dispose()
    apart = _("{skew:.1f} s ahead of the database's") if skew > 0 else _("{skew:.1f} s behind the database's")
    said = apart.format(skew=abs(skew))
    if abs(skew) > SKEW_SECONDS:
        wrong = _("{clock}; leases do not mind, times in the study do: set this machine's clock").format(clock=said)
        return Check("clock", "warning", wrong)
    return Check("clock", "ok", said)


def _store(found: Examination) -> Check:
    store = found.open_store()
    check_store(store)
    return Check("store", "ok", _("{store} can be written to, read and cleaned up").format(store=store.url))


def _weights(found: Examination) -> Check:
    found.model = prepare_model(found.spec, found.home, found.folders)
    path = Path(found.model)
    size = f", {words.size(path.stat().st_size)}" if path.suffix == ".pt" and path.is_file() else ""
    scratch = _(", trained from scratch") if path.suffix == ".yaml" else ""
    return Check("weights", "ok", f"{found.model}{size}{scratch}")


def _data(found: Examination) -> Check:
    prepared = prepare_data(found.spec, found.home, found.folders, found.model or "", found.data)
    stored = found.study.attributes.get(attributes.FINGERPRINT) if found.study else None
    if stored is not None:
        prepared = replace(prepared, fingerprint=require_same_data(stored, prepared.fingerprint))
    found.prepared = prepared = warned(found.spec, prepared)
    train, val = found.images
    classes = several(prepared.classes, _("{count} class"), _("{count} classes"))
    counts = _("{train} images to train on, {val} to validate, {classes} ({data})")
    said = counts.format(train=train, val=val, classes=classes, data=prepared.data)
    if images := without_labels(prepared.data):
        lost = _(
            "{counts}; without a label file, and trained as background: {count}, the first {image}; type: {command}"
        )
        command = f"petskin-tune data check {words.operand(str(prepared.data))}"
        said = lost.format(counts=said, count=len(images), image=images[0], command=command)
    if prepared.warning:
        said = f"{said}; {prepared.warning}"
    return Check("data", "warning" if images or prepared.warning else "ok", said)


def _disk(found: Examination) -> Check:
    needed = found.figures
    free = psutil.disk_usage(str(_nearest(found.home.work))).free
    if needed is None:
        return Check("disk", "ok", _("{free} free").format(free=words.size(free)))
    said = _("{free} free in {folder}, about {needed} needed").format(
        free=words.size(free), folder=found.home.work, needed=words.size(needed.disk)
    )
    if free < needed.disk:
        small = _("{room}: make room, or name another disk with --home").format(room=said)
        return Check("disk", "problem", small)
    return _store_room(found, needed, said)


def _store_room(found: Examination, needed: Estimate, said: str) -> Check:
    said = _("{room}; the store needs about {store}").format(room=said, store=words.size(needed.store))
    if needed.written:
        written = _("{room}, and {written} are written to it in 24 hours")
        said = written.format(room=said, written=words.size(needed.written))
    limit, url = found.spec.store_limit, found.open_store().url
    if limit is not None and limit < needed.store:
        frozen = ", keep_frozen" if found.spec.sampler.name == "freeze-thaw" else ""
        low = _("{room}; store_limit is {limit}: raise it, or lower {keys}")
        keys = f"keep_weights{frozen}"
        return Check("disk", "warning", low.format(room=said, limit=words.size(limit), keys=keys))
    if "://" not in url and (room := psutil.disk_usage(str(_nearest(Path(url)))).free) < needed.store:
        full = _("{room}, {free} are free there: make room, or name another store")
        return Check("disk", "problem", full.format(room=said, free=words.size(room)))
    return Check("disk", "ok", said)


def _nearest(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())
