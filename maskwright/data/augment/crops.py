"""Native masks of objects as they are seen in a view."""

from __future__ import annotations

import math

import numpy as np

from maskwright.ops.rle import Crop, Frame

from .view import View


def resample_crop(crop: Crop, frame: Frame, view: View) -> tuple[Crop, Frame]:
    """Return a native mask in window pixels, resampled with a low-pass filter, threshold 1/2.

    Args:
        crop: (h, w) bool.
        frame: xyxy in original pixels.
        view: its scale and window are used.
    """
    empty: tuple[Crop, Frame] = np.zeros((0, 0), bool), (0, 0, 0, 0)
    height, width = view.window_size
    corners = view.to_window(np.array(frame, dtype=np.float64).reshape(2, 2))
    # The rounding error of the scale must not open another column.
    x1, y1 = np.floor(corners[0] + 1e-6).clip(0).astype(int).tolist()
    x2, y2 = np.ceil(corners[1] - 1e-6).clip(None, (width, height)).astype(int).tolist()
    if not crop.size or x2 <= x1 or y2 <= y1:
        return empty
    left, top = view.window[0] - frame[0], view.window[1] - frame[1]
    if view.scale == (1.0, 1.0):
        return _trim(crop[y1 + top : y2 + top, x1 + left : x2 + left], (x1, y1))
    from PIL import Image

    sx, sy = view.scale
    # Zeros around the crop, because the target pixels at its border reach beyond it; but not beyond
    # the image, where there is nothing to fade to.
    margin = math.ceil(1 / min(sx, sy)) + 1
    right, bottom = round(view.full[1] / sx), round(view.full[0] / sy)
    before = [min(margin, frame[1]), min(margin, frame[0])]
    after = [min(margin, bottom - frame[3]), min(margin, right - frame[2])]
    pad = [(max(a, 0), max(b, 0)) for a, b in zip(before, after, strict=True)]
    padded = np.pad(crop * np.uint8(255), pad)
    (over, _), (aside, _) = pad
    box = (
        max((x1 + view.window[0]) / sx - frame[0] + aside, 0.0),
        max((y1 + view.window[1]) / sy - frame[1] + over, 0.0),
        min((x2 + view.window[0]) / sx - frame[0] + aside, padded.shape[1]),
        min((y2 + view.window[1]) / sy - frame[1] + over, padded.shape[0]),
    )
    image = Image.fromarray(padded).resize((x2 - x1, y2 - y1), Image.Resampling.BILINEAR, box)
    return _trim(np.asarray(image) >= 128, (x1, y1))


def _trim(crop: Crop, corner: tuple[int, int]) -> tuple[Crop, Frame]:
    """Cut empty rows and columns off a mask whose upper left pixel lies at `corner` (x, y)."""
    rows, columns = np.flatnonzero(crop.any(1)), np.flatnonzero(crop.any(0))
    if not len(rows):
        return np.zeros((0, 0), bool), (0, 0, 0, 0)
    x1, x2, y1, y2 = int(columns[0]), int(columns[-1]) + 1, int(rows[0]), int(rows[-1]) + 1
    x, y = corner
    return np.ascontiguousarray(crop[y1:y2, x1:x2]), (x + x1, y + y1, x + x2, y + y2)
