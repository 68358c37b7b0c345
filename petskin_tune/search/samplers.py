"""The next configuration, as a pure function of the study's trials and the new trial's number.

Optuna's samplers do the thinking. A fresh one is made for every trial, seeded from the study's seed and the trial's
number, and shown the trials as they are: it keeps no history of its own, so that a restart, another process or another
machine draws the same. All parameters are drawn at once, to be stored in one write before the training starts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import optuna
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from petskin_tune.search import gaussian
from petskin_tune.search.foreign import comparable
from petskin_tune.study.space.parameters import check_point, distributions
from petskin_tune.study.spec import Scalar, StudySpec

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

STARTUP_TRIALS = 10  # random draws before the model takes over: Optuna's own default, for TPE and GP
_CONSTRAINTS = "constraints"  # begins the names of system attributes that Optuna's samplers read as numbers
_TELLING = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


@dataclass(frozen=True)
class Draw:
    """A configuration and what to store with it."""

    params: Mapping[str, Scalar | None]  # external values of all searched names
    distributions: Mapping[str, BaseDistribution]  # of the same names
    system_attrs: Mapping[str, Any]  # what Optuna's sampler itself notes at a trial, for other samplers to read


def draw(trials: Sequence[FrozenTrial], number: int, spec: StudySpec, fixed: Mapping[str, Any] | None = None) -> Draw:
    """The configuration of trial ``number``.

    Args:
        trials: the study's trials in any order; running ones count as busy points, those of another space and those
            that nothing can be learnt from (failed, waiting) are passed over. None of them is changed.
        number: the new trial's number, which chooses its random numbers.
        spec: space, sampler and seed.
        fixed: values that a person chose; the rest is drawn.

    Raises:
        UsageError: ``fixed`` lies outside of the space.
    """
    space = distributions(spec.search)
    params = check_point(fixed or {}, spec.search)
    if params.keys() == space.keys():
        return Draw(params, space, {})
    known = [] if spec.sampler.name == "random" else _known(trials, number, space)
    seed = seed_of(spec.seed, number)
    startup = spec.sampler.startup_trials or STARTUP_TRIALS
    if spec.sampler.name == "gp":
        known = gaussian.as_complete(known)
        if sum(trial.state == TrialState.COMPLETE for trial in known) >= startup:
            drawn, attrs = gaussian.in_helper_process(sample, _sampler("gp", startup, seed), known, number, space)
            return _draw(params, drawn, attrs, space, spec)
    drawn, attrs = sample(_sampler(spec.sampler.name, startup, seed), known, number, space)
    return _draw(params, drawn, attrs, space, spec)


def seed_of(study_seed: int, number: int) -> int:
    """The 32-bit seed of trial ``number``: neighbouring studies and trials share nothing."""
    return int.from_bytes(hashlib.sha256(f"{study_seed}:{number}".encode()).digest()[:4], "big")


def sample(
    sampler: BaseSampler, trials: list[FrozenTrial], number: int, space: dict[str, BaseDistribution]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """All parameters of ``space`` and the system attributes that ``sampler`` writes, given ``trials``."""
    storage = GivenTrials(trials)
    study = optuna.load_study(study_name="draw", storage=storage, sampler=sampler)
    trial = _newborn(number)
    # The space is known, so that it need not be inferred from all the trials as Optuna has to.
    drawn = sampler.sample_relative(study, trial, space)
    for name, distribution in space.items():
        if name not in drawn:
            drawn[name] = sampler.sample_independent(study, trial, name, distribution)
    return drawn, storage.written


class GivenTrials(InMemoryStorage):
    """A study that consists of a list of trials, shown without copies, and notes what a sampler writes."""

    def __init__(self, trials: list[FrozenTrial]) -> None:
        super().__init__()
        self._given = trials
        self.written: dict[str, Any] = {}

    def get_study_id_from_name(self, study_name: str) -> int:
        """Any name is this study's."""
        return 0

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Mask mAP is maximised."""
        return [StudyDirection.MAXIMIZE]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The trials themselves, whatever ``deepcopy`` says."""
        return [trial for trial in self._given if states is None or trial.state in states]

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Noted, not written."""
        self.written[key] = value


def _sampler(name: str, startup: int, seed: int) -> BaseSampler:
    if name == "random":
        return RandomSampler(seed=seed)
    if name == "gp":
        return GPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
    return TPESampler(seed=seed, n_startup_trials=startup, multivariate=True, constant_liar=True)


def _known(trials: Sequence[FrozenTrial], number: int, space: dict[str, BaseDistribution]) -> list[FrozenTrial]:
    """The other trials that tell something about this very space, in the order of their numbers."""
    telling = (trial for trial in comparable(trials) if trial.state in _TELLING and trial.number != number)
    return sorted(
        (trial for trial in telling if _is_of(trial, space) and _has_usable_constraints(trial) and _is_rated(trial)),
        key=lambda trial: trial.number,
    )


def _is_rated(trial: FrozenTrial) -> bool:
    """Whether a trial that is complete has a value, which Optuna's samplers take for granted."""
    return trial.state != TrialState.COMPLETE or bool(trial.values)


def _is_of(trial: FrozenTrial, space: Mapping[str, BaseDistribution]) -> bool:
    return all(trial.distributions.get(name) == space[name] for name in space)


def _has_usable_constraints(trial: FrozenTrial) -> bool:
    """Whether Optuna's samplers can read them; a person may have written anything under their names."""
    found = [value for name, value in trial.system_attrs.items() if name.startswith(_CONSTRAINTS)]
    values = [one for value in found for one in (value if isinstance(value, (list, tuple)) else [value])]
    return all(isinstance(value, (int, float)) for value in values)


def _newborn(number: int) -> FrozenTrial:
    return FrozenTrial(
        number=number,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=None,
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
        trial_id=number,
    )


def _draw(
    fixed: Mapping[str, Any],
    drawn: Mapping[str, Any],
    attrs: Mapping[str, Any],
    space: dict[str, BaseDistribution],
    spec: StudySpec,
) -> Draw:
    # check_point turns numpy's numbers into plain ones, too.
    return Draw(check_point({**drawn, **fixed}, spec.search), space, attrs)
