"""``petskin-tune report``: one HTML file that shows a study, to keep or to send; it loads nothing from anywhere.

``rows.py`` reads the study once. Each other module makes sections of the page from those rows; ``page.py`` puts them
together. Colours and measures of all plots stand in ``style.py`` and ``page.css``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from petskin_tune.database.garbage import rarely_collected
from petskin_tune.files import regular
from petskin_tune.files.atomic import replacing
from petskin_tune.files.paths import writing
from petskin_tune.views.report.page import Page, render
from petskin_tune.views.report.pictures import Gallery

if TYPE_CHECKING:
    from optuna.study import Study

    from petskin_tune.leases.lease import Lease

__all__ = ["Gallery", "Page", "render", "write"]


def write(
    study: Study,
    dest: Path,
    leases: Sequence[Lease] = (),
    *,
    options: str = "",
    artifacts: Path | None = None,
    galleries: Callable[[], Sequence[Gallery]] | None = None,
) -> None:
    """Write the report of ``study`` to ``dest``, plots and their library included (about 5 MB).

    Args:
        study: of Optuna, ours or anybody's.
        dest: a file.
        leases: of the study.
        options: what a person must type beside ``--study NAME`` to mean this study, such as ``--home DIR``.
        artifacts: the folder of a person's Optuna artifacts; None: there is none.
        galleries: the pictures of trials, which may take a while: it is called once the report is there without them,
            and with what it gives the report takes its own place; None: without.

    Raises:
        UsageError: ``dest`` cannot be written.
    """
    with writing(dest), rarely_collected():
        page = Page(study, time.time(), leases, options=options, artifacts=artifacts)
        is_twice = galleries is not None and _can_be_replaced(dest)
        if is_twice or galleries is None:
            regular.write_text(dest, page.html())
        if galleries is None:
            return
    found = galleries()
    with writing(dest):
        if not is_twice:
            regular.write_text(dest, page.html(found))
        elif found:
            _replace(dest, page.html(found))


def _can_be_replaced(dest: Path) -> bool:
    """Whether it is, or becomes, a file: what a shell's ``>(…)`` is can be written once."""
    return dest.is_file() or not dest.exists()


def _replace(dest: Path, html: str) -> None:
    """A reader, or an end at any instant, sees the old page or the new one; a link still leads to it."""
    with replacing(Path(os.path.realpath(dest)), durable=False) as file:
        file.write(html.encode())
