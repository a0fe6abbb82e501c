"""Frames of a video a second, end to end: decoded, looked at, followed, drawn and encoded.

    python benchmarks/video.py [--model nuclei] [--frames 60] [--size 640x480] [--repeats 5]
    python benchmarks/video.py --model NAME --batch 8 --device cuda

The video is drawn from the nuclei of the repository (CC0): a window that wanders over a mosaic of
them, two pixels further from frame to frame. The ways to look at it take turns in one process; a
script that decodes by OpenCV and hands the model frame by frame stands beside them. CPU time is
that of all threads, and tells on a machine that has other work, too.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from common import machine
from PIL import Image

import maskwright as mw
from maskwright.models import PostProcess
from maskwright.prediction.video.kinds import find_videos
from maskwright.prediction.video.options import METHODS
from maskwright.prediction.video.reading import Choice, Video
from maskwright.prediction.video.writing import VideoWriter
from maskwright.tasks.detection.settings import DetectionSettings
from maskwright.tasks.detection.tracking.tracker import WEAKER, ObjectTracker

PHOTOS = Path(__file__).resolve().parents[1] / "examples" / "nuclei_mini" / "images"
CONF = 0.25
STEP = (2, 1)  # pixels right and down from frame to frame


def make_video(path: Path, frames: int, width: int, height: int) -> None:
    """Write a window that wanders over a mosaic of nuclei."""
    side = 256
    files = sorted(PHOTOS.rglob("*.png"))
    across = -(-(width + frames * STEP[0]) // side)
    down = -(-(height + frames * STEP[1]) // side)
    board = Image.new("RGB", (across * side, down * side))
    for place in range(across * down):
        photo = Image.open(files[place % len(files)]).convert("RGB").resize((side, side))
        board.paste(photo, (place % across * side, place // across * side))
    pixels = np.asarray(board)
    film = VideoWriter(path, rate=Fraction(25), tick=Fraction(1, 25), aspect=Fraction(1))
    for number in range(frames):
        x, y = number * STEP[0], number * STEP[1]
        film.add(Image.fromarray(pixels[y : y + height, x : x + width]), Fraction(number, 25))
    film.close()


def by_opencv(predictor: Any, path: Path, options: dict[str, Any]) -> int:
    """Look at a video as a script does: OpenCV reads a frame, the model looks at it."""
    import cv2

    video, count = cv2.VideoCapture(str(path)), 0
    while True:
        there, frame = video.read()
        if not there:
            return count
        predictor(np.ascontiguousarray(frame[..., ::-1]), **options)
        count += 1


def followed(method: str, results: Sequence[Any]) -> str:
    """Return what a tracker took, and how often an id went over to another nucleus.

    All move alike, so that each has its place on the mosaic: a track whose next place there is
    farther than half the shorter side of its box has jumped.
    """
    tracker = ObjectTracker(method, 25.0, DetectionSettings(PostProcess(CONF, 0.5, 300)))
    begin = time.process_time()
    seen = [tracker.follow(result) for result in results]
    ms = 1e3 * (time.process_time() - begin) / len(results)
    places: dict[int, np.ndarray] = {}
    steps = jumps = untold = 0
    for number, result in enumerate(seen):
        moved = np.array(STEP) * number
        for id, box in zip(result.ids.tolist(), result.boxes.numpy(), strict=True):
            place = (box[:2] + box[2:]) / 2 + moved
            if id in places:
                steps += 1
                jumps += np.linalg.norm(place - places[id]) > (box[2:] - box[:2]).min() / 2
            untold += not id
            places.update({id: place} if id else {})
    return (
        f"{ms:5.1f} CPU ms a frame, {len(places)} tracks, {jumps} of {steps} steps jump, "
        f"{untold} finds without an id"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--weights")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--size", default="640x480", help="width x height of the video")
    parser.add_argument("--imgsz", type=int, help="long side of the network's input")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print(machine())
    predictor = mw.load(args.model, weights=args.weights, device=args.device)
    options: dict[str, Any] = {"imgsz": args.imgsz, "max_det": 300}
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "nuclei.mp4")
        make_video(path, args.frames, *map(int, args.size.split("x")))

        def look(**more: Any) -> Callable[[], int]:
            given = {**options, "batch": args.batch, **more}
            if given.pop("keep", False):
                given["save"] = Path(place, "out")
            return lambda: len(list(mw.predict(predictor, path, **given)))

        ways: dict[str, Callable[[], int]] = {
            "decode alone": lambda: len(list(Video(find_videos(path)[0]).read(Choice()))),
            "OpenCV, then the model": lambda: by_opencv(predictor, path, options),
            "predict": look(),
            **{f"predict track={method}": look(track=method) for method in METHODS},
            "predict save": look(keep=True),
            "predict save track=bytetrack": look(keep=True, track=True),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        computed: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(args.repeats + 1):  # the first turn warms up
            for name, run in ways.items():
                begin, busy = time.perf_counter(), time.process_time()
                assert run() == args.frames
                if turn:
                    seconds[name].append((time.perf_counter() - begin) / args.frames)
                    computed[name].append((time.process_time() - busy) / args.frames)
        found = sum(len(r) for r in mw.predict(predictor, path, **options)) / args.frames
        weak = list(mw.predict(predictor, path, conf=CONF * WEAKER, **options))
    print(f"{args.frames} frames of {args.size}, {found:.1f} objects a frame, {args.repeats} turns")
    print(f"{'':30}  frames/s  (lowest to highest)  CPU ms a frame  (lowest to highest)")
    for name, values in seconds.items():
        busy = [1e3 * value for value in computed[name]]
        print(
            f"{name:30}  {1 / statistics.median(values):8.2f}  ({1 / max(values):.2f} to "
            f"{1 / min(values):.2f})  {statistics.median(busy):8.1f}  ({min(busy):.1f} to "
            f"{max(busy):.1f})"
        )
    finds = sum(map(len, weak)) / args.frames
    print(f"trackers alone, with {finds:.1f} finds a frame, the weak ones too:")
    for method in METHODS:
        print(f"{method:10} {followed(method, weak)}")


if __name__ == "__main__":
    main()
