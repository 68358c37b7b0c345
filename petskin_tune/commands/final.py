"""The final long run: the best settings of a study, on all of its data, for as long as they deserve. Resumable, too.

It is a study of its own beside the first, whose start points are the trials to train: everything that holds for a
worker (snapshots, leases, deadlines, status, best weights) holds for it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from optuna.trial import FrozenTrial

from petskin_tune import packages
from petskin_tune.commands.opening import Places, open_study
from petskin_tune.commands.start import start_worker
from petskin_tune.errors import UsageError
from petskin_tune.home.home import Home
from petskin_tune.interrupts import Signals
from petskin_tune.study import environment as study_environment
from petskin_tune.study.ranking import ranked
from petskin_tune.study.spec import PrunerSpec, SamplerSpec, StudySpec
from petskin_tune.study.study import FINISHED, Study, Wanted, settings_of


def train(
    places: Places,
    signals: Signals,
    *,
    epochs: int,
    trial: int | None,
    top: int | None,
    imgsz: int | None,
    data: str | None,
    device: str,
    max_hours: float | None,
    allow_different_machine: bool,
    exact: bool,
) -> int:
    """Train the best trial (or ``trial``, or the ``top`` best) of a study for ``epochs``. Returns the exit code.

    Args:
        places: where; its ``study`` names the study whose trials are trained.
        signals: heard from before the imports on.
        epochs: of each run.
        trial: a trial's number.
        top: how many of the best.
        imgsz: image size of the final run; None: the study's.
        data: see :func:`petskin_tune.commands.start.start_worker`, as for the rest.

    Raises:
        UsageError: there is no such trial, this machine has another release of Ultralytics than the study, or see
            :func:`petskin_tune.commands.start.start_worker`.
    """
    with open_study(places) as (home, study):
        if not allow_different_machine:
            _require_the_release_of(study, home)
        chosen = _chosen(study, trial, top)
        name = _name(study.name, trial, top, epochs, imgsz)
        spec = final_spec(study.spec, name, chosen, epochs, imgsz)
        folder = study.folders[0] if study.folders else None
    # Taken for a shipped file: typed again, the stored study goes on although others may be the best by now.
    asked = Wanted(name, spec, folder or Path.cwd(), shipped=folder is None, frozen=True)
    return start_worker(
        replace(places, study=name, asked=asked),
        signals,
        data=data,
        device=device,
        name=None,
        max_hours=max_hours,
        target_trials=None,
        max_trials=None,
        take_over=False,
        allow_different_machine=allow_different_machine,
        exact=exact,
    )


def _require_the_release_of(study: Study, home: Home) -> None:
    """Refuse another release of Ultralytics than the one with which the settings were found to be good.

    Raises:
        UsageError: it is another; says what to type.
    """
    environment = study_environment.of_study(study.attributes, study.trials())
    if environment and (found := packages.decisive(environment, packages.here())):
        raise UsageError(study_environment.refusal(study.name, environment, found, home.folder))


def final_spec(spec: StudySpec, name: str, trials: list[FrozenTrial], epochs: int, imgsz: int | None) -> StudySpec:
    """The spec of the final run: the same study without subset, sampler and pruner, on the parameters of ``trials``."""
    return spec.model_copy(
        update={
            "study": name,
            "subset": None,
            "epochs": epochs,
            "train": {**spec.train, **({"imgsz": imgsz} if imgsz else {})},
            "start": tuple(settings_of(trial) for trial in trials),
            "sampler": SamplerSpec(name="random"),
            "pruner": PrunerSpec(name="none"),
            "target_trials": len(trials),
            "stop_at": None,
            "keep_weights": len(trials),
        }
    )


def _chosen(study: Study, trial: int | None, top: int | None) -> list[FrozenTrial]:
    finished = study.trials(*FINISHED)
    if trial is None:
        chosen = ranked(finished)[: top or 1]
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
