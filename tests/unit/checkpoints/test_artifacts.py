"""Pictures as Optuna artifacts, and a person's own: no id leads out of its folder, no foreign row is trusted."""

from __future__ import annotations

import io
import json
import uuid
from pathlib import Path

import pytest
from optuna.artifacts.exceptions import ArtifactNotFound

from petskin_tune.checkpoints import artifacts as module
from petskin_tune.checkpoints.artifacts import Artifacts, read_row
from petskin_tune.checkpoints.folder import FolderStore
from petskin_tune.files.durable import Unavailable
from petskin_tune.protocol import PICTURES
from tests.support.pictures import draw, kept

UID = "0123456789ab"


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store", network=False)


@pytest.fixture(autouse=True)
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FRESH_SECONDS", -1.0)


def test_each_picture_of_a_trial_is_an_artifact_that_can_be_read(store: FolderStore, tmp_path: Path) -> None:
    found = Artifacts(store, UID)
    assert found.rows() == {}
    kept(store, UID, 7, tmp_path / "drawn")
    rows = found.rows()[7]
    assert [row["filename"] for row in rows] == [
        f"{place} {title}.jpg" for place, title in enumerate(PICTURES.values(), 1)
    ]
    contents = [found.open_reader(row["artifact_id"]).read() for row in rows]
    assert contents == [(tmp_path / "drawn" / name).read_bytes() for name in PICTURES]
    assert {row["mimetype"] for row in rows} == {"image/jpeg"}


def test_artifacts_go_with_their_files_and_stay_while_the_store_does_not_answer(
    store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = kept(store, UID, 7, tmp_path / "drawn")
    found = Artifacts(store, UID)
    (row, *_) = found.rows()[7]

    def away(prefix: str = "") -> list[object]:
        raise Unavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(store, "entries", away)
        assert found.open_reader(row["artifact_id"]).read()
    store.delete(key)
    assert found.rows() == {}
    with pytest.raises(ArtifactNotFound):
        found.open_reader(row["artifact_id"])


def test_pictures_that_could_not_be_fetched_once_are_asked_for_again(
    store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(store, UID, 7, tmp_path / "drawn")
    found = Artifacts(store, UID)
    refused: list[str] = []

    def away(key: str, path: Path) -> None:
        refused.append(key)
        raise Unavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(store, "fetch", away)
        assert found.rows() == {7: []}
    assert len(refused) == 1
    assert len(found.rows()[7]) == len(PICTURES)


def test_pictures_of_another_study_and_of_another_place_are_not_found(store: FolderStore, tmp_path: Path) -> None:
    kept(store, "ba9876543210", 7, tmp_path / "drawn")
    kept(store, UID, 7, tmp_path / "drawn")
    found = Artifacts(store, UID)
    mine = found.rows()[7][0]["artifact_id"]
    for other in (mine.replace(UID, "ba9876543210"), mine.replace("-00-", "-ff-"), mine.replace("0007-", "0008-")):
        assert other != mine
        with pytest.raises(ArtifactNotFound):
            found.open_reader(other)


IDS = ["../secret", "..", "", "/etc/passwd", "a/b", ".", "secret", f"{uuid.UUID(int=1)}/../secret", "x" * 300, "\0"]


@pytest.mark.parametrize("artifact_id", IDS)
def test_no_id_leads_out_of_the_folder_of_a_persons_artifacts(
    artifact_id: str, store: FolderStore, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "secret").write_text("secret")
    found = Artifacts(store, UID, tmp_path / "artifacts")
    with pytest.raises(ArtifactNotFound):
        found.open_reader(artifact_id)
    with pytest.raises(ArtifactNotFound):
        found.write(artifact_id, io.BytesIO(b"x"))
    with pytest.raises(ArtifactNotFound):
        found.remove(artifact_id)
    assert (tmp_path / "secret").read_text() == (tmp_path / "artifacts" / "secret").read_text() == "secret"


def test_a_persons_artifact_is_kept_read_and_deleted_and_a_link_is_none(store: FolderStore, tmp_path: Path) -> None:
    folder, mine, link = tmp_path / "artifacts", str(uuid.uuid4()), str(uuid.uuid4())
    found = Artifacts(store, UID, folder)
    found.write(mine, io.BytesIO(b"content"))
    assert found.open_reader(mine).read() == b"content"
    (tmp_path / "secret").write_text("secret")
    (folder / link).symlink_to(tmp_path / "secret")
    with pytest.raises(ArtifactNotFound):
        found.open_reader(link)
    found.remove(mine)
    assert not (folder / mine).exists()
    with pytest.raises(ArtifactNotFound):
        Artifacts(store, UID).open_reader(mine)


def test_what_is_ours_is_deleted_by_nobody_else(store: FolderStore, tmp_path: Path) -> None:
    kept(store, UID, 7, draw(tmp_path / "drawn"))
    found = Artifacts(store, UID)
    found.remove(found.rows()[7][0]["artifact_id"])
    assert len(found.rows()[7]) == len(PICTURES)


GOOD = {"artifact_id": str(uuid.UUID(int=2, version=4)), "filename": "a.png", "mimetype": "image/png", "encoding": None}


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        "",
        "{",
        "null",
        "[1]",
        json.dumps({**GOOD, "artifact_id": "../../etc/passwd"}),
        json.dumps({**GOOD, "artifact_id": str(uuid.UUID(int=3, version=4))}),  # of another row
        json.dumps({**GOOD, "mimetype": "text/html\r\nX: y"}),
        json.dumps({**GOOD, "filename": ["a"]}),
        json.dumps({name: known for name, known in GOOD.items() if name != "mimetype"}),
    ],
)
def test_a_row_that_is_none_of_optunas_is_passed_over(value: object) -> None:
    assert read_row(f"artifacts:{GOOD['artifact_id']}", value) is None


def test_a_row_of_optunas_is_read_without_its_encoding() -> None:
    assert read_row(f"artifacts:{GOOD['artifact_id']}", json.dumps({**GOOD, "encoding": "gzip"})) == GOOD
