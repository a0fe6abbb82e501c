"""The one object of an image beside what a localizer finds: its class and box, or its keypoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...data.records import Dataset
from ...drawing.draw import draw_instances
from ...drawing.labels import Color
from ...metrics.localization import RIGHT
from ...models.meta import Meta
from ..label_check import SIDE, LabelCheck, Place, Suspect
from .evaluate import LocationEvaluation
from .objects import choose

if TYPE_CHECKING:
    from PIL.Image import Image

LABEL: Color = (86, 180, 233)
MODEL: Color = (230, 159, 0)
FAR = 2.0  # times the usual error, from which on keypoints are doubted


class LocationCheck(LabelCheck):
    """Compares the object of each image."""

    kinds: ClassVar[Mapping[str, str]] = {
        "missing": "the model is sure of an object where the label has none",
        "class": "the model is sure of another class",
        "place": "the model is sure of the class, and places the object elsewhere",
        "false": "the model is sure that there is no object",
        "keypoints": "the keypoints lie farther from those of the model than usual",
    }

    def suspects(self, result: LocationEvaluation, data: Dataset, meta: Meta) -> list[Suspect]:
        """Return all doubts; see `LabelCheck`."""
        rows = [row for row in result.rows if not row["unknown"]]
        if "keypoints/NME" in result.metrics:
            return _keypoints(rows)
        names = [*data.names, ""]
        background = len(data.names)
        placed = [
            row["known"]
            for row in rows
            if row["named"][0] == row["label"] != background and row["known"] >= RIGHT
        ]
        usual = float(np.median(placed)) if placed else 0.0
        found = (_suspect(row, data, names, usual) for row in rows)
        return [one for one in found if one is not None]


def _suspect(
    row: Mapping[str, Any], data: Dataset, names: list[str], usual: float
) -> Suspect | None:
    """Return the doubt about an image, if there is one.

    It is the score of the model's class less that of the label; where they agree, s (u - v) / u.

    Args:
        row: of `LocationEvaluation`, with the IoU v of the box of the label's class and a score s.
        data: the images.
        names: of the classes, and of the background.
        usual: the median u of the IoU of boxes that are right.
    """
    background = len(names) - 1
    label, first, sure = row["label"], row["named"][0], float(row["scores"][0])
    kind = "place"
    if label == background != first:
        kind = "missing"
    elif first == background != label:
        kind = "false"
    elif first != label:
        kind = "class"
    if kind == "place":
        if label == background or not usual:
            return None
        score, overlap = sure * (usual - row["known"]) / usual, float(row["known"])
    else:
        own = dict(zip(row["named"], row["scores"], strict=True)).get(label, 0.0)
        score, overlap = sure - float(own), None
    if score <= 0:
        return None
    record = choose(data[row["index"]]).record
    ours: Place | None = tuple(record.boxes[0].tolist()) if len(record.boxes) else None
    theirs: Place | None = tuple(row["box"]) if first != background else None

    def draw(pixels: np.ndarray) -> Image:
        shown = [
            (box, f"{who}: {names[k]}", color)
            for box, who, k, color in (
                (ours, "label", label, LABEL),
                (theirs, "model", first, MODEL),
            )
            if box is not None
        ]
        boxes, texts, colors = zip(*shown, strict=True) if shown else ((), (), ())
        return draw_instances(
            pixels, np.array(boxes).reshape(-1, 4), np.zeros(len(boxes), np.int64), [""],
            colors=colors, texts=texts, min_side=SIDE, max_side=SIDE,
        )  # fmt: skip

    return Suspect(
        kind,
        score,
        row["index"],
        label=names[label],
        found=names[first],
        confidence=sure,
        overlap=overlap,
        annotation=int(record.ann_ids[0]) if len(record.ann_ids) else None,
        label_box=ours,
        found_box=theirs,
        draw=draw,
    )


def _keypoints(rows: Sequence[Mapping[str, Any]]) -> list[Suspect]:
    """Return the images whose error e is above the usual one u by `FAR`: 1 - FAR u / e."""
    errors = np.array([row["error"] for row in rows], np.float64)
    usual = float(np.nanmedian(errors)) if np.isfinite(errors).any() else 0.0
    return [
        Suspect("keypoints", 1 - FAR * usual / error, row["index"])
        for row, error in zip(rows, errors.tolist(), strict=True)
        if error > FAR * usual
    ]
