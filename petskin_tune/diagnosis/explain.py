"""``petskin-tune diagnose``: what the curves of a study, a trial or any Ultralytics run show, in plain words.

A run needs no study, no GPU and no database: :func:`of_run` reads the ``results.csv`` and ``args.yaml`` that
every Ultralytics training leaves behind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from petskin_tune import text as words
from petskin_tune.diagnosis import search
from petskin_tune.diagnosis.advice import advice
from petskin_tune.diagnosis.comparison import compare, curves_of
from petskin_tune.diagnosis.course import ENDS_LOW, LATE, no_finding, unusual
from petskin_tune.diagnosis.curves import Curves
from petskin_tune.diagnosis.finding import NOTHING_FOUND, Finding
from petskin_tune.diagnosis.rules.learning_rate import peak_rate
from petskin_tune.diagnosis.run_files import read_run
from petskin_tune.diagnosis.troubles import DETAIL_LINES, DETAIL_WIDTH
from petskin_tune.diagnosis.verdict import LEAST_EPOCHS, judge
from petskin_tune.error_text import tail
from petskin_tune.language import _, several
from petskin_tune.study import attributes
from petskin_tune.study.best.ranking import best
from petskin_tune.study.best.repeats import gain_of, repeats_of
from petskin_tune.study.failures import Failure
from petskin_tune.study.foreign import Foreign, foreign_of, without_foreign
from petskin_tune.study.stored import recorded
from petskin_tune.study.trials import failure_kind, failure_of, find_trial, spec_of

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial


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

    Raises:
        UsageError: there is no such trial.
    """
    trials = study.get_trials(deepcopy=False)
    curves = {trial.number: curves_of(trial) for trial in trials}  # made once: those of a thousand take a second
    if number is not None:
        return words.page(_trial_lines(find_trial(study.study_name, trials, number), trials, curves))
    spec, own = spec_of(study), without_foreign(trials)
    seen = _seen(own, curves)
    # Of repetitions the best is the luckiest.
    first = None if repeats_of(study.user_attrs) else best(trials, study.user_attrs)
    gain = gain_of(study.user_attrs)
    measured = gain if gain is not None and first is not None and gain.trial == first.number else None
    advised = [*search.warnings(trials, spec, first, measured), *advice(seen.shown, seen.judged, seen.complete, spec)]
    answer = _("look at this first") if advised else _answer_of(seen)
    lines = [_("study {name}: {answer}").format(name=study.study_name, answer=answer)]
    lines += [f"  → {sentence}" for sentence in advised]
    lines += [f"  {_ended(own)}", *_by_kind(seen)]
    lines += [f"  {gain.sentence(first.number if first else None)}"] if gain else []
    if first is not None:
        lines += ["", _("The best trial:"), *_trial_lines(first, trials, curves)]
    elif not any(curves.values()):
        lines.append(_("No trial has finished an epoch yet."))
    return words.page(lines)


# ---- parts ----------------------------------------------------------------------------------------------------------


def _trial_lines(trial: FrozenTrial, trials: Sequence[FrozenTrial], known: Mapping[int, Curves | None]) -> list[str]:
    if foreign := foreign_of(trial):
        return _foreign_lines(foreign, trial)
    title = _("trial {number} ({state}): {parameters}")
    lines = [title.format(number=trial.number, state=_state(trial), parameters=words.parameters(trial.params))]
    if failure := failure_of(trial):
        lines += _failure_lines(failure, trial)
    curves = known[trial.number]
    if curves is None:
        return [*lines, _("It has no finished epoch, so there are no curves.")]
    findings = judge(curves)
    return [
        *lines,
        *_verdict(curves, findings)[1],
        _summary(curves),
        *compare(trial, trials, findings, known),
    ]


def _state(trial: FrozenTrial) -> str:
    names = {
        "COMPLETE": _("complete"),
        "PRUNED": _("pruned"),
        "FAIL": _("fail"),
        "RUNNING": _("running"),
        "WAITING": _("waiting"),
    }
    return names[trial.state.name]


def _foreign_lines(foreign: Foreign, trial: FrozenTrial) -> list[str]:
    title = _("trial {number} (imported): {parameters}")
    noted = _("Noted: {note}.")
    return [
        title.format(number=trial.number, parameters=words.parameters(trial.params)),
        _("It was trained elsewhere: {source}.").format(source=foreign.source),
        *(noted.format(note=note) for note in foreign.notes),
        _(
            "Its losses are not here; to hear what its curves say, let petskin-tune diagnose read the run where it "
            "lies."
        ),
    ]


def _failure_lines(failure: Failure, trial: FrozenTrial) -> list[str]:
    """What happened in one sentence, the end of what was recorded of it, and where all of it is."""
    happened = _("It failed: {failure}.") if trial.state.is_finished() else _("It was given back: {failure}.")
    said = f"{failure.kind}, {failure.message.rstrip('.')}" if failure.message else failure.kind
    lines = [happened.format(failure=said)]
    lines += [f"  | {line}" for line in tail(failure.detail, DETAIL_LINES, DETAIL_WIDTH)]
    if failure.log:
        worker = recorded(trial).get(attributes.WORKER)
        where = _("All of it: {log}, on the machine of {worker}") if worker else _("All of it: {log}")
        lines.append(where.format(log=failure.log, worker=worker))
    return lines


@dataclass
class _Seen:
    """What the trials of a study show: their numbers by kind of finding and failure, and those that show nothing."""

    shown: dict[str, list[int]] = field(default_factory=dict)
    healthy: list[int] = field(default_factory=list)
    judged: list[int] = field(default_factory=list)  # long enough for a verdict
    complete: list[int] = field(default_factory=list)  # trained to their end


def _seen(trials: Sequence[FrozenTrial], known: Mapping[int, Curves | None]) -> _Seen:
    seen = _Seen()
    for trial in trials:
        curves, found = known[trial.number], list(kinds_of(trial))
        kinds = [_("failed, {kind}").format(kind=kind)] if (kind := failure_kind(trial)) else []
        if curves is not None and len(curves.sound()) >= LEAST_EPOCHS:
            seen.judged.append(trial.number)
            if trial.state.name == "COMPLETE":
                seen.complete.append(trial.number)
            kinds += found or unusual(curves.sound())
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
        return _("too early for a verdict")
    return _("nothing is wrong with it as a whole") if seen.shown else _("nothing is wrong")


def _ended(trials: Sequence[FrozenTrial]) -> str:
    names = {"COMPLETE": _("{count} complete"), "PRUNED": _("{count} pruned"), "FAIL": _("{count} failed")}
    counts = Counter(names.get(trial.state.name, _("{count} not over")) for trial in trials)
    said = ", ".join(name.format(count=count) for name, count in counts.most_common())
    return f"{_trials(len(trials))}{f': {said}' if said else ''}"


def _by_kind(seen: _Seen) -> list[str]:
    """One line for each finding and failure, with the trials that show it; the healthy ones last."""
    kinds = sorted(seen.shown.items(), key=lambda item: -len(item[1]))
    of_the_end = {ENDS_LOW: _("ends far below its best"), LATE: _("good only in the end")}
    lines = [f"  {of_the_end.get(kind, kind)}: {_numbers(numbers)}" for kind, numbers in kinds]
    if seen.healthy:
        lines.append("  " + _("no sign of trouble: {trials}").format(trials=_numbers(seen.healthy)))
    return lines


def kinds_of(trial: FrozenTrial) -> tuple[str, ...]:
    """The kinds of what a trial's curves show: as recorded when it ended, which costs nothing, else as they are now."""
    known = recorded(trial)
    if trial.state.is_finished() and attributes.FINDINGS in known:
        return tuple(known[attributes.FINDINGS])
    curves = curves_of(trial)
    return tuple(finding.kind for finding in judge(curves)) if curves else ()


def _numbers(numbers: Sequence[int]) -> str:
    listed = ", ".join(str(number) for number in numbers[:12]) + (", …" if len(numbers) > 12 else "")
    return f"{_trials(len(numbers))} ({listed})"


def _trials(count: int) -> str:
    return several(count, _("{count} trial"), _("{count} trials"))


def _summary(curves: Curves) -> str:
    """The run in one sentence, whatever the verdict."""
    best, last = float(curves.fitness[curves.best]), float(curves.fitness[-1])
    parts = [
        _("{epochs}, best {score} {best:.3f} at epoch {epoch}, last {last:.3f}").format(
            epochs=_epochs(len(curves)), score=curves.score, best=best, epoch=curves.number(curves.best), last=last
        )
    ]
    if curves.train_loss is not None:
        loss = _("training loss {first:.3g} → {last:.3g}")
        parts.append(loss.format(first=curves.train_loss[0], last=curves.train_loss[-1]))
    if (rate := peak_rate(curves)) is not None:
        parts.append(_("learning rate up to {rate:.2g}").format(rate=rate))
    return "; ".join(parts) + "."


def _verdict(curves: Curves, findings: Sequence[Finding]) -> tuple[str, list[str]]:
    """Whether anything is wrong in a few words, and what to do in sentences."""
    if findings:
        kinds = ", ".join(finding.kind for finding in findings)
        answer = _("something is wrong: {kinds}").format(kinds=kinds)
        if kinds == "still-improving":
            answer = _("nothing is wrong, but it ended too soon")
        return answer, [line for finding in findings for line in (finding.message, f"  → {finding.advice}")]
    sound = curves.sound()
    if len(sound) < LEAST_EPOCHS:
        counted = _epochs(len(curves))
        if len(sound) < len(curves):
            only = _("only {sound} of {epochs} validated and recorded in numbers")
            counted = only.format(sound=len(sound), epochs=counted)
        short = _("Too short for a verdict: {counted}, {least} are needed.")
        return _("too short"), [short.format(counted=counted, least=LEAST_EPOCHS)]
    return no_finding(sound)


def _epochs(count: int) -> str:
    return several(count, _("{count} epoch"), _("{count} epochs"))
