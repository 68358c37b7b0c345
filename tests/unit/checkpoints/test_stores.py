from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest

from petskin_tune import faults
from petskin_tune.checkpoints import keys
from petskin_tune.checkpoints.base import Store
from petskin_tune.checkpoints.bucket import BucketStore
from petskin_tune.checkpoints.folder import FolderStore
from petskin_tune.checkpoints.opening import check_store, open_store
from petskin_tune.errors import UsageError
from petskin_tune.files import disks, durable
from petskin_tune.files.disks import Mount
from petskin_tune.files.durable import Damaged, Full, Missing, Unavailable
from petskin_tune.protocol import Position

CONTENT = bytes(range(256)) * 18_000  # 4.6 MB: more than one block
KEY = "study/trial-000007/snapshot-1-2-3-abc.pt"
KINDS = ["folder", "drive", "bucket"]


@pytest.fixture
def local(tmp_path: Path) -> Path:
    path = tmp_path / "local.pt"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "bucket":
        files = fsspec.filesystem("memory", skip_instance_cache=True)
        files.store.clear()
        files.pseudo_dirs[:] = ["", "/bucket"]
        return BucketStore("gs://bucket/place", files)
    return FolderStore(tmp_path / "store", network=request.param == "drive")


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Callable[[], list[str]]]:
    """Plan faults for this process; the answer tells which fired."""

    def plan_faults(text: str) -> Callable[[], list[str]]:
        log = tmp_path / "fired"
        monkeypatch.setenv("TUNE_FAULTS_LOG", str(log))
        monkeypatch.setattr(faults, "_faults", faults._parse(text))
        faults._reached.clear()
        return lambda: [line.split()[0] for line in log.read_text().splitlines()] if log.exists() else []

    return plan_faults


def test_what_was_put_is_fetched_and_listed_until_it_is_deleted(store: Store, local: Path, tmp_path: Path) -> None:
    stored = store.put(local, KEY)
    assert (stored.key, stored.size, stored.sha256) == (KEY, len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    store.fetch(KEY, tmp_path / "deep" / "back.pt", stored.sha256)
    assert (tmp_path / "deep" / "back.pt").read_bytes() == CONTENT
    other = store.put(local, "study2/trial-000000/results.csv")
    assert [entry.key for entry in store.entries()] == sorted([KEY, other.key])
    assert [entry.key for entry in store.entries("study")] == [KEY]
    assert [entry.key for entry in store.entries("study/trial-000007")] == [KEY]
    assert store.entries("nobody") == []
    assert [entry.size for entry in store.entries()] == [len(CONTENT)] * 2
    assert all(0 <= entry.age < 100 for entry in store.entries())
    store.delete(KEY)
    store.delete(KEY)
    assert store.entries("study") == []


def test_an_empty_store_holds_nothing(store: Store) -> None:
    assert store.entries() == []
    store.delete(KEY)


def test_a_key_that_is_not_there_is_missing(store: Store, local: Path, tmp_path: Path) -> None:
    with pytest.raises(Missing, match="snapshot-1-2-3-abc"):
        store.fetch(KEY, tmp_path / "back.pt", "00")
    with pytest.raises(Missing, match="nowhere"):
        store.put(tmp_path / "nowhere.pt", KEY)


def test_a_file_with_another_hash_is_damaged_and_replaces_nothing(store: Store, local: Path, tmp_path: Path) -> None:
    store.put(local, KEY)
    back = tmp_path / "back.pt"
    back.write_text("what was here before")
    with pytest.raises(Damaged, match="SHA-256"):
        store.fetch(KEY, back, "0" * 64)
    assert back.read_text() == "what was here before"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_weights_are_checked_by_their_key_alone(store: Store, local: Path, tmp_path: Path) -> None:
    key = keys.weights_key("study/trial-000007", 12, hashlib.sha256(CONTENT).hexdigest())
    store.put(local, key)
    store.fetch(key, tmp_path / "back.pt")
    assert (tmp_path / "back.pt").read_bytes() == CONTENT
    wrong = keys.weights_key("study/trial-000007", 12, "0" * 64)
    store.put(local, wrong)
    with pytest.raises(Damaged):
        store.fetch(wrong, tmp_path / "back.pt")
    with pytest.raises(ValueError, match="nothing says"):
        store.fetch(KEY, tmp_path / "back.pt")


@pytest.mark.parametrize("key", ["../outside", "study/../../outside", "/etc/passwd"])
def test_a_key_never_leaves_the_store(tmp_path: Path, local: Path, key: str) -> None:
    with pytest.raises(ValueError, match="leaves the store"):
        FolderStore(tmp_path / "store").put(local, key)


def test_keys_say_where_training_stood() -> None:
    prefix = keys.trial_prefix("uid", 7)
    key = keys.snapshot_key(prefix, 3, Position(11, 40))
    assert key.startswith("uid/trial-000007/snapshot-3-11-40-")
    assert key != keys.snapshot_key(prefix, 3, Position(11, 40))
    assert keys.snapshot_position(key) == Position(11, 40)
    weights = keys.weights_key(prefix, 12, "ab" * 32)
    assert weights == "uid/trial-000007/best-12-abababababababab.pt"
    assert keys.digest_in(weights) == "ab" * 8
    assert keys.snapshot_position(weights) is None
    assert keys.digest_in(key) is None


# ---- what a disk does to a file ----


@pytest.mark.parametrize("network", [False, True], ids=["folder", "drive"])
@pytest.mark.parametrize(
    ("number", "expected"), [(errno.EIO, Unavailable), (errno.ENOTCONN, Unavailable), (errno.ENOSPC, Full)]
)
@pytest.mark.parametrize("point", ["store-put", "file-copied"])
def test_a_disk_that_refuses_is_told_by_kind(
    tmp_path: Path, local: Path, plan: Any, network: bool, number: int, expected: type[Exception], point: str
) -> None:
    fired = plan(f"{point}=raise:{number}@1")
    store = FolderStore(tmp_path / "store", network=network)
    with pytest.raises(expected):
        store.put(local, KEY)
    assert fired() == [point]
    store.put(local, KEY)


def damage(path: Path, how: str) -> None:
    if how == "truncated":
        os.truncate(path, path.stat().st_size // 2)
    elif how == "bit-flipped":
        with open(path, "r+b") as file:
            file.seek(1_000_000)
            byte = file.read(1)[0]
            file.seek(1_000_000)
            file.write(bytes([byte ^ 1]))
    else:
        path.unlink()


@pytest.mark.parametrize("network", [False, True], ids=["folder", "drive"])
@pytest.mark.parametrize("how", ["truncated", "bit-flipped"])
def test_a_file_that_comes_back_different_does_not_count_as_stored(
    tmp_path: Path, local: Path, monkeypatch: pytest.MonkeyPatch, network: bool, how: str
) -> None:
    store = FolderStore(tmp_path / "store", network=network)
    fired = []

    def after_writing(point: str) -> None:
        if point == "file-written":
            damage(tmp_path / "store" / KEY, how)
            fired.append(point)

    monkeypatch.setattr("petskin_tune.files.durable.reach", after_writing)
    with pytest.raises(Damaged, match="came back with"):
        store.put(local, KEY)
    assert fired == ["file-written"]
    assert store.entries() == []


def test_on_an_ordinary_disk_a_file_appears_whole_or_not_at_all(tmp_path: Path, local: Path, plan: Any) -> None:
    store = FolderStore(tmp_path / "store", network=False)
    fired = plan("file-synced=raise:5@1")
    with pytest.raises(Unavailable):
        store.put(local, KEY)
    assert fired() == ["file-synced"]
    assert store.entries() == []


def test_on_drive_a_file_is_emptied_before_it_is_deleted_and_never_renamed(
    tmp_path: Path, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed, sizes = [], []
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: renamed.append(1))
    store = FolderStore(tmp_path / "store", network=True)
    store.put(local, KEY)
    unlink = Path.unlink
    monkeypatch.setattr("pathlib.Path.unlink", lambda path: (sizes.append(path.stat().st_size), unlink(path)))
    store.delete(KEY)
    assert sizes == [0]
    assert renamed == []
    assert store.entries() == []


def test_a_half_written_file_on_drive_is_replaced_by_a_new_one(tmp_path: Path, local: Path, plan: Any) -> None:
    store = FolderStore(tmp_path / "store", network=True)
    fired = plan("file-copied=raise:5@1")
    with pytest.raises(Unavailable):
        store.put(local, KEY)
    assert fired() == ["file-copied"]
    first = (tmp_path / "store" / KEY).stat().st_ino
    keep_number = open(tmp_path / "store" / KEY, "rb")  # noqa: SIM115 - so that its inode number is not given again
    store.put(local, KEY)
    assert (tmp_path / "store" / KEY).stat().st_ino != first
    keep_number.close()


def test_a_drive_that_was_unmounted_is_unavailable_and_not_empty(
    tmp_path: Path, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive = [Mount(Path("/"), "ext4"), Mount(tmp_path / "drive", "fuse.drive")]
    monkeypatch.setattr(disks, "mounts", lambda: drive)
    store = FolderStore(tmp_path / "drive" / "store")
    stored = store.put(local, KEY)
    drive.pop()
    for attempt in (
        lambda: store.fetch(KEY, tmp_path / "back.pt", stored.sha256),
        lambda: store.put(local, KEY),
        store.entries,
    ):
        with pytest.raises(Unavailable, match=r"drive is not mounted any more"):
            attempt()


def test_a_drive_that_answers_transport_endpoint_is_not_connected_is_unavailable(
    tmp_path: Path, plan: Any, local: Path
) -> None:
    store = FolderStore(tmp_path / "store", network=True)
    stored = store.put(local, KEY)
    fired = plan(f"store-fetch=raise:{errno.ENOTCONN}")
    with pytest.raises(Unavailable):
        store.fetch(KEY, tmp_path / "back.pt", stored.sha256)
    assert fired() == ["store-fetch"]


# ---- opening ----


def test_opening_creates_nothing_and_checking_leaves_nothing(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    assert list(tmp_path.iterdir()) == []
    check_store(store)
    assert store.entries() == []


def test_a_store_that_cannot_be_used_is_refused_with_the_step_that_failed(tmp_path: Path, plan: Any) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match=r"store .*/file/store cannot be written to: "):
        check_store(open_store(str(tmp_path / "file" / "store")))
    fired = plan("store-fetch=raise:5")
    with pytest.raises(UsageError, match="cannot be read: "):
        check_store(open_store(str(tmp_path / "store")))
    assert fired() == ["store-fetch"]


@pytest.mark.parametrize(("url", "module"), [("s3://b/x", "s3fs"), ("gs://b/x", "gcsfs")])
def test_a_missing_package_is_named_with_what_to_install(url: str, module: str) -> None:
    script = f"""
import sys
sys.modules[{module!r}] = None  # as if it were not installed
from petskin_tune.checkpoints.opening import open_store
from petskin_tune.errors import UsageError
try:
    open_store({url!r})
except UsageError as refusal:
    print(refusal)
"""
    told = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    ).stdout
    assert told == f"Snapshots in {url[:2]}:// need a package that is not installed: pip install {module}.\n"


def test_a_url_with_credentials_is_refused() -> None:
    with pytest.raises(UsageError, match="Leave credentials"):
        open_store("s3://key:secret@bucket/x")


@pytest.mark.parametrize("network", [True, False])
def test_links_that_others_put_into_a_shared_store_lead_nowhere(tmp_path: Path, network: bool) -> None:
    victim = tmp_path / "victim" / "snapshot-1-1-0-deadbeef.pt"
    victim.parent.mkdir()
    victim.write_bytes(b"what nobody may lose")
    store = FolderStore(tmp_path / "store", network=network)
    (tmp_path / "store" / "uid" / "trial-000000").mkdir(parents=True)
    link = tmp_path / "store" / "uid" / "trial-000000" / victim.name
    link.symlink_to(victim)
    assert store.entries() == []
    store.delete(f"uid/trial-000000/{victim.name}")
    assert not link.is_symlink()
    (tmp_path / "store" / "uid" / "trial-000001").symlink_to(victim.parent)
    for attempt in (store.delete, lambda key: store.put(victim, key)):
        with pytest.raises(Unavailable, match="symbolic link"):
            attempt(f"uid/trial-000001/{victim.name}")
    assert victim.read_bytes() == b"what nobody may lose"


def test_a_store_whose_disk_is_mounted_after_the_start_is_found_and_an_empty_one_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it should be lies nothing, or an empty folder, as long as its disk is not mounted."""
    point = Path("/")
    monkeypatch.setattr(durable, "mount_of", lambda _: SimpleNamespace(point=point))
    store = FolderStore(tmp_path / "nas" / "store", network=False)
    with pytest.raises(Unavailable, match="is not there"):
        store.require()
    (tmp_path / "nas" / "store").mkdir(parents=True)
    point = tmp_path / "nas"
    with pytest.raises(Unavailable, match="is empty"):
        store.require()
    (tmp_path / "nas" / "store" / "uid").mkdir()
    store.require()
    with pytest.raises(Missing):
        store.fetch("uid/x", tmp_path / "x", "0" * 64)


def test_a_mount_that_is_dead_is_a_store_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python asks a path whether it is a folder, and hears errors that say nothing about that."""
    folder, stat = tmp_path / "store", os.stat

    def dead(path: Any, *given: Any, **named: Any) -> os.stat_result:
        if str(path).startswith(str(folder)):
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        return stat(path, *given, **named)

    with monkeypatch.context() as away:
        away.setattr(os, "stat", dead)
        store = FolderStore(folder, network=False)
        with pytest.raises(Unavailable):
            store.require()
    local = tmp_path / "local"
    local.write_bytes(b"x")
    assert store.put(local, "uid/x").size == 1


def test_a_local_disk_that_is_full_is_no_outage_of_the_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = BucketStore("gs://bucket/place", fsspec.filesystem("memory"))

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store._files, "get_file", refuse, raising=False)
    with pytest.raises(Full, match="No space left on device"):
        store.fetch("uid/x", tmp_path / "x", "0" * 64)
    assert list(tmp_path.iterdir()) == []
