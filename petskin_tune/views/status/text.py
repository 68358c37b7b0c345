"""``petskin-tune status`` for people: at most 80 columns whatever is in it, and no word that has to be asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import TextIO

from petskin_tune import columns as fitting
from petskin_tune import text as words
from petskin_tune.diagnosis.troubles import trouble_lines
from petskin_tune.printable import printable
from petskin_tune.views.holds import EXPLAINED, WORDS
from petskin_tune.views.status.collect import ahead_line, best_line, how_far
from petskin_tune.views.status.facts import Best, Defaults, Imported, Running, Status
from petskin_tune.views.stream import unfiltered

WATCH_SECONDS = 5.0
MOST_FROZEN, MOST_WAITING = 4, 4  # trials that are listed; of the others it is said how many there are
LEAST_WORKER = 12  # columns of a worker's name
WORTH_SAYING_SECONDS = 1.0
OF_A_PERSON = ("SIGINT", "SIGTERM", "suspended")  # reasons for which trials are given back every day


def render(status: Status, *, watching: bool = False) -> str:
    """The status as a person reads it; ends in what to type next.

    Args:
        status: of a study.
        watching: it is shown again and again, to somebody who typed --watch already.
    """
    lines = [*_wrapped(f"{how_far(status)} · {datetime.fromtimestamp(status.at):%H:%M:%S}"), *_best(status)]
    if status.imported:
        lines += _wrapped(_imported_line(status.imported))
    lines += [*_end(status), *_spent(status)]
    if status.running:
        lines += ["", *_table(status), *_explained(status), *_reasons(status)]
        lines += trouble_lines(status.troubles, "given back", status.options)
    lines += [*_failures(status), *_waiting(status), *_foreign(status)]
    lines += ["", *_costs(status)]
    lines += [line for note in (*status.notes, *status.environment) for line in _wrapped(note)]
    return words.page([*lines, *_next(status, watching)])


def _wrapped(text: str) -> list[str]:
    return words.wrapped(printable(text), "")


def _best(status: Status) -> list[str]:
    """The best trial and what it is worth; of repetitions, of which the best is the luckiest, what they are."""
    measured = words.wrapped(printable(status.gain.sentence)) if status.gain else []
    if status.repeats:
        return [*_wrapped(status.repeats.sentence), *measured]
    above = ahead_line(status)
    ahead = _wrapped(above) if above else []
    if status.best is None:
        return ahead
    return [*_wrapped(best_line(status.best)), *_lead(status.best, status.defaults), *measured, *ahead]


def _lead(best: Best, defaults: Defaults | None) -> list[str]:
    if defaults is None:
        return []
    if defaults.number == best.number:
        return ["  these are the defaults: nothing better was found yet"]
    how = "above" if defaults.gain >= 0 else "below"
    reached = f"(trial {defaults.number}: {words.score(defaults.value)})"
    return [f"  {words.score(abs(defaults.gain))} {how} the defaults {reached}"]


def _end(status: Status) -> list[str]:
    """When it ends."""
    if status.is_done or status.seconds_left is None:
        return []
    left = words.duration(status.seconds_left)
    if not status.workers:
        return [f"left: about {left} for one worker at the pace so far"]
    at = words.clock(status.at + status.seconds_left, status.at)
    return [f"left: about {left} at this pace, until {at} ({words.counted(status.workers, 'worker')})"]


def _spent(status: Status) -> list[str]:
    """What was trained, what was spared, and what was done twice."""
    spent = status.spent
    if spent.trained < WORTH_SAYING_SECONDS:
        return []
    parts = [f"trained: {words.duration(spent.trained)}"]
    if spent.saved >= WORTH_SAYING_SECONDS:
        frozen = " and freezing" if status.states["frozen"] else ""
        parts.append(f"saved by pruning{frozen}: {words.duration(spent.saved)}")
    if spent.lost >= WORTH_SAYING_SECONDS:
        parts.append(f"lost to disconnects: {words.duration(spent.lost)}")
    return _wrapped("; ".join(parts))


def _failures(status: Status) -> list[str]:
    if not status.failures:
        return []
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(status.failures.items()))
    return ["", *_wrapped(f"failures: {kinds}"), *trouble_lines(status.troubles, "failed", status.options)]


def _reasons(status: Status) -> list[str]:
    """Why trials were given back, but for those that have more to tell."""
    told = {trouble.number for trouble in status.troubles}
    return [
        line
        for trial in status.running
        if trial.reason and trial.number not in told and trial.reason not in OF_A_PERSON
        for line in words.wrapped(f"trial {trial.number} was given back: {printable(trial.reason)}")
    ]


def _waiting(status: Status) -> list[str]:
    if not status.waiting:
        return []
    lines = ["", f"waiting: {words.counted(len(status.waiting), 'enqueued point')}"]
    for item in status.waiting[:MOST_WAITING]:
        said = f"trial {item.number} ({item.origin or 'enqueued'}): {words.parameters(item.params)}"
        lines += words.wrapped(printable(said))
    return lines + _more(len(status.waiting) - MOST_WAITING, "waiting", status)


def _more(count: int, state: str, status: Status) -> list[str]:
    """How many are not listed, and what lists them."""
    if count <= 0:
        return []
    return words.to_type(f"  {count} more: ", f"petskin-tune trials {status.options} --state {state}")


def _imported_line(imported: Imported) -> str:
    """The runs of elsewhere in one line."""
    line = f"imported: {words.counted(imported.count, 'run')} of elsewhere, for the search to learn from"
    first = imported.best
    return f"{line}; the best of them, {words.score(first.value)}, is trial {first.number}" if first else line


def _foreign(status: Status) -> list[str]:
    if not status.foreign:
        return []
    numbers = ", ".join(str(number) for number in status.foreign)
    return ["", *_wrapped(f"running, not ours and never touched: trial {numbers}")]


def _costs(status: Status) -> list[str]:
    if status.snapshot_every is None:
        return []
    every = words.duration(status.snapshot_every) if status.snapshot_every else "epoch"
    place = f", to {words.place(status.store)}" if status.store else ""
    lines = _wrapped(f"snapshots: every {every}{place}")
    costs = [trial.disconnect_seconds for trial in status.running if trial.disconnect_seconds is not None]
    if costs:
        lines.append(f"a kill or a disconnect now costs at most about {words.duration(max(costs))} of training")
    return lines


def _next(status: Status, watching: bool) -> list[str]:
    if watching and status.workers:
        return [f"{status.next_reason}; Ctrl-C ends this view, and nothing else"]
    return words.to_type(f"{status.next_reason}; type: ", status.next_command)


# ---- who works on what -----------------------------------------------------------------------------------------------


def _table(status: Status) -> list[str]:
    frozen = [trial for trial in status.running if trial.hold == "frozen"]
    best = sorted(frozen, key=lambda trial: -(trial.value or 0.0))[:MOST_FROZEN]
    shown = [trial for trial in status.running if trial.hold != "frozen"] + best
    header = ("trial", "state", "epoch", "mask mAP", "for", "a kill costs")
    cells = [header, *map(_cells, shown)]
    room = words.WIDTH - 2 - max(map(fitting.width, fitting.table(cells)))
    names = ["worker", *(fitting.cut(_name(trial), max(LEAST_WORKER, room)) for trial in shown)]
    lines = fitting.table([(*row, name) for row, name in zip(cells, names, strict=True)], right=(0, 2, 3))
    return lines + _more(len(frozen) - len(best), "frozen", status)


def _cells(trial: Running) -> tuple[str, ...]:
    return (
        str(trial.number),
        WORDS[trial.hold],
        f"{trial.epoch}/{trial.epochs}" if trial.epochs else str(trial.epoch),
        words.score(trial.value),
        words.duration(trial.held_seconds) if trial.hold == "training" and trial.held_seconds is not None else "–",
        "–" if trial.disconnect_seconds is None else words.duration(trial.disconnect_seconds),
    )


def _name(trial: Running) -> str:
    return " ".join(printable(trial.worker).split())


def _explained(status: Status) -> list[str]:
    shown = dict.fromkeys(WORDS[trial.hold] for trial in status.running)
    return [line for word in shown if word in EXPLAINED for line in words.wrapped(f"{word}: {EXPLAINED[word]}")]


# ---- again and again -------------------------------------------------------------------------------------------------


def watch(
    read: Callable[[], Status],
    stream: TextIO,
    *,
    seconds: float = WATCH_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
    show: Callable[[Status], str] | None = None,
) -> None:
    """Show what ``read`` gives, again and again, until the study is done, Ctrl-C, or the reader of ``stream`` is gone.

    Args:
        read: the study as it is now.
        stream: a terminal is cleared before each.
        seconds: between two.
        sleep: injected by tests.
        show: None: :func:`render`.
    """
    clear = "\x1b[H\x1b[2J\x1b[3J" if stream.isatty() and show is None else ""
    try:
        while True:
            status = read()
            shown = show(status) if show else render(status, watching=not status.is_done)
            unfiltered(stream).write(clear)
            stream.write(shown)
            stream.flush()
            if status.is_done:
                return
            sleep(seconds)
    except (KeyboardInterrupt, BrokenPipeError):
        return
