"""The final long run: the best settings of a study, on all of its data, for as long as they deserve. Resumable, too.

It is a study of its own beside the first, whose start points are the trials to train: everything that holds for a
worker (snapshots, leases, deadlines, status, best weights) holds for it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from petskin_tune.commands.options import data_here, max_hours, on_a_study, on_this_machine, one_sentence
from petskin_tune.commands.worker import Request, start_worker
from petskin_tune.errors import UsageError
from petskin_tune.interrupts import Signals
from petskin_tune.opening.places import Places

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from petskin_tune.home.home import Home
    from petskin_tune.study.spec import StudySpec
    from petskin_tune.study.study import Study


@click.command()
@on_a_study()
@click.option("--epochs", required=True, type=click.IntRange(min=1), metavar="E", help="Length of the final run.")
@click.option("--trial", type=click.IntRange(min=0), metavar="N", help="This trial's settings instead of the best.")
@click.option("--top", type=click.IntRange(min=1), metavar="K", help="The K best trials, one after the other.")
@click.option("--imgsz", type=click.IntRange(min=32), metavar="N", help="Image size, instead of the study's.")
@data_here
@click.option("--device", default="", metavar="D", help="cpu or a GPU.")
@max_hours
@on_this_machine
@one_sentence
def train(places: Places, epochs: int, trial: int | None, top: int | None, imgsz: int | None, **options: Any) -> int:
    """Train the best at length, on all data; resumable, too.

    Typed again, the same command goes on where it stood.
    """
    if trial is not None and top is not None:
        raise UsageError("Name either --trial or --top.")
    request = Request(**options)
    with Signals() as signals:
        from petskin_tune.opening.study import open_study
        from petskin_tune.study.wanted import Wanted

        with open_study(places) as (home, study):
            if not request.allow_different_machine:
                require_the_release_of(study, home)
            name = _name(study.name, trial, top, epochs, imgsz)
            spec = final_spec(study.spec, name, _chosen(study, trial, top), epochs, imgsz)
            folder = study.folders[0] if study.folders else None
        # Taken for a shipped file: typed again, the stored study goes on although others may be the best by now.
        final = Wanted(name, spec, folder=folder or Path.cwd(), shipped=folder is None, frozen=True)
        typed = replace(
            request, command=f"{places.to_type('petskin-tune train')}{_typed(epochs, trial, top, imgsz)}{request.typed}"
        )
        return start_worker(replace(places, study=name, asked=final), typed, signals)


def _typed(epochs: int, trial: int | None, top: int | None, imgsz: int | None) -> str:
    """The options of the command that say which final run it is, as a person types them again."""
    given = {"--epochs": epochs, "--trial": trial, "--top": top, "--imgsz": imgsz}
    return "".join(f" {option} {value}" for option, value in given.items() if value is not None)


def require_the_release_of(study: Study, home: Home) -> None:
    """Refuse another release of Ultralytics than the one with which the settings were found to be good.

    Raises:
        UsageError: it is another; says what to type.
    """
    from petskin_tune import packages
    from petskin_tune.study import environment as study_environment

    environment = study_environment.of_study(study.attributes, study.trials())
    if environment and (found := packages.decisive(environment, packages.here())):
        raise UsageError(study_environment.refusal(study.name, environment, found, home.folder))


def final_spec(spec: StudySpec, name: str, trials: list[FrozenTrial], epochs: int, imgsz: int | None) -> StudySpec:
    """The spec of the final run: the same study without subset, sampler and pruner, on the parameters of ``trials``.

    Raises:
        UsageError: a number is none that a study file may have, or a trial of somebody else's cannot be trained.
    """
    from petskin_tune.study.spec import PrunerSpec, SamplerSpec
    from petskin_tune.study.stored import checked
    from petskin_tune.study.study import settings_of

    final = spec.model_copy(
        update={
            "study": name,
            "subset": None,
            "epochs": epochs,
            "train": {**spec.train, **({"imgsz": imgsz} if imgsz else {})},
            "start": tuple(settings_of(trial, spec) for trial in trials),
            "sampler": SamplerSpec(name="random"),
            "pruner": PrunerSpec(name="none"),
            "target_trials": len(trials),
            "budget": None,
            "stop_at": None,
            "stop_when": None,
            "keep_weights": len(trials),
        }
    )
    return checked(final, "The final run")


def _chosen(study: Study, trial: int | None, top: int | None) -> list[FrozenTrial]:
    """The trial of this number, else the ``top`` best.

    Raises:
        UsageError: there is no such finished trial.
    """
    from petskin_tune.study.best.ranking import ranked
    from petskin_tune.study.study import FINISHED

    finished = study.trials(*FINISHED)
    if trial is None:
        chosen = ranked(finished, study.attributes)[: top or 1]
        if not chosen:
            raise UsageError(f"The study {study.name} has no finished trial yet.")
        return chosen
    found = [known for known in finished if known.number == trial]
    if not found:
        raise UsageError(f"The study {study.name} has no finished trial {trial}.")
    return found


def _name(study: str, trial: int | None, top: int | None, epochs: int, imgsz: int | None) -> str:
    which = f"trial-{trial}" if trial is not None else f"top-{top or 1}"
    return f"{study}-{which}-{epochs}-epochs" + (f"-{imgsz}px" if imgsz else "")
