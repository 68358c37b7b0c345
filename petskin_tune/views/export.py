"""``petskin-tune best``: the best trial as a file that ``yolo train cfg=FILE`` takes unchanged, and its weights."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from petskin_tune import text as words
from petskin_tune.errors import UsageError
from petskin_tune.files import regular
from petskin_tune.files.paths import writing
from petskin_tune.files.saved_objects import read_saved
from petskin_tune.language import figure
from petskin_tune.protocol import MASK_MAP
from petskin_tune.study import attributes
from petskin_tune.study.best.ranking import ahead, best, highest, ranked, recommended_of, so_far
from petskin_tune.study.best.repeats import gain_of
from petskin_tune.study.extent import begun_here
from petskin_tune.study.space.arguments import FIXED_ONLY, FREE, arguments
from petskin_tune.study.stored import recorded
from petskin_tune.study.trials import find_trial, spec_of

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

# What a training depends on besides FREE and FIXED_ONLY; what belongs to a machine or a run folder stays out.
FRAME = {"task", "mode", "model", "data", "epochs", "patience", "seed", "deterministic", "pretrained"}
MACHINE = {"workers", "cache", "channels_last"}
VALIDATION = ("overlap_mask", "mask_ratio", "conf", "iou", "max_det")  # what a validation depends on, beside its data


def pick(study: Study, number: int | None = None, options: str = "") -> FrozenTrial:
    """Trial ``number`` of the study; None: the best one, see :func:`petskin_tune.study.best.ranking.ranked`.

    Args:
        study: one of ours.
        number: the trial's number.
        options: what a person must type beside ``--study NAME`` to mean this study, such as ``--home DIR``.

    Raises:
        UsageError: there is none.
    """
    trials = study.get_trials(deepcopy=False)
    if number is not None:
        return find_trial(study.study_name, trials, number)
    first = best(trials, study.user_attrs)
    if first is None:
        above = _ahead(trials, first)
        raise UsageError(
            f"The study {study.study_name} has no finished trial yet{f' ({above})' if above else ''}; "
            f"see how far it is: petskin-tune status {words.named(study.study_name, options)}"
        )
    return first


def _ahead(trials: Sequence[FrozenTrial], first: FrozenTrial | None) -> str | None:
    """The trial that has not ended and is above ``first``, in words; None: there is none."""
    above = ahead(trials, first)
    if above is None:
        return None
    reached = f"mask mAP {words.score(so_far(above))} after {words.counted(max(above.intermediate_values), 'epoch')}"
    return f"trial {above.number}, which has not ended, has {reached}"


def training_arguments(
    study: Study, trial: FrozenTrial, *, model: str | None = None, data: str | None = None
) -> dict[str, Any]:
    """All of Ultralytics' arguments that shaped ``trial``, in the order of its default.yaml.

    Args:
        study: one of ours.
        trial: of this study.
        model: what to write as model; None: what the study file says.
        data: what to write as data set; None: what the study file says (the whole set, never the subset).

    Raises:
        UsageError: the study was not made by petskin-tune, so that its fixed arguments are not known.
    """
    spec = spec_of(study)
    if spec is None:
        raise UsageError(
            f"The study {study.study_name} was not made by petskin-tune: its fixed arguments are not known."
        )
    in_force = {**spec.train, **recorded(trial).get(attributes.ARGUMENTS, {}), **trial.params}
    frame: dict[str, Any] = {
        "task": "segment",
        "mode": "train",
        "model": model or spec.model,
        "data": data or spec.data,
    }
    frame |= {"epochs": spec.epochs, "seed": recorded(trial).get(attributes.SEED, spec.seed), "deterministic": True}
    frame["patience"] = spec.patience_epochs or 0  # 0: none, unlike the default
    wanted = (FREE | set(FIXED_ONLY) | FRAME) - MACHINE
    return {
        name: frame.get(name, in_force.get(name, argument.default))
        for name, argument in arguments().items()
        if name in wanted
    }


def write_yaml(
    study: Study,
    dest: Path,
    *,
    number: int | None = None,
    model: str | None = None,
    data: str | None = None,
    options: str = "",
) -> FrozenTrial:
    """Write the arguments of a trial (None: the best) to ``dest``; gives the trial back.

    Raises:
        UsageError: no such trial, a study that petskin-tune did not make, or ``dest`` cannot be written.
    """
    trial = pick(study, number, options)
    text = yaml.safe_dump(
        training_arguments(study, trial, model=model, data=data), sort_keys=False, allow_unicode=True, width=110
    )
    with writing(dest):
        regular.write_text(dest, _header(study, trial, dest) + text)
    return trial


def write_weights(
    study: Study, dest: Path, fetch: Callable[[str, Path], object], *, number: int | None = None, options: str = ""
) -> FrozenTrial:
    """Bring the weights of a trial (None: the best) to ``dest``; gives the trial back.

    Args:
        study: one of ours.
        dest: a ``.pt`` file that ``YOLO(dest)`` then loads.
        fetch: ``fetch(key, dest)`` of the study's store.
        number: the trial's number.

    Raises:
        UsageError: no such trial, its weights are not kept, ``dest`` cannot be written, or whoever may write to the
            store has put something else in their place.
    """
    trial = pick(study, number, options)
    key = recorded(trial).get(attributes.WEIGHTS)
    if key is None:
        kept = [t.number for t in _kept(study) if recorded(t).get(attributes.WEIGHTS)]
        others = f"kept are those of trial {', '.join(map(str, kept))}" if kept else "none of the study's are"
        raise UsageError(
            f"The weights of trial {trial.number} are not kept ({others}); "
            f"train them: petskin-tune train {words.named(study.study_name, options)} --trial {trial.number} "
            "--epochs 100"
        )
    with writing(dest):
        regular.require_replaceable(dest)
        with tempfile.TemporaryDirectory(prefix=".", dir=dest.parent) as folder:
            fetched = Path(folder) / "weights.pt"
            fetch(key, fetched)
            _require_weights(fetched, trial.number)
            fetched.replace(dest)
    return trial


def _require_weights(file: Path, number: int) -> None:
    """Refuse a file that no training here has written: ``YOLO(file)`` would execute what is in it."""
    try:
        read_saved(file, trained=True)
    except Exception as error:  # noqa: BLE001  # of a strange pickle
        said = str(error).partition(",")[0].replace(str(file), "there")
        why = said if isinstance(error, UsageError) else "it is no whole file"
        raise UsageError(
            f"The weights of trial {number} in the store are not those of a training here, and are kept back: {why}."
        ) from None


def to_validate(study: Study, trial: FrozenTrial, weights: str) -> str | None:
    """The Python that validates the weights of a trial as its training did, so that its mask mAP comes out again.

    A training validates in batches of twice its own: with others the images are padded otherwise, and the figure is
    another one.

    Args:
        study: one of ours.
        trial: of this study.
        weights: the file that has them.

    Returns:
        One line; None where the data set that the trial saw is not on this machine.
    """
    in_force = recorded(trial).get(attributes.ARGUMENTS, {})
    data, batch = in_force.get("data"), in_force.get("batch")
    if not isinstance(data, str) or not isinstance(batch, int) or not Path(data).is_file():
        return None
    wanted = {name: in_force.get(name, arguments()[name].default) for name in VALIDATION}
    other = {name: value for name, value in wanted.items() if value != arguments()[name].default}
    given = {"data": data, "imgsz": in_force.get("imgsz"), "batch": 2 * batch, **other}
    return f"YOLO({weights!r}).val({', '.join(f'{name}={value!r}' for name, value in given.items())})"


def _kept(study: Study) -> list[FrozenTrial]:
    """The trials whose weights the store keeps, best first; of others it may still have to delete them."""
    spec = spec_of(study)
    trials = ranked(study.get_trials(deepcopy=False), study.user_attrs)
    return begun_here(trials)[: spec.keep_weights if spec else None]


def render(study: Study, number: int | None = None, options: str = "") -> str:
    """The best trial (or ``number``) as a person reads it, and what to type to use it.

    Args:
        study: one of ours.
        number: the trial's number.
        options: what a person must type beside ``--study NAME`` to mean this study, such as ``--home DIR``.

    Raises:
        UsageError: there is no such trial.
    """
    trial = pick(study, number, options)
    named = words.named(study.study_name, options)
    above = _ahead(study.get_trials(deepcopy=False), trial) if number is None else None
    lines = [_title(study, trial), *_grounds(study, trial), *_worth(study), *([above] if above else []), ""]
    width = max((len(key) for key in trial.params), default=0)
    lines += [f"  {key.ljust(width)}  {words.parameter(value)}" for key, value in trial.params.items()]
    metrics = recorded(trial).get(attributes.METRICS, {})
    lines += [
        "",
        *(f"  {key}  {figure(value, '.4f')}" for key, value in metrics.items() if key.startswith("metrics/")),
    ]
    lines += ["", "use it:", f"  petskin-tune best {named} --yaml best.yaml && yolo train cfg=best.yaml"]
    if recorded(trial).get(attributes.WEIGHTS):
        lines += [f"  petskin-tune best {named} --weights best.pt"]
    lines += [f"  petskin-tune train {named} --trial {trial.number} --epochs 100"]
    return words.page(lines)


def _grounds(study: Study, trial: FrozenTrial) -> list[str]:
    """Why it is this trial, where it is not the one with the highest epoch."""
    trials, stored = study.get_trials(deepcopy=False), study.user_attrs
    first = highest(trials)
    if first is None or trial.number == first.number or recommended_of(trials, stored) != trial.number:
        return []
    return [
        f"the search's model names it for {stored[attributes.RECOMMENDED]['reason']}; the highest single epoch, "
        f"{words.score(first.values[0])}, is one of trial {first.number}"
    ]


def _worth(study: Study) -> list[str]:
    """What repetitions of the best trial have shown."""
    gain, first = gain_of(study.user_attrs), best(study.get_trials(deepcopy=False), study.user_attrs)
    return [gain.sentence(first.number if first else None)] if gain else []


def _title(study: Study, trial: FrozenTrial) -> str:
    best_epoch = recorded(trial).get(attributes.BEST_EPOCH)
    epoch = f" after epoch {best_epoch}" if best_epoch else ""
    values = trial.values or [recorded(trial).get(attributes.METRICS, {}).get(MASK_MAP)]
    return f"trial {trial.number} of study {study.study_name}: mask mAP50-95 {words.score(values[0])}{epoch}"


def _header(study: Study, trial: FrozenTrial, dest: Path) -> str:
    spec = spec_of(study)
    lines = [_title(study, trial), f"Type: yolo train cfg={dest.name}"]
    if spec and spec.subset:
        lines.append(f"The trial saw {spec.subset.train or 'all'} training images; `data` is the whole set.")
    return words.page(f"# {line}" for line in lines)
