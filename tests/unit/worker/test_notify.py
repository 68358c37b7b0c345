"""Messages to a person: what is sent, how often, and that neither the address nor a failure gets anywhere."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from petskin_tune.commands.worker import Request, _typed
from petskin_tune.errors import UsageError
from petskin_tune.worker.notify import MOST_LINES, Notifier, address, harmless
from tests.support.workers import wait_until

SECRET = "T024BE7LD-wJ8NqkL2"
PATIENCE = 120.0


class Webhook:
    """A server of this machine that keeps what it is told and answers with ``code``."""

    def __init__(self, code: int) -> None:
        self.heard: list[tuple[dict[str, str], dict[str, Any]]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.heard.append((dict(self.headers), json.loads(body)))
                self.send_response(code)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing on the screen."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/services/{SECRET}"

    @property
    def texts(self) -> list[str]:
        return [body["text"] for _, body in self.heard]


@contextlib.contextmanager
def webhook(code: int = 200) -> Iterator[Webhook]:
    hook = Webhook(code)
    thread = threading.Thread(target=hook.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hook
    finally:
        hook.server.shutdown()
        hook.server.server_close()


def test_slack_discord_and_ntfy_read_the_same_message() -> None:
    with webhook() as hook:
        notifier = Notifier(hook.url)
        notifier.tell("petskin: study done")
        notifier.close(PATIENCE)
    ((headers, body),) = hook.heard
    assert body == {"text": "petskin: study done", "content": "petskin: study done"}
    assert headers["Content-Type"] == "application/json"
    assert (headers["X-Template"], headers["X-Message"]) == ("yes", "{{.text}}")  # ntfy takes its message from the body


def test_what_happens_within_a_minute_is_one_message() -> None:
    sent: list[str] = []
    first = threading.Event()

    def send(_: str, text: str) -> None:
        sent.append(text)
        first.set()

    notifier = Notifier("https://example.org/x", every=PATIENCE, send=send)
    notifier.tell("one")
    assert first.wait(PATIENCE)
    notifier.tell("two")
    notifier.tell("three")
    notifier._allowed_at = 0.0  # the minute is over
    notifier.close(PATIENCE)
    assert sent == ["one", "two\nthree"]


def test_a_message_that_may_not_be_sent_yet_is_waited_for_at_the_end_and_no_longer_than_allowed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    at: list[float] = []
    first = threading.Event()

    def send(*_: str) -> None:
        at.append(time.monotonic())
        first.set()

    notifier = Notifier("https://example.org/x", every=0.5, send=send)
    began = time.monotonic()
    notifier.tell("one")
    assert first.wait(PATIENCE)
    notifier.tell("two")
    notifier.close(PATIENCE)
    assert len(at) == 2
    assert at[1] - began >= 0.49

    first.clear()
    slow = Notifier("https://example.org/x", every=PATIENCE, send=send)
    slow.tell("one")
    assert first.wait(PATIENCE)
    slow.tell("never sent")
    slow.close(0.0)
    assert len(at) == 3
    assert "left out" in caplog.text


def test_a_message_is_no_longer_than_a_screen_and_calls_nobody() -> None:
    sent: list[str] = []
    notifier = Notifier("https://example.org/x", every=0.0, send=lambda _, text: sent.append(text))
    with notifier._changed:
        for number in range(MOST_LINES + 3):
            notifier.tell(f"trial {number}")
    notifier.close(PATIENCE)
    assert sent[0].splitlines()[0] == "(3 earlier messages are left out)"
    assert sent[0].count("\n") == MOST_LINES
    told = harmless("failed: postgresql://me:hunter2@host/x @everyone <!channel>\n" + "x" * 9000)
    assert "hunter2" not in told
    assert "@everyone" not in told
    assert "<" not in told
    assert "\n" not in told
    assert len(told) < 500


@pytest.mark.parametrize("count", [1, MOST_LINES, MOST_LINES + 3])
def test_what_is_joined_is_no_longer_than_any_server_takes(count: int) -> None:
    sent: list[str] = []
    notifier = Notifier("https://example.org/x", every=0.0, send=lambda _, text: sent.append(text))
    with notifier._changed:
        for number in range(count):
            notifier.tell(f"trial {number} failed: {'@' * 9000} the end of {number}")
    notifier.close(PATIENCE)
    (text,) = sent
    assert len(text) <= 2000
    last = text.splitlines()[-1]
    assert last.startswith(f"trial {count - 1} failed: ")
    assert last.endswith(f"the end of {count - 1}")


@pytest.mark.parametrize("code", [404, 500, 302])
def test_a_server_that_refuses_is_a_line_of_the_log_without_the_address(
    code: int, caplog: pytest.LogCaptureFixture
) -> None:
    with webhook(code) as hook, caplog.at_level(logging.DEBUG):
        notifier = Notifier(hook.url)
        notifier.tell("hello")
        notifier.close(PATIENCE)
    assert f"a notification could not be sent: the server answers {code}" in caplog.text
    assert SECRET not in caplog.text


def test_a_server_that_is_not_there_is_a_line_of_the_log_without_the_address(caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier(f"http://127.0.0.1:1/{SECRET}")
    notifier.tell("hello")
    notifier.close(PATIENCE)
    assert "a notification could not be sent: ConnectionRefusedError (Connection refused)" in caplog.text
    assert SECRET not in caplog.text


def test_without_an_address_nothing_is_sent_and_no_thread_starts() -> None:
    before = threading.active_count()
    notifier = Notifier(None, send=lambda *_: pytest.fail("sent"))
    notifier.tell("hello")
    notifier.close(PATIENCE)
    assert threading.active_count() == before


def test_the_address_comes_from_the_option_the_environment_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "webhook"
    file.write_text("https://example.org/file\n")
    of_environment = {"TUNE_NOTIFY": "https://example.org/environment"}
    assert address(None, {}) is None
    assert address("", {"TUNE_NOTIFY": ""}) is None
    assert address(None, of_environment) == "https://example.org/environment"
    assert address("https://example.org/option", of_environment) == "https://example.org/option"
    assert address(str(file), {}) == "https://example.org/file"
    assert address(None, {"TUNE_NOTIFY": str(file)}) == "https://example.org/file"


@pytest.mark.parametrize(
    "given",
    [
        f"ftp://{SECRET}",
        f"https:///{SECRET}",
        f"https://[::1/{SECRET}",
        f"https://x/{SECRET} y",
        f"/no/{SECRET}",
        "a\0b",
    ],
)
@pytest.mark.parametrize("where", ["--notify", "TUNE_NOTIFY"])
def test_what_is_no_address_is_refused_and_not_quoted(given: str, where: str) -> None:
    with pytest.raises(UsageError, match=f"^{where} must be an https:// address") as refused:
        address(given, {}) if where == "--notify" else address(None, {where: given})
    assert SECRET not in str(refused.value)


def test_a_fifo_that_nobody_writes_to_and_a_device_are_no_files_with_an_address(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for file in (str(tmp_path / "fifo"), "/dev/zero", str(tmp_path)):
        with pytest.raises(UsageError, match="can be read"):
            address(file, {})


def test_the_address_is_neither_logged_with_what_was_typed_nor_typed_again_nor_shown_of_a_request() -> None:
    url = f"https://example.org/{SECRET}"
    request = Request(notify=url)
    words = _typed(["tune-worker", "--notify", url, f"--notify={url}", "--study", "x"], request)
    assert words == ["tune-worker", "--notify", "***", "--notify=***", "--study", "x"]
    assert SECRET not in repr(request)
    assert SECRET not in request.typed


@pytest.mark.parametrize("typed", ["{}", "--storage={}"])
def test_nothing_of_a_password_that_was_typed_is_logged_whatever_is_in_it(typed: str) -> None:
    url = "postgresql://me:one two://three@four@host/db"
    assert _typed(["tune-worker", typed.format(url)], Request()) == [
        "tune-worker",
        typed.format("postgresql://me:***@host/db"),
    ]


def test_what_nobody_will_wait_for_is_left_out() -> None:
    heard: list[str] = []
    notifier = Notifier("https://example.org", every=3600.0, send=lambda _, text: heard.append(text))
    notifier.tell("first")
    wait_until(lambda: heard == ["first"])
    notifier.tell("second")
    notifier.give_up()
    notifier.close(PATIENCE)
    assert notifier._thread is not None
    assert not notifier._thread.is_alive()
    assert heard == ["first"]
