"""Studies as the views see them, made by hand: no worker, no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from petskin_tune.identity import Identity
from petskin_tune.leases.lease import Lease, SnapshotPointer
from petskin_tune.protocol import Position
from petskin_tune.study import attributes
from petskin_tune.study.spec import Choices, Range, StudySpec
from tests.support import curves
from tests.support.curves import MASK

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc).timestamp()
DISTRIBUTIONS = {
    "lr0": FloatDistribution(1e-5, 1e-1, log=True),
    "optimizer": CategoricalDistribution(["SGD", "AdamW"]),
}


def a_spec(**changes: Any) -> StudySpec:
    known: dict[str, Any] = {
        "study": "petskin",
        "model": "yolov8l-seg.pt",
        "data": "datasets/petskin/data.yaml",
        "epochs": 27,
        "train": {"imgsz": 480, "batch": 16},
        "search": {"lr0": Range(low=1e-5, high=1e-1, log=True), "optimizer": Choices(choices=("SGD", "AdamW"))},
        "target_trials": 6,
    }
    return StudySpec(**known | changes)


def a_study(spec: StudySpec | None = None) -> optuna.Study:
    study = optuna.create_study(study_name="petskin", direction="maximize")
    if spec is not None:
        study.set_user_attr(attributes.SPEC, spec.model_dump(mode="json"))
        study.set_user_attr(attributes.STORE, "/content/drive/MyDrive/petskin/checkpoints")
    return study


def add(
    study: optuna.Study,
    state: str,
    value: float | None = None,
    *,
    curve: Mapping[int, float] | None = None,
    ours: bool = True,
    lr0: float = 0.001,
    optimizer: str = "AdamW",
    **user_attrs: Any,
) -> FrozenTrial:
    """Add a trial as Optuna stores it; the one added is returned. What is noted on one of ours gets our prefix."""
    prefix = "" if "origin" in user_attrs or not ours else attributes.PREFIX
    waiting = state == "WAITING"
    trial = create_trial(
        state=TrialState[state],
        value=value,
        params={} if waiting else {"lr0": lr0, "optimizer": optimizer},
        distributions={} if waiting else DISTRIBUTIONS,
        intermediate_values=dict(curve or {}),
        user_attrs={name if ":" in name else f"{prefix}{name}": value for name, value in user_attrs.items()},
        system_attrs={attributes.MARK: "n"} if ours and not waiting else {},
    )
    started = datetime.fromtimestamp(NOW, timezone.utc).replace(tzinfo=None) - timedelta(hours=1)
    trial.datetime_start = None if waiting else started
    study.add_trial(trial)
    return study.get_trials(deepcopy=False)[-1]


def a_lease(trial: FrozenTrial, snapshot: Position | None = None, **changes: Any) -> Lease:
    known: dict[str, Any] = {
        "trial_id": trial._trial_id,
        "number": trial.number,
        "trial_state": trial.state.name,
        "worker": "colab-1",
        "identity": Identity.mine(),
        "token": 1,
        "beat": 3,
        "state": "running",
        "expires_in": 60.0,
        "held_for": 100.0,
        "resumes": 0,
        "seconds_lost": 0.0,
        "crashes": 0,
        "vanishes": 0,
        "reason": None,
        "snapshot": None if snapshot is None else SnapshotPointer("key", "0" * 64, snapshot),
        "previous": None,
        "last_death": None,
        "snapshot_age": None,
    }
    return Lease(**known | changes)


def plain(history: curves.History) -> dict[str, list[float]]:
    return {name: [float(value) for value in values] for name, values in history.items()}


def trained(study: optuna.Study, history: curves.History, state: str = "COMPLETE", **changes: Any) -> None:
    value = max(history[MASK])
    curve = {epoch + 1: float(fitness) for epoch, fitness in enumerate(history[MASK])}
    known = {attributes.HISTORY: plain(history), attributes.ARGUMENTS: {"epochs": len(curve), "mosaic": 0.0}}
    add(study, state, value if state == "COMPLETE" else None, curve=curve, **known | changes)


def failing(study: optuna.Study, kinds: Sequence[str | None]) -> None:
    for kind in kinds:
        failure = {attributes.FAILURE: {"kind": kind, "message": f"{kind}!", "detail": ""}} if kind else {}
        add(study, "FAIL" if kind else "COMPLETE", None if kind else 0.1, **failure)
