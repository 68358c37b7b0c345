"""A run of elsewhere held against a study: a foreign trial of it, or why it is none.

Left out is what cannot be compared: a run without masks, of another number of epochs (its learning rate fell
otherwise), outside of the space, or of which a searched value is not known. Another data set, model or image size
changes how high the fitness lies: such runs are compared among each other alone (:mod:`petskin_tune.search.foreign`).
Whatever else differs is noted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial

from petskin_tune.errors import UsageError
from petskin_tune.imports.runs import Run
from petskin_tune.search.constraints import NAMES, PREFIX
from petskin_tune.study import attributes
from petskin_tune.study.foreign import Foreign
from petskin_tune.study.space.arguments import FREE, arguments
from petskin_tune.study.space.parameters import check_point, distributions
from petskin_tune.study.spec import StudySpec
from petskin_tune.text import counted, parameter

# What decides on the validation's ground truth or metric, beside data, model and image size.
_MEASURED_BY = ("mask_ratio", "overlap_mask", "conf", "iou", "max_det", "single_cls", "classes")
_NEVER_SEARCHED = ("fraction", "pretrained", "rect")  # which change what a training learns all the same
_AUTOMATIC = ("lr0", "momentum", "warmup_bias_lr")  # which `optimizer: auto` overrides
_MOST_NAMED = 4  # differing arguments that a note names


@dataclass(frozen=True)
class Terms:
    """With what runs are compared, and what a person says of them.

    Attributes:
        spec: of the study.
        data: fingerprint of its data set; None: not known yet.
        assumed: arguments of the runs that do not say them.
        defaults: whether the other arguments that they do not say had Ultralytics' default.
        same_data: whether they had the study's data, whatever their paths; and the study's model and image size, where
            they say none.
    """

    spec: StudySpec
    data: str | None = None
    assumed: Mapping[str, Any] = field(default_factory=dict)
    defaults: bool = False
    same_data: bool = False


class Unfit(Exception):
    """Why a run teaches this study nothing; ``kind`` is the same for all runs with the same reason."""

    def __init__(self, reason: str, kind: str = "") -> None:
        super().__init__(reason)
        self.kind = kind or reason


def fit(run: Run, terms: Terms) -> FrozenTrial:
    """The foreign trial of ``run``.

    Raises:
        Unfit: it is none.
    """
    spec = terms.spec
    known = {**terms.assumed, **_said(run)}
    if str(known.get("optimizer")).lower() == "auto" and "optimizer" in terms.assumed:
        known["optimizer"] = terms.assumed["optimizer"]
    if run.masks is False:
        raise Unfit("it has no mask mAP: it was no segmentation")
    notes = [_check_epochs(run, known, spec)]
    params = _point(known, run, terms)
    scale, measured = _scale(run, known, terms)
    notes += [*measured, _optimizer(known, run, terms), _others(known, run, terms)]
    if not run.values and not run.diverged:
        raise Unfit("none of its epochs has a fitness")
    foreign = Foreign(
        source=run.source[:1000],
        digest=run.digest,
        settings=run.settings,
        scale=scale[:1000],
        diverged=run.diverged,
        notes=tuple(note for note in notes if note),
    )
    return _trial(run, params, foreign, spec)


def _said(run: Run) -> dict[str, Any]:
    known = {name: value for name, value in run.arguments.items() if value is not None or name == "data"}
    if known.get("resume"):
        known.pop("model", None)  # Ultralytics puts the checkpoint there that it went on from
    return known


def _check_epochs(run: Run, known: Mapping[str, Any], spec: StudySpec) -> str:
    """A note on the number of epochs."""
    epochs = run.epochs or known.get("epochs")
    if epochs is None:
        return f"it does not say of how many epochs: taken as {spec.epochs}"
    if epochs == spec.epochs and (last := max(run.curve, default=0)) > spec.epochs:
        raise Unfit(f"it was planned for {spec.epochs} epochs and has {last}: it was gone on with")
    if epochs != spec.epochs:
        raise Unfit(f"it is a run of {epochs:g} epochs, and those of the study have {spec.epochs}")
    return "" if run.complete else f"it ended after {len(run.curve)} of {counted(spec.epochs, 'epoch')}"


# ---- its point -------------------------------------------------------------------------------------------------------


def _point(known: Mapping[str, Any], run: Run, terms: Terms) -> dict[str, Any]:
    search = terms.spec.search
    _check_optimizer(known, run, terms)
    point: dict[str, Any] = {}
    for name in search:
        if not _is_known(name, known, run, terms):
            raise Unfit(f"it does not say its `{name}`: type --assume {name}=…")
        try:
            point |= check_point({name: _value(name, known, run, terms)}, search)
        except UsageError as error:
            raise Unfit(str(error), f"`{name}` outside of the space") from error
    return point


def _check_optimizer(known: Mapping[str, Any], run: Run, terms: Terms) -> None:
    """Refuse an optimizer that nobody knows, and one that gives lr0 another meaning."""
    spec = terms.spec
    optimizer = str(_value("optimizer", known, run, terms) or "").lower()
    searched = [name for name in ("optimizer", *_AUTOMATIC) if name in spec.search]
    if optimizer == "auto" and searched:
        choice = "SGD or MuSGD" if "lr0" in known and run.defaults else "no file says which"
        raise Unfit(f"its optimizer is `auto` ({choice}): type --assume optimizer=…")
    fixed = str(spec.train.get("optimizer", "auto")).lower()
    if "optimizer" not in spec.search and searched and optimizer and optimizer != fixed:
        raise Unfit(f"its optimizer is {optimizer}, the study's {fixed}: their lr0 cannot be compared")


def _optimizer(known: Mapping[str, Any], run: Run, terms: Terms) -> str:
    """A note on an optimizer that is taken for the study's."""
    rates = [name for name in ("lr0", "momentum") if name in terms.spec.search]
    if not rates or _value("optimizer", known, run, terms) is not None:
        return ""
    return (
        f"it does not say its optimizer, taken as the study's; if that was `auto`, its {' and '.join(rates)} had no "
        "effect"
    )


def _value(name: str, known: Mapping[str, Any], run: Run, terms: Terms) -> Any:
    """The run's value of an argument; None where it is not known."""
    if not _is_known(name, known, run, terms):
        return None
    return known[name] if name in known else arguments()[name].default


def _is_known(name: str, known: Mapping[str, Any], run: Run, terms: Terms) -> bool:
    return name in known or ((run.defaults or terms.defaults) and name not in run.unknown)


# ---- what its fitness can be compared with ---------------------------------------------------------------------------


def _scale(run: Run, known: Mapping[str, Any], terms: Terms) -> tuple[str, list[str]]:
    """What tells its fitness from that of the study's trials, "" where nothing does; and notes on it."""
    differing = [
        said for said in (_data(run, known, terms), _model(known, terms), *_measures(known, run, terms)) if said
    ]
    if run.scale:
        said = "its fitness need not be mask mAP: the search takes from it which runs are better, not how good they are"
        return run.scale, [said]
    if not differing:
        return "", []
    said = f"{', '.join(differing)}: the search takes from it which runs are better, not how good they are"
    return f"mask mAP, {', '.join(differing)}", [said]


def _data(run: Run, known: Mapping[str, Any], terms: Terms) -> str:
    if terms.same_data or (run.data is not None and run.data == terms.data):
        return ""
    if run.data is not None and terms.data is not None:
        return f"other data {run.data[:8]}"
    said, ours = known.get("data"), terms.spec.data
    if said is None:
        return "unknown data"
    if terms.spec.subset != run.subset:
        return f"data {said}, and {'another' if run.subset else 'no'} subset of it"
    return "" if _tail(said) == _tail(ours) else f"data {'/'.join(_tail(said))}"


def _tail(path: Any) -> tuple[str, ...]:
    """The last two parts of a path: the same data set lies at another place on every machine."""
    return PurePosixPath(str(path).replace("\\", "/")).parts[-2:]


def _model(known: Mapping[str, Any], terms: Terms) -> str:
    said = known.get("model")
    if said is None:
        return "" if terms.same_data else "unknown model"
    return "" if _model_name(said) == _model_name(terms.spec.model) else f"model {_model_name(said)}"


def _model_name(path: Any) -> str:
    """What a model is called anywhere: its file's name; of a run's own weights with the folder of that run."""
    parts = PurePosixPath(str(path).replace("\\", "/")).parts
    return "/".join(parts[-3:] if parts and parts[-1] in ("best.pt", "last.pt") else parts[-1:])


def _measures(known: Mapping[str, Any], run: Run, terms: Terms) -> list[str]:
    sure = ("imgsz",) if not terms.same_data else ()
    differing = []
    for name in ("imgsz", *_MEASURED_BY):
        ours = terms.spec.train.get(name, arguments()[name].default)
        said = _value(name, known, run, terms)
        if said is None and name in sure:
            differing.append(f"unknown {name}")
        elif said is not None and said != ours:
            differing.append(f"{name} {parameter(said)}")
    return differing


def _others(known: Mapping[str, Any], run: Run, terms: Terms) -> str:
    """A note on the arguments that the study does not search and would train otherwise."""
    if not run.defaults:  # a log: what varies in it
        also = sorted((FREE & run.arguments.keys()) - terms.spec.search.keys())
        more = f" and {len(also) - _MOST_NAMED} more" if len(also) > _MOST_NAMED else ""
        return f"it also varies {', '.join(also[:_MOST_NAMED])}{more}, which the study does not search" if also else ""
    differing = []
    for name in sorted({*FREE, *_NEVER_SEARCHED} - terms.spec.search.keys()):
        ours = terms.spec.train.get(name, arguments()[name].default)
        said = _value(name, known, run, terms)
        if said is not None and said != ours and not (name in _AUTOMATIC and "optimizer" not in terms.spec.train):
            differing.append(f"{name} {parameter(said)}, not {parameter(ours)}")
    if not differing:
        return ""
    more = f"; {len(differing) - _MOST_NAMED} more" if len(differing) > _MOST_NAMED else ""
    return f"it trained with {'; '.join(differing[:_MOST_NAMED])}{more}"


# ---- the trial -------------------------------------------------------------------------------------------------------


def _trial(run: Run, params: Mapping[str, Any], foreign: Foreign, spec: StudySpec) -> FrozenTrial:
    """Diverged ones are told as those of the study are: as a violated constraint."""
    curve = dict(run.curve) or ({} if run.final is None else {spec.epochs: run.final})
    value = max(run.values, default=None)
    trial = create_trial(
        state=TrialState.COMPLETE if run.complete and not run.diverged else TrialState.PRUNED,
        value=value,
        params=dict(params),
        distributions=distributions(spec.search),
        user_attrs={attributes.FOREIGN: foreign.model_dump(mode="json")},
        system_attrs={f"{PREFIX}{name}": float(run.diverged and name == "diverged") for name in NAMES},
        intermediate_values=curve,
    )
    trial.datetime_start = trial.datetime_complete = datetime.now()
    return trial
