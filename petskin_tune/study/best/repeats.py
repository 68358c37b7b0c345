"""Repetitions: the best trial of a study and its reference, trained again under further seeds, in a study of their own.

The reference is Ultralytics' defaults, or the study's first start point where it tries no defaults. The study lies
beside the one that it is about, and no trial of it counts there: for no budget, no search and no best. Its trials come
in pairs, the best settings and the reference under one seed; nothing is searched, and none is ended early.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from petskin_tune.errors import UsageError
from petskin_tune.study import attributes
from petskin_tune.study.best.gain import Gain, Repeats
from petskin_tune.study.creation import create_study
from petskin_tune.study.environment import of_study
from petskin_tune.study.rows import waiting_trial
from petskin_tune.study.spec import PrunerSpec, SamplerSpec, StudySpec
from petskin_tune.study.stored import checked, recorded, study_attributes
from petskin_tune.study.study import Study, find_study, refuse_deleted

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


Kept = TypeVar("Kept", Repeats, Gain)
Repeated = Literal["best", "defaults", "start point"]

ORIGIN = "repeat"
BEST, DEFAULTS = "best", "defaults"  # roles of a pair, as they are stored; the second whatever the reference is
_SEEDS = 2**31  # Ultralytics' are below
# What the study that is repeated knows of its machine, its data and its files.
_INHERITED = (
    attributes.BASE,
    attributes.STORE,
    attributes.FINGERPRINT,
    attributes.MODEL,
    attributes.OTHER_RELEASES,
)


# ---- reading ---------------------------------------------------------------------------------------------------------


def repeats_of(stored: Mapping[str, Any]) -> Repeats | None:
    """What a study repeats; None: it is none of repetitions.

    Args:
        stored: the study's user attributes.

    Raises:
        UsageError: one of them is not as we write it.
    """
    return _read(stored, attributes.REPEATS, Repeats)


def gain_of(stored: Mapping[str, Any]) -> Gain | None:
    """What repetitions of a study's best trial have shown; None: nobody has asked.

    Args:
        stored: the study's user attributes.

    Raises:
        UsageError: one of them is not as we write it.
    """
    return _read(stored, attributes.GAIN, Gain)


def _read(stored: Mapping[str, Any], name: str, kind: type[Kept]) -> Kept | None:
    return None if stored.get(name) is None else kind.model_validate(study_attributes(stored)[name])


def repeated_by(known: Mapping[str, Any], repeats: Repeats | None) -> Repeated | None:
    """Whose settings a repetition has; None: it is none.

    Args:
        known: what was recorded with the trial.
        repeats: what its study repeats; None: it is not known.
    """
    role = known.get(attributes.ROLE)
    if role is None:
        return None
    if role == BEST:
        return "best"
    return repeats.against if repeats is not None else "defaults"


def measured(trials: Iterable[FrozenTrial], repeats: Repeats) -> Gain:
    """What the repetitions show that have ended so far.

    One counts that was trained to its end under its own seed, as a worker of an older release would not.

    Args:
        trials: of the study of repetitions.
        repeats: what it repeats.
    """
    values: dict[str, list[float]] = {BEST: [], DEFAULTS: []}
    left_out = 0
    for trial in trials:
        known = recorded(trial)
        role = known.get(attributes.ROLE)
        if role is None or not trial.state.is_finished():
            continue
        arguments = known.get(attributes.ARGUMENTS, {})
        value = trial.values[0] if trial.state.name == "COMPLETE" and trial.values else math.nan
        if 0 <= value <= 1 and arguments.get("seed") == known.get(attributes.SEED):
            values[role].append(value)
        else:
            left_out += 1
    return Gain(
        trial=repeats.trial,
        against=repeats.against,
        best=values[BEST],
        defaults=values[DEFAULTS],
        left_out=left_out,
    )


def pairs_of(spec: StudySpec) -> int:
    """How many pairs a study of repetitions has."""
    return spec.target_trials // 2


def studies_about(study: Study) -> list[str]:
    """The names of the studies that repeat trials of ``study``, each called as :func:`begin` calls it."""
    kept = ((one.study_name, one.user_attrs.get(attributes.REPEATS)) for one in study.storage.get_all_studies())
    return [
        name
        for name, repeats in kept
        if isinstance(repeats, Mapping)
        and repeats.get("uid") == study.uid
        and isinstance(trial := repeats.get("trial"), int)
        and name == name_of(study.name, trial)
    ]


# ---- beginning -------------------------------------------------------------------------------------------------------


def name_of(study: str, trial: int) -> str:
    """What the study of the repetitions of a trial is called."""
    return f"{study}-repeat-{trial}"


def begin(study: Study, repeats: Repeats, settings: Mapping[str, Mapping[str, Any]], pairs: int) -> Study:
    """The study of these repetitions; one that is there already then has as many pairs as are asked for, or has begun.

    Args:
        study: that is repeated.
        repeats: of which trial.
        settings: by role, what a trial trains with beside what the study fixes.
        pairs: how many are wanted.

    Raises:
        UsageError: another study has its name, or it is being deleted.
    """
    name = name_of(study.name, repeats.trial)
    waiting = _trials(study, repeats, settings, pairs)
    known = find_study(study.storage, name)
    if known is None:
        stored = {key: study.attributes[key] for key in _INHERITED if key in study.attributes}
        if environment := of_study(study.attributes, study.trials()):
            stored[attributes.ENVIRONMENT] = environment  # with its device: it holds from the first repetition on
        stored[attributes.REPEATS] = repeats.model_dump()
        spec = spec_of_repetitions(study.spec, name, pairs)
        known = create_study(study.storage, spec, points=(), attributes_of_study=stored, waiting=waiting)
    refuse_deleted(known)
    found = repeats_of(known.attributes)
    if found is None or found.uid != study.uid:
        raise UsageError(
            f"The repetitions of trial {repeats.trial} are a study {name!r}, and there is another one of that name: "
            f"delete it first, with petskin-tune delete {shlex.quote(name)}, and the same --home or --storage."
        )
    begun = sum(trial.state.name != "WAITING" for trial in known.trials())
    if (target := max(len(waiting), begun)) != known.spec.target_trials:
        for template in waiting:
            known.enqueue_once(template)
        known.change(target_trials=target)  # last: until then nobody draws a trial of no pair
    return known


def spec_of_repetitions(spec: StudySpec, name: str, pairs: int) -> StudySpec:
    """The spec of a study's repetitions: the same trainings, and no search.

    Raises:
        UsageError: a trial of somebody else's cannot be trained.
    """
    nothing_ends_it = {"budget": None, "stop_at": None, "stop_when": None}
    search = {"start": (), "sampler": SamplerSpec(name="random"), "pruner": PrunerSpec(name="none")}
    own = {"study": name, "target_trials": 2 * pairs, "keep_weights": 0, **nothing_ends_it, **search}
    return checked(spec.model_copy(update=own), "The study of repetitions")


def _trials(study: Study, repeats: Repeats, settings: Mapping[str, Mapping[str, Any]], pairs: int) -> list[FrozenTrial]:
    """Pair after pair, so that a study that is interrupted has as many of one kind as of the other."""
    trials = []
    for pair in range(1, pairs + 1):
        seed = (study.spec.seed + pair) % _SEEDS
        for role in (BEST, DEFAULTS):
            nonce = f"{study.uid}-{repeats.trial}-{seed}-{role}"
            noted = {attributes.SEED: seed, attributes.ROLE: role}
            trials.append(waiting_trial(settings[role], study.spec, ORIGIN, nonce, noted))
    return trials
