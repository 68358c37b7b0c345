"""Images are found in folders and lists that have an end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from petskin_tune.datasets import folders
from petskin_tune.datasets.folders import images_at, write_list
from petskin_tune.errors import UsageError


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("1.jpg", "b/2.PNG", "b/.hidden.jpg", "notes.txt"):
        (tmp_path / "a" / name).touch()
    return tmp_path / "a"


def names(place: Path) -> list[str]:
    return sorted(str(image.relative_to(place)) for image in images_at(place))


def test_images_are_found_at_every_depth_and_through_links(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "3.bmp").touch()
    (pictures / "linked").symlink_to(tmp_path / "elsewhere")
    assert names(pictures) == ["1.jpg", "b/2.PNG", "linked/3.bmp"]


@pytest.mark.parametrize("target", [".", "..", "b/back"])
def test_a_link_that_leads_round_and_round_is_named(pictures: Path, target: str) -> None:
    (pictures / "b" / "back").symlink_to(pictures)
    (pictures / "loop").symlink_to(target)
    with pytest.raises(UsageError, match="is a link to a folder that it lies in"):
        list(images_at(pictures))


def test_a_link_to_itself_is_passed_over(pictures: Path) -> None:
    (pictures / "self").symlink_to(pictures / "self")
    assert names(pictures) == ["1.jpg", "b/2.PNG"]


@pytest.mark.parametrize("place", ["/", "/proc", "/proc/self", "/sys/class", "/dev"])
def test_the_machine_itself_is_no_folder_of_images(place: str) -> None:
    with pytest.raises(UsageError, match="is no folder of images"):
        list(images_at(Path(place)))


def test_a_folder_of_too_many_files_is_refused(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MOST_ENTRIES", 2)
    with pytest.raises(UsageError, match="holds more than 2 files"):
        list(images_at(pictures))


@pytest.mark.parametrize("place", ["/dev/zero", "/dev/urandom"])
def test_a_device_is_no_list(place: str) -> None:
    with pytest.raises(UsageError, match="cannot be read as a list of images: it is a device"):
        list(images_at(Path(place)))


def test_a_list_keeps_names_that_are_not_utf_8(tmp_path: Path) -> None:
    images = [tmp_path / os.fsdecode("피부.jpg".encode("cp949")), tmp_path / "b.jpg"]
    write_list(tmp_path / "list.txt", images)
    assert list(images_at(tmp_path / "list.txt")) == images


def test_a_name_that_no_list_can_hold_is_refused(tmp_path: Path) -> None:
    for name in ("two\nlines.jpg", "two\u2028lines.jpg"):
        with pytest.raises(UsageError, match="rename it"):
            write_list(tmp_path / "list.txt", [tmp_path / name])
