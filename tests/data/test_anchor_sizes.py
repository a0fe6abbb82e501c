"""Anchor sizes against the sizes of real objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maskwright.data.anchors.sizes import object_sides, suggest_anchor_sizes
from maskwright.data.discover import open_dataset
from maskwright.structures import Resize


@pytest.mark.parametrize(("factor", "start"), [(0.5, 4), (1.25, 8), (2.5, 16), (6.0, 32)])
def test_anchors_follow_the_scale_of_the_nuclei(
    nuclei_mini: Path, factor: float, start: float
) -> None:
    dataset = open_dataset(nuclei_mini, "train")
    resize = Resize(None, None, factor)
    sizes = suggest_anchor_sizes(dataset, resize)
    assert sizes == tuple(start * 2.0**i for i in range(5))
    sides = object_sides(dataset, resize)
    assert len(sides) == 926
    nearest = np.abs(np.log2(sides[:, None] / np.array(sizes))).min(1)
    assert (nearest <= 0.5).mean() > 0.9


@pytest.mark.parametrize(("factor", "start"), [(2.5, 16), (6.0, 64), (12.0, 128)])
def test_a_model_with_three_sizes_gets_three(
    nuclei_mini: Path, factor: float, start: float
) -> None:
    dataset, resize = open_dataset(nuclei_mini, "train"), Resize(None, None, factor)
    sizes = suggest_anchor_sizes(dataset, resize, (128, 256, 512))
    assert sizes == (start, 2 * start, 4 * start)


def test_sides_are_those_of_the_network_input(nuclei_mini: Path) -> None:
    dataset = open_dataset(nuclei_mini, "val")
    record = dataset[0]
    width, height = (record.boxes[0, 2:] - record.boxes[0, :2]).tolist()
    expected = (width * height) ** 0.5 * 512 / max(record.size)
    assert object_sides(dataset, Resize(None, 512))[0] == pytest.approx(expected)
