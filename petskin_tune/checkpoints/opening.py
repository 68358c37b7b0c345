"""Which store a URL names, and whether it can be used."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from petskin_tune.checkpoints.base import Store
from petskin_tune.checkpoints.folder import FolderStore
from petskin_tune.errors import UsageError
from petskin_tune.files import temporary
from petskin_tune.files.durable import StoreError
from petskin_tune.files.paths import looks_like_url, resolved, typed

_MISTYPED = re.compile(r"(?i)(s3|gs|gcs|az|file|https?):")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,40}://[^\x00-\x1f\x7f-\x9f]*")


def store_address(url: str) -> str:
    """A store's URL as it may be kept: a folder's absolute path, or ``s3://`` and ``gs://`` without credentials.

    Raises:
        UsageError: the URL carries credentials or a query, or has a scheme that is not known.
    """
    folder = url.removeprefix("file://") if url.startswith("file:///") else url
    if not (_CONTROL.search(folder) or _MISTYPED.match(folder) or looks_like_url(folder)):
        return str(resolved(typed(folder)))
    scheme, _, rest = url.partition("://")
    if not _URL.fullmatch(url) or scheme == "file":
        raise UsageError(
            "The store's URL cannot be read: expected a folder, file:///FOLDER, s3://BUCKET/FOLDER or "
            "gs://BUCKET/FOLDER, without credentials and line ends (a folder that is called like a URL is ./NAME)."
        )
    if scheme not in ("s3", "gs"):
        raise UsageError(f"A store is a folder, s3://BUCKET/FOLDER or gs://BUCKET/FOLDER, not {scheme}://…")
    if "@" in rest.partition("/")[0] or "?" in rest:
        where = (
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_ENDPOINT_URL)"
            if scheme == "s3"
            else "GOOGLE_APPLICATION_CREDENTIALS"
        )
        raise UsageError(f"Leave credentials and options out of the store's URL, which is kept: put them into {where}.")
    if not rest.strip("/"):
        raise UsageError(f"The store's URL names no bucket: {scheme}://BUCKET/FOLDER is needed.")
    return f"{scheme}://{rest.strip('/')}"


def open_store(url: str, *, network: bool | None = None) -> Store:
    """Open the store at ``url``: a folder's path, ``s3://BUCKET/FOLDER`` or ``gs://BUCKET/FOLDER``.

    Opening touches nothing; :func:`check_store` tries whether the store can be used.

    Args:
        url: as :func:`store_address` returns it.
        network: whether a folder is on a network or FUSE disk; None: as this machine's mounts say.

    Raises:
        UsageError: the URL cannot be used, or the package for it is not installed.
    """
    address = store_address(url)
    if "://" in address:
        from petskin_tune.checkpoints.bucket import open_bucket  # only here: a folder needs no fsspec

        return open_bucket(address)
    return FolderStore(Path(address), network=network)


def check_store(store: Store) -> None:
    """Write a few bytes into the store, read them back and delete them.

    Raises:
        UsageError: one of the three failed; says which and why.
    """
    key = f"check-{secrets.token_hex(8)}.txt"
    step = "be written to"
    with temporary.new_folder() as folder:
        local = folder / "sent"
        local.write_text("petskin-tune looks whether this store can be used\n", encoding="utf-8")
        try:
            stored = store.put(local, key)
            step = "be read"
            store.fetch(key, folder / "back", stored.sha256)
            step = "delete files"
            store.delete(key)
        except StoreError as error:
            raise UsageError(f"The store {store.url} cannot {step}: {error}.") from error
