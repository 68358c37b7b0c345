"""Who worked when: a bar for each trial, beside its worker."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone

from petskin_tune import text as words
from petskin_tune.views.report.parts import missing, plot, section
from petskin_tune.views.report.rows import Row, Table
from petskin_tune.views.report.style import GROUPS, Figure, Trace, axis, colour, figure, label, told

NOBODY = "worker not known"
CROWDED = 300  # bars: a line around each would be all that is seen
MOST_BARS = 2000  # drawn; of more, the newest


def timeline(table: Table, now: float) -> str:
    """A bar from each trial's begin to its end; trials of a worker that overlap stand in lanes."""
    title = "Workers and trials"
    rows = [row for row in table.rows if row.begin is not None and row.group != "waiting"]
    if not rows:
        return missing(title, "No trial has begun yet.")
    drawn = rows[-MOST_BARS:]
    resumed = [row for row in rows if row.resumes]
    sentence = (
        "A bar for each trial from its begin to its end, beside the worker that had it last, by that worker's "
        f"clock{_last(rows, drawn)}."
    )
    if resumed:
        resumes = sum(row.resumes for row in resumed)
        sentence += (
            f" {words.counted(len(resumed), 'trial')} (striped) went on after "
            f"{words.counted(resumes, 'disconnect or stop', 'disconnects or stops')}; such a bar has the pauses in it."
        )
    if any(row.end is None and row.group != "running" for row in rows):
        sentence += " One that is frozen or suspended has not ended: its bar is as long as it was trained."
    if table.spec is not None and table.spec.sampler.name == "freeze-thaw":
        sentence += " The search lets a trial rest, within its bar, while it trains others."
    return section(title, sentence, plot(_bars(drawn, now), "A bar for each trial over time."))


def _last(rows: Sequence[Row], drawn: Sequence[Row]) -> str:
    return f" (the last {len(drawn):,} of {len(rows):,})" if len(drawn) < len(rows) else ""


def _bars(rows: Sequence[Row], now: float) -> Figure:
    spans = {row.number: _span(row, now) for row in rows}
    lanes, ticks = _lanes(rows, spans)
    count = max(lanes.values()) + 1
    traces = []
    for group, name in GROUPS.items():
        found = [row for row in rows if row.group == group]
        if found:
            traces.append(_group(name, group, found, spans, lanes))
    places = axis(
        tickvals=list(ticks.values()),
        ticktext=[label(worker) for worker in ticks],
        range=[count - 0.4, -0.6],
        showgrid=False,
    )
    height = 90 + min(420, max(28 * count, 60))
    return figure(
        traces, x=axis(type="date", nticks=5, tickangle=0), y=places, height=height, barmode="overlay", bargap=0.25
    )


def _group(
    name: str,
    group: str,
    rows: Sequence[Row],
    spans: dict[int, tuple[datetime, datetime]],
    lanes: dict[int, int],
) -> Trace:
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "y": [lanes[row.number] for row in rows],
        "base": [spans[row.number][0].isoformat(timespec="seconds") for row in rows],
        "x": [round(_long(spans[row.number]).total_seconds() * 1000) for row in rows],
        "marker": {
            "color": colour(group),
            "line": {"width": 0.5 if len(lanes) < CROWDED else 0, "color": colour("card")},
            "pattern": {"shape": ["/" if row.resumes else "" for row in rows], "size": 6, "solidity": 0.35},
        },
        "customdata": [_times(row, _long(spans[row.number])) for row in rows],
        "meta": told(rows),
        "hovertemplate": "%{text}<br>%{customdata}<extra></extra>",
    }


def _long(span: tuple[datetime, datetime]) -> timedelta:
    return span[1] - span[0]


def _times(row: Row, long: timedelta) -> str:
    """How long it took, of that how long in training, and what was lost."""
    told = f"{words.duration(long.total_seconds())}, of that {words.duration(row.seconds)} of training"
    return f"{told}, {words.duration(row.lost)} done twice" if row.lost else told


def _span(row: Row, now: float) -> tuple[datetime, datetime]:
    """From begin to end; of one that has not ended, to now if it runs, else as far as it was trained."""
    assert row.begin is not None
    end = row.end
    if end is None and row.group == "running":
        end = datetime.fromtimestamp(now, timezone.utc).astimezone().replace(tzinfo=None)
    if end is None or end < row.begin:
        end = row.begin + timedelta(seconds=row.seconds)
    return row.begin, end


def _lanes(rows: Sequence[Row], spans: dict[int, tuple[datetime, datetime]]) -> tuple[dict[int, int], dict[str, int]]:
    """The lane of each trial, and the first lane of each worker."""
    lanes: dict[int, int] = {}
    ticks: dict[str, int] = {}
    first = 0
    for worker, found in _by_worker(rows):
        ends: list[datetime] = []
        for row in sorted(found, key=lambda row: spans[row.number][0]):
            begin, end = spans[row.number]
            free = next((lane for lane, until in enumerate(ends) if until <= begin), None)
            if free is None:
                free = len(ends)
                ends.append(end)
            ends[free] = end
            lanes[row.number] = first + free
        ticks[worker] = first
        first += len(ends)
    return lanes, ticks


def _by_worker(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    by_name: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_name[row.worker or NOBODY].append(row)
    yield from sorted(by_name.items())
