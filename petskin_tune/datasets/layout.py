"""A YOLO segmentation data set as it lies on disk: its YAML and the images that it names.

Where Ultralytics is generous or depends on the machine (its ``datasets_dir`` setting, the current folder), this module
is strict: a path in a YAML is relative to the YAML, a path in an image list is relative to the list. A training reads
its data through this module, too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from petskin_tune.datasets.folders import as_spelled, images_at
from petskin_tune.datasets.labels.rows import label_path
from petskin_tune.datasets.names import class_names
from petskin_tune.errors import UsageError
from petskin_tune.files import regular, yaml_guard
from petskin_tune.files.paths import is_there, resolved, typed
from petskin_tune.files.yaml_guard import BadYaml
from petskin_tune.printable import quoted

SPLITS = ("train", "val", "test")
BY_NAME = {"images_by": "name"}  # in a YAML of ours: the images are those of :func:`by_name`
_CHANNELS = (1, 3)  # grey and colour


@dataclass(frozen=True)
class DataSet:
    """A data set that has been looked at: every path is absolute, images are as :func:`by_name` has them, or sorted."""

    yaml: Path
    root: Path  # what the entries of the YAML are relative to
    names: tuple[str, ...]  # by class number
    images: Mapping[str, tuple[Path, ...]]  # by split; "test" only where there is one
    places: Mapping[str, tuple[Path, ...]]  # the folders and lists that they are in, by split
    raw: Mapping[str, Any] = field(repr=False)  # the YAML as written
    groups: Path | None = None  # CSV "image,group" of what must stay together, written by our import
    notes: tuple[str, ...] = ()  # what was passed over, for a person
    by_name: bool = False  # or by path and each once, as studies before version 3 of their spec have them


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that must hold a mapping.

    Raises:
        UsageError: it cannot be read, is broken (with the line number) or holds something else.
    """
    try:
        content = yaml_guard.load_yaml(path, as_written=("names",), most=regular.LARGEST_TEXT)
    except BadYaml as error:
        raise UsageError(f"{path} is not valid YAML: {error}.") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read as YAML: {error.strerror}.") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} is no data set: it must hold the keys train, val and names.")
    return content


def read(yaml_path: Path, within: Path | None = None, *, by_name: bool | None = None) -> DataSet:
    """Look at a data set: resolve its YAML and list the images of every split.

    A split that no trial looks at is not required: a ``test:`` that is not there, or is wrong, is passed over.

    Args:
        yaml_path: the data set's YAML.
        within: a folder that nothing it names may leave, for what came in an archive.
        by_name: whether its images are those of :func:`by_name`; None: as a YAML of ours says.

    Raises:
        UsageError: a key, a folder or a list is missing or wrong, or train or val has no images.
    """
    target, beside = resolved(yaml_path), resolved(yaml_path.parent) / yaml_path.name
    try:
        return _read(target, within, by_name)
    except UsageError as error:
        if target == beside:
            raise
        of_target = error
    try:
        return _read(beside, within, by_name)  # what a link names lies beside what it leads to, or beside the link
    except UsageError as of_link:
        raise _of_both(of_link, beside, of_target, target) from of_target


def _of_both(of_link: UsageError, link: Path, of_target: UsageError, target: Path) -> UsageError:
    """Why a linked YAML cannot be read beside the link, nor beside what it leads to; once where that is the same."""
    if str(of_link) == str(of_target).replace(str(target), str(link)):
        return of_link
    return UsageError(f"{of_target} {link} is a link to it; read beside the link: {of_link}")


def _read(yaml_path: Path, within: Path | None, named: bool | None) -> DataSet:
    raw = load_yaml(yaml_path)
    if named is None:
        named = raw.items() >= BY_NAME.items()
    names = class_names(yaml_path, raw)
    _require_channels(yaml_path, raw)
    root = _root(yaml_path, raw, within)
    images, places, notes = {}, {}, []
    for split in SPLITS:
        try:
            found = _split(yaml_path, raw, root, split, within, named)
        except UsageError as error:
            if split != "test":
                raise
            notes.append(f"`test:` is passed over, no trial looks at it: {error}")
            continue
        if found is not None:
            places[split], images[split] = found
    return DataSet(
        yaml=yaml_path,
        root=root,
        names=names,
        images=images,
        places=places,
        raw=raw,
        groups=_groups(root, raw, within),
        notes=tuple(notes),
        by_name=named,
    )


def _split(
    yaml_path: Path, raw: Mapping[str, Any], root: Path, split: str, within: Path | None, named: bool
) -> tuple[tuple[Path, ...], tuple[Path, ...]] | None:
    """The folders and lists of a split, and its images; None where the YAML names no test split."""
    entries = split_entries(yaml_path, raw, split)
    if not entries:
        return None
    places = tuple(_place(yaml_path, raw, root, entry, within) for entry in entries)
    if named:
        places = tuple(map(_with_labels, places))
        images = tuple(by_name(root, places))
    else:
        images = tuple(sorted({image for place in places for image in images_at(place)}))
    if not images:
        raise UsageError(f"{yaml_path}: no images for {split} in {quoted(', '.join(entries))}.")
    if within and (outside := next((image for image in images if not _is_inside(image, within)), None)):
        raise UsageError(f"{yaml_path} names {outside}, which lies outside of the archive; it is not read.")
    return places, images


def by_name(root: Path, places: Sequence[Path]) -> list[Path]:
    """The images of a split in the order of their names, wherever they lie, each as often as it is listed.

    A training knows its images by their places in this order, and the fingerprint knows them by the same names: with
    one fingerprint two machines train one order. Images of one name are in the order of ``places``, and in each of
    them by path, or as a list has them.

    Args:
        root: of the data set.
        places: the folders and lists of the split.

    Raises:
        UsageError: as :func:`petskin_tune.datasets.folders.images_at`.
    """
    found = (sorted(images_at(place)) if place.is_dir() else images_at(place) for place in places)
    return sorted((image for images in found for image in images), key=partial(_name, root))


def listed(data_set: DataSet, split: str) -> list[Path]:
    """The images of a split as its folders and lists name them: in their order, and as often (oversampling).

    So many a training takes, by either rule.

    Raises:
        UsageError: a folder or list cannot be read any more.
    """
    return [image for place in data_set.places[split] for image in images_at(place)]


def split_entries(yaml_path: Path, raw: Mapping[str, Any], split: str) -> list[str]:
    """The folders or lists that a YAML names for a split; empty where it may lack one (test).

    Raises:
        UsageError: train or val is missing, or an entry is not text.
    """
    value = raw.get(split)
    if value is None and split == "val":
        value = raw.get("validation")  # Ultralytics takes this name too
    if not value:
        if split == "test":
            return []
        raise UsageError(f"{yaml_path} has no `{split}:`; it must name a folder of images or a list of them.")
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, str) and entry.strip() for entry in entries):
        raise UsageError(f"{yaml_path}: `{split}:` must be a path or a list of paths.")
    return entries


def channels(raw: Mapping[str, Any]) -> int:
    """How many channels the images are trained with: 3, or 1 for grey."""
    return int(raw.get("channels") or 3)


def _require_channels(yaml_path: Path, raw: Mapping[str, Any]) -> None:
    stated = raw.get("channels")
    if stated is not None and (isinstance(stated, bool) or stated not in _CHANNELS):
        raise UsageError(f"{yaml_path}: `channels:` must be 3, or 1 for grey images.")


def image_name(data_set: DataSet, image: Path) -> str:
    """An image's name without what differs between machines: from its last ``images`` folder on."""
    return _name(data_set.root, image)


def _name(root: Path, image: Path) -> str:
    parts = image.parts
    if "images" in parts[:-1]:
        last = len(parts) - 1 - parts[::-1].index("images")
        return "/".join(parts[last:])
    if image.is_relative_to(root):
        return image.relative_to(root).as_posix()
    return image.name


def _root(yaml_path: Path, raw: Mapping[str, Any], within: Path | None) -> Path:
    stated = raw.get("path")
    if stated is None:
        return yaml_path.parent
    if not isinstance(stated, str) or "\0" in stated:
        raise UsageError(f"{yaml_path}: `path:` must be text.")
    root = _stated_root(yaml_path, stated)
    # A YAML that travelled still says where it lay on the machine that wrote it.
    usable = is_there(root) and root.is_dir() and (within is None or _is_inside(root, within))
    return resolved(root) if usable else yaml_path.parent


def _stated_root(yaml_path: Path, stated: str) -> Path:
    return yaml_path.parent / typed(stated)


def _place(yaml_path: Path, raw: Mapping[str, Any], root: Path, entry: str, within: Path | None) -> Path:
    place = locate(root, entry, within)
    if place is not None:
        return place
    if within and (outside := locate(root, entry)):
        raise UsageError(
            f"{yaml_path} names {quoted(entry)} ({quoted(outside)}), outside of the archive; it is not read."
        )
    stated = raw.get("path")
    gone = stated is not None and not is_there(_stated_root(yaml_path, stated))
    also = f"; its `path: {quoted(stated)}` is not there either" if gone else ""
    turned = "; write / between folders, not \\" if "\\" in entry else ""
    looked = quoted(root / entry)
    raise UsageError(f"{yaml_path} names {quoted(entry)}, which is not there: looked for {looked}{also}{turned}.")


def locate(root: Path, entry: str, within: Path | None = None) -> Path | None:
    """The folder or list that an entry of a YAML means; None where there is none (inside of ``within``)."""
    candidates = [root / entry]
    if entry.startswith("../"):
        candidates.append(root / entry[3:])  # exports that are one level off; Ultralytics reads them too
    candidates += map(as_spelled, tuple(candidates))
    inside = (path for path in candidates if within is None or _is_inside(path, within))
    return next((Path(os.path.abspath(path)) for path in inside if is_there(path)), None)


def _with_labels(place: Path) -> Path:
    """A folder that is a link, or what it leads to where labels lie beside that alone: Ultralytics looks there."""
    target = resolved(place)
    leads_there = place.is_dir() and target != place and not _has_a_label(place) and _has_a_label(target)
    return target if leads_there else place


def _has_a_label(place: Path) -> bool:
    return any(os.path.isfile(label_path(image)) for image in images_at(place))


def _is_inside(path: Path, folder: Path) -> bool:
    try:
        return resolved(path).is_relative_to(resolved(folder))
    except ValueError:  # a NUL in the name: it is that of no file
        return False


def _groups(root: Path, raw: Mapping[str, Any], within: Path | None) -> Path | None:
    stated = raw.get("groups")
    if not isinstance(stated, str):
        return None
    if within and not _is_inside(root / stated, within):
        raise UsageError(f"{root / stated} (`groups:`) lies outside of the archive; it is not read.")
    return root / stated
