"""The life of the process that makes a trial's pictures: as a trial's own, see ``process.child``."""

from __future__ import annotations

import traceback
from multiprocessing.connection import Connection

from petskin_tune import error_text, faults
from petskin_tune.protocol import Failed, PicturesJob, PicturesMade
from petskin_tune.training.process.child import live


def main(connection: Connection, job: PicturesJob) -> None:
    """Make the pictures; the last event sent says that they are made, or why not.

    Args:
        connection: The duplex pipe to the worker.
        job: What to make.
    """
    live(connection, job.run_folder, lambda _: _make(job))


def _make(job: PicturesJob) -> PicturesMade | Failed:
    try:
        faults.reach("pictures-begun")
        from petskin_tune.training.pictures.making import make

        made = make(job)
        faults.reach("pictures-made")
        return made
    except Exception as error:  # noqa: BLE001  the worker hears of it, and goes on without
        traceback.print_exc()
        return Failed("crashed", error_text.named(error), error_text.masked(traceback.format_exc()))
