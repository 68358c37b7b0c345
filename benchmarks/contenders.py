"""Simulated workers that report to a database, ours and stock Optuna's, and studies filled for them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from petskin_tune.database.outages import Patience
from petskin_tune.database.storage import PetskinStorage, open_storage
from petskin_tune.leases.claims import Claims
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.protocol import MASK_MAP
from petskin_tune.search import pruners
from petskin_tune.search.pruners import Peer
from petskin_tune.study.fence import Fence
from petskin_tune.study.space.parameters import distributions
from petskin_tune.study.spec import PrunerSpec, Range, StudySpec
from petskin_tune.trial.recorder import appended, summary

EPOCHS = 27
COLUMNS = 20  # of results.csv
NAMES = ("lr0", "lrf", "momentum", "weight_decay", "hsv_h", "hsv_s", "hsv_v", "translate")
SEARCH = {name: Range(low=0.001, high=0.1, log=True) for name in NAMES}
SPEC = StudySpec(
    study="ours",
    model="m.pt",
    data="d.yaml",
    epochs=EPOCHS,
    search=SEARCH,
    pruner=PrunerSpec(rungs=tuple(range(3, EPOCHS, 3))),
)


@dataclass
class Ours:
    """A worker of ours with a trial."""

    claims: Claims
    trial: HeldTrial

    @classmethod
    def new(cls, url: str) -> Ours:
        """A newborn trial of the study ``ours``."""
        leases = open_leases(url)
        held = leases.next_trial(10**9)
        assert held is not None
        trial = HeldTrial(leases, held)
        space = distributions(SPEC.search)
        trial.store_draw(dict.fromkeys(space, 0.01), space, {}, {})
        return cls(leases, trial)

    def begin(self) -> None:
        """Begin a trial, outside of what is measured."""
        self._history: dict[str, list[float]] = {}

    def epoch(self, epoch: int) -> None:
        """Report an epoch and get the verdict on it."""
        row = {MASK_MAP: epoch / 100, "seconds": 60.0, **{f"metrics/column-{n}": n / 7 for n in range(COLUMNS)}}
        self._history = appended(self._history, epoch, row)
        self.trial.report(epoch, epoch / 100, summary(self._history))
        if pruners.decides_at(SPEC, self.trial.number, epoch):
            values = self.trial.values_at(epoch)
            peers = {number: Peer(value, state == TrialState.COMPLETE) for number, (state, value) in values.items()}
            pruners.verdict(SPEC, self.trial.number, epoch, {epoch: epoch / 100}, peers)

    def end(self) -> Ours:
        """Finish the trial; the next one."""
        self.trial.tell(TrialState.COMPLETE, 0.27, {}, {})
        held = self.claims.next_trial(10**9)
        assert held is not None
        return Ours(self.claims, HeldTrial(self.claims, held))


@dataclass
class Stock:
    """A stock worker with a trial."""

    study: optuna.Study
    trial: optuna.Trial

    @classmethod
    def new(cls, url: str) -> Stock:
        """A new trial of the study ``stock``."""
        pruner = optuna.pruners.MedianPruner(n_startup_trials=5)
        study = optuna.load_study(study_name="stock", storage=url, pruner=pruner)
        return cls(study, study.ask())

    def begin(self) -> None:
        """Begin a trial, outside of what is measured."""

    def epoch(self, epoch: int) -> None:
        """Report an epoch and get the verdict on it."""
        self.trial.report(epoch / 100, epoch)
        self.trial.should_prune()

    def end(self) -> Stock:
        """Finish the trial; the next one."""
        self.study.tell(self.trial, 0.27)
        return Stock(self.study, self.study.ask())


CONTENDERS: dict[str, Any] = {"ours": Ours, "stock": Stock}


def open_leases(url: str, study: str = "ours") -> Claims:
    """Open the leases of a study, with a patience without end."""
    storage = open_storage(url, Patience(seconds=None))
    fence = Fence(storage.get_study_id_from_name(study), None, study)  # no uid: Optuna alone made it
    return Claims(storage, fence, "benchmark", 90.0, 300.0)


def fill(url: str, count: int) -> None:
    """Give both studies ``count`` finished trials with curves; what is there already stays."""
    space = distributions(SEARCH)
    for name in CONTENDERS:
        study = optuna.create_study(study_name=name, storage=url, direction="maximize", load_if_exists=True)
        there = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
        study_id = study._study_id
        storage = open_storage(url)
        for start in range(there, count, 500):
            _add_finished(storage, study_id, range(start, min(count, start + 500)), space)


def _add_finished(storage: PetskinStorage, study_id: int, numbers: range, space: dict[str, BaseDistribution]) -> None:
    """As ``study.add_trial`` does, 500 to a transaction and without its look-ups."""
    with storage.engine.begin() as connection:
        tables = {table.name: table for table in optuna.storages._rdb.models.BaseModel.metadata.sorted_tables}
        now = sqlalchemy.func.now()
        rows = [
            {"study_id": study_id, "number": n, "state": "COMPLETE", "datetime_start": now, "datetime_complete": now}
            for n in numbers
        ]
        ids = [
            connection.execute(tables["trials"].insert().values(**row).returning(tables["trials"].c.trial_id)).scalar()
            for row in rows
        ]
        generator = random.Random(numbers.start)
        texts = {name: optuna.distributions.distribution_to_json(kind) for name, kind in space.items()}
        connection.execute(
            tables["trial_params"].insert(),
            [
                {
                    "trial_id": i,
                    "param_name": name,
                    "param_value": generator.uniform(0.001, 0.1),
                    "distribution_json": text,
                }
                for i in ids
                for name, text in texts.items()
            ],
        )
        connection.execute(
            tables["trial_values"].insert(),
            [{"trial_id": i, "objective": 0, "value": generator.random(), "value_type": "FINITE"} for i in ids],
        )
        connection.execute(
            tables["trial_intermediate_values"].insert(),
            [
                {
                    "trial_id": i,
                    "step": step,
                    "intermediate_value": generator.random() * step,
                    "intermediate_value_type": "FINITE",
                }
                for i in ids
                for step in range(1, EPOCHS + 1)
            ],
        )
