"""Which folder is the home where none was named: ``tune-home``, or ``runs``, which was the default before.

Ultralytics writes its own results to ``runs``, and people delete that folder. A home that already lies there stays in
use.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

DATABASE = "tune.db"
WORK = "work"
COPIES = "database"  # where the home is on a network disk: a folder of copies of it
DEFAULT = "tune-home"
OLDER = "runs"


def default_home() -> str:
    """The name of the home where none was named, in the current folder."""
    for names in ((DATABASE, COPIES), (WORK,)):  # with a database elsewhere, a worker's epochs may wait in the home
        for home in (DEFAULT, OLDER):
            if _holds(home, *names):
                return home
    return DEFAULT


def overlooked(home: str | None, storage: str | None, environ: Mapping[str, str]) -> str | None:
    """One line for a person whose studies lie in both folders; None: nothing is overlooked.

    Args:
        home: what was typed as ``--home``.
        storage: what was typed as ``--storage``.
        environ: may name both.
    """
    if home or storage or environ.get("TUNE_HOME") or environ.get("TUNE_STORAGE"):
        return None
    if not all(_holds(folder, DATABASE, COPIES) for folder in (DEFAULT, OLDER)):
        return None
    return f"note: {DEFAULT} is used, and studies also lie in {OLDER}; to use those, add: --home {OLDER}"


def _holds(folder: str, *names: str) -> bool:
    """Whether the folder has one of these; a folder that this user may not enter is somebody else's."""
    return any(os.path.exists(os.path.join(folder, name)) for name in names)
