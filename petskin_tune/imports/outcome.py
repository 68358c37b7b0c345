"""What became of the runs of one source, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from petskin_tune.imports.fitting import Terms, Unfit, fit
from petskin_tune.imports.runs import Run
from petskin_tune.imports.tune_logs import nothing_varies
from petskin_tune.study.foreign import Foreign, foreign_of
from petskin_tune.text import counted, score

_MOST_REASONS = 5


@dataclass(frozen=True)
class Outcome:
    """The runs of one source: those that fit as trials, and why the others do not."""

    source: str
    count: int
    trials: tuple[FrozenTrial, ...]
    left_out: tuple[Unfit, ...] = ()

    @property
    def reasons(self) -> str:
        """Why runs are left out, in one line."""
        if len(self.left_out) == 1 or len({str(unfit) for unfit in self.left_out}) == 1:
            return str(self.left_out[0])
        kinds = Counter(unfit.kind for unfit in self.left_out).most_common()
        more = f"; {sum(count for _, count in kinds[_MOST_REASONS:])} others" if len(kinds) > _MOST_REASONS else ""
        return "; ".join(f"{kind} ({count})" for kind, count in kinds[:_MOST_REASONS]) + more


def outcome(source: str, runs: Sequence[Run], terms: Terms) -> Outcome:
    """Hold the runs of one source against the study."""
    if len(runs) > 1 and (why := nothing_varies(runs)):
        return Outcome(source, len(runs), (), (Unfit(f"{why}: nothing can be learnt"),))
    trials: list[FrozenTrial] = []
    left_out: list[Unfit] = []
    for run in runs:
        try:
            trials.append(fit(run, terms))
        except Unfit as unfit:
            left_out.append(unfit)
    return Outcome(source, len(runs), tuple(trials), tuple(left_out))


def lines(outcome: Outcome, stored: Collection[FrozenTrial]) -> list[str]:
    """What to tell a person of a source.

    Args:
        outcome: of it.
        stored: the trials that were added to the study, from whatever source.
    """
    digests = {_of(trial).digest for trial in outcome.trials}
    added = [trial for trial in stored if _of(trial).digest in digests]
    said = []
    if added:
        of = f" of {counted(outcome.count, 'run')}" if outcome.count > 1 else ""
        said.append(f"imported {outcome.source}{':' if not of else f': {len(added)}{of},'} {_best(added)}")
    elif outcome.trials:
        said.append(f"known already: {outcome.source}")
    said += [f"  noted: {note}" for note in _notes(added)]
    if outcome.left_out:
        rows = f"{len(outcome.left_out)} of {counted(outcome.count, 'run')}: " if outcome.trials else ""
        said.append(f"  left out: {rows}{outcome.reasons}" if rows else f"left out {outcome.source}: {outcome.reasons}")
    return said


def _best(added: Sequence[FrozenTrial]) -> str:
    """Numbers and best fitness of trials."""
    numbers = [trial.number for trial in added]
    known = [trial.values[0] for trial in added if trial.values]
    what = "fitness" if _of(added[0]).scale.startswith("fitness") else "mask mAP"
    which = f"trial {numbers[0]}" if len(numbers) == 1 else f"trials {min(numbers)} to {max(numbers)}"
    diverged = sum(_of(trial).diverged for trial in added)
    failed = f", {diverged} diverged or failed" if diverged else ""
    return f"{which}, best {what} {score(max(known, default=None))}{failed}"


def _notes(added: Sequence[FrozenTrial]) -> list[str]:
    counts = Counter(note for trial in added for note in _of(trial).notes)
    found = counts.most_common()
    if len(found) > _MOST_REASONS:
        rest = len(found) - _MOST_REASONS
        return [note for note, _ in found[:_MOST_REASONS]] + [f"{rest} more, kept with the trials"]
    return [note for note, _ in found]


def _of(trial: FrozenTrial) -> Foreign:
    found = foreign_of(trial)
    assert found is not None
    return found
