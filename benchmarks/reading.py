"""How fast each format of annotated objects is read, and the memory that it takes to do it.

    python benchmarks/reading.py [--objects 20000] [--formats coco,yolo,...] [--repeats 3]
        [--rewrite FORMAT,...] [--per-image 10] [--out FOLDER]

A data set is made of one small image under many names and of objects with outlines of 8 to 40
corners, ten to an image unless said otherwise. It is written in each format and read again, in
turns, each time in a process of its own. The table has the median of objects per second, the
lowest and highest, the time of listing the folder included, and the memory by which the process
grew beyond its imports. `--rewrite yolo,coco` converts the COCO file into one format after the
other instead, and tells time and memory of each.
Formats of boxes get the boxes of the objects, DOTA, which is read only, the corners of these.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import machine
from PIL import Image

SIZE = (480, 640)
DOTA = "dota"
MOST_LINKS = 20000  # names that file systems give one file
READ = """
import resource, sys, time
from maskwright.data.discover import open_dataset
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, start = peak(), time.perf_counter()
dataset = open_dataset(sys.argv[1], "train", format=sys.argv[2])
taken = time.perf_counter() - start
print(int((~dataset.columns.crowd).sum()), taken, peak() - before)
"""
CONVERT = """
import resource, sys, time
from maskwright.data.rewriting.convert import convert_data
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, start = peak(), time.perf_counter()
convert_data(sys.argv[1], to=sys.argv[2], out=sys.argv[3])
print(0, time.perf_counter() - start, peak() - before)
"""


def make_coco(folder: Path, objects: int, per_image: int, seed: int = 0) -> None:
    """Write a COCO data set piece by piece; its images are one file under many names."""
    rng = np.random.default_rng(seed)
    height, width = SIZE
    photos = folder / "images"
    photos.mkdir(parents=True)
    first = photos / "0000000.jpg"
    Image.fromarray(rng.integers(0, 255, (height // 8, width // 8, 3), np.uint8)).resize(
        (width, height)
    ).save(first)
    count = -(-objects // per_image)
    for i in range(1, count):
        photo = photos / f"{i:07}.jpg"
        if i % MOST_LINKS:
            os.link(first, photo)
        else:
            first = Path(shutil.copyfile(first, photo))
    (folder / "annotations").mkdir()
    with (folder / "annotations" / "train.json").open("w") as file:
        images = (
            {"id": i + 1, "file_name": f"{i:07}.jpg", "height": height, "width": width}
            for i in range(count)
        )
        file.write('{"categories": [{"id": 1, "name": "cell"}, {"id": 2, "name": "grain"}],\n')
        file.write('"images": [' + ",\n".join(map(json.dumps, images)) + '],\n"annotations": [')
        for k in range(objects):
            corners = int(rng.integers(8, 41))
            angles = np.sort(rng.uniform(0, 2 * math.pi, corners))
            radii = rng.uniform(12, 30, corners)
            x = rng.uniform(40, width - 40) + radii * np.cos(angles)
            y = rng.uniform(40, height - 40) + radii * np.sin(angles)
            box = [x.min(), y.min(), np.ptp(x), np.ptp(y)]
            row = {
                "id": k + 1,
                "image_id": k // per_image + 1,
                "category_id": int(rng.integers(1, 3)),
                "segmentation": [np.stack([x, y], 1).round(2).ravel().tolist()],
                "bbox": [round(float(value), 2) for value in box],
                "area": round(float(box[2] * box[3] / 2), 2),
                "iscrowd": 0,
            }
            file.write((",\n" if k else "") + json.dumps(row))
        file.write("]}")


def make_dota(source: Path, folder: Path) -> None:
    """Write the boxes of the COCO data set as DOTA's corners, with links to its images."""
    content = json.loads((source / "annotations/train.json").read_text())
    names = {one["id"]: one["name"] for one in content["categories"]}
    lines: dict[int, list[str]] = {one["id"]: [] for one in content["images"]}
    for one in content["annotations"]:
        x, y, w, h = one["bbox"]
        corners = (x, y, x + w, y, x + w, y + h, x, y + h)
        words = [*(f"{side:.2f}" for side in corners), names[one["category_id"]], "0"]
        lines[one["image_id"]].append(" ".join(words))
    (folder / "train/labelTxt").mkdir(parents=True)
    (folder / "train/images").symlink_to((source / "images").resolve())
    for one in content["images"]:
        file = folder / "train/labelTxt" / f"{Path(one['file_name']).stem}.txt"
        file.write_text("".join(f"{line}\n" for line in lines[one["id"]]))


def run(code: str, *words: str) -> tuple[int, float, float]:
    """Return objects, seconds and MB of a piece of code in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *words], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    count, seconds, grown = done.stdout.split()[-3:]
    return int(count), float(seconds), float(grown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, default=20000)
    parser.add_argument("--formats", default="")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rewrite", default="")
    parser.add_argument("--per-image", type=int, default=10)
    parser.add_argument("--out", type=Path, help="where the data sets go; none: a folder that goes")
    options = parser.parse_args()
    from maskwright.data.formats.table import TABLE

    written = [row.format for row in TABLE if row.write is not None]
    readable = [DOTA, *(one for one in written if one not in ("maps", "folders", "csv"))]
    formats = options.formats.split(",") if options.formats else readable
    with tempfile.TemporaryDirectory() as folder:
        place = options.out or Path(folder)
        source = place / "source"
        if not source.exists():
            make_coco(source, options.objects, options.per_image)
        images = -(-options.objects // options.per_image)
        print(f"{options.objects} objects in {images} images; {machine()}\n")
        if options.rewrite:
            name = "coco"
            for k, one in enumerate(options.rewrite.split(",")):
                target = place / f"rewritten_{k}"
                _, seconds, grown = run(CONVERT, str(source), one, str(target))
                print(f"{name} to {one}: {seconds:.1f} s, {grown:.0f} MB beyond the imports")
                source, name = target, one
            return
        for one in formats:
            if (place / one).exists():
                continue
            if one == DOTA:
                make_dota(source, place / one)
            else:
                run(CONVERT, str(source), one, str(place / one))
        found: dict[str, list[tuple[int, float, float]]] = {one: [] for one in formats}
        for _ in range(options.repeats):
            for one in formats:
                found[one].append(run(READ, str(place / one), one))
        print("| format | objects/s (lowest to highest) | memory, MB |\n| --- | --- | ---: |")
        for one, rows in found.items():
            speeds = sorted(count / seconds for count, seconds, _ in rows)
            middle, grown = statistics.median(speeds), statistics.median(row[2] for row in rows)
            spread = f"{speeds[0]:,.0f} to {speeds[-1]:,.0f}"
            print(f"| {one} | {middle:,.0f} ({spread}) | {grown:.0f} |")


if __name__ == "__main__":
    main()
