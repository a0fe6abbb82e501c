"""What all operators take alike: number types of boxes, integers of any type, maps with pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision.ops as tv
from torch import Tensor

from maskwright import ops
from maskwright.nn.detection.matchers import IoUMatcher
from maskwright.ops.boxes import (
    boxes_cxcywh_to_xyxy,
    boxes_xywh_to_xyxy,
    boxes_xyxy_to_cxcywh,
    boxes_xyxy_to_xywh,
)
from maskwright.ops.overlaps import best_overlaps
from maskwright.structures import PackedMasks

# Whole numbers that float16, bfloat16 and the integers hold exactly; areas beyond float16's 65504.
BOXES = torch.tensor([[0.0, 0, 512, 512], [0, 0, 256, 512], [128, 64, 640, 640], [8, 8, 40, 24]])
NARROW = [torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16]
INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
PAIRWISE: list[Callable[..., Tensor]] = [
    ops.box_iou, ops.box_ioa, ops.generalized_box_iou, ops.distance_box_iou,
    ops.complete_box_iou, ops.encode_deltas,
]  # fmt: skip
SINGLE: list[Callable[..., Tensor]] = [
    ops.box_area, boxes_xyxy_to_cxcywh, boxes_cxcywh_to_xyxy, boxes_xyxy_to_xywh,
    boxes_xywh_to_xyxy, lambda b: ops.clip_boxes(b, (300, 301)),
    lambda b: ops.clip_boxes(b, torch.tensor([300, 301])),
]  # fmt: skip


@pytest.mark.parametrize("dtype", NARROW)
def test_boxes_of_any_number_type_are_computed_in_float32(dtype: torch.dtype) -> None:
    narrow = BOXES.to(dtype)
    assert torch.equal(narrow.float(), BOXES)
    for function in PAIRWISE:
        for other in (narrow, BOXES):
            assert torch.equal(function(narrow, other), function(BOXES, BOXES))
            assert torch.equal(function(other, narrow), function(BOXES, BOXES))
    for function in SINGLE:
        assert torch.equal(function(narrow), function(BOXES))
        assert function(narrow).dtype == torch.float32
    torch.testing.assert_close(ops.box_iou(narrow, narrow), tv.box_iou(BOXES, BOXES))
    giou = tv.generalized_box_iou(BOXES, BOXES)
    torch.testing.assert_close(ops.generalized_box_iou(narrow, narrow), giou)
    deltas = torch.tensor([[0.5, -0.25, 1, 0]] * 4)
    decoded = ops.decode_deltas(deltas.to(torch.float16), narrow, (10, 10, 5, 5))
    assert torch.equal(decoded, ops.decode_deltas(deltas, BOXES, (10, 10, 5, 5)))


def test_float64_keeps_its_digits() -> None:
    fine = BOXES.double() + 1e-9
    for function in PAIRWISE:
        assert function(fine, fine).dtype == torch.float64
        assert function(fine, BOXES).dtype == torch.float64
    for function in SINGLE:
        assert function(fine).dtype == torch.float64


@pytest.mark.parametrize("dtype", NARROW)
def test_nms_and_matching_of_any_number_type(dtype: torch.dtype) -> None:
    narrow, scores = BOXES.to(dtype), torch.tensor([0.5, 0.75, 0.875, 0.75])
    labels = torch.tensor([0, 0, 1, 1])
    for thresh in (0.3, 0.5, 0.6):
        kept, by_label = (
            tv.nms(BOXES, scores, thresh),
            tv.batched_nms(BOXES, scores, labels, thresh),
        )
        for theirs in (scores, scores.to(torch.float16), scores.double(), (scores * 8).long()):
            assert torch.equal(ops.nms(narrow, theirs, thresh), kept)
            assert torch.equal(ops.batched_nms(narrow, theirs, labels, thresh), by_label)
            index, valid = ops.nms_padded(
                narrow[None], theirs[None], torch.ones(1, 4, dtype=torch.bool), thresh, 4
            )
            assert torch.equal(index[valid], kept)
    exact, soft = (
        ops.soft_nms_padded(
            boxes[None], score[None], torch.ones(1, 4, dtype=torch.bool), rule, 0.3, 4
        )
        for rule in [ops.SoftNMS()]
        for boxes, score in ((BOXES, scores), (narrow, scores.to(torch.float16)))
    )
    for one, other in zip(exact, soft, strict=True):
        assert torch.equal(one, other) and one.dtype == other.dtype
    valid, crowd = torch.ones(1, 4, dtype=torch.bool), torch.tensor([[False, False, False, True]])
    expected = best_overlaps(BOXES, BOXES[None], valid, crowd)
    for first, second in ((narrow, narrow), (narrow, BOXES), (BOXES, narrow)):
        for one, other in zip(
            best_overlaps(first, second[None], valid, crowd), expected, strict=True
        ):
            assert torch.equal(one, other) and one.dtype == other.dtype
        match = IoUMatcher(0.7, 0.3)(first, second[None], valid)
        assert match.slot.tolist() == [[0, 1, 2, 3]] and match.state.tolist() == [[1, 1, 1, 1]]


def test_many_boxes_keep_their_rank_in_half_types() -> None:
    """More boxes than float16 has whole numbers: none suppressed, in the order of the scores."""
    count = 5000
    left = torch.arange(count) % 60 * 32.0
    top = torch.arange(count) // 60 * 16.0
    boxes = torch.stack([left, top, left + 8, top + 8], 1)
    scores = torch.rand(count, generator=torch.Generator().manual_seed(0))
    expected = scores.argsort(descending=True, stable=True)
    assert torch.equal(boxes.half().float(), boxes)
    assert torch.equal(ops.nms(boxes.half(), scores, 0.5), expected)
    assert torch.equal(ops.batched_nms(boxes.half(), scores, expected % 3, 0.5), expected)


# Each pooling function on one map: its channels per output channel, and the call.
POOLS: dict[str, tuple[int, Callable[..., Tensor]]] = {
    "roi_align": (1, lambda f, b, i: ops.roi_align(f, b, i, strides=[4], output_size=2)),
    "roi_align adaptive": (
        1, lambda f, b, i: ops.roi_align(
            f, b, i, strides=[4], output_size=2, sampling_ratio=0, aligned=False)),
    "roi_pool": (1, lambda f, b, i: ops.roi_pool(f, b, i, stride=4, output_size=2)),
    "ps_roi_pool": (4, lambda f, b, i: ops.ps_roi_pool(f, b, i, stride=4, output_size=2)),
    "ps_roi_align": (4, lambda f, b, i: ops.ps_roi_align(f, b, i, stride=4, output_size=2)),
}  # fmt: skip


@pytest.fixture(params=POOLS)
def pool(request: pytest.FixtureRequest) -> tuple[int, Callable[..., Tensor]]:
    return POOLS[request.param]


def test_images_by_integers_of_any_type(pool: tuple[int, Callable[..., Tensor]]) -> None:
    parts, call = pool
    maps = torch.rand(3, 3 * parts, 20, 20, generator=torch.Generator().manual_seed(0))
    boxes, index = BOXES / 10, torch.tensor([0, 2, 1, 2])
    expected = call(maps, boxes, index)
    unsigned = [torch.uint16, torch.uint32, torch.uint64]
    for dtype in INTEGERS + unsigned:
        assert torch.equal(call(maps, boxes, index.to(dtype)), expected)
    for dtype in (torch.float32, torch.float16, torch.float64, torch.bool, torch.complex64):
        with pytest.raises(ValueError, match="batch_index: expected integers, got"):
            call(maps, boxes, index.to(dtype))
    for wrong in (torch.tensor([0, 3, 1, 2]), torch.tensor([0, -1, 1, 2])):
        with pytest.raises(ValueError, match="batch_index: expected 0 to 2"):
            call(maps, boxes, wrong)
    with pytest.raises(ValueError, match=r"batch_index: expected \(4,\)"):
        call(maps, boxes, index[:3])


def test_levels_by_integers_of_any_type() -> None:
    maps = [torch.rand(2, 3, side, side) for side in (32, 16, 8)]
    index, levels = torch.tensor([0, 1, 1, 0]), torch.tensor([0, 2, 1, 5])
    call: Any = lambda i, v: ops.roi_align(  # noqa: E731
        maps, BOXES / 10, i, strides=[4, 8, 16], output_size=2, levels=v
    )
    expected = call(index, levels)
    assert not expected[3].any()
    for one in INTEGERS:
        for other in INTEGERS:
            assert torch.equal(call(index.to(one), levels.to(other)), expected)
    for dtype in (torch.float32, torch.bool):
        with pytest.raises(ValueError, match="levels: expected integers"):
            call(index, levels.to(dtype))


@pytest.mark.parametrize("dtype", NARROW)
def test_pooling_of_boxes_of_any_number_type(
    pool: tuple[int, Callable[..., Tensor]], dtype: torch.dtype
) -> None:
    parts, call = pool
    maps = torch.rand(1, 3 * parts, 20, 20, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[0.0, 0, 64, 64], [8, 16, 40, 24], [-8, 2, 90, 70]])
    index = torch.zeros(3, dtype=torch.int64)
    assert torch.equal(call(maps, boxes.to(dtype), index), call(maps, boxes, index))


def test_the_level_of_a_large_box_in_half_types() -> None:
    maps = [torch.full((1, 1, 512 // s, 512 // s), float(s)) for s in (4, 8, 16, 32)]
    boxes = torch.tensor([[0.0, 0, 304, 304]])  # 304^2 is beyond float16: it would be the coarsest
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.int32):
        found = ops.roi_align(
            maps, boxes.to(dtype), torch.zeros(1).long(), strides=(4, 8, 16, 32), output_size=1
        )
        assert found.item() == 16


@pytest.mark.parametrize("gradient", [False, True])
def test_maps_without_pixels_are_refused(
    pool: tuple[int, Callable[..., Tensor]], gradient: bool
) -> None:
    parts, call = pool
    for count in (0, 2):
        boxes, index = BOXES[:count], torch.zeros(count, dtype=torch.int64)
        for height, width in ((0, 0), (0, 5), (5, 0)):
            for images in (0, 1):
                maps = torch.rand(images, 2 * parts, height, width, requires_grad=gradient)
                with pytest.raises(ValueError, match="maps with at least one pixel"):
                    call(maps, boxes, index)
        # Without channels there is nothing to pool, and no fault.
        empty = torch.rand(1, 0, 5, 5, requires_grad=gradient)
        assert call(empty, boxes, index).shape == (count, 0, 2, 2)
    maps = torch.rand(2, 2 * parts, 5, 5, requires_grad=gradient)
    found = call(maps, BOXES[:0], torch.zeros(0, dtype=torch.int64))
    assert found.shape == (0, 2, 2, 2)
    if gradient:
        found.sum().backward()
        assert maps.grad is not None and not maps.grad.any()
    with pytest.raises(ValueError, match="batch_index: expected 0 to -1"):
        call(maps[:0], BOXES[:1], torch.zeros(1, dtype=torch.int64))


def test_coarse_maps_without_pixels_are_refused() -> None:
    maps = [torch.rand(1, 2, 8, 8), torch.rand(1, 2, 0, 4)]
    with pytest.raises(ValueError, match=r"at least one pixel.*\(1, 2, 0, 4\)"):
        ops.roi_align(maps, BOXES, torch.zeros(4).long(), strides=[4, 8], output_size=2)


@pytest.mark.parametrize("size", [0, -1, (0, 2), (2, 0), (2, 2, 2), 2.0, (2, 2.5), "2"])
def test_sizes_of_no_bins_are_refused(size: Any) -> None:
    index = torch.zeros(4).long()
    maps = torch.rand(1, 4, 8, 8)
    for call in (
        lambda: ops.roi_align(maps, BOXES, index, strides=[4], output_size=size),
        lambda: ops.roi_pool(maps, BOXES, index, stride=4, output_size=size),
        lambda: ops.ps_roi_pool(maps, BOXES, index, stride=4, output_size=size),
        lambda: ops.ps_roi_align(maps, BOXES, index, stride=4, output_size=size),
    ):
        with pytest.raises(ValueError, match="output_size: expected one or two positive"):
            call()


def test_nothing_gives_nothing_and_squares_have_a_side() -> None:
    for mode in ("grid", "torchvision"):
        assert ops.paste_masks(torch.rand(0, 3, 3), BOXES[:0], (4, 5), mode=mode).shape == (0, 4, 5)
        with pytest.raises(ValueError, match="M from 1 on"):
            ops.paste_masks(torch.rand(4, 0, 0), BOXES, (4, 5), mode=mode)
        with pytest.raises(ValueError, match="M from 1 on"):
            ops.paste_rle(torch.rand(0, 0, 0), BOXES[:0], (4, 5), mode=mode)
    assert ops.locate_keypoints(torch.rand(4, 0, 3, 3), BOXES).shape == (4, 0, 3)
    assert ops.locate_keypoints(torch.rand(0, 2, 3, 3), BOXES[:0]).shape == (0, 2, 3)
    with pytest.raises(ValueError, match="M from 1 on"):
        ops.locate_keypoints(torch.rand(4, 2, 0, 0), BOXES)
    index = torch.zeros(1, 1, dtype=torch.int64)
    masks = PackedMasks(torch.ones(16, dtype=torch.uint8), index, torch.tensor([[[0, 0, 4, 4]]]))
    box, valid = torch.tensor([[[0.0, 0, 4, 4]]]), torch.ones(1, 1, dtype=torch.bool)
    for dtype in INTEGERS:
        assert bool(ops.crop_masks(masks, box, index.to(dtype), valid, 2).all())
    for dtype in (torch.bool, torch.float32):
        with pytest.raises(ValueError, match="gt_index: expected integers"):
            ops.crop_masks(masks, box, index.to(dtype), valid, 2)
    with pytest.raises(ValueError, match="size: expected 1 or more"):
        ops.crop_masks(masks, box, index, valid, 0)
