import io
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import rich.console
import yaml
from click.testing import CliRunner, Result

from petskin_tune.cli import petskin_tune
from petskin_tune.commands import data as commands
from petskin_tune.commands.data import data
from petskin_tune.datasets import demo, layout
from petskin_tune.datasets.parallel import spread
from petskin_tune.errors import UsageError


def run(*arguments: object) -> Result:
    return CliRunner().invoke(data, [str(argument) for argument in arguments])


def test_a_demo_is_made_checked_and_resized_from_the_command_line(tmp_path: Path) -> None:
    made = run("demo", tmp_path / "demo", "--train", 4, "--val", 2, "--imgsz", 48)
    assert (made.exit_code, made.stdout.strip()) == (0, str(tmp_path / "demo/data.yaml"))

    checked = run("check", tmp_path / "demo", "--sheet", tmp_path / "sheet.png", "--jobs", 1)
    assert checked.exit_code == 0
    assert "train: 4 images" in checked.stdout
    assert (tmp_path / "sheet.png").exists()

    resized = run("resize", tmp_path / "demo", tmp_path / "small", "--imgsz", 32, "--jobs", 1)
    assert resized.exit_code == 0
    assert "6 images in" in resized.stdout
    assert "resizing images: 6 of 6" in resized.stderr

    (tmp_path / "small/images/train/train_00001.jpg").write_bytes(b"")
    damaged = run("check", tmp_path / "small", "--json", "--jobs", 1)
    assert damaged.exit_code == 1
    assert "damaged image, empty file" in json.loads(damaged.stdout)["problems"]


def test_a_resized_list_names_an_image_as_often_as_the_list_it_was_made_from(tmp_path: Path) -> None:
    demo.make(tmp_path / "demo", train=3, val=1, imgsz=48)
    file = tmp_path / "demo/data.yaml"
    names = ["train_00002", "train_00000", "train_00002", "train_00002", "train_00001"]
    (tmp_path / "demo/list.txt").write_text("".join(f"images/train/{name}.bmp\n" for name in names))
    file.write_text(file.read_text().replace("train: images/train", "train: list.txt"))
    assert run("resize", tmp_path / "demo", tmp_path / "small", "--imgsz", 32, "--jobs", 1).exit_code == 0
    small = layout.read(tmp_path / "small/data.yaml")
    assert [image.stem for image in layout.listed(small, "train")] == sorted(names)
    assert all(image.is_file() for image in small.images["train"])
    assert yaml.safe_load((tmp_path / "small/data.yaml").read_text())["val"] == "images/val"
    assert (tmp_path / "small/train.txt").read_text().startswith("./images/train/"), "for Ultralytics, too"


def test_images_with_the_longest_names_that_a_disk_takes_are_resized(tmp_path: Path) -> None:
    demo.make(tmp_path / "demo", train=2, val=1, imgsz=48)
    long = "가" * 83
    for folder, suffix in (("images", ".bmp"), ("labels", ".txt")):
        place = tmp_path / "demo" / folder / "train"
        (place / f"train_00001{suffix}").rename(place / f"{long}{suffix}")
    resized = run("resize", tmp_path / "demo", tmp_path / "small", "--imgsz", 32, "--jobs", 1)
    assert resized.exit_code == 0, resized.output
    assert (tmp_path / f"small/images/train/{long}.jpg").is_file()
    assert (tmp_path / f"small/labels/train/{long}.txt").is_file()


@pytest.mark.parametrize("suffix", ["html", "png"])
def test_a_sheet_takes_the_place_of_its_own_file_alone(tmp_path: Path, suffix: str) -> None:
    demo.make(tmp_path / "demo", train=2, val=1, imgsz=32)
    sheet, mine = tmp_path / f"sheet.{suffix}", tmp_path / f"sheet.{suffix}.partial"
    sheet.write_text("of yesterday")
    mine.write_text("mine")
    assert run("check", tmp_path / "demo", "--sheet", sheet, "--jobs", 1).exit_code == 0
    assert sheet.read_bytes() != b"of yesterday"
    assert mine.read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"demo", sheet.name, mine.name}


def test_a_mistake_is_answered_with_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    for arguments in (
        ("aihub", tmp_path / "nowhere", tmp_path / "out"),
        ("aihub", tmp_path, tmp_path / "out", "--classes", "A9"),
        ("resize", tmp_path / "nowhere", tmp_path / "out", "--imgsz", 64),
        ("check", tmp_path / "nowhere"),
        ("demo", tmp_path / "out", "--train", 0),
    ):
        refused = run(*arguments)
        assert refused.exit_code == 2, arguments
        assert refused.stderr.startswith("error: ")
        assert refused.stderr.count("\n") == 1
        assert not (tmp_path / "out").exists()


def test_names_of_files_and_classes_do_not_command_the_terminal_of_who_checks_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    images = demo.make(tmp_path / "demo", train=4, val=2, imgsz=48).parent / "images/train"
    name = "\x1b]0;title\x07\x9b2J\u202egpj.bmp"
    (images / "train_00001.bmp").unlink()
    (images / name).write_bytes(b"")
    (tmp_path / "demo/data.yaml").write_text("train: images/train\nval: images/val\nnames: [a, '\u202eb', c]\n")
    typed = ["data", "check", str(tmp_path / "demo"), "--jobs", "1"]

    checked = CliRunner().invoke(petskin_tune, [*typed, "--sheet", str(tmp_path / "sheet.html")])
    for said in (checked.output, (tmp_path / "sheet.html").read_text()):
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(said)
        assert r"train/\x1b]0;title\x07\x9b2J\u202egpj.bmp" in said
    resized = CliRunner().invoke(petskin_tune, ["data", "resize", *typed[2:], str(tmp_path / "out"), "--imgsz", "32"])
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(resized.output)
    as_json = CliRunner().invoke(petskin_tune, [*typed, "--json"])
    assert json.loads(as_json.stdout)["problems"]["damaged image, empty file"] == [f"images/train/{name}"]
    assert [ended.exit_code for ended in (checked, resized, as_json)] == [1, 0, 1]


def test_an_interruption_is_answered_with_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "make", interrupted)

    stopped = run("demo", tmp_path / "demo")

    assert stopped.exit_code == 75
    assert "Type the same command again" in stopped.stderr


def test_the_commands_start_without_numpy_pil_torch_or_ultralytics() -> None:
    heavy = (
        "import sys, petskin_tune.commands.data; print(sorted({'numpy', 'PIL', 'torch', 'ultralytics', 'shapely', "
        "'rich', 'yaml'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_on_a_terminal_a_bar_shows_the_rate_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    clock = itertools.count(0, 10)  # ten seconds between two looks at it
    terminal = rich.console.Console(file=shown, force_terminal=True, width=100, get_time=lambda: float(next(clock)))
    monkeypatch.setattr(rich.console, "Console", lambda **_: terminal)
    seconds = itertools.count(0, 10)
    monkeypatch.setattr(commands, "time", SimpleNamespace(monotonic=lambda: float(next(seconds))))

    with commands._shown() as show:
        for done in (10, 30, 50):  # a former run had done ten
            show("converting images", done, 100)

    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue()).rpartition("converting images")[2]
    assert re.search(r"50/100 1/s \d+:\d\d:\d\d", last), last


def test_results_of_many_processes_are_complete_and_a_failure_reaches_the_caller() -> None:
    assert sorted(spread(abs, range(-50, 0), 2)) == list(range(1, 51))
    with pytest.raises(ZeroDivisionError):
        list(spread(_inverse, [1, 0], 2))


def _inverse(number: int) -> float:
    return 1 / number


def test_work_is_taken_only_as_fast_as_it_is_done() -> None:
    taken: list[int] = []

    def work() -> object:
        for number in range(1000):
            taken.append(number)
            yield number

    results = spread(abs, work(), 2)  # type: ignore[arg-type]
    next(results)
    assert len(taken) < 50
    results.close()  # type: ignore[attr-defined]


def _die(_: int) -> None:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_dies_is_told_in_one_sentence() -> None:
    with pytest.raises(UsageError, match="fewer --jobs"):
        list(spread(_die, [1, 2], 2))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="PYTHONSAFEPATH came with Python 3.11")
def test_no_module_of_the_current_folder_runs_in_the_processes(tmp_path: Path) -> None:
    code = (
        "import os, petskin_tune.datasets.parallel as parallel\n"
        "if __name__ == '__main__':\n"
        "    print(sorted(parallel.spread(os.path.basename, ['a/b', 'a/c'], 2)), 'PYTHONSAFEPATH' in os.environ)\n"
    )
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "main.py").write_text(code)
    (tmp_path / "selectors.py").write_text("open('it ran', 'w').close()\nraise ImportError('not this one')\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [sys.executable, tmp_path / "script" / "main.py"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "['b', 'c'] False\n", done.stderr
    assert not (tmp_path / "it ran").exists()
