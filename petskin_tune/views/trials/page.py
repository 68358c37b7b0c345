"""``petskin-tune trials --trial N``: one trial with its curve, its settings, its failure and its interruptions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from petskin_tune import columns as fitting
from petskin_tune import text as words
from petskin_tune.printable import printable
from petskin_tune.study import attributes
from petskin_tune.study.failures import Failure
from petskin_tune.study.stored import recorded
from petskin_tune.study.trials import failure_of, find_trial
from petskin_tune.views.holds import EXPLAINED
from petskin_tune.views.trials.rows import Row, Trials, asked_params

if TYPE_CHECKING:
    from optuna.study import Study

    from petskin_tune.leases.lease import Lease

BLOCKS = "▁▂▃▄▅▆▇█"
REPEATED = {"best": "best trial's settings", "defaults": "defaults", "start point": "start point"}
MOST_BLOCKS = 60  # columns of a curve; of more epochs, each block is the best of a few


@dataclass(frozen=True)
class TrialPage:
    """One trial as it is shown; ``row`` is its line of the table.

    Attributes:
        curve: mask mAP50-95 by epoch (1-based).
        arguments: Ultralytics' arguments in force.
        failure: what ended it, or what it was given back for.
        notes: decisions and incidents, oldest first.
        findings: what its curves showed when it ended.
        reason: why it was given back.
    """

    row: Row
    curve: Mapping[int, float]
    arguments: Mapping[str, Any]
    failure: Failure | None
    notes: Sequence[str]
    findings: Mapping[str, str]
    versions: Mapping[str, str]
    reason: str | None


def read(study: Study, trials: Trials, leases: Sequence[Lease], number: int) -> TrialPage:
    """Trial ``number``.

    Raises:
        UsageError: there is none.
    """
    trial = find_trial(study.study_name, study.get_trials(deepcopy=False), number)
    known = recorded(trial)
    lease = next((lease for lease in leases if lease.number == number), None)
    return TrialPage(
        row=next(row for row in trials.rows if row.number == number),
        curve=dict(sorted(trial.intermediate_values.items())),
        arguments={**known.get(attributes.ARGUMENTS, {}), **known.get(attributes.FIXED, {}), **asked_params(trial)},
        failure=failure_of(trial),
        notes=tuple(known.get(attributes.NOTES, ())),
        findings=known.get(attributes.FINDINGS, {}),
        versions=known.get(attributes.VERSIONS, {}),
        reason=lease.reason if lease else None,
    )


def to_json(page: TrialPage) -> dict[str, Any]:
    """All of it, for programs: what is not finite becomes null."""
    content = {**asdict(page.row), **asdict(page)}
    del content["row"]
    content["curve"] = {step: value if math.isfinite(value) else None for step, value in page.curve.items()}
    return content


# ---- for people ------------------------------------------------------------------------------------------------------


def render(page: TrialPage, study: str, options: str, columns: int = words.WIDTH) -> str:
    """The trial in lines of at most ``columns``; of a traceback only what is one word is longer."""
    row = page.row
    lines = [f"trial {row.number} of {printable(study)}: {row.doing}{', the best' if row.best else ''}"]
    if row.doing in EXPLAINED:
        lines += _wrapped(EXPLAINED[row.doing], columns)
    if row.repeats:
        lines += _wrapped(f"it repeats the {REPEATED[row.repeats]} with the seed {row.seed}", columns)
    lines += _curve(page, columns)
    lines += _wrapped(_life(page), columns)
    searched = " ".join(f"{name}={words.parameter(value)}" for name, value in row.params.items())
    fixed = {name: value for name, value in page.arguments.items() if name not in row.params}
    lines += _section("searched", searched, columns)
    lines += _section(
        "the rest", " ".join(f"{name}={words.parameter(value)}" for name, value in fixed.items()), columns
    )
    lines += _section("trained with", " ".join(f"{name}={version}" for name, version in page.versions.items()), columns)
    lines += _failure(page, columns)
    if page.reason and not page.failure:
        lines += _section("given back", words.reason(page.reason), columns)
    for title, sentences in (("notes", page.notes), ("its curves", tuple(page.findings.values()))):
        for sentence in sentences:
            lines += _section(title, sentence, columns)
            title = ""
    if page.curve:
        command = f"petskin-tune diagnose {options} --trial {row.number}"
        lines += ["", *words.to_type("what its curves say: ", command, columns)]
    return words.page(lines)


def _wrapped(text: str, columns: int) -> list[str]:
    return fitting.wrapped(printable(text), columns, first="  ", then="  ")


def _section(title: str, text: str, columns: int) -> list[str]:
    lines = fitting.wrapped(printable(text), columns, first="  ", then="  ")
    return [title, *lines] if lines and title else lines


def _life(page: TrialPage) -> str:
    """Who trained it, for how long, and what interruptions cost."""
    row = page.row
    if not (row.worker or row.seconds):
        return {"person": "enqueued by a person", "start point": "a start point of the study"}.get(row.origin or "", "")
    parts = [f"{words.duration(row.seconds)} of training" if row.seconds else "nothing trained yet"]
    if row.worker:
        parts.append(f"by {row.worker}" + (f" on {row.device}" if row.device else ""))
    if row.resumes:
        parts.append(f"resumed {words.counted(row.resumes, 'time')}")
    if row.seconds_lost >= 1:
        parts.append(f"{words.duration(row.seconds_lost)} of it done twice")
    if row.begun:
        parts.append(f"begun {_local(row.begun)}" + (f", ended {_local(row.ended)}" if row.ended else ""))
    return "; ".join(parts)


def _local(iso: str) -> str:
    return datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M")


def _curve(page: TrialPage, columns: int) -> list[str]:
    values = [value for value in page.curve.values() if math.isfinite(value)]
    if not values:
        return ["  no epoch is done"]
    row = page.row
    count = f"{row.epochs} of {row.of} epochs" if row.of else words.counted(row.epochs, "epoch")
    last = page.curve[max(page.curve)]
    said = f"mask mAP {words.score(max(values))} at epoch {row.best_epoch}, {words.score(last)} at the last; {count}"
    line = sparkline(list(page.curve.values()), min(MOST_BLOCKS, columns - 24))
    return [f"  {said}", f"  {words.score(min(values))} {line} {words.score(max(values))}"]


def sparkline(values: Sequence[float], columns: int = MOST_BLOCKS) -> str:
    """A curve in at most ``columns`` blocks from its lowest to its highest value; what is no number is a blank."""
    share = max(1.0, len(values) / columns)
    count = min(len(values), columns)
    parts = [values[math.floor(index * share) : max(math.floor((index + 1) * share), 1)] for index in range(count)]
    tops = [max((value for value in part if math.isfinite(value)), default=math.nan) for part in parts]
    finite = [top for top in tops if math.isfinite(top)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    return "".join(" " if math.isnan(top) else _block(top, low, high) for top in tops)


def _block(value: float, low: float, high: float) -> str:
    share = (value - low) / (high - low) if high > low else 0.5
    return BLOCKS[min(int(share * len(BLOCKS)), len(BLOCKS) - 1)]


def _failure(page: TrialPage, columns: int) -> list[str]:
    """What happened, all that was recorded of it, and where the rest is."""
    failure = page.failure
    if failure is None:
        return []
    verb = "failed" if page.row.ended else "was given back"
    lines = _section(verb, f"{failure.kind}: {failure.message}".rstrip(": "), columns)
    for line in failure.detail.splitlines():
        indent = "  | " + " " * (len(line) - len(line.lstrip()))
        lines += fitting.wrapped(printable(line), columns, first=indent, then=indent + "  ")
    return [*lines, *(_wrapped(f"all of it: {failure.log}", columns) if failure.log else [])]
