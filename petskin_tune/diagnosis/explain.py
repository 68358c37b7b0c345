"""``petskin-tune diagnose``: what the curves of a study, a trial or any Ultralytics run show, in plain words.

A run needs no study, no GPU and no database: :func:`of_run` reads the ``results.csv`` and ``args.yaml`` that
every Ultralytics training leaves behind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from petskin_tune import text as words
from petskin_tune.diagnosis import search
from petskin_tune.diagnosis.advice import advice
from petskin_tune.diagnosis.comparison import compare, curves_of
from petskin_tune.diagnosis.curves import Curves, fitness_noise
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
from petskin_tune.study.foreign import Foreign, foreign_of, without_foreign
from petskin_tune.study.ranking import best
from petskin_tune.study.repeats import gain_of
from petskin_tune.study.stored import recorded
from petskin_tune.study.trials import failure_kind, failure_of, find_trial, spec_of

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

NEARLY_ALL = 0.9  # of the best value: when it was reached says how the run spent its time
NOISY = 0.05  # of the best value: noise of which it is said that it explains a best that stands out
USUAL_NEARLY, USUAL_FALL = 0.43, 0.027  # when that is, and how far runs end below their best: medians of public runs
LATE_TIMES, FAR_TIMES = 2.0, 4.0  # times the usual, from which on a run is not called usual
ENDS_LOW, LATE = "ends far below its best", "good only in the end"
FALLEN = 0.5  # of the best value: a run that ends below it is not called healthy


def of_run(path: Path) -> str:
    """The diagnosis of a ``results.csv`` or a run folder.

    Raises:
        UsageError: there is none, it cannot be read, or it is not Ultralytics'.
    """
    curves = read_run(path)
    answer, lines = _verdict(curves, judge(curves))
    return words.page([f"{path}: {answer}", *lines, _summary(curves), *curves.remarks])


def of_study(study: Study, number: int | None = None) -> str:
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
    spec, own = spec_of(study), without_foreign(trials)
    seen = _seen(own)
    gain, first = gain_of(study.user_attrs), best(trials, study.user_attrs)
    measured = gain if gain is not None and first is not None and gain.trial == first.number else None
    advised = [*search.warnings(trials, spec, measured), *advice(seen.shown, seen.judged, seen.complete, spec)]
    answer = "look at this first" if advised else _answer_of(seen)
    lines = [f"study {study.study_name}: {answer}", *(f"  → {sentence}" for sentence in advised)]
    lines += [f"  {_ended(own)}", *_by_kind(seen)]
    lines += [f"  {gain.sentence(first.number if first else None)}"] if gain else []
    if first is not None:
        lines += ["", "The best trial:", *_trial_lines(first, trials)]
    elif not any(curves_of(trial) for trial in trials):
        lines.append("No trial has finished an epoch yet.")
    return words.page(lines)


# ---- parts ----------------------------------------------------------------------------------------------------------


def _trial_lines(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> list[str]:
    if foreign := foreign_of(trial):
        return _foreign_lines(foreign, trial)
    lines = [f"trial {trial.number} ({trial.state.name.lower()}): {words.parameters(trial.params)}"]
    if failure := failure_of(trial):
        lines += _failure_lines(failure, trial)
    curves = curves_of(trial)
    if curves is None:
        return [*lines, "It has no finished epoch, so there are no curves."]
    findings = judge(curves)
    _, said = _verdict(curves, findings)
    return [*lines, *said, _summary(curves), *compare(trial, trials, findings)]


def _foreign_lines(foreign: Foreign, trial: FrozenTrial) -> list[str]:
    noted = [f"Noted: {note}." for note in foreign.notes]
    return [
        f"trial {trial.number} (imported): {words.parameters(trial.params)}",
        f"It was trained elsewhere: {foreign.source}.",
        *noted,
        "Its losses are not here; to hear what its curves say, let petskin-tune diagnose read the run where it lies.",
    ]


def _failure_lines(failure: Failure, trial: FrozenTrial) -> list[str]:
    """What happened in one sentence, the end of what was recorded of it, and where all of it is."""
    verb = "It failed" if trial.state.is_finished() else "It was given back"
    lines = [f"{verb}: {failure.kind}" + (f", {failure.message.rstrip('.')}" if failure.message else "") + "."]
    lines += [f"  | {line}" for line in tail(failure.detail, DETAIL_LINES, DETAIL_WIDTH)]
    if failure.log:
        worker = recorded(trial).get(attributes.WORKER)
        lines.append(f"All of it: {failure.log}" + (f", on the machine of {worker}" if worker else ""))
    return lines


@dataclass
class _Seen:
    """What the trials of a study show: their numbers by kind of finding and failure, and those that show nothing."""

    shown: dict[str, list[int]] = field(default_factory=dict)
    healthy: list[int] = field(default_factory=list)
    judged: list[int] = field(default_factory=list)  # long enough for a verdict
    complete: list[int] = field(default_factory=list)  # trained to their end


def _seen(trials: Sequence[FrozenTrial]) -> _Seen:
    seen = _Seen()
    for trial in trials:
        curves, found = curves_of(trial), list(kinds_of(trial))
        kinds = [f"failed, {kind}"] if (kind := failure_kind(trial)) else []
        if curves is not None and len(curves.sound()) >= LEAST_EPOCHS:
            seen.judged.append(trial.number)
            if trial.state.name == "COMPLETE":
                seen.complete.append(trial.number)
            kinds += found or _unusual(curves.sound())
            if not kinds and curves.fitness[curves.best] >= NOTHING_FOUND:
                seen.healthy.append(trial.number)
        elif curves is not None:
            kinds += found
        for kind in kinds:
            seen.shown.setdefault(kind, []).append(trial.number)
    return seen


def _answer_of(seen: _Seen) -> str:
    """Whether anything is wrong, where no advice holds for most of the trials."""
    if not seen.judged:
        return "too early for a verdict"
    return "nothing is wrong with it as a whole" if seen.shown else "nothing is wrong"


def _ended(trials: Sequence[FrozenTrial]) -> str:
    names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    counts = Counter(names.get(trial.state.name, "not over") for trial in trials)
    said = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    return f"{words.counted(len(trials), 'trial')}{f': {said}' if said else ''}"


def _by_kind(seen: _Seen) -> list[str]:
    """One line for each finding and failure, with the trials that show it; the healthy ones last."""
    kinds = sorted(seen.shown.items(), key=lambda item: -len(item[1]))
    lines = [f"  {kind}: {_numbers(numbers)}" for kind, numbers in kinds]
    return lines + ([f"  no sign of trouble: {_numbers(seen.healthy)}"] if seen.healthy else [])


def kinds_of(trial: FrozenTrial) -> tuple[str, ...]:
    """The kinds of what a trial's curves show: as recorded when it ended, which costs nothing, else as they are now."""
    known = recorded(trial)
    if trial.state.is_finished() and attributes.FINDINGS in known:
        return tuple(known[attributes.FINDINGS])
    curves = curves_of(trial)
    return tuple(finding.kind for finding in judge(curves)) if curves else ()


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


def _verdict(curves: Curves, findings: Sequence[Finding]) -> tuple[str, list[str]]:
    """Whether anything is wrong in a few words, and what to do in sentences."""
    if findings:
        kinds = ", ".join(finding.kind for finding in findings)
        only = "nothing is wrong, but it ended too soon"
        answer = only if kinds == "still-improving" else f"something is wrong: {kinds}"
        return answer, [line for finding in findings for line in (finding.message, f"  → {finding.advice}")]
    sound = curves.sound()
    if len(sound) < LEAST_EPOCHS:
        counted = words.counted(len(curves), "epoch")
        if len(sound) < len(curves):
            counted = f"only {len(sound)} of {counted} validated and recorded in numbers"
        return "too short", [f"Too short for a verdict: {counted}, {LEAST_EPOCHS} are needed."]
    return _no_finding(sound)


def _no_finding(curves: Curves) -> tuple[str, list[str]]:
    """What to say of a run on which no rule has found anything."""
    best, last = float(curves.fitness[curves.best]), _last(curves)
    if best < NOTHING_FOUND:
        return "no verdict yet", [
            f"No verdict yet: after {len(curves)} epochs nothing is found ({curves.fitness_name} below "
            f"{NOTHING_FOUND}). From scratch that may take {LEAST_TO_FIND} epochs; if it goes on, compare the labels "
            "and the classes of train and val (petskin-tune data check)."
        ]
    if last < FALLEN * best:
        return "no verdict yet", [
            f"No verdict yet: {curves.fitness_name} fell from {best:.3f} (epoch {curves.number(curves.best)}) to "
            f"{last:.3f}. In the first epochs that often heals; {COMES_BACK} epochs after the best it can be told."
        ]
    if curves.in_progress:
        done = f"{curves.number(-1)} of {curves.planned} epochs are done"
        return "nothing is wrong so far", [f"No sign of trouble so far, {done}."]
    if unusual := _unusual(curves):
        return "worth a look", _of_an_unusual_end(curves, unusual)
    return "nothing is wrong", [f"No sign of trouble: {_course(curves)}."]


def _last(curves: Curves) -> float:
    return float(np.mean(curves.fitness[-3:]))


def _nearly(curves: Curves) -> int:
    """The index of the epoch at which nearly all of the best was there."""
    return int(np.argmax(curves.fitness >= NEARLY_ALL * curves.fitness[curves.best]))


def _unusual(curves: Curves) -> list[str]:
    """What is out of the ordinary about a run that has no finding."""
    best = float(curves.fitness[curves.best])
    if curves.in_progress or best < NOTHING_FOUND:
        return []
    ends_low = 1 - _last(curves) / best > FAR_TIMES * USUAL_FALL
    late = (_nearly(curves) + 1) / len(curves) > LATE_TIMES * USUAL_NEARLY
    return [name for name, found in ((ENDS_LOW, ends_low), (LATE, late)) if found]


def _of_an_unusual_end(curves: Curves, unusual: Sequence[str]) -> list[str]:
    best, noise = float(curves.fitness[curves.best]), fitness_noise(curves)
    lines = [f"Its course is unusual: {_course(curves)}."]
    if ENDS_LOW in unusual and noise > NOISY * best:
        lines.append("  → The best epoch may be luck: validate on more images, or compare with other seeds.")
    elif ENDS_LOW in unusual:
        epoch = curves.number(curves.best)
        lines.append(f"  → The weights of epoch {epoch} are the best; fewer epochs or a smaller lrf would have done.")
    if LATE in unusual:
        lines.append(f"  → It was good only in the end: {2 * len(curves)} epochs may make it better.")
    return lines


def _course(curves: Curves) -> str:
    """When the run was nearly as good as its best, and how it ended, beside what is usual."""
    best, noise, nearly = float(curves.fitness[curves.best]), fitness_noise(curves), _nearly(curves)
    noisy = f", with noise of {noise:.3f} from one epoch to the next" if noise > NOISY * best else ""
    return (
        f"90 % of the best was there at epoch {curves.number(nearly)} "
        f"({(nearly + 1) / len(curves):.0%} of the run; {USUAL_NEARLY:.0%} is usual), the last epochs lie "
        f"{1 - _last(curves) / best:.1%} below the best ({USUAL_FALL:.1%} is usual){noisy}"
    )
