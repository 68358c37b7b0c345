"""The storage that optuna-dashboard sees: ours, with what fits on a page.

Nothing of this is written. Curves and arguments are attributes of thousands of characters, which the dashboard
puts into one line each; they are shortened. A study and the trials that people ask about get notes, made when they are
looked at, so that they are always true; a note that somebody wrote stays as it is. Pictures and arguments of trials are
added as artifacts, see ``artifacts.py``.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.storages import _CachedStorage

from petskin_tune.study import attributes
from petskin_tune.study.best.ranking import ranked
from petskin_tune.study.trials import failure_of
from petskin_tune.views.dashboard.artifacts import only_rows, rows_of_arguments, rows_of_trials

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from optuna.study._frozen import FrozenStudy
    from optuna.trial import FrozenTrial, TrialState

    from petskin_tune.checkpoints.artifacts import Artifacts
    from petskin_tune.views.dashboard.notes import Notes

LONGEST = 80  # characters of an attribute
MOST_NOTES = 100  # trials: the dashboard's time for notes grows with their square
FRESH_SECONDS = 10.0  # a study's notes are made anew after so long
LEFT_OUT = (attributes.HISTORY,)  # which the curves show

NOTE = "dashboard:{}note_ver"  # as optuna-dashboard keeps notes, in the study's system attributes
BODY = "dashboard:{}note_str:0"
NOT_WRITTEN = 0  # version of a note that no person has written: what is written in its place has the next one


class DashboardStorage(_CachedStorage):
    """Optuna's cache of finished trials, with short attributes and with notes.

    Args:
        backend: ours, or a cache of it that the notes are read through, too: what takes longest is to read the trials.
        notes: of a study and its trials as they are now, by its id; None: that study gets none.
        artifacts: the pictures of a study's trials, by its id; None: it has none here.
    """

    def __init__(
        self,
        backend: RDBStorage | _CachedStorage,
        notes: Callable[[int], Notes | None] = lambda study_id: None,
        artifacts: Callable[[int], Artifacts | None] = lambda study_id: None,
    ) -> None:
        self._whole = backend if isinstance(backend, _CachedStorage) else _CachedStorage(backend)
        super().__init__(self._whole._backend)
        self._read_notes = notes
        self._artifacts = artifacts
        self._short: dict[int, tuple[FrozenTrial, FrozenTrial]] = {}
        self._notes: dict[int, tuple[float, Mapping[str, Any]]] = {}
        self._asked: dict[int, tuple[tuple[FrozenTrial | int, ...], tuple[int, ...]]] = {}

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The trials with short attributes."""
        return [self._shown(trial) for trial in self._whole.get_all_trials(study_id, deepcopy=False, states=states)]

    def delete_study(self, study_id: int) -> None:
        """Delete a study, and forget its trials: databases reuse numbers."""
        self._whole.delete_study(study_id)

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """The best trial with short attributes."""
        return self._shown(super().get_best_trial(study_id))

    def get_all_studies(self) -> list[FrozenStudy]:
        """The studies with short attributes and with notes."""
        return [self._shown_study(study) for study in super().get_all_studies()]

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """The study's attributes with the rows of its trials' pictures."""
        return self._with_artifacts(study_id, super().get_study_system_attrs(study_id))

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        """The trial's attributes; what claims to be an artifact is one."""
        return only_rows(super().get_trial_system_attrs(trial_id))

    def _with_artifacts(self, study_id: int, kept: Mapping[str, Any]) -> dict[str, Any]:
        artifacts = self._artifacts(study_id)
        if artifacts is None:
            return only_rows(kept)
        trials = self._whole.get_all_trials(study_id, deepcopy=False)
        ids = {trial.number: trial._trial_id for trial in trials}
        return {
            **only_rows(kept),
            **rows_of_trials(artifacts, ids),
            **rows_of_arguments(self._asked_about(study_id, trials)),
        }

    def _asked_about(self, study_id: int, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """See :func:`asked_about`; found anew once a trial has begun or ended: nothing else changes it."""
        now = tuple(trial if trial.state.is_finished() else trial._trial_id for trial in trials)
        known, places = self._asked.get(study_id, ((), ()))
        if now != known:
            by_id = {trial._trial_id: place for place, trial in enumerate(trials)}
            places = tuple(by_id[trial._trial_id] for trial in asked_about(trials))
            self._asked[study_id] = now, places
        return [trials[place] for place in places]

    def _shown(self, trial: FrozenTrial) -> FrozenTrial:
        made_of, known = self._short.get(trial._trial_id, (None, None))
        if known is not None and made_of is trial:  # another one once a study was deleted: databases reuse numbers
            return known
        shown = copy.copy(trial)
        shown.user_attrs = short(trial.user_attrs)
        shown._system_attrs = only_rows(trial.system_attrs)
        if trial.state.is_finished():
            self._short[trial._trial_id] = trial, shown
        return shown

    def _shown_study(self, study: FrozenStudy) -> FrozenStudy:
        shown = copy.copy(study)
        shown.user_attrs = short(study.user_attrs)
        attrs = self._with_artifacts(study._study_id, study.system_attrs)
        shown.system_attrs = {**self._made_notes(study), **attrs}
        return shown

    def _made_notes(self, study: FrozenStudy) -> Mapping[str, Any]:
        made, notes = self._notes.get(study._study_id, (0.0, {}))
        if not notes or time.monotonic() - made > FRESH_SECONDS:
            notes = self._make_notes(study)
            self._notes[study._study_id] = time.monotonic(), notes
        return notes

    def _make_notes(self, study: FrozenStudy) -> Mapping[str, Any]:
        made = self._read_notes(study._study_id)
        if made is None:
            return {}
        trials = self._whole.get_all_trials(study._study_id, deepcopy=False)
        has_table = self._artifacts(study._study_id) is not None
        notes = {"": made.of_study}
        asked = self._asked_about(study._study_id, trials)
        notes |= {f"{trial._trial_id}:": made.of_trial(trial, has_table=has_table) for trial in asked}
        found: dict[str, Any] = {}
        for owner, text in notes.items():
            if NOTE.format(owner) not in study.system_attrs:
                found |= {NOTE.format(owner): NOT_WRITTEN, BODY.format(owner): text}
        return found


def short(kept: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of at most ``LONGEST`` characters each."""
    return {name: _short(value) for name, value in kept.items() if name not in LEFT_OUT}


def _short(value: Any) -> Any:
    if isinstance(value, (bool, int, float)) or value is None:
        return value
    text = value if isinstance(value, str) else json.dumps(value)
    return value if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def asked_about(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that get a note and a table: the best ones, then those that failed or run, the newest first."""
    best = ranked(trials)[: MOST_NOTES // 2]
    known = {trial.number for trial in best}
    troubled = [t for t in reversed(trials) if t.number not in known and (failure_of(t) or not t.state.is_finished())]
    return [*best, *troubled[: MOST_NOTES - len(best)]]
