import errno
import hashlib
import io
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import unicodedata
import zipfile
from pathlib import Path
from typing import IO

import pytest
import yaml

from petskin_tune.datasets import demo, layout, source
from petskin_tune.datasets.archives import unpacking
from petskin_tune.datasets.archives.writing import write_archive
from petskin_tune.datasets.fingerprint import fingerprint
from petskin_tune.errors import UsageError


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def demo_yaml(tmp_path: Path) -> Path:
    return demo.make(tmp_path / "study" / "demo", train=4, val=2, imgsz=32)


def pack(folder: Path, archive: Path) -> Path:
    shape = {"gz": "gztar", "zip": "zip", "tar": "tar"}[archive.name.rpartition(".")[2]]
    made = shutil.make_archive(str(archive.parent / "packed"), shape, folder)
    return Path(made).rename(archive)


def refusal(data: str, base: Path, cache: Path) -> str:
    with pytest.raises(UsageError) as refused:
        source.prepare(data, base=base, cache=cache)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_demo_is_made_in_the_cache(tmp_path: Path, cache: Path) -> None:
    data_set = layout.read(source.prepare("demo", base=tmp_path, cache=cache))

    assert data_set.root.is_relative_to(cache)
    assert {split: len(images) for split, images in data_set.images.items()} == {"train": demo.TRAIN, "val": demo.VAL}


def test_a_path_is_looked_up_beside_the_study_file_first_and_then_in_the_current_folder(
    tmp_path: Path, demo_yaml: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo.make(tmp_path / "here" / "demo", train=1, val=1, imgsz=32)
    demo.make(tmp_path / "here" / "other", train=1, val=1, imgsz=32)
    monkeypatch.chdir(tmp_path / "here")

    assert source.prepare("demo/data.yaml", base=demo_yaml.parents[1], cache=cache) == demo_yaml
    assert source.prepare("other/data.yaml", base=demo_yaml.parents[1], cache=cache).parent.name == "other"


def test_a_yaml_that_ultralytics_reads_as_we_do_is_used_as_it_is(demo_yaml: Path, cache: Path) -> None:
    assert source.prepare(str(demo_yaml), base=Path(), cache=cache) == demo_yaml
    assert source.prepare(str(demo_yaml.parent), base=Path(), cache=cache) == demo_yaml


def test_a_relative_path_key_and_a_download_key_are_resolved_into_a_yaml_of_our_own(
    demo_yaml: Path, cache: Path, tmp_path: Path
) -> None:
    written = "path: demo\ntrain: images/train\nval: images/val\nnames: [a, b, c]\n"
    trap = f"download: |\n  open({str(tmp_path / 'trap')!r}, 'w')\n"
    moved = demo_yaml.parents[1] / "moved.yaml"
    moved.write_text(written + trap)

    prepared = source.prepare("moved.yaml", base=moved.parent, cache=cache)

    content = yaml.safe_load(prepared.read_text())
    assert prepared.is_relative_to(cache)
    assert "download" not in content
    assert Path(content["path"]) == demo_yaml.parent
    assert layout.read(prepared).images == layout.read(demo_yaml).images
    assert source.prepare("moved.yaml", base=moved.parent, cache=cache) == prepared
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize("names", ["[010, 1.10, b]", "[2024-13-45, 2024-01-01, 12:30]", "[yes, no, 0x1F]"])
def test_words_that_yaml_takes_for_something_else_are_resolved_as_they_are_written(
    demo_yaml: Path, cache: Path, names: str
) -> None:
    demo_yaml.write_text(f"train: images/train\nval: images/val\nnames: {names}\n")
    prepared = source.prepare(str(demo_yaml), base=Path(), cache=cache)
    assert list(yaml.safe_load(prepared.read_text())["names"].values()) == names.strip("[]").split(", ")


def test_a_folder_that_is_called_like_a_date_is_resolved(demo_yaml: Path, cache: Path) -> None:
    demo_yaml.write_text("train: 2024-01-01\nval: images/val\nnames: [a, b, c]\n")
    shutil.copytree(demo_yaml.parent / "images/train", demo_yaml.parent / "2024-01-01/images")
    shutil.copytree(demo_yaml.parent / "labels/train", demo_yaml.parent / "2024-01-01/labels")
    prepared = source.prepare(str(demo_yaml), base=Path(), cache=cache)
    assert yaml.safe_load(prepared.read_text())["train"] == [str(demo_yaml.parent / "2024-01-01")]


def test_ultralytics_reads_the_resolved_yaml_as_we_do(demo_yaml: Path, cache: Path) -> None:
    from ultralytics.data.utils import check_det_dataset

    (demo_yaml.parent / "train.txt").write_text("images/train/train_00001.bmp\n")
    moved = demo_yaml.parents[1] / "moved.yaml"
    moved.write_text("path: demo\ntrain: train.txt\nvalidation: images/val\nnames: [a, b, c]\n")

    prepared = source.prepare(str(moved), base=Path(), cache=cache)

    theirs = check_det_dataset(str(prepared), autodownload=False)
    assert [
        Path(line)
        for line in Path(theirs["train"][0] if isinstance(theirs["train"], list) else theirs["train"])
        .read_text()
        .split()
    ] == [demo_yaml.parent / "images/train/train_00001.bmp"]
    assert [Path(place) for place in theirs["val"]] == [demo_yaml.parent / "images/val"]


def test_a_missing_data_set_says_where_it_was_looked_for_and_how_to_get_it(tmp_path: Path, cache: Path) -> None:
    petskin = refusal("datasets/petskin/data.yaml", tmp_path, cache)
    assert str(tmp_path / "datasets/petskin/data.yaml") in petskin
    assert "561" in petskin
    assert "petskin-tune data aihub SOURCE datasets/petskin" in petskin

    assert "--data" in refusal("mine/data.yaml", tmp_path, cache)
    assert "URL" in refusal("https://example.com/data.zip", tmp_path, cache)


def test_data_without_labels_is_refused(demo_yaml: Path, cache: Path) -> None:
    for label in (demo_yaml.parent / "labels/val").iterdir():
        label.write_text("\n")
    assert "none of the 2 val images has a label" in refusal(str(demo_yaml), Path(), cache)

    shutil.rmtree(demo_yaml.parent / "labels")
    assert "none of the 4 train images has a label" in refusal(str(demo_yaml), Path(), cache)


@pytest.mark.parametrize("missing", [4, 1])
def test_images_that_are_listed_and_not_there_are_not_called_unlabelled(
    demo_yaml: Path, cache: Path, missing: int
) -> None:
    shutil.rmtree(demo_yaml.parent / "labels/train")
    images = sorted((demo_yaml.parent / "images/train").iterdir())
    lines = [image.with_name(f"gone_{number}.bmp") for number, image in enumerate(images[:missing])]
    (demo_yaml.parent / "list.txt").write_text("".join(f"{line}\n" for line in (*lines, *images[missing:])))
    demo_yaml.write_text("train: list.txt\nval: images/val\nnames: [a, b, c]\n")
    said = f"{missing} of the 4 train images are listed and not there; the first is {lines[0]}."
    assert refusal(str(demo_yaml), Path(), cache).endswith(said)


def test_decomposed_names_in_an_archive_are_found_as_it_lists_them(
    demo_yaml: Path, tmp_path: Path, cache: Path
) -> None:
    composed, decomposed = (unicodedata.normalize(form, "각") for form in ("NFC", "NFD"))
    with zipfile.ZipFile(tmp_path / "mac.zip", "w") as packed:
        for file in demo_yaml.parent.glob("*/*/*.*"):
            packed.write(file, str(file.relative_to(demo_yaml.parent)).replace("train/", f"{decomposed}/"))
        packed.writestr("list.txt", f"images/{decomposed}/train_00000.bmp\n./images/{decomposed}/train_00001.bmp\n")
        content = {"train": "list.txt", "val": f"images/{decomposed}", "names": ["a", "b", "c"]}
        packed.writestr("data.yaml", yaml.safe_dump(content, allow_unicode=True))
    data_set = layout.read(source.prepare("mac.zip", base=tmp_path, cache=cache))
    assert [image.name for image in data_set.images["train"]] == ["train_00000.bmp", "train_00001.bmp"]
    assert len(data_set.images["val"]) == 4
    assert {image.parent.name for images in data_set.images.values() for image in images} == {composed}
    fingerprint(data_set.yaml, for_training=True)


@pytest.mark.parametrize(("named", "lies"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_folder_is_found_in_the_unicode_form_that_it_has(demo_yaml: Path, cache: Path, named: str, lies: str) -> None:
    for kind in ("images", "labels"):
        folder = demo_yaml.parent / kind / "train"
        folder.rename(folder.with_name(unicodedata.normalize(lies, "각")))
    name = f"images/{unicodedata.normalize(named, '각')}"
    demo_yaml.write_text(f"train: {name}\nval: images/val\nnames: [a, b, c]\n")
    taken = fingerprint(source.prepare(str(demo_yaml), base=Path(), cache=cache), for_training=True)
    assert taken.splits["train"].images == 4
    assert taken.splits["train"].objects


def test_an_image_that_a_list_names_decomposed_is_found_composed(demo_yaml: Path, cache: Path) -> None:
    for kind, suffix in (("images", "bmp"), ("labels", "txt")):
        file = demo_yaml.parent / kind / f"train/train_00000.{suffix}"
        file.rename(file.with_name(f"{unicodedata.normalize('NFC', '각')}.{suffix}"))
    (demo_yaml.parent / "list.txt").write_text(f"./images/train/{unicodedata.normalize('NFD', '각')}.bmp\n")
    demo_yaml.write_text("train: list.txt\nval: images/val\nnames: [a, b, c]\n")
    taken = fingerprint(source.prepare(str(demo_yaml), base=Path(), cache=cache), for_training=True)
    assert taken.splits["train"].objects


def test_other_files_are_refused(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "data.csv").write_text("x")
    (tmp_path / "empty").mkdir()

    assert ".yaml, a .zip" in refusal("data.csv", tmp_path, cache)
    assert "no data.yaml" in refusal("empty", tmp_path, cache)


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz"])
def test_an_archive_is_unpacked_once_and_found_again(
    demo_yaml: Path, tmp_path: Path, cache: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = pack(demo_yaml.parents[1], tmp_path / f"data.{suffix}")

    prepared = source.prepare(archive.name, base=tmp_path, cache=cache)
    first = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    monkeypatch.setattr(unpacking, "_local_copy", lambda *_: pytest.fail("read the archive again"))
    again = source.prepare(archive.name, base=tmp_path, cache=cache)

    assert prepared == again
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == first
    assert [image.name for image in layout.read(prepared).images["val"]] == ["val_00000.bmp", "val_00001.bmp"]
    assert prepared.is_relative_to(cache)


def test_the_same_archive_under_another_name_is_not_unpacked_again(
    demo_yaml: Path, tmp_path: Path, cache: Path
) -> None:
    archive = pack(demo_yaml.parent, tmp_path / "data.tar")
    first = source.prepare(str(archive), base=tmp_path, cache=cache)
    shutil.copy(archive, tmp_path / "copy.tar")

    assert source.prepare("copy.tar", base=tmp_path, cache=cache) == first


@pytest.mark.parametrize("content", [b"", bytes(60), b"[]", b"{}", b"\xff"])
def test_a_note_of_the_cache_that_a_power_cut_has_emptied_costs_a_second_look_and_no_more(
    demo_yaml: Path, tmp_path: Path, cache: Path, content: bytes
) -> None:
    archive = pack(demo_yaml.parent, tmp_path / "data.zip")
    first = source.prepare(archive.name, base=tmp_path, cache=cache)
    (note,) = [path for path in (cache / "archives").glob("*.json") if b"sha256" in path.read_bytes()]
    before = note.read_bytes()
    note.write_bytes(content)
    assert source.prepare(archive.name, base=tmp_path, cache=cache) == first
    assert note.read_bytes() == before


def test_a_changed_archive_is_unpacked_anew(demo_yaml: Path, tmp_path: Path, cache: Path) -> None:
    first = source.prepare(str(pack(demo_yaml.parent, tmp_path / "data.tar")), base=tmp_path, cache=cache)
    (demo_yaml.parent / "labels/train/train_00000.txt").write_text("")

    second = source.prepare(str(pack(demo_yaml.parent, tmp_path / "data.tar")), base=tmp_path, cache=cache)

    assert first != second
    assert (second.parent / "labels/train/train_00000.txt").read_text() == ""


def test_an_archive_on_another_disk_is_copied_first_and_the_copy_removed(
    demo_yaml: Path, tmp_path: Path, cache: Path
) -> None:
    other_disk = Path("/dev/shm")
    if not other_disk.is_dir() or other_disk.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs /dev/shm on a disk of its own")
    archive = pack(demo_yaml.parent, other_disk / f"petskin-tune-test-{os.getpid()}.zip")
    try:
        prepared = source.prepare(str(archive), base=tmp_path, cache=cache)
    finally:
        archive.unlink()

    assert len(layout.read(prepared).images["train"]) == 4
    assert not list(cache.rglob("*.partial"))


@pytest.mark.parametrize("nth", [1, 5, 12])
def test_killed_while_unpacking_and_run_again_the_data_set_is_whole(
    demo_yaml: Path, tmp_path: Path, cache: Path, nth: int
) -> None:
    archive = pack(demo_yaml.parent, tmp_path / "data.zip")
    command = (
        "import sys; from pathlib import Path; from petskin_tune.datasets import source; "
        "source.prepare(sys.argv[1], base=Path(), cache=Path(sys.argv[2]))"
    )
    fired = tmp_path / "fired"
    faults = {"TUNE_FAULTS": f"archive-member-written=kill@{nth}", "TUNE_FAULTS_LOG": str(fired)}

    killed = subprocess.run(
        [sys.executable, "-c", command, str(archive), str(cache)], env={**os.environ, **faults}, check=False
    )

    assert killed.returncode == -signal.SIGKILL
    assert fired.exists()
    prepared = source.prepare(str(archive), base=tmp_path, cache=cache)
    for path in demo_yaml.parent.rglob("*.*"):
        assert (prepared.parent / path.relative_to(demo_yaml.parent)).read_bytes() == path.read_bytes()
    assert not list(cache.rglob("*.partial"))


def malicious_zip(path: Path, name: str, mode: int = 0o644, content: bytes = b"x") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return path


@pytest.mark.parametrize("name", ["../outside.txt", "/outside.txt", "a/../../outside.txt", "..\\outside.txt"])
def test_names_that_lead_outside_are_refused(tmp_path: Path, cache: Path, name: str) -> None:
    malicious_zip(tmp_path / "bad.zip", name)
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo(name.replace("\\", "/")), io.BytesIO())

    assert "leads outside" in refusal("bad.zip", tmp_path, cache)
    assert "leads outside" in refusal("bad.tar", tmp_path, cache)
    assert not list(tmp_path.rglob("outside.txt"))
    assert not Path("/outside.txt").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, cache: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        entry = tarfile.TarInfo("images")
        entry.type, entry.linkname = kind, "/etc"
        archive.addfile(entry)

    assert "holds a link" in refusal("bad.tar", tmp_path, cache)


def test_links_in_a_zip_are_refused(tmp_path: Path, cache: Path) -> None:
    malicious_zip(tmp_path / "bad.zip", "images", stat.S_IFLNK | 0o777, b"/etc")

    assert "holds a link" in refusal("bad.zip", tmp_path, cache)


def test_a_bomb_is_refused_before_it_fills_the_disk(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "LEAST_LIMIT", 10_000)
    malicious_zip(tmp_path / "bomb.zip", "zeros.bmp", content=bytes(10_000_000))

    assert "would unpack to more than" in refusal("bomb.zip", tmp_path, cache)
    assert sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) < 20_000


def test_a_zip_whose_stated_sizes_lie_is_refused(tmp_path: Path, cache: Path) -> None:
    path = malicious_zip(tmp_path / "liar.zip", "zeros.bmp", content=bytes(100_000))
    content = bytearray(path.read_bytes())
    central = content.rindex(b"PK\x01\x02")
    content[central + 24 : central + 28] = (10).to_bytes(4, "little")  # uncompressed size
    path.write_bytes(content)

    assert "damaged" in refusal("liar.zip", tmp_path, cache)


def test_a_zip_whose_names_are_not_the_utf_8_that_it_says_is_damaged(tmp_path: Path, cache: Path) -> None:
    path = malicious_zip(tmp_path / "odd.zip", "털.bmp")
    path.write_bytes(path.read_bytes().replace("털".encode(), b"\xff\xfe\xfd"))
    assert "damaged" in refusal("odd.zip", tmp_path, cache)


def test_damaged_archives_are_refused_and_leave_nothing_behind(demo_yaml: Path, tmp_path: Path, cache: Path) -> None:
    for suffix in ("zip", "tar.gz", "tar"):
        archive = pack(demo_yaml.parent, tmp_path / f"data.{suffix}")
        archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
        assert "damaged" in refusal(archive.name, tmp_path, cache)
    assert not list(cache.rglob("*.bmp"))


def test_a_copy_of_an_archive_from_another_disk_does_not_stay_where_it_cannot_be_unpacked(
    demo_yaml: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copied_first(archive: Path, copied: Path) -> tuple[Path, str]:
        shutil.copyfile(archive, copied)
        return copied, "0" * 64

    monkeypatch.setattr("petskin_tune.datasets.archives.unpacking._local_copy", copied_first)
    archive = pack(demo_yaml.parent, tmp_path / "data.zip")
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    assert "damaged" in refusal(archive.name, tmp_path, cache)
    assert [path.name for path in (cache / "archives").iterdir() if path.is_file() and path.stat().st_size > 1000] == []


def test_a_read_that_a_network_disk_refuses_once_is_made_again(
    demo_yaml: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = pack(demo_yaml.parent, tmp_path / "data.zip")
    refused: list[int] = []

    class Refusing(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            if not refused and self.tell():
                refused.append(self.tell())
                raise OSError(errno.EIO, "Input/output error")
            return super().read(size)

    def opened(path: Path, mode: str) -> IO[bytes]:
        return Refusing(path) if path == archive else open(path, mode)

    monkeypatch.setattr(unpacking, "open", opened, raising=False)
    monkeypatch.setattr(unpacking, "_PIECE", 1000)
    prepared = source.prepare(str(archive), base=tmp_path, cache=cache)
    assert refused == [1000]
    assert len(layout.read(prepared).images["train"]) == 4


def test_a_copy_that_came_with_wrong_bytes_is_made_once_more(
    demo_yaml: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = pack(demo_yaml.parent, tmp_path / "data.zip")
    whole, copies = archive.read_bytes(), []

    def copied(archive: Path, copied: Path) -> tuple[Path, str]:
        copies.append(whole if copies else whole[: len(whole) // 2])
        copied.write_bytes(copies[-1])
        return copied, hashlib.sha256(copies[-1]).hexdigest()

    monkeypatch.setattr(unpacking, "_local_copy", copied)
    assert len(layout.read(source.prepare(str(archive), base=tmp_path, cache=cache)).images["train"]) == 4
    assert len(copies) == 2


def test_too_little_room_is_said_before_it_runs_out(
    demo_yaml: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = pack(demo_yaml.parent, tmp_path / "data.zip")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 100, 0))

    assert "make room" in refusal(archive.name, tmp_path, cache)


def test_pickled_label_caches_and_macos_litter_are_not_unpacked(demo_yaml: Path, tmp_path: Path, cache: Path) -> None:
    (demo_yaml.parent / "labels/train.cache").write_bytes(b"code that runs when loaded")
    (demo_yaml.parent / "images/train/._train_00000.bmp").write_bytes(b"resource fork")
    archive = pack(demo_yaml.parent, tmp_path / "data.tar")

    prepared = source.prepare(str(archive), base=tmp_path, cache=cache)

    assert not list(prepared.parent.rglob("*.cache"))
    assert len(layout.read(prepared).images["train"]) == 4


def flipped(archive: Path, at: int, bit: int = 1) -> Path:
    content = bytearray(archive.read_bytes())
    content[at] ^= bit
    archive.write_bytes(content)
    return archive


def test_a_flipped_bit_in_a_header_is_damage_and_not_the_end_of_a_tar(
    demo_yaml: Path, tmp_path: Path, cache: Path
) -> None:
    archive = pack(demo_yaml.parent, tmp_path / "data.tar")
    with tarfile.open(archive) as opened:
        header = [entry for entry in opened if "labels/val/" in entry.name][-1].offset

    flipped(archive, header + 10)

    assert "damaged" in refusal("data.tar", tmp_path, cache)


def test_a_wrong_checksum_at_the_end_of_a_gzip_is_damage(demo_yaml: Path, tmp_path: Path, cache: Path) -> None:
    flipped(pack(demo_yaml.parent, tmp_path / "data.tar.gz"), -6)

    assert "damaged" in refusal("data.tar.gz", tmp_path, cache)


def test_an_archive_of_ours_is_refused_where_a_file_is_not_as_it_was_packed(
    demo_yaml: Path, tmp_path: Path, cache: Path
) -> None:
    archive = tmp_path / "data.tar"
    write_archive(demo_yaml.parent, archive)
    sound = source.prepare("data.tar", base=tmp_path, cache=cache)
    assert not list(cache.rglob("*checksums*"))
    assert (sound.parent / "data.yaml").read_bytes() == demo_yaml.read_bytes()
    with tarfile.open(archive) as opened:
        pixels = opened.getmember("images/train/train_00001.bmp").offset_data + 200

    flipped(archive, pixels)

    assert "images/train/train_00001.bmp is missing or not as" in refusal("data.tar", tmp_path, cache)


def test_an_archive_of_ours_is_refused_where_a_file_is_missing(demo_yaml: Path, tmp_path: Path, cache: Path) -> None:
    write_archive(demo_yaml.parent, tmp_path / "data.tar")
    with tarfile.open(tmp_path / "data.tar") as whole, tarfile.open(tmp_path / "less.tar", "w") as less:
        for entry in whole:
            if entry.name != "labels/val/val_00001.txt":
                less.addfile(entry, whole.extractfile(entry))

    assert "labels/val/val_00001.txt is missing" in refusal("less.tar", tmp_path, cache)


def test_names_that_the_disk_cannot_hold_are_refused_and_leave_nothing_behind(tmp_path: Path, cache: Path) -> None:
    with zipfile.ZipFile(tmp_path / "conflict.zip", "w") as archive:
        archive.writestr("images", "a file")
        archive.writestr("images/train/a.jpg", "below a file")
    malicious_zip(tmp_path / "long.zip", "a" * 300 + ".jpg")

    assert "cannot be unpacked" in refusal("conflict.zip", tmp_path, cache)
    assert "File name too long" in refusal("long.zip", tmp_path, cache)
    assert not list(cache.rglob("*.partial"))


def test_a_zip_in_a_method_that_python_lacks_is_not_called_damaged(
    demo_yaml: Path, tmp_path: Path, cache: Path
) -> None:
    for number, named in ((9, "Deflate64"), (93, "Zstandard"), (77, "method 77")):
        raw = bytearray(pack(demo_yaml.parent, tmp_path / f"{number}.zip").read_bytes())
        for mark, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
            at = 0
            while (at := raw.find(mark, at)) >= 0:
                raw[at + offset : at + offset + 2] = number.to_bytes(2, "little")
                at += 4
        (tmp_path / f"{number}.zip").write_bytes(raw)
        said = refusal(f"{number}.zip", tmp_path, cache)
        assert f"is packed by {named}, which Python cannot unpack" in said
        assert "download it again" not in said


OUTSIDE = {
    "a device": "train: /dev/zero\nval: images/val\nnames: [a, b, c]\n",
    "a folder of this machine": "train: {outside}\nval: images/val\nnames: [a, b, c]\n",
    "a folder above": "train: ../../../../{name}\nval: images/val\nnames: [a, b, c]\n",
    "a list of pictures elsewhere": "train: list.txt\nval: images/val\nnames: [a, b, c]\n",
    "groups": "train: images/train\nval: images/val\nnames: [a, b, c]\ngroups: /dev/zero\n",
}


@pytest.mark.parametrize("kind", OUTSIDE)
def test_nothing_that_an_archive_names_may_lie_outside_of_it(
    demo_yaml: Path, tmp_path: Path, cache: Path, kind: str
) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(demo_yaml.parent / "images/train", outside)
    (demo_yaml.parent / "list.txt").write_text(f"{outside}/train_00000.bmp\n")
    demo_yaml.write_text(OUTSIDE[kind].format(outside=outside, name=outside.name))
    pack(demo_yaml.parent, tmp_path / "data.zip")
    assert "outside of the archive" in refusal("data.zip", tmp_path, cache)


@pytest.mark.parametrize("key", ["train", "val", "groups"])
def test_a_name_with_a_nul_in_an_archive_is_that_of_no_file(
    demo_yaml: Path, tmp_path: Path, cache: Path, key: str
) -> None:
    names = {"train": "images/train", "val": "images/val", key: "images/a\0b", "names": ["a", "b", "c"]}
    demo_yaml.write_text(yaml.safe_dump(names))
    pack(demo_yaml.parent, tmp_path / "data.zip")
    assert r"images/a\x00b" in refusal("data.zip", tmp_path, cache)


def test_an_archive_whose_yaml_is_one_level_off_is_read_where_it_was_unpacked(
    demo_yaml: Path, tmp_path: Path, cache: Path
) -> None:
    """Roboflow writes so, and a test split that it does not pack; something of that name may lie beside."""
    demo_yaml.write_text("train: ../images/train\nval: ../images/val\ntest: ../test/images\nnames: [a, b, c]\n")
    pack(demo_yaml.parent, tmp_path / "data.zip")
    shutil.copytree(demo_yaml.parent / "images", cache / "archives/images")

    data_set = layout.read(source.prepare("data.zip", base=tmp_path, cache=cache))

    assert {image.parents[2].parent for image in data_set.images["train"]} == {cache / "archives"}
    assert not data_set.images["train"][0].is_relative_to(cache / "archives/images")


def test_names_of_a_tar_in_another_code_page_are_read(demo_yaml: Path, tmp_path: Path, cache: Path) -> None:
    with tarfile.open(tmp_path / "data.tar", "w", encoding="cp949", format=tarfile.GNU_FORMAT) as archive:
        for path in sorted(path for path in demo_yaml.parent.rglob("*") if path.is_file()):
            name = str(path.relative_to(demo_yaml.parent)).replace("train_00000", "피부")
            archive.add(path, name)

    images = layout.read(source.prepare("data.tar", base=tmp_path, cache=cache)).images["train"]

    assert "피부.bmp" in {image.name for image in images}


def test_a_full_disk_is_one_sentence(demo_yaml: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    demo_yaml.write_text("path: .\n" + demo_yaml.read_text())
    monkeypatch.setattr(source, "write_whole", full)
    assert "No space left on device; make room" in refusal(str(demo_yaml), Path(), cache)
    monkeypatch.setattr(demo, "write_whole", full)
    assert "No space left on device; make room" in refusal("demo", Path(), cache)


def test_a_data_set_in_a_folder_that_is_not_utf_8_is_prepared(demo_yaml: Path, cache: Path) -> None:
    folder = demo_yaml.parents[1] / os.fsdecode("털".encode("cp949"))
    demo_yaml.parent.rename(folder)
    prepared = source.prepare(str(folder), base=Path(), cache=cache)
    assert prepared.is_relative_to(cache)
    assert layout.read(prepared).images["train"][0].parent == folder / "images/train"


def test_a_list_that_is_resolved_names_an_image_as_often_as_before(demo_yaml: Path, cache: Path) -> None:
    (demo_yaml.parent / "list.txt").write_text("images/train/train_00001.bmp\n" * 3 + "images/train/train_00000.bmp\n")
    demo_yaml.write_text(demo_yaml.read_text().replace("train: images/train", "train: list.txt"))
    prepared = layout.read(source.prepare(str(demo_yaml), base=demo_yaml.parent, cache=cache))
    assert [image.stem for image in layout.listed(prepared, "train")] == ["train_00000"] + ["train_00001"] * 3


def test_an_archive_of_archives_is_refused_with_the_one_inside(tmp_path: Path, demo_yaml: Path, cache: Path) -> None:
    inside = tmp_path / "outer"
    inside.mkdir()
    pack(demo_yaml.parent, inside / "inner.zip")
    outer = pack(inside, tmp_path / "outer.zip")
    said = refusal(str(outer), Path(), cache)
    assert said == (
        f"{outer} holds no data.yaml but another archive, inner.zip: unpack it, and give the one inside, or its "
        "data.yaml."
    )
