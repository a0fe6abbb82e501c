"""How time and memory grow with the image, the batch, the objects, the classes and the data set.

    python benchmarks/scaling.py [CURVE ...] [--out docs/images/scaling.png] [--repeats 3]

Curves: size, batch, objects, classes, annotations, detections; all of them if none is named. Every
point runs in a process of its own, which prints the median time of its repeats and the largest
memory it had. Work on images is Mask R-CNN (`mask_rcnn_lite0_fpn`, random weights), in prediction
or as a training step; `annotations` reads a synthetic COCO JSON up to the first batch;
`detections` evaluates boxes.
"""

from __future__ import annotations

import argparse
import atexit
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from peak import peak_memory
from PIL import Image

MODEL = "mask_rcnn_lite0_fpn"
Work = Callable[[], object]


@dataclass(frozen=True)
class Curve:
    """What a curve varies, and the work at each of its points."""

    title: str
    unit: str
    values: tuple[int, ...]
    work: Callable[[int], Work]


def predictions(side: int, batch: int = 1) -> Work:
    """Return the prediction of drawn square images with about 100 objects each."""
    from maskwright.drawing.scene import drawn_scene
    from maskwright.prediction.reading import Loaded
    from maskwright.prediction.sources import one_source
    from maskwright.structures import Resize
    from maskwright.tasks.detection.post import make_post
    from maskwright.tasks.detection.settings import DetectionSettings
    from maskwright.timing.comparable import random_predictor

    photo = drawn_scene()
    predictor = random_predictor(MODEL, 20, photo)
    square = np.ascontiguousarray(photo[:800, :800])
    loaded = [Loaded(one_source(square, 0), square, 0.0)] * batch
    resize, post = Resize.parse(side), make_post(0.05, 0.5, 100)
    settings = DetectionSettings(post)
    return lambda: [result.rle for result in predictor.infer(loaded, resize, settings)]


def training_step(objects: int, classes: int) -> Work:
    """Return a training step on two images of 512 x 512 with as many objects in each."""
    import torch
    from train_step import scene

    from maskwright.models.registry import build

    torch.manual_seed(0)
    detector = build(MODEL, classes).train()
    images, targets = scene(2, 512, objects, classes, sides=(20, 20))

    def step() -> None:
        detector.zero_grad()
        sum(detector.losses(images, targets).values()).backward()

    return step


def reading(annotations: int) -> Work:
    """Return all that comes before the first step on a COCO JSON with polygons, ten to an image.

    That is reading, choosing the anchors and making the first batch of two images.
    """

    folder = Path(tempfile.mkdtemp(prefix="scaling"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    rng = np.random.default_rng(0)
    per_image = 10
    count = max(annotations // per_image, 1)
    (folder / "images").mkdir()
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    circle = 20 * np.stack([np.cos(angles), np.sin(angles)], 1)
    rows = []
    for i in range(annotations):
        points = (circle + rng.uniform(40, 440, 2)).round(1)
        (x1, y1), (x2, y2) = points.min(0), points.max(0)
        box = [float(x1), float(y1), float(x2 - x1), float(y2 - y1)]
        rows.append(
            {
                "id": i + 1,
                "image_id": i // per_image + 1,
                "category_id": i % 80 + 1,
                "segmentation": [points.ravel().tolist()],
                "bbox": box,
                "area": 1236.1,
                "iscrowd": 0,
            }
        )
    images = [
        {"id": i + 1, "file_name": f"{i}.jpg", "width": 480, "height": 480} for i in range(count)
    ]
    photo = folder / "images" / images[0]["file_name"]
    for i, image in enumerate(images):
        file = folder / "images" / image["file_name"]
        if i % 10_000:  # a file system allows some ten thousand links
            file.hardlink_to(photo)
        else:
            photo = file
            Image.new("RGB", (480, 480)).save(photo)
    document = {
        "images": images,
        "annotations": rows,
        "categories": [{"id": i + 1, "name": f"class {i}"} for i in range(80)],
    }
    path = folder / "labels.json"
    path.write_text(json.dumps(document))
    # The reading has a process of its own: this one holds the whole document.
    code = (
        "import sys, time\n"
        "begin = time.perf_counter()\n"
        "from maskwright.data.anchors.sizes import suggest_anchor_sizes\n"
        "from maskwright.data.discover import open_dataset\n"
        "from maskwright.data.loader import make_loader\n"
        "from maskwright.data.transforms import Augment\n"
        "from maskwright.structures import Resize\n"
        "data, resize = open_dataset(sys.argv[1], 'train'), Resize()\n"
        "suggest_anchor_sizes(data, resize)\n"
        "loader = make_loader(data, batch=2, resize=resize, augment=Augment(), seed=0, workers=0,"
        " shuffle=True)\n"
        "assert len(next(iter(loader))) == 2\n"
        "seconds = time.perf_counter() - begin\n"
        "from peak import peak_memory\n"
        "print(len(data), seconds, peak_memory())"
    )

    def read() -> tuple[float, int]:
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)],
            cwd=Path(__file__).parent,
            check=True,
            capture_output=True,
            text=True,
        )
        found, seconds, megabytes = done.stdout.split()
        assert int(found) == count
        return float(seconds), int(megabytes)

    return read


def evaluating(detections: int) -> Work:
    """Return the evaluation of boxes, a hundred to an image, against ten objects in each."""
    from maskwright.metrics import coco_eval

    rng = np.random.default_rng(0)
    count = max(detections // 100, 1)

    def boxes(number: int) -> list[list[float]]:
        corner, side = rng.uniform(0, 400, (number, 2)), rng.uniform(10, 80, (number, 2))
        return np.concatenate([corner, side], 1).round(2).tolist()

    truth = {
        "images": [{"id": i + 1, "width": 480, "height": 480} for i in range(count)],
        "categories": [{"id": i + 1, "name": f"class {i}"} for i in range(80)],
        "annotations": [
            {
                "id": i + 1,
                "image_id": i // 10 + 1,
                "category_id": i % 80 + 1,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for i, box in enumerate(boxes(10 * count))
        ],
    }
    found = [
        {
            "image_id": i % count + 1,
            "category_id": int(rng.integers(80)) + 1,
            "bbox": box,
            "score": float(rng.random()),
        }
        for i, box in enumerate(boxes(detections))
    ]
    return lambda: coco_eval(truth, found, "bbox")


CURVES = {
    "size": Curve("prediction", "pixels a side", (256, 384, 512, 768, 1024), predictions),
    "batch": Curve("prediction at 320", "images", (1, 2, 4, 8), lambda n: predictions(320, n)),
    "objects": Curve(
        "training step, 2 x 512 x 512",
        "objects an image",
        (1, 10, 100, 400),
        lambda n: training_step(n, 20),
    ),
    "classes": Curve(
        "training step, 2 x 512 x 512",
        "classes",
        (1, 20, 80, 300, 1203),
        lambda n: training_step(20, n),
    ),
    "annotations": Curve(
        "reading a COCO JSON", "annotations", (1_000, 10_000, 100_000, 1_000_000), reading
    ),
    "detections": Curve(
        "evaluation of boxes", "detections", (1_000, 10_000, 50_000, 200_000), evaluating
    ),
}


def point(curve: Curve, value: int, repeats: int) -> tuple[float, int]:
    """Do the work of a point; return the median seconds and the peak of this process in MB."""
    work = curve.work(value)
    result = work()  # warms up
    if isinstance(result, tuple):  # measured by its own process
        rows = [result] + [work() for _ in range(repeats - 1)]
        return statistics.median(row[0] for row in rows), max(row[1] for row in rows)
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds), peak_memory()


def draw(rows: dict[str, list[tuple[int, float, int]]], path: Path) -> None:
    """Write time and memory of every curve as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, len(rows), figsize=(2.7 * len(rows), 5), squeeze=False)
    for column, (name, points) in enumerate(rows.items()):
        curve = CURVES[name]
        values = [row[0] for row in points]
        for line, (index, label) in enumerate(((1, "seconds"), (2, "peak memory, MB"))):
            axis = axes[line][column]
            heights = [row[index] for row in points]
            axis.plot(values, heights, marker="o")
            if values[-1] > 100 * values[0]:
                axis.set_xscale("log")
            if max(heights) > 10 * min(heights):
                axis.set_yscale("log")
            else:
                axis.set_ylim(0, 1.15 * max(heights))
            axis.set_xlabel(curve.unit)
            if column == 0:
                axis.set_ylabel(label)
            axis.grid(alpha=0.3)
        axes[0][column].set_title(curve.title, fontsize=10)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("curves", nargs="*", metavar="CURVE", help=", ".join(CURVES))
    parser.add_argument("--out", type=Path, help="picture of the curves")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--point", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    for name in args.curves:
        if name not in CURVES:
            parser.error(f"there is no curve {name!r}: {', '.join(CURVES)}")
    if args.point is not None:
        print(*point(CURVES[args.curves[0]], args.point, args.repeats))
        return
    from common import machine

    print(machine())
    rows: dict[str, list[tuple[int, float, int]]] = {}
    for name in args.curves or CURVES:
        curve = CURVES[name]
        print(f"\n| {curve.title}: {curve.unit} | seconds | peak memory, MB |")
        print("| ---: | ---: | ---: |")
        for value in curve.values:
            again = [sys.executable, __file__, name, "--point", str(value)]
            again += ["--repeats", str(args.repeats)]
            done = subprocess.run(again, check=True, stdout=subprocess.PIPE, text=True)
            seconds, megabytes = done.stdout.split()[-2:]
            rows.setdefault(name, []).append((value, float(seconds), int(megabytes)))
            print(f"| {value:,} | {float(seconds):.3g} | {megabytes} |", flush=True)
    if args.out:
        draw(rows, args.out)


if __name__ == "__main__":
    main()
