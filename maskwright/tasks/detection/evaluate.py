"""What detectors are scored by: COCO and VOC average precision of what they found in a data set.

Masks go from the network's small squares straight to run-length codes at the original resolution,
one image at a time, so that memory does not grow with the size of the images.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...data.loader import Batch
from ...data.records import Dataset
from ...errors import require_known
from ...metrics.detection.coco_map import coco_eval
from ...metrics.detection.diagnostics import explain_zero
from ...metrics.detection.entries import looked_for
from ...metrics.detection.voc_map import voc_eval
from ...models.detection.base import Detector
from ...models.meta import Meta
from ...nn.ragged import PER_OBJECT
from ...structures import Detections, Skeleton
from ..evaluation import Evaluation, Evaluator
from .crf import mask_codes, refined
from .settings import DetectionSettings
from .views import detect_views, to_detections

CAP_SCORE = 0.05  # a full image whose weakest detection scores less has lost nothing of worth
CAP_SHARE = 0.75  # nor has one with fewer objects than this share of its detections
VOC_TITLES = {"VOC_AP50": False, "VOC07_AP50": True}  # whether by eleven points

# What models are compared by, see `Task.compared`.
_KEYS = ("AP", "AP50", "AP_small", "AP_medium", "AP_large")
COMPARED = {
    **{f"mask/{key}": f"mask {key.replace('_', ' ')}" for key in _KEYS},
    "boundary/AP": "boundary AP",
    "keypoints/AP": "keypoint AP",
    "keypoints/AP50": "keypoint AP50",
    **{f"box/{key}": f"box {key.replace('_', ' ')}" for key in _KEYS},
}


@dataclass(frozen=True)
class DetectionEvaluation(Evaluation):
    """What an evaluation found.

    Attributes:
        metrics: keys "box/AP", "mask/AP50", "keypoints/AP", "mask/AP/<class name>", ...; in
            [0, 1] or nan.
        gt: the ground truth in COCO's form, category ids being label + 1.
        detections: the detections as COCO results with the same ids.
        max_det: most detections of an image.
        capped: ids of the images where `max_det` may have cut off real objects: full of good
            detections, and with about as many objects as detections, or more.
        sigmas: those of the keypoint AP, None for the default.
        short: ids of those where the model's proposals may have been too few for all objects.
        advice: what helps there.
        left_out: what was found and not scored.
    """

    gt: dict[str, Any]
    detections: list[dict[str, Any]]
    max_det: int
    capped: Sequence[int] = ()
    sigmas: Sequence[float] | None = None
    short: Sequence[int] = ()
    advice: str = ""
    left_out: Sequence[str] = ()

    @property
    def fitness(self) -> float:
        """See `fitness`."""
        return fitness(self.metrics)

    def warnings(self, *, by: str = "model") -> list[str]:
        """Return which limits may have cut off objects, and why an AP is 0 or undefined."""
        reasons = []
        if by == "model" or not self.fitness:
            reasons = list(explain_zero(self.gt, self.detections, self.metrics, by=by))
        return [*capped_notes(self), *reasons]

    def remarks(self) -> list[str]:
        """Return what was found and not scored."""
        return list(self.left_out)


def fitness(metrics: Mapping[str, float]) -> float:
    """Return the mean of mask AP and keypoint AP, as far as they are defined; else box AP.

    An AP is nan where the images hold no object to find, so it is undefined in all epochs or in
    none.
    """
    finer = [metrics.get(key, math.nan) for key in ("mask/AP", "keypoints/AP")]
    values = [value for value in finer if math.isfinite(value)]
    values = values or [metrics.get("box/AP", math.nan)]
    mean = sum(values) / len(values)
    return mean if math.isfinite(mean) else math.nan


class DetectionEvaluator(Evaluator):
    """Collects the detections of a data set as COCO results.

    Args:
        detector: the model.
        dataset: the images and their objects.
        meta: what the model says of itself: class names, and keypoints.
        settings: thresholds and views.
        sigmas: see `val`.
        boundary: see `val`.
        voc: see `val`.

    Raises:
        ValueError: if the data set has a class or a keypoint that the model does not know.
    """

    def __init__(
        self,
        detector: Detector,
        dataset: Dataset,
        meta: Meta,
        settings: DetectionSettings,
        *,
        sigmas: Sequence[float] | None = None,
        boundary: bool = False,
        voc: bool | None = None,
    ) -> None:
        self.detector, self.dataset, self.settings = detector, dataset, settings
        self.labels = match_classes(meta.names, dataset.names)
        self.joints = match_keypoints(meta.keypoints, dataset)
        self.skeleton = meta.keypoints
        self.sigmas, self.boundary = sigmas, boundary
        self.voc = dataset.format == "voc" if voc is None else voc
        self._found: list[tuple[int, bool, bool, list[dict[str, Any]]]] = []
        self._full_tiles = 0  # images with a tile that has as many objects as it may

    def add(self, network: Any, batches: Sequence[Batch]) -> None:
        """Keep what a detector finds in a batch; see `Evaluator`."""
        images = [batch.images for batch in batches]
        post, views = self.settings.post, self.settings.views
        if views is None:
            found = network(images[0], post)
            detections = to_detections(found, images[0], self.detector.mask_reach)
        else:
            mirrored = None if self.skeleton is None else self.skeleton.mirrored
            detections = detect_views(network, images, post, views.flip, mirrored)
        for index, one in zip(batches[0].indices, detections, strict=True):
            self.take(index, one)

    def take(self, index: int, found: Detections) -> None:
        """Keep the detections of an image; see `Evaluator`."""
        image_id, most = self.dataset[index].image_id, self.settings.post.max_det
        parts = self.settings.tiling is not None and not self.settings.tiling.fits(found.size)
        full = len(found) >= most and float(found.scores[-1]) >= CAP_SCORE
        if parts:
            self._full_tiles += found.full
            full = False
        mode = self.detector.paste_mode
        if self.settings.crf is not None and found.codes is None:
            found = refined(found, self.dataset.photo(index), self.settings.crf, mode=mode)
        rows = to_coco_rows(found, image_id, self.labels, mode, self.joints)
        short = found.short and (parts or len(found) < most)
        self._found.append((image_id, full, short, rows))

    def share(self) -> Any:
        """Return the detections of this process by image, and how many have a full tile."""
        return self._found, self._full_tiles

    def finish(self, shares: Sequence[Any], ms: float) -> DetectionEvaluation:
        """Score the detections of all processes; see `Evaluator`."""
        detector, dataset, most = self.detector, self.dataset, self.settings.post.max_det
        by_image = {image_id: rest for share, _ in shares for image_id, *rest in share}
        gt = dataset.to_coco(by_label=True)
        found = [row for *_, rows in by_image.values() for row in rows]
        rows = list(looked_for(gt, found))
        if self.settings.tiling is not None:  # the limit holds for a tile, not for an image
            most = max([most, *(len(rows) for *_, rows in by_image.values())])
        metrics = score(
            gt,
            rows,
            masks=detector.predicts_masks and dataset.has_masks,
            keypoints=bool(self.joints) and dataset.has_keypoints,
            max_det=most,
            sigmas=self.sigmas,
            boundary=self.boundary,
            voc=self.voc,
        )
        objects = count_objects(gt)
        near = CAP_SHARE * most
        capped = [key for key, (full, *_) in by_image.items() if full and objects[key] >= near]
        enough = (detector.num_proposals(most) or 0) / PER_OBJECT  # proposals, for so many
        few = [key for key, (_, short, _) in by_image.items() if short and objects[key] > enough]
        advice = detector.short_advice(most) if few else ""
        left_out = []
        if full_tiles := sum(count for _, count in shares):
            left_out.append(
                f"{full_tiles} of {len(by_image)} images have a tile with max_det="
                f"{self.settings.post.max_det} objects: there may be more; raise it"
            )
        if len(rows) < len(found):
            left_out.append(
                f"{len(found) - len(rows)} of {len(found)} detections are of classes that nobody "
                f"looked for in their image ({dataset.source}): they were not scored"
            )
        if detector.predicts_masks and not dataset.has_masks:
            left_out.append(f"{dataset.source} has boxes only: the masks were not scored")
        if detector.num_keypoints and not dataset.has_keypoints:
            left_out.append(
                f"{dataset.source} has no labelled keypoints: those found were not scored"
            )
        return DetectionEvaluation(
            metrics, ms, gt, rows, most, capped, self.sigmas, few, advice, left_out
        )


def score(
    gt: dict[str, Any],
    detections: list[dict[str, Any]],
    *,
    masks: bool = False,
    keypoints: bool = False,
    max_det: int,
    sigmas: Sequence[float] | None = None,
    boundary: bool = False,
    voc: bool = False,
) -> dict[str, float]:
    """Return the metrics of COCO results, boxes and if wanted the finer ones, by prefixed key."""
    # Without their box, results are sorted into small, medium and large by the area of the mask
    # or the extent of the keypoints, as torchvision reports it (and detectron2, for masks).
    shapes = {"box": ("bbox", "bbox")}
    if masks:
        shapes["mask"] = ("segm", "segmentation")
    if masks and boundary:
        shapes["boundary"] = ("boundary", "segmentation")
    if keypoints:
        shapes["keypoints"] = ("keypoints", "keypoints")
    metrics = {}
    for prefix, (kind, shape) in shapes.items():
        unused = {"bbox", "segmentation", "keypoints"} - {shape}
        rows = [{k: v for k, v in row.items() if k not in unused} for row in detections]
        spread = sigmas if kind == "keypoints" else None
        for key, value in coco_eval(gt, rows, kind, max_det=max_det, sigmas=spread).items():
            metrics[f"{prefix}/{key}"] = value
    for title, eleven_point in VOC_TITLES.items() if voc else ():
        for key, value in voc_eval(gt, detections, eleven_point=eleven_point).items():
            metrics[f"box/{title}{key.removeprefix('AP')}"] = value
    return metrics


def match_keypoints(model: Skeleton | None, data: Dataset) -> list[int] | None:
    """Return the model's position of each keypoint of the data set, by name.

    None if the model or the data set has none. Keypoints that only the model knows are left out.

    Raises:
        ValueError: naming the keypoints that the model does not know.
    """
    if model is None or data.skeleton is None:
        return None
    require_known(data.skeleton.names, model.names, f"{data.source} has keypoints")
    return [model.names.index(name) for name in data.skeleton.names]


def match_classes(model: Sequence[str | None], data: Sequence[str]) -> dict[int, int]:
    """Return the data set's label for each label of the model, by class name.

    Classes that only the model knows are left out of the result, and so of the evaluation.

    Raises:
        ValueError: naming the classes of the data set that the model does not know.
    """
    require_known(data, model, "the data has classes")
    positions = {name: label for label, name in enumerate(data)}
    return {
        label: positions[name]
        for label, name in enumerate(model)
        if name is not None and name in positions
    }


def to_coco_rows(
    found: Detections,
    image_id: int,
    labels: dict[int, int],
    paste_mode: str,
    joints: list[int] | None = None,
) -> list[dict[str, Any]]:
    """Return the detections of one image as COCO results.

    Args:
        found: the detections, in pixels of the original image.
        image_id: id of the image in the ground truth.
        labels: the data set's label of each of the model's; others are left out.
        paste_mode: see `ops.paste_masks`.
        joints: the model's position of each keypoint of the data set; None: without keypoints.
    """
    known = torch.tensor([label in labels for label in found.labels.tolist()], dtype=torch.bool)
    found = found.keep(known)
    boxes = found.boxes.double()
    boxes[:, 2:] -= boxes[:, :2]  # xyxy -> xywh
    rows: list[dict[str, Any]] = [
        {"image_id": image_id, "category_id": labels[label] + 1, "bbox": box, "score": score}
        for label, box, score in zip(
            found.labels.tolist(), boxes.tolist(), found.scores.tolist(), strict=True
        )
    ]
    if (codes := mask_codes(found, paste_mode)) is not None:
        for row, code in zip(rows, codes, strict=True):
            row["segmentation"] = code
    if found.keypoints is not None and joints is not None:
        for row, points in zip(rows, found.keypoints[:, joints].flatten(1).tolist(), strict=True):
            row["keypoints"] = points
    return rows


def count_objects(gt: dict[str, Any]) -> Counter[Any]:
    """Return how many objects each image of a ground truth has, without crowd regions."""
    return Counter(ann["image_id"] for ann in gt["annotations"] if not ann["iscrowd"])


def capped_notes(result: DetectionEvaluation) -> list[str]:
    """Return warnings where limits of the number of objects or proposals may have cut some off."""
    notes, count = [], len(result.gt["images"])
    if result.capped:
        objects = count_objects(result.gt)
        most = max(objects[key] for key in result.capped)
        notes.append(
            f"{len(result.capped)} of {count} images reached max_det={result.max_det}, and "
            f"have about so many objects or more (up to {most}): those beyond it count as missed; "
            "raise max_det"
        )
    if result.short:
        notes.append(
            f"in {len(result.short)} of {count} images there may be more objects than were found: "
            f"{result.advice}"
        )
    return notes
