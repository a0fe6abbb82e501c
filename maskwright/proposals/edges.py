"""Edges for EdgeBoxes: strength and direction at each pixel, thinned to one pixel width.

Structured edges (Dollar and Zitnick 2013) need a model file of OpenCV. Without one, the edges are
plain gradients: they do not tell the outline of an object from its texture, and the boxes are the
worse for it on textured scenes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# What such a file holds: the trees, and among the options what OpenCV divides by.
_MODEL_PARTS = ("options", "childs", "featureIds", "thresholds", "edgeBoundaries", "edgeBins")
_MODEL_OPTIONS = ("stride", "shrinkNumber", "patchSize", "patchInnerSize", "numberOfTrees")


def structured_edges(cv2: Any, image: np.ndarray, model: str) -> tuple[np.ndarray, np.ndarray]:
    """Return strength (H, W) float32 in [0, 1] and angle of the normal in [0, pi).

    Args:
        cv2: OpenCV with contrib modules.
        image: (H, W, 3) uint8 RGB.
        model: file of OpenCV's structured edge detector.

    Raises:
        ValueError: if the file is no such model.
    """
    # OpenCV does not check the file: one of another kind would end the process.
    try:
        file = cv2.FileStorage(model, cv2.FILE_STORAGE_READ)
        missing = [part for part in _MODEL_PARTS if file.getNode(part).empty()]
        options = file.getNode("options")
        if not missing:
            missing = [part for part in _MODEL_OPTIONS if options.getNode(part).empty()]
    except (cv2.error, SystemError):  # it is no XML, YAML or JSON; OpenCV tells where in its code
        missing = list(_MODEL_PARTS)
    if missing:
        raise ValueError(
            f"{model} is no structured edge model of OpenCV, such as model.yml.gz of its contrib "
            f"modules (it lacks {missing[0]})"
        )
    detector = cv2.ximgproc.createStructuredEdgeDetection(model)
    edges = detector.detectEdges(image.astype(np.float32) / 255)
    angle = detector.computeOrientation(edges)
    return detector.edgesNms(edges, angle), angle


def gradient_edges(cv2: Any, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return strength (H, W) float32 in [0, 1] and angle of the normal in [0, pi).

    The gradient of the colour channel where it is largest, after slight smoothing; a pixel stays
    if it is the largest along its normal. 1 is the strength that one in a thousand pixels passes.

    Args:
        cv2: OpenCV.
        image: (H, W, 3) uint8 RGB.
    """
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.0)
    dx = cv2.Sobel(smooth, cv2.CV_32F, 1, 0)
    dy = cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    strength = np.hypot(dx, dy)
    channel = strength.argmax(2)[..., None]
    dx, dy, strength = (np.take_along_axis(a, channel, 2)[..., 0] for a in (dx, dy, strength))
    top = float(np.quantile(strength, 0.999))
    if top <= 0:
        top = float(strength.max()) or 1.0
    angle = np.mod(np.arctan2(dy, dx), np.pi).astype(np.float32)
    angle[angle >= np.pi] = 0
    ys, xs = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    keep = np.ones(strength.shape, bool)
    for side in (-1, 1):
        ahead = cv2.remap(
            strength,
            xs + side * np.cos(angle),
            ys + side * np.sin(angle),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        keep &= strength >= ahead
    edges = np.where(keep, (strength / top).clip(0, 1), 0).astype(np.float32)
    return edges, angle
