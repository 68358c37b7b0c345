"""A whole study made up in the database of a home: every kind of end, and workers that live, died and gave back."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial
from sqlalchemy import text
from sqlalchemy.orm import Session

from petskin_tune.database.storage import PetskinStorage, open_storage
from petskin_tune.identity import Identity
from petskin_tune.leases.claims import Claims
from petskin_tune.study import attributes
from petskin_tune.study.creation import create_study
from petskin_tune.study.spec import Choices, Range, StudySpec
from petskin_tune.study.study import Study

EPOCHS = 27
A_DAY = 86400.0  # of a lease: no test takes as long, however busy its machine is
GONE = replace(Identity.mine(), pid=2**22 + 7)  # of this machine, and no process of it: Linux has fewer
ELSEWHERE = replace(Identity.mine(), host="colab-vm", boot="another")
DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "optimizer": CategoricalDistribution(["SGD", "Adam", "AdamW"]),
    "lr0": FloatDistribution(1e-5, 2e-2, log=True),
    "lrf": FloatDistribution(1e-3, 1.0, log=True),
    "momentum": FloatDistribution(0.8, 0.999),
    "weight_decay": FloatDistribution(1e-5, 1e-2, log=True),
    "degrees": FloatDistribution(0.0, 180.0),
    "mosaic": FloatDistribution(0.0, 1.0),
    "box": FloatDistribution(2.0, 15.0),
}


def a_spec(name: str = "petskin", **changes: Any) -> StudySpec:
    search: dict[str, Range | Choices] = {}
    for parameter, kind in DISTRIBUTIONS.items():
        if isinstance(kind, FloatDistribution):
            search[parameter] = Range(low=kind.low, high=kind.high, log=kind.log)
    search["optimizer"] = Choices(choices=("SGD", "Adam", "AdamW"))
    known: dict[str, Any] = {"study": name, "model": "yolov8l-seg.pt", "data": "petskin/data.yaml", "epochs": EPOCHS}
    known |= {"train": {"imgsz": 480, "batch": 16, "warmup_epochs": 1.0}, "search": search, "target_trials": 60}
    return StudySpec(**known | {"start": ("defaults",)} | changes)


class MadeUp:
    """A study without a training.

    Args:
        home: the folder of its home.
        spec: of the study.
        seed: of what is drawn.
    """

    def __init__(self, home: Path, spec: StudySpec | None = None, seed: int = 0) -> None:
        self.home = home
        self.storage: PetskinStorage = open_storage(f"sqlite:///{home / 'tune.db'}")
        self.study: Study = create_study(
            self.storage,
            spec or a_spec(),
            points=(),
            attributes_of_study={attributes.BASE: "", attributes.STORE: "home:checkpoints"},
        )
        self._random = np.random.default_rng(seed)

    def params(self) -> dict[str, Any]:
        """Parameters of a trial, drawn."""
        drawn: dict[str, Any] = {}
        for name, kind in DISTRIBUTIONS.items():
            if isinstance(kind, CategoricalDistribution):
                drawn[name] = str(self._random.choice(list(kind.choices)))
            elif isinstance(kind, FloatDistribution):
                share = float(self._random.random())
                drawn[name] = kind.low * (kind.high / kind.low) ** share if kind.log else share * kind.high
                drawn[name] = min(max(drawn[name], kind.low), kind.high)
        return drawn

    def add(
        self,
        state: str = "COMPLETE",
        best: float = 0.1,
        epochs: int = EPOCHS,
        *,
        worker: str = "colab-1",
        identity: Identity | None = None,
        lease: str = "done",
        hours_ago: float = 3.0,
        params: Mapping[str, Any] | None = None,
        of_lease: Mapping[str, Any] | None = None,
        **noted: Any,
    ) -> int:
        """Add a trial of so many epochs that reached ``best``; its number.

        Args:
            state: Optuna's.
            best: mask mAP50-95.
            epochs: trained.
            worker: that holds or held it.
            identity: of that worker; None: of this process.
            lease: "running", "released", "frozen" or "done".
            hours_ago: when it began.
            params: None: drawn.
            of_lease: columns of its lease.
            noted: attributes, by our names.
        """
        number = len(self.study.trials())
        at = datetime.now() - timedelta(hours=hours_ago)
        curve = {epoch: best * (1 - 0.9 * 0.8**epoch) for epoch in range(1, epochs + 1)}
        known = {"worker": worker, "seconds": 95.0 * epochs, "epochs": epochs, "device_model": "Tesla T4"}
        known |= {"arguments": {"imgsz": 480, "batch": 16}, "origin": "search"}
        finished = state in ("COMPLETE", "PRUNED", "FAIL")
        params = self.params() if params is None else params
        trial = create_trial(
            state=TrialState[state],
            value=best if state == "COMPLETE" or (state == "PRUNED" and curve) else None,
            params={} if state == "WAITING" else dict(params),
            distributions={} if state == "WAITING" else DISTRIBUTIONS,
            intermediate_values=curve,
            user_attrs={f"{attributes.PREFIX}{name}": value for name, value in (known | noted).items()},
            system_attrs={attributes.MARK: uuid.uuid4().hex} if state != "WAITING" else {attributes.ENQUEUED: "n"},
        )
        trial.datetime_start = None if state == "WAITING" else at
        trial.datetime_complete = at + timedelta(seconds=95 * epochs) if finished else None
        self.study.optuna.add_trial(trial)
        if state != "WAITING":
            row = self.study.trials()[-1]
            self._lease(row._trial_id, worker, identity or Identity.mine(), lease, of_lease or {})
        return number

    def _lease(self, trial_id: int, worker: str, identity: Identity, state: str, columns: Mapping[str, Any]) -> None:
        claims = Claims(self.storage, self.study.fence, worker, A_DAY, 300.0, identity=identity)

        def work(session: Session) -> None:
            claims._insert(session, trial_id, uuid.uuid4().hex, state=state)
            for name, value in columns.items():
                session.execute(
                    text(f"UPDATE trial_leases SET {name} = :value WHERE trial_id = :id"),
                    {"value": value, "id": trial_id},
                )

        self.storage.transaction(work)


TRACEBACK = 'Traceback (most recent call last):\n  File "trainer.py", line 353, in _train\n    loss.backward()\n'
FAILURE = {
    "kind": "crashed",
    "message": "RuntimeError: CUDA error: an illegal memory access was encountered",
    "detail": f"{TRACEBACK}RuntimeError: CUDA error: an illegal memory access was encountered\n",
    "log": "/content/drive/MyDrive/petskin/work/trials/1738c171db37-000004/train.log",
}


def a_varied_study(home: Path, name: str = "반려견-피부질환") -> MadeUp:
    """Every state and every kind of worker, with names of two alphabets."""
    made = MadeUp(home, a_spec(name))
    made.add(best=0.119, hours_ago=30, origin="start point")
    made.add(best=0.131, hours_ago=26, of_lease={"resumes": 2, "seconds_lost": 340.0})
    made.add("PRUNED", 0.02, 5, hours_ago=24)
    made.add("PRUNED", 0.0, 2, hours_ago=24, failure={**FAILURE, "kind": "out-of-memory", "message": "15 GB asked for"})
    made.add("FAIL", 0.05, 3, hours_ago=23, failure=FAILURE, notes=["micro-batches of 8 after out of memory"])
    made.add("RUNNING", 0.121, 12, lease="running", worker="코랩-세션-하나", identity=ELSEWHERE)
    made.add("RUNNING", 0.1, 9, lease="running", worker="a-host-of-a-cluster-with-a-long-name-20231", identity=GONE)
    made.add("RUNNING", 0.09, 9, lease="released", of_lease={"reason": "SIGINT"})
    made.add("RUNNING", 0.06, 3, lease="frozen")
    made.add("WAITING", epochs=0, params={}, origin="person", fixed={"lr0": 1e-4})
    return made
