"""Box functions against torchvision, its coder, and plain formulas."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision.ops as tv
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder

from maskwright.ops import (
    box_area,
    box_ioa,
    box_iou,
    boxes,
    clip_boxes,
    complete_box_iou,
    decode_deltas,
    distance_box_iou,
    encode_deltas,
    generalized_box_iou,
)


def random_boxes(count: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=draw) * 100
    return torch.cat([corner, corner + 1 + torch.rand(count, 2, generator=draw) * 60], 1)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (box_iou, tv.box_iou),
        (generalized_box_iou, tv.generalized_box_iou),
        (distance_box_iou, tv.distance_box_iou),
        (complete_box_iou, tv.complete_box_iou),
    ],
)
def test_iou_family_equals_torchvision(ours, theirs) -> None:
    a, b = random_boxes(30, 0), random_boxes(40, 1)
    torch.testing.assert_close(ours(a, b), theirs(a, b), rtol=1e-5, atol=1e-6)
    batched = ours(a.view(2, 15, 4), b.view(2, 20, 4))
    torch.testing.assert_close(batched[1], theirs(a[15:], b[20:]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "iou", [box_iou, box_ioa, generalized_box_iou, distance_box_iou, complete_box_iou]
)
def test_empty_and_reversed_boxes_give_finite_values_and_gradients(iou) -> None:
    odd = torch.tensor([[0.0, 0, 0, 0], [5, 5, 5, 9], [8, 8, 2, 3], [0, 0, 10, 10]])
    odd.requires_grad_()
    value = iou(odd, odd.detach())
    value.sum().backward()
    assert value.isfinite().all()
    assert odd.grad is not None
    assert odd.grad.isfinite().all()
    assert (value <= 1).all()


def test_no_boxes() -> None:
    none = torch.zeros(0, 4)
    assert box_iou(none, random_boxes(3, 0)).shape == (0, 3)
    assert box_ioa(random_boxes(3, 0), none).shape == (3, 0)


def test_area_and_ioa_by_hand() -> None:
    a = torch.tensor([[0.0, 0, 4, 2], [0, 0, 0, 5], [3, 3, 1, 1]])
    b = torch.tensor([[2.0, 0, 10, 10]])
    assert box_area(a).tolist() == [8, 0, 0]
    assert box_ioa(a, b).tolist() == [[0.5], [0], [0]]
    assert box_iou(a[:1], b).item() == pytest.approx(4 / (8 + 80 - 4))


def test_clip_equals_torchvision() -> None:
    wild = random_boxes(50, 2) * 3 - 100
    want = tv.clip_boxes_to_image(wild, (60, 90))
    assert torch.equal(clip_boxes(wild, (60, 90)), want)
    sizes = torch.tensor([[60, 90], [30, 40]])
    per_image = clip_boxes(torch.stack([wild, wild]), sizes[:, None])
    assert torch.equal(per_image[0], want)
    assert torch.equal(per_image[1], tv.clip_boxes_to_image(wild, (30, 40)))


@pytest.mark.parametrize("other", ["cxcywh", "xywh"])
def test_format_changes_equal_torchvision(other: str) -> None:
    xyxy = random_boxes(20, 3)
    there = getattr(boxes, f"boxes_xyxy_to_{other}")(xyxy)
    torch.testing.assert_close(there, tv.box_convert(xyxy, "xyxy", other))
    torch.testing.assert_close(getattr(boxes, f"boxes_{other}_to_xyxy")(there), xyxy)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
def test_codec_equals_torchvision(weights: tuple[float, float, float, float]) -> None:
    anchors, target = random_boxes(50, 4), random_boxes(50, 5)
    coder = BoxCoder(weights)
    deltas = encode_deltas(target, anchors, weights)
    torch.testing.assert_close(deltas, coder.encode_single(target, anchors), rtol=1e-5, atol=1e-5)
    wild = deltas + torch.randn(50, 4, generator=torch.Generator().manual_seed(6)) * 5
    torch.testing.assert_close(
        decode_deltas(wild, anchors, weights), coder.decode_single(wild, anchors)
    )


coordinate = st.floats(-1000, 1000, width=32)
side = st.floats(0.5, 1000, width=32)


@settings(max_examples=100, deadline=None)
@given(start=st.tuples(coordinate, coordinate, side, side), end=st.tuples(*[coordinate] * 2, side))
def test_decode_undoes_encode(start: tuple[float, ...], end: tuple[float, float, float]) -> None:
    anchor = torch.tensor([start[0], start[1], start[0] + start[2], start[1] + start[3]]).double()
    box = torch.tensor([end[0], end[1], end[0] + end[2], end[1] + end[2] / 2 + 0.5]).double()
    deltas = encode_deltas(box, anchor, (10, 10, 5, 5))
    back = decode_deltas(deltas, anchor, (10, 10, 5, 5), clamp=20.0)
    torch.testing.assert_close(back, box, rtol=1e-6, atol=1e-6)


def test_clamp_bounds_growth_and_shrinking() -> None:
    anchor = torch.tensor([[0.0, 0, 10, 10]])
    huge, tiny = torch.tensor([[0.0, 0, 99, 99]]), torch.tensor([[0.0, 0, -99, -99]])
    width = decode_deltas(huge, anchor)[0, 2] - decode_deltas(huge, anchor)[0, 0]
    assert width.item() == pytest.approx(10 * 1000 / 16, rel=1e-5)
    low = math.log(0.5)
    shrunk = decode_deltas(tiny, anchor, clamp=(low, 1.0))
    assert (shrunk[0, 2] - shrunk[0, 0]).item() == pytest.approx(5, rel=1e-5)


def test_padding_encodes_to_finite_values() -> None:
    zeros = torch.zeros(3, 4)
    assert encode_deltas(zeros, random_boxes(3, 0)).isfinite().all()
    assert encode_deltas(random_boxes(3, 0), zeros).isfinite().all()
