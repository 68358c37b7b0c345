"""What simulated searches say: a table, and a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

SHOWN = (5, 10, 20)  # full runs after which the regret is printed
SAMPLES = 2000  # of the bootstrap
Key = tuple[str, str, str, int, int]  # mode, method, task, workers, seed
Results = dict[Key, dict[str, Any]]


def print_table(results: Results, methods: Sequence[str], runs: int) -> None:
    """One row a method, of the searches of one mode and one number of workers."""
    mode, _, _, workers, _ = next(iter(results))
    print(f"\n{mode}, {workers} worker{'s' if workers > 1 else ''}\n")
    heads = [*(f"{shown} runs" for shown in _shown(runs)), "runs to Ultralytics' end", "segments, thaws", "s a choice"]
    print(f"| method | n | {' | '.join(heads)} |")
    print(f"|{'---|' * (len(heads) + 2)}")
    ultralytics = [key for key in results if key[1] == "ultralytics"]
    target = _regrets(results, ultralytics, runs)[:, -1].mean() if ultralytics else None
    for method in methods:
        keys = [key for key in results if key[1] == method]
        regrets = _regrets(results, keys, runs)
        rows = [results[key] for key in keys]
        count, thaws, seconds = (np.mean([row[name] for row in rows]) for name in ("segments", "thaws", "seconds"))
        tasks = [key[2] for key in keys]
        cells = [*(_cell(regrets[:, shown - 1], tasks) for shown in _shown(runs)), _reached(regrets, target)]
        cells += [f"{count:.0f}, {thaws:.0f}", f"{seconds:.3f}"]
        print(f"| {method} | {len(regrets)} | {' | '.join(cells)} |")
    print("\nMean [95 % over (task, seed); 95 % over tasks], regrets above 2 counted as 2.")


def plot(results: Results, methods: Sequence[str], runs: int, file: Path) -> None:
    """Mean regret over full runs' worth of epochs: a plot for each number of workers, a line for each method."""
    import plotly.express
    from plotly.subplots import make_subplots

    counts = sorted({key[3] for key in results})
    titles = [f"{count} worker{'s' if count > 1 else ''}" for count in counts]
    figure = make_subplots(1, len(counts), shared_yaxes=True, subplot_titles=titles)
    colours = plotly.express.colors.qualitative.Dark24
    for column, count in enumerate(counts, 1):
        for method, colour in zip(methods, colours, strict=False):
            keys = [key for key in results if key[1] == method and key[3] == count]
            means = _regrets(results, keys, runs).mean(axis=0)
            line = {"color": colour, "width": 4 if method == "freeze-thaw" else 2}
            more = {"name": method, "legendgroup": method, "showlegend": column == 1}
            figure.add_scatter(x=np.arange(1, runs + 1), y=means, mode="lines", line=line, row=1, col=column, **more)
    figure.update_xaxes(title="full runs' worth of epochs")
    figure.update_yaxes(title="mean normalised regret", col=1)
    figure.write_html(file, include_plotlyjs=True)


def figures(found: dict[str, Any], runs: int) -> list[str]:
    """One search's regret after each of ``SHOWN``."""
    return [f"{found['regrets'][shown - 1]:.3f}" for shown in _shown(runs)]


def _shown(runs: int) -> list[int]:
    return [shown for shown in SHOWN if shown <= runs]


def _regrets(results: Results, keys: Sequence[Key], runs: int) -> np.ndarray:
    """(searches, runs), the worst ones cut off: a recommendation that diverges later may lie 1e18 below the best."""
    return np.minimum([results[key]["regrets"][:runs] for key in keys], 2.0)


def _cell(values: np.ndarray, tasks: Sequence[str]) -> str:
    """Mean, and its bootstrap intervals of 95 %: drawn are searches; and whole tasks, the stricter one."""
    names = np.unique(tasks)
    by_task = [values[np.array(tasks) == name] for name in names]
    rng = np.random.default_rng(0)
    searches = rng.choice(values, (SAMPLES, len(values))).mean(axis=1)
    drawn = rng.integers(len(names), size=(SAMPLES, len(names)))
    sums, counts = np.array([part.sum() for part in by_task]), np.array([len(part) for part in by_task])
    whole = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    spans = (f"{low:.3f}, {high:.3f}" for low, high in (np.quantile(of, [0.025, 0.975]) for of in (searches, whole)))
    return f"{values.mean():.3f} [{'; '.join(spans)}]"


def _reached(regrets: np.ndarray, target: float | None) -> str:
    """The number of runs after which the mean regret is at most ``target``."""
    if target is None:
        return ""
    below = np.flatnonzero(regrets.mean(axis=0) <= target + 1e-9)  # its own mean, summed otherwise
    return f"{below[0] + 1}" if len(below) else "never"
