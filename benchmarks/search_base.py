"""A simulated search: what methods may look at, and the face that each of them has."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from search_tasks import EPOCHS, Task


@dataclass
class Trial:
    """A simulated trial: where it is, what it reported, and what happens to it."""

    number: int
    place: np.ndarray  # (d,)
    observed: np.ndarray  # (EPOCHS,) what it would report
    curve: list[float] = field(default_factory=list)
    standing: str = "running"  # as in the search's state
    until: int = EPOCHS

    @property
    def best(self) -> float:
        return max((value for value in self.curve if np.isfinite(value)), default=-np.inf)


@dataclass
class Search:
    """A search in progress: what methods may look at. A method's own random numbers are made of the seed."""

    task: Task
    workers: int
    trials: list[Trial] = field(default_factory=list)

    @property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng([self.task.seed, len(self.trials), 1])

    @property
    def taken(self) -> set[int]:
        return {self.task.nearest(trial.place) for trial in self.trials}

    def on_table(self, place: np.ndarray) -> np.ndarray:
        """``place``, or the nearest row that nobody tried where there are only rows."""
        if self.task.mode == "continuous":
            return place
        return self.task.rows[self.task.nearest(place, self.taken)]

    def free_rows(self) -> np.ndarray:
        """(n, d) the rows that nobody tried."""
        return np.delete(self.task.rows, list(self.taken), axis=0)


Segment = tuple["Trial | None", "np.ndarray | None", int]  # a trial to go on with or a new place, and until when


class Method:
    """Random search with full runs; the base of the others."""

    def next(self, search: Search) -> Segment:
        if not search.trials:
            return None, search.task.rows[search.task.default], EPOCHS
        return None, search.on_table(self.draw(search)), EPOCHS

    def draw(self, search: Search) -> np.ndarray:
        return search.rng.random(search.task.rows.shape[1])

    def goes_on(self, search: Search, trial: Trial) -> bool:
        return True

    def recommended(self, search: Search) -> Trial | None:
        """The best reported epoch of a complete trial; of any, as long as there is none."""
        complete = [trial for trial in search.trials if trial.standing == "complete"]
        rated = [trial for trial in complete or search.trials if np.isfinite(trial.best)]
        return max(rated, key=lambda trial: (trial.best, -trial.number), default=None)
