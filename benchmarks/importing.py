"""What `petskin-tune data aihub` costs: images per second beside the floor, and peak memory at many records.

    python benchmarks/importing.py [--images 600] [--records 100000] [--jobs 2] [--folder DIR]

The floor is what no import can avoid: a bare loop over the same files in the same number of processes that decodes
(at the coarsest scale that JPEG offers), resizes and encodes each picture with the same calls, and does nothing else.
Both start their processes anew; runs alternate, the median counts. Peak memory is what `/usr/bin/time -v` reports.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

IMGSZ = 640
CLASSES = ("A1_구진_플라크", "A2_비듬_각질_상피성잔고리", "A4_농포_여드름")


def label(number: int, name: str, animals: int, width: int, height: int) -> bytes:
    """A label file with one outline of 40 corners."""
    code = CLASSES[number % len(CLASSES)]
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    x, y = width * (0.5 + 0.2 * np.cos(angles)), height * (0.5 + 0.2 * np.sin(angles))
    location = {
        f"{axis}{k + 1}": round(float(values[k]), 1) for k in range(40) for axis, values in (("x", x), ("y", y))
    }
    polygon = {"color": "#cd66cd", "location": [location], "label": code, "type": "polygon"}
    meta = {
        "Raw data ID": f"{name}.jpg",
        "resolution": f"{width}X{height}",
        "date": "2021-01-01",
        "breed": "믹스견",
        "age": number % animals,
        "gender": "F",
        "species": "D",
        "lesions": code[:2],
        "Path": "유증상",
        "합성유무": None,
    }
    content = {"metaData": meta, "inspRejectYn": "N", "labelingInfo": [{"polygon": polygon}]}
    return json.dumps(content, ensure_ascii=False).encode()


def photograph(draw: np.random.Generator) -> bytes:
    """A 1920 x 1080 JPEG with the detail of a photograph of fur (about 0.7 MB at quality 90)."""
    noise = draw.normal(0, 1, (1080, 1920)).astype(np.float32)
    hairs = sum(np.roll(noise, (step, 2 * step), (0, 1)) for step in range(8)) * 7
    coat = np.array((150, 112, 74), np.float32) * draw.uniform(0.7, 1.2)
    buffer = io.BytesIO()
    Image.fromarray((hairs[..., None] + coat).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def speck(number: int) -> bytes:
    """The smallest useful JPEG, another one for every number."""
    pixels = np.frombuffer(number.to_bytes(4, "big") * 64, np.uint8).reshape(16, 16)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def make_zip(path: Path, count: int, picture: Callable[[int], bytes], size: tuple[int, int], animals: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            code = CLASSES[number % len(CLASSES)]
            name = f"반려견/피부/일반카메라/유증상/{code}/IMG_D_{code[:2]}_{number:06d}"
            archive.writestr(f"{name}.json", label(number, Path(name).name, animals, *size), zipfile.ZIP_DEFLATED)
            archive.writestr(f"{name}.jpg", picture(number), zipfile.ZIP_STORED)


def floor_one(job: tuple[str, str]) -> None:
    source, target = job
    with Image.open(source) as image:
        image.draft("RGB", (IMGSZ, IMGSZ * image.height // image.width))
        size = (IMGSZ, round(IMGSZ * image.height / image.width))
        image.convert("RGB").resize(size, Image.Resampling.BILINEAR).save(target, "JPEG", quality=90)


def run_floor(pictures: list[Path], dest: Path, jobs: int) -> float:
    shutil.rmtree(dest, ignore_errors=True)
    dest.mkdir()
    begun = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        pool.map(floor_one, [(str(path), str(dest / path.name)) for path in pictures], chunksize=8)
    return time.monotonic() - begun


def run_import(source: Path, dest: Path, *options: str) -> tuple[float, int]:
    """Seconds, and the peak memory (KiB) of the largest process."""
    shutil.rmtree(dest, ignore_errors=True)
    command = [sys.executable, "-m", "petskin_tune.cli", "data", "aihub", str(source), str(dest), *options]
    begun = time.monotonic()
    done = subprocess.run(["/usr/bin/time", "-v", *command], capture_output=True, text=True, check=False)
    seconds = time.monotonic() - begun
    if done.returncode:
        raise SystemExit(done.stderr)
    found = re.search(r"Maximum resident set size \(kbytes\): (\d+)", done.stderr)
    assert found
    return seconds, int(found.group(1))


def throughput(folder: Path, images: int, jobs: int, runs: int) -> None:
    draw = np.random.default_rng(0)
    make_zip(folder / "download/1.Training/TL01.zip", images, lambda _: photograph(draw), (1920, 1080), animals=40)
    pictures = folder / "pictures"
    pictures.mkdir()
    with zipfile.ZipFile(folder / "download/1.Training/TL01.zip") as archive:
        for entry in archive.infolist():
            if entry.filename.endswith(".jpg"):
                (pictures / Path(entry.filename).name).write_bytes(archive.read(entry))
    files = sorted(pictures.iterdir())
    size = sum(path.stat().st_size for path in files) / len(files) / 1e6
    print(f"{images} photographs of 1920 x 1080 ({size:.2f} MB each) to {IMGSZ} px, {jobs} processes, {runs} runs each")
    rates: dict[str, list[float]] = {"bare loop": [], "data aihub": []}
    costs: dict[str, list[float]] = {"bare loop": [], "data aihub": []}
    for _ in range(runs):
        for what, run in (
            ("bare loop", lambda: run_floor(files, folder / "floor", jobs)),
            (
                "data aihub",
                lambda: run_import(folder / "download", folder / "data", "--imgsz", str(IMGSZ), "--jobs", str(jobs))[0],
            ),
        ):
            before = os.times()
            rates[what].append(images / run())
            after = os.times()
            spent = after.children_user + after.children_system - before.children_user - before.children_system
            costs[what].append(1000 * spent / images)
    for what in rates:
        rate, cost = statistics.median(rates[what]), statistics.median(costs[what])
        print(
            f"  {what:12}  {rate:7.1f} images/s  {cost:6.1f} ms CPU an image   {[round(one, 1) for one in rates[what]]}"
        )
    ratio = statistics.median(rates["data aihub"]) / statistics.median(rates["bare loop"])
    print(f"  ours / floor  {ratio:7.2f} (to reach: 0.80); both with the start of their processes")


def memory(folder: Path, records: int, jobs: int) -> None:
    make_zip(folder / "many/1.Training/TL01.zip", records, speck, (16, 16), animals=5000)
    for options in (("--min-area", "0"), ("--min-area", "0", "--max-per-class", "1000")):
        seconds, peak = run_import(folder / "many", folder / "data", *options, "--jobs", str(jobs))
        print(f"{records} records, {' '.join(options)}: {seconds:.0f} s, peak memory {peak / 2**20:.2f} GiB (limit 2)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None)
    chosen = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        if chosen.images:
            throughput(Path(folder), chosen.images, chosen.jobs, chosen.runs)
        if chosen.records:
            memory(Path(folder), chosen.records, chosen.jobs)


if __name__ == "__main__":
    main()
