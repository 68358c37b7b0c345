"""Made-up studies of any size, as petskin-tune would have left them: cheap, and the same for the same seed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from petskin_tune.leases.lease import Lease
from petskin_tune.protocol import Position
from petskin_tune.study import attributes
from petskin_tune.study.space.parameters import distributions
from petskin_tune.study.spec import Choices, Range, StudySpec
from tests.support.curves import BOX, MASK
from tests.support.studies import NOW, a_lease

CLASSES = ("papule", "scale", "pigmentation", "pustule", "erosion", "nodule")
DEFAULTS = {"lr0": 0.01, "momentum": 0.937, "weight_decay": 5e-4, "mosaic": 1.0, "degrees": 0.0, "optimizer": "SGD"}
SPACE: dict[str, Range | Choices] = {
    "lr0": Range(low=1e-5, high=0.1, log=True),
    "momentum": Range(low=0.6, high=0.98),
    "weight_decay": Range(low=1e-6, high=1e-2, log=True),
    "mosaic": Range(low=0.0, high=1.0),
    "degrees": Range(low=0, high=45),
    "optimizer": Choices(choices=("SGD", "AdamW")),
}
FAILURES = (
    ("diverged", "The loss is not finite since epoch 3."),
    ("out-of-memory", "CUDA out of memory. Tried to allocate 512 MiB."),
    ("crashed", "RuntimeError: DataLoader worker (pid 4711) is killed by signal: Killed."),
)
FAILS_EVERY, RESUMES_EVERY = 15, 12  # trials
_DONE = {TrialState.COMPLETE: "done", TrialState.PRUNED: "done", TrialState.FAIL: "done"}
_SECONDS = 41.0  # an epoch


@dataclass(frozen=True)
class Made:
    """A study in memory (or in ``storage``) and the leases of its trials."""

    study: optuna.Study
    leases: tuple[Lease, ...]


def made_spec(epochs: int = 50, trials: int = 1000, **changes: Any) -> StudySpec:
    known: dict[str, Any] = {
        "study": "made-up",
        "model": "yolov8l-seg.pt",
        "data": "datasets/petskin/data.yaml",
        "epochs": epochs,
        "train": {"imgsz": 480, "batch": 16, "warmup_epochs": 1.0},
        "search": SPACE,
        "start": ("defaults",),
        "target_trials": trials,
    }
    return StudySpec(**known | changes)


def made(trials: int = 60, epochs: int = 50, *, seed: int = 0, storage: Any = None, running: int = 2) -> Made:
    """A study of petskin-tune: complete, pruned, failed, frozen, resumed and running trials of three workers.

    Args:
        trials: how many.
        epochs: of a complete one.
        seed: of all that is drawn.
        storage: of Optuna; None: one in memory that copies nothing (a thousand trials in half a second).
        running: how many of the last ones still run; every second of them is frozen.
    """
    spec = made_spec(epochs, trials)
    templates = _templates(spec, trials, seed, running)
    storage = _Given(templates) if storage is None else storage
    study = optuna.create_study(storage=storage, study_name=spec.study, direction="maximize")
    study.set_user_attr(attributes.SPEC, spec.model_dump(mode="json"))
    study.set_user_attr(attributes.STORE, "home:checkpoints")
    if not isinstance(storage, _Given):
        study.add_trials(templates)
    return Made(study, tuple(_leases(study.get_trials(deepcopy=False))))


class _Given(optuna.storages.InMemoryStorage):
    """In memory, with trials that are there from the start."""

    def __init__(self, trials: list[FrozenTrial]) -> None:
        super().__init__()
        for number, trial in enumerate(trials):
            trial.number = trial._trial_id = number
        self._given = trials

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        return [trial for trial in self._given if states is None or trial.state in states]

    def get_n_trials(self, study_id: int, state: Any = None) -> int:
        return len(self._given)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return [StudyDirection.MAXIMIZE]


def _templates(spec: StudySpec, count: int, seed: int, running: int) -> list[FrozenTrial]:
    rng = np.random.default_rng(seed)
    space = distributions(spec.search)
    free = [datetime(2026, 2, 1)] * 3
    trials: list[FrozenTrial] = []
    seen: list[float] = []
    for number in range(count):
        params = dict(DEFAULTS) if number == 0 else _draw(rng, spec, number / count)
        worker = int(np.argmin(free))  # type: ignore[arg-type]
        trial, minutes = _one(rng, spec, space, params, number, worker, free[worker], seen, count - running)
        lost = timedelta(hours=float(rng.uniform(0.5, 4))) if trial.user_attrs[attributes.RESUMES] else timedelta()
        free[worker] += timedelta(minutes=minutes) + lost
        if trial.state.is_finished():
            trial.datetime_complete = free[worker]
        trials.append(trial)
    to_now = datetime.fromtimestamp(NOW, timezone.utc).replace(tzinfo=None) - max(free)
    for trial in trials:
        assert trial.datetime_start is not None
        trial.datetime_start += to_now
        if trial.datetime_complete is not None:
            trial.datetime_complete += to_now
    return trials


def _draw(rng: np.random.Generator, spec: StudySpec, progress: float) -> dict[str, Any]:
    """Drawn near the best point the more, the further the search is."""
    near = {"lr0": 8e-4, "momentum": 0.88, "weight_decay": 3e-4, "mosaic": 0.35, "degrees": 12.0}
    drawn: dict[str, Any] = {"optimizer": "AdamW" if rng.random() < 0.4 + 0.5 * progress else "SGD"}
    for name, best in near.items():
        searched = spec.search[name]
        assert isinstance(searched, Range)
        scale = math.log if searched.log else float
        low, high, middle = (scale(value) for value in (searched.low, searched.high, best))
        value = rng.normal(middle, (high - low) / 6) if rng.random() < progress else rng.uniform(low, high)
        value = float(np.clip(value, low, high))
        drawn[name] = float(np.clip(math.exp(value) if searched.log else value, searched.low, searched.high))
    return {name: int(drawn[name]) if name == "degrees" else drawn[name] for name in spec.search}


def _reached(params: dict[str, Any]) -> float:
    lost = 0.09 * (math.log10(params["lr0"]) + 3.1) ** 2 + 0.10 * (params["mosaic"] - 0.35) ** 2
    lost += 0.4 * (params["momentum"] - 0.88) ** 2 + 0.02 * (params["optimizer"] == "SGD")
    return max(0.01, 0.46 - lost)


def _one(
    rng: np.random.Generator,
    spec: StudySpec,
    space: dict[str, BaseDistribution],
    params: dict[str, Any],
    number: int,
    worker: int,
    begin: datetime,
    seen: list[float],
    ended: int,
) -> tuple[FrozenTrial, float]:
    share = np.arange(1, spec.epochs + 1) / spec.epochs
    scores = np.clip(_reached(params) * (1 - np.exp(-5 * share)) + rng.normal(0, 0.006, spec.epochs), 0, 1)
    state, done, failure = TrialState.COMPLETE, spec.epochs, None
    rung = max(1, spec.epochs // 5)
    if number >= ended:
        state, done = TrialState.RUNNING, int(rng.integers(1, spec.epochs)) if spec.epochs > 1 else 1
    elif number % FAILS_EVERY == 7:
        kind, message = FAILURES[number // FAILS_EVERY % len(FAILURES)]
        failure = {"kind": kind, "message": message, "detail": "Traceback (most recent call last):\n  …", "log": ""}
        state = TrialState.FAIL if kind == "crashed" else TrialState.PRUNED
        done = int(rng.integers(1, rung + 1))
    elif seen and scores[rung - 1] < np.quantile(seen, 0.5) and number:
        state, done = TrialState.PRUNED, rung
    seen.append(float(scores[rung - 1]))
    return _trial(
        rng, space, params, number, worker, begin, scores[:done], state, failure, spec.epochs
    ), done * _SECONDS / 60


def _trial(
    rng: np.random.Generator,
    space: dict[str, BaseDistribution],
    params: dict[str, Any],
    number: int,
    worker: int,
    begin: datetime,
    scores: np.ndarray[Any, Any],
    state: TrialState,
    failure: dict[str, str] | None,
    epochs: int,
) -> FrozenTrial:
    done = len(scores)
    values = [round(float(score), 5) for score in scores]
    loss = 4.8 * np.exp(-np.arange(done) / 20) + 1.2
    history = {MASK: values, BOX: [1.2 * value for value in values], attributes.SECONDS_COLUMN: [_SECONDS] * done}
    history |= {name: [round(float(v), 4) for v in loss] for name in ("train/seg_loss", "val/seg_loss")}
    history |= {
        f"{MASK}/{name}": [round(value * (1.5 - 0.15 * place), 5) for value in values]
        for place, name in enumerate(CLASSES)
    }
    attrs: dict[str, Any] = {
        attributes.ORIGIN: "search" if number else "start point",
        attributes.WORKER: f"colab-{worker + 1}",
        attributes.DEVICE_MODEL: "Tesla T4",
        attributes.SECONDS: done * _SECONDS,
        attributes.EPOCHS: done,
        attributes.BEST_EPOCH: int(np.argmax(values)) + 1,
        attributes.HISTORY: history,
        attributes.ARGUMENTS: {"epochs": epochs, "imgsz": 480, "batch": 16, "mosaic": 1.0, "close_mosaic": 10},
        attributes.RESUMES: int(number % RESUMES_EVERY == 5) + int(number % (5 * RESUMES_EVERY) == 5),
        attributes.FINDINGS: {},
    }
    if failure:
        attrs[attributes.FAILURE] = failure
    trial = create_trial(
        state=state,
        value=None if state in (TrialState.FAIL, TrialState.RUNNING) else max(values),
        params=params,
        distributions=space,
        intermediate_values=dict(enumerate(values, start=1)),
        user_attrs=attrs,
        system_attrs={attributes.MARK: f"n{number}"},
    )
    trial.datetime_start = begin
    return trial


def _leases(trials: list[FrozenTrial]) -> Iterator[Lease]:
    for trial in trials:
        known = trial.user_attrs
        resumes = known[attributes.RESUMES]
        state = _DONE.get(trial.state, "frozen" if trial.number % 2 else "running")
        done = known[attributes.EPOCHS]
        yield a_lease(
            trial,
            Position(done, 0),
            state=state,
            worker=known[attributes.WORKER],
            resumes=resumes,
            seconds_lost=210.0 * resumes,
        )
