"""The choosers of a study file: the sampler, the pruner beside it, and the budget that they spend."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

from petskin_tune.nearest import did_you_mean
from petskin_tune.study.rungs import rungs as default_rungs
from petskin_tune.study.spec import PrunerSpec, SamplerSpec
from petskin_tune.study.study_file.units import parse_budget
from petskin_tune.study.study_file.yaml_lines import Entry

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
_FIRST_VERDICT = 2  # epochs; after one epoch the order of trials says next to nothing about their end


def sampler_of(keys: Mapping[str, Entry], epochs: int, warm_up: float, version: int) -> SamplerSpec:
    """The sampler with every option written out; `freeze-thaw` since version 2, where no pruner is named either.

    Args:
        keys: of the file.
        epochs: of a full trial.
        warm_up: the longest that a trial may draw, in epochs.
        version: of the study file.

    Raises:
        UsageError: an unknown sampler or option, or rungs that no trial could pause at.
    """
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
    if warm_up > found[0] and found[0] < epochs:  # the last epoch is no pause
        raise entry.refused(
            f"pauses trials after epoch {found[0]}, in mid warm-up (`warmup_epochs` up to {warm_up:g}): "
            f"begin at epoch {math.ceil(warm_up)} or later, or shorten the warm-up under `train`"
        )
    return found


def pruner_beside(
    sampler: SamplerSpec, entry: Entry | None, epochs: int, warm_up: float
) -> tuple[PrunerSpec, tuple[str, ...]]:
    """The pruner that goes with the sampler, and what the author may want to know about it.

    Raises:
        UsageError: an unknown pruner or option, verdicts in mid warm-up, or a pruner beside `freeze-thaw`.
    """
    if sampler.name != "freeze-thaw":
        return _pruner(entry, epochs, warm_up)
    if entry is not None and _named(entry, tuple(PRUNER_OPTIONS))[0] != "none":
        raise entry.refused(
            "does not go with the sampler `freeze-thaw`, which pauses trials instead of giving them up: "
            "leave the pruner out, or name the sampler `tpe`"
        )
    return PrunerSpec(name="none"), ()


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


def budget_of(keys: Mapping[str, Entry], sampler: SamplerSpec, epochs: int) -> dict[str, int]:
    """`budget` in epochs, and how many configurations that can be at most, for the sampler that asks for it.

    Raises:
        UsageError: it is none, or a key of `freeze-thaw` stands beside another sampler.
    """
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
