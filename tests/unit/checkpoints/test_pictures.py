"""The pictures of a trial in a store: all of them or none, and nothing of what anybody could have put there."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from petskin_tune.checkpoints import pictures
from petskin_tune.checkpoints.base import Store
from petskin_tune.checkpoints.folder import FolderStore
from petskin_tune.checkpoints.keys import pictures_key, trial_prefix
from petskin_tune.files.durable import Damaged, Missing, measure
from petskin_tune.protocol import PICTURES
from tests.support.pictures import draw, kept

UID = "0123456789ab"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return FolderStore(tmp_path / "store", network=False)


def forged(store: Store, folder: Path, members: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> str:
    bundle = folder / "forged.zip"
    with zipfile.ZipFile(bundle, "w", kind) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return store.put(bundle, pictures_key(trial_prefix(UID, 3), measure(bundle)[1])).key


def test_pictures_come_back_as_they_were_in_their_order(store: Store, tmp_path: Path) -> None:
    assert pictures.find(store, UID, 7) is None
    key = kept(store, UID, 7, tmp_path / "drawn")
    assert pictures.find(store, UID, 7) == key
    found = pictures.fetch(store, key)
    assert [picture.title for picture in found] == list(PICTURES.values())
    assert [picture.content for picture in found] == [(tmp_path / "drawn" / name).read_bytes() for name in PICTURES]
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == sorted(PICTURES)


def test_without_one_of_them_none_are_kept(store: Store, tmp_path: Path) -> None:
    drawn = draw(tmp_path / "drawn")
    (drawn / "losses.jpg").unlink()
    with pytest.raises(Missing):
        pictures.keep(store, UID, 7, drawn)
    assert store.entries() == []


def test_a_file_that_is_not_what_its_key_promises_is_not_shown(store: Store, tmp_path: Path) -> None:
    key = kept(store, UID, 7, tmp_path / "drawn")
    path = tmp_path / "store" / key
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(Damaged):
        pictures.fetch(store, key)


def test_of_what_somebody_else_has_put_there_only_jpegs_of_known_names_and_size_are_shown(
    store: Store, tmp_path: Path
) -> None:
    jpeg = (draw(tmp_path / "drawn") / "losses.jpg").read_bytes()
    members = {
        "../../../escaped.jpg": jpeg,
        "/etc/passwd": jpeg,
        "losses.jpg": jpeg,
        "confusion-matrix.jpg": b"<svg onload=alert(1)>",
        "map-by-class.jpg": jpeg + bytes(pictures.LARGEST),
    }
    found = pictures.fetch(store, forged(store, tmp_path, members))
    assert [(picture.title, picture.content) for picture in found] == [("Losses", jpeg)]
    packed = forged(store, tmp_path, {"losses.jpg": jpeg + bytes(10**6)}, zipfile.ZIP_DEFLATED)
    assert pictures.fetch(store, packed) == []
    assert not (tmp_path / "escaped.jpg").exists()


def test_a_file_that_is_no_zip_is_damaged(store: Store, tmp_path: Path) -> None:
    (tmp_path / "no.zip").write_bytes(b"PK nothing")
    digest = measure(tmp_path / "no.zip")[1]
    key = store.put(tmp_path / "no.zip", pictures_key(trial_prefix(UID, 3), digest)).key
    with pytest.raises(Damaged, match="holds no pictures"):
        pictures.fetch(store, key)
