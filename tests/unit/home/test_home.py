from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from petskin_tune.checkpoints.opening import store_address
from petskin_tune.errors import UsageError
from petskin_tune.files import disks
from petskin_tune.files.disks import Mount
from petskin_tune.home import home
from petskin_tune.home.home import IN_THE_HOME, Home, database_host, hosted_notebook, resolve_home, sqlite_file

COLAB = {"COLAB_RELEASE_TAG": "release-colab"}
KAGGLE = {"KAGGLE_KERNEL_RUN_TYPE": "Interactive", **COLAB}
POSTGRES = "postgresql://tuner:secret@db.example.org/tune"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def mounted(monkeypatch: pytest.MonkeyPatch, *points: tuple[Path | str, str]) -> None:
    table = [Mount(Path("/"), "ext4"), *(Mount(Path(point), kind) for point, kind in points)]
    monkeypatch.setattr(disks, "mounts", lambda: table)


def resolve(environ: dict[str, str] | None = None, **asked: object) -> Home:
    names = {"home": None, "storage": None, "checkpoints": None, "study": "petskin"}
    return resolve_home(**{**names, **asked}, environ=environ or {})  # type: ignore[arg-type]


def nothing_held(_url: str) -> bool:
    return False


def test_the_command_line_goes_before_the_environment_and_that_before_the_default(tmp_path: Path) -> None:
    assert resolve().folder == tmp_path / "tune-home"
    assert resolve({"TUNE_HOME": "from-environment"}).folder == tmp_path / "from-environment"
    assert resolve({"TUNE_HOME": "from-environment"}, home="asked").folder == tmp_path / "asked"
    assert resolve({"TUNE_STORAGE": POSTGRES}).storage_url == POSTGRES
    assert resolve({"TUNE_STORAGE": POSTGRES}, storage="sqlite:///x.db").storage_url == "sqlite:///x.db"
    assert resolve({"TUNE_CHECKPOINTS": "s3://bucket/a"}).asked_store == "s3://bucket/a"
    assert resolve({"TUNE_CHECKPOINTS": "s3://bucket/a"}, checkpoints="gs://b").asked_store == "gs://b"


def test_a_home_holds_database_checkpoints_and_work_and_creates_nothing_before_it_starts(tmp_path: Path) -> None:
    found = resolve(home="mine")
    assert list(tmp_path.iterdir()) == []
    assert found.database == tmp_path / "mine" / "tune.db"
    assert found.store_for(None, nothing_held) == str(tmp_path / "mine" / "checkpoints")
    assert found.work == tmp_path / "mine" / "work"
    found.start()
    assert found.work.is_dir()


def test_a_home_that_cannot_be_created_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match=r"/file/home cannot be created \(Not a directory\): .*--home"):
        resolve(home="file/home").start()
    assert not resolve(home="file/home").is_there


def test_colab_without_a_home_is_refused_in_the_promised_words() -> None:
    with pytest.raises(UsageError) as refusal:
        resolve(COLAB)
    assert str(refusal.value) == (
        "This machine's disk is deleted when the session ends. "
        "Type: tune-worker --study petskin --home /content/drive/MyDrive/petskin"
    )


def test_kaggle_without_a_home_is_refused_with_a_way_that_exists_there() -> None:
    with pytest.raises(
        UsageError, match=r"^This machine's disk is deleted when the session ends\. .*--checkpoints s3:"
    ):
        resolve(KAGGLE)


@pytest.mark.parametrize("machine", [COLAB, KAGGLE], ids=["colab", "kaggle"])
def test_a_hosted_notebook_takes_a_home_a_database_or_insistence(machine: dict[str, str]) -> None:
    assert resolve(machine, home="mine")
    assert resolve(machine, storage=POSTGRES)
    assert resolve({**machine, "TUNE_HOME": "mine"})
    assert resolve({**machine, "TUNE_STORAGE": POSTGRES})
    assert resolve(machine, ephemeral=True)


def test_checkpoints_alone_do_not_save_the_database_of_a_hosted_notebook() -> None:
    with pytest.raises(UsageError, match="deleted when the session ends"):
        resolve({**COLAB, "TUNE_CHECKPOINTS": "s3://bucket"})


def test_api_credentials_of_kaggle_on_a_desktop_are_no_kaggle_machine() -> None:
    assert hosted_notebook({"KAGGLE_USERNAME": "me", "KAGGLE_KEY": "x"}) is None


def test_colab_is_known_by_its_package_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "google" / "colab").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path))
    import importlib

    importlib.invalidate_caches()
    for name in [name for name in sys.modules if name == "google" or name.startswith("google.")]:
        monkeypatch.delitem(sys.modules, name)
    assert hosted_notebook({}) == "colab"


def test_a_home_on_a_drive_that_is_not_mounted_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    mounted(monkeypatch)
    with pytest.raises(UsageError, match=r"Google Drive is not mounted at /content/drive: .*drive\.mount"):
        resolve(COLAB, home="/content/drive/MyDrive/petskin")
    mounted(monkeypatch, ("/content/drive", "fuse.drive"))
    assert resolve(COLAB, home="/content/drive/MyDrive/petskin").network


def test_on_a_network_home_database_and_work_lie_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted(monkeypatch, (tmp_path / "drive", "fuse.drive"))
    environ = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    found = resolve(environ, home="drive/petskin")
    assert found.network
    assert found.database is not None
    assert found.database.is_relative_to(tmp_path / "cache" / "petskin-tune")
    assert found.work.is_relative_to(tmp_path / "cache" / "petskin-tune")
    assert found.store_for(None, nothing_held) == str(tmp_path / "drive" / "petskin" / "checkpoints")
    assert resolve(environ, home="drive/other").database != found.database


def test_a_home_on_a_network_disk_whose_path_is_not_utf_8_needs_another_database(tmp_path: Path) -> None:
    environ = {"TUNE_NETWORK_HOME": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    odd = os.fsdecode("털".encode("cp949"))
    with pytest.raises(UsageError, match=r"The home .*xc5.xd0 cannot be used: its path is not UTF-8"):
        resolve(environ, home=odd)
    found = resolve(environ, home=odd, storage=POSTGRES)
    assert found.work != resolve(environ, home="털", storage=POSTGRES).work
    hidden = resolve(environ, home="zero\u200bwidth")  # which only the path of a database may not have
    assert hidden.database is not None
    assert hidden.database.is_relative_to(tmp_path / "cache")


def test_logs_lie_in_the_home_unless_that_is_slow_to_append_to(tmp_path: Path) -> None:
    assert resolve(home="here").logs == tmp_path / "here" / "logs"
    network = resolve({"TUNE_NETWORK_HOME": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}, home="here")
    assert network.logs.is_relative_to(tmp_path / "cache" / "petskin-tune")


def test_the_variable_overrules_the_mounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert resolve({"TUNE_NETWORK_HOME": "1"}).network
    mounted(monkeypatch, (tmp_path, "nfs4"))
    assert resolve().network
    assert not resolve({"TUNE_NETWORK_HOME": "0"}).network


def test_a_network_home_brings_its_database_from_machine_to_machine(tmp_path: Path) -> None:
    def machine(name: str) -> Home:
        found = resolve({"TUNE_NETWORK_HOME": "1", "XDG_CACHE_HOME": str(tmp_path / name)}, home="drive")
        assert found.database is not None
        assert not found.database.is_relative_to(tmp_path / "drive")
        return found

    first = machine("first")
    first.start()
    assert first.database is not None
    with contextlib.closing(sqlite3.connect(first.database)) as connection, connection:
        connection.execute("CREATE TABLE epochs AS SELECT 7 AS epoch")
    assert first.is_saved
    first.epoch_saved()
    first.save()
    assert first.close()
    second = machine("second")
    second.start("reader")
    assert second.database is not None
    with contextlib.closing(sqlite3.connect(second.database)) as connection:
        assert connection.execute("SELECT epoch FROM epochs").fetchall() == [(7,)]
    assert second.close()


def _epochs(home: Home) -> list[int]:
    assert home.database is not None
    with contextlib.closing(sqlite3.connect(home.database)) as connection:
        return [row[0] for row in connection.execute("SELECT epoch FROM epochs")]


def _write(home: Home, epoch: int) -> sqlite3.Connection:
    """A connection that stays open, so that what it wrote is in the write-ahead log alone."""
    assert home.database is not None
    connection = sqlite3.connect(home.database)
    connection.execute("PRAGMA journal_mode = WAL")
    with connection:
        connection.execute(f"CREATE TABLE epochs AS SELECT {epoch} AS epoch")
    return connection


def _type(refusal: pytest.ExceptionInfo[UsageError]) -> None:
    """The line that the refusal says to type."""
    subprocess.run(["sh", "-c", str(refusal.value).partition("typing: ")[2]], check=True)


def test_a_home_goes_from_a_local_disk_to_drive_and_back_by_the_lines_that_are_said(tmp_path: Path) -> None:
    local = resolve(home="my 집")
    local.start()
    with contextlib.closing(_write(local, 7)):
        assert (tmp_path / "my 집" / "tune.db-wal").stat().st_size > 0
        shutil.copytree(tmp_path / "my 집", tmp_path / "my drive")
    drive = {"TUNE_NETWORK_HOME": "1", "XDG_CACHE_HOME": str(tmp_path / "first")}
    with pytest.raises(UsageError, match="comes from a local disk") as refused:
        resolve(drive, home="my drive")
    _type(refused)
    said: list[str] = []
    moved = resolve(drive, home="my drive")
    moved.start(say=said.append)
    assert len(said) == 1
    assert "came from a local disk" in said[0]
    assert _epochs(moved) == [7]
    assert moved.database is not None
    with contextlib.closing(sqlite3.connect(moved.database)) as connection, connection:
        connection.execute("UPDATE epochs SET epoch = 8")
    moved.epoch_saved()
    assert moved.close()
    shutil.copytree(tmp_path / "my drive", tmp_path / "back")
    with pytest.raises(UsageError, match="comes from a network disk") as refused:
        resolve(home="back")
    _type(refused)
    back = resolve(home="back")
    back.start()
    assert _epochs(back) == [8]
    shutil.copytree(tmp_path / "back", tmp_path / "again")
    with pytest.raises(UsageError, match="comes from a local disk"):
        resolve(drive, home="again")


def test_a_home_with_two_databases_is_refused_on_a_network_disk(tmp_path: Path) -> None:
    drive = {"TUNE_NETWORK_HOME": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    home = resolve(drive, home="drive")
    home.start()
    with contextlib.closing(_write(home, 7)):
        pass
    home.epoch_saved()
    assert home.close()
    (tmp_path / "drive" / "tune.db").write_bytes(b"of another time")
    with pytest.raises(UsageError, match="holds two databases"):
        resolve(drive, home="drive")


def test_a_damaged_database_of_a_moved_home_is_refused(tmp_path: Path) -> None:
    local = resolve(home="mine")
    local.start()
    with contextlib.closing(_write(local, 7)):
        pass
    database = tmp_path / "mine" / "tune.db"
    database.write_bytes(database.read_bytes()[:5000])
    drive = {"TUNE_NETWORK_HOME": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    with pytest.raises(UsageError) as refused:
        resolve(drive, home="mine")
    _type(refused)
    with pytest.raises(UsageError, match="is damaged"):
        resolve(drive, home="mine").start()


def test_a_server_keeps_the_study_of_a_network_home_and_nothing_is_copied(tmp_path: Path) -> None:
    found = resolve({"TUNE_NETWORK_HOME": "1", "XDG_CACHE_HOME": str(tmp_path / "c")}, home="drive", storage=POSTGRES)
    found.start()
    found.epoch_saved()
    found.save()
    assert found.close()
    assert list((tmp_path / "drive").iterdir()) == []
    assert found.work.is_dir()


def test_a_store_inside_the_home_is_on_the_homes_disk(tmp_path: Path) -> None:
    found = resolve({"TUNE_NETWORK_HOME": "1"}, home="drive")
    assert found.network_store(found.store_for(None, nothing_held)) is True
    assert found.network_store(str(tmp_path / "elsewhere")) is None
    assert found.network_store("s3://bucket") is None
    assert resolve(home="here").network_store(str(tmp_path / "here" / "checkpoints")) is False


def test_a_cache_folder_on_a_network_disk_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted(monkeypatch, (tmp_path, "nfs4"))
    folder = disks.local_folder({"XDG_CACHE_HOME": str(tmp_path)})
    assert not folder.is_relative_to(tmp_path)


def test_the_longest_and_latest_mount_decides() -> None:
    table = [Mount(Path("/"), "9p"), Mount(Path("/mnt/a"), "nfs4"), Mount(Path("/mnt/a/disk"), "ext4")]
    assert not disks.is_network(Path("/elsewhere"), table)
    assert disks.is_network(Path("/mnt/a/x"), table)
    assert not disks.is_network(Path("/mnt/ab"), table)
    assert not disks.is_network(Path("/mnt/a/disk/x"), table)
    assert disks.is_network(Path("/mnt/a/disk/x"), [*table, Mount(Path("/mnt/a/disk"), "fuse.sshfs")])
    assert not disks.is_network(Path("/mnt/b/x"), [*table, Mount(Path("/mnt/b"), "fuse.fuse-overlayfs")])


def test_sqlite_on_a_network_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted(monkeypatch, (tmp_path / "nfs", "nfs4"))
    with pytest.raises(UsageError, match=f"SQLite gets damaged on a network disk .*--home {tmp_path}/nfs"):
        resolve(storage=f"sqlite:///{tmp_path}/nfs/tune.db")


def test_a_database_elsewhere_with_snapshots_here_is_refused_unless_insisted_upon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"db\.example\.org .*--local-checkpoints") as refusal:
        resolve(storage=POSTGRES).store_for(None, nothing_held)
    assert "secret" not in str(refusal.value)
    assert resolve(storage=POSTGRES, local_checkpoints=True).store_for(None, nothing_held)
    assert resolve(storage=POSTGRES).store_for("s3://bucket/a", nothing_held) == "s3://bucket/a"
    assert resolve(storage="postgresql://tuner@localhost/tune").store_for(None, nothing_held)
    mounted(monkeypatch, (tmp_path, "nfs4"))
    assert resolve(storage=POSTGRES).store_for(None, nothing_held)


@pytest.mark.parametrize(
    ("storage", "host"),
    [
        ("postgresql://u@/db?host=db.example.com", "db.example.com"),
        ("postgresql://u@localhost/db?hostaddr=192.0.2.1", "192.0.2.1"),
        ("postgresql://u@localhost,db.example.com/db", "db.example.com"),
    ],
)
def test_a_database_elsewhere_is_known_by_every_spelling_of_its_host(storage: str, host: str) -> None:
    for named in ({"storage": storage}, {"environ": {"TUNE_STORAGE": storage}}):
        with pytest.raises(UsageError, match=rf"database is on {re.escape(host)} but .* on this machine's disk"):
            resolve(**named).store_for(None, nothing_held)


def test_snapshots_here_that_were_insisted_upon_once_need_not_be_insisted_upon_again(tmp_path: Path) -> None:
    home = resolve(storage=POSTGRES)
    store = str(tmp_path / "tune-home" / "checkpoints")
    assert home.store_for(None, lambda url: url == store) == store
    assert home.local_checkpoints


@pytest.mark.parametrize("machine", [COLAB, KAGGLE], ids=["colab", "kaggle"])
def test_what_an_ephemeral_worker_has_made_can_be_looked_at(machine: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "tune-home").mkdir()
    (tmp_path / "tune-home" / "tune.db").touch()
    assert resolve(machine, command="petskin-tune status")
    with pytest.raises(UsageError, match="deleted when the session ends"):
        resolve(machine)


def test_the_store_of_a_home_is_found_where_the_home_is_now(tmp_path: Path) -> None:
    recorded = resolve(home="here").to_record
    assert recorded == IN_THE_HOME
    assert resolve(home="there").store_for(recorded, nothing_held) == str(tmp_path / "there" / "checkpoints")


def test_another_store_than_the_studys_is_refused_unless_it_holds_the_study() -> None:
    asked = resolve(checkpoints="s3://new/place")
    with pytest.raises(UsageError, match=r"keeps its snapshots in gs://old, and s3://new/place holds none of them"):
        asked.store_for("gs://old", nothing_held)
    assert asked.store_for("gs://old", lambda url: url == "s3://new/place") == "s3://new/place"
    assert asked.store_for("s3://new/place", nothing_held) == "s3://new/place"


@pytest.mark.parametrize("url", ["s3://key:secret@bucket/x", "gs://token@bucket", "s3://bucket/x?key=secret"])
def test_credentials_in_a_stores_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UsageError, match="Leave credentials and options out of the store's URL") as refusal:
        store_address(url)
    assert "secret" not in str(refusal.value)
    assert "token@" not in str(refusal.value)


NO_STORES = [
    "file://u:SECRET@h/x",
    "file:///u:SECRET@h/x",
    "file://new",
    "file:x",
    "FILE:///x",
    "s3:/k:SECRET@b",
    "s3:k",
]
NO_STORES += ["x:/y", "u:SECRET@h/x", "//u:SECRET@h/x", "sftp://u:SECRET@h/x", "u:SECRET@h://x", "a\nb", "s3://b/\nx"]


@pytest.mark.parametrize("url", ["http://x/y", "s3://", "gs:///", *NO_STORES])
def test_a_url_that_is_no_store_is_refused_and_no_secret_of_it_is_repeated(url: str) -> None:
    with pytest.raises(UsageError, match=r"^(The store's URL|A store is)") as refusal:
        store_address(url)
    assert "SECRET" not in str(refusal.value)


@pytest.mark.parametrize("url", ["s3:/k:SECRET@b", "postgres:/u:SECRET@h/x", "u:SECRET@h/x", "//u:SECRET@h/x"])
def test_what_looks_like_a_url_is_no_home(url: str) -> None:
    with pytest.raises(UsageError, match="A home is a folder of this machine, not a URL"):
        resolve(home=url)


@pytest.mark.parametrize("path", ["./a:/b", "a:b", "12:30/x", "me@work/x", "piel/피부"])
def test_a_folder_may_have_colons_in_its_name(path: str) -> None:
    assert store_address(path) == str(Path.cwd() / path)


def test_a_folder_is_kept_as_an_absolute_path(tmp_path: Path) -> None:
    assert store_address("snapshots") == store_address(f"file://{tmp_path}/snapshots") == str(tmp_path / "snapshots")


def test_database_urls_are_told_apart() -> None:
    assert sqlite_file("sqlite:////a/b.db") == Path("/a/b.db")
    assert sqlite_file("sqlite://") is None
    assert sqlite_file(POSTGRES) is None
    assert database_host("postgresql+psycopg2:///tune?host=/run/postgresql") is None
    assert database_host(POSTGRES) == "db.example.org"
    with pytest.raises(UsageError, match="cannot be read"):
        database_host("nonsense:secret")


def test_importing_the_home_stays_light() -> None:
    heavy = "{'torch', 'sqlalchemy', 'optuna', 'fsspec', 'psutil', 'ultralytics'}"
    script = f"import sys, {home.__name__}; assert not {heavy} & set(sys.modules), sys.modules.keys()"
    subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": os.pathsep.join(sys.path)})


@pytest.mark.parametrize("home", ["s3://bucket/x", "sqlite:///tune.db", "postgresql://u:hunter2@h/d"])
def test_a_url_is_no_home(home: str) -> None:
    with pytest.raises(UsageError, match=r"folder of this machine, not a URL: .*--checkpoints .*--storage") as refused:
        resolve(home=home)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("home", ["a\nb", "a\0b", "\x1b[2J", "\udcc7"])
def test_a_home_that_no_url_could_hold_is_named_as_the_home(home: str) -> None:
    with pytest.raises(UsageError, match=r"^The home .* cannot be used: its (name|path) ") as refused:
        resolve(home=home)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("store", ["s3:/key:hunter2@bucket", "S3:bucket", "gs:/bucket", "https:/h/x", "file:x", "a\0b"])
def test_a_mistyped_url_is_no_folder_of_snapshots(store: str) -> None:
    with pytest.raises(UsageError, match="The store's URL cannot be read") as refused:
        resolve(checkpoints=store)
    assert "hunter2" not in str(refused.value)
