"""The parts of the AI-Hub import: schema, geometry, pairing, options, splits. The whole is in tests/integration."""

from __future__ import annotations

import json
import math
import os
import subprocess
import unicodedata
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import Polygon

from petskin_tune.datasets.aihub import catalogue, outlines, splitting
from petskin_tune.datasets.aihub.members import Listing, MemberReader, Unreadable, list_sources
from petskin_tune.datasets.aihub.options import Options, codes_of
from petskin_tune.datasets.aihub.records import Item, Record, Unusable, parse
from petskin_tune.datasets.aihub.report import Counts, Report
from petskin_tune.datasets.aihub.taxonomy import class_code
from petskin_tune.datasets.archives.names import zip_entry_name
from petskin_tune.errors import UsageError
from tests.support.fuzzing import cases
from tests.support.places import SHARED

SQUARE = ((10.0, 10.0), (50.0, 10.0), (50.0, 50.0), (10.0, 50.0))
ALL = ("A1", "A2", "A3", "A4", "A5", "A6")


def record(labelling: Any = None, **meta: Any) -> Record:
    content = {"metaData": {"lesions": "A4", "species": "D", **meta}, "labelingInfo": labelling}
    return parse(json.dumps(content, ensure_ascii=False).encode(), "IMG_D_A4_000001.json")


def polygon_item(location: Any, label: str = "A4_농포_여드름") -> dict[str, Any]:
    return {"polygon": {"location": location, "label": label, "type": "polygon"}}


def clean(*items: Item, size: tuple[int, int] = (1920, 1080), boxes: str = "drop") -> outlines.Outlines:
    return outlines.clean(items, ALL, *size, boxes=boxes)


# ---- schema --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("A4_농포_여드름", "A4"),
        ("A1_구진/플라크", "A1"),
        ("  a 2 _비듬 각질 상피성잔고리", "A2"),
        ("A3", "A3"),
        ("결절_종괴", "A6"),
        (unicodedata.normalize("NFD", "미란 궤양"), "A5"),
        ("A7_무증상", "A7"),
        ("무증상", "A7"),
        ("A10_없음", None),
        ("유증상", None),
        ("", None),
        (None, None),
        (4, None),
    ],
)
def test_a_class_is_recognised_in_all_its_spellings(text: object, code: str | None) -> None:
    assert class_code(text) == code


def test_the_shared_example_is_read() -> None:
    example = SHARED / "aihub" / "example.json"
    if not example.exists():
        pytest.skip(f"no example of the schema in {SHARED / 'aihub'}")

    found = parse(example.read_bytes(), "IMG_D_A4_000001.json")

    assert (found.species, found.code, found.group) == ("D", "A4", "D 믹스견 4 F 2021-01-01")
    assert [(item.code, item.kind, len(item.points)) for item in found.items] == [
        ("A4", "polygon", 11),
        ("A4", "box", 4),
    ]
    kept = clean(*found.items)
    assert [len(shapely.get_coordinates(part)) for shape in kept.shapes for part in shape.parts] == [11]
    assert kept.dropped == {outlines.BOX_OF_OUTLINE: 1}


def test_an_items_own_label_goes_before_the_images() -> None:
    location = [{"x1": 1, "y1": 1, "x2": 9, "y2": 1, "x3": 9, "y3": 9}]

    labels = ["A5_미란_궤양", "?", ""]
    codes = [item.code for item in record([polygon_item(location, label) for label in labels]).items]

    assert codes == ["A5", "A4", "A4"]


def test_points_are_read_in_the_order_of_their_numbers() -> None:
    location = [{f"{axis}{number}": number * 10 + "xy".index(axis) for number in (10, 9, 2, 1) for axis in "yx"}]

    (item,) = record([polygon_item(location)]).items

    assert item.points == ((10, 11), (20, 21), (90, 91), (100, 101))


@pytest.mark.parametrize(
    "location",
    [
        [{"x1": 1, "y1": 2, "x2": 3}],
        [{"x1": 1, "y1": None}],
        [{"x1": "one", "y1": 2}],
        [{"x1": True, "y1": 2}],
        [{"x1": "nan", "y1": 2}],
        [{"x1": 1e300, "y1": 2}],
        ["x1"],
    ],
)
def test_broken_coordinates_are_named_and_not_guessed(location: Any) -> None:
    (item,) = record([polygon_item(location)]).items

    assert (item.problem, item.points) == ("broken coordinates", ())


@pytest.mark.parametrize(
    ("labelling", "problem"),
    [
        ([{}], "neither outline nor box"),
        (["text"], "neither outline nor box"),
        ([polygon_item(None)], "no coordinates"),
        ([polygon_item([])], "no coordinates"),
        ([polygon_item([{}])], "no coordinates"),
        ([{"box": {"location": [{"x": 1, "y": 1, "width": 0, "height": 4}]}}], "box without size"),
        ([{"box": {"location": [{"x": 1, "y": 1, "width": 4}]}}], "broken coordinates"),
    ],
)
def test_an_item_that_cannot_be_used_says_why(labelling: Any, problem: str) -> None:
    assert [item.problem for item in record(labelling).items] == [problem]


def test_several_shapes_in_one_item_and_one_item_without_a_list_are_all_read() -> None:
    triangle = {"x1": 1, "y1": 1, "x2": 9, "y2": 1, "x3": 9, "y3": 9}

    assert len(record([polygon_item([triangle, triangle])]).items) == 2
    assert len(record(polygon_item(triangle)).items) == 1
    assert record(None).items == ()


def test_metadata_is_read_in_whatever_form_it_comes() -> None:
    assert record(**{"합성유무": "Y"}).synthetic
    assert record(**{unicodedata.normalize("NFD", "합성유무"): "y "}).synthetic
    assert not record(**{"합성유무": None}).synthetic
    assert record(species=None).species == "D"  # the file name says so
    assert record(lesions="A7").asymptomatic
    assert record(lesions=None, Path="무증상").asymptomatic
    assert not record(lesions="A4", Path="무증상").asymptomatic
    assert record(resolution="1920X1080").stated_size == (1920, 1080)
    assert record(resolution="unknown").stated_size is None
    assert (
        record(breed="믹스견", age=4.0, gender="M", date="d").group
        == record(breed="믹스견 ", age=4, gender="M", date="d").group
    )


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"{", "broken JSON"),
        (b"[" * 100_000, "broken JSON"),
        (b"[]", "JSON without metaData"),
        (b'{"metaData": []}', "JSON without metaData"),
        (b"\xff\xfe\x00", "text in an unknown encoding"),
    ],
)
def test_what_is_no_label_file_says_why(raw: bytes, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        parse(raw, "x.json")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["polygon", "box", "location", "label", "x1", "y1", "x2", "y2", "x", "y", "width", "height"]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


@cases(200)
@given(
    st.dictionaries(
        st.sampled_from(["species", "lesions", "Path", "age", "breed", "resolution", "합성유무"]), anything
    ),
    anything,
)
def test_whatever_a_label_file_holds_it_is_read_or_refused_and_cleaned(meta: dict[str, Any], labelling: Any) -> None:
    raw = json.dumps({"metaData": meta, "labelingInfo": labelling, "inspRejectYn": labelling}).encode()

    read = parse(raw, "IMG_D_A4_000001.json")

    found = clean(*read.items)
    assert found.found == len(found.shapes) + found.dropped.total()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949"])
def test_label_files_are_read_in_the_encodings_that_occur(encoding: str) -> None:
    raw = json.dumps({"metaData": {"breed": "믹스견"}}, ensure_ascii=False).encode(encoding)

    assert "믹스견" in parse(raw, "x.json").group


# ---- geometry ------------------------------------------------------------------------------------------------------


def test_a_closed_ring_and_repeated_points_are_the_same_outline() -> None:
    closed = (*SQUARE, SQUARE[0])
    stuttering = tuple(point for point in SQUARE for _ in range(3))

    for points in (SQUARE, closed, stuttering):
        (shape,) = clean(Item("A4", "polygon", points)).shapes
        assert len(shape.parts[0].exterior.coords) == 5
        assert shape.parts[0].equals(Polygon(SQUARE))


def test_an_outline_is_clipped_on_both_axes_and_on_all_sides() -> None:
    wide = ((-100.0, -100.0), (3000.0, -100.0), (3000.0, 3000.0), (-100.0, 3000.0))

    found = clean(Item("A4", "polygon", wide))

    assert found.bounds() == (0, 0, 1920, 1080)
    assert found.notes == {"clipped to the image": 1}


def test_a_bow_tie_becomes_its_two_wings_and_a_loop_is_filled() -> None:
    bow = ((0.0, 0.0), (40.0, 40.0), (40.0, 0.0), (0.0, 40.0))
    loop = ((0.0, 0.0), (60.0, 0.0), (60.0, 60.0), (20.0, 60.0), (20.0, 20.0), (40.0, 20.0), (40.0, 70.0), (0.0, 70.0))

    (wings,) = clean(Item("A4", "polygon", bow)).shapes
    (filled,) = clean(Item("A4", "polygon", loop)).shapes

    assert sorted(part.area for part in wings.parts) == [400, 400]
    assert all(part.is_valid and not part.interiors for part in filled.parts)
    assert shapely.union_all(filled.parts).contains(shapely.Point(30, 40))


def test_an_outline_that_clipping_cuts_in_two_gives_two_rows_of_one_object() -> None:
    comb = (
        (10.0, -20.0),
        (90.0, -20.0),
        (90.0, 30.0),
        (60.0, 30.0),
        (60.0, -10.0),
        (40.0, -10.0),
        (40.0, 30.0),
        (10.0, 30.0),
    )

    found = clean(Item("A4", "polygon", comb))
    written = outlines.label_rows(found.shapes, ALL, (0, 0, 1920, 1080), 1.0, 0)

    assert len(written.rows) == 2
    assert written.objects == {"A4": 1}


def test_what_is_dropped_has_its_reason_and_everything_is_counted() -> None:
    boxed = Item("A4", "box", ((100.0, 100.0), (200.0, 100.0), (200.0, 200.0), (100.0, 200.0)))
    items = [
        Item("A4", "polygon", SQUARE),
        Item("A4", "polygon", SQUARE),
        Item("A4", "box", SQUARE),
        boxed,
        Item("A7", "polygon", SQUARE),
        Item(None, "polygon", SQUARE),
        Item("A4", "polygon", SQUARE[:2]),
        Item("A4", "polygon", ((0.0, 0.0), (5.0, 5.0), (9.0, 9.0))),
        Item("A4", "polygon", tuple((x + 5000, y) for x, y in SQUARE)),
        Item("A4", "polygon", (), "broken coordinates"),
    ]

    found = clean(*items)

    assert found.dropped == {
        "the same outline twice": 1,
        "box of an outline": 1,
        "box without an outline": 1,
        "labelled asymptomatic": 1,
        "no class": 1,
        "fewer than three points": 1,
        "outline without an area": 1,
        "outside the image": 1,
        "broken coordinates": 1,
    }
    assert found.found == len(found.shapes) + found.dropped.total() == 10
    assert len(clean(*items, boxes="polygon").shapes) == 2


GRID = 1e-6  # pixels: without one, unions of slivers now and then lose a polygon
points = st.tuples(st.integers(-300, 2300), st.integers(-300, 1400))


@cases(60)
@given(st.lists(st.lists(points, max_size=12), min_size=1, max_size=4), st.sampled_from([0.2, 1.0]))
def test_any_outlines_at_all_become_valid_rows_inside_the_image(
    rings: list[list[tuple[int, int]]], scale: float
) -> None:
    items = [Item("A4", "polygon", tuple((float(x), float(y)) for x, y in ring)) for ring in rings if ring]

    found = clean(*items)
    written = outlines.label_rows(found.shapes, ALL, (0, 0, 1920, 1080), scale, 4.0)

    assert found.found == len(found.shapes) + found.dropped.total()
    assert written.objects.total() + written.too_small == len(found.shapes)
    for row in written.rows:
        number, *values = row.split()
        assert number == "3"
        assert len(values) >= 6
        assert len(values) % 2 == 0
        assert all(0 <= float(value) <= 1 for value in values)
    area = shapely.union_all([part for shape in found.shapes for part in shape.parts], grid_size=GRID).area
    whole = (
        shapely.union_all(
            [
                shapely.make_valid(Polygon(item.points), method="structure")
                for item in items
                if len(set(item.points)) > 2
            ],
            grid_size=GRID,
        )
        .intersection(shapely.box(0, 0, 1920, 1080))
        .area
    )
    assert area == pytest.approx(whole, rel=1e-6, abs=1) or area > whole  # more where a hole was filled


# ---- files ---------------------------------------------------------------------------------------------------------


def listing(folder: Path, *names: str) -> Listing:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'{"metaData": {"lesions": "A4"}}')
    return list_sources([folder])


def pairs(found: Listing) -> tuple[dict[str, str], dict[str, str]]:
    built = catalogue.build(found, 1, lambda *_: None)
    joined = {found.members[entry.label].path: found.members[entry.image].path for entry in built.entries}
    return joined, {found.members[index].path: reason for index, reason in built.fates.items()}


def test_an_image_is_found_beside_its_label_or_in_the_folder_that_means_the_same(tmp_path: Path) -> None:
    below = "반려견/피부/일반카메라/유증상/A1_구진_플라크"
    beside = f"1.Training/2_라벨링데이터/TL01/{below}"
    rest = f"1.Training/2_라벨링데이터/TL01_잔여/{below}_잔여"
    raw = f"1.Training/1_원천데이터/TS01/{below}"
    other_side = f"2.Validation/2_라벨링데이터/VL01/{below}"

    joined, fates = pairs(
        listing(
            tmp_path,
            f"{beside}/a.json",
            f"{beside}/a.jpg",
            f"{raw}/a.jpg",
            f"{beside}/b.json",
            f"{rest}/b.JPG",
            f"{beside}/c.json",
            f"{raw}/c.png",
            f"{beside}/d.json",
            f"{other_side}/d.jpg",
            f"{beside}/e.json",
            f"{beside}/e.jpg",
            f"{rest}/e.json",
        )
    )

    assert joined == {
        f"{beside}/a.json": f"{beside}/a.jpg",
        f"{beside}/b.json": f"{rest}/b.JPG",
        f"{beside}/c.json": f"{raw}/c.png",
        f"{beside}/e.json": f"{beside}/e.jpg",
    }
    assert fates == {
        f"{raw}/a.jpg": catalogue.NO_LABEL,
        f"{beside}/d.json": catalogue.NO_IMAGE,
        f"{other_side}/d.jpg": catalogue.NO_LABEL,
        f"{rest}/e.json": catalogue.SECOND_LABEL,
    }


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("01.데이터/1.Training/2_라벨링데이터/TL01/반려견", "train"),
        ("2.Validation/반려묘", "val"),
        ("TL01/반려견", "train"),
        ("VL01_잔여/반려견", "val"),
        ("반려견/피부", ""),
        ("my training photos/x", ""),
    ],
)
def test_aihubs_own_split_is_read_from_the_folders(folder: str, split: str) -> None:
    assert catalogue.own_split(folder) == split


def test_names_on_disk_that_are_no_utf8_are_read_and_reported(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + "/반려견".encode("cp949")
    os.mkdir(folder)
    for suffix in (b"json", b"jpg"):
        with open(folder + b"/a." + suffix, "wb") as file:
            file.write(b'{"metaData": {}}')

    found = list_sources([tmp_path])

    assert [member.path for member in found.members] == ["반려견/a.jpg", "반려견/a.json"]
    assert MemberReader(found.containers).read(found.members[1]) == b'{"metaData": {}}'


def make_zip(path: Path, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("폴더/a.json", b'{"metaData": {}}' * 50)
        archive.writestr("b.jpg", b"")
    return path


def test_a_name_in_a_zip_is_read_alike_whether_or_not_python_knows_its_second_spelling() -> None:
    entry = zipfile.ZipInfo("폴더/가.json".encode("cp949").decode("cp437"))
    assert zip_entry_name(entry) == "폴더/가.json"

    entry.filename = "폴더/가.json"  # what Python 3.12 does where the extra field 0x7075 holds it

    assert zip_entry_name(entry) == "폴더/가.json"


def test_zip_members_are_read_in_place(tmp_path: Path) -> None:
    found = list_sources([make_zip(tmp_path / "TL01.zip")])
    reader = MemberReader(found.containers)

    by_path = {member.path: member for member in found.members}
    assert sorted(by_path) == ["TL01/b.jpg", "TL01/폴더/a.json"]
    assert reader.read(by_path["TL01/폴더/a.json"]) == b'{"metaData": {}}' * 50
    with pytest.raises(Unreadable, match="empty file"):
        reader.read(by_path["TL01/b.jpg"])


def test_damage_inside_a_zip_is_one_members_and_is_named(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "TL01.zip", zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[content.index(b"metaData")] ^= 1
    path.write_bytes(content)
    (member,) = [member for member in list_sources([path]).members if member.name == "a.json"]

    with pytest.raises(Unreadable, match="damaged in the zip"):
        MemberReader([path]).read(member)

    odd = make_zip(tmp_path / "VL01.zip", zipfile.ZIP_BZIP2)
    (member,) = [member for member in list_sources([odd]).members if member.name == "a.json"]
    with pytest.raises(Unreadable, match="method 12"):
        MemberReader([odd]).read(member)


def test_sources_that_cannot_be_are_refused(tmp_path: Path) -> None:
    (tmp_path / "TL01.zip").write_bytes(b"PK half of a download")
    with pytest.raises(UsageError, match="damaged"):
        list_sources([tmp_path])
    (tmp_path / "TL01.zip").rename(tmp_path / "TL01.zip.part0")
    with pytest.raises(UsageError, match="join the parts"):
        list_sources([tmp_path])
    for name in ("a", "b"):
        (tmp_path / name / "TL01").mkdir(parents=True)
    with pytest.raises(UsageError, match="same name"):
        list_sources([tmp_path / "a/TL01", tmp_path / "b/TL01"])


def test_a_pipe_that_is_called_like_a_zip_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "TL01.zip")
    with pytest.raises(UsageError, match=r"TL01\.zip is damaged \(.*it is a FIFO, not a file"):
        list_sources([tmp_path])


def test_the_line_that_joins_the_parts_of_a_zip_joins_them_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "내려받은 것"
    folder.mkdir()
    whole = bytes(range(240))
    for first in range(0, 240, 20):  # AI-Hub's parts are called by their first bytes
        (folder / f"TL 01.zip.part{first}").write_bytes(whole[first : first + 20])
    with pytest.raises(UsageError) as refused:
        list_sources([folder])
    line = str(refused.value).split("`")[1]
    subprocess.run(["sh", "-c", line], cwd=folder, check=True)
    assert (folder / "TL 01.zip").read_bytes() == whole


def test_another_download_has_another_signature(tmp_path: Path) -> None:
    first = listing(tmp_path, "a.json", "b.json").signature()

    assert listing(tmp_path, "a.json").signature() == first
    assert listing(tmp_path, "c.json").signature() != first


# ---- options and splits --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"species": "X"}, "dog"),
        ({"species": "C", "classes": ("A1",)}, "A2, A4, A6"),
        ({"val": 0.0}, "--val"),
        ({"val": 0.6, "test": 0.4}, "leave something for train"),
        ({"keep_split": True, "test": 0.1}, "no test images"),
        ({"background": -1}, "--background"),
        ({"background": 1.5}, "--background"),
        ({"imgsz": 8}, "--imgsz"),
        ({"crop": -0.1}, "--crop"),
        ({"max_per_class": 0}, "--max-per-class"),
        ({"min_area": -1}, "--min-area"),
        ({"min_area": math.nan}, "--min-area"),
        ({"background": math.nan}, "--background"),
        ({"background": math.inf}, "--background"),
        ({"crop": math.inf}, "--crop"),
        ({"val": math.nan}, "val"),
    ],
)
def test_contradictory_options_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Options(**options)


def test_classes_are_given_by_code_or_name() -> None:
    assert codes_of(["A1", "pustule_acne", "미란_궤양"]) == ("A1", "A4", "A5")
    assert Options(classes=("A5", "A1")).codes == ("A1", "A5")
    assert Options(species="C").codes == ("A2", "A4", "A6")
    for name in ("A7", "wart"):
        with pytest.raises(UsageError, match="no class; there are A1 papule_plaque"):
            codes_of([name])


def test_a_planted_leak_is_found() -> None:
    samples = [splitting.Sample(f"animal {number}", (f"digest {number}",), frozenset({0})) for number in range(4)]
    twin = splitting.Sample("animal 9", ("digest 1",), frozenset({0}))
    sibling = splitting.Sample("animal 2", ("digest 9",), frozenset({0}))

    clean_split = splitting.find_leaks(samples, ["train", "train", "val", "val"])
    leaks = splitting.find_leaks([*samples, twin, sibling], ["train", "train", "val", "val", "val", "train"])

    assert not clean_split
    assert leaks == splitting.Leaks(groups=("animal 2",), images=("digest 1",))


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(-1, 5)), min_size=60, max_size=200), st.randoms())
def test_a_split_never_leaks_and_does_not_depend_on_the_order(drawn: list[tuple[int, int]], order: Any) -> None:
    samples = [
        splitting.Sample(f"animal {animal}", (str(number),), frozenset({code} - {-1}))
        for number, (animal, code) in enumerate(drawn)
    ]
    largest = max(Counter(sample.group for sample in samples).values())
    if largest > 0.2 * len(samples):
        return
    shuffled = order.sample(samples, len(samples))

    splits = splitting.assign(samples, 0.3, 0.2, 0)

    assert not splitting.find_leaks(samples, splits)
    again = dict(zip((sample.digests for sample in shuffled), splitting.assign(shuffled, 0.3, 0.2, 0), strict=True))
    assert [again[sample.digests] for sample in samples] == splits
    assert splits.count("val") <= round(0.3 * len(samples))


def test_a_report_that_does_not_add_up_is_no_report() -> None:
    report = Report({}, archives=0, files=Counts(found=3, kept=1, dropped=Counter({"lost": 1})))

    with pytest.raises(RuntimeError, match="files: 3 found, 1 kept and 1 dropped"):
        report.check()
