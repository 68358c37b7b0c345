"""``petskin-tune doctor``: can this study run here, how long will it take, and how much room does it need.

Nothing is written to the study. A few real batches are trained in a process of their own, see ``probe``.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import psutil
import sqlalchemy
from optuna.trial import TrialState
from sqlalchemy.pool import NullPool

from petskin_tune import packages
from petskin_tune import text as words
from petskin_tune.checkpoints.base import Store
from petskin_tune.checkpoints.opening import check_store
from petskin_tune.commands.estimate import FEWEST_TRIALS, Estimate, Measured, estimate, suggestions
from petskin_tune.commands.opening import Places, open_existing, resolve
from petskin_tune.commands.probe import Probe, measure
from petskin_tune.database import queries
from petskin_tune.database.engine import engine_options, mask, normalise_url
from petskin_tune.database.storage import unreachable
from petskin_tune.errors import EXIT_DONE, EXIT_USAGE, UsageError
from petskin_tune.home.home import Home, sqlite_file
from petskin_tune.protocol import Position
from petskin_tune.study import attributes
from petskin_tune.study import environment as study_environment
from petskin_tune.study.environment import differences, of_trial
from petskin_tune.study.file import not_found
from petskin_tune.study.spec import StudySpec
from petskin_tune.study.start_points import resolve_defaults
from petskin_tune.study.study import FINISHED, Study, Wanted, wanted
from petskin_tune.study.trials import failure_of
from petskin_tune.trial.inputs import Prepared, prepare_data, prepare_model, require_same_data
from petskin_tune.trial.process import Runner
from petskin_tune.trial.restart import attempts, given_back

SKEW_SECONDS = 30.0  # between this clock and the database's, beyond which times in the study are misleading
PACKAGES = ("ultralytics", "torch", "optuna", "sqlalchemy")
SUPPORTED_ULTRALYTICS = "8.4."
MOST_FAILED = 3  # failed trials that are named

Verdict = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, what came out, and what to do where that is anything but ``ok``."""

    name: str
    verdict: Verdict
    message: str

    def __str__(self) -> str:
        return f"{self.verdict:<8} {self.name}: {self.message}"


@dataclass
class _Patient:
    """The study as far as it is known."""

    places: Places
    data: str | None
    asked: Wanted
    home: Home
    say: Callable[[str], None]
    study: Study | None = None
    model: str | None = None
    prepared: Prepared | None = None
    probe: Probe | None = None
    checks: list[Check] = field(default_factory=list)

    @property
    def spec(self) -> StudySpec:
        spec = self.study.spec if self.study else self.asked.spec
        assert spec is not None  # looked at by `_checks`
        return spec

    @property
    def folders(self) -> list[Path]:
        if self.study:
            return self.study.folders
        return [self.asked.folder] if self.asked.folder else []


def examine(places: Places, say: Callable[[str], None], data: str | None = None) -> int:
    """Check everything, one line each, measure, and say what to expect. Returns the exit code: 2 with any problem.

    Args:
        places: where.
        say: prints a line.
        data: the data set on this machine instead of the study's entry.

    Raises:
        UsageError: there is no such study.
    """
    patient = _Patient(places, data, wanted(places.study), resolve(places), say)
    with _home(patient.home, say):
        problems = 0
        for check in _checks(patient):
            say(str(check))
            problems += check.verdict == "problem"
        figures = _figures(patient)
        if figures is not None:
            for line in _expectations(patient, *figures):
                say(line)
    if problems:
        say(f"{words.counted(problems, 'problem')}: the study cannot run here yet")
        return EXIT_USAGE
    say(f"next, type: {places.to_type('tune-worker')}")
    return EXIT_DONE


@contextlib.contextmanager
def _home(home: Home, say: Callable[[str], None]) -> Iterator[None]:
    try:
        if home.network and home.is_there:
            home.start("reader", say=say)
        yield
    finally:
        home.close()


def _checks(patient: _Patient) -> Iterator[Check]:
    """All checks in the order in which one needs what the other found; what cannot be looked at is left out."""
    yield _versions()
    yield _checked("database", lambda: _database(patient))
    if patient.study is None and patient.asked.spec is None:
        raise not_found(patient.places.study)
    if patient.study is not None and (check := _environment(patient.study, patient.home)):
        yield check
    yield _checked("clock", lambda: _clock(patient))
    yield _checked("store", lambda: _store(patient))
    yield _checked("weights", lambda: _weights(patient))
    yield _checked("data", lambda: _data(patient))
    if patient.model is not None and patient.prepared is not None:
        patient.say("training a few batches, which may take a minute …")
        yield _checked("training", lambda: _training(patient))
    if patient.probe is not None and patient.probe.started is not None:
        yield _device(patient)
    yield from _trials(patient)
    yield _checked("disk", lambda: _disk(patient))


def _checked(name: str, look: Callable[[], Check]) -> Check:
    try:
        return look()
    except UsageError as error:
        return Check(name, "problem", str(error))


# ---- the checks ------------------------------------------------------------------------------------------------------


def _versions() -> Check:
    found: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    said = ", ".join(f"{package} {number or 'missing'}" for package, number in found.items())
    missing = [package for package, number in found.items() if number is None]
    if missing:
        return Check("versions", "problem", f"{said}; type: pip install {' '.join(missing)}")
    if not str(found["ultralytics"]).startswith(SUPPORTED_ULTRALYTICS):
        advice = f"pip install 'ultralytics=={SUPPORTED_ULTRALYTICS}*'"
        return Check("versions", "problem", f"{said}; this petskin-tune trains with {advice}")
    return Check("versions", "ok", said)


def _database(patient: _Patient) -> Check:
    url = normalise_url(patient.home.storage_url)
    patient.study = open_existing(patient.home, patient.asked)
    where = mask(url)
    if patient.study is not None:
        return Check("database", "ok", f"{where} has the study, {words.counted(len(patient.study.trials()), 'trial')}")
    file = sqlite_file(patient.home.storage_url)
    if file is not None:
        _require_writable(file.parent)
    return Check("database", "ok", f"{where} answers; the study is not begun")


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
    return Check("environment", "ok", f"the packages that the study was begun with, ultralytics {release}")


def _require_writable(folder: Path) -> None:
    there = _nearest(folder)
    if not os.access(there, os.W_OK):
        raise UsageError(f"{there} cannot be written to: name another place with --home")


def _clock(patient: _Patient) -> Check:
    url = normalise_url(patient.home.storage_url)
    if url.get_backend_name() == "sqlite":
        return Check("clock", "ok", "the database uses this machine's")
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
    said = f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} the database's"
    if abs(skew) > SKEW_SECONDS:
        return Check("clock", "warning", f"{said}; leases do not mind, times in the study do: set this machine's clock")
    return Check("clock", "ok", said)


def _store(patient: _Patient) -> Check:
    store = _open_store(patient)
    check_store(store)
    return Check("store", "ok", f"{store.url} can be written to, read and cleaned up")


def _open_store(patient: _Patient) -> Store:
    study = patient.study
    return patient.home.open_store(None) if study is None else patient.home.open_store(study.store, study.uid)


def _weights(patient: _Patient) -> Check:
    patient.model = prepare_model(patient.spec, patient.home, patient.folders)
    path = Path(patient.model)
    size = f", {words.size(path.stat().st_size)}" if path.suffix == ".pt" and path.is_file() else ""
    scratch = ", trained from scratch" if path.suffix == ".yaml" else ""
    return Check("weights", "ok", f"{patient.model}{size}{scratch}")


def _data(patient: _Patient) -> Check:
    prepared = prepare_data(patient.spec, patient.home, patient.folders, patient.model or "", patient.data)
    stored = patient.study.attributes.get(attributes.FINGERPRINT) if patient.study else None
    if stored is not None:
        require_same_data(stored, prepared.fingerprint)
    patient.prepared = prepared
    train, val = _images(prepared)
    classes = words.counted(prepared.classes, "class", "classes")
    return Check("data", "ok", f"{train} images to train on, {val} to validate, {classes} ({prepared.data})")


def _images(prepared: Prepared) -> tuple[int, int]:
    splits = prepared.fingerprint.splits
    return splits["train"].images, splits["val"].images


def _training(patient: _Patient) -> Check:
    assert patient.prepared is not None
    spec, prepared = patient.spec, patient.prepared
    point = resolve_defaults(spec, classes=prepared.classes, train_images=prepared.train_images)
    patient.probe = probe = measure(
        Runner(patient.home.work / "ultralytics"),
        patient.home.work / "doctor",
        data=prepared.data,
        model=prepared.model,
        arguments={**spec.train, **point, "epochs": spec.epochs, "seed": spec.seed},
        on_oom=spec.on_oom,
        seed=spec.seed,
    )
    if probe.failed is not None:
        return Check("training", "problem", f"a few batches at the defaults failed, {probe.failed}")
    if probe.measured is None:
        return Check(
            "training", "problem", "not a single batch was done in four minutes: take a smaller model or imgsz"
        )
    rate = f"{probe.measured.images_per_second:.3g} images a second at the defaults"
    if probe.notes:
        return Check("training", "warning", f"{rate}; {'; '.join(probe.notes)}")
    return Check("training", "ok", rate)


def _device(patient: _Patient) -> Check:
    assert patient.probe is not None
    assert patient.probe.started is not None
    machine = patient.probe.started.machine
    said = f"{machine['device']} ({machine['device_model']}), {words.counted(machine['threads'], 'thread')}"
    others = _begun_elsewhere(patient.study, machine) if patient.study else []
    if others:
        numbers = ", ".join(str(number) for number in others)
        advice = f"a worker here goes on with them, {packages.INEXACT}, unless --exact is given"
        return Check("device", "warning", f"{said}; unfinished trials ran on another machine ({numbers}): {advice}")
    return Check("device", "ok", said)


def _begun_elsewhere(study: Study, machine: Mapping[str, Any]) -> list[int]:
    """The unfinished trials that ran last on what this machine has not; their thread counts are taken over."""
    here = {key: value for key, value in machine.items() if key != "threads"}
    recorded = [(trial.number, of_trial(trial.user_attrs)) for trial in study.trials(TrialState.RUNNING)]
    return [number for number, there in recorded if there and differences(there, here)]


def _trials(patient: _Patient) -> Iterator[Check]:
    """The trials of the study that failed, and those that wait to be gone on with: can they start here?"""
    study = patient.study
    if study is None:
        return
    for trial in study.trials(*FINISHED):
        if trial.number in _newest_failed(study):
            failure = failure_of(trial)
            assert failure is not None
            look = f"{patient.places.to_type('petskin-tune diagnose', study.name)} --trial {trial.number}"
            said = f"failed, {failure.kind}: {failure.message}".rstrip(": ")
            yield Check(f"trial {trial.number}", "warning", f"{said}; all of it: {look}")
    if patient.model is None or patient.prepared is None:
        return
    store = _open_store(patient)
    reasons = {trial.number: lease.reason or "its owner is silent" for trial, lease in given_back(study)}
    runner = Runner(patient.home.work / "ultralytics")
    for attempt in attempts(study, patient.prepared, store, runner, patient.home.work / "trials" / "doctor"):
        reason = f"was given back ({reasons.get(attempt.number)})"
        begins = _begins(attempt.position)
        if attempt.position is None:
            yield Check(f"trial {attempt.number}", "problem", f"{reason} and cannot start here: {attempt.problem}")
        elif attempt.problem:
            yield Check(f"trial {attempt.number}", "warning", f"{reason}, and {begins} here: {attempt.problem}")
        else:
            yield Check(f"trial {attempt.number}", "ok", f"{reason}, and {begins} here")


def _begins(position: Position | None) -> str:
    return "starts" if position in (None, Position(0, 0)) else f"goes on after {words.done(position)}"


def _newest_failed(study: Study) -> list[int]:
    failed = [trial.number for trial in study.trials(*FINISHED) if failure_of(trial)]
    return failed[-MOST_FAILED:]


def _disk(patient: _Patient) -> Check:
    figures = _figures(patient)
    free = psutil.disk_usage(str(_nearest(patient.home.work))).free
    if figures is None:
        return Check("disk", "ok", f"{words.size(free)} free")
    needed = figures[0]
    said = f"{words.size(free)} free in {patient.home.work}, about {words.size(needed.disk)} needed"
    if free < needed.disk:
        return Check("disk", "problem", f"{said}: make room, or name another disk with --home")
    return _store_room(patient, needed, said)


def _store_room(patient: _Patient, needed: Estimate, said: str) -> Check:
    said = f"{said}; the store needs about {words.size(needed.store)}"
    limit, url = patient.spec.store_limit, _open_store(patient).url
    if limit is not None and limit < needed.store:
        return Check("disk", "warning", f"{said}, store_limit is {words.size(limit)}: raise it, or lower keep_weights")
    if "://" not in url and (room := psutil.disk_usage(str(_nearest(Path(url)))).free) < needed.store:
        return Check("disk", "problem", f"{said}, {words.size(room)} are free there: make room, or name another store")
    return Check("disk", "ok", said)


def _nearest(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())


# ---- what to expect --------------------------------------------------------------------------------------------------


def _figures(patient: _Patient) -> tuple[Estimate, Measured] | None:
    measured = patient.probe.measured if patient.probe else None
    if measured is None or patient.prepared is None:
        return None
    return estimate(patient.spec, measured, *_images(patient.prepared)), measured


def _expectations(patient: _Patient, figures: Estimate, measured: Measured) -> Iterator[str]:
    spec = patient.spec
    assert patient.prepared is not None
    train, val = _images(patient.prepared)
    yield (
        f"an epoch: {words.duration(figures.epoch)} ({train} images at {measured.images_per_second:.3g} a second, and "
        f"{val} to validate); a snapshot: {words.size(measured.snapshot_bytes)}"
    )
    yield f"a full trial of {words.counted(spec.epochs, 'epoch')}: {words.duration(figures.full_trial)}"
    ended = len(patient.study.trials(*FINISHED)) if patient.study else 0
    left = max(0, spec.target_trials - ended)
    yield (
        f"this study: {left} of {words.counted(spec.target_trials, 'trial')} left, about "
        f"{words.duration(left * figures.a_trial)} on a device like this one"
    )
    yield (
        f"a session of 24 hours: about {figures.trials:.0f} trials with the pruner {spec.pruner.name}, "
        f"{figures.epochs_of_a_trial:.3g} epochs each on average"
    )
    if ways := suggestions(spec, figures, train, val):
        yield f"warning  that is fewer than {FEWEST_TRIALS}; any one of these makes room for them: {'; '.join(ways)}"
