"""Published weights are fetched whole or not at all, and a file that is none is told without torch."""

from __future__ import annotations

import errno
import http.server
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from petskin_tune.errors import UsageError
from petskin_tune.trial.model import weights
from petskin_tune.trial.model.weights import fetch_weights, require_weights

NAME = "yolov8n-seg.pt"


def torch_zip() -> bytes:
    """What torch.save writes, as far as it can be told without torch."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/data/0", bytes(3000))
    return buffer.getvalue()


class Release(http.server.ThreadingHTTPServer):
    """Serves ``content`` under any name, and closes the connection after ``sent`` bytes of it."""

    content = torch_zip()
    sent: int | None = None
    status_line: bytes | None = None  # instead of an HTTP answer
    announced = True  # whether the length is


class Handler(http.server.BaseHTTPRequestHandler):
    server: Release

    def do_GET(self) -> None:
        if self.server.status_line is not None:
            self.wfile.write(self.server.status_line)
            return
        self.send_response(200)
        if self.server.announced:
            self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content[: self.server.sent])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> Iterator[Release]:
    server = Release(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(weights, "RELEASE", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_weights_are_fetched_once(release: Release, tmp_path: Path) -> None:
    folder = tmp_path / "home" / "weights"
    assert fetch_weights(NAME, folder).read_bytes() == release.content
    release.status_line = b"nobody asks again"
    assert fetch_weights(NAME, folder) == folder / NAME
    assert [path.name for path in folder.iterdir()] == [NAME]


@pytest.mark.parametrize("sent", [0, 1, 1500])
@pytest.mark.parametrize("announced", [True, False], ids=["length announced", "length unknown"])
def test_a_download_that_ends_early_is_refused_and_nothing_of_it_kept(
    release: Release, tmp_path: Path, sent: int, announced: bool
) -> None:
    release.sent, release.announced = sent, announced
    with pytest.raises(UsageError, match=f"{NAME} are not here and cannot be fetched"):
        fetch_weights(NAME, tmp_path / "weights")
    assert list(tmp_path.iterdir()) == []

    release.sent = None
    assert fetch_weights(NAME, tmp_path / "weights").read_bytes() == release.content


def test_where_a_person_wants_patience_a_server_that_fails_for_a_while_is_asked_again(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    original = weights.urllib.request.urlopen

    def urlopen(url: str, timeout: float) -> object:
        asked.append(url)
        release.status_line = b"HTTP/1.1 503 Service Unavailable\r\n\r\n" if len(asked) < 3 else None
        return original(url, timeout=timeout)

    monkeypatch.setattr(weights.urllib.request, "urlopen", urlopen)
    monkeypatch.setenv("TUNE_PATIENCE_SECONDS", "60")
    assert fetch_weights(NAME, tmp_path / "weights").read_bytes() == release.content
    assert len(asked) == 3


def test_weights_that_are_not_there_are_not_asked_for_again(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_PATIENCE_SECONDS", "60")
    release.status_line = b"HTTP/1.1 404 Not Found\r\n\r\n"
    began = time.monotonic()
    with pytest.raises(UsageError, match="cannot be fetched"):
        fetch_weights(NAME, tmp_path / "weights")
    assert time.monotonic() - began < 30.0


def test_a_disk_that_refuses_the_weights_is_not_asked_again(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[object] = []

    def refuse(*given: object) -> None:
        tried.append(given)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("TUNE_PATIENCE_SECONDS", "60")
    monkeypatch.setattr(weights, "_receive", refuse)
    with pytest.raises(UsageError, match="No space left on device"):
        fetch_weights(NAME, tmp_path / "weights")
    assert len(tried) == 1


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 404 Not Found\r\n\r\n"])
def test_an_answer_that_is_none_is_refused_in_one_sentence(release: Release, tmp_path: Path, answer: bytes) -> None:
    release.status_line = answer
    with pytest.raises(UsageError, match="cannot be fetched"):
        fetch_weights(NAME, tmp_path / "weights")
    assert list(tmp_path.iterdir()) == []


def test_a_page_of_a_proxy_is_not_kept_as_weights(release: Release, tmp_path: Path) -> None:
    release.content = b"<html>Please log in</html>"
    with pytest.raises(UsageError, match="cannot be fetched"):
        fetch_weights(NAME, tmp_path / "weights")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"junk of 11B", torch_zip()[:-100], b"PK\x03\x04"])
def test_a_file_that_torch_cannot_load_is_no_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "junk.pt"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"junk\.pt holds no weights"):
        require_weights(path)


def test_what_torch_saves_is_taken(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(torch_zip())
    require_weights(tmp_path / "model.pt")


def test_a_model_is_looked_at_without_torch() -> None:
    code = "import sys, petskin_tune.trial.inputs; print({'torch', 'ultralytics'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
