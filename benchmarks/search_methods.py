"""Ways to search, behind one face: what a free worker trains next, and whether a trial goes on after an epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
from search_base import Method, Search, Segment, Trial
from search_peers import FewEpochs, Genetic, Gp, GpPromote, Tpe
from search_tasks import EPOCHS

from petskin_tune.search.freeze_thaw.candidates import propose_by_turns
from petskin_tune.search.freeze_thaw.choice import choose
from petskin_tune.search.freeze_thaw.recommend import recommend
from petskin_tune.search.freeze_thaw.state import Continue, SearchState, TrialRecord
from petskin_tune.study.spec import Range


class FreezeThaw(Method):
    """This project's search, asked anew for every segment. On a table it chooses between rows, as everybody does."""

    def __init__(self, *, sparse: bool = False) -> None:
        self._sparse = sparse

    def next(self, search: Search) -> Segment:
        rows_only = search.task.mode != "continuous"
        decision = choose(self.state(search), propose=_RowsOnly(search) if rows_only else propose_by_turns)
        if decision.why.rule == "fallback":
            raise RuntimeError(decision.why.text)
        if decision.keep is not None:
            for trial in search.trials:
                if trial.standing == "frozen" and trial.number not in decision.keep:
                    trial.standing = "ended"
        action = decision.action
        if isinstance(action, Continue):
            return search.trials[action.trial], None, action.until
        place = np.array(list(action.point.values()), dtype=float)
        return None, search.on_table(place), action.until

    def state(self, search: Search) -> SearchState:
        names = [f"p{k}" for k in range(search.task.rows.shape[1])]
        points = [dict(zip(names, map(float, trial.place), strict=True)) for trial in search.trials]
        trials = tuple(
            TrialRecord(trial.number, point, tuple(trial.curve), trial.standing, trial.until)
            for trial, point in zip(search.trials, points, strict=True)
        )
        default = dict(zip(names, map(float, search.task.rows[search.task.default]), strict=True))
        return SearchState(
            space={name: Range(low=0, high=1) for name in names},
            epochs=EPOCHS,
            trials=trials,
            start=() if trials else (default,),
            seed=search.task.seed,
            workers=search.workers,
            sparse=self._sparse,
        )

    def recommended(self, search: Search) -> Trial | None:
        found = recommend(self.state(search))
        return None if found is None else search.trials[found.number]


class _RowsOnly:
    """Candidates of a table: 400 random rows and the 20 nearest of each of the best, none of them tried."""

    def __init__(self, search: Search) -> None:
        self._rows = search.free_rows()

    def __call__(self, encoding: Any, tried: np.ndarray, best: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        chosen = rng.permutation(len(self._rows))[:400]
        near = [np.argsort(((self._rows - centre) ** 2).sum(axis=1))[:20] for centre in best]
        places = np.concatenate([chosen, *near])
        return self._rows[places[np.sort(np.unique(places, return_index=True)[1])]]


METHODS: dict[str, Any] = {
    "ultralytics": Genetic,
    "random": Method,
    "tpe": Tpe,
    "tpe-median": lambda: Tpe("median"),
    "tpe-hyperband": lambda: Tpe("hyperband"),
    "tpe-asha": lambda: Tpe("asha"),
    "gp": Gp,
    "few-epochs": FewEpochs,
    "gp-promote": GpPromote,
    "freeze-thaw": FreezeThaw,
    "freeze-thaw-sparse": lambda: FreezeThaw(sparse=True),
}
