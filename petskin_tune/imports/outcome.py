"""What became of the runs of one source, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from optuna.trial import FrozenTrial

from petskin_tune.imports.fitting import Terms, Unfit, fit
from petskin_tune.imports.runs import Run
from petskin_tune.imports.tune_logs import nothing_varies
from petskin_tune.study.foreign import Foreign, foreign_of
from petskin_tune.text import counted, score

_MOST_REASONS = 5
_MOST_NOTES = 8


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


def lines(
    outcomes: Sequence[Outcome], stored: Collection[FrozenTrial], more: Mapping[int, int] = MappingProxyType({})
) -> list[str]:
    """What to tell a person of all sources.

    Args:
        outcomes: of them.
        stored: the trials that were added to the study; one that is in several sources is told of the first.
        more: by how many epochs those of them go on that the study held shorter, by number.
    """
    left = {_of(trial).digest: trial for trial in stored}
    said = []
    for one in outcomes:
        digests = dict.fromkeys(_of(trial).digest for trial in one.trials)
        said += _source_lines(one, [left.pop(digest) for digest in digests if digest in left], more)
    return said + _notes(stored)


def _source_lines(one: Outcome, stored: Sequence[FrozenTrial], more: Mapping[int, int]) -> list[str]:
    said = []
    if added := [trial for trial in stored if trial.number not in more]:
        how_many = f" {len(added)} of {counted(one.count, 'run')}," if one.count > 1 else ""
        said.append(f"imported {one.source}:{how_many} {_best(added)}")
    for trial in stored:
        if epochs := more.get(trial.number):
            said.append(f"imported {one.source}: {counted(epochs, 'more epoch')} of {_best([trial])}")
    if one.trials and not stored:
        said.append(f"known already: {one.source}")
    if one.trials and one.left_out:
        said.append(f"  left out: {len(one.left_out)} of {counted(one.count, 'run')}: {one.reasons}")
    elif one.left_out:
        said.append(f"left out {one.source}: {one.reasons}")
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


def _notes(added: Collection[FrozenTrial]) -> list[str]:
    found = Counter(note for trial in added for note in _of(trial).notes).most_common()
    said = [f"noted of {counted(count, 'run')}: {note}" for note, count in found[:_MOST_NOTES]]
    rest = len(found) - _MOST_NOTES
    return [*said, f"{counted(rest, 'more note')}, kept with the trials"] if rest > 0 else said


def _of(trial: FrozenTrial) -> Foreign:
    found = foreign_of(trial)
    assert found is not None
    return found
