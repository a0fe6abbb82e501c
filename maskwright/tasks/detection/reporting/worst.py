"""Pictures of the images that came out worst: ground truth beside what was found, errors marked.

How well an image came out is its F1 at the score threshold that is best for the whole data set.
Colours are those of Okabe and Ito (2008), and errors carry their name, so that nothing hangs on
telling colours apart.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ....data.records import Dataset
from ....drawing.draw import CROWD, draw_instances, save_mosaic
from ....drawing.figures import plural
from ....drawing.labels import Color
from ....metrics.detection.entries import compressed_rle
from ....metrics.detection.error_split import KINDS, error_kinds
from ....metrics.detection.scores import ImageScore, above
from ....metrics.detection.table import IntArray
from ....reports.zoom import LARGE
from .diagnosis import Diagnosis, KindDiagnosis

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..evaluate import DetectionEvaluation

SHOWN = 8  # images
CELL = 640  # pixels of the long side of a picture
QUALITY = 87  # of the JPEG files
FOUND: Color = (86, 180, 233)
MISSED: Color = (213, 94, 0)
WRONG: dict[str, Color] = {
    "classification": (204, 121, 167),
    "localisation": (230, 159, 0),
    "both": (245, 245, 245),
    "duplicate": (0, 158, 115),
    "background": (240, 228, 66),
}
LEGEND: dict[str, tuple[Color, str]] = {
    "found": (FOUND, "right class and place"),
    "missed": (MISSED, "object that nothing found"),
    "false": (WRONG["background"], "nothing is there"),
    "other class": (WRONG["classification"], "right place, wrong class"),
    "badly placed": (WRONG["localisation"], "right class, overlap below 0.5"),
    "both": (WRONG["both"], "wrong class and overlap below 0.5"),
    "twice": (WRONG["duplicate"], "another detection of a found object"),
    "on crowd": (CROWD, "in a region of many, does not count"),
}


def draw_worst(
    folder: Path,
    found: Diagnosis,
    result: DetectionEvaluation,
    dataset: Dataset,
    count: int = SHOWN,
) -> list[tuple[Path, ImageScore]]:
    """Draw the worst images into `worst/` and all of them into `worst.jpg`.

    Args:
        folder: the run folder.
        found: diagnosis of the evaluation.
        result: the evaluation.
        dataset: its images.
        count: most images to draw; those without any error are left out, and those that are too
            large to be seen in such a picture.

    Returns:
        (file, numbers of the image), worst first; empty where no image has an error.
    """
    place = folder / "worst"
    for old in (*place.glob("*.jpg"), folder / "worst.jpg"):
        old.unlink(missing_ok=True)
    drawn = (dataset.sizes.amax(1) <= LARGE).tolist()
    chosen = [one for one in found.images if (one.missed or one.wrong) and drawn[one.image]][:count]
    if not chosen:
        return []
    kinds = error_kinds(found.lead.matches)
    files, pictures, titles = [], [], []
    for i, one in enumerate(chosen, start=1):
        name, objects = dataset[one.image].path.name, one.right + one.missed
        pair = _draw_pair(found, result, dataset, one.image, kinds)
        heads = [
            f"{name}: {objects} {plural(objects, 'object')}",
            f"F1 {one.f1:.2f}: {one.right} found, {one.missed} missed, {one.wrong} false",
        ]
        stem = re.sub(r"[^\w\-. ()+]", "_", Path(name).stem)[:80]
        file = place / f"{i:02d}_{stem}.jpg"
        save_mosaic(file, pair, heads, CELL, columns=2, quality=QUALITY)
        files.append((file, one))
        pictures += pair
        titles += heads
    heading = f"The worst images at {found.conf_text}"
    file = folder / "worst.jpg"
    save_mosaic(file, pictures, titles, CELL * 2 // 3, columns=4, heading=heading, quality=QUALITY)
    return files


def _draw_pair(
    found: Diagnosis, result: DetectionEvaluation, dataset: Dataset, image: int, kinds: IntArray
) -> list[Image]:
    """Return the ground truth and the marked detections of one image."""
    lead = found.lead
    matches, masks = lead.matches, "mask" in found.kinds
    pixels, names = dataset.photo(image), found.names
    objects = np.nonzero(matches.objects.image == image)[0]
    dets = np.nonzero((matches.found.image == image) & above(matches.found.scores, found.conf))[0]
    lost = np.array([o for o in objects.tolist() if not _is_found(lead, o, found.conf)], np.int64)
    truth = [result.gt["annotations"][row] for row in matches.object_rows[objects].tolist()]
    rows = [result.detections[row] for row in matches.found_rows[dets].tolist()]
    rows += [result.gt["annotations"][row] for row in matches.object_rows[lost].tolist()]
    size = {"height": pixels.shape[0], "width": pixels.shape[1]}

    def draw(entries: Sequence[dict[str, Any]], boxes: Any, labels: Any, **look: Any) -> Image:
        shapes = [compressed_rle(row["segmentation"], size) for row in entries] if masks else None
        return draw_instances(
            pixels, boxes, labels, names, masks=shapes, min_side=CELL, max_side=CELL, **look
        )

    marks = [_mark(lead, d, int(kinds[d]), names) for d in dets.tolist()]
    marks += [(MISSED, "missed")] * len(lost)
    return [
        draw(truth, matches.objects.boxes[objects], matches.objects.label[objects]),
        draw(
            rows,
            np.concatenate([matches.found.boxes[dets], matches.objects.boxes[lost]]),
            np.concatenate([matches.found.label[dets], matches.objects.label[lost]]),
            colors=[color for color, _ in marks],
            texts=[text for _, text in marks],
        ),
    ]


def _is_found(lead: KindDiagnosis, o: int, conf: float) -> bool:
    d = int(lead.matches.taken[o])
    return d >= 0 and bool(above(lead.matches.found.scores[d : d + 1], conf)[0])


def _mark(lead: KindDiagnosis, d: int, kind: int, names: Sequence[str]) -> tuple[Color, str]:
    """Return the colour of a detection and what is written at it."""
    matches = lead.matches
    if kind < 0:
        return (FOUND, "") if matches.right[d] else (CROWD, "")
    name = KINDS[kind]
    text = names[int(matches.found.label[d])] if len(names) > 1 else ""
    if name == "classification":
        text += f", not {names[int(matches.objects.label[matches.other[d]])]}"
    elif name == "localisation":
        text += f" IoU {matches.near_iou[d]:.2f}"
    elif name == "both":
        text += ", other class near"
    elif name == "duplicate":
        text += " twice"
    else:
        text += " false"
    return WRONG[name], f"{text.strip()} {matches.found.scores[d]:.2f}"
