"""``results.csv`` in Ultralytics' own form, rebuilt from the history after a restart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from ultralytics.utils.metrics import Metric

from petskin_tune.datasets.names import told_apart
from petskin_tune.files.atomic import replacing
from petskin_tune.files.results_csv import render
from petskin_tune.protocol import MASK_MAP

MOST_CLASSES = 20  # recorded one by one: the history lies in the study and is written anew after every epoch


def by_class(masks: Metric, names: Mapping[int, str]) -> dict[str, float]:
    """Return mask mAP50-95 of each class that has objects in the validation set; nothing for one class or very many.

    Args:
        masks: What the validator found last.
        names: Of all classes, by their number; a name that two of them have is told apart.
    """
    if not 2 <= len(names) <= MOST_CLASSES:
        return {}
    found = zip(masks.ap_class_index, masks.ap, strict=True)
    apart = dict(zip(names, told_apart(list(names.values())), strict=True))
    return {f"{MASK_MAP}/{apart[int(index)]}": round(float(value), 5) for index, value in found}


def write(path: Path, history: Sequence[Mapping[str, float]], times: Sequence[float]) -> None:
    """Write one row an epoch: number, seconds since training started, metrics (as Ultralytics' ``save_metrics``).

    The columns are those of the newest epoch. The file is replaced as a whole, so that a reader never sees half of it.
    """
    names = list(history[-1]) if history else []
    columns: dict[str, Sequence[float]] = {"epoch": range(1, len(history) + 1), "time": times}
    columns |= {name: [metrics.get(name, math.nan) for metrics in history] for name in names}
    with replacing(path, durable=False, alone=True) as file:
        file.write(render(columns).encode())
