"""The types that cross layers: images, batched instances, packed masks, detections of one image.

Everything between the loader and the user is one of these. They are frozen dataclasses; the
batched ones are registered as pytrees, so that `torch.compile` and `torch.export` see through
them. Shapes use the letters B images, K instance slots per image, M mask side, J keypoints.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.utils._pytree import register_dataclass

IGNORED = 255  # as the class of a pixel: neither trained nor scored


class _Movable:
    """Adds `to`, `pin_memory` and `first` to a dataclass of tensors and of other such dataclasses.

    Attributes:
        SHARED: fields that belong to the batch as a whole.
    """

    SHARED: ClassVar[tuple[str, ...]] = ()

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Return the same structure with every tensor on `device`."""
        moved: dict[str, Any] = {}
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Tensor | _Movable):
                moved[field.name] = value.to(device, non_blocking=non_blocking)
        return replace(self, **moved)  # type: ignore[type-var]

    def pin_memory(self) -> Self:
        """Return a copy in memory of the host from which a card copies without being waited for."""
        pinned: dict[str, Any] = {}
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Tensor | _Movable):
                pinned[field.name] = value.pin_memory()
        return replace(self, **pinned)  # type: ignore[type-var]

    def first(self, count: int) -> Self:
        """Return the first images of a batch."""
        cut: dict[str, Any] = {}
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, _Movable):
                cut[field.name] = value.first(count)
            elif isinstance(value, Tensor) and field.name not in self.SHARED:
                cut[field.name] = value[:count]
        return replace(self, **cut)  # type: ignore[type-var]


@dataclass(frozen=True)
class Images(_Movable):
    """A batch of images, padded at the right and the bottom to one size.

    Attributes:
        pixels: (B, 3, H, W) float32, RGB, 0 to 255; what lies outside `sizes` is ignored.
        sizes: (B, 2) int64, (height, width) of the network input before padding.
        original_sizes: (B, 2) int64, (height, width) of the file that the user gave.
        proposals: regions from outside, for detectors that take them; in padded-image pixels, by
            falling merit, `ids` their places in that order.
    """

    pixels: Tensor
    sizes: Tensor
    original_sizes: Tensor
    proposals: Instances | None = None

    def __len__(self) -> int:
        return self.pixels.shape[0]


@dataclass(frozen=True)
class Labels(_Movable):
    """Labels of whole images, as targets of a training.

    Attributes:
        probs: (B, C) float32: 1 for the class of an image and 0 for the others; shares that sum to
            1 where images are mixed or labels smoothed; 0 or 1 each where there may be several.
        weights: (C,) float32, how much the loss of each class counts; None: all the same.
    """

    SHARED: ClassVar[tuple[str, ...]] = ("weights",)

    probs: Tensor
    weights: Tensor | None = None

    def __len__(self) -> int:
        return self.probs.shape[0]


@dataclass(frozen=True)
class LabelMaps(_Movable):
    """The class of every pixel of a batch, as targets of a training.

    Attributes:
        maps: (B, H, W) uint8, the class of each pixel of the padded image, 0 to C - 1, or
            `IGNORED`, which the padding is.
        weights: (C,) float32, how much the loss of each class counts; None: all the same.
    """

    SHARED: ClassVar[tuple[str, ...]] = ("weights",)

    maps: Tensor
    weights: Tensor | None = None

    def __len__(self) -> int:
        return self.maps.shape[0]


@dataclass(frozen=True)
class Places(_Movable):
    """What a localizer says of a batch: a class and a box an image, or its keypoints.

    Attributes:
        logits: (B, C + 1) float32, of each class, and last of the background: an image without an
            object; None for a model of keypoints.
        boxes: (B, C, 4) float32 xyxy in padded-image pixels, inside `sizes`: the box of each class,
            all the same where the model has one for all; None for a model of keypoints.
        keypoints: (B, J, 2) float32 x and y in padded-image pixels, or None.
    """

    logits: Tensor | None = None
    boxes: Tensor | None = None
    keypoints: Tensor | None = None

    def __len__(self) -> int:
        parts = (self.logits, self.boxes, self.keypoints)
        return next(part.shape[0] for part in parts if part is not None)


@dataclass(frozen=True)
class PackedMasks(_Movable):
    """Binary masks of the instances of a batch, each stored only inside its own frame.

    A `(B, K, H, W)` block is impossible in dense scenes (375 nuclei in one image), so the pixels
    of all crops lie one after another, row by row.

    Attributes:
        data: (T,) uint8, 0 or 1: the crops one after another.
        offsets: (B, K) int64, where in `data` the crop of a slot begins.
        frames: (B, K, 4) int64, xyxy in whole padded-image pixels: the crop holds the rows y1 to
            y2 - 1 and the columns x1 to x2 - 1. An empty frame (zeros) means: no mask.
    """

    SHARED: ClassVar[tuple[str, ...]] = ("data",)

    data: Tensor
    offsets: Tensor
    frames: Tensor


@dataclass(frozen=True)
class Instances(_Movable):
    """Instances of a batch in a fixed number of slots: targets, proposals and predictions alike.

    Empty slots are zeros with `valid=False`, never NaN or -1.

    Attributes:
        boxes: (B, K, 4) float32, xyxy in padded-image (network-input) pixels.
        labels: (B, K) int64, 0 to C - 1.
        valid: (B, K) bool.
        scores: (B, K) float32, predictions and proposals only.
        crowd: (B, K) bool, targets only: a region of many objects, ignored in training.
        masks: masks of the targets.
        mask_crops: (B, K, M, M) float32 probabilities in the frame of the mask, which is the box or
            reaches beyond it (see `Detections.mask_reach`), predictions only.
        keypoints: (B, K, J, 3) float32, x and y in padded-image pixels, and visibility or score.
        ids: (B, K) int64, proposals only: the anchor that each comes from, or its rank.
        late: (B, K) bool, proposals only: among the last that a limit of their number let through.
        short: (B,) bool, predictions only: the proposals were too few for what may be there.
    """

    boxes: Tensor
    labels: Tensor
    valid: Tensor
    scores: Tensor | None = None
    crowd: Tensor | None = None
    masks: PackedMasks | None = None
    mask_crops: Tensor | None = None
    keypoints: Tensor | None = None
    ids: Tensor | None = None
    late: Tensor | None = None
    short: Tensor | None = None

    def __len__(self) -> int:
        return self.boxes.shape[0]

    def first_slot(self) -> Instances:
        """Return the first slot of each image alone, without its axis: boxes (B, 4), and so on."""
        cut: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor) and field.name != "short":
                cut[field.name] = value[:, 0]
        return replace(self, **cut, masks=None)

    def with_a_slot(self) -> Instances:
        """Return the same instances in at least one slot: an empty one where there is none.

        What reads slots by their index needs one to read, and masks what it read.
        """
        if self.valid.shape[1]:
            return self
        padded: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor) and field.name != "short":
                padded[field.name] = _with_a_slot(value)
            elif isinstance(value, PackedMasks):
                offsets, frames = _with_a_slot(value.offsets), _with_a_slot(value.frames)
                padded[field.name] = PackedMasks(value.data, offsets, frames)
        return replace(self, **padded)


def _with_a_slot(values: Tensor) -> Tensor:
    """Return (B, 1, ...) zeros for values (B, 0, ...)."""
    return values.new_zeros((values.shape[0], 1, *values.shape[2:]))


@dataclass(frozen=True)
class Detections:
    """What was found in one image, without padding, in pixels of the original image, on the CPU.

    Attributes:
        size: (height, width) of the original image.
        boxes: (N, 4) float32 xyxy, by falling score.
        scores: (N,) float32.
        labels: (N,) int64.
        mask_probs: (N, M, M) float32 mask probabilities in `mask_frames`, or None.
        keypoints: (N, J, 3) float32 x, y, score, or None.
        short: the model's proposals were too few for what may be there: objects may be missing.
        codes: the masks as COCO run-length codes of the image, where they are no longer those of
            `mask_probs`; else None.
        mask_reach: how far the masks reach, as `widened` takes it.
        full: there were as many as there may be before those below the smallest score of their
            class were left out.
        ids: (N,) int64, which object of a video each is, from 1 on; 0: not known yet. None: they
            are not followed.
    """

    size: tuple[int, int]
    boxes: Tensor
    scores: Tensor
    labels: Tensor
    mask_probs: Tensor | None = None
    keypoints: Tensor | None = None
    short: bool = False
    codes: Sequence[Mapping[str, Any]] | None = None
    mask_reach: float = 1.0
    full: bool = False
    ids: Tensor | None = None

    def __len__(self) -> int:
        return self.boxes.shape[0]

    @property
    def mask_frames(self) -> Tensor:
        """(N, 4) xyxy: what `mask_probs` are the masks of; it may lie in part beyond the image."""
        return widened(self.boxes, self.mask_reach)

    def keep(self, index: Tensor) -> Detections:
        """Return the detections that `index` (bool mask or int64 positions) selects."""
        codes = self.codes
        if codes is not None:
            codes = [codes[i] for i in torch.arange(len(self))[index].tolist()]
        return Detections(
            self.size,
            self.boxes[index],
            self.scores[index],
            self.labels[index],
            None if self.mask_probs is None else self.mask_probs[index],
            None if self.keypoints is None else self.keypoints[index],
            self.short,
            codes,
            self.mask_reach,
            self.full,
            None if self.ids is None else self.ids[index],
        )


def widened(boxes: Tensor, reach: float) -> Tensor:
    """Return boxes (..., 4) xyxy whose sides are `reach` times as long, about the same centres.

    Example:
        >>> widened(torch.tensor([20.0, 20, 60, 40]), 1.5).tolist()
        [10.0, 15.0, 70.0, 45.0]
    """
    if reach == 1:
        return boxes
    low, high = boxes[..., :2], boxes[..., 2:]
    centre, half = (low + high) / 2, (high - low) * (reach / 2)
    return torch.cat([centre - half, centre + half], -1)


# The side in a keypoint's name: a word, or a letter that stands alone (l_eye, eye.R).
_SIDE = re.compile(r"left|right|(?<![a-z])[lr](?![a-z])")
_OTHER_SIDE = {"left": "right", "right": "left", "l": "r", "r": "l"}


@dataclass(frozen=True)
class Skeleton:
    """What the keypoints of an object are called, and which of them a line joins.

    Attributes:
        names: J different names.
        bones: pairs of positions in `names`.

    Raises:
        ValueError: if two keypoints have one name, or a bone ends at none.

    Example:
        >>> Skeleton(("nose", "left_eye", "right_eye"), ((0, 1), (0, 2))).mirrored
        [0, 2, 1]
    """

    names: tuple[str, ...]
    bones: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"keypoints need different names, got {', '.join(self.names)}")
        for bone in self.bones:
            if len(bone) != 2 or not all(0 <= end < len(self.names) for end in bone):
                raise ValueError(f"bone {bone} does not join two of {len(self.names)} keypoints")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def mirrored(self) -> list[int]:
        """Which keypoint each one is in a mirror: left and right ones change places, by name."""
        names = [name.lower() for name in self.names]
        other = [_SIDE.sub(lambda side: _OTHER_SIDE[side[0]], name) for name in names]
        place = [names.index(name) if name in names else k for k, name in enumerate(other)]
        return [m if place[m] == k else k for k, m in enumerate(place)]


COCO_PERSON = Skeleton(
    (
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder",
        "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip",
        "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
    ),
    (
        (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8),
        (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
    ),
)  # fmt: skip


for _type in (Images, Labels, LabelMaps, Places, PackedMasks, Instances):
    register_dataclass(_type)
