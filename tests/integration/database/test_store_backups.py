"""docker/store_backups.py: the dumps of backup.sh in a store, a bounded number of them, and one brought back."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from petskin_tune.checkpoints.opening import open_store
from tests.support.places import PROJECT

SCRIPT = PROJECT / "docker" / "store_backups.py"


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """As the service `backup-store` has it, and a server that speaks S3."""
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/bucket", method="PUT")).close()
    (tmp_path / "backups").mkdir()
    keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "test")
    where = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-east-1", "NO_PROXY": "127.0.0.1"}
    ours = {"TUNE_CHECKPOINTS": "s3://bucket/petskin", "BACKUPS": str(tmp_path / "backups"), "BACKUPS_KEPT": "2"}
    yield {**os.environ, **keys, **where, **ours, "PYTHONPATH": str(PROJECT)}
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
    running.stop()


def typed(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)


def dump(environment: dict[str, str], hour: int) -> Path:
    path = Path(environment["BACKUPS"]) / f"tune-20260301T{hour:02}0000Z.dump"
    path.write_bytes(os.urandom(10_000))
    return path


def names(environment: dict[str, str]) -> list[str]:
    listed = typed(environment, "list")
    assert listed.returncode == 0, listed.stderr
    return listed.stdout.split()


def test_new_dumps_go_to_the_bucket_the_newest_stay_and_one_comes_back_whole(environment: dict[str, str]) -> None:
    first = dump(environment, 1)
    once = typed(environment, "once")
    assert once.stdout.startswith("copied: s3://bucket/petskin/backups/tune-20260301T010000Z-"), once.stderr
    assert typed(environment, "once").stdout == ""  # it is there
    dump(environment, 2)
    newest = dump(environment, 3)
    content = newest.read_bytes()
    newest.with_suffix(".dump.part").write_bytes(b"half")  # is being written
    assert typed(environment, "once").returncode == 0
    assert [name[:22] for name in names(environment)] == ["tune-20260301T020000Z-", "tune-20260301T030000Z-"]

    for path in (first, newest):
        path.unlink()  # the machine is gone
    back = typed(environment, "fetch", names(environment)[-1])
    assert back.returncode == 0, back.stderr
    (fetched,) = Path(environment["BACKUPS"]).glob("fetched-*.dump")
    assert fetched.read_bytes() == content
    assert back.stdout == f"fetched: {fetched}\n"


def test_a_machine_that_has_lost_its_dumps_deletes_none_in_the_bucket(environment: dict[str, str]) -> None:
    for hour in (1, 2):
        dump(environment, hour)
    assert typed(environment, "once").returncode == 0
    for path in Path(environment["BACKUPS"]).iterdir():
        path.unlink()
    assert typed(environment, "once").returncode == 0
    assert len(names(environment)) == 2


def test_what_cannot_be_done_is_one_sentence(environment: dict[str, str]) -> None:
    for words in (["fetch", "tune-20260301T010000Z.dump"], ["fetch", "../../etc/passwd"], ["restore"], ["fetch"]):
        refused = typed(environment, *words)
        assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1), refused.stderr
    for number in ("many", "0", "-1", "²"):
        refused = typed({**environment, "BACKUPS_KEPT": number}, "once")
        assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1), refused.stderr
    assert typed({**environment, "TUNE_CHECKPOINTS": ""}, "once").stdout.startswith("TUNE_CHECKPOINTS names no bucket")


def test_a_damaged_dump_is_not_brought_back(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    dump(environment, 1)
    assert typed(environment, "once").returncode == 0
    (name,) = names(environment)
    for variable in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(variable, environment[variable])
    other = Path(environment["BACKUPS"]) / "other"
    other.write_bytes(b"damage")
    open_store("s3://bucket/petskin").put(other, f"backups/{name}")
    refused = typed(environment, "fetch", name)
    assert refused.returncode == 2
    assert not list(Path(environment["BACKUPS"]).glob("fetched-*"))
