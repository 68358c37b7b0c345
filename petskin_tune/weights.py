"""Pretrained weights that Ultralytics publishes, fetched once into the home."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from pathlib import Path

from petskin_tune.errors import UsageError

RELEASE = "https://github.com/ultralytics/assets/releases/download/v8.4.0"  # ultralytics.utils.downloads
TIMEOUT_SECONDS = 20.0
BLOCK = 1 << 20


def fetch_weights(name: str, folder: Path) -> Path:
    """The path of the published weights ``name`` in ``folder``, downloaded where they are missing.

    Raises:
        UsageError: they are not there and cannot be fetched.
    """
    target = folder / name
    if target.is_file():
        return target
    url = f"{RELEASE}/{name}"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:
            folder.mkdir(parents=True, exist_ok=True)
            partial = folder / f".{name}.{os.getpid()}"
            with open(partial, "wb") as file:
                while block := answer.read(BLOCK):
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
            partial.rename(target)
    except (OSError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", None) or error
        raise UsageError(
            f"The weights {name} are not here and cannot be fetched ({reason}): put the file into {folder}, "
            "or give its path as `model`."
        ) from error
    return target
