"""Failures as ``status`` shows them: the newest trials that failed or were given back, in few and narrow lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from petskin_tune import text as words
from petskin_tune.error_text import shortened, tail
from petskin_tune.study.trials import failure_of

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

MOST_TROUBLES = 3  # failures that are shown, and as many trials that were given back
SHOWN_LINES = 2  # of what was recorded of each
DETAIL_LINES, DETAIL_WIDTH = 25, 200  # of the same for programs, for ``diagnose`` and in the report


@dataclass(frozen=True)
class Trouble:
    """A trial that failed, or was given back because of a failure.

    Attributes:
        state: "failed" or "given back".
        kind, message, log: see :class:`petskin_tune.study.failures.Failure`.
        detail: the last lines of what was recorded of it.
    """

    number: int
    state: Literal["failed", "given back"]
    kind: str
    message: str
    detail: tuple[str, ...]
    log: str


def trouble_of(trial: FrozenTrial) -> Trouble | None:
    """What a trial suffers from; None: nothing."""
    failure = failure_of(trial)
    if failure is None:
        return None
    state: Literal["failed", "given back"] = "failed" if trial.state.is_finished() else "given back"
    detail = tuple(tail(failure.detail, DETAIL_LINES, DETAIL_WIDTH))
    return Trouble(trial.number, state, failure.kind, shortened(failure.message), detail, failure.log)


def trouble_lines(troubles: Sequence[Trouble], state: str, options: str) -> list[str]:
    """The newest ones: what happened, the end of what was recorded, and what to type for all of it.

    Args:
        troubles: of a study.
        state: which of them.
        options: what a person types to name the study.
    """
    newest = [trouble for trouble in troubles if trouble.state == state][-MOST_TROUBLES:]
    lines = []
    for trouble in newest:
        verb = "failed" if state == "failed" else "was given back"
        lines += words.wrapped(f"trial {trouble.number} {verb}: {trouble.kind}, {trouble.message}".rstrip(", "))
        last = trouble.detail[-SHOWN_LINES:]
        lines += [f"    | {line}" for line in tail("\n".join(last), SHOWN_LINES, words.WIDTH - 6)]
        if trouble.detail or trouble.log:
            lines += words.to_type("    all of it: ", f"petskin-tune diagnose {options} --trial {trouble.number}")
    return lines
