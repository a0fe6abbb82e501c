"""Trainings on 16-bit and four-channel images beside 8-bit ones, made of the same nuclei.

    python benchmarks/depths.py FOLDER_OF_NUCLEI --out benchmarks/rows/depths.json

The fluorescence images become what a camera of 16 bits would record of them: dim and bright
specimens (gain 0.05 to 1, drawn for each image), photons with Poisson noise. All sides have the
same objects and the same light:

- `deep`: the 16-bit samples, trained in full depth by the window of the training images;
- `eight`: the same stretched by the same window and rounded to 8 bits before the training;
- `upper`: the upper 8 of the 16 bits, as programs keep that do not look at the values;
- `four`: the light divided among four channels (1 to 4 tenths), each 16 bits with noise of its own.

Each seed trains all sides on the same images in the same order, from ImageNet weights. Reported are
the mask AP on validation images, and the paired differences to `eight`. Rows that are in the file
are not made again; without `--out` they are kept nowhere.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
import torch
from common import Rows, half_interval, machine
from PIL import Image

import maskwright as mw

SIDES = ("eight", "deep", "four", "upper")
DARK, LIGHT, UNIT = 40.0, 800.0, 8  # photons of the background and of white; counts of a photon
SHARES = (0.1, 0.2, 0.3, 0.4)  # of the light in each of four channels
SIDE = 256  # the small images alone, so that a training takes minutes
MODEL = "mask_rcnn_lite0_fpn"


def recorded(grey: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return what a camera records of a picture: one channel (H, W), and four (H, W, 4), uint16."""
    gain = np.exp(rng.uniform(np.log(0.05), 0))
    bright = LIGHT * gain * grey.astype(np.float64) / 255
    one = rng.poisson(DARK + bright) * UNIT
    four = rng.poisson(DARK / 4 + bright[..., None] * np.array(SHARES)) * UNIT
    return one.clip(0, 65535).astype(np.uint16), four.clip(0, 65535).astype(np.uint16)


def _is_taken(image: dict) -> bool:
    return image["modality"] == "fluorescence" and max(image["width"], image["height"]) <= SIDE


def make_sides(data: Path, out: Path, seed: int = 0) -> dict[str, Path]:
    """Write the data sets of all sides, and return where."""
    places = {side: out / side for side in SIDES}
    rng = np.random.default_rng(seed)
    for split in ("train", "val"):
        content = json.loads((data / "annotations" / f"{split}.json").read_bytes())
        images = [one for one in content["images"] if _is_taken(one)]
        taken = {one["id"] for one in images}
        objects = [one for one in content["annotations"] if one["image_id"] in taken]
        records = {}
        for one in images:
            with Image.open(data / "images" / split / one["file_name"]) as picture:
                records[one["id"]] = recorded(np.asarray(picture.convert("L")), rng)
        if split == "train":
            pool = np.concatenate([single.ravel() for single, _ in records.values()])
            low, high = np.percentile(pool, [0.1, 99.9])
        for side, place in places.items():
            folder = place / "images" / split
            folder.mkdir(parents=True, exist_ok=True)
            (place / "annotations").mkdir(exist_ok=True)
            named = []
            for one in images:
                single, four = records[one["id"]]
                stem = Path(one["file_name"]).stem
                deep = side in ("deep", "four")
                name = f"{stem}.tif" if deep else f"{stem}.png"
                if deep:
                    samples = single if side == "deep" else four
                    tifffile.imwrite(
                        folder / name, samples, photometric="minisblack", planarconfig="contig"
                    )
                else:
                    scaled = (single.clip(low, high) - low) * (255 / (high - low)) + 0.5
                    samples = single >> 8 if side == "upper" else scaled
                    Image.fromarray(samples.astype(np.uint8)).save(folder / name)
                named.append({**one, "file_name": name})
            written = {**content, "images": named, "annotations": objects}
            (place / "annotations" / f"{split}.json").write_text(json.dumps(written))
    return places


def run(data: Path, seed: int, steps: int, runs: Path) -> dict[str, float]:
    """Train on one side with one seed, and return its figures in percent and its seconds."""
    start = time.perf_counter()
    done = mw.train(
        data=data,
        model=MODEL,
        model_args={"anchor_sizes": (8, 16, 32, 64, 128)},
        project=runs,
        seed=seed,
        steps=steps,
        val_every=10**6,  # once, at the end: nothing is chosen by the validation images
        patience=0,
        batch=2,
        imgsz="1x",
        crop=192,
        lr=5e-4,
        freeze=0,
        max_det=150,
        workers=0,
        device="cpu",
    )
    seconds = time.perf_counter() - start
    found = {name: 100 * done.metrics[f"mask/{name}"] for name in ("AP", "AP50")}
    return {**found, "seconds": seconds}


def table(rows: list[dict]) -> str:
    """Return the table of `docs/results.md`: a row of each side that has been trained."""
    base = {row["seed"]: row["AP"] for row in rows if row["side"] == SIDES[0]}
    lines = ["| side | mask AP (by seed) | minus `eight` | AP50 |", "| --- | --- | --- | --- |"]
    for side in SIDES:
        found = {row["seed"]: row for row in rows if row["side"] == side}
        if not found:
            continue
        scores = [found[seed]["AP"] for seed in sorted(found)]
        each = ", ".join(f"{score:.1f}" for score in scores)
        gaps = [found[seed]["AP"] - base[seed] for seed in sorted(found.keys() & base.keys())]
        gap = ""
        if side != SIDES[0] and len(gaps) > 1:
            half = half_interval(gaps, 0.9)
            gap = (
                f"{np.mean(gaps):+.1f} ({np.mean(gaps) - half:+.1f} to {np.mean(gaps) + half:+.1f})"
            )
        half_found = np.mean([row["AP50"] for row in found.values()])
        lines.append(f"| `{side}` | {np.mean(scores):.1f} ({each}) | {gap} | {half_found:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "data", type=Path, help="the nuclei: annotations and images of train and val"
    )
    parser.add_argument("--out", type=Path, help="JSON file of the rows")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows(args.out, f"{args.steps} steps")
    wanted = [(seed, side) for side in SIDES for seed in range(args.seeds)]
    done = {(row["seed"], row["side"]) for row in rows}
    missing = sorted(set(wanted) - done, key=lambda one: (one[1] == SIDES[-1], one))
    with tempfile.TemporaryDirectory() as folder:
        places = make_sides(args.data, Path(folder)) if missing else {}
        for seed, side in missing:
            figures = run(places[side], seed, args.steps, Path(folder) / "runs")
            rows.add([{"seed": seed, "side": side, **figures}])
    print(machine())
    print(table(rows))


if __name__ == "__main__":
    main()
