"""From what a study file or ``--data`` says to a ``data.yaml`` on this machine's disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from petskin_tune.datasets import demo, layout
from petskin_tune.datasets.archives import unpacking
from petskin_tune.errors import UsageError
from petskin_tune.files.atomic import only_one, write_whole
from petskin_tune.files.paths import is_file, is_there, typed
from petskin_tune.files.yaml_kinds import SUFFIXES, is_study

DEMO = "demo"


def prepare(data: str, *, base: Path, cache: Path) -> Path:
    """Make a data set ready for training and return the path of its YAML.

    A YAML's ``download:`` is never followed; a data set is what lies there.

    Args:
        data: ``demo`` (made on the spot), the path of a YAML, of the folder it lies in, or of a .zip, .tar or .tar.gz
            with one inside (copied to local disk and unpacked once).
        base: what a relative path is looked up in first (the study file's folder); the current folder comes second.
        cache: folder on this machine's disk for what is made, unpacked and resolved.

    Raises:
        UsageError: the data set is missing, broken, or without images or labels.
    """
    cache = cache.expanduser().resolve()
    if data == DEMO:
        return demo.make(cache / DEMO)
    path = _find(data, base)
    if path.is_file() and unpacking.is_archive(path):
        path = unpacking.unpack(path, cache / "archives")
    if path.is_dir():
        path = _yaml_in(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path} is no data set: give a .yaml, a .zip, a .tar or a .tar.gz.")
    if is_study(path):
        raise UsageError(f"{path} is a study file, no data set: give the data set's own YAML, or its folder.")
    resolved = _resolved(path.resolve(), cache / "resolved")
    _require_labels(layout.read(resolved))
    return resolved


def _find(data: str, base: Path) -> Path:
    if "://" in data:
        raise UsageError(f"The data set {data} is a URL; download it and give the file's path.")
    wanted = typed(data)
    places = [base / wanted, Path.cwd() / wanted]
    found = [place for place in places if is_there(place)]
    if found:  # a study file may be called as its data set
        return next((place for place in found if not is_study(place)), found[0])
    looked = " and ".join(dict.fromkeys(str(place) for place in places))
    raise UsageError(f"The data set {data} is missing (looked for {looked}); {_way_on(wanted)}")


def _way_on(wanted: Path) -> str:
    if "petskin" in str(wanted):
        return (
            "download data set 561 (pet skin disease) from aihub.or.kr, then type "
            f"`petskin-tune data aihub SOURCE {wanted.parent}`, or give another data set by --data."
        )
    return "give its path by --data."


def _yaml_in(folder: Path) -> Path:
    """The one data set YAML in a folder: the least deep, at most two folders down; ``data.yaml`` before others.

    Raises:
        UsageError: there is none, or several are equally good.
    """
    for level in ("*", "*/*", "*/*/*"):
        yamls = sorted(path for path in folder.glob(level) if path.suffix.lower() in SUFFIXES and is_file(path))
        found = [path for path in yamls if not is_study(path)]
        named = [path for path in found if path.stem == "data"]
        if len(named or found) == 1:
            return (named or found)[0]
        if found:
            raise UsageError(f"{folder} holds several data sets: {', '.join(path.name for path in found)}; name one.")
    raise UsageError(f"There is no data.yaml in {folder}.")


def _resolved(yaml_path: Path, cache: Path) -> Path:
    """A YAML that Ultralytics reads as we do: the given one, or one in ``cache`` with absolute paths."""
    raw = layout.load_yaml(yaml_path)
    data_set = layout.read(yaml_path)
    stated = raw.get("path")
    lists = _ambiguous_lists(data_set)
    if "download" not in raw and stated in (None, str(data_set.root)) and not lists:
        return yaml_path
    content = absolute(data_set)
    folder = cache / hashlib.sha256(f"{yaml_path}|{sorted(lists)}|{content}".encode()).hexdigest()[:32]
    with only_one(folder):
        for split, images in lists.items():
            image_list = folder / f"{split}.txt"
            write_whole(image_list, "".join(f"{image}\n" for image in images))
            content[split] = str(image_list)
        write_whole(folder / "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return folder / "data.yaml"


def absolute(data_set: layout.DataSet) -> dict[str, Any]:
    """The content of a data set's YAML with absolute paths, and without a ``download:``."""
    content: dict[str, Any] = {
        key: value for key, value in data_set.raw.items() if key not in ("download", "validation")
    }
    content["path"] = str(data_set.root)
    for split in data_set.images:
        entries = layout.split_entries(data_set.yaml, data_set.raw, split)
        content[split] = [str(layout.locate(data_set.root, entry)) for entry in entries]
    if data_set.groups is not None:
        content["groups"] = str(data_set.groups)
    return content


def _ambiguous_lists(data_set: layout.DataSet) -> Mapping[str, tuple[Path, ...]]:
    """The images of the splits whose lists hold paths that Ultralytics would look up in the current folder."""
    ambiguous = {}
    for split, images in data_set.images.items():
        for entry in layout.split_entries(data_set.yaml, data_set.raw, split):
            place = layout.locate(data_set.root, entry)
            if place and place.is_file() and not all(line.startswith(("/", "./")) for line in layout.list_lines(place)):
                ambiguous[split] = images
    return ambiguous


def _require_labels(data_set: layout.DataSet) -> None:
    for split in ("train", "val"):
        images = data_set.images[split]
        if not any(layout.label_lines(layout.label_path(image)) for image in images):
            raise UsageError(
                f"{data_set.yaml}: none of the {len(images)} {split} images has a label; the first one's "
                f"should lie at {layout.label_path(images[0])}."
            )
