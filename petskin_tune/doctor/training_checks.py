"""The doctor's checks by training: a few batches of the study, and the start of each trial that waits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from optuna.trial import TrialState

from petskin_tune import text as words
from petskin_tune.doctor.examination import Check, Examination
from petskin_tune.doctor.probe import measure
from petskin_tune.language import _, several
from petskin_tune.leases.lease import is_anybody_here, read_leases
from petskin_tune.protocol import Position
from petskin_tune.study.environment import differences, of_trial
from petskin_tune.study.space.start_points import resolve_defaults
from petskin_tune.study.stored import recorded
from petskin_tune.study.study import FINISHED, Study
from petskin_tune.study.trials import failure_of
from petskin_tune.trial.inputs import Prepared
from petskin_tune.trial.process.runner import Runner
from petskin_tune.trial.restart import attempts, given_back

MOST_FAILED = 3  # failed trials that are named


def would_disturb(found: Examination) -> bool:
    """Whether a worker of this study trains here: a device has no room for another training, or becomes slow."""
    return found.study is not None and is_anybody_here(read_leases(found.study.storage, found.study.id))


def training(found: Examination) -> Check:
    """Train a few batches at the defaults, and keep what they took."""
    assert found.prepared is not None
    spec, prepared = found.spec, found.prepared
    point = resolve_defaults(spec, classes=prepared.classes, train_images=prepared.train_images)
    found.probe = probe = measure(
        Runner(found.home.work / "ultralytics"),
        found.home.work / "doctor",
        data=prepared.data,
        model=prepared.model,
        arguments={**spec.train, **point, "epochs": spec.epochs, "seed": spec.seed},
        on_oom=spec.on_oom,
        seed=spec.seed,
    )
    if probe.failed is not None:
        return Check("training", "problem", _("a few batches at the defaults failed, {why}").format(why=probe.failed))
    if probe.measured is None:
        slow = _("not a single batch was done in four minutes: take a smaller model or imgsz")
        return Check("training", "problem", slow)
    rate = _("{rate:.3g} images a second at the defaults").format(rate=probe.measured.images_per_second)
    if probe.notes:
        return Check("training", "warning", f"{rate}; {'; '.join(probe.notes)}")
    return Check("training", "ok", rate)


def device(found: Examination) -> Check:
    """On what they were trained, and whether unfinished trials were begun on something else."""
    assert found.probe is not None
    assert found.probe.started is not None
    machine = found.probe.started.machine
    threads = several(machine["threads"], _("{count} thread"), _("{count} threads"))
    said = f"{machine['device']} ({machine['device_model']}), {threads}"
    others = _begun_elsewhere(found.study, machine) if found.study else []
    if others:
        numbers = ", ".join(str(number) for number in others)
        elsewhere = _(
            "{here}; unfinished trials ran on another machine ({numbers}): a worker here goes on with them, no longer "
            "exactly as undisturbed, unless --exact is given"
        )
        return Check("device", "warning", elsewhere.format(here=said, numbers=numbers))
    return Check("device", "ok", said)


def _begun_elsewhere(study: Study, machine: Mapping[str, Any]) -> list[int]:
    """The unfinished trials that ran last on what this machine has not; their thread counts are taken over."""
    here = {key: value for key, value in machine.items() if key != "threads"}
    machines = [(trial.number, of_trial(recorded(trial))) for trial in study.trials(TrialState.RUNNING)]
    return [number for number, there in machines if there and differences(there, here)]


def trials(found: Examination) -> Iterator[Check]:
    """The trials of the study that failed, and those that wait to be gone on with: can they start here?"""
    if found.study is None:
        return
    yield from _failed(found, found.study)
    if found.model is not None and found.prepared is not None:
        yield from _waiting(found, found.study, found.prepared)


def _failed(found: Examination, study: Study) -> Iterator[Check]:
    failures = [(trial.number, failure) for trial in study.trials(*FINISHED) if (failure := failure_of(trial))]
    for number, failure in failures[-MOST_FAILED:]:
        look = f"{found.places.to_type('petskin-tune diagnose', study.name)} --trial {number}"
        said = f"{_('failed, {kind}').format(kind=failure.kind)}: {failure.message}".rstrip(": ")
        all_of_it = _("{failure}; all of it: {command}").format(failure=said, command=look)
        yield Check(f"trial {number}", "warning", all_of_it)


def _waiting(found: Examination, study: Study, prepared: Prepared) -> Iterator[Check]:
    store = found.open_store()
    reasons = {
        trial.number: words.reason(lease.reason) or _("its owner is silent") for trial, lease in given_back(study)
    }
    runner = Runner(found.home.work / "ultralytics")
    for attempt in attempts(study, prepared, store, runner, found.home.work / "trials" / "doctor"):
        name, reason = f"trial {attempt.number}", reasons.get(attempt.number)
        if attempt.position is None:
            cannot = _("was given back ({reason}) and cannot start here: {problem}")
            yield Check(name, "problem", cannot.format(reason=reason, problem=attempt.problem))
            continue
        can = _("was given back ({reason}), and {begins}").format(reason=reason, begins=_begins(attempt.position))
        if attempt.problem:
            yield Check(name, "warning", f"{can}: {attempt.problem}")
        else:
            yield Check(name, "ok", can)


def _begins(position: Position) -> str:
    if position == Position(0, 0):
        return _("starts here")
    return _("goes on after {done} here").format(done=words.done(position))
