"""What the demo's search finds, beside its hand-set start point: the same two settings trained under further seeds.

    python benchmarks/demo.py                        # three searches, 3 repetitions each: 25 minutes on one core
    python benchmarks/demo.py --seeds 5 --repeats 5

For every seed of the search: seconds, trials, how many of them were frozen at the end and thawed on the way, the best
mask mAP50-95 that the search saw, and the means of the found settings and of the start point over the repetitions; then
the gain over all of them with its 95 % interval (Welch's).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import optuna
import yaml

from petskin_tune.study import attributes
from petskin_tune.study.best.gain import welch
from petskin_tune.study.best.ranking import best
from petskin_tune.study.study_file.file import shipped_folder

FIRST_REPETITION = 1000  # seeds of repetitions are no seeds of searches


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=3, help="searches, with seeds 0, 1, …")
    options.add_argument("--repeats", type=int, default=3, help="trainings of either settings after each search")
    chosen = options.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print("| seed | seconds | trials | frozen | thawed | best seen | found, mean | start point, mean |\n|" + "---|" * 8)
    found: list[float] = []
    by_hand: list[float] = []
    for seed in range(chosen.seeds):
        with tempfile.TemporaryDirectory(prefix="tune-demo-") as place:
            line, found_here, by_hand_here = _searched(Path(place), seed, chosen.repeats)
        print(
            f"| {seed} | {line} | {statistics.mean(found_here):.3f} | {statistics.mean(by_hand_here):.3f} |", flush=True
        )
        found += found_here
        by_hand += by_hand_here
    interval = welch(found, by_hand)
    print(f"\ngain {interval.difference:.3f} (95% interval {interval.low:.3f} to {interval.high:.3f})")


def _searched(place: Path, seed: int, repeats: int) -> tuple[str, list[float], list[float]]:
    """One search: its line of the table, and the mask mAP of the found settings and of the start point, repeated."""
    demo = yaml.safe_load((shipped_folder() / "demo.yaml").read_text(encoding="utf-8"))
    by_hand = demo["start"][0]
    began = time.monotonic()
    study = _study(place, {**demo, "seed": seed})
    seconds = time.monotonic() - began
    first = best(study.trials, study.user_attrs)
    if first is None:
        raise RuntimeError("the search has no best trial")
    frozen = sum(trial.state.name == "PRUNED" for trial in study.trials)
    thawed = sum(trial.user_attrs[attributes.RESUMES] > 0 for trial in study.trials)
    pairs = [_repeated(place, demo, [first.params, by_hand], FIRST_REPETITION + n) for n in range(repeats)]
    line = f"{seconds:.0f} | {len(study.trials)} | {frozen} | {thawed} | {first.value:.3f}"
    return line, [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _repeated(place: Path, demo: dict[str, Any], settings: list[dict[str, Any]], seed: int) -> list[float]:
    """The mask mAP50-95 of every one of ``settings``, trained in full under ``seed``."""
    left_out = ("sampler", "budget")
    content = {key: value for key, value in demo.items() if key not in left_out}
    changed = {"study": f"again-{seed}", "seed": seed, "start": settings, "target_trials": len(settings)}
    study = _study(place, {**content, **changed, "sampler": "random", "pruner": "none"})
    return [trial.value for trial in study.trials]


def _study(place: Path, content: dict[str, Any]) -> optuna.Study:
    file = place / f"{content['study']}.yaml"
    models = shipped_folder() / "models"
    file.write_text(yaml.safe_dump({**content, "model": str(models / content["model"])}), encoding="utf-8")
    worker = [Path(sys.executable).with_name("tune-worker"), "--study", file, "--home", place / "home"]
    done = subprocess.run(worker, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout)
    return optuna.load_study(study_name=content["study"], storage=f"sqlite:///{place / 'home' / 'tune.db'}")


if __name__ == "__main__":
    main()
