"""The pictures on the page: the best trials', bounded, escaped; and the page that is there before them."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import optuna
import pytest
from optuna.artifacts import FileSystemArtifactStore, upload_artifact

from petskin_tune.checkpoints.pictures import Picture
from petskin_tune.views import report
from petskin_tune.views.report import pictures as module
from petskin_tune.views.report.pictures import Gallery, added, picture_section
from tests.support.studies import a_spec, a_study


def a_gallery(number: int, size: int = 10, title: str = "Losses") -> Gallery:
    return Gallery(number, 0.3, [Picture(title, "image/jpeg", bytes([number]) * size)])


def titles(html: str) -> list[str]:
    return re.findall(r"<summary>(.*?)</summary>", html)


def test_each_trial_has_a_part_of_its_own_and_the_best_is_open() -> None:
    html = picture_section([a_gallery(7), a_gallery(3)])
    assert titles(html) == ["Trial 7, mask mAP 0.300", "Trial 3, mask mAP 0.300"]
    assert html.count("<details") == 2
    assert html.count(" open>") == 1
    assert 'alt="Trial 3: Losses"' in html
    assert html.count("data:image/jpeg;base64,") == 2


def test_what_would_make_the_page_too_large_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ALTOGETHER", 100)
    html = picture_section([a_gallery(1, 60), a_gallery(2, 60), a_gallery(3, 30)], [Picture("mine", "image/png", b"x")])
    assert titles(html) == ["Trial 1, mask mAP 0.300"]
    assert "mine" in html


def test_a_page_without_pictures_says_so_and_no_title_can_put_markup_into_it() -> None:
    assert "None were there when this was written." in picture_section([])
    assert "<script>" not in picture_section([a_gallery(1, title="<script>")], [Picture("<script>", "image/png", b"")])


def test_the_page_is_there_before_its_pictures_and_is_replaced_as_a_whole(tmp_path: Path) -> None:
    dest, link = tmp_path / "report.html", tmp_path / "link.html"
    link.symlink_to(dest)
    seen: list[str] = []

    def galleries() -> list[Gallery]:
        seen.append(dest.read_text())
        return [a_gallery(7)]

    report.write(a_study(a_spec()), link, galleries=galleries)
    (before,) = seen
    assert before.endswith("</html>\n")
    assert "None were there" in before
    assert "Trial 7" in dest.read_text()
    assert link.is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["link.html", "report.html"]


def test_a_report_whose_pictures_end_in_an_error_or_ctrl_c_stays_as_it_was(tmp_path: Path) -> None:
    def galleries() -> list[Gallery]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        report.write(a_study(a_spec()), tmp_path / "report.html", galleries=galleries)
    assert (tmp_path / "report.html").read_text().endswith("</html>\n")


def test_what_can_be_written_only_once_is_written_with_its_pictures(tmp_path: Path) -> None:
    read, write = os.pipe()
    report_of = f"/dev/fd/{write}"
    with open(read, "rb") as reader:
        content: list[bytes] = []
        thread = threading.Thread(target=lambda: content.append(reader.read()))
        thread.start()
        report.write(a_study(a_spec()), Path(report_of), galleries=lambda: [a_gallery(7)])
        os.close(write)
        thread.join()
    assert content[0].count(b"</html>") == 1
    assert b"Trial 7" in content[0]


# ---- what a person has added ----


def test_a_persons_pictures_are_those_of_the_best_trial_and_of_the_study(tmp_path: Path) -> None:
    study = a_study(a_spec())
    store = FileSystemArtifactStore(str(tmp_path))
    best, other = study.ask(), study.ask()
    for owner, name in ((best, "val <b>.png"), (other, "other.png"), (study, "study.jpg"), (study, "notes.txt")):
        (tmp_path / name).write_bytes(name.encode())
        upload_artifact(artifact_store=store, file_path=str(tmp_path / name), study_or_trial=owner)
    study.tell(best, 0.5)
    study.tell(other, 0.1)
    found = added(study, tmp_path)
    assert [picture.content for picture in found] == [b"val <b>.png", b"study.jpg"]
    assert "data:image/png;base64," in picture_section([], found)


def test_rows_of_somebody_else_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "secret.png").write_bytes(b"secret")
    study = a_study(a_spec())
    rows = ["null", "{", '{"artifact_id": "../secret.png", "filename": "a", "mimetype": "image/png", "encoding": null}']
    for number, row in enumerate(rows):
        study._storage.set_study_system_attr(study._study_id, f"artifacts:{number}", row)
    study._storage.set_study_system_attr(study._study_id, "artifacts:../secret.png", rows[-1])
    assert added(study, tmp_path / "artifacts") == []
    assert added(study) == added(study, tmp_path / "none") == []


def test_pictures_alone_ask_for_no_study_of_ours() -> None:
    study = optuna.create_study()
    assert added(study) == []
