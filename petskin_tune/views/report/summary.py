"""The top of the page in words: what was found, what it is worth, what it cost, what to type next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from petskin_tune import text as words
from petskin_tune.language import figure
from petskin_tune.printable import html_text
from petskin_tune.study.best.gain import NAMES
from petskin_tune.views.report.parts import quiet
from petskin_tune.views.report.rows import Row, Table
from petskin_tune.views.report.style import percent
from petskin_tune.views.status import collect as status

NONE_COMPLETE = "No trial is complete yet."
CLEAR = 2.0  # times the noise: a smaller lead is none
_ENDS = {  # of a trial that came higher than the best one
    "pruned": "before it was pruned",
    "frozen": "before it was frozen",
    "failed": "before it failed",
    "running": "and is not over",
    "suspended": "and is not over",
}
_NOT_KEPT = "in one epoch, which counts less than how it went on"
SURE = 6.0  # times the noise: a smaller one may be another seed's


def summary(table: Table, shown: status.Status) -> str:
    """The study in a few sentences and figures."""
    lines = [quiet(status.headline(shown))]
    if shown.repeats is not None:
        lines.append(f'<p class="lead"><b>{html_text(_capital(shown.repeats.sentence))}</b></p>')
        lines += [f"<p>{html_text(_capital(shown.gain.sentence))}.</p>"] if shown.gain else []
    elif shown.best is None:
        lines.append(quiet(NONE_COMPLETE))
    else:
        lines.append(f'<p class="lead"><b>{html_text(status.best_line(shown.best))}</b></p>')
        lines += [f"<p>{html_text(sentence)}</p>" for sentence in (*worth(table), *_by_luck(table)) if sentence]
    lines.append(_tiles(table))
    lines += [f"<p>{html_text(cost)}</p>" for cost in costs(table)]
    lines.append(f"<p>{html_text(_capital(shown.next_reason))}. Next, type:</p>")
    lines.append(f'<pre class="typed">{html_text(shown.next_command)}</pre>')
    return "".join(lines)


# ---- what it is worth -----------------------------------------------------------------------------------------------


def worth(table: Table) -> Iterator[str]:
    """Whether the best trial is better than the defaults, or only luckier."""
    best, defaults = table.best, table.defaults
    if best is None or best.value is None:
        return
    if table.gain is not None:
        yield f"{_capital(table.gain.sentence(best.number))}."
        if table.gain.trial == best.number and table.gain.verdict:
            return  # what single trials show is less
    if defaults is None or defaults.value is None:
        yield "How much better that is than the defaults is not known: no trial tried them."
        return
    name = NAMES[table.reference]
    if best.number == defaults.number:
        yield f"That is {name}: the search has found nothing better."
        return
    lead = best.value - defaults.value
    if not defaults.ended_with_value or defaults.state != "complete":
        yield (
            f"{_capital(name)} (trial {defaults.number}) ended early at {words.score(defaults.value)} "
            f"({defaults.state}), so that the lead of {figure(lead, '+.3f')} says little."
        )
        return
    yield _verdict(lead, table, f"{name} (trial {defaults.number}, {words.score(defaults.value)})")


def _verdict(lead: float, table: Table, name: str) -> str:
    times = lead / table.noise
    from_where = "in this study" if table.noise_curves else "in public runs"
    wavers = f"a curve wavers by {figure(table.noise, '.3f')} from one epoch to the next {from_where}"
    if times <= -CLEAR:
        return (
            f"It lies {figure(-lead, '.3f')} below {name}, {figure(-times, '.0f')} times the noise ({wavers}): it is "
            "named for how its whole curve went, not for its highest epoch."
        )
    if times < CLEAR:
        where = "above" if lead >= 0 else "below"
        return f"It lies {figure(abs(lead), '.3f')} {where} {name}, within the noise ({wavers}): as good as the same."
    sure = "more than noise" if times >= SURE else "more than an epoch's luck, though another seed may move it as far"
    return f"It lies {figure(lead, '.3f')} above {name}, {figure(times, '.0f')} times the noise ({wavers}): {sure}."


def _by_luck(table: Table) -> Iterator[str]:
    """How many others are as good: what the best trial's settings alone do not say."""
    best = table.best
    if best is None or best.value is None:
        return
    leads = [((row.value or 0.0) - best.value, row) for row in table.valued if row.number != best.number]
    near = sum(abs(lead) < CLEAR * table.noise for lead, _ in leads)
    if near:
        verb = "is" if near == 1 else "are"
        yield f"{_capital(_counted(near, 'other trial'))} {verb} within noise of it."
    higher, first = max(leads, key=lambda one: one[0], default=(0.0, best))
    if higher >= CLEAR * table.noise > 0:
        yield f"Trial {first.number} reached {words.score(first.value or 0.0)} {_ENDS.get(first.state, _NOT_KEPT)}."


# ---- what it cost ---------------------------------------------------------------------------------------------------


def costs(table: Table) -> Iterator[str]:
    """Hours trained, saved and lost."""
    trained = sum(row.seconds for row in table.rows)
    if not trained:
        return
    workers = len({row.worker for row in table.rows if row.worker})
    who = f"{_counted(workers, 'worker')} trained" if workers else "Training took"
    lost = "" if table.spec is None else _lost(table.rows)  # of somebody else's study nothing of the kind is known
    yield f"{who} {words.duration(trained)} altogether. {_saved(table, trained)}{lost}".strip()


def _saved(table: Table, trained: float) -> str:
    parts = []
    saved = {group: sum(_spared(r, table) for r in table.rows if r.group == group) for group in ("pruned", "frozen")}
    whole = trained + sum(saved.values())
    for group, verb in (("pruned", "pruning saved"), ("frozen", "freezing has spared")):
        if saved[group]:
            parts.append(f"{verb} {words.duration(saved[group])} ({percent(saved[group] / whole)})")
    return f"Of what full trials would have cost, {' and '.join(parts)}. " if parts else ""


def _spared(row: Row, table: Table) -> float:
    """Seconds of the epochs that the trial was spared."""
    done = len(row.curve)
    if table.spec is None or not done:
        return 0.0
    return row.seconds / done * max(0, table.spec.epochs - done)


def _lost(rows: Sequence[Row]) -> str:
    resumes, seconds = sum(row.resumes for row in rows), sum(row.lost for row in rows)
    if not resumes:
        return "" if any(row.state == "suspended" for row in rows) else "No trial was interrupted."
    lost = f"{words.duration(seconds)} of training had to be done twice" if round(seconds) else "nothing was done twice"
    return f"Trials were interrupted {_counted(resumes, 'time')} and went on; {lost}."


def _tiles(table: Table) -> str:
    best, defaults = table.best, table.defaults
    lead = None
    if best and defaults and best.number != defaults.number and best.value is not None and defaults.value is not None:
        lead = figure(best.value - defaults.value, "+.3f")
    early = ", which ended early" if defaults and defaults.state != "complete" else ""
    hours = sum(row.seconds for row in table.rows)
    tiles = [
        ("mask mAP of the best", words.score(best.value) if best else None),
        (f"over {NAMES[table.reference]}{early}", lead),
        ("trials", f"{len(table.rows):,}"),
        ("epochs", f"{sum(len(row.curve) for row in table.rows):,}"),
        ("of training", words.duration(hours) if hours else None),
    ]
    shown = "".join(f"<div><b>{html_text(value)}</b>{html_text(name)}</div>" for name, value in tiles if value)
    return f'<div class="tiles">{shown}</div>'


def _counted(count: int, noun: str) -> str:
    return words.counted(count, noun).replace(str(count), f"{count:,}", 1)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
