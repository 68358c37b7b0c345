"""``results.csv`` in Ultralytics' own form, rebuilt from the history after a restart."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path


def write(path: Path, history: Sequence[Mapping[str, float]], times: Sequence[float]) -> None:
    """Write one row an epoch: number, seconds since training started, metrics (as Ultralytics' ``save_metrics``).

    The file is replaced as a whole, so that a reader never sees half of it.
    """
    lines: list[str] = []
    for epoch, (metrics, seconds) in enumerate(zip(history, times, strict=True), start=1):
        if not lines:
            lines.append(",".join(["epoch", "time", *metrics]))
        lines.append(",".join(f"{value:.6g}" for value in (epoch, seconds, *metrics.values())))
    temporary = path.with_suffix(".csv.tmp")
    temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    os.replace(temporary, path)
