"""An AI-Hub 561 download with known truth: its layout, its names, its habits and its damage, with drawn pictures."""

from __future__ import annotations

import io
import json
import math
import random
import unicodedata
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

KOREAN = {
    "A1": "A1_구진_플라크",
    "A2": "A2_비듬_각질_상피성잔고리",
    "A3": "A3_태선화_과다색소침착",
    "A4": "A4_농포_여드름",
    "A5": "A5_미란_궤양",
    "A6": "A6_결절_종괴",
    "A7": "A7_무증상",
}
COLOURS = {
    "A1": (220, 40, 40),
    "A2": (240, 240, 40),
    "A3": (40, 40, 220),
    "A4": (40, 200, 40),
    "A5": (200, 40, 200),
    "A6": (40, 220, 220),
}
FULL = (1920, 1080)

Points = list[tuple[float, float]]


@dataclass
class Truth:
    """What an import must make of one image."""

    fate: str  # "kept", or the reason
    objects: list[tuple[str, Points]] = field(default_factory=list)  # class code, outline in pixels
    size: tuple[int, int] = FULL
    group: str = ""
    split: str = ""  # AI-Hub's own


@dataclass
class Tree:
    """Files by path below the split's folder (1.Training/2_라벨링데이터/TL01/…), and the truth by label path."""

    files: dict[str, bytes] = field(default_factory=dict)
    truths: dict[str, Truth] = field(default_factory=dict)  # by path of the label file
    fates: dict[str, str] = field(default_factory=dict)  # of files that belong to no label

    def write_folder(self, dest: Path, form: str = "NFC") -> Path:
        for name, content in self.files.items():
            path = dest / unicodedata.normalize(form, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return dest

    def write_zips(self, dest: Path, names: str) -> Path:
        """One zip per split and delivery (…/TL01.zip). ``names``: "cp949", "NFD" (both without the flag) or "utf-8"."""
        archives: dict[Path, zipfile.ZipFile] = {}
        for name, content in self.files.items():
            folder, delivery, inside = _delivery(name)
            path = dest / folder / f"{delivery}.zip"
            if path not in archives:
                path.parent.mkdir(parents=True, exist_ok=True)
                archives[path] = zipfile.ZipFile(path, "w")
            entry = _Entry(inside) if names == "utf-8" else _LegacyEntry(inside)
            if isinstance(entry, _LegacyEntry):
                entry.raw = (
                    inside.encode("cp949") if names == "cp949" else unicodedata.normalize("NFD", inside).encode()
                )
            kind = zipfile.ZIP_STORED if inside.endswith("jpg") else zipfile.ZIP_DEFLATED
            archives[path].writestr(entry, content, kind)
        for archive in archives.values():
            archive.close()
        return dest


def _delivery(name: str) -> tuple[str, str, str]:
    """Folder of the zip, its name, and the path inside."""
    parts = name.split("/")
    level = next((number for number, part in enumerate(parts) if part[:4] in ("TL01", "VL01")), 1)
    return "/".join(parts[:level]), parts[level], "/".join(parts[level + 1 :])


_Entry = zipfile.ZipInfo


class _LegacyEntry(zipfile.ZipInfo):
    raw = b""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        return self.raw, self.flag_bits & ~0x800


class Builder:
    """Adds one image after another."""

    def __init__(self, seed: int = 0) -> None:
        self.draw = random.Random(seed)
        self.tree = Tree()
        self.number = 0
        self.animals = [
            (
                ["믹스견", "말티즈", "푸들", "페르시안"][number % 4],
                number % 13,
                "MF"[number % 2],
                f"2021-{number % 9 + 1:02d}-03",
            )
            for number in range(36)
        ]

    def outline(self, size: tuple[int, int] = FULL, corners: int = 12) -> Points:
        """A star-shaped outline inside the image."""
        reach = self.draw.uniform(0.06, 0.16) * size[1]
        x, y = (self.draw.uniform(reach, side - reach) for side in size)
        radii = [reach * self.draw.uniform(0.6, 1) for _ in range(corners)]
        angles = [2 * math.pi * number / corners for number in range(corners)]
        return [
            (round(x + radius * math.cos(angle)), round(y + radius * math.sin(angle)))
            for radius, angle in zip(radii, angles, strict=True)
        ]

    def picture(self, objects: list[tuple[str, Points]], size: tuple[int, int] = FULL) -> bytes:
        """A JPEG of one colour with the outlines painted in; no two are the same."""
        image = Image.new("RGB", size, tuple(self.draw.randrange(90, 130) for _ in range(3)))
        draw = ImageDraw.Draw(image)
        for code, points in objects:
            if len(points) > 2:
                draw.polygon(points, fill=COLOURS[code])
        stamp = self.draw.getrandbits(32)
        for bit in range(32):
            if stamp >> bit & 1:
                draw.rectangle((4 + bit * 8, 4, 9 + bit * 8, 9), fill=(0, 0, 0))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=88)
        return buffer.getvalue()

    def add(
        self,
        code: str = "A4",
        objects: list[tuple[str, Points]] | None = None,
        *,
        species: str = "D",
        split: str = "train",
        fate: str = "kept",
        items: list[dict[str, Any]] | None = None,
        truth: list[tuple[str, Points]] | None = None,
        size: tuple[int, int] = FULL,
        picture: bytes | None = b"drawn",
        encoding: str = "utf-8",
        raw: bytes | None = None,
        folder_code: str | None = None,
        rest: bool = False,
        level: bool = True,
        middle: str = "",
        number: int | None = None,
        animal: int | None = None,
        meta: dict[str, Any] | None = None,
        top: dict[str, Any] | None = None,
        suffix: str = ".jpg",
    ) -> str:
        """Add an image and its label file; returns the label's path."""
        if number is None:
            self.number += 1
            number = self.number
        if objects is None:
            objects = [] if code == "A7" else [(code, self.outline(size))]
        breed, age, gender, date = self.animals[self.draw.randrange(36) if animal is None else animal]
        stem = f"IMG_{species}_{code}_{middle}{number:06d}"
        folder = self._folder(folder_code or code, species, split, rest, level)
        content = {
            "metaData": {
                "Raw data ID": f"{stem}.jpg",
                "resolution": "1920X1080",
                "date": date,
                "breed": breed,
                "age": age,
                "gender": gender,
                "species": species,
                "lesions": code,
                "Path": "무증상" if code == "A7" else "유증상",
                "합성유무": None,
                **(meta or {}),
            },
            "inspRejectYn": "N",
            "labelingInfo": [item for object_ in objects for item in both(*object_)] if items is None else items,
            **(top or {}),
        }
        label = f"{folder}/{stem}.json"
        self.tree.files[label] = json.dumps(content, ensure_ascii=False).encode(encoding) if raw is None else raw
        if picture == b"drawn":
            picture = self.picture(objects, size)
        if picture is not None:
            self.tree.files[f"{folder}/{stem}{suffix}"] = picture
        group = f"{content['metaData']['species']} {breed} {age} {gender} {date}"
        self.tree.truths[label] = Truth(fate, objects if truth is None else truth, size, group, split)
        return label

    def _folder(self, code: str, species: str, split: str, rest: bool, level: bool) -> str:
        split_folder = {"train": "1.Training", "val": "2.Validation"}[split]
        parts = [split_folder, "2_라벨링데이터"]
        if level:
            parts.append({"train": "TL01", "val": "VL01"}[split] + ("_잔여" if rest else ""))
        state = "무증상" if code == "A7" else "유증상"
        return "/".join([*parts, {"D": "반려견", "C": "반려묘"}[species], "피부", "일반카메라", state, KOREAN[code]])

    def add_other(self, path: str, content: bytes, fate: str) -> None:
        self.tree.files[path] = content
        self.tree.fates[path] = fate


def polygon(code: str, points: Points, *, label: str | None = None, close: bool = True) -> dict[str, Any]:
    ring = [*points, points[0]] if close else points
    location = {f"{axis}{number}": point["xy".index(axis)] for number, point in enumerate(ring, 1) for axis in "xy"}
    return {"polygon": {"color": "#cd66cd", "location": [location], "label": label or KOREAN[code], "type": "polygon"}}


def box(code: str, points: Points, *, label: str | None = None) -> dict[str, Any]:
    xs, ys = zip(*points, strict=True)
    location = {"x": min(xs), "y": min(ys), "width": max(xs) - min(xs), "height": max(ys) - min(ys)}
    return {"box": {"color": "#cd66cd", "location": [location], "label": label or KOREAN[code], "type": "box"}}


def both(code: str, points: Points) -> list[dict[str, Any]]:
    return [polygon(code, points), box(code, points)]


def build(seed: int = 0, ordinary: int = 6) -> Tree:
    """The whole tree: ``ordinary`` images a class, species and split, and every habit and damage that is known."""
    make = Builder(seed)
    for split in ("train", "val"):
        for species, codes in (("D", ("A1", "A2", "A3", "A4", "A5", "A6")), ("C", ("A2", "A4", "A6"))):
            for code in codes:
                for _ in range(ordinary):
                    make.add(code, species=species, split=split)
        for _ in range(4):
            make.add("A7", split=split, items=[], fate="asymptomatic, and no background asked for")
    _add_layouts(make)
    _add_labelling(make)
    _add_outlines(make)
    _add_damage(make)
    return make.tree


def _add_layouts(make: Builder) -> None:
    make.add("A2", rest=True)
    make.add("A2", rest=True, split="val")
    make.add("A5", level=False)
    make.add("A3", middle="01_", number=10)
    make.add("A1", number=1, split="val", animal=0)  # a file name of Training, used again
    make.add("A7", folder_code="A4", items=[], fate="asymptomatic, and no background asked for")
    make.add("A4", species="D", meta={"species": "C"})  # a cat among the dogs
    make.add("A6", suffix=".JPG")
    label = make.add("A5", picture=None)  # the image came with another delivery
    image = label.replace("TL01", "TL01_잔여").replace(".json", ".jpg")
    make.tree.files[image] = make.picture(make.tree.truths[label].objects)
    make.add_other("1.Training/2_라벨링데이터/TL01/readme.txt", b"hello", "neither label nor image")
    make.add_other("1.Training/2_라벨링데이터/TL01/반려견/.DS_Store", b"x", "neither label nor image")
    lone = "1.Training/2_라벨링데이터/TL01/반려견/피부/일반카메라/유증상/A4_농포_여드름/IMG_D_A4_999999.jpg"
    make.add_other(lone, make.picture([]), "image without a label file")


def _add_labelling(make: Builder) -> None:
    first, second = make.outline(), make.outline()
    make.add("A4", [("A4", first), ("A5", second)])  # every object has a class of its own
    make.add(
        "A4",
        [("A4", first), ("A4", second)],
        items=[box("A4", first), polygon("A4", second), polygon("A4", first), box("A4", second)],
    )
    for text, code in (
        ("A4_농포 여드름", "A4"),
        (" A 4_농포_여드름 ", "A4"),
        ("A1_구진/플라크", "A1"),
        ("농포_여드름", "A4"),
    ):
        points = make.outline()
        make.add(code, [(code, points)], items=[polygon(code, points, label=text)])
    points = make.outline()
    item = polygon("A6", points)
    item["polygon"]["label"] = None
    make.add("A6", [("A6", points)], items=[item])  # the image's class speaks
    make.add("A1", [("A1", points)], items=[polygon("A1", points), polygon("A7", make.outline())])
    make.add("A3", encoding="utf-8-sig")
    make.add("A3", encoding="cp949")
    make.add("A2", meta={"합성유무": "Y"})
    make.add("A2", top={"inspRejectYn": "Y"}, fate="rejected by AI-Hub's inspection")
    decomposed = unicodedata.normalize("NFD", "합성유무")
    make.add("A2", meta={decomposed: "Y"})
    make.add(
        "A4", items=[polygon("A4", points, label="B9_없음")], meta={"lesions": "?"}, fate="no class on image or object"
    )
    make.add("A4", items=[], fate="label file without objects")
    make.add("A4", items=[box("A4", points)], fate="no object left: box without an outline")
    empty = {"box": {"location": [{"x": 5, "y": 5, "width": 0, "height": 9}], "label": KOREAN["A4"]}}
    make.add("A4", [("A4", points)], items=[polygon("A4", points), empty])


def _add_outlines(make: Builder) -> None:
    points = make.outline()
    make.add("A5", [("A5", points)], items=[polygon("A5", points, close=False)])
    make.add("A5", [("A5", points)], items=[polygon("A5", [point for point in points for _ in range(2)])])
    make.add("A5", [("A5", points)], items=[polygon("A5", points), polygon("A5", points)])
    over = [(1700, 900), (2100, 900), (2100, 1200), (1700, 1200)]
    make.add("A1", [("A1", over)], truth=[("A1", [(1700, 900), (1920, 900), (1920, 1080), (1700, 1080)])])
    under = [(-50, -30), (200, -30), (200, 150), (-50, 150)]
    make.add("A1", [("A1", under)], truth=[("A1", [(0, 0), (200, 0), (200, 150), (0, 150)])])
    make.add("A1", [("A1", [(2000, 10), (2100, 10), (2100, 99)])], fate="no object left: outside the image")
    bow = [(400, 400), (600, 600), (600, 400), (400, 600)]
    left, right = [(400, 400), (500, 500), (400, 600)], [(600, 600), (500, 500), (600, 400)]
    make.add("A6", [("A6", left), ("A6", right)], items=[polygon("A6", bow)])
    make.add("A6", items=[polygon("A6", [(9, 9), (80, 80)])], fate="no object left: fewer than three points")
    make.add("A6", items=[polygon("A6", [(9, 9), (40, 40), (80, 80)])], fate="no object left: outline without an area")
    make.add("A6", items=[polygon("A6", [(9, 9), (10, 9), (10, 10)])], fate="no object left: smaller than --min-area")
    broken = polygon("A6", points)
    del broken["polygon"]["location"][0]["y3"]
    make.add("A6", items=[broken], fate="no object left: broken coordinates")
    texts = polygon("A6", points)
    texts["polygon"]["location"] = [{key: str(value) for key, value in texts["polygon"]["location"][0].items()}]
    make.add("A6", [("A6", points)], items=[texts])
    portrait = (1080, 1440)
    shown = make.outline(portrait)
    make.add("A2", [("A2", shown)], size=portrait)
    small = (960, 540)
    far = [(1500, 900), (1800, 900), (1800, 1000)]
    make.add("A2", [("A2", far)], size=small, fate="outlines drawn on a picture of another size")


def _add_damage(make: Builder) -> None:
    whole = make.picture([("A4", make.outline())])
    make.add("A4", picture=b"", fate="image: empty file")
    make.add("A4", picture=whole[: len(whole) // 2], fate="image: cut short or damaged")
    make.add("A4", picture=b"not a picture", fate="image: no readable picture")
    make.add("A4", picture=None, fate="label file without an image")
    make.add("A4", raw=b'{"metaData": {', fate="label file: broken JSON")
    make.add("A4", raw=b"", fate="label file: empty file")
    make.add("A4", raw=b"[1, 2]", fate="label file: JSON without metaData")
    make.add("A4", raw=b"\xff\xfe\xff", fate="label file: text in an unknown encoding")
    objects = [("A4", make.outline())]
    twin = make.picture(objects)
    make.add("A4", objects, picture=twin)
    make.add("A4", objects, picture=twin, fate="identical to another image")
    # The same animal, and the same photograph, on both sides of AI-Hub's own split.
    make.add("A5", animal=7, split="train")
    make.add("A5", animal=7, split="val")
    objects = [("A6", make.outline())]
    twin = make.picture(objects)
    make.add("A6", objects, picture=twin, split="train", animal=8)
    make.add("A6", objects, picture=twin, split="val", animal=8, fate="identical to another image")
