"""Exported files against eager torch and torchvision, from the photo to full-size masks on a CPU.

    python benchmarks/export.py [--formats onnx,openvino,pt2] [--half] [--repeats 7] [--threads 2]

Every file is exported, and checked, for one image of the size that the photo comes to. All sides
then take turns on that photo, each turn starting with another one; ratios are taken turn by turn
and their median, lowest and highest are printed. The graph of a file is one stage, so its own
stages cannot be seen.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import machine

from maskwright import load
from maskwright.data.pixels.images import load_image
from maskwright.drawing.scene import drawn_scene
from maskwright.exporters.export import export
from maskwright.exporters.report import ExportReport
from maskwright.graphs.writers import SUFFIXES
from maskwright.models import PostProcess
from maskwright.prediction.predictor import Predictor
from maskwright.prediction.reading import Loaded
from maskwright.prediction.sources import one_source
from maskwright.tasks.detection.peer import torchvision_model
from maskwright.tasks.detection.settings import DetectionSettings
from maskwright.timing.comparable import comparable

STAGES = ("preprocess", "inference", "postprocess", "paste masks")


class Side:
    """One way from pixels to masks: milliseconds of its stages and in all, one a turn."""

    def __init__(self, run: Callable[[], dict[str, float]]) -> None:
        self.run = run
        self.stages: dict[str, list[float]] = {}
        self.total: list[float] = []

    def turn(self) -> None:
        start = time.perf_counter()
        stages = self.run()
        self.total.append(1e3 * (time.perf_counter() - start))
        for stage, ms in stages.items():
            self.stages.setdefault(stage, []).append(ms)

    def reset(self) -> None:
        self.stages.clear()
        self.total.clear()


def ours(predictor: Predictor, pixels: Any, post: PostProcess) -> Side:
    loaded = Loaded(one_source(pixels, 0), pixels, 0.0)

    def run() -> dict[str, float]:
        result = predictor.infer([loaded], predictor.resize_rule(), DetectionSettings(post))[0]
        start = time.perf_counter()
        _ = result.masks
        return {**result.speed, "paste masks": 1e3 * (time.perf_counter() - start)}

    return Side(run)


def torchvisions(predictor: Predictor, pixels: Any, post: PostProcess) -> Side | None:
    rule = predictor.detector.resize
    peer = torchvision_model(predictor.model, predictor.meta, post, rule, predictor.device)
    if peer is None:
        return None

    def run() -> dict[str, float]:
        image = torch.from_numpy(pixels).permute(2, 0, 1) / 255
        with torch.inference_mode():
            peer([image])
        return {}

    return Side(run)


def ratios(baseline: Side, side: Side) -> str:
    """Return how many times as fast a side is, turn by turn: median, lowest and highest."""
    each = [a / b for a, b in zip(baseline.total, side.total, strict=True)]
    return f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="mask_rcnn_resnet50_fpn")
    parser.add_argument("--weights", help="for a registered name; random ones if left out")
    parser.add_argument("--source", help="a photo; a drawn scene of 800 x 1216 if left out")
    parser.add_argument("--formats", default=",".join(SUFFIXES))
    parser.add_argument("--half", action="store_true", help="weights in half precision")
    # Random weights find objects in a flat image as well, hundreds with the same score, of which
    # rounding would choose some: that high, they find none.
    parser.add_argument("--conf", type=float, default=0.4, help="smallest score of an object")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    pixels = drawn_scene() if options.source is None else load_image(options.source)
    post = PostProcess(score_thresh=options.conf)
    predictor = comparable(options.model, options.weights, "cpu", pixels)
    height, width = predictor.detector.resize.target_size(*pixels.shape[:2])
    divisor = predictor.detector.size_divisor
    size = (-(-height // divisor) * divisor, -(-width // divisor) * divisor)

    sides = {"eager": ours(predictor, pixels, post)}
    reports: dict[str, ExportReport] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.formats.split(","):
            path = export(
                predictor,
                name,
                Path(folder) / f"{name}{SUFFIXES[name]}",
                imgsz=size,
                batch=1,
                half=options.half,
                conf=options.conf,
                source=options.source,
                report=lambda made, name=name: reports.update({name: made}),
            )
            sides[name] = ours(load(path, trust=True), pixels, post)
        other = torchvisions(predictor, pixels, post)
        if other is not None:
            sides = {"torchvision": other, **sides}
        order = list(sides.values())
        for turn in range(options.repeats + 1):
            for i in range(len(order)):
                order[(turn + i) % len(order)].turn()
            if turn == 0:  # the first one warms up
                for side in order:
                    side.reset()

    print(machine())
    print(f"{options.model}, {height} x {width}, {options.repeats} turns, medians in ms\n")
    baselines = [name for name in ("torchvision", "eager") if name in sides]
    columns = ["what", *STAGES, "in all", *(f"times as fast as {name}" for name in baselines)]
    print("| " + " | ".join([*columns, "file, MB", "nodes", "export, s"]) + " |")
    print("| --- |" + " ---: |" * (len(columns) + 2))
    for name, side in sides.items():
        times = [
            f"{statistics.median(side.stages[stage]):.1f}" if stage in side.stages else "-"
            for stage in STAGES
        ]
        cells = [name, *times, f"{statistics.median(side.total):.1f}"]
        cells += [ratios(sides[baseline], side) for baseline in baselines]
        made = reports.get(name)
        if made is None:
            cells += ["-"] * 3
        else:
            seconds = sum(made.seconds.values())
            cells += [f"{made.size_bytes / 1e6:.1f}", str(made.nodes), f"{seconds:.0f}"]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
