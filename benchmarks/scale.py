"""Tables of very many images beside `predict`: CPU seconds an image, on Ray with 1 and 2 processes.

    python benchmarks/scale.py --images 1000 --rounds 3 --out scale.jsonl

Ways take turns in processes of their own. Each is run over few images and over many: the difference
is the cost of an image, the rest that of the start. CPU seconds are those of all processes
together, so that what else the machine does hardly counts. Linux. Rows that the file has are not
measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

WAYS = ("predict", "local", "ray1", "ray2")
FEW = 32
TICKS = os.sysconf("SC_CLK_TCK")


def make_images(folder: Path, count: int, side: int) -> None:
    from PIL import Image

    files = sorted((Path(__file__).parents[1] / "examples/nuclei_mini/images").rglob("*.png"))
    pictures = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    random = np.random.default_rng(0)
    for k in range(count):
        picture = pictures[k % len(pictures)]
        y, x = (int(random.integers(0, length - side + 1)) for length in picture.shape[:2])
        Image.fromarray(picture[y : y + side, x : x + side]).save(folder / f"{k:06d}.png")


class Clock(threading.Thread):
    """Adds up the CPU seconds of this process and all below it, those that end meanwhile too."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seconds: dict[int, float] = {}
        self.names: dict[int, str] = {}
        self.going = True
        self.own = 0.0  # seconds that it costs itself

    def look(self) -> None:
        found: dict[int, tuple[int, float]] = {}
        for place in Path("/proc").glob("[0-9]*"):
            try:
                words = (place / "stat").read_text().rpartition(")")[2].split()
                name = (place / "cmdline").read_text()
            except OSError:  # it has ended
                continue
            found[int(place.name)] = int(words[1]), sum(map(int, words[11:13])) / TICKS
            self.names[int(place.name)] = name
        below, more = {os.getpid()}, True
        while more:
            more = {pid for pid, (parent, _) in found.items() if parent in below} - below
            below |= more
        self.seconds |= {pid: found[pid][1] for pid in below}

    def run(self) -> None:
        while self.going:
            self.look()
            self.own = time.thread_time()
            time.sleep(0.5)

    def stop(self) -> tuple[float, float]:
        """Return the seconds of all processes, and those of Ray's workers."""
        self.going = False
        self.look()
        workers = [s for p, s in self.seconds.items() if self.names[p].startswith("ray::Map")]
        return sum(self.seconds.values()) - self.own, sum(workers)


def measure(way: str, source: list[str], side: int) -> dict[str, float]:
    """Run one way in this process, which nothing else has used."""
    import torch

    import maskwright as mw
    from maskwright.terminal.heap import keep_memory

    torch.set_num_threads(1)
    keep_memory()
    clock, start = Clock(), time.perf_counter()
    clock.start()
    if way == "predict":
        finds = sum(len(one.rle) for one in mw.predict("nuclei", source, imgsz=side))
    else:
        with tempfile.TemporaryDirectory() as save:
            processes = int(way[3:]) if way.startswith("ray") else None
            made = mw.distribute.predict(
                "nuclei",
                source,
                imgsz=side,
                save=save,
                processes=processes,
                engine=way[:3].replace("loc", "local"),
            )
            finds = made.count.finds
    seconds = time.perf_counter() - start
    cpu, workers = clock.stop()
    return {"seconds": seconds, "cpu": cpu, "workers": workers, "finds": finds}


def report(rows: list[dict]) -> None:
    most = max(row["images"] for row in rows)
    cost = {}
    for way in WAYS:
        by_size = {
            n: [r for r in rows if r["way"] == way and r["images"] == n] for n in (FEW, most)
        }
        if not all(by_size.values()):
            continue
        few, many = (statistics.median(r["cpu"] for r in by_size[n]) for n in (FEW, most))
        cost[way] = (many - few) / (most - FEW)
        start = few - FEW * cost[way]
        beside = f", {cost[way] / cost['predict']:.3f} of predict" if "predict" in cost else ""
        wall = statistics.median(r["seconds"] for r in by_size[most])
        print(
            f"{way:8} {1e3 * cost[way]:7.2f} ms CPU an image{beside}; start {start:5.1f} s CPU; "
            f"{most} images in {wall:.0f} s, {many:.0f} s CPU"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("scale.jsonl"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        way, folder, count = args.one.split(",")
        source = [str(path) for path in sorted(Path(folder).iterdir())][: int(count)]
        print("row", json.dumps(measure(way, source, args.side)))
        return
    rows = (
        [json.loads(line) for line in args.out.read_text().splitlines()]
        if args.out.exists()
        else []
    )
    done = {(row["way"], row["images"], row["round"]) for row in rows}
    with tempfile.TemporaryDirectory() as folder:
        make_images(Path(folder), args.images, args.side)
        for number in range(args.rounds):
            for count in (FEW, args.images):
                for way in WAYS if number % 2 == 0 else reversed(WAYS):
                    if (way, count, number) in done:
                        continue
                    command = [sys.executable, __file__, "--one", f"{way},{folder},{count}"]
                    command += ["--side", str(args.side)]
                    text = subprocess.run(
                        command, capture_output=True, text=True, check=True
                    ).stdout
                    (line,) = [line for line in text.splitlines() if line.startswith("row ")]
                    rows.append(
                        {"way": way, "images": count, "round": number, **json.loads(line[4:])}
                    )
                    with args.out.open("a") as file:
                        file.write(json.dumps(rows[-1]) + "\n")
    report(rows)


if __name__ == "__main__":
    main()
