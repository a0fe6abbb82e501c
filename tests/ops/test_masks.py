"""Paste and mask targets against full-size references: grid_sample, torchvision, pycocotools."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pycocotools import mask as coco
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import roi_align

from maskwright.ops import crop_masks, paste_masks, paste_rle
from maskwright.ops.masks import paste_probs
from maskwright.structures import PackedMasks


def full_grid(probs: Tensor, boxes: Tensor, size: tuple[int, int], thresh: float) -> Tensor:
    """Sample every pixel centre of the image from every mask (detectron2's rule)."""
    count, (height, width) = len(probs), size
    x1, y1, x2, y2 = boxes[:, :, None].unbind(1)
    gx = (torch.arange(width) + 0.5 - x1) / (x2 - x1) * 2 - 1
    gy = (torch.arange(height) + 0.5 - y1) / (y2 - y1) * 2 - 1
    shape = (count, height, width)
    grid = torch.stack([gx[:, None, :].expand(shape), gy[:, :, None].expand(shape)], -1)
    return F.grid_sample(probs[:, None], grid, align_corners=False)[:, 0] >= thresh


def full_torchvision(probs: Tensor, boxes: Tensor, size: tuple[int, int], thresh: float) -> Tensor:
    return paste_masks_in_image(probs[:, None], boxes, size)[:, 0] > thresh


def full_codes(masks: Tensor) -> list[dict[str, Any]]:
    return [coco.encode(np.asfortranarray(mask.numpy().astype(np.uint8))) for mask in masks]


def draw_probs(kind: str, count: int, side: int, draw: torch.Generator) -> Tensor:
    probs = torch.rand(count, side, side, generator=draw)
    if kind == "hard":  # pixels that fall exactly on the threshold abound
        return (probs > 0.5).float()
    if kind == "steps":
        return (probs * 4).round() / 4
    if kind == "flat":
        return torch.full_like(probs, 0.5)
    return probs


@pytest.mark.parametrize("kind", ["smooth", "hard", "steps", "flat"])
@pytest.mark.parametrize("side", [1, 2, 7, 28, 112])
@pytest.mark.parametrize("whole", [False, True])
def test_grid_equals_the_full_reference(kind: str, side: int, whole: bool) -> None:
    draw = torch.Generator().manual_seed(side)
    for height, width, scale in ((60, 90, 1.0), (1, 130, 0.3), (47, 3, 3.0), (300, 400, 1.0)):
        extent = torch.tensor([width, height])
        centre = torch.rand(9, 2, generator=draw) * extent * 1.6 - extent * 0.3
        half = torch.rand(9, 2, generator=draw) * extent * scale / 2
        boxes = torch.cat([centre - half, centre + half], 1)
        boxes = boxes.round() if whole else boxes
        boxes[0, 2] = boxes[0, 0]  # no area
        boxes[1] = boxes[1, [2, 1, 0, 3]]  # reversed: the rule mirrors it
        boxes[2] += 10 * width  # outside
        probs = draw_probs(kind, 9, side, draw)
        want = full_grid(probs, boxes, (height, width), 0.5)
        assert torch.equal(paste_masks(probs, boxes, (height, width)), want)
        assert paste_rle(probs, boxes, (height, width)) == full_codes(want)


@pytest.mark.parametrize("kind", ["smooth", "hard", "steps", "flat"])
@pytest.mark.parametrize("side", [1, 14, 28])
def test_torchvision_mode_equals_torchvision(kind: str, side: int) -> None:
    draw = torch.Generator().manual_seed(side)
    for height, width in ((60, 90), (1, 130), (300, 400)):
        extent = torch.tensor([width, height, width, height])
        # Its reference cannot paste boxes wholly outside: keep to the image and a bit beyond.
        boxes = (torch.rand(9, 2, 2, generator=draw).sort(1)[0].flatten(1) * 1.2 - 0.1) * extent
        boxes = torch.minimum(boxes.clamp(min=-3), extent + 3)
        boxes[:, :2] = torch.minimum(boxes[:, :2], extent[:2] - 0.5)
        boxes[:, 2:] = boxes[:, 2:].clamp(min=0)
        boxes[0, 2:] = boxes[0, :2].clamp(min=0)  # no area: one pixel for torchvision
        probs = draw_probs(kind, 9, side, draw)
        want = full_torchvision(probs, boxes, (height, width), 0.5)
        options = {"mode": "torchvision"}
        assert torch.equal(paste_masks(probs, boxes, (height, width), **options), want)
        assert paste_rle(probs, boxes, (height, width), **options) == full_codes(want)


@pytest.mark.parametrize("mode", ["grid", "torchvision"])
@pytest.mark.parametrize("side", [1, 14, 28])
def test_probabilities_in_crops_are_those_of_the_full_reference(mode: str, side: int) -> None:
    draw = torch.Generator().manual_seed(side)
    size = (50, 60)
    corners = torch.rand(9, 2, 2, generator=draw).sort(1)[0].flatten(1)
    boxes = corners * torch.tensor([60, 50, 60, 50])
    probs = torch.rand(9, side, side, generator=draw)
    if mode == "torchvision":
        full = paste_masks_in_image(probs[:, None], boxes, size)[:, 0]
    else:
        place = lambda low, high, n: (torch.arange(n) + 0.5 - low) / (high - low) * 2 - 1  # noqa: E731
        full = torch.zeros(9, *size)
        for one, mask, (x1, y1, x2, y2) in zip(full, probs, boxes.tolist(), strict=True):
            x, y = place(x1, x2, size[1]).expand(size), place(y1, y2, size[0])[:, None].expand(size)
            grid = torch.stack([x, y], -1)[None]
            one[:] = F.grid_sample(mask[None, None], grid, align_corners=False)[0, 0]
    frames = [(0, 0, 60, 50), (7, 3, 41, 50), (0, 0, 0, 0)] * 3
    crops = paste_probs(probs, boxes, frames, mode=mode)
    for crop, whole, (left, top, right, bottom) in zip(crops, full, frames, strict=True):
        torch.testing.assert_close(crop, whole[top:bottom, left:right], atol=2e-5, rtol=0)


@pytest.mark.parametrize("mode", ["grid", "torchvision"])
def test_boxes_that_show_nothing(mode: str) -> None:
    inf, nan = float("inf"), float("nan")
    boxes = torch.tensor(
        [[-50, 3, -40, 9], [3, 70, 9, 80], [99, 99, 120, 120], [0, 0, inf, 5], [nan, 0, 4, 4]]
    )
    masks = paste_masks(torch.ones(5, 4, 4), boxes, (20, 30), mode=mode)
    assert masks.shape == (5, 20, 30)
    assert not masks.any()
    assert paste_rle(torch.ones(5, 4, 4), boxes, (20, 30), mode=mode) == full_codes(masks)


def test_many_large_masks_are_coded_in_parts() -> None:
    """Of 40 masks of 6 megapixels, never all are in memory: tracemalloc counts what NumPy holds."""
    size = (2000, 3000)
    boxes = torch.tensor([[5.0 * k, 3 * k, 3000, 2000] for k in range(40)])
    probs = torch.rand(40, 28, 28, generator=torch.Generator().manual_seed(0))
    tracemalloc.start()
    codes = paste_rle(probs, boxes, size)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * 2**20
    one = [paste_rle(probs[k : k + 1], boxes[k : k + 1], size)[0] for k in (0, 17, 39)]
    assert [codes[k] for k in (0, 17, 39)] == one


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("mode", ["grid", "torchvision"])
def test_a_broken_mask_leaves_the_others_alone(mode: str, bad: float) -> None:
    probs = torch.rand(3, 28, 28, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[5.0, 5, 40, 40], [10, 10, 50, 30], [3.3, 4.4, 60, 60]])
    alone = paste_masks(probs, boxes, (64, 64), mode=mode)
    broken = probs.clone()
    broken[0] = bad
    masks = paste_masks(broken, boxes, (64, 64), mode=mode)
    assert torch.equal(masks[1:], alone[1:])
    assert alone[1:].flatten(1).any(1).all()
    if mode == "grid" and bad != bad:
        assert torch.equal(masks, full_grid(broken, boxes, (64, 64), 0.5))


@pytest.mark.parametrize("mode", ["grid", "torchvision"])
def test_no_masks(mode: str) -> None:
    assert paste_masks(torch.zeros(0, 4, 4), torch.zeros(0, 4), (5, 6), mode=mode).shape == (
        (0, 5, 6)
    )
    assert paste_rle(torch.zeros(0, 4, 4), torch.zeros(0, 4), (5, 6), mode=mode) == []


@pytest.mark.parametrize("thresh", [0.05, 0.3, 0.9])
def test_other_thresholds(thresh: float) -> None:
    draw = torch.Generator().manual_seed(0)
    probs = torch.rand(4, 14, 14, generator=draw)
    boxes = torch.tensor([[5.5, 4, 30, 40], [0, 0, 50, 50], [10, 10, 13, 13], [20.2, 1, 49, 9]])
    want = full_grid(probs, boxes, (50, 60), thresh)
    assert torch.equal(paste_masks(probs, boxes, (50, 60), thresh=thresh), want)
    want = full_torchvision(probs, boxes, (50, 60), thresh)
    got = paste_masks(probs, boxes, (50, 60), thresh=thresh, mode="torchvision")
    assert torch.equal(got, want)


def test_wrong_arguments_are_named() -> None:
    probs, boxes = torch.ones(1, 4, 4), torch.zeros(1, 4)
    with pytest.raises(ValueError, match="mode"):
        paste_masks(probs, boxes, (5, 5), mode="exact")
    with pytest.raises(ValueError, match="thresh"):
        paste_masks(probs, boxes, (5, 5), thresh=0.0)
    with pytest.raises(ValueError, match=r"probs \(N, M, M\)"):
        paste_rle(probs[:, None], boxes, (5, 5))


def draw_scene(
    height: int, width: int, largest: int, seed: int
) -> tuple[Tensor, PackedMasks, Tensor]:
    """Return full masks (2, 5, H, W), the same packed, and their frames as boxes."""
    draw = torch.Generator().manual_seed(seed)
    full = torch.zeros(2, 5, height, width, dtype=torch.bool)
    frames = torch.zeros(2, 5, 4, dtype=torch.int64)
    offsets = torch.zeros(2, 5, dtype=torch.int64)
    data, total = [], 0
    for b in range(2):
        for k in range(4):  # the last slot has no mask
            x1 = int(torch.randint(0, width, (), generator=draw))
            y1 = int(torch.randint(0, height, (), generator=draw))
            w, h = torch.randint(1, largest, (2,), generator=draw).tolist()
            x2, y2 = min(x1 + w, width), min(y1 + h, height)
            crop = torch.rand(y2 - y1, x2 - x1, generator=draw) > 0.4
            full[b, k, y1:y2, x1:x2] = crop
            frames[b, k] = torch.tensor([x1, y1, x2, y2])
            offsets[b, k] = total
            data.append(crop.flatten().to(torch.uint8))
            total += crop.numel()
    return full, PackedMasks(torch.cat(data), offsets, frames), frames.float()


def draw_rois(frames: Tensor, slots: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes around the frames, moved and scaled, the frame of each, and validity."""
    draw = torch.Generator().manual_seed(seed)
    gt_index = torch.randint(0, frames.shape[1], (2, slots), generator=draw)
    boxes = frames.gather(1, gt_index[..., None].expand(2, slots, 4))
    scale = (boxes[..., 2:] - boxes[..., :2]).repeat(1, 1, 2) * 0.2
    boxes = boxes + torch.randn(2, slots, 4, generator=draw) * scale
    boxes[:, 0] = boxes[:, 0, [2, 3, 0, 1]]  # reversed
    boxes[:, 1] += 1000  # far away from everything
    return boxes, gt_index, torch.rand(2, slots, generator=draw) < 0.8


@pytest.mark.parametrize(
    ("height", "width", "largest"), [(60, 90, 30), (5, 200, 100), (350, 300, 300)]
)
@pytest.mark.parametrize(
    ("size", "ratio", "aligned"), [(28, 0, True), (14, 2, True), (28, 0, False), (7, 1, True)]
)
def test_crops_equal_roi_align_on_full_masks(
    height: int, width: int, largest: int, size: int, ratio: int, aligned: bool
) -> None:
    full, packed, frames = draw_scene(height, width, largest, 0)
    boxes, gt_index, valid = draw_rois(frames, 30, 1)
    options = {"sampling_ratio": ratio, "aligned": aligned}
    sizes = torch.tensor([[height, width]] * 2)
    ended = crop_masks(packed, boxes, gt_index, valid, size, image_sizes=sizes, **options)
    open_ended = crop_masks(packed, boxes, gt_index, valid, size, **options)
    for b in range(2):
        rois = torch.cat([gt_index[b, :, None], boxes[b]], 1)
        for got, margin in ((ended, 0), (open_ended, 1500)):
            canvas = F.pad(full[b, :, None].float(), (0, margin, 0, margin))
            want = roi_align(canvas, rois, size, 1.0, ratio or -1, aligned)[:, 0]
            want = want * valid[b, :, None, None]
            torch.testing.assert_close(got[b], want, rtol=0, atol=1e-5)


def test_no_masks_give_zero_targets() -> None:
    packed = PackedMasks(
        torch.zeros(0, dtype=torch.uint8), torch.zeros(1, 0).long(), torch.zeros(1, 0, 4).long()
    )
    valid = torch.zeros(1, 3, dtype=torch.bool)
    out = crop_masks(packed, torch.zeros(1, 3, 4), torch.zeros(1, 3).long(), valid, 28)
    assert out.shape == (1, 3, 28, 28)
    assert not out.any()


class Targets(nn.Module):
    """Mask targets as a module."""

    def forward(self, masks: PackedMasks, boxes: Tensor, index: Tensor, valid: Tensor) -> Tensor:
        return crop_masks(masks, boxes * 1.5, index, valid, 14) * 2


def test_crops_go_into_graphs_and_ignore_autocast() -> None:
    _, packed, frames = draw_scene(60, 90, 40, 2)
    args = (packed, *draw_rois(frames, 8, 3))
    want = Targets()(*args)
    compiled = torch.compile(Targets(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*args), want)
    torch.testing.assert_close(torch.export.export(Targets(), args).module()(*args), want)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(Targets()(*args), want)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_cpu() -> None:
    _, packed, frames = draw_scene(350, 300, 300, 0)
    boxes, gt_index, valid = draw_rois(frames, 30, 1)
    want = crop_masks(packed, boxes, gt_index, valid, 28)
    got = crop_masks(packed.to("cuda"), boxes.cuda(), gt_index.cuda(), valid.cuda(), 28)
    torch.testing.assert_close(got.cpu(), want, rtol=0, atol=1e-5)
    probs, box = torch.rand(4, 28, 28), boxes[0, 2:6]
    pasted = paste_masks(probs.cuda(), box.cuda(), (350, 300)).cpu()
    assert (pasted != paste_masks(probs, box, (350, 300))).sum() <= 2
