from __future__ import annotations

import re
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from click.testing import CliRunner, Result

from petskin_tune.checkpoints.folder import FolderStore
from petskin_tune.cli import petskin_tune, tune_worker
from petskin_tune.files.durable import Unavailable
from petskin_tune.study import attributes
from petskin_tune.study.best.gain import Repeats
from tests.support.made_up import ELSEWHERE, GONE, MadeUp, a_spec
from tests.support.soak import first


class Kept:
    """A home with two studies, their files, and files of a person's beside and among them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.doomed, self.other = (MadeUp(home, a_spec(name)) for name in ("doomed", "other"))
        for made in (self.doomed, self.other):
            made.add(best=0.2)
            made.add("PRUNED", 0.02, 5)
            made.add("RUNNING", 0.1, 3, lease="released")
            made.add("WAITING", epochs=0, params={})
        self.persons = self._write("notes.txt", "checkpoints/mine.pt", f"checkpoints/{self.uid}/mine.txt", "work/mine")
        self.persons += self._write(f"work/trials/mine-{self.uid}-000000", "work/data/mine/a.jpg", "logs/a.log")
        self.others = self._files(self.other.study.uid, "other")
        self.files = self._files(self.uid, "doomed")
        self._trials = [trial._trial_id for trial in self.doomed.study.trials()]

    @property
    def uid(self) -> str:
        return self.doomed.study.uid

    def _files(self, uid: str, name: str) -> list[Path]:
        return self._write(
            f"checkpoints/{uid}/trial-000000/best-27-0123456789abcdef.pt",
            f"checkpoints/{uid}/trial-000000/results.csv",
            f"checkpoints/{uid}/trial-000002/snapshot-1-3-0-abcd.pt",
            f"work/trials/{uid}-000000/train.log",
            f"work/trials/{uid}-000002-4711/weights/last.pt",
            f"work/outbox/{uid}-000002.jsonl",
            f"work/pictures/{uid}-000000-4711/best.pt",
            f"checkpoints/{uid}/trial-000000/pictures-0123456789abcdef.zip",
            f"work/data/subset-{name}/0123456789abcdef/data.yaml",
            f"work/data/subset-{name}/0123456789abcdef/studies/{uid}",
        )

    def _write(self, *names: str) -> list[Path]:
        for name in names:
            (self.home / name).parent.mkdir(parents=True, exist_ok=True)
            (self.home / name).write_text(name)
        return [self.home / name for name in names]

    def rows(self) -> dict[str, int]:
        """How many rows of the doomed study each table has, ours and Optuna's."""
        tables = sqlalchemy.MetaData()
        with self.doomed.storage.engine.connect() as connection:
            tables.reflect(connection)
            study = self.doomed.study.id
            return {
                table.name: connection.execute(
                    sqlalchemy.select(sqlalchemy.func.count()).where(
                        table.c.study_id == study if "study_id" in table.c else table.c.trial_id.in_(self._trials)
                    )
                ).scalar_one()
                for table in tables.sorted_tables
                if {"study_id", "trial_id"} & set(table.c.keys())
            }


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    return Kept(home)


def delete(kept: Kept, *words: str, answer: str = "") -> Result:
    return CliRunner().invoke(petskin_tune, ["delete", "doomed", "--home", str(kept.home), *words], input=answer)


def test_a_study_goes_with_its_rows_and_files_and_nothing_else_does(kept: Kept) -> None:
    before = kept.rows()
    assert {name for name, count in before.items() if count} >= {"trial_leases", "trials", "studies", "trial_params"}
    ended = delete(kept, "--yes")
    assert ended.exit_code == 0, ended.output
    assert "deleted: study doomed: 4 trials, best mask mAP 0.200, 4 files" in ended.stdout
    assert f"{kept.uid}/mine.txt" in ended.stdout
    assert not any(kept.rows().values())
    assert [path for path in kept.files if path.exists()] == []
    assert [path for path in kept.persons + kept.others if not path.exists()] == []
    assert len(kept.other.study.trials()) == 4
    assert not (kept.home / f"checkpoints/{kept.uid}/trial-000000").exists()
    assert not (kept.home / "work/data/subset-doomed").exists()
    again = delete(kept, "--yes")
    assert again.exit_code == 2
    assert "there is no study `doomed` in this database; known are other" in again.stderr


def test_a_subset_that_nobody_has_marked_may_be_that_of_another_database_and_stays(kept: Kept) -> None:
    (kept.home / f"work/data/subset-doomed/0123456789abcdef/studies/{kept.uid}").unlink()
    ended = delete(kept, "--yes")
    assert ended.exit_code == 0, ended.output
    subset = kept.home / "work/data/subset-doomed/0123456789abcdef"
    assert f"left, because it is not the study's: {subset}" in ended.stdout
    assert (subset / "data.yaml").exists()


@pytest.mark.parametrize("answer", first(1, ["n\n", "\n", ""]))
def test_nothing_is_deleted_unless_a_person_says_yes(kept: Kept, answer: str) -> None:
    ended = delete(kept, answer=answer)
    assert ended.exit_code == 2
    assert "Delete study doomed: 4 trials, best mask mAP 0.200, 4 files (" in ended.stdout
    assert ended.stdout.endswith("nothing is deleted\n")
    assert all(path.exists() for path in kept.files)
    assert CliRunner().invoke(petskin_tune, ["status", "--study", "doomed", "--home", str(kept.home)]).exit_code == 0


def test_yes_may_be_typed(kept: Kept) -> None:
    assert delete(kept, answer="y\n").exit_code == 0


@pytest.mark.parametrize(
    ("where", "said"),
    [("here", "petskin-tune stop --study doomed"), ("elsewhere", r"If it is gone already, wait \d+ \w")],
)
def test_a_study_at_work_is_refused(kept: Kept, where: str, said: str) -> None:
    identity = ELSEWHERE if where == "elsewhere" else None
    kept.doomed.add("RUNNING", 0.1, 3, lease="running", worker="colab-7", identity=identity)
    ended = delete(kept, "--yes")
    assert ended.exit_code == 2
    assert "1 worker at work on doomed: colab-7 trains trial 4" in ended.stderr
    assert re.search(said, ended.stderr)
    assert all(path.exists() for path in kept.files)


def test_workers_whose_process_is_dead_hinder_nobody(kept: Kept) -> None:
    kept.doomed.add("RUNNING", 0.1, 3, lease="running", identity=GONE)
    assert delete(kept, "--yes").exit_code == 0


@pytest.mark.parametrize("survives", first(1, range(3)))
def test_a_deletion_that_was_killed_half_way_is_ended_by_the_same_command_and_nobody_works_meanwhile(
    kept: Kept, survives: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine, left = FolderStore.delete, iter(range(survives))

    def dies(store: FolderStore, key: str) -> None:
        if next(left, None) is None:
            raise Unavailable("the disk is gone")
        genuine(store, key)

    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "delete", dies)
        assert delete(kept, "--yes").exit_code == 2
    for command in (["status"], ["stop"], ["show"]):
        refused = CliRunner().invoke(petskin_tune, [*command, "--study", "doomed", "--home", str(kept.home)])
        assert refused.exit_code == 2
        assert "is being deleted. To end it, type: petskin-tune delete doomed, with" in refused.stderr
    refused = CliRunner().invoke(tune_worker, ["--study", "doomed", "--home", str(kept.home)])
    assert refused.exit_code == 2
    assert "is being deleted" in refused.stderr
    assert "being deleted" in CliRunner().invoke(petskin_tune, ["studies", "--home", str(kept.home)]).stdout
    assert delete(kept, "--yes").exit_code == 0
    assert not any(kept.rows().values())
    assert [path for path in kept.files if path.exists()] == []


def test_a_study_of_somebody_elses_is_not_deleted(kept: Kept) -> None:
    optuna.create_study(storage=kept.doomed.storage, study_name="foreign")
    ended = CliRunner().invoke(petskin_tune, ["delete", "foreign", "--yes", "--home", str(kept.home)])
    assert ended.exit_code == 2
    assert "did not create" in ended.stderr


def called(made: MadeUp, name: str) -> None:
    """A study has the name that somebody gave it in the database itself."""
    spec = made.study.optuna.user_attrs[attributes.SPEC]
    made.study.optuna.set_user_attr(attributes.SPEC, {**spec, "study": name})
    with made.storage.engine.begin() as connection:
        row = {"name": name, "id": made.study.id}
        connection.execute(sqlalchemy.text("UPDATE studies SET study_name = :name WHERE study_id = :id"), row)


def test_a_study_whose_name_leads_to_another_folder_is_not_deleted(kept: Kept) -> None:
    called(MadeUp(kept.home, a_spec("odd")), "doomed/../mine")
    ended = CliRunner().invoke(petskin_tune, ["delete", "doomed/../mine", "--yes", "--home", str(kept.home)])
    assert ended.exit_code == 2, ended.output
    assert "'doomed/../mine' in the database has lost its name or its uid" in ended.stderr
    assert [path for path in kept.persons + kept.files if not path.exists()] == []


@pytest.mark.parametrize("trial", [0, "0", None, "x/../../data/mine"])
def test_a_study_that_is_not_called_as_repetitions_are_stays_whatever_it_says_of_itself(
    kept: Kept, trial: object
) -> None:
    about = Repeats(study="doomed", uid=kept.uid, trial=0, against="defaults").model_dump()
    kept.other.study.optuna.set_user_attr(attributes.REPEATS, {**about, "trial": trial})
    if isinstance(trial, str):
        odd = MadeUp(kept.home, a_spec("odd"))
        odd.study.optuna.set_user_attr(attributes.REPEATS, {**about, "trial": trial})
        called(odd, f"doomed-repeat-{trial}")
    ended = delete(kept, "--yes")
    assert ended.exit_code == 0, ended.output
    assert [path for path in kept.persons + kept.others if not path.exists()] == []
    assert len(kept.other.study.trials()) == 4


def test_of_two_studies_with_one_uid_neither_is_deleted(kept: Kept) -> None:
    kept.other.study.set_attribute(attributes.UID, kept.uid)
    ended = delete(kept, "--yes")
    assert ended.exit_code == 2
    assert "The studies doomed and other have one uid in this database" in ended.stderr
    assert all(path.exists() for path in kept.files)
    assert len(kept.doomed.study.trials()) == 4
