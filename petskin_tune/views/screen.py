"""Which view of a worker's progress suits where its output goes."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from petskin_tune.views.progress import Progress
from petskin_tune.views.stream import unfiltered

# Jupyter and Colab give `!command` a pseudo-terminal whose escape codes a cell cannot show.
NOTEBOOK_VARIABLES = ("JPY_PARENT_PID", "COLAB_RELEASE_TAG", "COLAB_JUPYTER_IP", "KAGGLE_KERNEL_RUN_TYPE")


def open_progress(stream: TextIO | None = None, *, plain: bool = False) -> Progress:
    """The view that suits ``stream`` (default: standard output): live on a terminal, else plain lines.

    Args:
        stream: where to.
        plain: lines in any case: something else is printed beside them.
    """
    stream = stream or sys.stdout
    if not plain and _shows_live(stream):
        from petskin_tune.views.live import LiveProgress

        return LiveProgress(unfiltered(stream))
    return Progress(stream)


def in_notebook() -> bool:
    """Whether what this process prints ends in a notebook's cell."""
    return "ipykernel" in sys.modules or any(name in os.environ for name in NOTEBOOK_VARIABLES)


def _shows_live(stream: TextIO) -> bool:
    try:
        terminal = stream.isatty()
    except (OSError, ValueError):
        return False
    return terminal and os.environ.get("TERM") not in (None, "", "dumb") and not in_notebook()
