"""The store in ``gs://`` against a small HTTP server that speaks the part of Google's JSON API that gcsfs uses."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from petskin_tune.checkpoints import bucket
from petskin_tune.checkpoints.base import Store
from petskin_tune.checkpoints.opening import check_store, open_store
from petskin_tune.files.durable import Damaged, Missing

pytest.importorskip("gcsfs", reason="gcsfs is not installed")

KEY = "study/trial-000007/snapshot-1-2-3-abc.pt"


class Google(BaseHTTPRequestHandler):
    """https://cloud.google.com/storage/docs/json_api/v1: objects of one bucket in memory."""

    objects: dict[str, tuple[bytes, str]] = {}  # noqa: RUF012 - a new dictionary for each test
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path, query = self._asked()
        name = unquote(path.partition("/o/")[2])
        if not name and path.endswith("/o"):
            prefix = query.get("prefix", [""])[0]
            found = [self._info(key) for key in sorted(self.objects) if key.startswith(prefix)]
            self._answer(200, {"kind": "storage#objects", "items": found} if found else {"kind": "storage#objects"})
        elif not name:
            self._answer(200, {"name": "bucket", "locationType": "region"})
        elif name not in self.objects:
            self._answer(404, {"error": {"code": 404, "message": f"No such object: bucket/{name}"}})
        elif query.get("alt") == ["media"]:
            self._answer(200, self.objects[name][0])
        else:
            self._answer(200, self._info(name))

    def do_POST(self) -> None:
        _, query = self._asked()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if "upload_id" in query:
            self._store(query["name"][0], body)  # gcsfs sends up to 50 MB at once
        elif query["uploadType"] == ["multipart"]:
            mark = b"--" + self.headers["Content-Type"].partition('boundary="')[2].rstrip('"').encode()
            _, metadata, content, _ = body.split(mark)
            name = json.loads(metadata.partition(b"\n\n")[2])["name"]
            self._store(name, content.partition(b"\n\n")[2].removesuffix(b"\n"))
        else:
            name = json.loads(body)["name"] if body else query["name"][0]
            host = self.headers["Host"]
            self._answer(200, {}, Location=f"http://{host}/upload/storage/v1/b/bucket/o?name={name}&upload_id=1")

    def do_DELETE(self) -> None:
        path, _ = self._asked()
        found = self.objects.pop(unquote(path.partition("/o/")[2]), None)
        self._answer(204 if found else 404, b"" if found else {"error": {"code": 404, "message": "No such object"}})

    def _asked(self) -> tuple[str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        return parts.path, parse_qs(parts.query)

    def _store(self, name: str, content: bytes) -> None:
        self.objects[name] = (content, datetime.now(timezone.utc).isoformat().replace("+00:00", "Z"))
        self._answer(200, self._info(name))

    def _info(self, name: str) -> dict[str, Any]:
        content, updated = self.objects[name]
        digest = base64.b64encode(hashlib.md5(content).digest()).decode()
        return {
            "kind": "storage#object",
            "name": name,
            "bucket": "bucket",
            "size": str(len(content)),
            "updated": updated,
            "timeCreated": updated,
            "md5Hash": digest,
            "generation": "1",
        }

    def _answer(self, status: int, content: dict[str, Any] | bytes, **headers: str) -> None:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header(
            "Content-Type", "application/octet-stream" if isinstance(content, bytes) else "application/json"
        )
        self.send_header("Content-Length", str(len(raw)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    import gcsfs

    monkeypatch.setattr(Google, "objects", {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), Google)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("FSSPEC_GS_TOKEN", "anon")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    gcsfs.GCSFileSystem.clear_instance_cache()
    yield open_store("gs://bucket/petskin")
    gcsfs.GCSFileSystem.clear_instance_cache()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("size", [200_000, 12_000_000], ids=["small", "large"])
def test_what_was_put_is_verified_without_a_download_fetched_listed_and_deleted(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    local = tmp_path / "local.pt"
    local.write_bytes(os.urandom(size))
    downloads = []
    monkeypatch.setattr(bucket.BucketStore, "_sha256", lambda _self, key: downloads.append(key))
    stored = store.put(local, KEY)
    assert downloads == []
    store.fetch(KEY, tmp_path / "back.pt", stored.sha256)
    assert (tmp_path / "back.pt").read_bytes() == local.read_bytes()
    (entry,) = store.entries("study")
    assert (entry.key, entry.size) == (KEY, size)
    assert 0 <= entry.age < 100
    store.delete(KEY)
    store.delete(KEY)
    assert store.entries() == []
    with pytest.raises(Missing):
        store.fetch(KEY, tmp_path / "back.pt", stored.sha256)


def test_an_object_that_was_changed_in_the_bucket_is_damaged(store: Store, tmp_path: Path) -> None:
    local = tmp_path / "local.pt"
    local.write_bytes(b"state" * 1000)
    stored = store.put(local, KEY)
    Google.objects[f"petskin/{KEY}"] = (b"other", Google.objects[f"petskin/{KEY}"][1])
    with pytest.raises(Damaged):
        store.fetch(KEY, tmp_path / "back.pt", stored.sha256)


def test_a_store_that_can_be_used_is_left_as_it_was(store: Store) -> None:
    check_store(store)
    assert store.entries() == []
