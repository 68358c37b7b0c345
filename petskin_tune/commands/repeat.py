"""``petskin-tune best --repeat K``: what the best trial is worth, by K further trainings of it and of the defaults.

The trainings are a study of their own beside the first one (see ``study/repeats.py``), on which this command runs a
worker: killed and typed again it goes on, and other workers may help. What they show is kept with the first study.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from petskin_tune.commands.train import require_the_release_of
from petskin_tune.commands.worker import Request, check, ended, start_worker
from petskin_tune.errors import EXIT_DONE, UsageError
from petskin_tune.interrupts import Signals
from petskin_tune.opening.places import Places
from petskin_tune.text import counted
from petskin_tune.views.pulse import Pulse

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from petskin_tune.home.home import Home
    from petskin_tune.study.best.gain import Gain, Repeats
    from petskin_tune.study.study import Study

MOST_PAIRS = 100


@dataclass(frozen=True)
class _Begun:
    """The study of the repetitions, as this command found or made it."""

    name: str
    all_told: bool


def repeat_best(places: Places, pairs: int, request: Request) -> int:
    """Train the repetitions that are missing, keep with the study what all of them show, and say it.

    Args:
        places: of the study.
        pairs: further seeds for the best trial and the defaults each.
        request: of the worker.

    Returns:
        The exit code.

    Raises:
        UsageError: there is nothing to compare, it cannot be trained here, or see :func:`start_worker`.
    """
    command = f"{places.to_type('petskin-tune best')} --repeat {pairs}{request.typed}"
    with Signals() as signals:  # before the second that the imports below take
        _require_enough(pairs)
        check(request)  # before anything is made for it
        begun = _begin(places, pairs, request)
        if not begun.all_told:
            code = _train(places, begun, replace(request, command=command), signals)
            if code != EXIT_DONE:
                return ended(code)
        click.echo(_kept(places, begun.name))
    return EXIT_DONE


def _require_enough(pairs: int) -> None:
    """Refuse a number of seeds that says nothing, or costs more than anybody wants.

    Raises:
        UsageError: it is such a number.
    """
    from petskin_tune.study.best.gain import LEAST

    if not LEAST <= pairs <= MOST_PAIRS:
        raise UsageError(
            f"--repeat takes from {LEAST} to {MOST_PAIRS} further seeds, not {pairs}: one alone gives no interval, and "
            "three to five are usual."
        )


def _train(places: Places, begun: _Begun, request: Request, signals: Signals) -> int:
    from petskin_tune.study.wanted import Wanted

    return start_worker(replace(places, study=begun.name, asked=Wanted(begun.name)), request, signals)


# ---- the study of the repetitions ------------------------------------------------------------------------------------


def _begin(places: Places, pairs: int, request: Request) -> _Begun:
    """The study of the repetitions, made where it is not there yet.

    Raises:
        UsageError: there is nothing to compare, or another release of Ultralytics is here.
    """
    from petskin_tune.opening.study import open_study
    from petskin_tune.study.best import repeats

    with open_study(places, "guest") as (home, study):
        _refuse_repetitions(study, places, pairs)
        if not request.allow_different_machine:
            require_the_release_of(study, home)
        best = study.best()
        if best is None:
            raise UsageError(f"The study {study.name} has no finished trial yet: there is nothing to repeat.")
        about, settings = _compared(study, home, best, request.data)
        begun = repeats.begin(study, about, settings, pairs)
        told, whole = sum(trial.state.is_finished() for trial in begun.trials()), begun.spec.target_trials
        click.echo(f"{about}: study {begun.name}, {told} of {counted(whole, 'training')} done")
        return _Begun(begun.name, told >= whole)


def _refuse_repetitions(study: Study, places: Places, pairs: int) -> None:
    """Refuse a study that is one of repetitions itself.

    Raises:
        UsageError: it is; says what to type.
    """
    from petskin_tune.study.best.repeats import repeats_of

    if (about := repeats_of(study.attributes)) is not None:
        raise UsageError(
            f"The study {study.name} holds repetitions already, of trial {about.trial} of {about.study}: type "
            f"{places.to_type('petskin-tune best', about.study)} --repeat {pairs}"
        )


def _compared(
    study: Study, home: Home, best: FrozenTrial, data: str | None
) -> tuple[Repeats, dict[str, dict[str, Any]]]:
    """What is repeated, and the settings of the best trial and of the defaults.

    Raises:
        UsageError: the best trial has the settings of the defaults.
    """
    from petskin_tune.diagnosis.search import reference_of, reference_trial
    from petskin_tune.study.best.gain import Repeats
    from petskin_tune.study.best.repeats import BEST, DEFAULTS
    from petskin_tune.study.study import settings_of

    trial = reference_trial(study.trials(), study.spec)
    tried = trial is not None and set(study.spec.search) <= set(trial.params)
    defaults = settings_of(trial, study.spec) if trial is not None and tried else _resolved(study, home, data)
    against = reference_of(study.spec) if tried else "defaults"
    settings = {BEST: settings_of(best, study.spec), DEFAULTS: defaults}
    if settings[BEST] == settings[DEFAULTS]:
        named = "defaults" if against == "defaults" else "start point"
        raise UsageError(
            f"The best trial of {study.name}, trial {best.number}, has the settings of the {named}: "
            "there is nothing to compare."
        )
    return Repeats(study=study.name, uid=study.uid, trial=best.number, against=against), settings


def _resolved(study: Study, home: Home, data: str | None) -> dict[str, Any]:
    """Ultralytics' defaults as a trial of the study would try them, where none has.

    Raises:
        UsageError: the data set, by whose size `auto` chooses, is not here, or is not the study's.
    """
    from petskin_tune.study.space.start_points import start_points
    from petskin_tune.trial.inputs import data_of

    pulse = Pulse(click.echo)
    with pulse.during("looking at the data set"):
        prepared = data_of(study, home, data)
    pulse.close()
    asked = study.spec.model_copy(update={"start": ("defaults",)})
    found = start_points(asked, classes=prepared.classes, train_images=prepared.train_images)
    for note in found.notes:
        click.echo(f"note: {note}")
    return dict(found.points[0])


# ---- what they show --------------------------------------------------------------------------------------------------


def _kept(places: Places, name: str) -> str:
    """What the repetitions show, in a sentence; the study keeps it."""
    from petskin_tune.opening.study import open_study
    from petskin_tune.study import attributes

    with open_study(places, "guest") as (_, study):
        gain = _measured(study, name)
        study.set_attribute(attributes.GAIN, gain.model_dump())
        best = study.best()
        return gain.sentence(best.number if best else None)


def _measured(study: Study, name: str) -> Gain:
    from petskin_tune.study.best.repeats import measured, repeats_of
    from petskin_tune.study.study import find_study

    found = find_study(study.storage, name)
    about = repeats_of(found.attributes) if found else None
    if found is None or about is None:
        raise UsageError(f"The study {name} was deleted meanwhile: type the same command again.")
    return measured(found.trials(), about)
