"""Make the picture of pixels and objects: DeepLabv3+, Mask R-CNN and RefineMask on the same crops.

    python scripts/make_semantic_picture.py DATA [--runs FOLDER] [--steps 160] [--count 6]

DATA is the nuclei data set (CC0). DeepLabv3+ (nucleus or background for every pixel) and RefineMask
are trained here on its split train, for `--steps` steps each, minutes on two cores, unless FOLDER
has them from an earlier call; Mask R-CNN is the model of the package. The crops come from images of
the split val, spread evenly over those that have nuclei that touch; of each image the crop with the
most nuclei is shown. No crop is picked by hand. Below each: the IoU of all nucleus pixels, and how
many objects there are; a network that gives classes to pixels cannot tell those that touch.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import maskwright as mw
from maskwright.data.discover import open_dataset
from maskwright.data.records import Dataset
from maskwright.drawing.draw import instance_colors
from maskwright.drawing.figures import plural
from maskwright.ops.components import label_parts
from maskwright.recipes import nuclei

OUT = Path(__file__).resolve().parents[1] / "docs" / "images" / "semantic_instances.png"
SIDE, CELL, MARGIN, LINE, HEAD = 96, 224, 6, 22, 150
BRIGHT = 200  # of 255: how bright the brightest hundredth of a crop is shown
SEMANTIC = "DeepLabv3+"
Masks = np.ndarray  # (N, H, W) bool


def models(data: Path, runs: Path, steps: int) -> dict[str, Any]:
    """Return the three models by title, trained unless they lie in a folder."""
    common = {"steps": steps, "val_every": 10**6, "project": runs, "patience": 0, "workers": 0}
    if not (runs / "train" / "pixels").is_dir():
        mw.train(data, model="deeplabv3plus_lite0", name="pixels", crop=256, batch=4, **common)
    if not (runs / "train" / "objects").is_dir():
        recipe = nuclei(data)
        recipe = replace(recipe, model="refine_mask_lite0_fpn", warmup=max(steps // 12, 1))
        mw.train(replace(recipe, name="objects", **common))
    return {
        SEMANTIC: mw.load(runs / "train" / "pixels" / "weights" / "last.safetensors", device="cpu"),
        "Mask R-CNN": mw.load("nuclei", device="cpu"),
        "RefineMask": mw.load(
            runs / "train" / "objects" / "weights" / "last.safetensors", device="cpu"
        ),
    }


def true_masks(data: Dataset, index: int) -> Masks:
    """Return the masks of all objects of an image."""
    size = data.image(index).shape[:2]
    masks = np.zeros((len(data[index].labels), *size), bool)
    for k, mask in enumerate(masks):
        crop, (x1, y1, x2, y2) = data.mask(index, k)
        mask[y1:y2, x1:x2] = crop
    return masks


def touching(masks: Masks) -> bool:
    """Whether fewer pieces are seen than there are objects."""
    return int(label_parts(masks.any(0)).max(initial=0)) < len(masks)


def crowded(masks: Masks) -> tuple[slice, slice]:
    """Return the crop with the most objects whose middles lie inside, on a grid of quarters."""
    middles = np.array([np.argwhere(mask).mean(0) for mask in masks if mask.any()])
    best, place = -1, (0, 0)
    limits = [max(side - SIDE, 0) for side in masks.shape[1:]]
    for top in range(0, limits[0] + 1, SIDE // 4):
        for left in range(0, limits[1] + 1, SIDE // 4):
            low = np.array([top, left])
            inside = int(((middles >= low) & (middles < low + SIDE)).all(1).sum())
            if inside > best:
                best, place = inside, (top, left)
    return slice(place[0], place[0] + SIDE), slice(place[1], place[1] + SIDE)


def found_masks(model: Any, photo: np.ndarray) -> Masks:
    """Return the objects of a prediction; of a semantic one the pieces of what is a nucleus."""
    if model.task.name != "semantic":
        return np.asarray(model(photo, conf=0.5, max_det=500).masks)
    result = model(photo)
    parts = label_parts(result.labels != result.names.index("background"))
    return parts[None] == np.arange(1, parts.max(initial=0) + 1)[:, None, None]


def panel(photo: np.ndarray, masks: Masks | None, *, same: bool) -> Image.Image:
    """Return a crop, enlarged without smoothing and brightened, with objects in colour."""
    pixels = photo.astype(float)
    pixels = (pixels * BRIGHT / max(float(np.percentile(pixels, 99)), 1)).clip(0, 255)
    if masks is not None:
        colors = instance_colors(np.zeros(len(masks), np.int64), 1)
        for mask, color in zip(masks, colors, strict=True):
            tint = np.array((255, 80, 40) if same else color)
            inside = np.pad(mask, 1)
            core = inside[2:, 1:-1] & inside[:-2, 1:-1] & inside[1:-1, 2:] & inside[1:-1, :-2]
            pixels[mask] = 0.6 * pixels[mask] + 0.4 * tint
            pixels[mask & ~core] = tint
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    return image.resize((CELL, CELL), Image.Resampling.NEAREST)


def arrange(data: Dataset, chosen: Sequence[int], by_title: dict[str, Any]) -> Image.Image:
    """Return the sheet: a column for each image, a row for photo, truth and each model."""
    titles = ("photo", "ground truth", *by_title)
    font, step = ImageFont.load_default(17), CELL + MARGIN
    high = CELL + LINE + MARGIN
    sheet = Image.new(
        "RGB", (HEAD + len(chosen) * step - MARGIN, len(titles) * high - MARGIN), "white"
    )
    draw = ImageDraw.Draw(sheet)
    for row, title in enumerate(titles):
        draw.text((4, row * high + 4), title, fill="black", font=font)
    for column, index in enumerate(chosen):
        photo, truth = data.image(index), true_masks(data, index)
        place = crowded(truth)
        goal = truth[:, *place]
        for row, title in enumerate(titles):
            masks = None
            if row == 1:
                masks = goal
            elif row > 1:
                masks = found_masks(by_title[title], photo)[:, *place]
            spot = (HEAD + column * step, row * high)
            sheet.paste(panel(photo[place], masks, same=title == SEMANTIC), spot)
            if masks is None:
                continue
            count = int(masks.any((1, 2)).sum())
            text = f"{count} {plural(count, 'object')}"
            if row > 1:
                said, true = masks.any(0), goal.any(0)
                text = f"IoU {(said & true).sum() / max((said | true).sum(), 1):.2f}, {text}"
            print(f"{data[index].path.name} {title}: {text}")
            draw.text((spot[0] + 2, spot[1] + CELL + 1), text, fill="black", font=font)
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/semantic_picture"))
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--count", type=int, default=6)
    args = parser.parse_args()
    by_title = models(args.data, args.runs, args.steps)
    data = open_dataset(args.data, "val")
    close = [index for index in range(len(data)) if touching(true_masks(data, index))]
    places = np.linspace(0, len(close) - 1, args.count).round().astype(int)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    arrange(data, [close[place] for place in places.tolist()], by_title).save(OUT, optimize=True)
    print(OUT)


if __name__ == "__main__":
    main()
