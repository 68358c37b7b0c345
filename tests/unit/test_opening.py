"""From what was typed to an open study."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from petskin_tune.opening import NotBegun, Places, open_or_create, open_study


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """A home on a network disk, as far as the program is told."""
    monkeypatch.setenv("TUNE_NETWORK_HOME", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Places("demo", home=str(tmp_path / "drive" / "petskin"))


def test_the_study_of_a_network_home_that_was_deleted_does_not_come_back(places: Places) -> None:
    first = open_or_create(places, lambda _: None)
    assert first.home.close()
    shutil.rmtree(first.home.folder)
    said: list[str] = []
    second = open_or_create(places, said.append)
    assert second.study.uid != first.study.uid
    assert second.home.database is not None
    assert second.home.database.exists()
    assert second.home.close()
    assert list(second.home.folder.glob("database/tune-*.db")), "the new study was not copied into the home"
    assert any("belongs to another home" in line for line in said)


@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
def test_a_reader_does_not_find_the_study_of_a_network_home_that_was_deleted(places: Places, left: str) -> None:
    first = open_or_create(places, lambda _: None)
    first.home.close()
    shutil.rmtree(first.home.folder)
    if left == "an empty folder":
        first.home.folder.mkdir()
    with pytest.raises(NotBegun), open_study(places):
        pass
