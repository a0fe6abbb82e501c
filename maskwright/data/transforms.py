"""From a record to network input: resize, crop, flips and quarter turns, pixels and objects alike.

The whole geometry is one `View`: a scale, a window, mirrors and turns. The image is resampled
once, and every mask is made once, at the final resolution: polygons are scaled and then
rasterised, bitmaps are resampled from their native crop. Large-scale jitter (Ghiasi et al. 2021,
"Simple copy-paste") is `Augment(scale_jitter=(0.1, 2.0), crop=(1024, 1024))`; unlike there, an
image smaller than the crop is not padded here but by the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from maskwright.drawing.channels import shown as seen
from maskwright.ops.rle import Crop, Frame, rasterise_polygons
from maskwright.proposals import ProposalStore
from maskwright.structures import Resize, Skeleton

from .augment.colours import distort, photometric
from .augment.crops import resample_crop
from .augment.patches import draw_patch, draw_tile
from .augment.view import View
from .pixels.large import large_image
from .pixels.resizing import resize_image
from .proposals import dataset_proposals
from .records import Dataset, Record

CROP_TRIES = 10  # windows tried before one without objects is taken
MAX_SIDE = 2**15  # where a resize rule sets no limit to the long side


@dataclass(frozen=True)
class Augment:
    """Random changes of a training image. Every probability lies in [0, 1].

    Attributes:
        flip: probability of mirroring left and right.
        vflip: probability of mirroring top and bottom.
        rotate90: probability of a turn by 90, 180 or 270 degrees, for images without an upright
            direction (microscopes, satellites).
        scale_jitter: (low, high) factor, drawn evenly, on top of the resize rule of the model.
        scales: short sides in pixels, of which one is drawn evenly in place of that of the resize
            rule, whose long side stays the limit (He et al. 2014, SPPnet, section 3.2); (): none.
        crop: (height, width) in network-input pixels of a random window, or one side for both;
            None: the whole image. Windows with objects are preferred.
        photometric: change brightness, contrast, saturation and hue, each with probability 1/2;
            "strong": as SSD is trained, see `distort`.
        expand: probability that the image lies somewhere on a canvas of up to four times its sides.
        patches: a random patch takes the place of the image, one that overlaps an object by at
            least 0.1 to 0.9, any one, or all of it; see `draw_patch`. Objects whose centre lies
            outside are ignored.
        min_visible: an object of which a smaller part of the box is left in the window is ignored,
            neither object nor background.
        fill: of each channel the value, 0 to 255, that a window shows beyond the image: the mean of
            the network.
        tile: of an image with a longer side only a random square of so many of its pixels is read,
            and stands for the image in all that is said above; None: the whole image.
    """

    flip: float = 0.5
    vflip: float = 0.0
    rotate90: float = 0.0
    scale_jitter: tuple[float, float] = (1.0, 1.0)
    scales: tuple[int, ...] = ()
    crop: int | tuple[int, int] | None = None
    photometric: bool | str = False
    expand: float = 0.0
    patches: bool = False
    min_visible: float = 0.1
    fill: tuple[float, ...] = (0.0, 0.0, 0.0)
    tile: int | None = None

    def __post_init__(self) -> None:
        for name in ("flip", "vflip", "rotate90", "expand", "min_visible"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"Augment: {name} must lie between 0 and 1, got {value}")
        low, high = self.scale_jitter
        if not 0 < low <= high < math.inf:
            raise ValueError(
                f"Augment: scale_jitter is (low, high) with 0 < low <= high, got {(low, high)}"
            )
        if min(self.scales, default=1) < 1:
            raise ValueError(f"Augment: scales must be at least one pixel, got {self.scales}")
        if self.crop is not None and min(self.crop_size) < 1:
            raise ValueError(f"Augment: crop must be at least one pixel, got {self.crop}")

    @property
    def crop_size(self) -> tuple[int, int]:
        """(height, width) of the window; only with a crop."""
        assert self.crop is not None
        return (self.crop, self.crop) if isinstance(self.crop, int) else self.crop


@dataclass(frozen=True)
class Sample:
    """One image with its n objects as the network sees them; frame: its pixels before padding.

    Attributes:
        index: position in the data set.
        original_size: (height, width) of the file.
        pixels: (3, h, w) float32, 0 to 255.
        boxes: (n, 4) float32 xyxy.
        labels: (n,) int64.
        crowd: (n,) bool: regions that are ignored, objects among them of which too little is
            inside.
        masks: crop (bool) and frame of each object, an empty one for crowd regions; or None.
        keypoints: (n, J, 3) float32 or None.
        proposals: (m, 4) float32 xyxy regions from outside by falling merit, or None.
        ranks: (m,) int64, their places among all proposals of the image.
    """

    index: int
    original_size: tuple[int, int]
    pixels: Tensor
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    masks: list[tuple[Crop, Frame]] | None
    keypoints: np.ndarray | None
    proposals: np.ndarray | None = None
    ranks: np.ndarray | None = None


def make_sample(
    dataset: Dataset,
    index: int,
    resize: Resize,
    augment: Augment | None,
    rng: np.random.Generator,
    *,
    masks: bool = True,
    proposals: ProposalStore | None = None,
) -> Sample:
    """Load an image and its objects and bring both to network input.

    An object that the window does not cut keeps its annotated box, scaled. If it is cut, its box
    is the tight box of what is left of its mask, or the clipped box where there are no masks.
    Objects under one pixel wide or high, and objects without a pixel in their mask, are dropped.

    Args:
        dataset: the images.
        index: position of the image.
        resize: resize rule of the model.
        augment: random changes; None: none.
        rng: source of all randomness.
        masks: whether to make masks, if the data set has them.
        proposals: where regions from outside come from; they are brought to network input as the
            objects are, those with a side under one pixel in the window dropped.

    Raises:
        ValueError: if the image cannot be read or has another size than its annotations.
    """
    record = dataset[index]
    view = draw_view(record, resize, augment, rng)
    fill = (0.0,) * dataset.num_channels if augment is None else augment.fill
    if view.tile is None:
        image = dataset.image(index)
        pixels = resize_image(image, view.full, resize, window=view.window, fill=fill)
    else:
        x1, y1, x2, y2 = view.tile
        image = large_image(dataset, index)[y1:y2, x1:x2]
        size, window = view.within_tile
        pixels = resize_image(image, size, resize, window=window, fill=fill)
    if augment is not None and augment.photometric:
        change = distort if augment.photometric == "strong" else photometric
        pixels = view.refill(change(pixels, rng), fill)
    pixels = view.orient_pixels(pixels)

    height, width = view.window_size
    scaled = _scaled_boxes(record, view)
    boxes = scaled.clip(0, [width, height, width, height])
    cut = (scaled != boxes).any(1)
    keep = _sides(boxes) >= 1
    # Too little of an object to be learned from is still no background.
    shown = _visible(scaled, boxes) >= (0.0 if augment is None else augment.min_visible)
    if augment is not None and augment.patches:
        centre = (scaled[:, :2] + scaled[:, 2:]) / 2
        shown &= ((centre >= 0) & (centre < (width, height))).all(1)
    crowd = record.crowd | ~shown
    crops: list[tuple[Crop, Frame]] = []
    masks = masks and dataset.has_masks
    for k in np.flatnonzero(keep) if masks else ():
        crop, frame = np.zeros((0, 0), bool), (0, 0, 0, 0)
        if not crowd[k]:
            crop, frame = _window_mask(dataset, index, int(k), view)
            if not crop.size and cut[k]:  # of the object itself nothing is inside
                keep[k] = False
                continue
            crowd[k] = not crop.size  # too small at this scale
        if crowd[k]:
            crops.append((crop, (0, 0, 0, 0)))
            continue
        if cut[k]:
            boxes[k] = frame
        x1, y1, x2, y2 = view.orient_boxes(np.array(frame)).tolist()
        crops.append((view.orient_array(crop), (x1, y1, x2, y2)))
    regions = ranks = None
    if proposals is not None:
        found = dataset_proposals(proposals, dataset, index, seen(image)).boxes
        inside = _in_window(found, view).clip(0, [width, height, width, height])
        ranks = np.flatnonzero(_sides(inside) >= 1)
        regions = view.orient_boxes(inside[ranks]).astype(np.float32)
    return Sample(
        index=index,
        original_size=record.size,
        pixels=pixels,
        boxes=view.orient_boxes(boxes[keep]).astype(np.float32),
        labels=record.labels[keep],
        crowd=crowd[keep],
        masks=crops if masks else None,
        keypoints=view_keypoints(record.keypoints, view, keep, dataset.skeleton),
        proposals=regions,
        ranks=ranks,
    )


def draw_view(
    record: Record, resize: Resize, augment: Augment | None, rng: np.random.Generator
) -> View:
    """Draw the geometry of one image."""
    height, width = record.size
    if augment is None:
        full = resize.target_size(height, width)
        return View(full, (full[1] / width, full[0] / height), (0, 0, full[1], full[0]))
    patch, tile = (0, 0, width, height), None
    boxes = record.boxes[~record.crowd]
    if augment.tile is not None and max(height, width) > augment.tile:
        patch = tile = draw_tile(record.size, boxes, augment.tile, rng)
        boxes = boxes - np.tile(patch[:2], 2)
    if augment.expand or augment.patches:
        x, y, right, bottom = patch
        part = draw_patch(
            (bottom - y, right - x), boxes, rng, expand=augment.expand, patches=augment.patches
        )
        patch = (x + part[0], y + part[1], x + part[2], y + part[3])
    down, across = patch[3] - patch[1], patch[2] - patch[0]
    if augment.scales:
        short = augment.scales[int(rng.integers(len(augment.scales)))]
        resize = replace(resize, short=short, long=resize.long or MAX_SIDE, factor=None)
    size = resize.target_size(down, across)
    jitter = rng.uniform(*augment.scale_jitter)
    if jitter != 1 and resize.stretch is not None:
        size = resize.scaled(jitter).target_size(down, across)
    elif jitter != 1:
        factor = resize.scale(down, across) * jitter
        size = max(int(down * factor + 0.5), 1), max(int(across * factor + 0.5), 1)
    full = size
    if patch != (0, 0, width, height):
        full = _times(height, size[0] / down), _times(width, size[1] / across)
    scale = (full[1] / width, full[0] / height)
    left, top = round(patch[0] * scale[0]), round(patch[1] * scale[1])
    view = View(full, scale, (left, top, left + size[1], top + size[0]))
    if resize.stretch is not None and size != resize.stretch:
        view = replace(view, window=_placed(view.window, resize.stretch, rng))
    elif augment.crop is not None:
        view = _draw_window(record, view, augment, rng)
    flip, vflip, turn = rng.random(3) < (augment.flip, augment.vflip, augment.rotate90)
    turns = int(rng.integers(1, 4)) if turn else 0
    return View(full, scale, view.window, bool(flip), bool(vflip), turns, tile)


def _times(side: int, factor: float) -> int:
    """Return a side in pixels after scaling, at least one."""
    return max(int(side * factor + 0.5), 1)


def _placed(window: Frame, size: tuple[int, int], rng: np.random.Generator) -> Frame:
    """Return a window of this size, somewhere in a larger one or around a smaller one."""
    x1, y1, x2, y2 = window
    y, x = (
        int(rng.integers(min(0, old - new), max(0, old - new) + 1))
        for old, new in zip((y2 - y1, x2 - x1), size, strict=True)
    )
    return x1 + x, y1 + y, x1 + x + size[1], y1 + y + size[0]


def _draw_window(record: Record, view: View, augment: Augment, rng: np.random.Generator) -> View:
    """Draw a window of that of a view evenly; if it shows no object, draw again a few times."""
    (down, across), crop = view.window_size, augment.crop_size
    height, width = min(crop[0], down), min(crop[1], across)
    first = None
    for _ in range(CROP_TRIES):
        y = view.window[1] + int(rng.integers(down - height + 1))
        x = view.window[0] + int(rng.integers(across - width + 1))
        tried = View(view.full, view.scale, (x, y, x + width, y + height))
        first = first or tried
        scaled = _scaled_boxes(record, tried)
        boxes = scaled.clip(0, [width, height, width, height])
        shown = (_visible(scaled, boxes) >= augment.min_visible) & (_sides(boxes) >= 1)
        if (shown & ~record.crowd).any():
            return tried
    assert first is not None
    return first


def _scaled_boxes(record: Record, view: View) -> np.ndarray:
    """Return (n, 4) float64 xyxy of the objects in window pixels, not clipped."""
    return _in_window(record.boxes, view)


def _in_window(boxes: np.ndarray, view: View) -> np.ndarray:
    """Return boxes (n, 4) xyxy of original pixels in window pixels, float64, not clipped."""
    return view.to_window(boxes.astype(np.float64).reshape(-1, 2, 2)).reshape(-1, 4)


def _visible(boxes: np.ndarray, clipped: np.ndarray) -> np.ndarray:
    """Return the share of each box's area that is left after clipping."""
    whole = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    left = (clipped[:, 2:] - clipped[:, :2]).prod(1)
    share: np.ndarray = left / np.maximum(whole, 1e-9)
    return share


def _sides(boxes: np.ndarray) -> np.ndarray:
    """Return the shorter side of each box."""
    shorter: np.ndarray = (boxes[:, 2:] - boxes[:, :2]).min(1)
    # A side of exactly one pixel must survive the rounding of the scale.
    return shorter + 1e-6


def _window_mask(dataset: Dataset, index: int, k: int, view: View) -> tuple[Crop, Frame]:
    """Return the mask of an object in window pixels, inside its tight frame."""
    parts = dataset.polygons(index, k)
    if parts is not None:
        flat = [view.to_window(part).ravel().tolist() for part in parts]
        return rasterise_polygons(flat, view.window_size)
    return resample_crop(*dataset.mask(index, k), view)


def view_keypoints(
    points: np.ndarray | None, view: View, keep: np.ndarray, skeleton: Skeleton | None
) -> np.ndarray | None:
    """Return (n, J, 3) keypoints in result pixels; those outside the window are not labelled."""
    if points is None or skeleton is None:
        return None
    xy = view.to_window(points[keep, :, :2].astype(np.float64))
    shown = (points[keep, :, 2] > 0) & ((xy >= 0) & (xy < view.window_size[::-1])).all(-1)
    moved = np.concatenate([view.orient(xy), points[keep, :, 2:]], -1)
    moved[~shown] = 0
    if view.flip != view.vflip:
        # In a mirrored person the left hand is the right one.
        moved = moved[:, skeleton.mirrored]
    return moved.astype(np.float32)
