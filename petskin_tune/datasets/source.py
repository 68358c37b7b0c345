"""From what a study file or ``--data`` says to a ``data.yaml`` on this machine's disk."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from petskin_tune.datasets import demo, layout
from petskin_tune.datasets.archives import unpacking
from petskin_tune.datasets.folders import list_lines, write_list
from petskin_tune.datasets.labels.rows import label_lines, label_path
from petskin_tune.datasets.layout import SPLITS
from petskin_tune.datasets.names import class_names
from petskin_tune.errors import UsageError
from petskin_tune.files import regular
from petskin_tune.files.atomic import only_one, write_whole
from petskin_tune.files.paths import filling, is_file, is_there, resolved, typed
from petskin_tune.files.yaml_kinds import SUFFIXES, is_study
from petskin_tune.printable import quoted, raw
from petskin_tune.text import operand

DEMO = "demo"
_KEYS = {*SPLITS, "path", "validation", "names", "names_ko", "nc", "channels", "groups"}  # read alike by Ultralytics


def prepare(data: str, *, base: Path, cache: Path, by_name: bool = True) -> Path:
    """Make a data set ready for training and return the path of its YAML.

    A YAML's ``download:`` is never followed; a data set is what lies there.

    Args:
        data: ``demo`` (made on the spot), the path of a YAML, of the folder it lies in, or of a .zip, .tar or .tar.gz
            with one inside (copied to local disk and unpacked once).
        base: what a relative path is looked up in first (the study file's folder); the current folder comes second.
        cache: folder on this machine's disk for what is made, unpacked and resolved.
        by_name: let its images be those of :func:`petskin_tune.datasets.layout.by_name`, for whoever reads the YAML.

    Raises:
        UsageError: the data set is missing, broken, or without images or labels.
    """
    cache = resolved(typed(cache))
    with filling(cache):
        if data == DEMO:
            return demo.make(cache / f"{DEMO}-{demo.TRAIN}-{demo.VAL}")
        return _prepared(_find(data, base), cache, by_name)


def _prepared(path: Path, cache: Path, by_name: bool) -> Path:
    within = None
    if path.is_file() and unpacking.is_archive(path):
        within = unpacking.unpack(path, cache / "archives")
        path = _yaml_of_archive(path, within)
    elif path.is_dir():
        path = _yaml_in(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path} is no data set: give a .yaml, a .zip, a .tar or a .tar.gz.")
    if is_study(path):
        raise UsageError(f"{path} is a study file, no data set: give the data set's own YAML, or its folder.")
    data_set = layout.read(path, within, by_name=by_name)
    _require_labels(data_set)
    return _resolved(data_set, cache / "resolved")


def _find(data: str, base: Path) -> Path:
    if "://" in data:
        raise UsageError(f"The data set {quoted(data)} is a URL; download it and give the file's path.")
    wanted = typed(data)
    places = [base / wanted, Path.cwd() / wanted]
    found = [place for place in places if is_there(place)]
    if found:  # a study file may be called as its data set
        return next((place for place in found if not is_study(place)), found[0])
    looked = " and ".join(dict.fromkeys(quoted(place) for place in places))
    raise UsageError(f"The data set {quoted(data)} is missing (looked for {looked}); {_way_on(wanted)}")


def _way_on(wanted: Path) -> str:
    if unpacking.is_archive(wanted):
        line = f"petskin-tune data aihub SOURCE DEST --archive {shlex.quote(str(wanted))}"
        return f"`{line}` makes one of AI-Hub's data set 561; or give another path by --data."
    if "petskin" in wanted.parent.name:
        return (
            "download data set 561 (pet skin disease) from aihub.or.kr, then type "
            f"`petskin-tune data aihub SOURCE {operand(str(wanted.parent))}`, or give another data set by --data."
        )
    return "give its path by --data."


def _yaml_of_archive(archive: Path, unpacked: Path) -> Path:
    """:func:`_yaml_in` what an archive was unpacked to; archives in it are not looked at.

    Raises:
        UsageError: it holds no YAML; says which archive it holds.
    """
    try:
        return _yaml_in(unpacked)
    except UsageError:
        found = (path for level in ("*", "*/*", "*/*/*") for path in sorted(unpacked.glob(level)))
        inner = next((path for path in found if is_file(path) and unpacking.is_archive(path)), None)
        if inner is None:
            raise
    raise UsageError(
        f"{archive} holds no data.yaml but another archive, {quoted(inner.relative_to(unpacked))}: unpack it, and "
        "give the one inside, or its data.yaml."
    )


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
            raise UsageError(
                f"{folder} holds several data sets: {quoted(', '.join(path.name for path in found))}; name one."
            )
    raise UsageError(f"There is no data.yaml in {folder}.")


def _resolved(data_set: layout.DataSet, cache: Path) -> Path:
    """A YAML that Ultralytics reads as we do: the given one, or one in ``cache`` with absolute paths."""
    lists = _ambiguous_lists(data_set)
    if not lists and _reads_alike(data_set):
        return data_set.yaml
    content = absolute(data_set)
    folder = cache / hashlib.sha256(raw(f"{data_set.yaml}|{sorted(lists)}|{content}")).hexdigest()[:32]
    with only_one(folder):
        for split, images in lists.items():
            image_list = folder / f"{split}.txt"
            write_list(image_list, images)
            content[split] = str(image_list)
        write_whole(folder / "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return folder / "data.yaml"


def _reads_alike(data_set: layout.DataSet) -> bool:
    """Whether Ultralytics takes the YAML as written, and finds in it what we found."""
    written = data_set.raw
    known = set(written) <= _KEYS and not data_set.notes and written.get("test") is not False
    counted = "nc" not in written or written["nc"] is not None
    rooted = written.get("path") in (None, str(data_set.root)) and _is_utf8(str(data_set.yaml))
    same = known and counted and rooted and _plainly_reads(data_set)
    ordered = not data_set.by_name or all(map(_is_by_path, data_set.images.values()))
    return same and ordered and all(map(_found_alike, (data_set,) * len(SPLITS), SPLITS))


def _is_by_path(images: Sequence[Path]) -> bool:
    """Whether these would be a split's images by path, too: each once and sorted, as paths and as text."""
    return list(images) == sorted(set(images)) == sorted(images, key=str)


def _plainly_reads(data_set: layout.DataSet) -> bool:
    """Whether YAML's own reader finds these words, too: it takes some for numbers, dates, or true and false."""
    try:
        plain = yaml.load(regular.read_text(data_set.yaml), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        same = class_names(data_set.yaml, plain) == data_set.names
    except (UsageError, yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError):
        return False
    return same and all(plain.get(key) == data_set.raw.get(key) for key in (*SPLITS, "validation", "path"))


def _found_alike(data_set: layout.DataSet, split: str) -> bool:
    """Whether the entries of a split lead there for Ultralytics, too, which forgives ``../`` in plain text alone."""
    entries = layout.split_entries(data_set.yaml, data_set.raw, split)
    found = tuple(layout.locate(data_set.root, entry) for entry in entries)
    plain = not isinstance(data_set.raw.get(split), list)
    there = plain or all(is_there(data_set.root / entry) for entry in entries)
    return there and found == data_set.places.get(split, ())


def absolute(data_set: layout.DataSet) -> dict[str, Any]:
    """The content of a data set's YAML with absolute paths, and nothing that no training of ours needs."""
    content: dict[str, Any] = {"path": str(data_set.root)}
    for split, places in data_set.places.items():
        content[split] = [str(place) for place in places]
    content["names"] = dict(enumerate(data_set.names))
    if data_set.by_name:
        content |= layout.BY_NAME
    if "channels" in data_set.raw:
        content["channels"] = layout.channels(data_set.raw)
    if data_set.groups is not None:
        content["groups"] = str(data_set.groups)
    return content


def _ambiguous_lists(data_set: layout.DataSet) -> Mapping[str, tuple[Path, ...]]:
    """The images of the splits whose lists hold paths that Ultralytics would look up in the current folder."""
    return {
        split: data_set.images[split]
        for split, places in data_set.places.items()
        if any(place.is_file() and not all(map(_is_plain, list_lines(place))) for place in places)
    }


def _is_plain(line: str) -> bool:
    return line.startswith(("/", "./")) and _is_utf8(line)


def _is_utf8(text: str) -> bool:
    """Whether a path can be written into a text file, as Ultralytics does with that of the data set."""
    return raw(text).decode(errors="replace") == text


def _require_labels(data_set: layout.DataSet) -> None:
    """Refuse a data set without labels; where its images are not there, their labels are not looked for there."""
    for split in ("train", "val"):
        images = data_set.images[split]
        if not any(label_lines(label_path(image)) for image in images):
            if gone := [image for image in images if not is_there(image)]:
                raise UsageError(
                    f"{data_set.yaml}: {len(gone)} of the {len(images)} {split} images are listed and not there; the "
                    f"first is {quoted(gone[0])}."
                )
            raise UsageError(
                f"{data_set.yaml}: none of the {len(images)} {split} images has a label; the first one's "
                f"should lie at {label_path(images[0])}."
            )
