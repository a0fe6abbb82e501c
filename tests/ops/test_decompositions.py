"""The tensor forms of our operators against the operators."""

from __future__ import annotations

import pytest
import torch

from maskwright.ops import (
    decompositions,
    locate_keypoints,
    nms_padded,
    ps_roi_align,
    ps_roi_pool,
    roi_align,
    roi_pool,
)


@pytest.mark.parametrize("labelled", [True, False])
def test_nms_keeps_the_same_boxes_in_the_same_slots(labelled: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(3, 80, 2, generator=generator) * 60
    box = torch.cat([corner, corner + torch.rand(3, 80, 2, generator=generator) * 30 + 1], -1)
    score = torch.randint(0, 20, (3, 80), generator=generator) / 20  # many are equal
    valid = torch.rand(3, 80, generator=generator) < 0.8
    valid[2] = False
    labels = torch.randint(0, 3, (3, 80), generator=generator) if labelled else None
    for most in (5, 200):
        expected = nms_padded(box, score, valid, 0.5, most, labels=labels)
        found = decompositions.nms_padded(box, score, valid, 0.5, most, labels)
        assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    assert 5 < int(expected[1].sum(1)[0]) < 60


@pytest.mark.parametrize("ratio", [0, 1, 2])
@pytest.mark.parametrize("aligned", [True, False])
def test_roi_align_pools_the_same_values(ratio: int, aligned: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    maps = [torch.rand(2, 5, 40 // s, 24 // s, generator=generator) for s in (1, 2)]
    low = torch.rand(30, 2, generator=generator) * torch.tensor([90.0, 150])
    high = low + torch.rand(30, 2, generator=generator) * (torch.tensor([96.0, 160]) - low)
    boxes = torch.cat([low, high], 1)
    boxes[0] = torch.tensor([0.0, 0, 96, 160])  # the whole image
    boxes[1] = 0.0  # an empty slot
    image = torch.randint(0, 2, (30,), generator=generator)
    levels = torch.randint(-1, 3, (30,), generator=generator)
    args = (maps, boxes, image)
    expected = roi_align(
        *args,
        strides=(4, 8),
        output_size=(3, 2),
        sampling_ratio=ratio,
        aligned=aligned,
        levels=levels,
    )
    found = decompositions.roi_align_gathered(*args, levels, (4, 8), (3, 2), ratio, aligned)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-6)
    assert not found[(levels < 0) | (levels > 1)].any()


@pytest.mark.parametrize("side", [8, 56])
def test_keypoints_are_found_at_the_same_pixels(side: int) -> None:
    """Boxes from under a pixel to far larger than their maps, and long thin ones; noisy maps."""
    generator = torch.Generator().manual_seed(2)
    sides = torch.tensor(
        [
            [0.4, 0.4],
            [3, 5],
            [20, 31],
            [56, 56],
            [57, 40],
            [90, 120],
            [300, 8],
            [17, 310],
            [312, 318],
        ]
    )
    low = torch.rand(len(sides), 2, generator=generator) * 10
    boxes = torch.cat([low, low + sides], 1)
    noise = torch.randn(len(sides), 6, side, side, generator=generator)
    # From noise to what a trained head gives: one broad hill.
    at = torch.rand(len(sides), 6, 2, generator=generator) * side
    grid = torch.arange(side)
    distance = (grid - at[..., :1])[..., None, :] ** 2 + (grid - at[..., 1:])[..., None] ** 2
    hill = 8 * (-distance / (2 * (side / 14) ** 2)).exp()
    for maps in (hill, hill + 0.1 * noise, noise):
        expected = locate_keypoints(maps, boxes)
        found = decompositions.locate_keypoints(maps, boxes, 330)
        torch.testing.assert_close(found[..., 2], expected[..., 2], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


def test_keypoints_of_equal_pixels_take_the_first() -> None:
    maps, boxes = torch.zeros(1, 1, 8, 8), torch.tensor([[2.0, 3, 5, 5]])
    expected = locate_keypoints(maps, boxes)
    assert torch.equal(decompositions.locate_keypoints(maps, boxes, 40), expected)


def test_graphs_need_to_know_the_longest_side() -> None:
    with pytest.raises(ValueError, match="longest"):
        decompositions.locate_keypoints(torch.zeros(1, 1, 8, 8), torch.zeros(1, 4))


def some_boxes(count: int, generator: torch.Generator) -> torch.Tensor:
    """Boxes in and around an image of 96 x 160, one of them all of it, one empty, one beside it."""
    low = torch.rand(count, 2, generator=generator) * torch.tensor([100.0, 164]) - 4
    boxes = torch.cat([low, low + torch.rand(count, 2, generator=generator) * 80], 1)
    boxes[:3] = torch.tensor([[0.0, 0, 96, 160], [0, 0, 0, 0], [200, 300, 240, 340]])
    return boxes


def test_roi_pool_takes_the_same_maxima() -> None:
    generator = torch.Generator().manual_seed(3)
    fmap = torch.randn(2, 5, 20, 12, generator=generator)
    boxes = some_boxes(40, generator)
    image = torch.randint(0, 2, (40,), generator=generator)
    for size in ((3, 2), (7, 7), (1, 1)):
        expected = roi_pool(fmap, boxes, image, stride=8, output_size=size)
        found, _ = decompositions.roi_pool_windows(fmap, boxes, image, 8, size, False)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("ratio", [0, 2])
def test_position_sensitive_pooling_gives_the_same_values(ratio: int) -> None:
    generator = torch.Generator().manual_seed(4)
    fmap = torch.randn(2, 5 * 6, 20, 12, generator=generator) + 100
    boxes = some_boxes(40, generator)
    if not ratio:
        boxes = boxes.clamp(min=0).minimum(torch.tensor([96.0, 160, 96, 160]))
    image = torch.randint(0, 2, (40,), generator=generator)
    expected = ps_roi_align(fmap, boxes, image, stride=8, output_size=(3, 2), sampling_ratio=ratio)
    found = decompositions.ps_roi_gathered(fmap, boxes, image, 8, (3, 2), ratio, False)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    expected = ps_roi_pool(fmap, boxes, image, stride=8, output_size=(3, 2))
    found = decompositions.ps_roi_gathered(fmap, boxes, image, 8, (3, 2), ratio, True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert expected.any()
