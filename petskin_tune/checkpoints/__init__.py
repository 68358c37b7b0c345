"""Snapshots and weights in a store that outlives this machine: a folder, a mounted Drive, ``s3://`` or ``gs://``.

``store`` opens one, ``keys`` names what lies in it, ``uploader`` brings a trial's snapshots there in the background,
``keeping`` says what stays and finds the newest good snapshot again.
"""

from petskin_tune.checkpoints.keeping import Freed, Holding, Restored, collect_garbage, make_room, newest_good
from petskin_tune.checkpoints.store import Store, Stored, check_store, open_store
from petskin_tune.checkpoints.uploader import Uploader, UploadState
from petskin_tune.durable import Damaged, Full, Missing, StoreError, Unavailable

__all__ = [
    "Damaged",
    "Freed",
    "Full",
    "Holding",
    "Missing",
    "Restored",
    "Store",
    "StoreError",
    "Stored",
    "Unavailable",
    "UploadState",
    "Uploader",
    "check_store",
    "collect_garbage",
    "make_room",
    "newest_good",
    "open_store",
]
