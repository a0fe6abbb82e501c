"""Large mosaics of known objects: tiles beside the whole image and beside SAHI, on the same model.

    python benchmarks/tiles.py DATA --side 4000 --ways tiles,whole,sahi
    python benchmarks/tiles.py DATA --side 20000 --tile 2048 --overlap 0.1 --objects 10000

DATA is a data set of objects with masks, such as nuclei; its validation images, enlarged by
`--zoom` and turned and mirrored by chance (`--seed`), fill a square of `--side` pixels, in rows, or
lie scattered on black until there are `--objects` of them. With the usual `--imgsz` the network
sees nuclei at the size that it was trained on. The mosaic is a TIFF in tiles, read by window. Each
way is a process of its own, so that its memory is its own: `tiles`, `whole`, `parts` (every tile an
image of its own, nothing united), and SAHI (pip install sahi) with its usual merging (`sahi`) and
with NMS (`sahi-nms`). Objects whose centre lies where two tiles of the first level overlap are
scored apart from the rest, for all ways alike.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from common import machine
from PIL import Image

import maskwright as mw
from maskwright.data.discover import open_dataset
from maskwright.data.pixels.picture import open_picture
from maskwright.metrics.detection.coco_map import coco_eval
from maskwright.ops.rle import decode_rle, encode_crop
from maskwright.structures import Tiling

CONF = 0.1  # below that SAHI leaves its usual way of merging
SURE = 0.5
Rows = list[dict[str, Any]]


def enlarged(pixels: np.ndarray, zoom: float) -> np.ndarray:
    """Return an image (H, W, 3) or mask (H, W) uint8 with longer sides, bilinearly."""
    size = (round(pixels.shape[1] * zoom), round(pixels.shape[0] * zoom))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def draw(args: argparse.Namespace, folder: Path) -> None:
    """Write `mosaic.tif` and `truth.json` into a folder."""
    dataset, side, objects = open_dataset(args.data, "val"), args.side, args.objects
    rng = np.random.default_rng(args.seed)
    canvas = np.lib.format.open_memmap(
        folder / "canvas.npy", mode="w+", dtype=np.uint8, shape=(side, side, 3)
    )
    annotations: Rows = []
    x = y = high = 0
    while objects is None or len(annotations) < objects:
        index = int(rng.integers(len(dataset)))
        small, turns, flip = dataset.image(index), int(rng.integers(4)), bool(rng.integers(2))
        image = enlarged(small, args.zoom)
        h, w = image.shape[:2] if turns % 2 == 0 else image.shape[1::-1]
        if objects is None:
            if x + w > side:
                x, y, high = 0, y + high, 0
            if y + h > side:
                break
            place, x, high = (x, y), x + w, max(high, h)
        else:
            place = (int(rng.integers(side - w)), int(rng.integers(side - h)))
            if canvas[place[1] : place[1] + h, place[0] : place[0] + w].any():
                continue
        left, top = place

        def turned(array: np.ndarray, turns: int = turns, flip: bool = flip) -> np.ndarray:
            return np.rot90(array[:, ::-1] if flip else array, turns)

        canvas[top : top + h, left : left + w] = np.maximum(turned(image), 1)
        for k in range(len(dataset[index].boxes)):
            crop, (x1, y1, x2, y2) = dataset.mask(index, k)
            plane = np.zeros(small.shape[:2], np.uint8)
            plane[y1:y2, x1:x2] = crop * 255
            whole = turned(enlarged(plane, args.zoom) >= 128)
            if not whole.any():
                continue
            rows, columns = np.flatnonzero(whole.any(1)), np.flatnonzero(whole.any(0))
            y1, y2, x1, x2 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
            part = np.ascontiguousarray(whole[y1:y2, x1:x2])
            frame = (int(x1 + left), int(y1 + top), int(x2 + left), int(y2 + top))
            code = encode_crop(part, frame, (side, side))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 1,
                    "category_id": 1,
                    "iscrowd": 0,
                    "bbox": [frame[0], frame[1], frame[2] - frame[0], frame[3] - frame[1]],
                    "area": int(part.sum()),
                    "segmentation": {**code, "counts": code["counts"].decode()},
                }
            )
    tifffile.imwrite(
        folder / "mosaic.tif", canvas, tile=(256, 256), photometric="rgb", compression="zlib"
    )
    (folder / "canvas.npy").unlink()
    truth = {
        "images": [{"id": 1, "height": side, "width": side, "file_name": "mosaic.tif"}],
        "categories": [{"id": 1, "name": "nucleus"}],
        "annotations": annotations,
    }
    (folder / "truth.json").write_text(json.dumps(truth))


def run(way: str, folder: Path, args: argparse.Namespace) -> None:
    """Predict in one way, and write rows, seconds and memory into the folder."""
    predictor = mw.load(args.model)
    path = folder / "mosaic.tif"
    options = {"conf": CONF, "max_det": args.max_det, "imgsz": args.imgsz}
    start, used = time.perf_counter(), time.process_time()
    if way.startswith("sahi"):
        rows = with_sahi(predictor, path, args, nms=way == "sahi-nms")
    elif way == "parts":
        rows = in_parts(predictor, path, args, options)
    else:
        if way == "whole":
            options["max_det"] = 10 * args.max_det
        else:
            options |= {"tile": args.tile, "overlap": args.overlap, "tile_levels": args.levels}
        rows = predictor(path, **options).to_coco(1)
    seconds, used = time.perf_counter() - start, time.process_time() - used
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    (folder / f"{way}.json").write_text(
        json.dumps({"rows": rows, "seconds": seconds, "cpu": used, "GB": round(most, 2)})
    )


def in_parts(
    predictor: mw.Predictor, path: Path, args: argparse.Namespace, options: dict[str, Any]
) -> Rows:
    """Return what is found in the tiles of the first level, as if they were images."""
    rows = []
    with open_picture(path) as picture:
        for tile in Tiling(args.tile, args.overlap).tiles(picture.size)[0]:
            part = picture.read(tile.top, tile.left, tile.bottom, tile.right)
            for row in predictor(part, **options).to_coco(1):
                x, y, w, h = row["bbox"]
                crop, (x1, y1, x2, y2) = decode_rle(row["segmentation"])
                frame = (x1 + tile.left, y1 + tile.top, x2 + tile.left, y2 + tile.top)
                code = encode_crop(crop, frame if crop.size else (0, 0, 0, 0), picture.size)
                row["bbox"] = [x + tile.left, y + tile.top, w, h]
                row["segmentation"] = {**code, "counts": code["counts"].decode()}
                rows.append(row)
    return rows


def with_sahi(predictor: mw.Predictor, path: Path, args: argparse.Namespace, *, nms: bool) -> Rows:
    """Return what SAHI makes of the same model in the same tiles, by its usual settings or NMS."""
    from pycocotools import mask as coco
    from sahi.models.base import DetectionModel
    from sahi.predict import get_sliced_prediction
    from sahi.prediction import ObjectPrediction
    from sahi.utils.cv import get_coco_segmentation_from_bool_mask

    class Ours(DetectionModel):
        """The predictor as a model of SAHI, whose masks are polygons."""

        category_names = ("nucleus",)
        num_categories = 1
        has_mask = True

        def set_model(self, model: Any, **_: Any) -> None:
            self.model = model

        def perform_inference(self, image: np.ndarray) -> None:
            self._original_predictions = self.model(
                image, conf=CONF, max_det=args.max_det, imgsz=args.imgsz
            )

        def _create_object_prediction_list_from_original_predictions(
            self, shift_amount_list: Any = None, full_shape_list: Any = None
        ) -> None:
            result = self._original_predictions
            shift = shift_amount_list[0] if shift_amount_list else [0, 0]
            shift = shift if isinstance(shift, list) else shift_amount_list
            full = full_shape_list[0] if full_shape_list else list(result.size)
            full = full if isinstance(full, list) else full_shape_list
            found = []
            for box, score, mask in zip(result.boxes, result.scores, result.masks, strict=True):
                polygons = get_coco_segmentation_from_bool_mask(mask.numpy())
                if not polygons:
                    continue
                found.append(
                    ObjectPrediction(
                        bbox=box.tolist(),
                        segmentation=polygons,
                        category_id=0,
                        category_name="nucleus",
                        shift_amount=shift,
                        score=float(score),
                        full_shape=full,
                    )
                )
            self._object_prediction_list_per_image = [found]

    model = Ours(model=predictor, confidence_threshold=CONF, category_mapping={"0": "nucleus"})
    merging = {"postprocess_type": "NMS", "postprocess_match_metric": "IOU"} if nms else {}
    found = get_sliced_prediction(
        tifffile.imread(path),
        model,
        slice_height=args.tile,
        slice_width=args.tile,
        overlap_height_ratio=args.overlap,
        overlap_width_ratio=args.overlap,
        perform_standard_pred=args.levels > 1,
        verbose=0,
        **merging,
    ).object_prediction_list
    rows = []
    for one in found:
        x1, y1, x2, y2 = one.bbox.to_xyxy()
        polygons = one.mask.segmentation
        codes = coco.frPyObjects(polygons, args.side, args.side)
        code = coco.merge(codes)
        rows.append(
            {
                "image_id": 1,
                "category_id": 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": float(one.score.value),
                "segmentation": {**code, "counts": code["counts"].decode()},
            }
        )
    return rows


def in_strips(rows: Rows, tiling: Tiling, side: int) -> np.ndarray:
    """Return which rows have their centre where two tiles of the first level overlap."""
    tiles = tiling.tiles((side, side))[0]
    shown = np.zeros(side, int)
    for first, last in {(tile.left, tile.right) for tile in tiles}:
        shown[first:last] += 1
    boxes = np.array([row["bbox"] for row in rows]).reshape(-1, 4)
    centres = (boxes[:, :2] + boxes[:, 2:] / 2).astype(int).clip(0, side - 1)
    strips: np.ndarray = (shown[centres] > 1).any(1)
    return strips


def scored(truth: dict[str, Any], rows: Rows) -> dict[str, float]:
    """Return AP of masks and boxes, objects and finds."""
    figures: dict[str, float] = {"objects": len(truth["annotations"]), "finds": len(rows)}
    for name, kind, other in (("mask", "segm", "bbox"), ("box", "bbox", "segmentation")):
        plain = [{k: v for k, v in row.items() if k != other} for row in rows]
        metrics = coco_eval(truth, plain, kind, max_det=max(len(rows), 1))
        for key in ("AP", "AP50", "AR"):
            figures[f"{name} {key}"] = round(metrics[key], 4)
    return figures


def alike(rows: Rows, others: Rows) -> float:
    """Return the share of sure finds that others have too, at a mask IoU of 0.75 or more."""
    from pycocotools import mask as coco

    sure = [row for row in rows if row["score"] >= SURE]
    if not sure or not others:
        return float("nan")
    codes = [[row["segmentation"] for row in part] for part in (sure, others)]
    overlaps = coco.iou(*codes, [0] * len(others))
    return round(float((overlaps.max(1) >= 0.75).mean()), 4)


def score(way: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of a way."""
    truth = json.loads((folder / "truth.json").read_text())
    made = json.loads((folder / f"{way}.json").read_text())
    tiling = Tiling(args.tile, args.overlap, args.levels)
    figures: dict[str, Any] = {"way": way, "GB": made["GB"]}
    figures |= {"seconds": round(made["seconds"], 1), "of the CPU": round(made["cpu"], 1)}
    mine, theirs = (in_strips(r, tiling, args.side) for r in (made["rows"], truth["annotations"]))
    start = time.perf_counter()
    for name, found, objects in (
        ("all", np.ones_like(mine), np.ones_like(theirs)),
        ("strips", mine, theirs),
        ("rest", ~mine, ~theirs),
    ):
        part = {**truth, "annotations": [truth["annotations"][k] for k in np.flatnonzero(objects)]}
        figures[name] = scored(part, [made["rows"][k] for k in np.flatnonzero(found)])
    if way == "tiles" and (folder / "whole.json").is_file():
        whole = json.loads((folder / "whole.json").read_text())["rows"]
        cut = in_strips(whole, tiling, args.side)
        for name, found, there in (("strips", mine, cut), ("rest", ~mine, ~cut)):
            one = [made["rows"][k] for k in np.flatnonzero(found)]
            other = [whole[k] for k in np.flatnonzero(there)]
            figures[name] |= {"of whole": alike(other, made["rows"]), "in whole": alike(one, whole)}
    figures["scoring, s"] = round(time.perf_counter() - start, 1)
    figures["scoring, GB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--side", type=int, default=4000)
    parser.add_argument("--zoom", type=float, default=2.5)
    parser.add_argument("--objects", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--overlap", type=float, default=0.2)
    parser.add_argument("--levels", type=int, default=1)
    parser.add_argument("--max-det", type=int, default=300, help="for each tile; whole: ten times")
    parser.add_argument("--imgsz", default="0.5x")
    parser.add_argument("--ways", default="tiles")
    parser.add_argument("--folder", type=Path, help="where the mosaic is kept")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.one:
        run(args.one, args.folder, args)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "truth.json").is_file():
            draw(args, folder)
        rows = []
        for way in args.ways.split(","):
            if not (folder / f"{way}.json").is_file():
                words = [*sys.argv[1:], "--one", way, "--folder", str(folder)]
                subprocess.run([sys.executable, __file__, *words], check=True)
            rows.append(score(way, folder, args))
            print(json.dumps(rows[-1]), flush=True)
    if args.out:
        made = {"machine": machine(), "rows": rows}
        args.out.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
