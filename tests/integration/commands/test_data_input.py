"""Paths and numbers that no data set can be made of: one sentence, exit code 2, and nothing new on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from petskin_tune.commands.data import data
from petskin_tune.datasets import demo, layout
from petskin_tune.datasets.labels.rows import label_lines
from petskin_tune.errors import UsageError
from petskin_tune.printable import LONGEST_SENTENCE

LONG = "x" * 300


def run(*arguments: object) -> Result:
    return CliRunner().invoke(data, [str(argument) for argument in arguments])


def refused(*arguments: object) -> str:
    """The one sentence of the refusal, which is the last line; progress may stand before it."""
    result = run(*arguments)
    assert result.exit_code == 2, (arguments, result.output, result.exception)
    *before, last = result.stderr.splitlines()
    assert last.lower().startswith("error: ")
    assert not [line for line in before if line.lower().startswith("error")]
    return last


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, beside a data set."""
    demo.make(tmp_path / "images", train=3, val=2, imgsz=32)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "here"


@pytest.mark.parametrize("place", [LONG, "/proc/nowhere", "/dev/null/below", "file", "file/below"])
def test_a_place_that_cannot_be_written_to_is_named(here: Path, place: str) -> None:
    (here / "file").write_text("not a folder")
    refused("demo", place)
    refused("resize", "../images", place, "--imgsz", 32, "--jobs", 1)
    refused("check", "../images", "--jobs", 1, "--sheet", f"{place}/sheet.png")
    assert [path.name for path in here.iterdir()] == ["file"]


@pytest.mark.parametrize("place", ["images/train", "images/train/small", "images/val/a/b", "link/small"])
def test_a_copy_among_the_images_that_it_is_made_of_is_refused(here: Path, place: str) -> None:
    (here.parent / "images/link").symlink_to(here.parent / "images/images/val")
    before = sorted((here.parent / "images").rglob("*"))
    said = refused("resize", "../images", f"../images/{place}", "--imgsz", 32, "--jobs", 1)
    assert "whose images are the data set's; give a folder elsewhere" in said
    assert sorted((here.parent / "images").rglob("*")) == before
    assert run("resize", "../images", "../images/images/small", "--imgsz", 32, "--jobs", 1).exit_code == 0


@pytest.mark.parametrize("source", [LONG, f"{LONG}.zip", "~nobody/data.yaml", "file", "file/data.yaml", ""])
def test_a_source_that_is_none_is_named(here: Path, source: str) -> None:
    (here / "file").write_text("no data set")
    refused("check", source or "empty")
    refused("resize", source or "empty", "out", "--imgsz", 32)
    refused("aihub", source or "empty", "out")
    assert [path.name for path in here.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("demo", "out", "--imgsz", 10**9),
        ("demo", "out", "--train", 10**30),
        ("demo", "out", "--val", -1),
        ("resize", "../images", "out", "--imgsz", -5),
        ("check", "../images", "--jobs", 10**9),
        ("check", "../images", "--per-class", 0),
        *(("aihub", "../images", "out", option, value) for option in ("--background", "--crop", "--min-area", "--val")
          for value in ("nan", "inf", "-inf", "-1", "x")),
        ("aihub", "../images", "out", "--imgsz", -1),
        ("aihub", "../images", "out", "--max-per-class", 0),
    ],
    ids=lambda arguments: " ".join(str(word) for word in arguments),
)  # fmt: skip
def test_a_number_that_makes_no_sense_is_refused(here: Path, arguments: tuple[object, ...]) -> None:
    refused(*arguments)
    assert list(here.iterdir()) == []


def test_a_folder_whose_record_is_no_record_is_left_alone(here: Path) -> None:
    for content in ("junk", "[1]"):
        (here / "demo.json").write_text(content)
        assert "does not say what its folder is being filled with" in refused("demo", here)
        assert [path.name for path in here.iterdir()] == ["demo.json"]


YAML = {"train": "images/train", "val": "images/val", "names": "[a, b, c]"}


@pytest.mark.parametrize(
    "changes",
    [
        {"names": "!!timestamp x"},
        {"names": "2024-13-45"},
        {"names": "!!int ''"},
        {"names": "[" * 3000},
        {"names": "", "nc": "-1"},
        {"names": "", "nc": "1000000000000"},
        {"names": "", "nc": "true"},
        {"train": LONG},
        {"train": '"a\\0b"'},
        {"train": "[[a]]"},
        {"path": '"a\\0b"'},
        {"path": "5"},
        {"groups": '"a\\0b"'},
        {"names": '"\\x01"', "train": "\x01"},
    ],
    ids=str,
)
def test_a_data_set_whose_yaml_is_nasty_is_refused(here: Path, changes: dict[str, str]) -> None:
    text = "".join(f"{key}: {value}\n" for key, value in {**YAML, **changes}.items())
    (here.parent / "images" / "data.yaml").write_text(text)
    assert str(here.parent / "images") in refused("check", "../images", "--jobs", 1)


@pytest.mark.parametrize("changes", [{"path": LONG}, {"path": "~nobody"}])
def test_a_root_that_is_not_here_is_the_yamls_own_folder(here: Path, changes: dict[str, str]) -> None:
    text = "".join(f"{key}: {value}\n" for key, value in {**YAML, **changes}.items())
    (here.parent / "images" / "data.yaml").write_text(text)
    assert layout.read(here.parent / "images" / "data.yaml").root == here.parent / "images"


def test_a_label_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(UsageError, match=r"a\.txt cannot be read"):
        label_lines(tmp_path / "a.txt")
    assert label_lines(tmp_path / "missing.txt") == []


@pytest.mark.parametrize(
    "command", [("aihub", "x/" * 3000, "new"), ("check", "x/" * 3000), ("resize", "x/" * 3000, "new", "--imgsz", 32)]
)
def test_a_path_longer_than_a_screen_is_refused_in_less(here: Path, command: tuple[object, ...]) -> None:
    assert len(refused(*command)) <= LONGEST_SENTENCE + len("error: ")
    assert list(here.iterdir()) == []
