import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from petskin_tune.datasets import demo, layout
from petskin_tune.datasets.labels.rows import label_lines, label_path
from petskin_tune.errors import UsageError

# Of `demo.make(dest, train=6, val=3, imgsz=32, seed=0)`: another value here is another demo data set for everybody.
KNOWN_LABELS = "744507b3faf0be10"

MAKE = "import pathlib, sys; from petskin_tune.datasets import demo; demo.make(pathlib.Path(sys.argv[1]), 6, 3, 32)"


def tree(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_numbers_give_the_same_bytes_and_another_seed_gives_others(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        demo.make(tmp_path / name, train=6, val=3, imgsz=32, seed=seed)

    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    images = [[digest for name, digest in tree(tmp_path / place).items() if "images" in name] for place in "ac"]
    assert not set(images[0]) & set(images[1])


def test_the_labels_are_the_ones_they_have_always_been(tmp_path: Path) -> None:
    demo.make(tmp_path, train=6, val=3, imgsz=32)

    labels = {name: digest for name, digest in tree(tmp_path).items() if name.startswith("labels/")}
    assert hashlib.sha256(repr(labels).encode()).hexdigest()[:16] == KNOWN_LABELS


def test_a_complete_data_set_is_not_written_again(tmp_path: Path) -> None:
    data_yaml = demo.make(tmp_path / "demo", train=4, val=2, imgsz=32)
    times = {path: path.stat().st_mtime_ns for path in data_yaml.parent.rglob("*")}

    assert demo.make(tmp_path / "demo", train=4, val=2, imgsz=32) == data_yaml
    assert {path: path.stat().st_mtime_ns for path in data_yaml.parent.rglob("*")} == times


@pytest.mark.parametrize("nth", [1, 4, 13, 19])
def test_killed_half_way_and_run_again_it_ends_with_the_same_bytes(tmp_path: Path, nth: int) -> None:
    fired = tmp_path / "fired"
    environment = {**os.environ, "TUNE_FAULTS": f"file-written=kill@{nth}", "TUNE_FAULTS_LOG": str(fired)}

    killed = subprocess.run([sys.executable, "-c", MAKE, str(tmp_path / "killed")], env=environment, check=False)
    demo.make(tmp_path / "killed", 6, 3, 32)
    demo.make(tmp_path / "undisturbed", 6, 3, 32)

    assert killed.returncode == -signal.SIGKILL
    assert fired.read_text().startswith("file-written")
    assert tree(tmp_path / "killed") == tree(tmp_path / "undisturbed")


def test_two_processes_at_once_make_one_whole_data_set(tmp_path: Path) -> None:
    both = [subprocess.Popen([sys.executable, "-c", MAKE, str(tmp_path / "shared")]) for _ in range(2)]

    assert [process.wait() for process in both] == [0, 0]
    demo.make(tmp_path / "alone", 6, 3, 32)
    assert tree(tmp_path / "shared") == tree(tmp_path / "alone")


def test_every_class_is_in_train_and_every_outline_lies_on_its_lesion(tmp_path: Path) -> None:
    data_set = layout.read(demo.make(tmp_path / "demo", train=9, val=3, imgsz=64))

    seen = set()
    for image in data_set.images["train"]:
        picture = np.asarray(Image.open(image)).astype(float)
        for number, *coordinates in label_lines(label_path(image)):
            points = np.array(coordinates, float).reshape(-1, 2) * 64
            mask = Image.new("1", (64, 64))
            ImageDraw.Draw(mask).polygon([tuple(point) for point in points], fill=1)
            look = demo._LOOKS[int(number)]
            colours = np.array([look.colour, look.rim], float)
            span = colours.max(0) - colours.min(0)
            middle = picture[np.asarray(mask)].mean(0)
            assert (np.abs(middle - colours.mean(0)) < span / 2 + 40).all()
            seen.add(int(number))
    assert seen == {0, 1, 2}


def test_a_folder_with_something_else_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        demo.make(tmp_path)
    assert tree(tmp_path).keys() == {"thesis.txt"}

    demo.make(tmp_path / "demo", train=2, val=1, imgsz=32)
    with pytest.raises(UsageError, match="another train"):
        demo.make(tmp_path / "demo", train=3, val=1, imgsz=32)
    with pytest.raises(UsageError, match="at least one image"):
        demo.make(tmp_path / "none", train=0)
