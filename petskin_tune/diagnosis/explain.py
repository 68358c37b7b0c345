"""``petskin-tune diagnose``: what the curves of a study, a trial or any Ultralytics run show, in plain words.

A run needs no study, no GPU and no database: :func:`of_run` reads the ``results.csv`` and ``args.yaml`` that
every Ultralytics training leaves behind.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from petskin_tune import text as words
from petskin_tune.diagnosis import search
from petskin_tune.diagnosis.comparison import compare, curves_of
from petskin_tune.diagnosis.curves import MASK, Curves, fitness_noise
from petskin_tune.diagnosis.divergence import COMES_BACK
from petskin_tune.diagnosis.finding import NOTHING_FOUND, Finding
from petskin_tune.diagnosis.learning_rate import peak_rate
from petskin_tune.diagnosis.run_files import read_run
from petskin_tune.diagnosis.standstill import LEAST_TO_FIND
from petskin_tune.diagnosis.troubles import DETAIL_LINES, DETAIL_WIDTH
from petskin_tune.diagnosis.verdict import LEAST_EPOCHS, judge
from petskin_tune.error_text import tail
from petskin_tune.study import attributes
from petskin_tune.study.failures import Failure
from petskin_tune.study.ranking import best
from petskin_tune.study.stored import recorded
from petskin_tune.study.trials import failure_kind, failure_of, find_trial, spec_of

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

NEARLY_ALL = 0.9  # of the best value: when it was reached says how the run spent its time
NOISY = 0.05  # of the best value: noise of which it is said that it explains a best that stands out
FALLEN = 0.5  # of the best value: a run that ends below it is not called healthy


def of_run(path: Path) -> str:
    """The diagnosis of a ``results.csv`` or a run folder.

    Raises:
        UsageError: there is none, it cannot be read, or it is not Ultralytics'.
    """
    curves = read_run(path)
    return words.page([f"{path}: {_summary(curves)}", *curves.remarks, *_verdict(curves, judge(curves))])


def of_study(study: Study, number: int | None = None, *, compared: bool = True) -> str:
    """The diagnosis of a study, or of its trial ``number`` beside the others.

    A study's says what its trials suffer from, whether the search is searching, and how the best trial does.

    Args:
        study: of Optuna.
        number: of the trial that is asked for; None: the study.
        compared: whether the best trial is held against every other one, which takes a millisecond for each.

    Raises:
        UsageError: there is no such trial.
    """
    trials = study.get_trials(deepcopy=False)
    if number is not None:
        return words.page(_trial_lines(find_trial(study.study_name, trials, number), trials))
    spec = spec_of(study)
    lines = [
        f"study {study.study_name}: {words.counted(len(trials), 'trial')}",
        *search.warnings(trials, spec),
    ]
    lines += _by_kind(trials)
    if (first := best(trials, study.user_attrs)) is not None:
        lines += ["", "The best trial:", *_trial_lines(first, trials if compared else ())]
    elif not any(curves_of(trial) for trial in trials):
        lines.append("No trial has finished an epoch yet.")
    return words.page(lines)


# ---- parts ----------------------------------------------------------------------------------------------------------


def _trial_lines(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> list[str]:
    lines = [f"trial {trial.number} ({trial.state.name.lower()}): {words.parameters(trial.params)}"]
    if failure := failure_of(trial):
        lines += _failure_lines(failure, trial)
    curves = curves_of(trial)
    if curves is None:
        return [*lines, "It has no finished epoch, so there are no curves."]
    findings = judge(curves)
    return [*lines, _summary(curves), *_verdict(curves, findings), *compare(trial, trials, findings)]


def _failure_lines(failure: Failure, trial: FrozenTrial) -> list[str]:
    """What happened in one sentence, the end of what was recorded of it, and where all of it is."""
    verb = "It failed" if trial.state.is_finished() else "It was given back"
    lines = [f"{verb}: {failure.kind}" + (f", {failure.message.rstrip('.')}" if failure.message else "") + "."]
    lines += [f"  | {line}" for line in tail(failure.detail, DETAIL_LINES, DETAIL_WIDTH)]
    if failure.log:
        worker = recorded(trial).get(attributes.WORKER)
        lines.append(f"All of it: {failure.log}" + (f", on the machine of {worker}" if worker else ""))
    return lines


def _by_kind(trials: Sequence[FrozenTrial]) -> list[str]:
    """One line for each finding and failure, with the trials that show it; the healthy ones last."""
    shown: defaultdict[str, list[int]] = defaultdict(list)
    healthy: list[int] = []
    for trial in trials:
        found, can_be_healthy = _seen(trial)
        kinds = [f"failed, {kind}"] if (kind := failure_kind(trial)) else []
        kinds += found
        for kind in kinds:
            shown[kind].append(trial.number)
        if not kinds and can_be_healthy:
            healthy.append(trial.number)
    lines = [
        f"  {kind}: {_numbers(numbers)}" for kind, numbers in sorted(shown.items(), key=lambda item: -len(item[1]))
    ]
    return lines + ([f"  no sign of trouble: {_numbers(healthy)}"] if healthy else [])


def kinds_of(trial: FrozenTrial) -> tuple[str, ...]:
    """The kinds of what a trial's curves show: as recorded when it ended, which costs nothing, else as they are now."""
    known = recorded(trial)
    if trial.state.is_finished() and attributes.FINDINGS in known:
        return tuple(known[attributes.FINDINGS])
    curves = curves_of(trial)
    return tuple(finding.kind for finding in judge(curves)) if curves else ()


def _seen(trial: FrozenTrial) -> tuple[tuple[str, ...], bool]:
    """What a trial's curves show, and whether they are long and high enough that nothing means health."""
    scores = recorded(trial).get(attributes.HISTORY, {}).get(MASK, ())
    learns = len(scores) >= LEAST_EPOCHS and any(score >= NOTHING_FOUND for score in scores)
    return kinds_of(trial), learns


def _numbers(numbers: Sequence[int]) -> str:
    listed = ", ".join(str(number) for number in numbers[:12]) + (", …" if len(numbers) > 12 else "")
    return f"{words.counted(len(numbers), 'trial')} ({listed})"


def _summary(curves: Curves) -> str:
    """The run in one sentence, whatever the verdict."""
    best, last = float(curves.fitness[curves.best]), float(curves.fitness[-1])
    parts = [
        f"{words.counted(len(curves), 'epoch')}, best {curves.fitness_name} {best:.3f} at epoch "
        f"{curves.number(curves.best)}, last {last:.3f}"
    ]
    if curves.train_loss is not None:
        parts.append(f"training loss {curves.train_loss[0]:.3g} → {curves.train_loss[-1]:.3g}")
    if (rate := peak_rate(curves)) is not None:
        parts.append(f"learning rate up to {rate:.2g}")
    return "; ".join(parts) + "."


def _verdict(curves: Curves, findings: Sequence[Finding]) -> list[str]:
    if findings:
        return [line for finding in findings for line in (finding.message, f"  → {finding.advice}")]
    sound = curves.sound()
    if len(sound) < LEAST_EPOCHS:
        counted = words.counted(len(curves), "epoch")
        if len(sound) < len(curves):
            counted = f"only {len(sound)} of {counted} validated and recorded in numbers"
        return [f"Too short for a verdict: {counted}, {LEAST_EPOCHS} are needed."]
    return [_no_finding(sound)]


def _no_finding(curves: Curves) -> str:
    """What to say of a run on which no rule has found anything."""
    best, last = float(curves.fitness[curves.best]), float(np.mean(curves.fitness[-3:]))
    best_epoch = curves.number(curves.best)
    if best < NOTHING_FOUND:
        return (
            f"No verdict yet: after {len(curves)} epochs nothing is found ({curves.fitness_name} below "
            f"{NOTHING_FOUND}). From scratch that may take {LEAST_TO_FIND} epochs; if it goes on, compare the labels "
            "and the classes of train and val (petskin-tune data check)."
        )
    if last < FALLEN * best:
        return (
            f"No verdict yet: {curves.fitness_name} fell from {best:.3f} (epoch {best_epoch}) to {last:.3f}. In the "
            f"first epochs that often heals; {COMES_BACK} epochs after the best it can be told."
        )
    if curves.in_progress:
        return f"No sign of trouble so far, {curves.number(-1)} of {curves.planned} epochs are done."
    noise = fitness_noise(curves)
    noisy = f", with noise of {noise:.3f} from one epoch to the next" if noise > NOISY * best else ""
    nearly = int(np.argmax(curves.fitness >= NEARLY_ALL * best))
    return (
        f"No sign of trouble: 90 % of the best was there at epoch {curves.number(nearly)} "
        f"({(nearly + 1) / len(curves):.0%} of the run; 43 % is usual), the last epochs lie {1 - last / best:.1%} "
        f"below the best (2.7 % is usual){noisy}."
    )
