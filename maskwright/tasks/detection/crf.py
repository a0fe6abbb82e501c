"""The option `crf` of objects: each mask, in its crop, is drawn to the edges of the photo."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...crf.dense_crf import Bilateral, Gaussian, refine_masks
from ...errors import OptionError
from ...models.detection.base import Detector
from ...ops.masks import paste_masks, paste_probs, paste_rle
from ...ops.rle import Frame, decode_rle, encode_crops
from ...structures import Detections
from ..crf import SEARCH, CrfSettings

# Objects are smaller than photos, for which the published kernels are: searched on training images
# of nuclei by `benchmarks/instance_crf.py`.
USUAL = CrfSettings(Gaussian(1, 1), Bilateral(3, 8, 3), 5)
MARGIN, LEAST = 0.2, 4  # of a crop around its box: share of the longer side, pixels
MOST = 2**18  # pixels of crops that are refined at once, some 100 MB


def make_crf(value: Any, model: Detector) -> CrfSettings | None:
    """Return the parameters that the option `crf` gives for the masks of a model; None: no CRF.

    Raises:
        OptionError: if it gives none, or the model has no masks.
    """
    if value == SEARCH:
        raise OptionError(
            "crf=search is for models that give every pixel a class; of the masks of objects, "
            "give weight,sxy,srgb as in crf=3,3,8"
        )
    crf = CrfSettings.parse(value, USUAL, USUAL.gaussian)
    if crf is not None and not model.predicts_masks:
        raise OptionError(f"crf={value} refines the borders of masks, but this model finds none")
    return crf


def refined(found: Detections, image: np.ndarray, crf: CrfSettings, *, mode: str) -> Detections:
    """Return detections whose masks follow the edges of the image, as `Detections.codes`.

    A mask of which nothing would be left stays as it is.

    Args:
        found: with masks.
        image: (H, W, 3) uint8, the original.
        crf: the parameters.
        mode: how masks return to the image, see `ops.paste_masks`.
    """
    assert found.mask_probs is not None
    frames = [_frame(frame, found.size) for frame in found.mask_frames.tolist()]
    soft = paste_probs(found.mask_probs, found.mask_frames, frames, mode=mode)
    crops = [probs.numpy() >= 0.5 for probs in soft]
    known = [k for k, crop in enumerate(crops) if crop.any()]
    while known:
        some, known = _together(known, soft)
        photos = [image[y1:y2, x1:x2] for x1, y1, x2, y2 in (frames[k] for k in some)]
        for k, probs in zip(
            some, refine_masks([soft[k] for k in some], photos, **crf.kernels), strict=True
        ):
            drawn = probs.numpy() >= 0.5
            crops[k] = drawn if drawn.any() else crops[k]
    return replace(found, codes=encode_crops(crops, frames, found.size))


def _together(known: Sequence[int], soft: Sequence[Tensor]) -> tuple[list[int], list[int]]:
    """Return the first masks, as many as fit into memory but one at least, and the others."""
    pixels = np.cumsum([soft[k].numel() for k in known])
    count = max(int((pixels <= MOST).sum()), 1)
    return list(known[:count]), list(known[count:])


def _frame(box: Sequence[float], size: tuple[int, int]) -> Frame:
    """Return the crop around a box, xyxy in whole pixels inside the image."""
    x1, y1, x2, y2 = box
    if not (x2 > x1 and y2 > y1):
        return 0, 0, 0, 0
    margin = max(MARGIN * max(x2 - x1, y2 - y1), LEAST)
    return (
        max(math.floor(x1 - margin), 0),
        max(math.floor(y1 - margin), 0),
        min(math.ceil(x2 + margin), size[1]),
        min(math.ceil(y2 + margin), size[0]),
    )


def mask_codes(found: Detections, mode: str) -> list[dict[str, Any]] | None:
    """Return the masks as COCO run-length codes, or None for a model without masks."""
    if found.codes is not None:
        return [dict(code) for code in found.codes]
    if found.mask_probs is None:
        return None
    return paste_rle(found.mask_probs, found.mask_frames, found.size, mode=mode)


def full_masks(found: Detections, mode: str) -> Tensor | None:
    """Return the masks (N, H, W) bool, or None for a model without masks."""
    if found.codes is None:
        if found.mask_probs is None:
            return None
        return paste_masks(found.mask_probs, found.mask_frames, found.size, mode=mode)
    full = torch.zeros((len(found), *found.size), dtype=torch.bool)
    for one, code in zip(full, found.codes, strict=True):
        crop, (x1, y1, x2, y2) = decode_rle(code)
        one[y1:y2, x1:x2] = torch.from_numpy(crop)
    return full
