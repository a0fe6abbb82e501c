"""The one place that talks to hotcoco and pycocotools: ground truth and detections in, arrays out.

Both libraries follow the COCO protocol (Lin et al. 2014) and give the same arrays; hotcoco is
compiled and comes first, pycocotools stands in where hotcoco is missing or fails. Differences from
calling them directly: all ids are renumbered before they see them (an annotation with id 0 counts
as unmatched in pycocotools, a text as image id is refused by hotcoco), nothing is printed, and the
input is left as it was.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...ops.rle import decode_rle
from ..landmarks import default_sigmas
from .boundary import DILATION, edge, edge_width
from .entries import class_names, frequencies, read_ground_truth, renumber, sorted_categories

IOU_TYPES = ("bbox", "segm", "keypoints", "boundary")
# The ten thresholds of COCO, with the rounding of pycocotools (0.9 is 0.8999999999999999).
COCO_IOUS: tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).tolist())
AREAS = ("all", "small", "medium", "large")
KEYPOINT_AREAS = ("all", "medium", "large")  # COCO labels no keypoints of small objects

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Accumulated:
    """Precision and recall of an evaluation, at every setting of it.

    Letters: T IoU thresholds, R = 101 recall levels (0, 0.01, ..., 1), C classes, A areas
    (`AREAS`, or `KEYPOINT_AREAS`), D limits on the number of detections per image and class.
    Undefined entries (no object to find) are -1.

    Attributes:
        precision: (T, R, C, A, D), made monotone as COCO does.
        recall: (T, C, A, D), the highest reached.
        names: name of each of the C classes, in the order of the category ids.
        iou_thrs: the T thresholds.
        max_dets: the D limits, rising.
        areas: the A areas.
        frequencies: "r", "c" or "f" of each class, as LVIS has them; "" for none.
    """

    precision: FloatArray
    recall: FloatArray
    names: tuple[str, ...]
    iou_thrs: tuple[float, ...]
    max_dets: tuple[int, ...]
    areas: tuple[str, ...] = AREAS
    frequencies: tuple[str, ...] = ()


def accumulate(
    gt: Path | str | dict[str, Any],
    detections: Sequence[dict[str, Any]],
    iou_type: str,
    *,
    max_dets: Sequence[int],
    iou_thrs: Sequence[float] = COCO_IOUS,
    sigmas: Sequence[float] | None = None,
    dilation: float = DILATION,
) -> Accumulated:
    """Match detections with ground truth and return precision and recall arrays.

    Args:
        gt: COCO ground truth, or the path of its JSON file.
        detections: COCO results: `image_id`, `category_id`, `score`, `bbox` (xywh, pixels of the
            image), for "segm" `segmentation` (RLE) and for "keypoints" `keypoints`. Those on
            unknown images are left out with a warning, those of unknown categories silently, as
            in pycocotools.
        iou_type: "bbox", "segm", "keypoints" or "boundary".
        max_dets: limits on the number of detections per image and class.
        iou_thrs: IoU thresholds of a match; of the object keypoint similarity for "keypoints".
        sigmas: for "keypoints", see `coco_eval`.
        dilation: for "boundary", see `coco_eval`.

    Raises:
        ValueError: on an unknown `iou_type`, or where a field that it needs is missing.
    """
    if iou_type not in IOU_TYPES:
        raise ValueError(f"iou_type is one of {', '.join(map(repr, IOU_TYPES))}; got {iou_type!r}")
    if not max_dets or min(max_dets) < 1:
        raise ValueError(f"max_det must be 1 or more, got {list(max_dets)}")
    gt = read_ground_truth(gt)
    limits = sorted(set(max_dets))
    spread = None
    if iou_type == "keypoints":
        spread = keypoint_sigmas(gt, sigmas)
        if not spread:  # no annotation and no category tells of a keypoint: nothing to find
            detections = []
    elif sigmas is not None:
        raise ValueError(f"sigmas belong to iou_type='keypoints', not to {iou_type!r}")
    truth, results = renumber(gt, detections, iou_type, len(spread or ()))
    call = (truth, results, iou_type, limits, iou_thrs, spread)
    precision, recall = _count(call, dilation)
    return Accumulated(
        precision,
        recall,
        tuple(class_names(gt)),
        tuple(iou_thrs),
        tuple(int(n) for n in limits),
        AREAS if spread is None else KEYPOINT_AREAS,
        tuple(frequencies(gt)),
    )


def _count(call: Any, dilation: float) -> tuple[FloatArray, FloatArray]:
    """Return precision and recall from hotcoco, or from pycocotools what hotcoco has not."""
    if call[2] == "boundary":
        return _with_pycocotools(*call, dilation=dilation)
    try:
        return _with_hotcoco(*call)
    except ImportError:
        pass
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a panic of compiled Rust code is no Exception
        warnings.warn(
            f"hotcoco failed ({type(error).__name__}: {error}); pycocotools counts instead, slower",
            stacklevel=4,
        )
    return _with_pycocotools(*call)


def keypoint_sigmas(gt: dict[str, Any], sigmas: Sequence[float] | None) -> list[float]:
    """Return one sigma per keypoint of the ground truth: those given, or the default.

    Raises:
        ValueError: if the number of sigmas is not that of the keypoints, or one is not above 0.
    """
    named = [c["keypoints"] for c in sorted_categories(gt) if c.get("keypoints")]
    if named:
        count = len(named[0])
    else:
        count = max((len(a.get("keypoints") or ()) // 3 for a in gt["annotations"]), default=0)
    if sigmas is None:
        return default_sigmas(named[0] if named else count)
    if len(sigmas) != count or not all(sigma > 0 for sigma in sigmas):
        raise ValueError(
            f"sigmas: expected {count} numbers above 0, one per keypoint, got {list(sigmas)}"
        )
    return [float(sigma) for sigma in sigmas]


def _with_hotcoco(
    truth: dict[str, Any],
    results: dict[str, Any],
    iou_type: str,
    max_dets: list[int],
    iou_thrs: Sequence[float],
    sigmas: list[float] | None,
) -> tuple[FloatArray, FloatArray]:
    import hotcoco

    run = hotcoco.COCOeval(hotcoco.COCO(truth), hotcoco.COCO(results), iou_type)
    run.params.max_dets = max_dets
    run.params.iou_thrs = list(iou_thrs)
    if sigmas is not None:
        run.params.kpt_oks_sigmas = sigmas
    run.evaluate()
    run.accumulate()
    arrays: Any = run.eval
    return np.asarray(arrays["precision"]), np.asarray(arrays["recall"])


def _with_pycocotools(
    truth: dict[str, Any],
    results: dict[str, Any],
    iou_type: str,
    max_dets: list[int],
    iou_thrs: Sequence[float],
    sigmas: list[float] | None,
    *,
    dilation: float = DILATION,
) -> tuple[FloatArray, FloatArray]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    class BoundaryEval(COCOeval):
        """COCO's protocol with the lesser of mask IoU and boundary IoU."""

        def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802
            ious = super().computeIoU(imgId, catId)
            if not len(ious):
                return ious
            objects = self._gts[imgId, catId]
            found = self._dts[imgId, catId]
            order = np.argsort([-d["score"] for d in found], kind="mergesort")
            found = [found[i] for i in order[: self.params.maxDets[-1]]]
            return _with_edges(np.asarray(ious), found, objects, min(iou_thrs), dilation)

    with contextlib.redirect_stdout(io.StringIO()):
        pair = []
        for dataset in (truth, results):
            coco = COCO()
            coco.dataset = dataset
            coco.createIndex()
            pair.append(coco)
        run = BoundaryEval(*pair, "segm") if iou_type == "boundary" else COCOeval(*pair, iou_type)
        run.params.maxDets = max_dets
        run.params.iouThrs = np.asarray(iou_thrs)
        if sigmas is not None:
            run.params.kpt_oks_sigmas = np.asarray(sigmas)
        run.evaluate()
        run.accumulate()
    return np.asarray(run.eval["precision"]), np.asarray(run.eval["recall"])


def _with_edges(
    ious: FloatArray,
    found: list[dict[str, Any]],
    objects: list[dict[str, Any]],
    least: float,
    dilation: float,
) -> FloatArray:
    """Return the lesser of mask IoU and boundary IoU (D, G); for crowds that of the masks alone.

    A crowd has no edge where its objects end: what lies inside it is ignored by COCO's share of
    the detection inside, as in the code of Cheng et al. 2021.

    Args:
        ious: (D, G) of the masks; what is below `least` matches nothing and becomes 0.
        found, objects: detections and ground truth with masks in compressed RLE.
        least: lowest threshold of a match.
        dilation: see `coco_eval`.
    """
    crowd = np.array([bool(entry["iscrowd"]) for entry in objects], bool)
    result = np.where(crowd, ious, 0.0)
    # pycocotools takes 1 for 1 - 1e-10
    pairs = np.argwhere((ious >= least - 1e-10) & ~crowd)
    detections = {d: _Outline(found[d]["segmentation"], dilation) for d in set(pairs[:, 0])}
    truth = {g: _Outline(objects[g]["segmentation"], dilation) for g in set(pairs[:, 1])}
    for d, g in pairs:
        both = detections[d].overlap(truth[g])
        union = detections[d].area + truth[g].area - both
        result[d, g] = min(ious[d, g], both / union if union else 0.0)
    return result


class _Outline:
    """The edge of a mask in compressed RLE, in the mask's frame."""

    def __init__(self, code: dict[str, Any], dilation: float) -> None:
        mask, self.frame = decode_rle(code)
        self.pixels = edge(mask, edge_width((code["size"][0], code["size"][1]), dilation))
        self.area = int(self.pixels.sum())

    def overlap(self, other: _Outline) -> int:
        """Return how many pixels are in both."""
        x1, y1 = (max(a, b) for a, b in zip(self.frame[:2], other.frame[:2], strict=True))
        x2, y2 = (min(a, b) for a, b in zip(self.frame[2:], other.frame[2:], strict=True))
        if x1 >= x2 or y1 >= y2:
            return 0
        first, second = (
            one.pixels[y1 - one.frame[1] : y2 - one.frame[1], x1 - one.frame[0] : x2 - one.frame[0]]
            for one in (self, other)
        )
        return int((first & second).sum())
