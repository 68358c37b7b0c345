"""Weights as files: those that Ultralytics publishes, fetched once into the home, and what can be no weights at all."""

from __future__ import annotations

import contextlib
import errno
import urllib.request
import zipfile
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError

from petskin_tune import variables
from petskin_tune.errors import UsageError
from petskin_tune.files.atomic import replacing
from petskin_tune.retries import retrying
from petskin_tune.study.study_file.published import PUBLISHED

RELEASE = "https://github.com/ultralytics/assets/releases/download/v8.4.0"  # ultralytics.utils.downloads
TIMEOUT_SECONDS = 20.0
BLOCK = 1 << 20


def require_weights(path: Path) -> None:
    """Refuse a file that torch cannot load, without torch.

    Raises:
        UsageError: it is no weights file, cut short, or cannot be read.
    """
    try:
        loadable = zipfile.is_zipfile(path)
        path.open("rb").close()  # is_zipfile says no of what cannot be read, too
    except OSError as error:
        raise UsageError(f"The model {path} cannot be read: {error.strerror}.") from error
    if not loadable:
        raise UsageError(f"The model {path} holds no weights that torch.save wrote, or not all of them: get it anew.")


def fetch_weights(name: str, folder: Path) -> Path:
    """The path of the published weights ``name`` in ``folder``, downloaded where they are missing.

    Raises:
        UsageError: they are not there and nobody publishes them, or they cannot be fetched whole; nothing is left of a
            part.
    """
    target = folder / name
    if target.is_file():
        return target
    if name not in PUBLISHED:
        raise UsageError(f"Ultralytics publishes no weights {name}: give the path of your own as `model`.")
    try:
        retrying(variables.seconds(variables.PATIENCE, 0.0), _may_pass)(_download, name, target)
    except (OSError, HTTPException) as error:  # URLError is an OSError
        reason = getattr(error, "reason", None) or error
        raise UsageError(
            f"The weights {name} are not here and cannot be fetched ({reason}): put the file into {folder}, "
            "or give its path as `model`."
        ) from error
    return target


def _download(name: str, target: Path) -> None:
    with (
        urllib.request.urlopen(f"{RELEASE}/{name}", timeout=TIMEOUT_SECONDS) as answer,
        _in_its_folder(target) as file,
    ):
        _receive(answer, file)
        if not zipfile.is_zipfile(file.name):
            raise OSError("what came are no weights")


def _may_pass(error: BaseException) -> bool:
    """Whether another try may bring what this one did not: not where there is no such file, or this disk refuses."""
    if isinstance(error, HTTPError):
        return error.code >= 500 or error.code == 429
    of_this_disk = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)
    return isinstance(error, (OSError, HTTPException)) and not of_this_disk


@contextlib.contextmanager
def _in_its_folder(target: Path) -> Iterator[BinaryIO]:
    """What becomes ``target`` once it is whole; a folder made for it does not outlive a failure."""
    is_new = not target.parent.exists()
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(target) as file:
            yield file
    except BaseException:
        with contextlib.suppress(OSError):
            if is_new:
                target.parent.rmdir()
        raise


def _receive(answer: HTTPResponse, file: BinaryIO) -> None:
    """Write all of the answer, whose ``read(BLOCK)`` says nothing when the connection ends early."""
    received = 0
    while block := answer.read(BLOCK):
        received += file.write(block)
    file.flush()
    expected = answer.headers["Content-Length"]
    if expected is not None and expected.strip() != str(received):
        raise OSError(f"{received} of {expected} bytes came")
