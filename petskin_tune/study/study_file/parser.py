"""From the entries of a study file to a StudySpec: each key read, checked and refused where it stands."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from petskin_tune.errors import UsageError
from petskin_tune.nearest import did_you_mean
from petskin_tune.study.arguments import arguments, check_name, check_value
from petskin_tune.study.rungs import rungs as default_rungs
from petskin_tune.study.space import check_settings, example, make_choices, make_range
from petskin_tune.study.spec import SPEC_VERSION, Choices, PrunerSpec, Range, SamplerSpec, Scalar, StudySpec, Subset
from petskin_tune.study.study_file.published import PUBLISHED
from petskin_tune.study.study_file.units import parse_budget, parse_duration, parse_share, parse_size
from petskin_tune.study.study_file.yaml_lines import Entry

REQUIRED = ("study", "model", "data", "epochs", "search")
_KEYS = ("version", *(key for key in StudySpec.model_fields if key != "version"))
SAMPLER_OPTIONS = {
    "freeze-thaw": ("rungs",),
    "tpe": ("startup_trials",),
    "gp": ("startup_trials",),
    "random": (),
}
PRUNER_OPTIONS = {
    "asha": ("rungs", "reduction_factor"),
    "hyperband": ("min_epochs", "reduction_factor"),
    "median": ("min_epochs", "startup_trials"),
    "none": (),
}
RUNS = 20  # full runs that a study may cost, where its file says nothing
_WHOLE_NUMBERS = {  # to the least that each may be
    "target_trials": 1,
    "keep_weights": 0,
    "keep_frozen": 1,
    "max_identical_failures": 1,
    "patience_epochs": 1,
}
_DECADES_IN_LINE = 2.0  # from here on a linear search hardly ever draws from the lower decades
_FIRST_VERDICT = 2  # epochs; after one epoch the order of trials says next to nothing about their end
_SHORTEST_LEASE = 1.0  # seconds
_NAME = re.compile(r"\w[\w.-]{0,99}")
_LONGEST_NAME = 180  # bytes; folders called after a study, or after its final run, have at most 255


@dataclass(frozen=True)
class ParsedStudy:
    """A study file that can run, and what its author may want to know about it."""

    spec: StudySpec
    warnings: tuple[str, ...] = ()


def read_study(root: Entry, version: int = SPEC_VERSION) -> ParsedStudy:
    """The study that a file's entries describe.

    Args:
        root: of the file.
        version: whose defaults apply, where the file does not say so itself.

    Raises:
        UsageError: anything unknown, contradictory or missing, with file, line and the way on.
    """
    if "notify" in root.mapping():
        raise root.mapping()["notify"].refused(
            "cannot be a key of a study, which others read, because the address is a secret: "
            "give it by --notify or TUNE_NOTIFY"
        )
    # An empty value is a key left out; one that is needed is refused where it stands.
    keys = {key: entry for key, entry in root.mapping(_KEYS).items() if entry.value is not None or key in REQUIRED}
    version = _version(keys, version)
    for key in REQUIRED:
        if key not in keys:
            raise root.refused(f"the key `{key}` is missing")
    epochs = keys["epochs"].whole(1)
    train = _train(keys.get("train"))
    search = _search(keys["search"], train)
    _check_optimizer(keys, train, search)
    warm_up = _warm_up(train, search)
    sampler = _sampler(keys, epochs, warm_up, version)
    pruner, warnings = _pruner_beside(sampler, keys.get("pruner"), epochs, warm_up)
    plain = {**_plain(keys), **_budget(keys, sampler, epochs)}
    spec = StudySpec(
        study=keys["study"].text(),
        model=_model(keys["model"]),
        data=keys["data"].text(),
        subset=_subset(keys.get("subset")),
        epochs=epochs,
        train=train,
        search=search,
        start=_start(keys.get("start"), search, sampler.rungs[0] if sampler.rungs else pruner.first_verdict),
        sampler=sampler,
        pruner=pruner,
        **plain,
        version=version,
    )
    return ParsedStudy(spec, (*warnings, *_search_warnings(spec)))


def _version(keys: Mapping[str, Entry], version: int) -> int:
    if "version" in keys and (version := keys["version"].whole(1)) > SPEC_VERSION:
        raise keys["version"].refused(f"is newer than this petskin-tune knows ({SPEC_VERSION}); upgrade petskin-tune")
    return version


def check_study_name(name: str) -> None:
    """Refuse a name for a new study that files cannot be called after, or that would be taken for a file.

    Raises:
        UsageError: says why.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            "`study` must be a name of letters, digits, `.`, `_` and `-`, because files are called after it"
        )
    if name.lower().endswith((".yaml", ".yml")):
        raise UsageError(f"`study` must be a name, and {name!r} would be taken for a file: leave out the ending")
    if (size := len(name.encode())) > _LONGEST_NAME:
        raise UsageError(
            f"`study` must be a shorter name: it has {size} bytes, and files that are called after it at most "
            f"{_LONGEST_NAME} (a Korean letter has 3)"
        )


def _model(entry: Entry) -> str:
    model = entry.text()
    if not model.endswith((".pt", ".yaml", ".yml")):
        raise entry.refused(f"must be weights (.pt) or an architecture (.yaml), not {model!r}")
    official = re.fullmatch(r"(yolo(?:v8|11|12|26)[nslmx])(-\w+)?(\.pt|\.yaml)", model)
    if official and official[2] != "-seg":
        meant = f"{official[1]}-seg{official[3]}"
        if official[3] == ".pt" and meant not in PUBLISHED:
            meant = f"{official[1]}-seg.yaml"
        raise entry.refused(f"is no segmentation model: did you mean `{meant}`?")
    return model


def _subset(entry: Entry | None) -> Subset | None:
    if entry is None:
        return None
    return Subset(**{key: part.whole(1) for key, part in entry.mapping(("train", "val")).items()})


def _train(entry: Entry | None) -> dict[str, Any]:
    if entry is None:
        return {}
    fixed: dict[str, Any] = {}
    for name, part in entry.mapping().items():
        with part.located():
            check_name(name, searched=False)
            fixed[name] = check_value(name, part.value)
    return fixed


def _search(entry: Entry, train: Mapping[str, Any]) -> dict[str, Range | Choices]:
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


def _check_optimizer(keys: Mapping[str, Entry], train: Mapping[str, Any], search: Mapping[str, Any]) -> None:
    """`auto` overrides lr0, momentum and warmup_bias_lr, silently: what was asked would not be what is run."""
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


def _warm_up(train: Mapping[str, Any], search: Mapping[str, Range | Choices]) -> float:
    """The longest warm-up that a trial may draw, in epochs."""
    if (searched := search.get("warmup_epochs")) is not None:
        return searched.high if isinstance(searched, Range) else max(float(str(value)) for value in searched.choices)
    return float(train.get("warmup_epochs", arguments()["warmup_epochs"].default))


def _check_warm_up(entry: Entry, first_verdict: int | None) -> None:
    if first_verdict is not None and entry.value > first_verdict:
        raise entry.refused(f"ends after the pruner's first verdict, at epoch {first_verdict}, which would judge it")


def _start(
    entry: Entry | None, search: Mapping[str, Any], first_verdict: int | None
) -> tuple[Literal["defaults"] | Mapping[str, Scalar | None], ...]:
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


def _named(entry: Entry, names: tuple[str, ...]) -> tuple[str, Mapping[str, Entry]]:
    """The name and the options of `{name: tpe, …}`, or of plain `tpe`."""
    if entry.keys is None:
        name, holder, options = entry.text(), entry, {}
    else:
        options = dict(entry.keys)
        if "name" not in options:
            raise entry.refused(f"needs a `name`: {', '.join(names)}")
        holder = options.pop("name")
        name = "none" if holder.value is None else holder.text()
    if name not in names:
        raise holder.refused(f"{name!r} is unknown{did_you_mean(name, names) or '; known are ' + ', '.join(names)}")
    return name, options


def _only(options: Mapping[str, Entry], known: tuple[str, ...], owner: str) -> None:
    for key, entry in options.items():
        if key not in known:
            hint = did_you_mean(key, known) or (f"; it takes {', '.join(known)}" if known else "; it takes none")
            raise entry.refused(f"is no option of {owner}{hint}")


def _sampler(keys: Mapping[str, Entry], epochs: int, warm_up: float, version: int) -> SamplerSpec:
    """The sampler with every option written out; `freeze-thaw` since version 2, where no pruner is named either."""
    entry = keys.get("sampler")
    if entry is None:
        default: Mapping[str, Entry] = {}
        name, options = ("tpe" if "pruner" in keys or version < 2 else "freeze-thaw"), default
    else:
        name, options = _named(entry, tuple(SAMPLER_OPTIONS))
    _only(options, SAMPLER_OPTIONS[name], f"the sampler `{name}`")
    if name == "freeze-thaw":
        return SamplerSpec(name="freeze-thaw", rungs=_pauses(options.get("rungs"), epochs, warm_up))
    startup = options["startup_trials"].whole(1) if "startup_trials" in options else None
    return SamplerSpec(name=name, startup_trials=startup)  # type: ignore[arg-type]


def _pauses(entry: Entry | None, epochs: int, warm_up: float) -> tuple[int, ...]:
    """The epochs after which a trial may pause, its last one included: a list of them, every so many, or ours."""
    if entry is None:
        return default_rungs(epochs, warm_up)
    if entry.items is None:
        step = entry.whole(1, epochs)
        found = (*(epoch for epoch in range(step, epochs, step) if epoch >= warm_up), epochs)
    else:
        found = tuple(item.whole(1, epochs) for item in entry.items)
        if not found:
            raise entry.refused("names no epoch")
        found = found if found[-1] == epochs else (*found, epochs)
    if any(later <= earlier for earlier, later in itertools.pairwise(found)):
        raise entry.refused(f"must be increasing epochs, not {list(found)}")
    if warm_up > found[0]:
        raise entry.refused(
            f"pauses trials after epoch {found[0]}, in mid warm-up (`warmup_epochs` up to {warm_up:g}): "
            f"begin at epoch {math.ceil(warm_up)} or later, or shorten the warm-up under `train`"
        )
    return found


def _pruner_beside(
    sampler: SamplerSpec, entry: Entry | None, epochs: int, warm_up: float
) -> tuple[PrunerSpec, tuple[str, ...]]:
    if sampler.name != "freeze-thaw":
        return _pruner(entry, epochs, warm_up)
    if entry is not None and _named(entry, tuple(PRUNER_OPTIONS))[0] != "none":
        raise entry.refused(
            "does not go with the sampler `freeze-thaw`, which pauses trials instead of giving them up: "
            "leave the pruner out, or name the sampler `tpe`"
        )
    return PrunerSpec(name="none"), ()


def _budget(keys: Mapping[str, Entry], sampler: SamplerSpec, epochs: int) -> dict[str, int]:
    """`budget` in epochs, and how many configurations that can be at most, for the sampler that asks for it."""
    entry = keys.get("budget")
    if sampler.name != "freeze-thaw":
        for key in ("budget", "stop_when", "keep_frozen"):
            if key in keys:
                raise keys[key].refused(
                    f"is for the sampler `freeze-thaw`; with `{sampler.name}` the study ends after `target_trials`"
                )
        return {}
    assert sampler.rungs is not None
    budget = _epochs_of(entry, epochs) if entry is not None else RUNS * epochs
    at_most = {} if "target_trials" in keys else {"target_trials": most_configurations(budget, sampler.rungs)}
    return {"budget": budget, **at_most}


def most_configurations(budget: int, rungs: tuple[int, ...]) -> int:
    """How many trials a budget of epochs can begin, each up to its first rung."""
    return math.ceil(budget / rungs[0])


def _epochs_of(entry: Entry, epochs: int) -> int:
    """`20` (full runs) or `540 epochs`."""
    try:
        return parse_budget(entry.value if isinstance(entry.value, str) else entry.number(0), epochs)
    except ValueError as error:
        raise entry.refused(str(error)) from error


def _pruner(entry: Entry | None, epochs: int, warm_up: float) -> tuple[PrunerSpec, tuple[str, ...]]:
    """The pruner with every option written out, so that a later release judges the study by the same rule."""
    name, options = ("asha", {}) if entry is None else _named(entry, tuple(PRUNER_OPTIONS))
    _only(options, PRUNER_OPTIONS[name], f"the pruner `{name}`")
    factor = options["reduction_factor"].whole(2) if "reduction_factor" in options else 3
    if name == "none":
        return PrunerSpec(name="none"), ()
    if name == "asha" and "rungs" in options:
        rungs = _rungs(options["rungs"], epochs, warm_up)
        return PrunerSpec(name="asha", rungs=rungs, reduction_factor=factor), ()
    if "min_epochs" in options:
        min_epochs = options["min_epochs"].whole(1 if name == "hyperband" else 0)
        _check_first_verdict(options["min_epochs"], min_epochs + (name == "median"), epochs, warm_up)
    elif default_rungs := _default_rungs(epochs, factor, warm_up):
        if name == "asha":
            return PrunerSpec(name="asha", rungs=default_rungs, reduction_factor=factor), ()
        min_epochs = default_rungs[0] - (name == "median")
    else:
        note = (
            f"nothing will be pruned: {epochs} epochs leave no room for a verdict after {warm_up:g} epochs of warm-up"
        )
        return PrunerSpec(name="none"), (note,)
    if name == "hyperband":
        return PrunerSpec(name="hyperband", min_epochs=min_epochs, reduction_factor=factor), ()
    startup = options["startup_trials"].whole(1) if "startup_trials" in options else 5
    return PrunerSpec(name="median", min_epochs=min_epochs, startup_trials=startup), ()


def _rungs(entry: Entry, epochs: int, warm_up: float) -> tuple[int, ...]:
    rungs = tuple(item.whole(1) for item in entry.sequence())
    if not rungs:
        raise entry.refused("names no epoch; to prune nothing write `pruner: none`")
    if any(later <= earlier for earlier, later in itertools.pairwise(rungs)):
        raise entry.refused(f"must be increasing epochs, not {list(rungs)}")
    _check_first_verdict(entry, rungs[0], epochs, warm_up)
    if rungs[-1] >= epochs:
        raise entry.refused(f"must lie before the last epoch ({epochs}), where nothing is left to save: {rungs[-1]}")
    return rungs


def _check_first_verdict(entry: Entry, first: int, epochs: int, warm_up: float) -> None:
    if first >= epochs:
        raise entry.refused(f"gives its first verdict after epoch {first}, but trials end at epoch {epochs}")
    if warm_up > first:
        raise entry.refused(
            f"gives its first verdict after epoch {first}, in mid warm-up (`warmup_epochs` up to {warm_up:g}): "
            f"start judging at epoch {math.ceil(warm_up)} or later, or shorten the warm-up under `train`"
        )


def _default_rungs(epochs: int, factor: int, warm_up: float) -> tuple[int, ...]:
    """`epochs` divided by `factor` again and again, down to a tenth of the run and never into the warm-up."""
    earliest = max(_FIRST_VERDICT, warm_up, epochs / 10)
    rungs = []
    while (epochs := epochs // factor) >= earliest:
        rungs.append(epochs)
    return tuple(reversed(rungs))


def _plain(keys: Mapping[str, Entry]) -> dict[str, Any]:
    """The keys that are one number or word each; those left out keep StudySpec's defaults."""
    found: dict[str, Any] = {}
    for key, low in _WHOLE_NUMBERS.items():
        if key in keys:
            found[key] = keys[key].whole(low)
    if "seed" in keys:
        found["seed"] = keys["seed"].whole(0, 2**31 - 1)
    if "stop_at" in keys:
        found["stop_at"] = keys["stop_at"].number(0, 1)
    if "on_oom" in keys:
        found["on_oom"] = keys["on_oom"].text()
        if found["on_oom"] not in ("split", "prune"):
            raise keys["on_oom"].refused(f"must be split or prune, not {found['on_oom']!r}")
    parsers: Mapping[str, Callable[[object], float]] = {
        "snapshot_every": parse_duration,
        "lease": parse_duration,
        "store_limit": parse_size,
        "stop_when": parse_share,
    }
    for key, parse in parsers.items():
        if key in keys:
            try:
                found[key] = parse(keys[key].value)
            except ValueError as error:
                raise keys[key].refused(str(error)) from error
    if found.get("lease", _SHORTEST_LEASE) < _SHORTEST_LEASE:
        raise keys["lease"].refused(f"must be at least {_SHORTEST_LEASE:g} s, a worker has to renew it in time")
    return found


def _search_warnings(spec: StudySpec) -> list[str]:
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
