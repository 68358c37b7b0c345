"""``petskin-tune report``: one HTML file that shows a study, to keep or to send; it loads nothing from anywhere.

``rows.py`` reads the study once. Each other module makes sections of the page from those rows; ``page.py`` puts them
together. Colours and measures of all plots stand in ``style.py`` and ``page.css``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from petskin_tune.files import regular
from petskin_tune.files.paths import writing
from petskin_tune.views.report.page import render

if TYPE_CHECKING:
    from optuna.study import Study

    from petskin_tune.leases.lease import Lease

__all__ = ["render", "write"]


def write(
    study: Study, dest: Path, leases: Sequence[Lease] = (), *, options: str = "", artifacts: Path | None = None
) -> None:
    """Write the report of ``study`` to ``dest``, plots and their library included (about 5 MB).

    Args:
        study: of Optuna, ours or anybody's.
        dest: a file.
        leases: of the study.
        options: what a person must type beside ``--study NAME`` to mean this study, such as ``--home DIR``.
        artifacts: the folder of the study's Optuna artifacts; None: it has none.

    Raises:
        UsageError: ``dest`` cannot be written.
    """
    with writing(dest):
        regular.write_text(dest, render(study, time.time(), leases, options=options, artifacts=artifacts))
