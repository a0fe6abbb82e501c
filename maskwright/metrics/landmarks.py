"""Measures of landmarks: points of faces, bodies and things whose places are predicted.

NME, failure rate and area under the error curve as for faces (Sagonas et al. 2013, 300-W); PCK and
PCKh as for bodies (Yang and Ramanan 2013; Andriluka et al. 2014); OKS as in COCO. Results differ by
what a distance is divided by, so say which: there is a function for each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .calibration import FloatArray
from .classification import mean_of

# How far a keypoint may lie from the truth, relative to the object's size: the standard deviation
# of COCO's annotators for each of its 17 keypoints, and what all others get. The uniform value
# lies between those of eyes (0.025) and of hips (0.107), a little below the mean of 0.067.
COCO_SIGMAS = {
    "nose": 0.026, "left_eye": 0.025, "right_eye": 0.025, "left_ear": 0.035, "right_ear": 0.035,
    "left_shoulder": 0.079, "right_shoulder": 0.079, "left_elbow": 0.072, "right_elbow": 0.072,
    "left_wrist": 0.062, "right_wrist": 0.062, "left_hip": 0.107, "right_hip": 0.107,
    "left_knee": 0.087, "right_knee": 0.087, "left_ankle": 0.089, "right_ankle": 0.089,
}  # fmt: skip
UNIFORM_SIGMA = 0.05
AREA_OF_BOX = 0.53  # what an object fills of its box, where its area is not known: as mmpose has it
HEAD_SHARE = 0.6  # of the diagonal of a head's box in PCKh: the authors' constant


def default_sigmas(points: Sequence[str] | int) -> list[float]:
    """Return how far each keypoint may lie from the truth: COCO's numbers for COCO's points.

    Args:
        points: their names; or how many there are, where they have none.
    """
    count = points if isinstance(points, int) else len(points)
    named = None if isinstance(points, int) else list(points)
    persons = count == len(COCO_SIGMAS) and (named is None or named == list(COCO_SIGMAS))
    return list(COCO_SIGMAS.values()) if persons else [UNIFORM_SIGMA] * count


def distances(points: npt.ArrayLike, true: npt.ArrayLike, visible: npt.ArrayLike) -> FloatArray:
    """Return the distance of each point to the true one; nan where that is not visible.

    Args:
        points: (N, J, 2) or more columns, x and y first, pixels.
        true: the same.
        visible: (N, J) bool, whether there is a true point.

    Returns:
        (N, J) pixels.

    Raises:
        ValueError: if the shapes do not fit.
    """
    points, true = np.asarray(points, np.float64), np.asarray(true, np.float64)
    visible = np.array(visible, bool)
    fits = points.ndim == 3 and points.shape[2] >= 2 and true.shape[2:] >= (2,)
    if not fits or points.shape[:2] != true.shape[:2] or visible.shape != points.shape[:2]:
        raise ValueError(
            "expected points (N, J, 2) twice and visible (N, J), "
            f"got {points.shape}, {true.shape} and {visible.shape}"
        )
    found = np.hypot(points[..., 0] - true[..., 0], points[..., 1] - true[..., 1])
    return np.where(visible, found, math.nan)


def normalised_errors(gaps: npt.ArrayLike, norm: npt.ArrayLike) -> FloatArray:
    """Return the normalised mean error of each image: the mean distance, divided by a length.

    Args:
        gaps: (N, J), see `distances`.
        norm: (N,) length in pixels: `eye_distance`, `box_size`.

    Returns:
        (N,); nan for images without visible points, or whose length is 0 or nan.
    """
    gaps, norm = np.asarray(gaps, np.float64), np.asarray(norm, np.float64)
    seen = ~np.isnan(gaps)
    known = seen.any(1) & (norm > 0)
    total = np.where(seen, gaps, 0).sum(1)
    below = np.where(known, seen.sum(1) * norm, 1)
    return np.where(known, total / below, math.nan)


def eye_distance(
    true: npt.ArrayLike,
    visible: npt.ArrayLike,
    left: int | Sequence[int],
    right: int | Sequence[int],
) -> FloatArray:
    """Return the distance between the true eyes: of their outer corners, or of their middles.

    Args:
        true: (N, J, 2) or more columns.
        visible: (N, J) bool.
        left: number of the outer corner, inter-ocular (36 of the 68 points of 300-W); or of all
            points around the eye, whose mean is its pupil, inter-pupil (36 to 41).
        right: the same of the other eye (45; or 42 to 47).

    Returns:
        (N,) pixels; nan where one of the points is not visible.

    Raises:
        ValueError: if there is no such point.
    """
    true, seen = np.asarray(true, np.float64), np.array(visible, bool)
    sides = []
    for numbers in (left, right):
        mine = [numbers] if isinstance(numbers, int) else list(numbers)
        _check_numbers(mine, true.shape[1])
        whole = np.all(seen[:, mine], axis=1, keepdims=True)
        sides.append(np.where(whole, true[:, mine, :2].mean(1), math.nan))
    across, down = (sides[0] - sides[1]).T
    found: FloatArray = np.hypot(across, down)
    return found


def box_size(boxes: npt.ArrayLike) -> FloatArray:
    """Return sqrt(width x height) of boxes (N, 4) xyxy: the length for faces from the side."""
    found: FloatArray = np.sqrt(_sides(boxes).prod(1))
    return found


def box_side(boxes: npt.ArrayLike) -> FloatArray:
    """Return the longer side of boxes (N, 4) xyxy: the length of PCK."""
    found: FloatArray = _sides(boxes).max(1)
    return found


def head_size(boxes: npt.ArrayLike) -> FloatArray:
    """Return 0.6 x the diagonal of boxes of heads (N, 4) xyxy: the length of PCKh."""
    width, height = _sides(boxes).T
    found: FloatArray = HEAD_SHARE * np.hypot(width, height)
    return found


def torso_size(true: npt.ArrayLike, visible: npt.ArrayLike, shoulder: int, hip: int) -> FloatArray:
    """Return the distance of a shoulder and the opposite hip, the length of PCK by torso; (N,).

    For COCO's points: 5 (left shoulder) and 12 (right hip). nan where one of them is not visible.
    """
    return eye_distance(true, visible, shoulder, hip)


def failure_rate(errors: npt.ArrayLike, limit: float = 0.08) -> float:
    """Return the share of images whose normalised error is above a limit; nan errors do not count.

    Args:
        errors: (N,), see `normalised_errors`.
        limit: 0.08 or 0.1 in most papers.
    """
    errors = _known(errors)
    return mean_of((errors > limit).astype(np.float64))


def error_auc(errors: npt.ArrayLike, limit: float = 0.08) -> float:
    """Return the area under the cumulative curve of the errors up to a limit, in [0, 1].

    The curve gives the share of images with at most an error. Its area is the mean over the images
    of max(0, 1 - error / limit), exactly; nan errors do not count.
    """
    return mean_of(np.maximum(1 - _known(errors) / limit, 0))


def pck(gaps: npt.ArrayLike, size: npt.ArrayLike, alpha: float = 0.2) -> tuple[float, FloatArray]:
    """Return the share of visible points that lie within alpha x a length of the true one.

    Args:
        gaps: (N, J), see `distances`.
        size: (N,) length: `box_side`, `torso_size`, or `head_size` with alpha 0.5 (PCKh@0.5).
        alpha: share of the length.

    Returns:
        That of all points, and of each of the J points; nan for those never visible. Images whose
        length is nan or 0 do not count.
    """
    gaps, size = np.asarray(gaps, np.float64), np.asarray(size, np.float64)
    seen = ~np.isnan(gaps) & (size > 0)[:, None]
    near = seen & (np.where(seen, gaps, 0) <= alpha * np.where(size > 0, size, 0)[:, None])
    counts = seen.sum(0)
    each = np.full(gaps.shape[1], math.nan)
    np.divide(near.sum(0), counts, out=each, where=counts > 0)
    return mean_of(near[seen].astype(np.float64)), each


def oks(gaps: npt.ArrayLike, area: npt.ArrayLike, sigmas: Sequence[float]) -> FloatArray:
    """Return the object keypoint similarity: the mean of exp(-d^2 / (2 area (2 sigma)^2)).

    Args:
        gaps: (N, J), see `distances`.
        area: (N,) of the objects in square pixels; 0.53 x that of the box (`AREA_OF_BOX`) where
            there is no segmentation.
        sigmas: (J,) spread of each point, see `default_sigmas`.

    Returns:
        (N,) in [0, 1]; nan without visible points.

    Raises:
        ValueError: if there is not one sigma for each point.
    """
    gaps, area = np.asarray(gaps, np.float64), np.asarray(area, np.float64)
    if gaps.shape[1:] != (len(sigmas),):
        raise ValueError(f"{len(sigmas)} sigmas do not fit points of shape {gaps.shape}")
    # pycocotools adds the smallest step, so that an object without an area is no fault.
    spread = 2 * (area[:, None] + np.spacing(1)) * (2 * np.asarray(sigmas)) ** 2
    seen = ~np.isnan(gaps)
    near = np.where(seen, np.exp(-(np.where(seen, gaps, 0) ** 2) / spread), 0)
    counts = seen.sum(1)
    found = np.full(len(gaps), math.nan)
    np.divide(near.sum(1), counts, out=found, where=counts > 0)
    return found


def landmark_metrics(
    gaps: npt.ArrayLike,
    norm: npt.ArrayLike,
    names: Sequence[str],
    *,
    limit: float = 0.08,
    size: npt.ArrayLike | None = None,
    alpha: float = 0.2,
    area: npt.ArrayLike | None = None,
    sigmas: Sequence[float] | None = None,
) -> dict[str, float]:
    """Return the measures of landmarks, one set of points an image.

    Args:
        gaps: (N, J), see `distances`.
        norm: (N,) length that errors are divided by.
        names: (J,) names of the points.
        limit: normalised error from which on an image has failed.
        size: (N,) length of PCK; None: `norm`.
        alpha: share of it.
        area: (N,) for OKS; without it there is none.
        sigmas: (J,) for OKS; None: the default.

    Returns:
        `NME`, the mean of `normalised_errors`; `failure`, `AUC`, `PCK`, with areas `OKS`; then
        `PCK/<name>` and `NME/<name>` of each point. nan where nothing is visible.
    """
    gaps, norm = np.asarray(gaps, np.float64), np.asarray(norm, np.float64)
    if gaps.ndim != 2 or gaps.shape[1] != len(names):
        raise ValueError(f"{len(names)} names do not fit points of shape {gaps.shape}")
    errors = normalised_errors(gaps, norm)
    share, each = pck(gaps, norm if size is None else size, alpha)
    similar = {}
    if area is not None:
        similar["OKS"] = mean_of(_known(oks(gaps, area, sigmas or default_sigmas(names))))
    by_point = [mean_of(_known(normalised_errors(gaps[:, [j]], norm))) for j in range(len(names))]
    return {
        "NME": mean_of(_known(errors)),
        "failure": failure_rate(errors, limit),
        "AUC": error_auc(errors, limit),
        "PCK": share,
        **similar,
        **{f"NME/{name}": value for name, value in zip(names, by_point, strict=True)},
        **{f"PCK/{name}": float(value) for name, value in zip(names, each, strict=True)},
    }


def _known(values: npt.ArrayLike) -> FloatArray:
    values = np.asarray(values, np.float64)
    found: FloatArray = values[~np.isnan(values)]
    return found


def _sides(boxes: npt.ArrayLike) -> FloatArray:
    """Return width and height (N, 2) of boxes (N, 4)."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    found: FloatArray = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return found


def _check_numbers(numbers: Sequence[int], count: int) -> None:
    for number in numbers:
        if not 0 <= number < count:
            raise ValueError(f"there is no point {number}: they are numbered from 0 to {count - 1}")
