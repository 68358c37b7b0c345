"""How good the weights are that a search hands over, on real training: ours beside its peers, for the same epochs.

    python benchmarks/real.py --data DIR --weights yolov8n-seg.pt --plot real.html   # 3 seeds x 3 searches x 72 epochs
    python benchmarks/real.py --data DIR --weights yolov8n-seg.pt --smoke            # whether it works: minutes

The data set's images, of all its splits, are dealt anew, class by class: half of them for training, a fifth for
validation, and 30 % for a test that no search sees. They are copied; nothing is written beside the originals. All
searches start from the same weights and the same point, Ultralytics' defaults with its ``optimizer: auto`` (AdamW, and
a learning rate made of the number of classes), and search the same eight parameters in Ultralytics' own ranges. Ours
searches the learning rate on a log scale, which ``model.tune()`` cannot.

`freeze-thaw`  ours by default, with a budget of so many full runs; the last run, of what it recommends, comes on top
`tpe-median`   ours with Optuna's TPE and the median pruner, both with their defaults
`ultralytics`  stock ``model.tune()``, full runs

What the last run of `freeze-thaw` comes to, its peers get too, rounded up to whole trials: no peer pays fewer epochs.

Printed for each method: the mask mAP50-95 on the test images of the weights that the user gets, by stock ``val()``;
the best mask mAP50-95 on the validation images that had been reported after a quarter, half and all of the budget
(whatever would be handed over then: ours reports every epoch; of Ultralytics' trial only the epoch of its `best.pt` is
kept, and counts once the trial has ended); epochs paid; seconds of processor time, of all processes. Every search is
kept in the results file as it ends, and the same command goes on where it was killed; what a killed search took is not
known. The searches' own folders lie beside that file.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from real_searches import METHODS, Found, Task, search

from petskin_tune.datasets import layout, source
from petskin_tune.datasets.labels.rows import classes_in, label_path
from petskin_tune.errors import UsageError

DEAL = ("train", "test", "train", "val", "train", "test", "train", "val", "train", "test")
SHARES = (0.25, 0.5, 1.0)  # of the budget
SMOKE = {"seeds": 1, "runs": 2, "epochs": 3, "images": 24}
COLOURS = {"freeze-thaw": "#1b6ca8", "tpe-median": "#d9822b", "ultralytics": "#6b6b6b"}
Results = dict[str, dict[str, Any]]  # by "METHOD:SEED"


def main() -> None:
    options = _options()
    try:
        kept = Kept.of(options)
        task = prepare(options, kept.place)
    except UsageError as refusal:
        print(refusal, file=sys.stderr)
        raise SystemExit(2) from None
    results = run(kept, task, options.seeds)
    print_table(results, task)
    if options.plot:
        plot(results, task, options.plot)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a segmentation data set: its YAML, or the folder that holds it")
    parser.add_argument("--weights", type=Path, required=True, help="what every trial starts from")
    parser.add_argument("--imgsz", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=9, help="of a full run")
    parser.add_argument("--runs", type=int, default=8, help="full runs' worth of epochs that a search may use")
    parser.add_argument("--seeds", type=int, default=3, help="searches of each method")
    parser.add_argument("--results", type=Path, help="kept and gone on with: real-results.json, or real-smoke.json")
    parser.add_argument("--plot", type=Path, help="an HTML file: best validation so far over the epochs paid")
    parser.add_argument("--smoke", action="store_true", help=f"only whether it works: {SMOKE}")
    options = parser.parse_args()
    options.images = None
    if options.smoke:
        vars(options).update(SMOKE)
    options.results = options.results or Path("real-smoke.json" if options.smoke else "real-results.json")
    if not options.weights.is_file():
        parser.error(f"there are no weights {options.weights}")
    if options.plot and options.plot.suffix != ".html":
        parser.error("--plot writes an .html file")
    return options


# ---- data ---------------------------------------------------------------------------------------------------------


def prepare(options: argparse.Namespace, place: Path) -> Task:
    """Copy the weights and the images, dealt into train, val and test, into ``place``, once."""
    data, weights = place / "data" / "data.yaml", place / options.weights.name
    place.mkdir(parents=True, exist_ok=True)
    if not data.exists():
        shutil.copyfile(options.weights, weights)
        found = source.prepare(options.data, base=Path.cwd(), cache=place / "cache")
        deal(layout.read(found), data, options.images)
    return Task(data, weights, options.imgsz, options.epochs, options.runs)


def deal(data_set: layout.DataSet, target: Path, most: int | None) -> None:
    """Deal the images of all splits anew, the classes in proportion; at most ``most`` of them."""
    images = sorted({image for split in data_set.images.values() for image in split})
    random.Random(0).shuffle(images)
    images = sorted(images[:most], key=lambda image: sorted(classes_in(label_path(image))))
    for number, image in enumerate(images):
        split, label = DEAL[number % len(DEAL)], label_path(image)
        for kind, file in (("images", image), ("labels", label)):
            if file.exists():  # a photograph of nothing may have no label
                copy = target.parent / kind / split / f"{number:06d}{file.suffix}"
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
    splits = {split: f"images/{split}" for split in dict.fromkeys(DEAL)}
    content = {"path": str(target.parent), **splits, "names": dict(enumerate(data_set.names))}
    target.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


# ---- all searches -------------------------------------------------------------------------------------------------


@dataclass
class Kept:
    """The results file: for each search, METHOD:SEED, what was found; and what all of them have in common."""

    file: Path
    settings: dict[str, Any]
    results: Results

    @classmethod
    def of(cls, options: argparse.Namespace) -> Kept:
        """The file that a person named, begun if it is not there.

        Raises:
            UsageError: it is of other settings.
        """
        asked = ("data", "images", "imgsz", "epochs", "runs")
        settings = {name: getattr(options, name) for name in asked} | {"weights": options.weights.name}
        if not options.results.exists():
            kept = cls(options.results, settings, {})
            kept.write()
            return kept
        kept = cls(options.results, **json.loads(options.results.read_text(encoding="utf-8")))
        if kept.settings != settings:
            raise UsageError(f"{kept.file} is of other settings, {kept.settings}: name another file with --results.")
        return kept

    @property
    def place(self) -> Path:
        """The folder for data and searches."""
        return self.file.absolute().with_suffix("")

    def write(self) -> None:
        partial = self.file.with_suffix(".partial")
        text = json.dumps({"settings": self.settings, "results": self.results}, indent=1)
        partial.write_text(text, encoding="utf-8")
        partial.replace(self.file)


def run(kept: Kept, task: Task, seeds: int) -> Results:
    """The results of all searches, seed by seed, kept one by one."""
    for seed in range(seeds):
        allowed = task.budget
        for method in METHODS:  # ours first: it says what its peers may pay
            key = f"{method}:{seed}"
            if key not in kept.results:
                kept.results[key] = search(method, task, kept.place / f"{method}-{seed}", seed, allowed)
                kept.write()
                _say(key, Found(**kept.results[key]))
            if method == "freeze-thaw":
                allowed = max(allowed, kept.results[key]["epochs"])
    return kept.results


def _say(key: str, found: Found) -> None:
    took = f"{found.wall:.0f} s" if found.wall else "killed on its way"
    each = f" ({found.wall / found.epochs:.2f} s an epoch)" if found.wall and found.epochs else ""
    print(
        f"{key}: {found.trials} trials, {found.epochs} epochs, {took}{each}, "
        f"best validation {_score(found.best_after(found.epochs))}, test {_score(found.test)}",
        flush=True,
    )


# ---- what came out ------------------------------------------------------------------------------------------------


def print_table(results: Results, task: Task) -> None:
    heads = ["method", "seeds", "test mask mAP50-95 of the weights handed over: mean (each seed)"]
    heads += [f"best validation after {share:.0%}" for share in SHARES] + ["epochs paid", "CPU seconds"]
    print(f"\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for method in METHODS:
        found = [Found(**stored) for key, stored in results.items() if key.split(":")[0] == method]
        if not found:
            continue
        tests = ", ".join(_score(one.test) for one in found)
        cells = [method, len(found), f"{_mean([one.test for one in found])} ({tests})"]
        cells += [_mean([one.best_after(share * task.budget) for one in found]) for share in SHARES]
        cells += [_mean([one.epochs for one in found], 0), _mean([one.cpu for one in found], 0)]
        print(f"| {' | '.join(map(str, cells))} |")


def _mean(values: list[Any], digits: int = 3) -> str:
    """Of what is known."""
    known = [value for value in values if value is not None]
    return f"{statistics.fmean(known):.{digits}f}" if known else "-"


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def plot(results: Results, task: Task, file: Path) -> None:
    """Best validation mask mAP50-95 so far over epochs paid, a line for each method and seed."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for key, stored in results.items():
        (method, seed), found = key.split(":"), Found(**stored)
        paid = [epochs for epochs, _ in found.curve]
        best = [found.best_after(epochs) for epochs in paid]
        line = {"shape": "hv", "color": COLOURS[method]}
        name = f"{method}, seed {seed}"
        figure.add_scatter(x=paid, y=best, mode="lines", line=line, name=name, legendgroup=method)
    figure.add_vline(x=task.budget, line_dash="dot")
    figure.update_layout(xaxis_title="epochs paid", yaxis_title="best mask mAP50-95 on the validation images so far")
    figure.write_html(file, include_plotlyjs=True)


if __name__ == "__main__":
    began = time.monotonic()
    main()
    print(f"({time.monotonic() - began:.0f} s in all)")
