"""The store in ``s3://`` against a real HTTP server that speaks S3 (moto)."""

from __future__ import annotations

import hashlib
import os
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from petskin_tune.checkpoints import bucket, keys
from petskin_tune.checkpoints.base import Store
from petskin_tune.checkpoints.opening import check_store, open_store
from petskin_tune.checkpoints.uploader import Uploader
from petskin_tune.errors import UsageError
from petskin_tune.files.durable import Damaged, Full, Missing, Unavailable
from petskin_tune.protocol import Position, SnapshotWritten

pytest.importorskip("s3fs", reason="s3fs is not installed")
server_module = pytest.importorskip("moto.server", reason="moto is not installed")

KEY = "study/trial-000007/snapshot-1-2-3-abc.pt"
LARGE = 3 * bucket.PART + 12_345  # three parts and a bit


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    import s3fs

    running = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    s3fs.S3FileSystem.clear_instance_cache()
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
    s3fs.S3FileSystem().mkdir("bucket")
    yield running
    s3fs.S3FileSystem.clear_instance_cache()
    running.stop()


@pytest.fixture
def store(server: Any) -> Store:
    return open_store("s3://bucket/petskin")


@pytest.fixture
def local(tmp_path: Path) -> Path:
    path = tmp_path / "local.pt"
    path.write_bytes(os.urandom(200_000))
    return path


def test_what_was_put_is_fetched_and_listed_until_it_is_deleted(store: Store, local: Path, tmp_path: Path) -> None:
    stored = store.put(local, KEY)
    assert stored.sha256 == hashlib.sha256(local.read_bytes()).hexdigest()
    store.fetch(KEY, tmp_path / "back.pt", stored.sha256)
    assert (tmp_path / "back.pt").read_bytes() == local.read_bytes()
    store.put(local, "study2/trial-000000/results.csv")
    assert [entry.key for entry in store.entries("study")] == [KEY]
    assert [entry.key for entry in store.entries("study/trial-000007")] == [KEY]
    assert sum(entry.size for entry in store.entries()) == 400_000
    assert all(0 <= entry.age < 100 for entry in store.entries())
    store.delete(KEY)
    store.delete(KEY)
    assert store.entries("study") == []
    with pytest.raises(Missing):
        store.fetch(KEY, tmp_path / "back.pt", stored.sha256)


def test_a_small_and_a_large_upload_are_verified_without_a_download(
    store: Store, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads = []
    monkeypatch.setattr(bucket.BucketStore, "_sha256", lambda _self, key: downloads.append(key))
    store.put(local, KEY)
    large = tmp_path / "large.pt"
    large.write_bytes(os.urandom(LARGE))
    stored = store.put(large, f"{KEY}2")
    assert downloads == []
    store.fetch(f"{KEY}2", tmp_path / "back.pt", stored.sha256)
    assert (tmp_path / "back.pt").read_bytes() == large.read_bytes()


@pytest.mark.parametrize("right", [True, False], ids=["whole", "changed"])
def test_an_upload_whose_checksum_the_service_does_not_tell_is_read_back(
    store: Store, local: Path, monkeypatch: pytest.MonkeyPatch, right: bool
) -> None:
    monkeypatch.setattr(bucket._Sums, "promised_by", lambda _self, _info: False)
    real, read_back = bucket.BucketStore._sha256, []

    def reading(self: Any, key: str) -> str:
        read_back.append(key)
        return real(self, key) if right else "0" * 64

    monkeypatch.setattr(bucket.BucketStore, "_sha256", reading)
    if right:
        store.put(local, KEY)
    else:
        with pytest.raises(Damaged, match="another content"):
            store.put(local, KEY)
    assert read_back == [KEY]


def test_an_object_that_was_changed_in_the_bucket_is_damaged(store: Store, local: Path, tmp_path: Path) -> None:
    import s3fs

    stored = store.put(local, KEY)
    content = bytearray(local.read_bytes())
    content[100] ^= 1
    s3fs.S3FileSystem().pipe_file(f"bucket/petskin/{KEY}", bytes(content))
    with pytest.raises(Damaged):
        store.fetch(KEY, tmp_path / "back.pt", stored.sha256)


def test_a_bucket_that_is_not_there_is_unavailable_and_refused_when_checked(
    server: Any, local: Path, tmp_path: Path
) -> None:
    nowhere = open_store("s3://nobodys/petskin")
    with pytest.raises(Unavailable, match="bucket nobodys is not there"):
        nowhere.fetch(KEY, tmp_path / "back.pt", "00")
    with pytest.raises(UsageError, match=r"store s3://nobodys/petskin cannot be written to: .*not there"):
        check_store(nowhere)


def test_a_store_that_can_be_used_is_left_as_it_was(store: Store) -> None:
    check_store(store)
    assert store.entries() == []


def test_a_service_that_is_away_is_tried_until_it_is_back(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "snapshot.pt"
    path.write_bytes(b"state" * 1000)
    snapshot = SnapshotWritten(str(path), Position(3, 0), 5000, hashlib.sha256(path.read_bytes()).hexdigest(), 0.0)
    proxy = _Gate(server.get_host_and_port())
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    store = open_store("s3://bucket/petskin")
    said: list[str] = []
    committed: list[Any] = []
    troubled = threading.Event()
    proxy.refused = troubled
    uploader = Uploader(store, keys.trial_prefix("study", 7), 1, say=said.append)
    try:
        proxy.open = False
        uploader.submit(snapshot, committed.append)
        assert troubled.wait(240), "nothing was refused"
        proxy.open = True
        assert uploader.drain(240)
    finally:
        uploader.close()
        proxy.close()
    assert len(committed) == 1
    assert uploader.state.durable == Position(3, 0)


def test_a_quota_is_told_from_an_outage(store: Store, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = []

    def refuse(*_: Any, **__: Any) -> None:
        refusals.append(1)
        raise OSError(5, "XMinioStorageFull: Storage backend has reached its minimum free drive threshold")

    monkeypatch.setattr(store._files, "put_file", refuse)  # type: ignore[attr-defined]
    with pytest.raises(Full):
        store.put(local, KEY)
    assert refusals


class _Gate:
    """A TCP proxy that resets connections while it is not ``open``."""

    def __init__(self, target: tuple[str, int]) -> None:
        import socketserver

        gate = self
        self.open = True
        self.refused = threading.Event()

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                if not gate.open:
                    gate.refused.set()
                    return
                _pipe(self.request, target)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _pipe(client: Any, target: tuple[str, int]) -> None:
    import contextlib
    import socket

    with socket.create_connection(target) as upstream:

        def forward(source: Any, sink: Any) -> None:
            with contextlib.suppress(OSError):
                while block := source.recv(65536):
                    sink.sendall(block)
                sink.shutdown(socket.SHUT_WR)

        back = threading.Thread(target=forward, args=(upstream, client), daemon=True)
        back.start()
        forward(client, upstream)
        back.join()
