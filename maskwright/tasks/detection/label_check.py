"""Labels of objects beside what a detector finds: missing, wrong, loose and false ones."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...data.records import Dataset
from ...drawing.draw import draw_instances
from ...drawing.labels import Color
from ...metrics.detection.boundary import boundary_iou
from ...metrics.detection.doubts import Doubt, label_doubts
from ...metrics.detection.entries import compressed_rle
from ...metrics.detection.matching import Matches, match
from ...models.meta import Meta
from ...ops.rle import decode_rle
from ...text import one_line
from ..label_check import SIDE, LabelCheck, Place, Suspect, cropped
from .evaluate import DetectionEvaluation

if TYPE_CHECKING:
    from PIL.Image import Image

# Of Okabe and Ito (2008); what is what is written beside, too.
LABEL: Color = (86, 180, 233)
MODEL: Color = (230, 159, 0)


class DetectionCheck(LabelCheck):
    """Compares objects; see `metrics.detection.doubts` for what makes one suspicious."""

    kinds: ClassVar[Mapping[str, str]] = {
        "missing": "the model is sure of an object that has no label",
        "class": "the model is sure of another class",
        "place": "the model places the object elsewhere, or outlines it otherwise",
        "false": "the model finds nothing where the label is",
    }
    # Low scores too: what is found but faintly is no false label.
    options: ClassVar[Mapping[str, Any]] = {"conf": 0.05, "iou": None, "max_det": 100}

    def suspects(self, result: DetectionEvaluation, data: Dataset, meta: Meta) -> list[Suspect]:
        """Return all doubts; see `LabelCheck`."""
        masks = "mask/AP" in result.metrics
        kind = "segm" if masks else "bbox"
        matches = match(result.gt, result.detections, kind, max_det=result.max_det)
        shapes = _Shapes(result, matches) if masks else None
        first = np.searchsorted(matches.objects.image, np.arange(len(data)))
        return [
            _suspect(one, matches, data, first, shapes)
            for one in label_doubts(matches, None if shapes is None else shapes.overlap)
        ]


class _Shapes:
    """Masks of labels and detections, decoded when they are asked for."""

    def __init__(self, result: DetectionEvaluation, matches: Matches) -> None:
        self._result, self._matches = result, matches
        self._images = {image["id"]: image for image in result.gt["images"]}

    def label(self, o: int) -> dict[str, Any]:
        """Return the run-length code of a label."""
        return self._code(self._result.gt["annotations"][int(self._matches.object_rows[o])])

    def found(self, d: int) -> dict[str, Any]:
        """Return the run-length code of a detection."""
        return self._code(self._result.detections[int(self._matches.found_rows[d])])

    def overlap(self, o: int, d: int) -> float:
        """Return the lesser of mask IoU and boundary IoU, as boundary AP has it."""
        from pycocotools import mask as rle

        codes = [self.label(o), self.found(d)]
        edges = boundary_iou(*(rle.decode(code).astype(bool) for code in codes))
        return min(float(rle.iou(codes[:1], codes[1:], [0])[0, 0]), edges)

    def _code(self, entry: dict[str, Any]) -> dict[str, Any]:
        return compressed_rle(entry["segmentation"], self._images[entry["image_id"]])


def _suspect(
    doubt: Doubt, matches: Matches, data: Dataset, first: np.ndarray, shapes: _Shapes | None
) -> Suspect:
    o, d, names = doubt.object, doubt.found, [one_line(name) for name in matches.names]
    index = int(matches.objects.image[o] if o >= 0 else matches.found.image[d])
    annotation, boxes, texts, codes = None, [], [], []
    if o >= 0:
        record = data[index]
        k = int(np.flatnonzero(~record.crowd)[o - int(first[index])])
        annotation = int(record.ann_ids[k])
        boxes.append(matches.objects.boxes[o])
        texts.append(f"label: {names[int(matches.objects.label[o])]}")
    if d >= 0:
        boxes.append(matches.found.boxes[d])
        name = names[int(matches.found.label[d])]
        texts.append(f"model: {name} {matches.found.scores[d]:.2f}")
    if shapes is not None:
        codes = [shapes.label(o)] * (o >= 0) + [shapes.found(d)] * (d >= 0)
    colors = [LABEL] * (o >= 0) + [MODEL] * (d >= 0)
    places = [(float(a), float(b), float(c), float(e)) for a, b, c, e in boxes]
    return Suspect(
        doubt.kind,
        doubt.score,
        index,
        label=names[int(matches.objects.label[o])] if o >= 0 else "",
        found=names[int(matches.found.label[d])] if d >= 0 else "",
        confidence=float(matches.found.scores[d]) if d >= 0 else None,
        overlap=doubt.overlap if o >= 0 and d >= 0 else None,
        annotation=annotation,
        label_box=places[0] if o >= 0 else None,
        found_box=places[-1] if d >= 0 else None,
        draw=partial(_draw, places, texts, colors, codes),
    )


def _draw(
    places: list[Place],
    texts: list[str],
    colors: list[Color],
    codes: list[dict[str, Any]],
    pixels: np.ndarray,
) -> Image:
    """Return the part of an image around label and detection, with both."""
    part, (x, y) = cropped(pixels, *places)
    masks = None
    if codes:
        masks = [
            (crop, (x1 - x, y1 - y, x2 - x, y2 - y))
            for crop, (x1, y1, x2, y2) in map(decode_rle, codes)
        ]
    return draw_instances(
        part,
        np.array(places) - [x, y, x, y],
        np.zeros(len(places), np.int64),
        [""],
        masks=masks,
        colors=colors,
        texts=texts,
        min_side=SIDE,
        max_side=SIDE,
    )
