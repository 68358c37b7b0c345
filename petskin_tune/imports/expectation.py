"""What the search makes of the foreign trials of its study, in words: the best of them, and its next configuration."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import FrozenTrial

from petskin_tune.language import figure
from petskin_tune.leases.lease import Lease
from petskin_tune.search import samplers
from petskin_tune.search.foreign import ENOUGH, comparable
from petskin_tune.search.segments import first_choice
from petskin_tune.study.foreign import foreign_of, without_foreign
from petskin_tune.study.spec import StudySpec
from petskin_tune.text import counted, parameters, score

_NAMED = 3  # parameters that matter most


def expectation(trials: Sequence[FrozenTrial], leases: Sequence[Lease], spec: StudySpec) -> list[str]:
    """Lines on what the search knows, and begins with, once the points that wait are tried.

    Args:
        trials: of the study.
        leases: of all its trials that have one.
        spec: of the study.
    """
    teaching = _foreign(trials)
    if not teaching:
        return [f"the search learns nothing from them yet: it takes {ENOUGH} runs that differ, of one scale"]
    said = [f"the search begins with the knowledge of {counted(len(teaching), 'run')} of elsewhere"]
    if first := best_of(trials):
        said[0] += f"; the best of them, {_measured(first)}, had {parameters(first.params)}"
    if spec.sampler.name == "random":
        return [*said, "the study's sampler is `random`, which learns nothing from them"]
    waiting = sum(trial.state.name == "WAITING" for trial in trials)
    if waiting:
        said.append(f"first it tries the {counted(waiting, 'point')} that {'waits' if waiting == 1 else 'wait'}")
    return [*said, *_next(trials, leases, spec)]


def _foreign(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The foreign trials of which something is taken."""
    return [trial for trial in comparable(trials) if foreign_of(trial)]


def best_of(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The foreign trial with the highest fitness: of the study's scale, else of the scale with most trials."""
    groups: dict[str, list[FrozenTrial]] = {}
    for trial in trials:
        if (foreign := foreign_of(trial)) and not foreign.diverged and trial.values:
            groups.setdefault(foreign.scale, []).append(trial)
    group = groups.get("") or max(groups.values(), key=len, default=[])
    return max(group, key=lambda trial: trial.values[0], default=None)


def _measured(trial: FrozenTrial) -> str:
    foreign = foreign_of(trial)
    assert foreign is not None
    return f"{score(trial.values[0])} in trial {trial.number} ({foreign.source})"


def _next(trials: Sequence[FrozenTrial], leases: Sequence[Lease], spec: StudySpec) -> list[str]:
    if spec.sampler.name == "freeze-thaw":
        return _by_model(trials, leases, spec)
    startup = spec.sampler.startup_trials or samplers.STARTUP_TRIALS
    known = sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in comparable(trials))
    if known < startup:
        return [f"{spec.sampler.name} draws at random until {startup} trials are known; {known} are, with these"]
    if spec.sampler.name == "gp":  # it would take torch, and seconds
        return [f"its next configuration is drawn by `gp` from {known} trials, not at random"]
    number = max(trial.number for trial in trials) + 1
    params = samplers.draw(trials, number, spec).params
    return [f"its next configuration is drawn by `tpe` from {known} trials, not at random: {parameters(params)}"]


def _by_model(trials: Sequence[FrozenTrial], leases: Sequence[Lease], spec: StudySpec) -> list[str]:
    decision = first_choice(trials, leases, spec)
    point = parameters(getattr(decision.action, "point", {}))
    why = decision.why
    if why.rule != "model":
        why_not = f"a model takes {ENOUGH} runs of elsewhere" if len(_foreign(trials)) < ENOUGH else why.text
        return [f"its next configuration is a random one ({why_not}): {point}"]
    own = any(trial.values or trial.intermediate_values for trial in without_foreign(trials))
    same = any((foreign := foreign_of(trial)) and not foreign.scale for trial in trials)
    scale = "" if own or same else " on the scale of those runs"
    expected, other = why.figures["mean"], why.figures["best_other"]
    ends = figure(expected, ".4f")
    said = [
        f"its next configuration is the model's, not a random one: {point}",
        f"  because its first epochs are to teach most about what is best: it is expected to end at {ends}"
        f"{', but little is known there;' if expected < other else ','} the best known one at {figure(other, '.4f')}"
        f"{scale}",
    ]
    if names := [name for name, length in sorted(why.lengths.items(), key=lambda item: item[1]) if length < 1]:
        said.append(f"  by these runs, what matters most is {', '.join(names[:_NAMED])}")
    return said
