"""Users who may only look: views work and write nothing, what writes refuses in one sentence, the doctor says so."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy
from click.testing import CliRunner
from sqlalchemy.engine import URL

from petskin_tune.cli import petskin_tune, tune_worker
from petskin_tune.database.storage import open_storage
from petskin_tune.doctor import checks
from petskin_tune.doctor.examination import Check
from petskin_tune.errors import UsageError
from petskin_tune.study import attributes
from petskin_tune.study.creation import create_study
from tests.support.servers import Server, maintenance, running_server
from tests.support.studies import a_spec

NOBODY = 65534
VIEWS = (["status"], ["show"], ["diagnose"], ["report", "-o", "report.html"])
WRITERS = (["stop"], ["try", "lr0=0.002"], ["init"], ["tune-worker"])


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as running:
        yield running


def study_in(url: str) -> None:
    create_study(
        open_storage(url), a_spec(), points=(), attributes_of_study={attributes.STORE: "home:checkpoints"}
    ).storage.engine.dispose()


def viewer(server: Server, name: str, rights: str) -> URL:
    """A new role on a new database that has a study, with the rights that ``rights`` grants it."""
    url = server.new_database()
    study_in(url)
    with maintenance(server.url.set(database=sqlalchemy.make_url(url).database)) as connection:
        connection.exec_driver_sql(f"CREATE ROLE {name} LOGIN; {rights.format(name=name)}")
    return sqlalchemy.make_url(url).set(username=name)


def typed(*words: str, home: Path, storage: URL | None = None) -> tuple[int, str]:
    """Exit code and last line of a command; an error that nobody foresaw is raised."""
    where = ["--study", a_spec().study, "--home", str(home)]
    where += ["--storage", storage.render_as_string(hide_password=False)] if storage else []
    command, arguments = (tune_worker, []) if words == ("tune-worker",) else (petskin_tune, list(words))
    result = CliRunner().invoke(command, arguments[:1] + where + arguments[1:])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, (result.output.splitlines() or [""])[-1]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def only_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor looks at the database alone."""
    looked = Check("other", "ok", "not looked at")
    for name in ("_versions", "_environment", "_clock", "_store", "_weights", "_data", "_disk"):
        monkeypatch.setattr(checks, name, lambda *_: looked)


READ = "GRANT USAGE ON SCHEMA public TO {name}; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}"
READ_ONLY = (
    "GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}; ALTER ROLE {name} SET default_transaction_read_only = on"
)


@pytest.mark.parametrize(("name", "rights"), [("looker", READ), ("sworn", READ_ONLY)])
def test_a_role_that_may_only_read_sees_everything_and_changes_nothing(
    name: str, rights: str, server: Server, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = viewer(server, name, rights)
    for words in VIEWS:
        assert typed(*words, home=here / "home", storage=url)[0] == 0, words
    for words in WRITERS:
        code, said = typed(*words, home=here / "home", storage=url)
        assert (code, said.startswith("error: This user may only read the database")) == (2, True), (words, said)
    only_the_database(monkeypatch)
    assert typed("doctor", home=here / "home", storage=url)[0] == 2
    assert not (here / "home").exists()


def test_a_database_without_the_right_to_create_is_a_problem_for_the_doctor_as_for_the_worker(
    server: Server, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = sqlalchemy.make_url(server.new_database())
    with maintenance(url) as connection:
        connection.exec_driver_sql("CREATE ROLE guest LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    url = url.set(username="guest")
    only_the_database(monkeypatch)
    for words in (["doctor"], ["init"], ["tune-worker"]):
        result = CliRunner().invoke(
            tune_worker if words == ["tune-worker"] else petskin_tune,
            [*(words if words != ["tune-worker"] else []), "--study", "demo", "--home", "home", "--storage", str(url)],
        )
        assert result.exit_code == 2, result.output
        assert "no right to CREATE tables" in result.output


# ---- SQLite ----


@pytest.fixture
def closed() -> Iterator[Path]:
    """A folder of somebody else's, in which this user may look."""
    folder = Path(tempfile.mkdtemp(prefix="petskin-tune-rights-"))
    folder.chmod(0o755)
    yield folder
    (folder / "home").chmod(0o755)
    shutil.rmtree(folder)


@contextlib.contextmanager
def nobody(*paths: Path) -> Iterator[None]:
    """Be a user who may not write to ``paths``; who runs the tests as root becomes another one for so long."""
    modes = {path: path.stat().st_mode for path in paths}
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(NOBODY)
        yield
    finally:
        if root:
            os.seteuid(0)
        for path, mode in modes.items():
            path.chmod(mode)


def home_with_a_study(folder: Path, left: str) -> Path:
    home = folder / "home"
    home.mkdir()
    study_in(f"sqlite:///{home}/tune.db")
    if left == "a log that was not folded in":
        connection = sqlite3.connect(home / "tune.db")
        connection.execute("UPDATE studies SET study_name = study_name")
        connection.commit()
        for suffix in ("", "-wal"):
            shutil.copyfile(home / f"tune.db{suffix}", home / f"kept.db{suffix}")
        connection.close()
        for suffix in ("", "-wal"):
            (home / f"kept.db{suffix}").replace(home / f"tune.db{suffix}")
        assert (home / "tune.db-wal").stat().st_size > 0
    return home


@pytest.mark.parametrize("left", ["nothing", "a log that was not folded in"])
def test_a_home_that_may_only_be_read_is_shown_and_stays_as_it_is(left: str, closed: Path, here: Path) -> None:
    home = home_with_a_study(closed, left)
    before = {path: path.read_bytes() for path in home.iterdir()}
    here.chmod(0o777)
    report = str(closed.parent / f"{closed.name}.html")
    with nobody(home, *before):
        for words in (*VIEWS[:3], ["report", "-o", report]):
            assert typed(*words, home=home)[0] == 0, words
        for words in WRITERS:
            code, said = typed(*words, home=home)
            assert (code, said.startswith("error: This user may only read the database")) == (2, True), (words, said)
    os.unlink(report)
    assert {path: path.read_bytes() for path in home.iterdir()} == before


@pytest.mark.parametrize("below", ["", "mine/runs"])
def test_a_home_in_a_folder_that_may_not_be_entered_is_refused(below: str, closed: Path, here: Path) -> None:
    (closed / "home").mkdir(mode=0o000)
    here.chmod(0o777)
    with nobody():
        for words in (*VIEWS, *WRITERS, ["best"], ["trials"], ["doctor"]):
            code, said = typed(*words, home=closed / "home" / below)
            assert (code, said.startswith("error: "), "Permission denied" in said) == (2, True, True), (words, said)
    assert list(here.iterdir()) == []


def test_an_older_database_that_may_only_be_read_is_refused(closed: Path) -> None:
    home = home_with_a_study(closed, "nothing")
    with contextlib.closing(sqlite3.connect(home / "tune.db")) as connection:
        connection.execute("UPDATE petskin_tune_schema SET version = 1")
        connection.commit()
        connection.execute("PRAGMA journal_mode = DELETE")
    with (
        nobody(home, *home.iterdir()),
        pytest.raises(UsageError, match="older petskin-tune, and this user may not write"),
    ):
        open_storage(f"sqlite:///{home}/tune.db", read_only=True)
