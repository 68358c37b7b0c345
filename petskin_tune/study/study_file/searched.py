"""The arguments of Ultralytics in a study file: fixed, searched, and the points that are tried first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from petskin_tune.nearest import did_you_mean
from petskin_tune.study.space.arguments import arguments, check_name, check_value
from petskin_tune.study.space.parameters import check_settings, example, make_choices, make_range
from petskin_tune.study.spec import Choices, Range, Scalar, StudySpec
from petskin_tune.study.study_file.yaml_lines import Entry

_DECADES_IN_LINE = 2.0  # from here on a linear search hardly ever draws from the lower decades


def fixed_arguments(entry: Entry | None) -> dict[str, Any]:
    """What `train` fixes, by name.

    Raises:
        UsageError: an unknown argument, one that is not a study file's to set, or a value that it does not take.
    """
    if entry is None:
        return {}
    fixed: dict[str, Any] = {}
    for name, part in entry.mapping().items():
        with part.located():
            check_name(name, searched=False)
            fixed[name] = check_value(name, part.value)
    return fixed


def searched_arguments(entry: Entry, train: Mapping[str, Any]) -> dict[str, Range | Choices]:
    """What `search` names, each with its range or choices.

    Raises:
        UsageError: it names nothing, an argument that cannot be searched or is fixed too, or no range and no choices.
    """
    searched: dict[str, Range | Choices] = {}
    for name, part in entry.mapping().items():
        with part.located():
            check_name(name, searched=True)
        if name in train:
            raise part.refused("is fixed under `train` as well: leave one of them out")
        searched[name] = _searched(name, part)
    if not searched:
        raise entry.refused(f"names nothing to search; for example `{example('lr0')}`")
    return searched


def _searched(name: str, entry: Entry) -> Range | Choices:
    if entry.items is not None:
        if len(entry.items) != 2:
            raise entry.refused(f"must be [low, high] or {{choices: […]}}; for example `{example(name)}`")
        low, high = (item.value for item in entry.items)
        with entry.located():
            return make_range(name, low, high)
    if entry.keys is None:
        raise entry.refused(
            f"must be a range or choices, for example `{example(name)}`; a fixed value belongs under `train`"
        )
    parts = entry.mapping(("low", "high", "log", "step", "choices"))
    if "choices" in parts:
        if len(parts) > 1:
            raise entry.refused("has `choices`, so it takes no range beside them")
        values = [item.value for item in parts["choices"].sequence()]
        with entry.located():
            return make_choices(name, values)
    if "low" not in parts or "high" not in parts:
        raise entry.refused(f"needs `low` and `high`, or `choices`; for example `{example(name)}`")
    log = "log" in parts and parts["log"].flag()
    step = parts["step"].value if "step" in parts else None
    with entry.located():
        return make_range(name, parts["low"].value, parts["high"].value, log=log, step=step)


def refuse_automatic_optimizer(keys: Mapping[str, Entry], train: Mapping[str, Any], search: Mapping[str, Any]) -> None:
    """Refuse `auto` beside what it overrides, silently: what was asked would not be what is run.

    Raises:
        UsageError: lr0, momentum or warmup_bias_lr is fixed or searched, and no optimizer is named.
    """
    if "optimizer" in search:
        automatic = "auto" in search["optimizer"].choices
        entry = (keys["search"].keys or {})["optimizer"]
    else:
        automatic = train.get("optimizer", "auto") == "auto"
        entry = (keys["train"].keys or {}).get("optimizer", keys["search"]) if "train" in keys else keys["search"]
    overridden = [name for name in ("lr0", "momentum", "warmup_bias_lr") if name in search or name in train]
    if automatic and overridden:
        how = "is `auto`" if entry.name.endswith("optimizer") else "leaves `optimizer` at Ultralytics' default, `auto`"
        verb = "searched" if overridden[0] in search else "fixed"
        raise entry.refused(
            f"{how}, which overrides `{overridden[0]}`, {verb} here: "
            "name an optimizer (SGD, AdamW, …) under `train` or `search`"
        )


def longest_warm_up(train: Mapping[str, Any], search: Mapping[str, Range | Choices]) -> float:
    """The longest warm-up that a trial may draw, in epochs."""
    if (searched := search.get("warmup_epochs")) is not None:
        return searched.high if isinstance(searched, Range) else max(float(str(value)) for value in searched.choices)
    return float(train.get("warmup_epochs", arguments()["warmup_epochs"].default))


def start_of(
    entry: Entry | None, search: Mapping[str, Any], first_verdict: int | None
) -> tuple[Literal["defaults"] | Mapping[str, Scalar | None], ...]:
    """The points that are tried first, as `start` writes them.

    Args:
        entry: of `start`, None where the file has none.
        search: the space.
        first_verdict: the epoch after which a trial may be judged first; no warm-up may end after it.

    Raises:
        UsageError: a point that is none, or a value that its range or its argument does not allow.
    """
    if entry is None:
        return ()
    points: list[Literal["defaults"] | Mapping[str, Scalar | None]] = []
    for item in entry.sequence():
        if item.value == "defaults":
            points.append("defaults")
            continue
        if item.keys is None:
            hint = did_you_mean(str(item.value), ["defaults"])
            raise item.refused(f"must be `defaults` or a mapping of names to values, not {item.value!r}{hint}")
        for name, part in item.keys.items():
            with part.located():
                check_settings({name: part.value}, search)
                if name == "warmup_epochs":
                    _check_warm_up(part, first_verdict)
        points.append(check_settings(item.value, search))
    return tuple(points)


def _check_warm_up(entry: Entry, first_verdict: int | None) -> None:
    if first_verdict is not None and entry.value > first_verdict:
        raise entry.refused(f"ends after the pruner's first verdict, at epoch {first_verdict}, which would judge it")


def search_warnings(spec: StudySpec) -> list[str]:
    """What the author of a space that can be searched may not have meant, a sentence each."""
    notes = []
    for name, searched in spec.search.items():
        if isinstance(searched, Range) and not searched.log and searched.low > 0 and searched.step is None:
            decades = math.log10(searched.high) - math.log10(searched.low)
            if decades > _DECADES_IN_LINE:
                notes.append(f"`{name}` spans {decades:.1f} decades on a linear scale; did you mean `log: true`?")
    closing = spec.train.get("close_mosaic", arguments()["close_mosaic"].default)
    mixing = [name for name in ("mosaic", "mixup", "cutmix", "copy_paste") if name in spec.search]
    if mixing and "close_mosaic" not in spec.search and closing >= spec.epochs:
        notes.append(
            f"`{mixing[0]}` is searched without effect: "
            f"`close_mosaic` {closing} turns it off from epoch 1 of {spec.epochs}"
        )
    if len(spec.start) > spec.target_trials:
        notes.append(f"`start` has {len(spec.start)} points, but `target_trials` is {spec.target_trials}")
    return notes
