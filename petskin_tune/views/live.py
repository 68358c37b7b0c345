"""The worker's live view on a terminal: bars, losses, scores and the last few lines, redrawn in place.

Events that a person may want to scroll back to (trials, notes) are printed above the view; the epochs of the running
trial appear inside it. There is no drawing thread: the view is redrawn by the calls themselves, so that a frozen
worker looks frozen.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TextIO, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from petskin_tune import columns as fitting
from petskin_tune import text as words
from petskin_tune.printable import printable
from petskin_tune.protocol import Position
from petskin_tune.study.extent import Extent
from petskin_tune.views.pace import TrialPace
from petskin_tune.views.progress import Progress, TrialEnd, log, place_of

REDRAW_SECONDS = 0.25
RECENT_LINES = 5
BAR_COLUMNS = 40


class LiveProgress(Progress):
    """See the module."""

    def __init__(
        self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic, console: Console | None = None
    ) -> None:
        super().__init__(stream, clock=clock)
        # force_terminal: the stream was found to be one; rich would ask again and may disagree.
        self._console = console or Console(file=cast(TextIO, self._stream), force_terminal=True, highlight=False)
        self._live: Live | None = None
        self._drawn = float("-inf")
        self._study = ""
        self._study_best: float | None = None
        self._ahead: float | None = None
        self._pruned = 0
        self._doing = ""
        self._recent: deque[str] = deque(maxlen=RECENT_LINES)

    # ---- events -----------------------------------------------------------------------------------------------------

    def _line(self, text: str) -> None:
        with self._lock:
            for line in _broken(printable(" ".join(text.split())), self._console.width):
                self._console.print(line, markup=False, soft_wrap=True)
            self._spoke = self._clock()
            self._pulse.spoken()

    def doing(self, what: str) -> None:
        """See :meth:`Progress.doing`."""
        with self._lock:
            self._doing = what
            if self._live is None:
                super().doing(what)
            else:
                self._pulse.doing(None)
                self._draw(at_once=True)

    def study(self, name: str, extent: Extent, *, best: float | None, home: str) -> None:
        """See :meth:`Progress.study`."""
        with self._lock:
            self._study, self._study_best = name, best
            super().study(name, extent, best=best, home=home)

    def trial_started(
        self,
        number: int,
        extent: Extent,
        params: Mapping[str, object],
        epochs: int,
        best_value: float | None,
        pruned: int,
        resumed_from: Position | None = None,
        curve: Mapping[int, float] | None = None,
        ahead: float | None = None,
    ) -> None:
        """See :meth:`Progress.trial_started`."""
        with self._lock:
            self._study_best, self._ahead, self._pruned = best_value, ahead, pruned
            self._recent.clear()
            super().trial_started(number, extent, params, epochs, best_value, pruned, resumed_from, curve, ahead)
            self._pulse.doing(None)
            self._start()
            self._draw(at_once=True)

    def batch(self, position: Position, batches: int, losses: Mapping[str, float], images_per_second: float) -> None:
        """See :meth:`Progress.batch`."""
        with self._lock:
            if self._trial is None:
                return
            self._trial.saw_batch(self._clock(), position, batches, losses, images_per_second)
            self._doing = "validating" if batches and position.batch >= batches else ""
            self._draw()

    def epoch(
        self,
        number: int,
        epoch: int,
        epochs: int,
        fitness: float,
        best: float,
        study_best: float | None,
        durable: str,
        *,
        seconds: float | None = None,
        loss: float | None = None,
    ) -> None:
        """See :meth:`Progress.epoch`."""
        with self._lock:
            self._study_best, self._doing = study_best, ""
            self._recent.append(f"epoch {epoch}/{epochs} mask mAP {words.score(fitness)} (best {words.score(best)})")
            super().epoch(number, epoch, epochs, fitness, best, study_best, durable, seconds=seconds, loss=loss)
            self._draw(at_once=True)

    def _epoch_done(self, line: str) -> None:
        log.info("%s", line)  # on the screen it is inside the view

    def trial_ended(self, number: int, state: TrialEnd, value: float | None, seconds: float, reason: str = "") -> None:
        """See :meth:`Progress.trial_ended`."""
        with self._lock:
            self._pruned += state == "pruned"
            self._stop()
            super().trial_ended(number, state, value, seconds, reason)

    def close(self) -> None:
        """See :meth:`Progress.close`."""
        with self._lock:
            self._stop()
            super().close()

    # ---- drawing ----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _draw(self, *, at_once: bool = False) -> None:
        now = self._clock()
        if self._live is None or (not at_once and now - self._drawn < REDRAW_SECONDS):
            return
        self._drawn = now
        self._live.update(self._picture(), refresh=True)

    def _picture(self) -> RenderableType:
        rows: list[RenderableType] = [Text("")]
        if self._trial is not None:
            rows += [self._headline(self._trial), _text(words.parameters(self._trial.params), "dim")]
            rows += [_bars(self._trial), self._scores(self._trial), _text(self._doing or self._speed(self._trial))]
            if self._trial.durable:
                rows.append(_text(self._trial.durable, "green" if "safe to" in self._trial.durable else ""))
        rows += [_text(line, "dim") for line in self._recent]
        return Group(*rows)

    def _headline(self, trial: TrialPace) -> Text:
        count = f", {place}" if (place := place_of(self._pace.extent)) else ""
        ahead = f" · ahead of it {words.score(self._ahead)}" if self._ahead is not None else ""
        rest = f" · study best {words.score(self._study_best)}{ahead} · {self._pruned} pruned"
        if self._study_best is None:
            rest = f" · ahead {words.score(self._ahead)}, not over" if ahead else " · no trial is over yet"
        title = f"{self._study} · trial {trial.number}{count}".lstrip(" ·")
        return Text.assemble((printable(title), "bold"), rest)

    def _scores(self, trial: TrialPace) -> Text:
        shown = {name.removeprefix("train/"): value for name, value in trial.losses.items() if value}
        losses = "  ".join(f"{name} {words.score(value)}" for name, value in shown.items())
        scores = f"mask mAP {words.score(trial.fitness)}, best {words.score(trial.best)}"
        return Text.assemble((scores, "bold"), printable(f"  {losses}") if losses else "")

    def _speed(self, trial: TrialPace) -> str:
        speed = f"{trial.images_per_second:.0f} images/s · " if trial.images_per_second else ""
        return f"{speed}{self._left() or 'time left: not known yet'}"


def _broken(text: str, columns: int) -> list[str]:
    """A line for the terminal's width, broken between words; a command in it stays one that can be typed."""
    before, named, command = text.partition("type: ")
    if not named or fitting.width(text) <= columns:
        return fitting.wrapped(text, columns, then="  ")
    return [*fitting.wrapped(before + named, columns, then="  "), *words.to_type("", command, columns)]


def _text(line: str, style: str = "") -> Text:
    return Text(printable(line), style=style)


def _bars(trial: TrialPace) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column()
    grid.add_column(width=BAR_COLUMNS)
    grid.add_column()
    epoch = min(trial.position.epoch + 1, trial.epochs)
    grid.add_row("epoch", ProgressBar(total=trial.epochs, completed=trial.epochs_done()), f"{epoch}/{trial.epochs}")
    if trial.batches:
        bar = ProgressBar(total=trial.batches, completed=trial.position.batch)
        grid.add_row("batch", bar, f"{trial.position.batch}/{trial.batches}")
    return grid
