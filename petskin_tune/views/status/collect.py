"""What a study did, what runs now, what a disconnect would cost and what to type next: figures for every view.

``text.py`` says them to people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from petskin_tune import text as words
from petskin_tune.diagnosis import search
from petskin_tune.diagnosis.troubles import trouble_of
from petskin_tune.protocol import Position
from petskin_tune.search.freeze_thaw.candidates import is_exhausted
from petskin_tune.search.freeze_thaw.gaussian_process.encoding import Encoding
from petskin_tune.study import attributes
from petskin_tune.study import environment as study_environment
from petskin_tune.study.best.ranking import ahead, best, has_reached, recommended_of, so_far
from petskin_tune.study.best.repeats import gain_of, measured, pairs_of, repeats_of
from petskin_tune.study.extent import Extent, extent
from petskin_tune.study.foreign import foreign_of, without_foreign
from petskin_tune.study.spec import StudySpec
from petskin_tune.study.stored import enqueued_params, recorded, study_attributes
from petskin_tune.study.trials import failure_kind, spec_of
from petskin_tune.views.holds import WORDS, hold_of
from petskin_tune.views.status import outlook
from petskin_tune.views.status.facts import (
    Best,
    Defaults,
    Imported,
    Measured,
    Repeated,
    Running,
    Status,
    Waiting,
)
from petskin_tune.views.status.times import spent, work_left

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from petskin_tune.leases.lease import Lease
    from petskin_tune.study.best.gain import Gain


DONE = "the study is done"


def collect(
    study: Study,
    leases: Iterable[Lease],
    now: float,
    *,
    options: str = "",
    home: Path | None = None,
) -> Status:
    """Read a study and its leases; nothing is written.

    Args:
        study: an Optuna study, ours or anybody's.
        leases: of this study.
        now: seconds since 1970.
        options: what a person must type beside ``--study NAME`` to mean this study, such as ``--home DIR``.
        home: where the study's packages may be listed; None: this machine's are not compared with them.
    """
    trials = study.get_trials(deepcopy=False)
    leases = list(leases)
    held = {lease.trial_id: lease for lease in leases}
    spec = spec_of(study)
    # A trial that died at birth has our mark and no lease; one without either belongs to somebody else.
    ours = [trial for trial in trials if trial._trial_id in held or attributes.MARK in trial.system_attrs]
    running = tuple(_running(trial, held.get(trial._trial_id), spec) for trial in ours if trial.state.name == "RUNNING")
    our_numbers = {trial.number for trial in ours}
    done = sum(trial.state.is_finished() for trial in ours)
    waiting = tuple(_waiting(trial) for trial in trials if trial.state.name == "WAITING")
    first = best(trials, study.user_attrs)
    above = ahead(ours, first)
    repeats = repeats_of(study.user_attrs)
    gain = measured(trials, repeats) if repeats else gain_of(study.user_attrs)
    named = words.named(study.study_name, options)
    so_far = extent(spec, ours)
    full = done >= spec.target_trials if spec else False
    # What it recommends is forgotten as soon as it goes on.
    given_up = spec is not None and spec.stop_when is not None and recommended_of(trials, study.user_attrs) is not None
    good_enough = spec is not None and has_reached(spec.stop_at, trials)
    used_up = good_enough or full or not so_far.left or ((given_up or _is_all_tried(ours, spec)) and not waiting)
    command, reason = _next(named, spec, used_up, running, first)
    if repeats and spec and reason == DONE:
        command = f"petskin-tune best {words.named(repeats.study, options)} --repeat {pairs_of(spec)}"
    workers = sum(trial.hold == "training" for trial in running)
    left = work_left(spec, ours, so_far, (trial.epoch for trial in running if trial.hold != "frozen"))
    warnings = search.warnings(trials, spec, first, _of_the_best(gain, first))
    return Status(
        study=study.study_name,
        at=now,
        target=spec.target_trials if spec else None,
        done=done,
        extent=so_far,
        states=_states(without_foreign(trials), sum(trial.hold == "frozen" for trial in running)),
        best=Best(first.number, first.values[0], dict(first.params), first.state.name.lower()) if first else None,
        running=running,
        waiting=waiting,
        foreign=tuple(t.number for t in trials if t.state.name == "RUNNING" and t.number not in our_numbers),
        failures=dict(Counter(kind for trial in trials if (kind := failure_kind(trial)))),
        imported=_imported(trials),
        snapshot_every=spec.snapshot_every if spec else None,
        store=study.user_attrs.get(attributes.STORE),
        next_command=command,
        next_reason=reason,
        notes=(*warnings, *_outlook(study, so_far), *_last(so_far, running), *_notes(trials)),
        troubles=tuple(trouble for trial in trials if (trouble := trouble_of(trial))),
        options=named,
        environment=tuple(_news(study, trials, home)) if home else (),
        defaults=_defaults(trials, spec, first),
        spent=spent(spec, ours, leases),
        seconds_left=None if left is None or reason == DONE else left / max(1, workers),
        workers=workers,
        is_done=reason == DONE,
        gain=_measured(gain, None if repeats or first is None else first.number),
        repeats=Repeated(repeats.study, repeats.trial, pairs_of(spec), str(repeats)) if repeats and spec else None,
        ahead=above.number if above else None,
    )


# ---- parts ----------------------------------------------------------------------------------------------------------


def _defaults(trials: Sequence[FrozenTrial], spec: StudySpec | None, first: FrozenTrial | None) -> Defaults | None:
    found = search.defaults_trial(trials, spec)
    if found is None or first is None or not found.values:
        return None
    return Defaults(found.number, found.values[0], first.values[0] - found.values[0])


def _of_the_best(gain: Gain | None, first: FrozenTrial | None) -> Gain | None:
    return gain if gain is not None and first is not None and gain.trial == first.number else None


def _measured(gain: Gain | None, best: int | None) -> Measured | None:
    if gain is None or not (gain.best or gain.defaults or gain.left_out):  # of repetitions none has ended yet
        return None
    found = gain.interval
    difference, low, high = (found.difference, found.low, found.high) if found else (None, None, None)
    return Measured(gain.trial, difference, low, high, gain.verdict, gain.sentence(best))


def _news(study: Study, trials: Sequence[FrozenTrial], home: Path) -> list[str]:
    lines, _ = study_environment.news(study.study_name, study.user_attrs, trials, home)
    return lines


def _outlook(study: Study, so_far: Extent) -> list[str]:
    """What the search expects of another day, while there is something left of the study."""
    said = outlook.sentence(study_attributes(study.user_attrs)) if so_far.left else None
    return [said] if said else []


def _last(so_far: Extent, running: Sequence[Running]) -> list[str]:
    """Why somebody still trains although the budget is used up."""
    last = [str(trial.number) for trial in running if trial.hold != "frozen"]
    if so_far.unit != "epoch" or so_far.of is None or so_far.left or not last:
        return []
    verb = "trial {} is" if len(last) == 1 else "the trials {} are"
    return [f"the budget is used up; {verb.format(', '.join(last))} trained to the end"]


def _states(trials: Sequence[FrozenTrial], frozen: int) -> dict[str, int]:
    counts = Counter(trial.state.name for trial in trials)
    return {
        "complete": counts["COMPLETE"],
        "pruned": counts["PRUNED"],
        "failed": counts["FAIL"],
        "running": counts["RUNNING"] - frozen,
        "frozen": frozen,
        "waiting": counts["WAITING"],
    }


def _imported(trials: Sequence[FrozenTrial]) -> Imported | None:
    found = [(trial, foreign) for trial in trials if (foreign := foreign_of(trial))]
    alike = [trial for trial, foreign in found if not foreign.scale and not foreign.diverged and trial.values]
    first = max(alike, key=lambda trial: trial.values[0], default=None)
    best = Best(first.number, first.values[0], dict(first.params), first.state.name.lower()) if first else None
    return Imported(len(found), tuple(foreign.source for _, foreign in found), best) if found else None


def _running(trial: FrozenTrial, lease: Lease | None, spec: StudySpec | None) -> Running:
    hold = hold_of(lease)
    held = lease if lease and lease.state == "running" else None
    epoch = max(trial.intermediate_values, default=0)
    known = recorded(trial)
    seconds, epochs_done = known.get(attributes.SECONDS), known.get(attributes.EPOCHS)
    per_epoch = seconds / epochs_done if seconds and epochs_done else None
    durable = lease.snapshot.position if lease and lease.snapshot else None
    return Running(
        number=trial.number,
        hold=hold,
        worker=lease.worker if lease else known.get(attributes.WORKER, "nobody"),
        last_sign=held.silence if held else None,
        epoch=epoch,
        epochs=spec.epochs if spec else None,
        value=so_far(trial),
        durable=durable,
        seconds_per_epoch=per_epoch,
        resumes=lease.resumes if lease else 0,
        seconds_lost=lease.seconds_lost if lease else 0.0,
        crashes=lease.crashes if lease else 0,
        reason=lease.reason if lease else None,
        disconnect_seconds=_disconnect_cost(lease, epoch, per_epoch) if lease and hold == "training" else None,
        held_seconds=held.held_for if held else None,
    )


def _disconnect_cost(lease: Lease, epoch: int, per_epoch: float | None) -> float:
    """Seconds of work that only this trial's machine has: what it did since the last durable snapshot, at most.

    The lease knows since when it is held and since when its snapshot is durable; the epochs reported since then say
    more while the store lags behind.
    """
    since = lease.held_for if lease.snapshot_age is None else min(lease.held_for, lease.snapshot_age)
    durable = lease.snapshot.position if lease.snapshot else Position(0, 0)
    begun = 1 if durable.batch else 0
    return max(since, (epoch - durable.epoch - begun) * per_epoch if per_epoch else 0.0)


def _is_all_tried(ours: Iterable[FrozenTrial], spec: StudySpec | None) -> bool:
    """Whether a study that tries each point once has tried all of a space without continuous parameters."""
    if spec is None or spec.sampler.name != "freeze-thaw":
        return False
    encoding = Encoding(spec.search)
    tried = [trial.params for trial in ours if encoding.knows(trial.params)]
    return is_exhausted(encoding, encoding.coordinates(tried))


def _waiting(trial: FrozenTrial) -> Waiting:
    known = recorded(trial)
    enqueued = {**enqueued_params(trial), **known.get(attributes.FIXED, {})}
    return Waiting(trial.number, enqueued, known.get(attributes.ORIGIN))


def _notes(trials: Sequence[FrozenTrial]) -> tuple[str, ...]:
    """The newest note of each running trial: a stretched snapshot interval, a store that is away."""
    running = [trial for trial in trials if trial.state.name == "RUNNING"]
    return tuple(
        f"trial {trial.number}: {notes[-1]}" for trial in running if (notes := recorded(trial).get(attributes.NOTES))
    )


def _next(
    study: str,
    spec: StudySpec | None,
    used_up: bool,
    running: Sequence[Running],
    best: FrozenTrial | None,
) -> tuple[str, str]:
    """What to type, and why; ``study`` are the options that name it, ``used_up`` says that it begins nothing more."""
    if spec is None:
        return f"optuna-dashboard, or petskin-tune report {study} -o report.html", "not a study of petskin-tune"
    training = sum(trial.hold == "training" for trial in running)
    if training:
        text = f"{words.counted(training, 'worker')} at work"
        return f"petskin-tune status {study} --watch", text
    if running or not used_up:
        return f"tune-worker {study}", "nobody is at work and work is left"
    if best is None:
        return f"petskin-tune diagnose {study}", DONE
    return f"petskin-tune best {study} --yaml best.yaml", DONE


# ---- words that other views say, too ---------------------------------------------------------------------------------


def best_line(best: Best) -> str:
    """The best trial in one line."""
    pruned = " (pruned)" if best.state == "pruned" else ""
    return f"best: mask mAP {words.score(best.value)} in trial {best.number}{pruned}: {words.parameters(best.params)}"


def ahead_line(status: Status) -> str | None:
    """The trial that has not ended and is above the best, in one line; None: there is none."""
    for trial in status.running:
        if trial.number == status.ahead and trial.value is not None:
            of = f" of {trial.epochs}" if trial.epochs else ""
            which = "ahead of it" if status.best else "ahead"
            where = f"in trial {trial.number} after {trial.epoch}{of} epochs, {WORDS[trial.hold]}"
            return f"{which}: mask mAP {words.score(trial.value)} {where}"
    return None


def headline(status: Status) -> str:
    """How far the study is, and when that was, in one line."""
    at = datetime.fromtimestamp(status.at, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return f"{how_far(status)} · {at}"


def how_far(status: Status) -> str:
    """How far the study is, in one line."""
    counts = {state: status.states[state] for state in ("complete", "pruned", "failed")}
    at_work = Counter("running" if trial.hold == "training" else WORDS[trial.hold] for trial in status.running)
    counts |= {**at_work, "waiting": status.states["waiting"]}
    said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return f"study {status.study}: {status.extent} ({said or 'none begun'})"
