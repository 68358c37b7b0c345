"""The worker's live view on a terminal: bars, losses, scores and the last few lines, redrawn in place.

Events that a person may want to scroll back to (trials, notes) are printed above the view; the epochs of the running
trial appear inside it. There is no drawing thread: the view is redrawn by the calls themselves, so that a frozen
worker looks frozen.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TextIO, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from petskin_tune import text as words
from petskin_tune.printable import printable
from petskin_tune.protocol import Position
from petskin_tune.study.extent import Extent
from petskin_tune.views.progress import Progress, TrialEnd, epoch_line, log, place_of

REDRAW_SECONDS = 0.25
RECENT_LINES = 5
BAR_COLUMNS = 40


@dataclass
class _Trial:
    """What is known of the trial on the screen."""

    number: int
    params: Mapping[str, object]
    epochs: int
    position: Position
    batches: int = 0
    losses: Mapping[str, float] = field(default_factory=dict)
    images_per_second: float = 0.0
    fitness: float | None = None
    best: float | None = None
    durable: str = ""
    began_at: int = 0  # epochs that the study counts as trained since before
    paced_from: tuple[float, float] | None = None  # (clock, epochs done) when the first batch was heard of

    def epochs_done(self) -> float:
        return self.position.epoch + (self.position.batch / self.batches if self.batches else 0.0)

    def seconds_left(self, now: float) -> float | None:
        """What is left at the pace so far, validation included; None before there is a pace."""
        if self.paced_from is None or (gained := self.epochs_done() - self.paced_from[1]) <= 0:
            return None
        return (self.epochs - self.epochs_done()) * (now - self.paced_from[0]) / gained


class LiveProgress(Progress):
    """See the module."""

    def __init__(
        self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic, console: Console | None = None
    ) -> None:
        super().__init__(stream)
        self._clock = clock
        # force_terminal: the stream was found to be one; rich would ask again and may disagree.
        self._console = console or Console(file=cast(TextIO, self._stream), force_terminal=True, highlight=False)
        self._live: Live | None = None
        self._drawn = float("-inf")
        self._study = ""
        self._study_best: float | None = None
        self._extent = Extent(0, None)
        self._pruned = 0
        self._ended: list[float] = []  # seconds of each trial that ended here
        self._trial: _Trial | None = None
        self._recent: deque[str] = deque(maxlen=RECENT_LINES)

    # ---- events -----------------------------------------------------------------------------------------------------

    def _line(self, text: str) -> None:
        with self._lock:
            self._console.print(printable(" ".join(text.split())), markup=False, soft_wrap=True)

    def study(self, name: str, extent: Extent, *, best: float | None, home: str) -> None:
        """See :meth:`Progress.study`."""
        with self._lock:
            self._study, self._extent, self._study_best = name, extent, best
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
    ) -> None:
        """See :meth:`Progress.trial_started`."""
        with self._lock:
            self._extent, self._study_best, self._pruned = extent, best_value, pruned
            begun = resumed_from or Position(0, 0)
            self._trial = _Trial(number, params, epochs, begun, began_at=begun.epoch)
            self._recent.clear()
            super().trial_started(number, extent, params, epochs, best_value, pruned, resumed_from)
            self._start()
            self._draw(at_once=True)

    def batch(self, position: Position, batches: int, losses: Mapping[str, float], images_per_second: float) -> None:
        """See :meth:`Progress.batch`."""
        with self._lock:
            if self._trial is None:
                return
            trial = self._trial
            trial.position, trial.batches = position, batches
            trial.losses, trial.images_per_second = losses or trial.losses, images_per_second
            if trial.paced_from is None:
                trial.paced_from = (self._clock(), trial.epochs_done())
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
    ) -> None:
        """See :meth:`Progress.epoch`."""
        log.info("%s", epoch_line(number, epoch, epochs, fitness, best, durable))
        with self._lock:
            self._study_best = study_best
            self._recent.append(f"epoch {epoch}/{epochs} mask mAP {words.score(fitness)} (best {words.score(best)})")
            if self._trial is not None:
                self._trial.position = Position(epoch, 0)
                self._trial.fitness, self._trial.best, self._trial.durable = fitness, best, durable
            self._draw(at_once=True)

    def trial_ended(self, number: int, state: TrialEnd, value: float | None, seconds: float, reason: str = "") -> None:
        """See :meth:`Progress.trial_ended`."""
        with self._lock:
            self._trial = None
            self._pruned += state == "pruned"
            if state in ("complete", "pruned", "failed"):
                self._ended.append(seconds)
            self._stop()
            super().trial_ended(number, state, value, seconds, reason)

    def close(self) -> None:
        """See :meth:`Progress.close`."""
        with self._lock:
            self._stop()

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
        self._live.update(self._picture(now), refresh=True)

    def _picture(self, now: float) -> RenderableType:
        rows: list[RenderableType] = [Text("")]
        if self._trial is not None:
            rows += [self._headline(self._trial), _text(words.parameters(self._trial.params), "dim")]
            rows += [_bars(self._trial), self._scores(self._trial), _text(self._time_left(self._trial, now))]
            if self._trial.durable:
                rows.append(_text(self._trial.durable, "green" if "safe to" in self._trial.durable else "yellow"))
        rows += [_text(line, "dim") for line in self._recent]
        return Group(*rows)

    def _headline(self, trial: _Trial) -> Text:
        count = f", {place}" if (place := place_of(trial.number, self._extent)) else ""
        rest = f" · study best {words.score(self._study_best)} · {self._pruned} pruned"
        title = f"{self._study} · trial {trial.number}{count}".lstrip(" ·")
        return Text.assemble((printable(title), "bold"), rest)

    def _scores(self, trial: _Trial) -> Text:
        losses = "  ".join(f"{name.removeprefix('train/')} {value:.3f}" for name, value in trial.losses.items())
        scores = f"mask mAP {words.score(trial.fitness)}, best {words.score(trial.best)}"
        return Text.assemble((scores, "bold"), printable(f"  {losses}") if losses else "")

    def _time_left(self, trial: _Trial, now: float) -> str:
        left = trial.seconds_left(now)
        speed = f"{trial.images_per_second:.0f} images/s · " if trial.images_per_second else ""
        if left is None:
            return f"{speed}time left: not known yet"
        text = f"{speed}{words.duration(left)} left in this trial"
        study = self._study_left(trial, left)
        return text if study is None else f"{text}, {words.duration(study)} in the study at this worker's pace alone"

    def _study_left(self, trial: _Trial, left: float) -> float | None:
        """Seconds that the study takes this worker alone, of which its trial takes ``left``; None: not known yet."""
        if self._extent.of is None:
            return None
        if self._extent.unit == "epoch":
            epochs = trial.epochs - trial.epochs_done()
            trained = trial.epochs_done() - trial.began_at
            return max(0.0, self._extent.left - trained) * left / epochs if epochs > 0 else None
        if not self._ended:
            return None
        others = max(0, self._extent.of - trial.number - 1)
        return left + others * sum(self._ended) / len(self._ended)


def _text(line: str, style: str = "") -> Text:
    return Text(printable(line), style=style)


def _bars(trial: _Trial) -> Table:
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
