"""Secrets of every kind, in a run in which everything fails once, are in nothing that was written, printed or shown.

A database away, a store that refuses, a webhook that fails, a trial's process that dies, and every view afterwards.
"""

from __future__ import annotations

import base64
import contextlib
import http.server
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import optuna
import psutil
import pytest
import sqlalchemy
from sqlalchemy.engine import make_url

from tests.support.servers import Server, maintenance, running_server
from tests.support.workers import Said, run, start, wait_until, write_study

moto_server = pytest.importorskip("moto.server", reason="moto is not installed")
pytest.importorskip("s3fs", reason="s3fs is not installed")

# Each has signs that a URL, JSON or a shell quote, around a core that stays as it is wherever it is written.
DATABASE = "db/Zq7PlantedPw9+x"
KEY, HIDDEN_KEY = "AKIAQ7ZXPLANTEDKEY01", "sk/Vb3PlantedKey+y"
NOTIFY = "T0PLANTED/xoxPlantedHook"
SECRETS = {
    "the database's password": (DATABASE, "Zq7PlantedPw9"),
    "the store's key": (HIDDEN_KEY, "Vb3PlantedKey"),
    "the webhook": (NOTIFY, "xoxPlantedHook"),
}
EPOCHS = 16
KINDS = ("status", "diagnose", "trials", "show", "best", "report", "doctor", "studies")


def found_in(text: bytes) -> list[str]:
    """Which of the secrets are in a text, as they are or in base64."""
    return [
        what
        for what, (whole, core) in SECRETS.items()
        if core.encode() in text or base64.b64encode(whole.encode()).rstrip(b"=") in text
    ]


class Failing(http.server.BaseHTTPRequestHandler):
    """A webhook that refuses whatever it is told, and repeats the address in doing so."""

    heard: list[bytes] = []  # noqa: RUF012

    def do_POST(self) -> None:
        self.heard.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_error(500, f"no such hook: {self.path}")

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def webhook() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Failing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/services/{NOTIFY}"
        server.shutdown()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Bucket:
    """A service that speaks S3, and may be away."""

    def __init__(self) -> None:
        self.port = free_port()
        self._start()
        request = urllib.request.Request(f"{self.url}/bucket", method="PUT")
        request.add_header("Authorization", f"AWS4-HMAC-SHA256 Credential={KEY}/20260101/us-east-1/s3/aws4_request")
        urllib.request.urlopen(request).close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _start(self) -> None:
        self._server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def start_again(self) -> None:
        self._start()

    def objects(self) -> Iterator[tuple[str, bytes]]:
        import s3fs

        disk = s3fs.S3FileSystem(endpoint_url=self.url, key=KEY, secret=HIDDEN_KEY, skip_instance_cache=True)
        for name in disk.find("bucket"):
            yield name, disk.cat_file(name)


class Watched:
    """What every process under ``pid`` shows to whoever types ``ps``, and the environment of a trial's process."""

    def __init__(self, pid: int) -> None:
        self.seen: dict[str, list[str]] = {}
        self._pid, self._stopped = pid, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._stopped.wait(0.05):
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError, FileNotFoundError):
                for process in [psutil.Process(self._pid), *psutil.Process(self._pid).children(recursive=True)]:
                    shown = ("cmdline", "comm") if process.pid == self._pid else ("cmdline", "comm", "environ")
                    for what in shown:
                        text = Path(f"/proc/{process.pid}/{what}").read_bytes()
                        self.seen[f"{what} of {process.name()}"] = found_in(text)

    def end(self) -> dict[str, list[str]]:
        self._stopped.set()
        self._thread.join()
        return {where: found for where, found in self.seen.items() if found}


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


def rows_of(url: str) -> bytes:
    """Every row of every table as text."""
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        tables = sqlalchemy.inspect(engine).get_table_names()
        return repr([connection.exec_driver_sql(f'SELECT * FROM "{table}"').all() for table in tables]).encode()


def pages(folder: Path, variables: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    """What the dashboard serves."""
    port = free_port()
    process = start(
        "dashboard", "--study", "small", "--port", str(port), cwd=folder, command="petskin-tune", **variables
    )
    said = Said(process)
    paths = ("/dashboard", "/workers", "/api/meta", "/api/studies", "/api/studies/1", "/api/nothing", "/workers.json")

    def page(path: str) -> bytes:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            return bytes(error.read())

    def answers() -> bool:
        with contextlib.suppress(OSError):
            return bool(page("/api/meta"))
        return process.poll() is not None

    wait_until(answers)
    for path in paths:
        yield path, page(path)
    process.kill()
    process.wait()
    yield "what the dashboard said", said.text().encode()


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_planted_secrets_are_in_nothing_that_a_run_with_failures_wrote_printed_or_showed(
    server: Server, tmp_path: Path
) -> None:
    plain = server.new_database()
    with maintenance(make_url(plain)) as connection:
        connection.exec_driver_sql(f"CREATE ROLE planted LOGIN SUPERUSER PASSWORD '{DATABASE}'")
    storage = make_url(plain).set(username="planted", password=DATABASE).render_as_string(hide_password=False)
    bucket = Bucket()
    keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": HIDDEN_KEY, "AWS_ENDPOINT_URL": bucket.url}
    places = {"TUNE_STORAGE": storage, "TUNE_CHECKPOINTS": "s3://bucket/planted", "NO_PROXY": "127.0.0.1", **keys}
    folder, study = tmp_path / "work", write_study(tmp_path / "study", epochs=EPOCHS, target_trials=1)
    folder.mkdir()
    printed: dict[str, bytes] = {}
    cache = {"XDG_CACHE_HOME": str(folder / "cache"), "AWS_DEFAULT_REGION": "us-east-1"}
    with webhook() as hook:
        variables = {**places, **cache, "TUNE_NOTIFY": hook}
        worker = start("--study", str(study), "--verbose", cwd=folder, **variables)
        watched, said = Watched(worker.pid), Said(worker)
        said.wait_for(f"trial 0 epoch 2/{EPOCHS}")
        server.stop()
        trial = max(psutil.Process(worker.pid).children(recursive=True), key=lambda child: child.create_time())
        said.wait_for(f"trial 0 epoch 5/{EPOCHS}")  # epochs wait to be sent
        trial.suspend()  # else a fast machine ends the trial before anybody speaks of the outage
        said.wait_for("database away for")
        server.start()
        said.wait_for("database back after")
        trial.kill()
        said.wait_for("study done")
        printed["the worker"] = said.end().encode()
        shown = watched.end()
    assert worker.returncode == 0, said.text()
    assert found_in(repr(variables).encode()) == list(SECRETS), "what was planted is not looked for as it was planted"
    for failure in ("database away for", "killed by", "could not be sent"):
        assert failure in said.text(), f"{failure!r} did not happen:\n{said.text()}"
    assert Failing.heard, "the webhook was told nothing"
    for kind in KINDS:
        words = ["--study", "small"] if kind != "studies" else []
        words += {"report": ["-o", "report.html"], "best": ["--yaml", "best.yaml", "--weights", "best.pt"]}.get(
            kind, []
        )
        for more in ([], ["--json"]) if kind in ("status", "trials", "studies") else ([],):
            done = run(kind, *words, *more, cwd=folder, command="petskin-tune", **variables)
            printed[" ".join((kind, *more))] = done.stdout.encode()
    printed |= dict(pages(folder, variables))
    server.stop()
    for kind in ("status", "doctor"):
        done = run(kind, "--study", "small", cwd=folder, command="petskin-tune", TUNE_PATIENCE_SECONDS="2", **variables)
        printed[f"{kind} without a database"] = done.stdout.encode()
    server.start()
    bucket.stop()
    done = run("--study", "small", cwd=folder, TUNE_PATIENCE_SECONDS="2", **variables)
    printed["a worker without a store"] = done.stdout.encode()
    bucket.start_again()

    written = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert any("log" in name for name in written)
    stored = dict(bucket.objects())
    assert optuna.load_study(study_name="small", storage=plain).trials
    everything = {**printed, **written, **stored, "the database": rows_of(plain)}
    leaks = {where: found for where, text in everything.items() if (found := found_in(text))}
    assert leaks == {}
    assert shown == {}
