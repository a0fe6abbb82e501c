"""Predict with a file of `maskwright export format=onnx`: NumPy, Pillow and onnxruntime suffice.

    from maskwright import runtime

    model = runtime.load("model.onnx")
    found = model("photo.jpg", conf=0.5)
    found.boxes, found.scores, found.names, found.masks

Nothing of torch or of this package is imported: this one file can be copied into another project,
for other models than detectors with the folder `runtimes` beside it.
In a terminal: `python -m maskwright.runtime model.onnx photo.jpg`.
"""

from __future__ import annotations

import json
import math
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

Array = np.ndarray
Opened = tuple[Any, dict[str, Any]]  # session of onnxruntime, description
VERSION = 1  # of the descriptions that this module reads
PASTE_MODES, _CPU = ("grid", "torchvision"), ("CPUExecutionProvider",)
_HALVES = {"nearest": 0.5, "steps": 0.5, "floor": 0.0, "whole": 0.0}  # see `structures.Resize`
_READERS = {"classify": "labels", "semantic": "maps", "localize": "labels"}  # who reads whose files
_FEW_PER_OBJECT = 5  # proposals for an object found: with fewer, some objects may have had none


@dataclass(frozen=True)
class Found:
    """The objects in one image, by falling score, in pixels of the image.

    Attributes:
        size: (height, width) of the image.
        boxes: (N, 4) float32 x1, y1, x2, y2.
        scores, labels, names: (N,) float32; (N,) int64, positions among the model's; N names.
        mask_probs: (N, M, M) float32 probabilities in boxes `mask_reach` times as wide, or None.
        keypoints: (N, J, 3) float32 x, y, score, or None.
        paste_mode, mask_reach: how masks return to the image.
    """

    size: tuple[int, int]
    boxes: Array
    scores: Array
    labels: Array
    names: list[str]
    mask_probs: Array | None = None
    keypoints: Array | None = None
    paste_mode: str = "grid"
    mask_reach: float = 1.0

    @cached_property
    def masks(self) -> Array | None:
        """(N, H, W) bool, made at the first use; None for a model without masks."""
        if self.mask_probs is None:
            return None
        frames, half = self.boxes, (self.boxes[:, 2:] - self.boxes[:, :2]) / 2
        if self.mask_reach != 1:
            frames = frames + np.hstack([-half, half]) * np.float32(self.mask_reach - 1)
        return paste_masks(self.mask_probs, frames, self.size, mode=self.paste_mode)

    def __len__(self) -> int:
        return len(self.boxes)

    def content(self) -> dict[str, Any]:
        """Return names, scores and boxes as plain data, for JSON."""
        boxes = self.boxes.astype(float).round(2).tolist()
        rows = zip(self.names, self.scores, boxes, strict=True)
        return {"objects": [{"name": n, "score": round(float(s), 5), "box": b} for n, s, b in rows]}


class Model:
    """An exported detector, ready to be called on images.

    `spec` is what the file says of itself (see `docs/export.md`), `names` are class names by label.
    """

    def __init__(self, path: str | Path, *, opened: Opened | None = None, **options: Any) -> None:
        self._session, self.spec = opened or open_file(path, **options)
        try:
            _check(self.spec, [value.name for value in self._session.get_outputs()])
            self._resize, self._divisor = self.spec["resize"], self.spec["divisor"]
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{path} was not written by `maskwright export`") from None
        self.names = [name or f"class {i}" for i, name in enumerate(self.spec["names"])]

    def __call__(
        self,
        image: str | Path | Image.Image | Array,
        *,
        conf: float | None = None,
        max_det: int | None = None,
        regions: Array | None = None,
        window: tuple[float, float] | None = None,
    ) -> Found:
        """Return the objects of an image.

        Args:
            image: path, PIL image or (H, W, 3) RGB or (H, W) grey array; see `read_samples`.
            conf: smallest score, not below the one in the file; None: 0.25, or that if higher.
            max_det: most objects; no more than the slots in the file. None: 100, or all slots.
            regions: (n, 4) x1, y1, x2, y2 in pixels of the image, the best first: what may be
                objects, for a model that does not look for itself (`spec["regions"]`).
            window: values that become 0 and 255 in images of more than 8 bits. None: those in the
                file (`spec["window"]`); has it none, each image's own percentiles, with a warning.

        Raises:
            ValueError: if the image cannot be read, or the file does not hold what is asked for.
        """
        conf, max_det = self._limits(conf, max_det)
        pixels = read_for(self.spec, image, window)
        (height, width), rule = pixels.shape[:2], self._resize
        small = resize_image(pixels, target_size(rule, height, width), rule)
        ratio = np.array([width / small.shape[2], height / small.shape[1]], np.float32)
        if regions is not None:
            regions = np.asarray(regions, np.float32).reshape(-1, 4) / np.tile(ratio, 2)
        out = self.run(small, regions)
        count = int(out["count"][0])
        keep = np.flatnonzero(out["scores"][0, :count] > conf)[:max_det]
        scores, labels = out["scores"][0, keep], out["labels"][0, keep]
        self._warn_of_limits(scores, max_det)
        boxes = out["boxes"][0, keep] * np.tile(ratio, 2)
        boxes = boxes.clip(0, np.array([width, height, width, height], np.float32))
        probs, points = out.get("mask_probs"), out.get("keypoints")
        probs, points = (x if x is None else x[0, keep] for x in (probs, points))
        if points is not None:
            points[..., :2] *= ratio
        names = [self.names[i] for i in labels]
        how, reach = self.spec["paste_mode"], self.spec.get("mask_reach", 1.0)
        return Found((height, width), boxes, scores, labels, names, probs, points, how, reach)

    def _limits(self, conf: Any, max_det: Any) -> tuple[float, int]:
        """Return the smallest score and the most objects, if the file holds so many."""
        least, slots = self.spec["conf"], self.spec["max_det"]
        conf = max(0.25, least) if conf is None else conf
        max_det = min(100, slots) if max_det is None else max_det
        if not isinstance(conf, int | float) or not 0 <= conf <= 1:
            raise ValueError(f"conf lies between 0 and 1, got {conf!r}")
        if conf < least:
            raise ValueError(f"the file holds objects from conf={least} on, not {conf}")
        if not isinstance(max_det, int) or max_det < 1:
            raise ValueError(f"max_det is a whole number of at least 1, got {max_det!r}")
        if max_det > slots:
            raise ValueError(f"the file holds at most {slots} objects, not {max_det}")
        return conf, max_det

    def _warn_of_limits(self, scores: Array, max_det: int) -> None:
        """Warn where the slots or the proposals of the graph may have been too few for all."""
        good, proposals = int((scores >= 0.25).sum()), self.spec.get("proposals")
        if len(scores) >= max_det:
            warnings.warn(f"max_det={max_det} was reached: there may be more objects", stacklevel=3)
        elif proposals and _FEW_PER_OBJECT * good > proposals:
            text = f"{good} found of {proposals} proposals: export with a larger max_det"
            warnings.warn(f"there may be more objects than the {text}", stacklevel=3)

    def run(self, pixels: Array, regions: Array | None = None) -> dict[str, Array]:
        """Return the outputs of the graph for one image as it is; see `docs/export.md`.

        `pixels` are (C, h, w) float32, 0 to 255, no larger than a graph of fixed size; `regions`
        (n, 4) float32 in those pixels, for a model that takes them.
        """
        (_, height, width), unit = pixels.shape, self._divisor
        padded = self.spec["size"] or [-(-side // unit) * unit for side in (height, width)]
        batch = np.zeros((self.spec["batch"] or 1, len(pixels), *padded), np.float32)
        batch[:, :, :height, :width] = pixels
        sizes = np.tile(np.array([[height, width]], np.int64), (len(batch), 1))
        given = {"pixels": batch, "sizes": sizes}
        slots = (self.spec.get("regions") or {}).get("slots", 0)
        if (regions is not None) != bool(slots):
            takes = "takes regions with the image: give regions=..."
            raise ValueError(f"the model {takes if slots else 'finds its regions itself'}")
        if regions is not None:
            given["regions"] = np.zeros((len(batch), slots, 4), np.float32)
            given["regions"][:, : len(regions)] = regions[:slots]
        names = self.spec["outputs"]
        try:
            return dict(zip(names, self._session.run(names, given), strict=True))
        except Exception as error:  # its errors have no common class
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"the graph does not fit its description ({reason})") from None


def _check(spec: dict[str, Any], outputs: list[str]) -> None:
    """Raise a ValueError, KeyError or TypeError unless a description is whole."""
    rule, size, regions, batch = spec["resize"], spec["size"], spec.get("regions"), spec["batch"]
    bound = rule.get("stretch") or rule["within"]
    counts = [spec["max_det"], spec["divisor"], *(size or ()), *(bound or ())]
    counts += ([] if batch is None else [batch]) + ([] if regions is None else [regions["slots"]])
    sides = [rule[name] for name in ("factor", "long", "short") if rule[name] is not None]
    whole = all(isinstance(count, int) and count >= 1 for count in counts)
    whole &= all(isinstance(side, int | float) and side > 0 for side in sides)
    named = all(name is None or isinstance(name, str) for name in spec["names"])
    good = whole and named and (sides or bound) and spec["names"] and rule["rounding"] in _HALVES
    named = {"boxes", "scores", "labels", "count"} <= set(spec["outputs"]) <= set(outputs)
    if not good or not named or not isinstance(rule["antialias"], bool):
        raise ValueError
    good = 0 <= spec["conf"] <= 1 and spec["paste_mode"] in PASTE_MODES
    if not good or not 1 <= spec.get("mask_reach", 1) < math.inf:
        raise ValueError
    _checked_window((0, 1) if spec.get("window") is None else spec["window"])


def open_file(
    path: str | Path, *, threads: int | None = None, providers: Sequence[str] = _CPU
) -> Opened:
    """Return the session of an exported file, and what the file says of itself.

    `threads` compute, None: all cores. A ValueError names a file that is missing or no such file.
    """
    import onnxruntime

    path = os.path.expanduser(path)  # noqa: PTH111
    if not Path(path).is_file():
        raise ValueError(f"{path} does not exist")
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, threads or 0  # errors; all cores
    try:
        session = onnxruntime.InferenceSession(path, options, providers=list(providers))
    except Exception as error:  # its errors have no common class
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} is damaged or no ONNX file ({reason})") from None
    try:
        spec: dict[str, Any] = json.loads(session.get_modelmeta().custom_metadata_map["maskwright"])
        newer = spec["version"] > VERSION
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path} was not written by `maskwright export`") from None
    if newer:
        raise ValueError(f"{path} was written by a newer maskwright: update this one")
    return session, spec


def load(path: str | Path, **options: Any) -> Any:
    """Return the model in an exported file: a `Model`, or what the file of its task has."""
    session, spec = open_file(path, **options)
    if (name := _READERS.get(str(spec.get("task")).split("+")[0])) is None:
        return Model(path, opened=(session, spec))
    here = f"{__package__}." if __package__ else ""  # "": the files were copied elsewhere
    return import_module(f"{here}runtimes.{name}").open_file(
        path, session, spec, sys.modules[__name__]
    )


def target_size(rule: dict[str, Any], height: int, width: int) -> tuple[int, int]:
    """Return (height, width) to which `spec["resize"]` brings an image of this size."""
    if stretch := rule.get("stretch"):
        return stretch[0], stretch[1]
    most = rule["within"] or (2**31, 2**31)
    lengths = {"factor": 1, "long": max(height, width), "short": min(height, width)}
    bounds = [(rule[name], old) for name, old in lengths.items() if rule[name] is not None]
    new, old = min([*bounds, *zip(most, (height, width), strict=True)], key=lambda b: b[0] / b[1])
    kind, low = rule["rounding"], min(height, width)
    sides = [s * new / old if kind == "whole" else s * (new / old) for s in (height, width)]
    if kind == "steps" and rule["short"] and not rule["within"]:
        sides = [rule["short"] / low * s if s > low else rule["short"] for s in (height, width)]
        sides = [side * min(rule["long"] / max(sides), 1) for side in sides]
    high, wide = (max(int(side + _HALVES[kind]), 1) for side in sides)
    return min(high, most[0]), min(wide, most[1])


def read_for(spec: dict[str, Any], image: Any, window: tuple[float, float] | None = None) -> Array:
    """Return an image as (H, W, C) from 0 to 255: uint8, deeper ones float32 by a file's window."""
    samples = read_samples(image, spec.get("channels"))
    scale = spec.get("window") if window is None else _checked_window(window)
    if samples.dtype != np.uint8 and scale is None:
        warnings.warn(
            "the model knows 8-bit images alone, this one has more: it is stretched from its own "
            "0.1 to 99.9 percentile; a scale of all has a name: window=(0, 4095)",
            stacklevel=3,
        )
    return to_pixels(samples, scale)


def read_samples(image: Any, channels: Sequence[int] | None = None) -> Array:
    """Return the samples of an image turned upright: (H, W, 3) uint8 RGB, or deeper also (H, W).

    With `channels` (H, W, C). A ValueError tells that it lacks or has more than Pillow gives.
    """
    from PIL import Image

    if isinstance(image, np.ndarray):
        shape, count = image.shape, {2: 1, 3: image.shape[-1]}.get(image.ndim, 0)
        if image.dtype.kind not in "uif" or not image.size or count <= max(channels or [0]):
            raise ValueError(f"no image (H, W, C) with channels {channels}: {shape} {image.dtype}")
        if channels:
            return image.reshape(*shape[:2], count)[..., list(channels)]
        if count not in (1, 3):
            raise ValueError(f"an image array is (H, W, 3) RGB or (H, W) grey, got {shape}")
        return image if count == 3 else image.reshape(shape[:2])
    try:
        if not isinstance(image, Image.Image):
            with Image.open(os.path.expanduser(image)) as opened:  # noqa: PTH111
                return read_samples(_from_pillow(opened), channels)
        return read_samples(_from_pillow(image), channels)
    except Exception as error:  # decoders raise what they like on broken bytes
        name = "the image" if isinstance(image, Image.Image) else image
        raise ValueError(f"{name} cannot be read: {error}") from None


def _from_pillow(image: Image.Image) -> Array:
    from PIL import ImageOps

    if reason := _lost_bits(image):
        raise ValueError(f"{reason}, which Pillow does not give: use tifffile, give arrays")
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        samples = np.array(image)
        return samples.astype(samples.dtype.newbyteorder("="), copy=False)
    by_way_of = {"La": "LA", "RGBa": "RGBA", "P": "RGBA", "PA": "RGBA"}.get(image.mode, image.mode)
    return np.array(image.convert(by_way_of).convert("RGB"))


def _lost_bits(image: Image.Image) -> str | None:
    """Return what a file that Pillow has opened stores beyond the values that Pillow gives."""
    deep_grey = image.mode == "F" or image.mode.startswith("I")
    tiles: list[Any] = list(getattr(image, "tile", ()))
    if image.format == "TIFF" and tiles:
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        bits, kinds = max(tags.get(258) or (1,)), set(tags.get(339) or (1,))
        if (bits > 8 or kinds - {1, 4}) and not deep_grey:
            return "its samples have more than 8 bits, or a sign"
        if deep_grey and (tags.get(262) == 0 or (bits == 32 and kinds == {1})):
            return "its samples are deep, and unsigned with 32 bits or the smallest is white"
    elif image.format == "PPM" and any("ppm" in tile[0] and tile[3][-1] > 255 for tile in tiles):
        return "its samples have more than 8 bits"
    elif not deep_grey and any(";16" in str(tile[3]) for tile in tiles):
        return "its colours have more than 8 bits per channel"
    return None


def _checked_window(window: Any) -> tuple[float, float]:
    low, high = (float(value) for value in window)
    if -math.inf < low < high < math.inf:
        return low, high
    raise ValueError(f"window is the smallest and the largest sample value, got {window}")


def to_pixels(samples: Array, window: Sequence[float] | None = None) -> Array:
    """Return (H, W, C), (H, W) as C = 3: uint8 as it is, deeper samples stretched to 0 to 255.

    The window holds the values that become 0 and 255; None: those that 0.1 % of the samples do not
    reach, and exceed. Infinite samples are clipped, one that is no number becomes 0.
    """
    if samples.dtype != np.uint8:
        low, high = own_window(samples) if window is None else window
        values = samples.astype(np.float64)
        values = np.nan_to_num(values, nan=low, posinf=high, neginf=low).clip(low, high)
        samples = ((values - low) * (255 / (high - low))).astype(np.float32)
    return samples if samples.ndim == 3 else np.repeat(samples[..., None], 3, axis=2)


def own_window(samples: Array) -> tuple[float, float]:
    """Return the 0.1 and 99.9 percentile of the finite samples, or their ends if these are one."""
    values = samples.ravel()
    if samples.dtype not in (np.uint16, np.int16):
        values = values[:: max(-(-values.size // 2**24), 1)]
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, (0.1, 99.9), method="inverted_cdf").tolist()
    if low == high:  # a few bright spots on an empty background
        low, high = values.min().item(), values.max().item()
    return float(low), float(high if low < high else low + max(1.0, abs(low)))


def resize_image(pixels: Array, size: tuple[int, int], rule: dict[str, Any]) -> Array:
    """Return (C, h, w) float32 of (H, W, C) at (height, width), as `spec["resize"]` says."""
    if pixels.shape[:2] == tuple(size):
        found = pixels
    elif rule["antialias"]:
        found = filtered(pixels, size, "bilinear")
    elif rule.get("fixed_point") and pixels.dtype == np.uint8:
        found = _fixed_point(pixels, size)
    else:
        found = _bilinear(pixels.astype(np.float32), size, bool(rule.get("corners")))
    return np.ascontiguousarray(found.transpose(2, 0, 1), np.float32)


def filtered(pixels: Array, size: tuple[int, int], way: str) -> Array:
    """Return (H, W, C) at (height, width) by Pillow, each channel alone unless it is 8-bit RGB."""
    from PIL import Image

    sides, how = size[::-1], Image.Resampling[way.upper()]
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return np.asarray(Image.fromarray(pixels).resize(sides, how))
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    made = [np.asarray(Image.fromarray(one).resize(sides, how)) for one in planes]
    return np.stack(made, 2).clip(0, 255)


def _bilinear(values: Array, size: tuple[int, int], corners: bool = False) -> Array:
    """Sample (H, W, C) or (H, W) bilinearly at (h, w): edges, or centres of corner pixels, stay."""
    for axis, length in enumerate(size):
        old = values.shape[axis]
        step = (old - 1) / max(length - 1, 1) if corners else old / length
        half = np.float32(0.0 if corners else 0.5)
        at = ((np.arange(length, dtype=np.float32) + half) * np.float32(step) - half).clip(0)
        low = np.minimum(at.astype(np.int64), old - 1)
        form = [-1 if i == axis else 1 for i in range(values.ndim)]
        share = (at - low).astype(np.float32).reshape(form)
        ends = values.take(low, axis), values.take(np.minimum(low + 1, old - 1), axis)
        values = ends[0] * (1 - share) + ends[1] * share
    return values


def _fixed_point(pixels: Array, size: tuple[int, int]) -> Array:
    """Resize 8-bit (H, W, C) to the bit as OpenCV does: weights of eleven bits, means at a half."""
    if pixels.shape[:2] == (2 * size[0], 2 * size[1]):
        return np.asarray((pixels.reshape(size[0], 2, size[1], 2, -1).sum((1, 3), int) + 2) >> 2)
    values = pixels.astype(np.int32)
    for axis, form, shift in ((1, (-1, 1), 0), (0, (-1, 1, 1), 4)):
        old, new = values.shape[axis], size[axis]
        at = ((np.arange(new) + 0.5) * (1 / (new / old)) - 0.5).astype(np.float32)
        low = np.floor(at).astype(int)
        high = (at - low).astype(np.float32) * ((axis == 0) | ((low >= 0) & (low < old - 1)))
        ends = [values.take((low + more).clip(0, old - 1), axis) >> shift for more in (0, 1)]
        for end, share in zip(ends, (1 - high, high), strict=True):
            end *= np.rint(share * np.float32(2048)).astype(np.int32).reshape(form)
        values = (ends[0] >> 4 * shift) + (ends[1] >> 4 * shift)
    return (values + 2) >> 2


def paste_masks(
    probs: Array, boxes: Array, size: tuple[int, int], *, thresh: float = 0.5, mode: str = "grid"
) -> Array:
    """Return the masks of one image, (N, H, W) bool.

    `probs` (N, M, M) are in the frames of `boxes` (N, 4), x1, y1, x2, y2 in pixels of the image of
    `size` (height, width); from `thresh` on they belong to the object. The mode "grid" samples at
    pixel centres in the box, "torchvision" in it cut to whole pixels.
    """
    if mode not in PASTE_MODES:
        raise ValueError(f"mode is 'grid' or 'torchvision', got {mode!r}")
    masks, side = np.zeros((len(probs), *size), bool), probs.shape[-1]
    padded = np.pad(probs.astype(np.float32), ((0, 0), (1, 1), (1, 1)))
    for mask, square, box in zip(masks, padded, boxes.astype(np.float32), strict=True):
        if not np.isfinite(box).all() or box[2] <= box[0] or box[3] <= box[1]:
            continue
        if mode == "torchvision":
            _paste_whole(mask, square, box, side, thresh)
            continue
        # Where the mask can be above zero: half a cell beyond the box, and one for the rounding.
        margin = (box[2:] - box[:2]) / (2 * side) + 1
        limit = np.array(size[::-1])
        low = np.floor(box[:2] - margin).clip(0, limit).astype(int)
        high = np.ceil(box[2:] + margin).clip(0, limit).astype(int)
        value = square
        for axis, along in ((1, 0), (0, 1)):  # x for columns, y for rows
            centre = np.arange(low[along], high[along], dtype=np.float32) + np.float32(0.5)
            inside = (centre - box[along]) / (box[along + 2] - box[along])
            at = (inside * side - np.float32(0.5)).clip(-1, side) + 1
            first = np.minimum(at.astype(np.int64), side)
            share = (at - first).reshape((-1, 1) if axis == 0 else (1, -1))
            value = value.take(first, axis) * (1 - share) + value.take(first + 1, axis) * share
        mask[low[1] : high[1], low[0] : high[0]] = value >= thresh
    return masks


def _paste_whole(mask: Array, square: Array, box: Array, side: int, thresh: float) -> None:
    """Paste as torchvision does: the square with a border of zeros, in whole pixels."""
    half = (box[2:] - box[:2]) * np.float32(0.5) * np.float32((side + 2) / side)
    centre = (box[2:] + box[:2]) * np.float32(0.5)
    x1, y1, x2, y2 = (int(v) for v in (*(centre - half), *(centre + half)))
    value = _bilinear(square, (y2 - y1 + 1, x2 - x1 + 1))
    height, width = mask.shape
    top, left, bottom, right = max(y1, 0), max(x1, 0), min(y2 + 1, height), min(x2 + 1, width)
    if top < bottom and left < right:
        part = value[top - y1 : bottom - y1, left - x1 : right - x1]
        mask[top:bottom, left:right] = part > thresh


def main(arguments: Sequence[str]) -> int:
    """Print what is in images as JSON, one line an image."""
    if len(arguments) < 2:
        print("usage: python -m maskwright.runtime MODEL.onnx IMAGE [IMAGE ...]", file=sys.stderr)
        return 2
    try:
        model = load(arguments[0])
        for path in arguments[1:]:
            print(json.dumps({"path": path, **model(path).content()}))
    except ValueError as error:
        print(f"error: {repr(str(error))[1:-1]}", file=sys.stderr)  # names steer no terminal
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
