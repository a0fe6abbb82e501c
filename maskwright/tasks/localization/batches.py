"""Batches of images with one place each: scaled to a square, cut only where nothing is lost."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from ...data.augment.colours import photometric
from ...data.augment.view import View
from ...data.batches import Chance
from ...data.pixels.resizing import collate_images, resize_image
from ...data.records import Dataset, Record
from ...data.transforms import view_keypoints
from ...structures import Images, Instances, Resize
from .objects import Chosen, choose

TRIES = 10  # places of a cut before the whole image is taken
LEAST = 0.25  # of the box of the object that a cut must keep, beside its centre
AROUND = 1.25  # sides of the surroundings of an object, relative to those of its box


@dataclass(frozen=True)
class Augment:
    """Random changes of a training image; see `LocalizationRecipe`."""

    flip: float = 0.0
    vflip: float = 0.0
    rotate90: float = 0.0
    scale_jitter: tuple[float, float] = (1.0, 1.0)
    photometric: bool = False


class LocationBatches:
    """Makes batches of images with the one object that counts; see `data.batches.Batches`.

    The targets are `Instances` with one slot: valid with an object, `crowd` as well where nobody
    knows what is true.

    Args:
        dataset: the images.
        resize: scales the long side to that of the square input.
        augment: random changes, or None.
        keypoints: whether an object needs labelled keypoints.
        around: the input is the surroundings of the object, not the image; see `AROUND`.
    """

    def __init__(
        self,
        dataset: Dataset,
        resize: Resize,
        augment: Augment | None,
        *,
        keypoints: bool = False,
        around: bool = False,
    ) -> None:
        self.dataset = dataset
        self.resize = resize
        self.augment = augment
        self.keypoints = keypoints
        self.around = around

    def make(
        self, indices: list[int], others: list[int], chance: Chance
    ) -> tuple[Images, Instances]:
        """Return the images on squares, and their objects."""
        side = square(self.resize)
        images, rows = [], []
        joints = len(self.dataset.skeleton or ()) if self.keypoints else 0
        for index in indices:
            rng = chance.of(index)
            chosen = choose(self.dataset[index], keypoints=self.keypoints)
            view = self.view(chosen.record, rng)
            pixels = resize_image(
                self.dataset.image(index), view.full, self.resize, window=view.window
            )
            pixels = view.orient_pixels(pixels)
            if self.augment is not None and self.augment.photometric:
                pixels = photometric(pixels, rng)
            images.append((pixels, chosen.record.size))
            rows.append(_target(chosen, view, self.dataset, joints))
        empty = [(side, side)] * len(others)
        channels = self.dataset.num_channels
        batch = collate_images(images, 32, [(side, side)], others=empty, channels=channels)
        return batch, _stack(rows, joints)

    def view(self, record: Record, rng: np.random.Generator) -> View:
        """Draw how an image is seen.

        Args:
            record: with the one object, or none.
            rng: source of all randomness.
        """
        height, width = record.size
        augment = self.augment
        around = self.around and len(record.boxes) > 0
        jitter = 1.0 if augment is None else float(rng.uniform(*augment.scale_jitter))
        view = _around(record, self.resize, jitter) if around else _whole(record, self.resize)
        if augment is None:
            return view
        if jitter != 1 and not around:
            full = self.resize.scaled(jitter).target_size(height, width)
            view = _cut(record, full, square(self.resize), rng) or view
        flip, vflip, turn = rng.random(3) < (augment.flip, augment.vflip, augment.rotate90)
        turns = int(rng.integers(1, 4)) if turn else 0
        return replace(view, flip=bool(flip), vflip=bool(vflip), turns=turns)


def square(resize: Resize) -> int:
    """Return the side of the square input of a resize rule, a multiple of 32."""
    assert resize.long is not None
    return math.ceil(resize.long / 32) * 32


def _whole(record: Record, resize: Resize) -> View:
    height, width = record.size
    full = resize.target_size(height, width)
    return View(full, (full[1] / width, full[0] / height), (0, 0, full[1], full[0]))


def _around(record: Record, resize: Resize, jitter: float) -> View:
    """Return the view of the surroundings of the object, as far as they lie inside the image."""
    assert resize.long is not None
    height, width = record.size
    x1, y1, x2, y2 = record.boxes[0].astype(np.float64).tolist()
    centre, half = ((x1 + x2) / 2, (y1 + y2) / 2), AROUND * jitter / 2
    low = (max(centre[0] - half * (x2 - x1), 0), max(centre[1] - half * (y2 - y1), 0))
    high = (min(centre[0] + half * (x2 - x1), width), min(centre[1] + half * (y2 - y1), height))
    scale = resize.long / max(high[0] - low[0], high[1] - low[1], 1.0)
    full = max(round(height * scale), 1), max(round(width * scale), 1)
    sx, sy = full[1] / width, full[0] / height
    left, top = math.floor(low[0] * sx), math.floor(low[1] * sy)
    right = min(max(math.ceil(high[0] * sx), left + 1), full[1], left + resize.long)
    bottom = min(max(math.ceil(high[1] * sy), top + 1), full[0], top + resize.long)
    return View(full, (sx, sy), (left, top, right, bottom))


def _cut(record: Record, full: tuple[int, int], side: int, rng: np.random.Generator) -> View | None:
    """Return a view of a scaled image, cut to the input where it is larger.

    The centre of the object stays inside, and of its box at least a quarter; None if no such place
    was drawn.
    """
    scale = (full[1] / record.size[1], full[0] / record.size[0])
    height, width = min(full[0], side), min(full[1], side)
    for _ in range(TRIES):
        y = int(rng.integers(full[0] - height + 1))
        x = int(rng.integers(full[1] - width + 1))
        view = View(full, scale, (x, y, x + width, y + height))
        if not len(record.boxes):
            return view
        box = _in_window(record.boxes, view)[0]
        inside = box.clip(0, [width, height, width, height])
        centre = (box[:2] + box[2:]) / 2
        held = bool(((centre > 0) & (centre < (width, height))).all())
        if held and (inside[2:] - inside[:2]).prod() >= LEAST * (box[2:] - box[:2]).prod():
            return view
    return None


def _in_window(boxes: np.ndarray, view: View) -> np.ndarray:
    """Return boxes (n, 4) xyxy of original pixels in window pixels, float64, not clipped."""
    return view.to_window(boxes.astype(np.float64).reshape(-1, 2, 2)).reshape(-1, 4)


@dataclass(frozen=True)
class _Target:
    box: np.ndarray  # (4,) float32 xyxy, network-input pixels; zeros without an object
    label: int
    valid: bool
    unknown: bool
    keypoints: np.ndarray  # (J, 3) float32


def _target(chosen: Chosen, view: View, data: Dataset, joints: int) -> _Target:
    record = chosen.record
    points = np.zeros((joints, 3), np.float32)
    if not len(record.boxes):
        return _Target(np.zeros(4, np.float32), 0, chosen.unknown, chosen.unknown, points)
    height, width = view.window_size
    box = _in_window(record.boxes, view).clip(0, [width, height, width, height])
    if joints and record.keypoints is not None:
        moved = view_keypoints(record.keypoints, view, np.ones(1, bool), data.skeleton)
        assert moved is not None
        points = moved[0]
    oriented = view.orient_boxes(box)[0].astype(np.float32)
    return _Target(oriented, int(record.labels[0]), True, False, points)


def _stack(rows: list[_Target], joints: int) -> Instances:
    count = len(rows)
    points = torch.zeros(count, 1, joints, 3)
    boxes = torch.zeros(count, 1, 4)
    for i, row in enumerate(rows):
        boxes[i, 0] = torch.from_numpy(row.box)
        points[i, 0] = torch.from_numpy(row.keypoints)
    return Instances(
        boxes,
        torch.tensor([[row.label] for row in rows], dtype=torch.int64).reshape(count, 1),
        torch.tensor([[row.valid] for row in rows], dtype=torch.bool).reshape(count, 1),
        crowd=torch.tensor([[row.unknown] for row in rows], dtype=torch.bool).reshape(count, 1),
        keypoints=points if joints else None,
    )
