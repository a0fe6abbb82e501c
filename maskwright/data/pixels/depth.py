"""Samples of more than 8 bits to 0 to 255, in full depth or 8 bits: a linear stretch of a window.

The window is declared, or comes from the samples themselves, of one image or of a data set. All
channels of an image share it, so that colours keep their balance. A value that is not a number
becomes the low end; infinite ones are clipped. None of them has a say in the window.
"""

from __future__ import annotations

import numpy as np

from maskwright.drawing.channels import repeated, shown
from maskwright.window import PERCENTILES, Window

RULE = "percentile"  # where nothing else is said
_ROWS = 2**20  # samples that are stretched at once, so that no copy in float64 is made of them all
_MOST = 2**24  # samples of one image that give its percentiles, spread evenly over it


def is_deep(samples: np.ndarray) -> bool:
    """Return whether samples are anything else than unsigned ones of 8 bits."""
    return samples.dtype != np.uint8


def own_window(samples: np.ndarray, rule: str = "percentile") -> Window:
    """Return the window of samples by a rule of `maskwright.window.RULES`; always low < high."""
    if samples.dtype in (np.uint16, np.int16) and rule == "percentile":
        return _of_counts(samples)
    values = samples.ravel()
    if rule == "percentile" and values.size > _MOST:
        values = values[:: -(-values.size // _MOST)]
    if samples.dtype.kind == "f":
        values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    if rule == "percentile":
        low, high = np.percentile(values, PERCENTILES, method="inverted_cdf").tolist()
        if low < high:
            return float(low), float(high)
    # A few bright spots on an empty background: the percentiles are one and the same value.
    return widened(float(values.min()), float(values.max()))


def _of_counts(samples: np.ndarray) -> Window:
    """Return the same as percentiles of all samples of 16 bits, from their counts."""
    first = 0 if samples.dtype == np.uint16 else 2**15  # int16 seen as uint16 counts from 0 to -1
    codes = np.ascontiguousarray(samples).view(np.uint16).ravel()
    counts = np.roll(np.bincount(codes, minlength=2**16), first)
    below = np.cumsum(counts)
    if not below[-1]:
        return 0.0, 1.0
    # The smallest value that at least this share of the samples does not exceed.
    wanted = [below[-1] * share / 100 for share in PERCENTILES]
    low, high = (int(np.searchsorted(below, count)) - first for count in wanted)
    if low < high:
        return float(low), float(high)
    found = np.flatnonzero(counts)
    return widened(float(found[0] - first), float(found[-1] - first))


def is_constant(samples: np.ndarray) -> bool:
    """Return whether all samples that are finite have one value, or none is finite."""
    values = samples[np.isfinite(samples)] if samples.dtype.kind == "f" else samples
    return not values.size or bool(values.min() == values.max())


def describe_oddity(samples: np.ndarray, *, declared: bool = False) -> str:
    """Return what hardly is meant in samples (H, W) or (H, W, C) of more than 8 bits; "": nothing.

    Args:
        samples: the samples.
        declared: the file says that there are some without a value.

    Examples:
        >>> describe_oddity(np.array([[np.nan, 1.0, 2.0, 3.0]], np.float32))
        '25 % of its pixels are not finite'
        >>> describe_oddity(np.full((2, 2), 7, np.uint16))
        'it is constant: every sample is 7'
    """
    said = []
    if samples.dtype.kind == "f":
        good = np.isfinite(samples)
        share = 1 - (good if samples.ndim == 2 else good.all(2)).mean()
        if share and not declared:
            said.append(f"{100 * share:.2g} % of its pixels are not finite".replace("1e+02", "100"))
        samples = samples[good]
    if samples.size and is_constant(samples):
        said.append(f"it is constant: every sample is {samples.flat[0]:g}")
    return "; ".join(said)


def widened(low: float, high: float) -> Window:
    """Return a window that is not empty: a constant image becomes black."""
    return (low, high) if low < high else (low, low + max(1.0, abs(low)))


def to_pixels(samples: np.ndarray, window: Window | str | None = None) -> np.ndarray:
    """Bring the samples of an image to what networks look at, in full depth.

    Args:
        samples: (H, W) or (H, W, C).
        window: (low, high), a rule of `maskwright.window.RULES`, or None: percentile. Rules look
            at these samples alone.

    Returns:
        (H, W, C), three equal channels of (H, W): uint8 samples as they are, others as float32, the
        window from 0 to 255 and what lies beyond it at its ends.
    """
    if is_deep(samples):
        samples = _stretch(samples, *_window(samples, window), np.float32)
    return repeated(samples) if samples.ndim == 2 else samples


def to_eight_bit(samples: np.ndarray, window: Window | str | None = None) -> np.ndarray:
    """Bring the samples of an image to 8-bit RGB, for people; the arguments are `to_pixels`'."""
    if is_deep(samples):
        samples = _stretch(samples, *_window(samples, window), np.uint8)
    return shown(samples)


def _window(samples: np.ndarray, window: Window | str | None) -> Window:
    if isinstance(window, tuple):
        return window
    return own_window(samples, window if isinstance(window, str) else RULE)


def _stretch(samples: np.ndarray, low: float, high: float, kind: type) -> np.ndarray:
    if samples.dtype in (np.uint16, np.int16) and samples.size > 2**16:
        every = np.arange(2**16, dtype=np.uint16).view(samples.dtype)
        codes = np.ascontiguousarray(samples).view(np.uint16)
        found: np.ndarray = _stretch(every, low, high, kind)[codes]
        return found
    flat = samples.reshape(-1)
    out: np.ndarray = np.empty(flat.shape, kind)
    half = 0.5 if kind is np.uint8 else 0.0
    for start in range(0, flat.size, _ROWS):
        part = flat[start : start + _ROWS].astype(np.float64)
        part = np.nan_to_num(part, nan=low, posinf=high, neginf=low).clip(low, high)
        out[start : start + _ROWS] = (part - low) * (255 / (high - low)) + half
    return out.reshape(samples.shape)
