"""A path that cannot be looked at or written to is a sentence, not a traceback."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from petskin_tune.datasets import source
from petskin_tune.errors import UsageError
from petskin_tune.files import atomic, paths
from petskin_tune.study.study_file import file as study_file
from petskin_tune.trial.model import files as model_files

STRANGE = ["x" * 300, "x" * 300 + ".yaml", "a\0b.pt", "~nobody/x.pt", "**.yaml", "[x.yaml", "/".join(["d" * 200] * 30)]


@pytest.mark.parametrize("text", STRANGE)
def test_a_name_that_no_file_can_have_is_that_of_a_missing_one(text: str, tmp_path: Path) -> None:
    assert study_file.find(text) is None
    with pytest.raises(UsageError, match="is not here"):
        model_files.find_model(text, [tmp_path])
    with pytest.raises(UsageError, match="is missing"):
        source.prepare(text, base=tmp_path, cache=tmp_path)


@pytest.mark.parametrize(
    "look",
    [
        lambda path: study_file.find(str(path / "x.yaml")),
        lambda path: model_files.find_model(str(path / "x.pt")),
        lambda path: source.prepare(str(path / "data.yaml"), base=path, cache=path.parent),
    ],
    ids=["study", "model", "data"],
)
def test_a_folder_that_may_not_be_entered_is_named(
    look: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    real = os.stat

    def stat(path: os.PathLike[str] | str, **options: object) -> os.stat_result:  # root may enter everything
        if str(path).startswith(str(closed)):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", stat)
    with pytest.raises(UsageError, match=f"{closed}.* cannot be looked at: Permission denied"):
        look(closed)


def test_nothing_is_written_where_the_folder_is_missing(tmp_path: Path) -> None:
    reached = []
    with pytest.raises(UsageError, match=r"there is no folder .*nowhere"), paths.writing(tmp_path / "nowhere" / "x"):
        reached.append("the work")
    assert not reached


def test_a_disk_that_refuses_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written: Is a directory"), paths.writing(tmp_path):
        tmp_path.write_text("")


def test_a_name_longer_than_a_disk_takes_is_shortened_and_told_apart() -> None:
    korean = "피" * 100
    names = {paths.fitting_name(f"subset-{korean}{last}") for last in "가나"}
    assert len(names) == 2
    assert all(len(name.encode()) <= 255 and name.startswith("subset-피피") for name in names)
    assert paths.fitting_name("subset-petskin") == "subset-petskin"


def test_a_link_that_leads_to_itself_is_the_end_of_its_path(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    assert paths.resolved(tmp_path / "loop" / "below") == tmp_path.resolve() / "loop" / "below"
    assert paths.resolved(tmp_path / "link" / ".." / "new") == tmp_path.resolve() / "new"


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("name", ["a" * 255, "가" * 85, "\U0001f600" * 63])
def test_a_name_of_the_longest_kind_is_written_whole(tmp_path: Path, name: str, alone: bool) -> None:
    with atomic.replacing(tmp_path / name, alone=alone) as file:
        file.write(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_a_kill_leaves_of_a_long_name_is_its_own(tmp_path: Path) -> None:
    assert paths.fitting_name("a" * 254 + "b", atomic.PARTIAL) != paths.fitting_name("a" * 254 + "c", atomic.PARTIAL)
    assert paths.fitting_name("short", atomic.PARTIAL) == "short.partial"
