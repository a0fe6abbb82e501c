"""Anchor sizes against the sizes of real objects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from maskwright.data.anchors.sizes import object_sides, suggest_anchor_sizes
from maskwright.data.discover import open_dataset
from maskwright.nn.detection.anchors import AnchorGenerator
from maskwright.ops.boxes import box_iou
from maskwright.structures import Resize

STRIDES = (4, 8, 16, 32, 64)


def meeting(boxes: torch.Tensor, sizes: Sequence[float], strides: Sequence[int]) -> float:
    """Return the mean IoU of boxes with the best of all square anchors around them."""
    anchors = AnchorGenerator(list(sizes), [1.0], strides)
    maps = [(-(-1024 // stride) + 1,) * 2 for stride in strides]
    every = torch.cat(anchors(maps, (1024, 1024)))
    return float(box_iou(boxes, every).amax(1).mean())


@pytest.mark.parametrize(("factor", "start"), [(0.5, 8), (1.25, 16), (2.5, 16), (6.0, 32)])
def test_anchors_are_those_that_meet_the_nuclei_best(
    nuclei_mini: Path, factor: float, start: float
) -> None:
    dataset = open_dataset(nuclei_mini, "train")
    usual = (32, 64, 128, 256, 512)
    sizes = suggest_anchor_sizes(dataset, Resize(None, None, factor), usual, STRIDES)
    assert sizes == tuple(start * 2.0**i for i in range(5))
    sides = torch.tensor(object_sides(dataset, Resize(None, None, factor)))
    assert len(sides) == 926
    # Squares of these sides at places by chance, against all anchors of the pyramid.
    sides = sides[::9].float().clamp(max=500)
    places = torch.rand(len(sides), 2, generator=torch.Generator().manual_seed(0)) * 500
    boxes = torch.cat([places, places + sides[:, None]], 1)
    met = {k: meeting(boxes, [size / 2**k for size in usual], STRIDES) for k in range(4)}
    assert met[round(math.log2(32 / start))] > max(met.values()) - 0.03


def test_a_size_that_is_small_beside_its_stride_is_not_taken(nuclei_mini: Path) -> None:
    """All of three sizes on one map of stride 16; three steps to the octave on a pyramid."""
    dataset = open_dataset(nuclei_mini, "train")
    sizes = suggest_anchor_sizes(dataset, Resize(None, None, 1.25), (128, 256, 512), (16,) * 3)
    assert sizes == (16, 32, 64)
    strides = (8, 16, 32, 64, 128)
    usual = (24, 48, 96, 192, 384)
    kept = suggest_anchor_sizes(dataset, Resize(None, None, 2.5), usual, strides, 3)
    assert kept == usual
    assert suggest_anchor_sizes(dataset.select([]), Resize(), usual, strides, 3) == usual


def test_sides_are_those_of_the_network_input(nuclei_mini: Path) -> None:
    dataset = open_dataset(nuclei_mini, "val")
    record = dataset[0]
    width, height = (record.boxes[0, 2:] - record.boxes[0, :2]).tolist()
    expected = (width * height) ** 0.5 * 512 / max(record.size)
    assert object_sides(dataset, Resize(None, 512))[0] == pytest.approx(expected)
