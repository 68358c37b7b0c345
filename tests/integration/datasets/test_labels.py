"""Label files are judged and read as Ultralytics judges and reads them, whatever stands in them.

What it trains is trained here, with the same numbers; what it leaves out is refused here, by all who look at labels.
``PETSKIN_TUNE_FUZZING=10000`` tries more, see ``tests.support.fuzzing``.
"""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from ultralytics.data.utils import verify_image_label

from petskin_tune.datasets.examined import Examined
from petskin_tune.datasets.labels.outlines import read_outlines
from petskin_tune.errors import UsageError
from petskin_tune.training.data.labels import DataError, read_labels
from tests.support.fuzzing import cases

CLASSES = 3
TRIANGLE = "0 0.1 0.1 0.9 0.1 0.9 0.9"

# Near the bounds -0.01 and 1.01, as numbers of 32 bits and of 64; and in every spelling that float() takes.
COORDINATES = st.one_of(
    st.floats(0, 1).map(repr),
    st.floats(-0.03, 1.03).map(lambda value: f"{value:.6f}"),
    st.sampled_from(
        [
            "-0.01",
            "-0.010000001",
            "1.01",
            "1.0100001",
            "1.01000001",
            "-0.02",
            "1.02",
            "0.5",
            "0.50",
            "5e-1",
            "1e0",
            "0",
            "-0",
            "-0.0",
            "0.0",
            "1",
        ]
    ),
    st.sampled_from(
        ["nan", "inf", "-inf", "1e39", "1e400", "-1e39", "1_0", "１", "x", "0x1", "640", ".", "1e3", "+.5", "1,0"]
    ),
)
INSIDE = st.sampled_from(["0", "0.1", "0.25", "0.5", "0.50", "5e-1", "0.75", "1", "1.0", "-0.0", "-0.005", "1.005"])
NUMBERS = st.sampled_from(["0", "1", "2", "0.0", "2.0", "1e0", "00", "-0", "-0.0", "+1", "1.00000001"])
ODD_NUMBERS = st.sampled_from(["3", "-1", "0.5", "nan", "inf", "1e39", "-0.005", "1e-9", "x", "2.9999999", "1_0", "3,"])


def rows(numbers: st.SearchStrategy[str], values: st.SearchStrategy[str], lengths: list[int]) -> st.SearchStrategy[str]:
    def row(length: int) -> st.SearchStrategy[str]:
        return st.tuples(numbers, st.lists(values, min_size=length, max_size=length)).map(
            lambda parts: " ".join([parts[0], *parts[1]])
        )

    return st.sampled_from(lengths).flatmap(row)


SOUND = rows(NUMBERS, INSIDE, [6, 6, 8, 10])
ROW = st.one_of(
    SOUND,
    SOUND,
    rows(NUMBERS, COORDINATES, [6, 8]),
    rows(ODD_NUMBERS | NUMBERS, INSIDE, [6]),
    rows(NUMBERS, INSIDE, [0, 1, 2, 3, 4, 4, 5, 7]),
    st.sampled_from(["", "   ", "\t", "0,0.1,0.1,0.9,0.1,0.9,0.9", "# a remark"]),
)
BETWEEN = st.sampled_from(["\n", "\n", "\r\n", "\r", "\n\n", " \n ", "\f", "\u2028"])


@st.composite
def label_files(draw: st.DrawFn) -> bytes:
    lines = draw(st.lists(SOUND, max_size=3) | st.lists(ROW, max_size=4))
    if lines and draw(st.booleans()):
        lines.append(draw(st.sampled_from(lines)))
    text = draw(st.sampled_from(["", "", "\ufeff", "\n", "\ufeff\ufeff"])) + draw(BETWEEN).join(lines)
    return text.encode() + draw(st.sampled_from([b"", b"\n", b"\r\n", b"\xff", b"\0"]) if not lines else st.just(b""))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    Image.new("RGB", (40, 30)).save(folder / "a.png")
    return folder


def require_alike(place: Path, content: bytes) -> None:
    image, label = place / "a.png", place / "a.txt"
    label.write_bytes(content)
    with np.errstate(all="ignore"):
        _, boxes, _, segments, *_, message = verify_image_label(
            (str(image), str(label), "", False, CLASSES, 0, 0, False)
        )
    trained = boxes is not None and len(boxes) == len(segments)  # else it is left out, or the data set is refused
    assert called_ready(label) == trained, message
    shutil.rmtree(place / "cache", ignore_errors=True)  # two contents within a tick of the clock
    if not trained:
        with pytest.raises(DataError):
            read_labels([str(image)], [str(label)], CLASSES, place / "cache")
        return
    (ours,) = read_labels([str(image)], [str(label)], CLASSES, place / "cache")
    assert objects(ours["cls"], ours["bboxes"], ours["segments"]) == objects(boxes[:, 0], boxes[:, 1:], segments)
    shown = {number: len(areas) for number, areas in read_outlines(label, CLASSES).areas.items()}
    assert shown == Counter(boxes[:, 0].astype(int).tolist())


def objects(numbers: np.ndarray, boxes: np.ndarray, segments: list[np.ndarray]) -> Counter[tuple[float, bytes, bytes]]:
    """Every object, bit by bit; duplicates put them in another order there, here they stay in the file's."""
    found = zip(numbers.ravel(), boxes, segments, strict=True)
    return Counter((float(number), box.tobytes(), corners.tobytes()) for number, box, corners in found)


def called_ready(label: Path) -> bool:
    """What ``init`` and ``data check`` say of a label file, which must be the same."""
    try:
        examined = Examined(label.parent / "data.yaml", None).label(label)
        init = examined.outlines and all(0 <= int(number) < CLASSES for number in examined.objects)
    except UsageError:
        init = False
    try:
        check = not read_outlines(label, CLASSES).boxes
    except (UsageError, ValueError):
        check = False
    assert init == check
    return init


@cases(400)
@given(content=label_files())
def test_any_label_file_is_judged_and_read_as_ultralytics_does(place: Path, content: bytes) -> None:
    assume(not any(map(is_wide, content.splitlines())))
    require_alike(place, content)


def is_wide(row: bytes) -> bool:
    """Whether an outline reaches over the image on both sides, each corner by no more than a rounded number does.

    Ultralytics refuses the size of its box; studies were begun with such outlines, and so they are taken.
    """
    try:
        corners = np.array([float(word) for word in row.split()[1:]], dtype=np.float32).reshape(-1, 2)
    except ValueError:
        return False
    return bool(len(corners) and abs(corners - 0.5).max() <= 0.51 and np.ptp(corners, axis=0).max() > 1.01)


def test_an_outline_that_reaches_over_both_sides_by_a_rounded_number_is_taken(place: Path) -> None:
    row = b"0 0.1 -0.01 0.1 1.01 0.9 0.5"
    assert is_wide(row)
    (place / "a.txt").write_bytes(row)
    assert called_ready(place / "a.txt")
    shutil.rmtree(place / "cache", ignore_errors=True)
    (ours,) = read_labels([str(place / "a.png")], [str(place / "a.txt")], CLASSES, place / "cache")
    assert len(ours["cls"]) == 1


@pytest.mark.parametrize(
    "text",
    [
        "0 -0.03 0.1 0.9 0.1 0.9 0.9",  # a corner outside, and the box's centre and size are not
        "0 0.5 0.1 1.4 0.1 0.9 0.9",
        "0 0.1 0.1 1.2 0.1 0.9 0.9",  # too wide
        "0 1.009 0.1 1.02 0.1 1.03 0.9",  # its centre is outside
        "0 1.01 0.1 1.01 0.2 1.01 0.3",  # the bound itself, which has no exact number of 32 bits
        "0 -0.01 0.1 -0.01 0.2 -0.01 0.3",
        f"{TRIANGLE}\n0 0.5 0.5",  # one corner, beside an outline
        "0 0.5 0.5",
        "0 0.5 0.5 0.2 0.2",
        f"{TRIANGLE}\n0 0.5 0.5 0.2 0.2",
        f"{TRIANGLE}\n0.0 0.10 1e-1 .9 0.1 0.9 0.90",  # the same outline, written otherwise
        f"{TRIANGLE}\n0 0.1 0.1 0.9 0.1 0.9 0.9 0.5 0.5",  # another one with the same box
        "0 0 0 1 0 1 1\n0 -0.0 0 1 0 1 1",
        "1.00000001 0.1 0.1 0.9 0.1 0.9 0.9",
    ],
)
def test_what_was_once_judged_otherwise(place: Path, text: str) -> None:
    require_alike(place, text.encode())
