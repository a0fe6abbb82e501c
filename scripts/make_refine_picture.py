"""Make the picture of sharper masks: the same crops, pixel by pixel, by Mask R-CNN and RefineMask.

    python scripts/make_refine_picture.py DATA MASK_RCNN REFINE_MASK [--count 7] [--least 64]

DATA is the nuclei data set (CC0) with its split val; the models are run folders or checkpoints
trained on its split train. Shown are large objects that both models found, with the boundary IoU of
each mask: evenly spread over all of them by its difference, from where RefineMask loses most to
where it gains most, but for the outermost twentieth on either side. No object is picked by hand.
Small objects do not need finer masks than 28 a side: `--least` leaves them out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import maskwright as mw
from maskwright.data.discover import open_dataset
from maskwright.metrics import boundary_iou
from maskwright.ops.rle import decode_rle

OUT = Path(__file__).resolve().parents[1] / "docs" / "images" / "refine_mask.png"
CELL, MARGIN, HEAD = 224, 6, 136
TITLES = ("photo", "ground truth", "Mask R-CNN", "RefineMask")
COLOUR = np.array([255, 80, 40])
BRIGHT = 200  # of 255: how bright the brightest hundredth of a crop is shown


def full(code: dict, size: tuple[int, int]) -> np.ndarray:
    """Return the mask (H, W) of a run-length code."""
    crop, (x1, y1, x2, y2) = decode_rle(code)
    mask = np.zeros(size, bool)
    mask[y1:y2, x1:x2] = crop
    return mask


def iou(a: np.ndarray, b: np.ndarray) -> float:
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 0.0


def panel(photo: np.ndarray, mask: np.ndarray | None, box: list[int]) -> Image.Image:
    """Return a crop, enlarged without smoothing, brightened, the mask's outline coloured."""
    x1, y1, x2, y2 = box
    pixels = photo[y1:y2, x1:x2].astype(float)
    pixels *= BRIGHT / max(float(np.percentile(pixels, 99)), 1)
    if mask is not None:
        inside = np.pad(mask, 1)
        core = inside[2:, 1:-1] & inside[:-2, 1:-1] & inside[1:-1, 2:] & inside[1:-1, :-2]
        edge = (mask & ~core)[y1:y2, x1:x2]
        pixels[edge] = COLOUR
        pixels[mask[y1:y2, x1:x2] & ~edge] *= 0.6
        pixels[mask[y1:y2, x1:x2] & ~edge] += 0.4 * COLOUR
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    return image.resize((CELL, CELL), Image.Resampling.NEAREST)


def find(args: argparse.Namespace) -> list[tuple]:
    """Return the objects that both models found, with their boundary IoUs, by rising difference."""
    data = open_dataset(args.data, "val")
    by_image: dict[int, list[dict]] = {}
    for row in data.to_coco(by_label=True)["annotations"]:
        by_image.setdefault(row["image_id"], []).append(row["segmentation"])
    models = [mw.load(name, device="cpu") for name in (args.mask_rcnn, args.refine_mask)]
    found = []
    for i in range(len(data)):
        record = data[i]
        results = [model(record.path, conf=0.5, max_det=500) for model in models]
        size = results[0].detections.size
        masks = [[full(code, size) for code in result.rle] for result in results]
        for code in by_image.get(record.image_id, []):
            _, (x1, y1, x2, y2) = decode_rle(code)
            if min(x2 - x1, y2 - y1) < args.least:
                continue
            goal = full(code, size)
            if not all(masks):
                continue
            best = [max(side, key=lambda mask: iou(mask, goal)) for side in masks]
            if any(iou(mask, goal) < 0.5 for mask in best):
                continue
            scores = [boundary_iou(mask, goal) for mask in best]
            side = min(int(1.2 * max(x2 - x1, y2 - y1)), *size)
            left = min(max((x1 + x2 - side) // 2, 0), size[1] - side)
            top = min(max((y1 + y2 - side) // 2, 0), size[0] - side)
            box = [left, top, left + side, top + side]
            shown = [None, goal, *best]
            gain = scores[1] - scores[0]
            found.append((gain, record.path.name, box, results[0].image, shown, scores))
    return sorted(found, key=lambda row: row[0])


def arrange(found: list[tuple], count: int) -> Image.Image:
    """Return the sheet of `count` of the objects, a column for each."""
    font = ImageFont.load_default(20)
    step = CELL + MARGIN
    sheet = Image.new("RGB", (HEAD + count * step - MARGIN, len(TITLES) * step - MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for row, title in enumerate(TITLES):
        draw.text((4, row * step + 4), title, fill="black", font=font)
    places = np.linspace(0.05, 0.95, count) * (len(found) - 1)
    for column, place in enumerate(places.round().astype(int)):
        gain, name, box, photo, masks, scores = found[place]
        print(f"{name} {box} {gain:+.3f}")
        for row, mask in enumerate(masks):
            spot = (HEAD + column * step, row * step)
            sheet.paste(panel(photo, mask, box), spot)
            if row > 1:
                where = (spot[0] + 4, spot[1] + CELL - 28)
                text = f"{scores[row - 2]:.2f}"
                draw.text(where, text, "white", font, stroke_width=2, stroke_fill="black")
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("mask_rcnn")
    parser.add_argument("refine_mask")
    parser.add_argument("--count", type=int, default=7)
    parser.add_argument("--least", type=int, default=64, help="pixels a side of the objects")
    args = parser.parse_args()
    found = find(args)
    if len(found) < args.count:
        raise SystemExit(f"only {len(found)} objects of that size were found by both: see --least")
    gains = np.array([row[0] for row in found])
    print(
        f"{len(found)} objects; boundary IoU {gains.mean():+.3f} on average, "
        f"better in {(gains > 0).mean():.0%}"
    )
    OUT.parent.mkdir(parents=True, exist_ok=True)
    arrange(found, args.count).save(OUT)
    print(OUT)


if __name__ == "__main__":
    main()
