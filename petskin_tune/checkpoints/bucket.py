"""A store in a bucket (``s3://``, ``gs://``) through fsspec's s3fs and gcsfs.

An upload is verified without paying for a download where the service says what it holds: S3's ETag is the MD5 of a
small object, or the MD5 of the MD5s of the parts of a large one; Google Cloud Storage gives the MD5. Where it does not
(encryption with a customer's key, other services) the object is read back.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from petskin_tune.checkpoints.base import Entry, Store, Stored
from petskin_tune.errors import UsageError
from petskin_tune.faults import reach
from petskin_tune.files.atomic import replacing
from petskin_tune.files.durable import BLOCK, Damaged, Full, Missing, Unavailable

PART = 16 << 20  # bytes of one part of a large upload to S3, of which ten are sent at a time
QUOTA_WORDS = ("QuotaExceeded", "StorageFull", "storage quota", "InsufficientStorage")


def open_bucket(url: str) -> BucketStore:
    """Open ``s3://BUCKET/FOLDER`` or ``gs://BUCKET/FOLDER`` with the credentials that the environment gives.

    Raises:
        UsageError: the package for this kind of bucket is not installed.
    """
    scheme = url.partition("://")[0]
    package = {"s3": "s3fs", "gs": "gcsfs"}[scheme]
    try:
        import fsspec

        options = {"default_block_size": BLOCK} if scheme == "s3" else {}
        files = fsspec.filesystem(scheme, use_listings_cache=False, **options)
        failures = _failures(scheme)
    except ImportError as error:
        raise UsageError(
            f"Snapshots in {scheme}:// need a package that is not installed: pip install {package}."
        ) from error
    return BucketStore(url, files, failures)


def _failures(scheme: str) -> tuple[type[Exception], ...]:
    """What the libraries for ``scheme`` raise when the service refuses or does not answer."""
    import aiohttp

    common = (OSError, asyncio.TimeoutError, aiohttp.ClientError)
    if scheme == "s3":
        from botocore.exceptions import BotoCoreError, ClientError

        return (*common, BotoCoreError, ClientError)
    from gcsfs.retry import HttpError
    from google.auth.exceptions import GoogleAuthError

    return (*common, HttpError, GoogleAuthError)


class BucketStore(Store):
    """Objects in a bucket, under a common folder.

    Args:
        url: ``s3://`` or ``gs://``, without credentials.
        files: the fsspec file system of that bucket.
        failures: the exceptions by which ``files`` says that the service refused or did not answer.
    """

    def __init__(self, url: str, files: Any, failures: tuple[type[Exception], ...] = (OSError,)) -> None:
        self.url = url
        self._files = files
        self._failures = failures
        self._root = url.partition("://")[2]
        self._bucket = self._root.partition("/")[0]

    def put(self, local: Path, key: str) -> Stored:
        """See :meth:`Store.put`."""
        if not local.exists():
            raise Missing(f"{local} is not there")
        sums = _Sums(local)
        with self._answers(f"writing {key}"):
            reach("store-put")
            self._files.put_file(str(local), self._path(key), **self._parts())
            reach("file-written")
            self._verify(key, sums)
        return Stored(key, sums.size, sums.sha256)

    def _parts(self) -> dict[str, int]:
        return {"chunksize": PART} if self.url.startswith("s3://") else {}

    def _verify(self, key: str, sums: _Sums) -> None:
        info = self._files.info(self._path(key))
        if info["size"] != sums.size:
            raise Damaged(f"{key} came to {info['size']} of {sums.size} bytes")
        if not sums.promised_by(info) and self._sha256(key) != sums.sha256:
            raise Damaged(f"{key} came back with another content")

    def _sha256(self, key: str) -> str:
        digest = hashlib.sha256()
        with self._files.open(self._path(key), "rb", block_size=BLOCK, cache_type="readahead") as file:
            while block := file.read(BLOCK):
                digest.update(block)
        return digest.hexdigest()

    def _fetch(self, key: str, dest: Path, expected: str) -> None:
        dest.parent.mkdir(parents=True, exist_ok=True)
        with replacing(dest, durable=False) as file:
            with self._answers(key):
                reach("store-fetch")
                self._get(key, file.name)
            found = _Sums(Path(file.name))
            if not found.sha256.startswith(expected):
                raise Damaged(f"{key} ({found.size} bytes) does not have the SHA-256 that was recorded")

    def _get(self, key: str, dest: str) -> None:
        try:
            self._files.get_file(self._path(key), dest)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):  # of the local disk
                raise Full(f"fetching {key}: {error.strerror}") from error
            raise

    def delete(self, key: str) -> None:
        """See :meth:`Store.delete`."""
        with self._answers(f"deleting {key}"), suppress(FileNotFoundError):
            self._files.rm_file(self._path(key))

    def entries(self, prefix: str = "") -> list[Entry]:
        """See :meth:`Store.entries`."""
        with self._answers(f"listing {prefix or self.url}"):
            listed = self._files.find(self._path(prefix), detail=True)
        start = len(self._root) + 1
        return sorted((_entry(path.lstrip("/")[start:], info) for path, info in listed.items()), key=lambda e: e.key)

    def _path(self, key: str) -> str:
        if ".." in key.split("/"):
            raise ValueError(f"{key!r} leaves the store")
        return f"{self._root}/{key}".rstrip("/")

    @contextmanager
    def _answers(self, what: str) -> Iterator[None]:
        """Turn what the libraries raise into Missing, Full or Unavailable."""
        try:
            yield
        except FileNotFoundError as error:
            if not self._bucket_is_there():
                raise Unavailable(f"the bucket {self._bucket} is not there") from error
            raise Missing(f"{what} is not there") from error
        except self._failures as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            if any(word in f"{reason} {error.__cause__}" for word in QUOTA_WORDS):
                raise Full(f"{what}: {reason}") from error
            raise Unavailable(f"{what}: {reason}") from error

    def _bucket_is_there(self) -> bool:
        try:
            return bool(self._files.exists(self._bucket))
        except self._failures:
            return False


class _Sums:
    """Size and checksums of a local file, in the forms in which services give them."""

    def __init__(self, path: Path) -> None:
        whole, sha256, part = hashlib.md5(), hashlib.sha256(), hashlib.md5()
        parts: list[bytes] = []
        self.size = 0
        with open(path, "rb", buffering=0) as file:
            while block := file.read(BLOCK):
                for digest in (whole, sha256, part):
                    digest.update(block)
                self.size += len(block)
                if self.size % PART == 0:
                    parts.append(part.digest())
                    part = hashlib.md5()
        if self.size % PART:
            parts.append(part.digest())
        self.sha256 = sha256.hexdigest()
        self._md5 = whole.digest()
        self._etags = (whole.hexdigest(), f"{hashlib.md5(b''.join(parts)).hexdigest()}-{len(parts)}")

    def promised_by(self, info: Mapping[str, Any]) -> bool:
        """Whether what the service says about an object proves that it is this file."""
        if (etag := info.get("ETag")) and str(etag).strip('"') in self._etags:
            return True
        return bool(info.get("md5Hash") == base64.b64encode(self._md5).decode())


def _entry(key: str, info: Mapping[str, Any]) -> Entry:
    written = info.get("LastModified") or info.get("updated") or info.get("created")
    if isinstance(written, str):
        written = datetime.fromisoformat(written.replace("Z", "+00:00"))
    age = time.time() - written.timestamp() if isinstance(written, datetime) else 0.0
    return Entry(key, int(info["size"]), max(0.0, age))
