"""What of the study's trials stays in the store: best weights and curves of the best, snapshots of the unfinished."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from optuna.trial import FrozenTrial, TrialState

from petskin_tune import attributes
from petskin_tune.checkpoints import Store, StoreError
from petskin_tune.checkpoints.keeping import ORPHAN_SECONDS, Freed, Holding, make_room
from petskin_tune.checkpoints.keys import results_key, trial_prefix
from petskin_tune.leases import read_leases
from petskin_tune.study import FINISHED, Study


class Keeper:
    """Applies ``keep_weights`` and ``store_limit`` of one study to its store."""

    def __init__(self, study: Study, store: Store) -> None:
        self._study = study
        self._store = store

    def after(self, number: int, folder: Path) -> None:
        """Keep what a trial that has ended leaves behind, and delete what no trial needs any more.

        A store that does not answer is left as it is; the end of the next trial tries again.

        Args:
            number: of the trial that has ended.
            folder: its run folder on this machine.
        """
        try:
            results = folder / "results.csv"
            if results.is_file() and number in {trial.number for trial in self.best_trials()}:
                self._store.put(results, results_key(trial_prefix(self._study.uid, number)))
            self._tidy()
        except StoreError:
            return
        for spent in ("snapshots", "weights"):
            shutil.rmtree(folder / spent, ignore_errors=True)

    def _tidy(self) -> None:
        """Snapshots of finished trials, weights beyond the best ``keep_weights`` and orphans go."""
        holdings = {holding.prefix: holding for holding in self._holdings()}
        for entry in self._store.entries(self._study.uid):
            holding = holdings.get(str(PurePosixPath(entry.key).parent))
            if holding is None or entry.key in (*holding.snapshots, *holding.keep):
                continue
            if holding.state == "finished" or entry.age >= ORPHAN_SECONDS:
                self._store.delete(entry.key)

    def make_room(self, incoming: int, full: bool) -> Freed:
        """Delete what is needed least until ``incoming`` bytes more are within ``store_limit``."""
        limit = self._study.spec.store_limit
        holdings = self._holdings() if limit is not None or full else []
        return make_room(self._store, self._study.uid, holdings, limit=limit, incoming=incoming, full=full)

    def best_trials(self) -> list[FrozenTrial]:
        """The trials whose weights and curves stay, best first."""
        return best_of(self._study.trials(*FINISHED), self._study.spec.keep_weights)

    def _holdings(self) -> list[Holding]:
        best = {trial.number for trial in self.best_trials()}
        attributes_of = {trial.number: trial.user_attrs for trial in self._study.trials()}
        holdings = []
        for lease in read_leases(self._study.storage, self._study.id):
            running = lease.trial_state == TrialState.RUNNING.name
            pointers = [pointer.key for pointer in (lease.snapshot, lease.previous) if pointer and running]
            weights = attributes_of.get(lease.number, {}).get(attributes.WEIGHTS)
            prefix = trial_prefix(self._study.uid, lease.number)
            keep = {weights, results_key(prefix)} if weights and (running or lease.number in best) else set()
            state = "running" if running else "finished"
            holdings.append(Holding(prefix, state, tuple(pointers), frozenset(keep)))  # type: ignore[arg-type]
        return holdings


def best_of(trials: Iterable[FrozenTrial], count: int) -> list[FrozenTrial]:
    """The ``count`` best trials that have a value, complete ones before pruned ones."""
    valued = [trial for trial in trials if trial.values]
    valued.sort(key=lambda trial: (trial.state != TrialState.COMPLETE, -(trial.value or 0.0), trial.number))
    return valued[:count]
