"""Keypoints in maps against torchvision's function, which enlarges map by map."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torchvision.models.detection.roi_heads import heatmaps_to_keypoints

from maskwright.ops import keypoints as module
from maskwright.ops import locate_keypoints


def scene(count: int, joints: int, side: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps with smooth hills, and boxes of many sizes, some under a pixel."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, joints, 14, 14, generator=generator) * 4
    maps = F.interpolate(coarse, scale_factor=4, mode="bilinear")
    corner, size = torch.rand(2, count, 2, generator=generator) * side
    boxes = torch.cat([corner, corner + size**2 / side], 1)
    boxes[0, 2:] = boxes[0, :2] + 0.3
    return maps, boxes


def assert_same(maps: torch.Tensor, boxes: torch.Tensor) -> None:
    xy, scores = heatmaps_to_keypoints(maps, boxes)
    found = locate_keypoints(maps, boxes)
    torch.testing.assert_close(found[..., :2], xy[..., :2], rtol=0, atol=1e-3)
    torch.testing.assert_close(found[..., 2], scores, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("count", "joints", "side"), [(30, 17, 200), (5, 1, 700), (40, 4, 30)])
def test_equals_torchvision(count: int, joints: int, side: float) -> None:
    assert_same(*scene(count, joints, side))


@pytest.mark.parametrize("block", [1, 5000, 200_000])
def test_memory_has_a_bound(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut into rows, or box by box: the same keypoints."""
    maps, boxes = scene(9, 3, 150)
    expected = locate_keypoints(maps, boxes)
    monkeypatch.setattr(module, "_BLOCK", block)
    found = locate_keypoints(maps, boxes)
    assert torch.equal(found[..., :2], expected[..., :2])
    torch.testing.assert_close(found[..., 2], expected[..., 2])


def test_no_boxes_and_flat_maps() -> None:
    assert locate_keypoints(torch.zeros(0, 5, 8, 8), torch.zeros(0, 4)).shape == (0, 5, 3)
    found = locate_keypoints(torch.zeros(1, 2, 8, 8), torch.tensor([[4.0, 6, 14, 36]]))
    assert found.tolist() == [[[4.5, 6.5, 0.0]] * 2], "the first of equal pixels"


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"got \(1, 2, 3, 4\)"):
        locate_keypoints(torch.zeros(1, 2, 3, 4), torch.zeros(1, 4))
