"""All trials of a study as rows of plain values, in any order; see ``table.py`` for what people see."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from statistics import pstdev
from typing import TYPE_CHECKING, Any

from petskin_tune import text as words
from petskin_tune.errors import UsageError
from petskin_tune.nearest import did_you_mean
from petskin_tune.study import attributes
from petskin_tune.study.best.ranking import best
from petskin_tune.study.best.repeats import repeated_by, repeats_of
from petskin_tune.study.stored import enqueued_params, recorded
from petskin_tune.study.trials import failure_kind, spec_of
from petskin_tune.views.holds import WORDS, hold_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from petskin_tune.leases.lease import Lease

STATES = ("complete", "pruned", "failed", "running", "suspended", "frozen", "waiting")


@dataclass(frozen=True)
class Row:
    """One trial; plain values all through.

    Attributes:
        state: one of :data:`STATES`; "running" is held by a worker that may live, "suspended" by none.
        doing: the same in the words of ``status``, a failure named.
        best: whether it is the best of the study.
        value: its mask mAP50-95, of a trial that is not over the best so far.
        best_epoch: 1-based.
        epochs: trained so far, of ``of``.
        seconds: of training, over all its workers; ``seconds_lost`` of it were done twice.
        begun, ended: ISO 8601, UTC.
        ours: whether a worker of ours made it.
        repeats, seed: of a repetition: "best", "defaults" or "start point", and the seed of its training.
    """

    number: int
    state: str
    doing: str
    best: bool
    value: float | None
    best_epoch: int | None
    epochs: int
    of: int | None
    seconds: float | None
    seconds_lost: float
    resumes: int
    worker: str | None
    device: str | None
    origin: str | None
    failure: str | None
    begun: str | None
    ended: str | None
    ours: bool
    params: Mapping[str, Any]
    repeats: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Trials:
    """All trials of a study; ``differing`` are the searched parameters, those first that differ most among them.

    Attributes:
        repeats: what a study of repetitions repeats, in words; "" of any other.
    """

    study: str
    rows: tuple[Row, ...]
    differing: tuple[str, ...]
    options: str
    repeats: str = ""


def collect(study: Study, leases: Iterable[Lease], options: str = "") -> Trials:
    """Read all trials; nothing is written.

    Args:
        study: an Optuna study, ours or anybody's.
        leases: of this study.
        options: what a person types beside ``--study NAME`` to mean this study.
    """
    trials = study.get_trials(deepcopy=False)
    held = {lease.trial_id: lease for lease in leases}
    spec = spec_of(study)
    repeats = repeats_of(study.user_attrs)
    first = None if repeats else best(trials, study.user_attrs)  # of repetitions it is the luckiest
    epochs = spec.epochs if spec else None
    rows = tuple(
        replace(
            row_of(trial, held.get(trial._trial_id), epochs, trial is first),
            repeats=repeated_by(recorded(trial), repeats),
        )
        for trial in trials
    )
    named = words.named(study.study_name, options)
    return Trials(study.study_name, rows, tuple(_differing(trials)), named, str(repeats or ""))


def row_of(trial: FrozenTrial, lease: Lease | None, of: int | None, is_best: bool) -> Row:
    """One trial.

    Args:
        trial: of Optuna.
        lease: of it; None: it has none.
        of: how many epochs it has in all; None: not known.
        is_best: whether it is the best of the study.
    """
    known = recorded(trial)
    ours = lease is not None or attributes.MARK in trial.system_attrs
    state, doing = _state(trial, lease, ours)
    curve = {step: value for step, value in trial.intermediate_values.items() if math.isfinite(value)}
    value = trial.values[0] if trial.values and math.isfinite(trial.values[0]) else max(curve.values(), default=None)
    return Row(
        number=trial.number,
        state=state,
        doing=doing,
        best=is_best,
        value=value,
        best_epoch=max(curve, key=lambda step: (curve[step], -step), default=None),
        epochs=max(trial.intermediate_values, default=0),
        of=of,
        seconds=known.get(attributes.SECONDS),
        seconds_lost=lease.seconds_lost if lease else 0.0,
        resumes=lease.resumes if lease else known.get(attributes.RESUMES, 0),
        worker=lease.worker if lease else known.get(attributes.WORKER),
        device=known.get(attributes.DEVICE_MODEL) or known.get(attributes.DEVICE),
        origin=known.get(attributes.ORIGIN),
        failure=failure_kind(trial),
        begun=_iso(trial.datetime_start),
        ended=_iso(trial.datetime_complete),
        ours=ours,
        params=asked_params(trial),
        seed=known.get(attributes.SEED),
    )


def asked_params(trial: FrozenTrial) -> dict[str, Any]:
    """The searched parameters of a trial; of one that waits those with which it was enqueued."""
    return dict(enqueued_params(trial) if trial.state.name == "WAITING" else trial.params)


def _state(trial: FrozenTrial, lease: Lease | None, ours: bool) -> tuple[str, str]:
    """The state as in :data:`STATES`, and as the table says it."""
    if trial.state.name == "WAITING":
        return "waiting", "waiting"
    if trial.state.is_finished():
        state = "failed" if trial.state.name == "FAIL" else trial.state.name.lower()
        kind = failure_kind(trial)
        return state, f"{state}: {kind}" if kind else state
    if not ours:
        return "running", "not ours"
    hold = hold_of(lease)
    state = {"training": "running", "frozen": "frozen"}.get(hold, "suspended")
    return state, WORDS[hold]


def _iso(at: datetime | None) -> str | None:
    """Optuna's local time, which names no time zone, as UTC."""
    return at.astimezone(timezone.utc).isoformat(timespec="seconds") if at else None


# ---- which parameters first ------------------------------------------------------------------------------------------


def _differing(trials: Sequence[FrozenTrial]) -> list[str]:
    """The parameters, those first that differ most between the trials, each on its own scale."""
    distributions: dict[str, BaseDistribution] = {}
    for trial in trials:
        distributions.update(trial.distributions)
    spread = {name: _spread(name, kind, trials) for name, kind in distributions.items()}
    return sorted(distributions, key=lambda name: -spread[name])


def _spread(name: str, kind: BaseDistribution, trials: Sequence[FrozenTrial]) -> float:
    """0: all alike; 1: half of them at either end of the range, or of a choice no two alike."""
    values = [trial.params[name] for trial in trials if name in trial.params]
    low, high = getattr(kind, "low", None), getattr(kind, "high", None)
    if low is None or high is None:
        shares = [count / len(values) for count in Counter(map(repr, values)).values()]
        return 1 - sum(share**2 for share in shares)
    scale = math.log if getattr(kind, "log", False) else float
    finite = [scale(value) for value in values if _is_number(value)]
    return 2 * pstdev(finite) / (scale(high) - scale(low)) if finite and low < high and _is_number(high) else 0.0


def _is_number(value: Any) -> bool:
    """Whether it is a finite number that a float can be."""
    return isinstance(value, (int, float)) and abs(value) <= sys.float_info.max


# ---- order and choice ------------------------------------------------------------------------------------------------

_KEYS: Mapping[str, Callable[[Row], Any]] = {
    "number": lambda row: row.number,
    "map": lambda row: None if row.value is None else -row.value,  # the best first
    "state": lambda row: STATES.index(row.state),
    "epochs": lambda row: row.epochs,
    "time": lambda row: row.seconds,
    "begun": lambda row: row.begun,
    "worker": lambda row: row.worker,
}


def arranged(trials: Trials, sort: str, states: Iterable[str]) -> list[Row]:
    """The rows in ``states`` (all of them where there is none), in the order of ``sort``; what has no value last.

    Args:
        trials: of the study.
        sort: ``map`` (the best first), ``number``, ``state``, ``epochs``, ``time``, ``begun``, ``worker`` or the name
            of a parameter; with a ``-`` before it the other way round.
        states: of :data:`STATES`.

    Raises:
        UsageError: there is no such order.
    """
    name = sort.removeprefix("-")
    key = _KEYS.get(name.lower())
    if key is None and name in trials.differing:
        key = lambda row: row.params.get(name)  # noqa: E731
    if key is None:
        known = [*_KEYS, *trials.differing]
        hint = did_you_mean(name, known) or f"; known are {', '.join(known)}"
        raise UsageError(f"--sort: there is no `{name}` to sort by{hint}")
    wanted = set(states) or set(STATES)
    rows = [row for row in trials.rows if row.state in wanted]
    valued = [row for row in rows if key(row) is not None]
    ordered = sorted(valued, key=lambda row: _comparable(key(row)), reverse=sort.startswith("-"))
    return ordered + [row for row in rows if key(row) is None]


def _comparable(value: Any) -> tuple[bool, float, str]:
    """Numbers before words: one parameter's choices may be of both kinds."""
    number = _is_number(value)
    return not number, float(value) if number else 0.0, str(value)
