"""The notes on the dashboard's pages of a study and its trials, in Markdown, made when somebody looks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from petskin_tune import text as words
from petskin_tune.error_text import shortened
from petskin_tune.errors import UsageError
from petskin_tune.study import attributes
from petskin_tune.study.stored import recorded
from petskin_tune.study.trials import failure_of
from petskin_tune.views.dashboard.artifacts import ARGUMENTS
from petskin_tune.views.holds import EXPLAINED
from petskin_tune.views.trials.rows import Row, row_of

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from petskin_tune.leases.lease import Lease
    from petskin_tune.study.spec import StudySpec


@dataclass(frozen=True)
class Notes:
    """Of a study at one instant.

    Attributes:
        of_study: its note.
        named: what a person types to mean it.
        best: number of its best trial; None: there is none.
        spec: of a study of ours.
        leases: of its trials, by Optuna's id.
    """

    of_study: str
    named: str = ""
    best: int | None = None
    spec: StudySpec | None = None
    leases: Mapping[int, Lease] = field(default_factory=dict)

    def of_trial(self, trial: FrozenTrial, *, has_table: bool) -> str:
        """A trial: how far it is, why it failed, on which data it trains, what to type to learn more or to go on.

        Args:
            trial: of the study.
            has_table: whether a table of its arguments is among its artifacts.
        """
        epochs = self.spec.epochs if self.spec else None
        row = row_of(trial, self.leases.get(trial._trial_id), epochs, trial.number == self.best)
        lines = [_how_far(row)]
        if failure := failure_of(trial):
            verb = "Failed" if trial.state.is_finished() else "Given back"
            lines.append(f"**{verb}: {literal(failure.kind)}.** {literal(shortened(failure.message))}")
        lines += [literal(note) for note in recorded(trial).get(attributes.NOTES, ())]
        if self.spec is not None:
            lines.append(trained_on(self.spec))
        if has_table and attributes.ARGUMENTS in recorded(trial):
            lines.append(f"All arguments: {literal(ARGUMENTS)} under the artifacts below.")
        if self.named and row.ours:
            lines.append(to_type(*self._next(row)))
        return "\n\n".join(lines)

    def _next(self, row: Row) -> tuple[str, str]:
        """What a person may want, and the command for it."""
        if row.best:
            return "Its settings and its weights", f"petskin-tune best {self.named}"
        if row.state == "suspended":
            return "To go on", f"tune-worker {self.named}"
        if row.failure or row.epochs:
            return "What its curves say", f"petskin-tune diagnose {self.named} --trial {row.number}"
        return "All of it", f"petskin-tune trials {self.named} --trial {row.number}"


def _how_far(row: Row) -> str:
    """``**Frozen** (kept for later …): 2 of 6 epochs, best mask mAP 0.187 at epoch 1.``"""
    explained = f" ({EXPLAINED[row.doing]})" if row.doing in EXPLAINED else ""
    state = "the best of the study" if row.best else row.doing
    count = f"{row.epochs} of {words.counted(row.of, 'epoch')}" if row.of else words.counted(row.epochs, "epoch")
    score = f", best mask mAP {words.score(row.value)}" if row.value is not None else ""
    at = f" at epoch {row.best_epoch}" if row.value is not None and row.best_epoch else ""
    return f"**{literal(state[:1].upper() + state[1:])}**{literal(explained)}: {count}{literal(score)}{at}."


def trained_on(spec: StudySpec) -> str:
    """Model and data of a study."""
    return f"Model {literal(spec.model)}, data {literal(spec.data)}, {words.counted(spec.epochs, 'epoch')}."


def notes_if_there(study: Study, read_leases: Callable[[], Sequence[Lease]], options: str = "") -> Notes | None:
    """See :func:`notes`; None where somebody has deleted the study while it is shown."""
    try:
        return notes(study, read_leases(), options)
    except (KeyError, UsageError):
        return None


def notes(study: Study, leases: Sequence[Lease], options: str = "") -> Notes:
    """The study as it is now: how far it is, what is best and what that is worth, what it cost, what to type next."""
    from petskin_tune.views.report.rows import read
    from petskin_tune.views.report.summary import costs, worth
    from petskin_tune.views.status import collect as status

    shown = status.collect(study, leases, time.time(), options=options)
    table = read(study, leases, {trial.number: trial.hold for trial in shown.running})
    lines = [literal(status.headline(shown))]
    if shown.repeats:
        lines += [f"**{literal(shown.repeats.sentence)}**", *([literal(shown.gain.sentence)] if shown.gain else [])]
    elif shown.best:
        lines += [f"**{literal(status.best_line(shown.best))}**", *map(literal, worth(table))]
    if not shown.repeats and (above := status.ahead_line(shown)):
        lines.append(literal(above))
    lines += map(literal, costs(table))
    if table.spec is not None:
        lines.append(trained_on(table.spec))
    return Notes(
        of_study="\n\n".join([*lines, to_type(literal(shown.next_reason), shown.next_command)]),
        named=words.named(study.study_name, options),
        best=table.order[0] if table.order else None,
        spec=table.spec,
        leases={lease.trial_id: lease for lease in leases},
    )


def to_type(reason: str, command: str) -> str:
    """A command in a block of its own."""
    plain = command.replace("`", "'")
    return f"{reason}; type:\n\n```\n{plain}\n```"


def literal(text: object) -> str:
    """Text of others as Markdown shows it unchanged."""
    plain = " ".join(str(text).split())
    return "".join(f"\\{sign}" if sign in "\\`*_{}[]()<>#+-.!|~" else sign for sign in plain)
