"""Trainings on 16-bit and four-channel images beside 8-bit ones, made of the same nuclei.

    python benchmarks/depths.py --data examples/nuclei_mini --out depths --seeds 3

The fluorescence images become what a camera of 16 bits would record of them: dim and bright
specimens (gain 0.05 to 1, drawn for each image), photons with Poisson noise. All sides have the
same objects and the same light:

- `deep`: the 16-bit samples, trained in full depth by the window of the training images;
- `eight`: the same stretched by the same window and rounded to 8 bits before the training;
- `upper`: the upper 8 of the 16 bits, as programs keep that do not look at the values;
- `four`: the light divided among four channels (1 to 4 tenths), each 16 bits with noise of its own.

Each seed trains all sides on the same order of images. Reported are the mean of the mask AP and the
paired differences to `eight`.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
import tifffile
from common import half_interval
from PIL import Image

import maskwright as mw

SIDES = ("eight", "deep", "upper", "four")
DARK, LIGHT, UNIT = 40.0, 800.0, 8  # photons of the background and of white; counts of a photon
SHARES = (0.1, 0.2, 0.3, 0.4)  # of the light in each of four channels
MODEL = "mask_rcnn_lite0_fpn"


def recorded(grey: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return what a camera records of a picture: one channel (H, W), and four (H, W, 4), uint16."""
    gain = np.exp(rng.uniform(np.log(0.05), 0))
    bright = LIGHT * gain * grey.astype(np.float64) / 255
    one = rng.poisson(DARK + bright) * UNIT
    four = rng.poisson(DARK / 4 + bright[..., None] * np.array(SHARES)) * UNIT
    return one.clip(0, 65535).astype(np.uint16), four.clip(0, 65535).astype(np.uint16)


def make_sides(data: Path, out: Path, seed: int = 0) -> dict[str, Path]:
    """Write the data sets of all sides, and return where; those that are there are kept."""
    places = {side: out / side for side in SIDES}
    if all((place / "done").exists() for place in places.values()):
        return places
    rng = np.random.default_rng(seed)
    for split in ("train", "val"):
        content = json.loads((data / "annotations" / f"{split}.json").read_bytes())
        images = [one for one in content["images"] if one["modality"] == "fluorescence"]
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
    for place in places.values():
        (place / "done").touch()
    return places


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("examples/nuclei_mini"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--imgsz", type=int, default=256)
    args = parser.parse_args()
    places = make_sides(args.data, args.out)
    log = args.out / "scores.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    for seed in range(args.seeds):
        for side in args.sides:
            if any((row["seed"], row["side"]) == (seed, side) for row in rows):
                continue
            done = mw.train(
                data=places[side],
                model=args.model,
                project=args.out / "runs",
                name=f"{side}{seed}",
                seed=seed,
                steps=args.steps,
                val_every=10**6,
                max_det=300,
                patience=0,
                batch=2,
                imgsz=args.imgsz,
                workers=0,
                device="cpu",
            )
            rows.append({"seed": seed, "side": side, "AP": 100 * done.metrics["mask/AP"]})
            with log.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
                file.flush()
                os.fsync(file.fileno())
    for side in args.sides:
        found = {row["seed"]: row["AP"] for row in rows if row["side"] == side}
        base = {row["seed"]: row["AP"] for row in rows if row["side"] == SIDES[0]}
        both = sorted(found.keys() & base.keys())
        gaps = [found[seed] - base[seed] for seed in both]
        line = f"{side:6} mask AP {np.mean([found[seed] for seed in both]):5.1f}"
        if side != SIDES[0] and len(gaps) > 1:
            line += f", minus eight {np.mean(gaps):+.1f} +- {half_interval(gaps):.1f}"
        print(line)


if __name__ == "__main__":
    main()
