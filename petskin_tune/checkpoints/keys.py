"""What lies where in a store::

    <study uid>/trial-000007/snapshot-<token>-<epoch>-<batch>-<random>.pt
    <study uid>/trial-000007/best-<epoch>-<start of its SHA-256>.pt
    <study uid>/trial-000007/results.csv
    <study uid>/trial-000007/pictures-<start of its SHA-256>.zip

A snapshot's key is new for each upload, and carries the token of the lease it was made under: two owners, or two
attempts, never write the same file. Weights and pictures say what they must hash to, so that their key is enough to
check them.
"""

from __future__ import annotations

import re
import secrets
from pathlib import PurePosixPath

from petskin_tune.protocol import Position

_OF_A_TRIAL = re.compile(r"[^/]+/trial-\d{6,}/.+")
_NUMBER = re.compile(r"[^/]+/trial-(\d{6,9})/[^/]+")
_WEIGHTS = re.compile(r"best-(\d+)-([0-9a-f]{16})\.pt")
_PICTURES = re.compile(r"pictures-([0-9a-f]{16})\.zip")
_SNAPSHOT = re.compile(r"snapshot-(\d+)-(\d+)-(\d+)-[0-9a-f]+\.pt")


def trial_prefix(study_uid: str, number: int) -> str:
    """The folder of a trial in the store."""
    return f"{study_uid}/trial-{number:06d}"


def snapshot_key(prefix: str, token: int, position: Position) -> str:
    """A new key for an upload of the snapshot taken at ``position`` under the lease ``token``."""
    return f"{prefix}/snapshot-{token}-{position.epoch}-{position.batch}-{secrets.token_hex(4)}.pt"


def weights_key(prefix: str, epoch: int, sha256: str) -> str:
    """The key of the best weights, found in ``epoch`` (1-based)."""
    return f"{prefix}/best-{epoch}-{sha256[:16]}.pt"


def results_key(prefix: str) -> str:
    """The key of a finished trial's curves."""
    return f"{prefix}/results.csv"


def pictures_key(prefix: str, sha256: str) -> str:
    """The key of the pictures of what a trial's best weights do."""
    return f"{prefix}/pictures-{sha256[:16]}.zip"


def is_pictures(key: str) -> bool:
    """Whether a key is one of pictures."""
    return _PICTURES.fullmatch(PurePosixPath(key).name) is not None


def snapshot_position(key: str) -> Position | None:
    """Where training stood when the snapshot of this key was taken; None: not a snapshot's key."""
    found = _SNAPSHOT.fullmatch(PurePosixPath(key).name)
    return Position(int(found[2]), int(found[3])) if found else None


def digest_in(key: str) -> str | None:
    """The start of the SHA-256 that a key of weights or of pictures promises; None: the key promises nothing."""
    name = PurePosixPath(key).name
    if found := _PICTURES.fullmatch(name):
        return found[1]
    found = _WEIGHTS.fullmatch(name)
    return found[2] if found else None


def trial_number(key: str) -> int | None:
    """The number of the trial in whose folder a file lies; None: it lies in none."""
    found = _NUMBER.fullmatch(key)
    return int(found[1]) if found else None


def is_of_a_trial(key: str) -> bool:
    """Whether a file lies in the folder of a trial, where everything is the study's."""
    return _OF_A_TRIAL.fullmatch(key) is not None
