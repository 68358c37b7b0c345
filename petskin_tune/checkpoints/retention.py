"""What of the study's trials stays in the store: weights, curves, pictures of the best, snapshots of the unfinished."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Literal

from optuna.trial import FrozenTrial, TrialState

from petskin_tune.checkpoints.base import Entry, Store
from petskin_tune.checkpoints.keys import is_pictures, results_key, trial_prefix
from petskin_tune.checkpoints.restore import ORPHAN_SECONDS, Freed, Holding, forget_fetched, make_room
from petskin_tune.files import temporary
from petskin_tune.files.durable import StoreError, translated
from petskin_tune.files.results_csv import render
from petskin_tune.leases.lease import Lease, read_leases
from petskin_tune.study import attributes
from petskin_tune.study.best.ranking import ranked, recommended_of
from petskin_tune.study.extent import begun_here
from petskin_tune.study.stored import recorded
from petskin_tune.study.study import FINISHED, Study


class Retention:
    """Applies ``keep_weights`` and ``store_limit`` of one study to its store.

    Args:
        study: open.
        store: of the study.
        copied: the study's database is copied into a network home, which may lose the newest copy: the one before does
            not know yet that the last trial has ended, so that trial's files stay until the next one's end.
        give_up: ends a frozen trial before its only snapshot is deleted to make room; False: it is not frozen any more,
            and its snapshot stays. None: no frozen trial is ended.
        worth: what frozen trials promise, by number: the least promising one is ended first.
        settle: called before anything is deleted to make room; raises where the database may not be the one in force.
    """

    def __init__(
        self,
        study: Study,
        store: Store,
        *,
        copied: bool = False,
        give_up: Callable[[Lease], bool] | None = None,
        worth: Callable[[], Mapping[int, float]] = dict,
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        self._study = study
        self._store = store
        self._copied = copied
        self._give_up = give_up or (lambda _: False)
        self._worth, self._settle = worth, settle
        self._ended: int | None = None  # the trial that ended last here
        self._ending: dict[str, Lease] = {}  # by folder: frozen trials that are being ended to make room

    def after(self, number: int) -> None:
        """Keep what a trial that has ended leaves behind, and delete what no trial needs any more.

        A store that does not answer is left as it is; the end of the next trial tries again.

        Args:
            number: of the trial that has ended.
        """
        self._ended = number
        self.catch_up()

    def catch_up(self) -> bool:
        """Do what a worker that died at a trial's end has left undone; whether the store answered."""
        try:
            self._keep_curves()
            self._tidy()
        except StoreError:
            return False
        return True

    def _keep_curves(self) -> None:
        """Bring the curves of the best trials into the store that are not there: whoever ended one may have died."""
        sizes = {entry.key: entry.size for entry in self._store.entries(self._study.uid)}
        with translated("keeping the curves"), temporary.new_folder() as folder:
            for trial in self.best_trials():
                curves = results_csv(recorded(trial).get(attributes.HISTORY, {})).encode()
                key = results_key(self._prefix(trial.number))
                if curves and sizes.get(key) != len(curves):
                    file = folder / f"{trial.number}.csv"
                    file.write_bytes(curves)
                    self._store.put(file, key)

    def _tidy(self) -> None:
        """Snapshots of ended trials, second ones of frozen trials, orphans, weights and pictures not to be kept go."""
        entries = self._entries(self._study.uid)
        holdings = {holding.prefix: holding for holding in self._holdings(self._leases())}
        for entry in entries:
            holding = holdings.get(str(PurePosixPath(entry.key).parent))
            if holding is None or entry.key in (*holding.snapshots, *holding.keep):
                continue
            if holding.pictures and is_pictures(entry.key):
                continue
            if holding.state == "finished" or entry.key in holding.spare or entry.age >= ORPHAN_SECONDS:
                self._store.delete(entry.key)

    def make_room(self, incoming: int, full: bool, paused: bool = True) -> Freed:
        """Delete what is needed least until ``incoming`` bytes more are within ``store_limit``."""
        limit = self._study.spec.store_limit
        if limit is None and not full:
            return Freed((), 0)
        entries = self._entries()
        leases = self._leases()
        frozen = {self._prefix(lease.number): lease for lease in leases if _is_frozen(lease)}

        def give_up(prefix: str) -> bool:
            lease = frozen.get(prefix) or self._ending.get(prefix)
            if lease is None:
                return True
            self._ending[prefix] = lease
            is_over = self._give_up(lease)  # where it raises, no copy of the database may know of the end yet
            self._ending.pop(prefix, None)  # the upload of another trial may have been faster
            return is_over

        return make_room(
            self._store,
            entries,
            self._study.uid,
            self._holdings(leases),
            limit=limit,
            incoming=incoming,
            full=full,
            paused=paused,
            give_up=give_up,
            worth=self._promised,
            settle=self._settle,
        )

    def _promised(self) -> dict[str, float]:
        """What frozen trials promise, by folder; one that is being ended for its room already is the one to end."""
        promised = {self._prefix(number): worth for number, worth in self._worth().items()}
        return {**promised, **dict.fromkeys(self._ending, -math.inf)}

    def _entries(self, prefix: str = "") -> list[Entry]:
        """What lies in the store: to be listed before the leases are read, which then know of all of it.

        A machine whose clock is ahead of the database's would take the fresh uploads of others for old ones.
        """
        ahead = max(0.0, time.time() - self._study.storage.clock())  # a slow answer adds nothing
        return [replace(entry, age=max(0.0, entry.age - ahead)) for entry in self._store.entries(prefix)]

    def _leases(self) -> list[Lease]:
        return read_leases(self._study.storage, self._study.id)

    def best_trials(self) -> list[FrozenTrial]:
        """The trials whose weights and curves stay, best first; a person's own trials have none, and take no place.

        A search by a model says which is the best when the study has ended: any complete trial may be it until then.
        """
        spec = self._study.spec
        ended = ranked(self._study.trials(*FINISHED), self._study.attributes)
        trials = begun_here(ended)
        kept, others = trials[: spec.keep_weights], trials[spec.keep_weights :]
        if kept and spec.sampler.name == "freeze-thaw" and not self._is_recommended():
            kept += [trial for trial in others if trial.state == TrialState.COMPLETE]
        return kept

    def _is_recommended(self) -> bool:
        return recommended_of(self._study.trials(), self._study.attributes) is not None

    def _holdings(self, leases: Sequence[Lease]) -> list[Holding]:
        # The leases were read first: of a trial that ends in between, its lease says that it runs, and all of it stays.
        best = {trial.number for trial in self.best_trials()}
        weights = {trial.number: recorded(trial).get(attributes.WEIGHTS) for trial in self._study.trials()}
        spared = self._ended_lately(leases)
        holdings = []
        for lease in leases:
            prefix = self._prefix(lease.number)
            state: Literal["running", "paused", "finished"] = "finished"
            if lease.trial_state == TrialState.RUNNING.name:
                state = "paused" if _is_frozen(lease) else "running"
            elif lease.number in spared or prefix in self._ending:
                state = "paused"  # with an older copy of the database it goes on
            unfinished = state != "finished"
            pointers = [pointer.key for pointer in (lease.snapshot, lease.previous) if pointer and unfinished]
            spare = pointers[1:] if lease.state == "frozen" and not self._copied else []
            pointers = [key for key in pointers if key not in spare]
            kept = (weights.get(lease.number), results_key(prefix)) if unfinished or lease.number in best else ()
            keep = frozenset(key for key in kept if key)
            pictures = lease.number in best
            holdings.append(Holding(prefix, state, tuple(pointers), keep, pictures, frozenset(spare)))
        return holdings

    def _ended_lately(self, leases: Sequence[Lease]) -> set[int | None]:
        """Numbers of the trials whose end only the newest copy of the database may know, if it is copied at all."""
        if not self._copied:
            return set()
        ended = [lease for lease in leases if lease.trial_state != TrialState.RUNNING.name]
        last = max(ended, key=lambda lease: lease.expires_in, default=None)
        return {self._ended, last.number if last else None}

    def _prefix(self, number: int) -> str:
        return trial_prefix(self._study.uid, number)


def _is_frozen(lease: Lease) -> bool:
    return lease.state == "frozen" and lease.trial_state == TrialState.RUNNING.name


def clear(folder: Path) -> None:
    """Delete the snapshots and weights in a run folder; nobody must train in it."""
    for spent in ("snapshots", "weights"):
        shutil.rmtree(folder / spent, ignore_errors=True)
    forget_fetched(folder)


def results_csv(history: Mapping[str, Sequence[float]]) -> str:
    """A trial's history in the form of Ultralytics' ``results.csv``; nothing where there is none.

    Args:
        history: ``{column: one value an epoch}``, as the trial keeps it.
    """
    epochs = history.get("epoch", ())
    columns = {"epoch": epochs, "time": list(accumulate(history.get(attributes.SECONDS_COLUMN, ())))}
    columns |= {name: values for name, values in history.items() if name not in ("epoch", attributes.SECONDS_COLUMN)}
    columns = {name: values for name, values in columns.items() if len(values) == len(epochs) > 0}
    return render(columns)
