"""Position-sensitive RoI pooling against torchvision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from maskwright.ops import ps_roi_align, ps_roi_pool

H, W, STRIDE = 13, 17, 16


def draw(seed: int, count: int = 40) -> tuple[Tensor, Tensor]:
    """Boxes inside, across and beyond the border, tiny, empty and reversed."""
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(count, 4, generator=generator) * torch.tensor([W, H, W, H]) * STRIDE * 1.4
    boxes -= 0.2 * H * STRIDE
    tidy = torch.cat([torch.minimum(boxes[:, :2], boxes[:, 2:]), boxes[:, 2:]], 1)
    boxes[::2] = tidy[::2]
    boxes[1] = torch.tensor([0.0, 0, W * STRIDE, H * STRIDE])
    boxes[2, 2:] = boxes[2, :2] + 0.3
    boxes[3, 2:] = boxes[3, :2]
    return boxes, torch.randint(0, 2, (count,), generator=generator)


def theirs(kind: str, x: Tensor, boxes: Tensor, index: Tensor, size: Any, ratio: int) -> Tensor:
    rois = torch.cat([index[:, None].to(boxes), boxes], 1)
    if kind == "pool":
        return torchvision.ops.ps_roi_pool(x, rois, size, 1 / STRIDE)
    return torchvision.ops.ps_roi_align(x, rois, size, 1 / STRIDE, ratio or -1)


def ours(kind: str, x: Tensor, boxes: Tensor, index: Tensor, size: Any, ratio: int) -> Tensor:
    if kind == "pool":
        return ps_roi_pool(x, boxes, index, stride=STRIDE, output_size=size)
    return ps_roi_align(x, boxes, index, stride=STRIDE, output_size=size, sampling_ratio=ratio)


CASES = [("pool", 1), ("align", 2), ("align", 1), ("align", 0)]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("count", [4, 40])  # few boxes are planned another way
@pytest.mark.parametrize("size", [3, 7, (2, 5)])
@pytest.mark.parametrize(("kind", "ratio"), CASES)
def test_equals_torchvision(
    kind: str, ratio: int, size: Any, count: int, channels_last: bool
) -> None:
    h, w = (size, size) if isinstance(size, int) else size
    boxes, index = draw(0, count)
    if kind == "align" and ratio == 0:
        # torchvision fails on boxes with negative sides and divides by zero on empty ones.
        boxes[:, 2:] = torch.maximum(boxes[:, :2] + 0.1, boxes[:, 2:])
    x = torch.randn(2, 5 * h * w, H, W)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    mine, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    found = ours(kind, mine, boxes, index, size, ratio)
    expected = theirs(kind, other, boxes, index, size, ratio)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    grad = torch.randn_like(expected)
    found.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(mine.grad, other.grad, rtol=1e-5, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    corners=st.lists(st.floats(-100, 400, width=32), min_size=4, max_size=4),
    size=st.integers(1, 4),
    kind=st.sampled_from(["pool", "align"]),
)
def test_any_box(corners: list[float], size: int, kind: str) -> None:
    boxes, index = torch.tensor([corners]), torch.zeros(1, dtype=torch.int64)
    x = torch.randn(1, 2 * size * size, H, W, generator=torch.Generator().manual_seed(0))
    found = ours(kind, x, boxes, index, size, 2)
    torch.testing.assert_close(found, theirs(kind, x, boxes, index, size, 2), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "ratio"), CASES)
def test_gradients_in_double_precision(kind: str, ratio: int) -> None:
    boxes, index = draw(1, 5)
    boxes[:, 2:] = torch.maximum(boxes[:, :2], boxes[:, 2:])
    if kind == "pool":  # the last line and column have torchvision's gradient, not the true one
        boxes = boxes.clamp(max=(min(H, W) - 2) * STRIDE)
    x = torch.randn(2, 2 * 4, H, W, dtype=torch.float64, requires_grad=True)
    # One random direction in place of all 8 x H x W: a wrong gradient differs there too.
    assert torch.autograd.gradcheck(
        lambda t: ours(kind, t, boxes.double(), index, 2, ratio), x, fast_mode=True
    )


def test_empty_boxes_give_zeros_where_torchvision_divides_by_zero() -> None:
    boxes, index = torch.tensor([[40.0, 40, 40, 40], [40, 40, 90, 90]]), torch.zeros(2).long()
    found = ours("align", torch.ones(1, 18, H, W), boxes, index, 3, 0)
    torch.testing.assert_close(found, torch.tensor([0.0, 1]).view(2, 1, 1, 1).expand_as(found))


def test_constant_maps_give_their_constant() -> None:
    """Bin (i, j) of class c reads the channel (c * h + i) * w + j and no other."""
    x = torch.arange(3 * 6.0).view(1, -1, 1, 1).expand(1, 18, H, W).contiguous()
    boxes, index = torch.tensor([[20.0, 20, 180, 140]]), torch.zeros(1, dtype=torch.int64)
    for kind in ("pool", "align"):
        found = ours(kind, x, boxes, index, (2, 3), 2)
        torch.testing.assert_close(found, torch.arange(18.0).view(1, 3, 2, 3))


def test_no_boxes_no_images_and_compile() -> None:
    none = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    x = torch.randn(2, 18, H, W, requires_grad=True)
    out = ours("pool", x, *none, 3, 1)
    assert out.shape == (0, 2, 3, 3)
    out.sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))
    boxes, index = draw(2)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    for kind in ("pool", "align"):
        torch.testing.assert_close(
            compiled(kind, x, boxes, index, 3, 2), ours(kind, x, boxes, index, 3, 2)
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": torch.zeros(1, 17, 4, 4)}, "C \\* 9"),
        ({"features": torch.zeros(1, 18, 4, 4, dtype=torch.int64)}, "floating-point"),
        ({"boxes": torch.zeros(2, 5)}, "xyxy"),
        ({"batch_index": torch.zeros(3, dtype=torch.int64)}, "batch_index"),
        ({"batch_index": torch.ones(2, dtype=torch.int64)}, "expected 0 to 0"),
        ({"stride": 0}, "stride"),
        ({"output_size": 0}, "output_size"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    options: dict[str, Any] = {
        "features": torch.zeros(1, 18, 4, 4),
        "boxes": torch.zeros(2, 4),
        "batch_index": torch.zeros(2, dtype=torch.int64),
        "stride": 4,
        "output_size": 3,
    }
    for function in (ps_roi_pool, ps_roi_align):
        given = {**options, **change}
        with pytest.raises(ValueError, match=message):
            function(given.pop("features"), given.pop("boxes"), given.pop("batch_index"), **given)
    with pytest.raises(ValueError, match="sampling_ratio"):
        given = dict(options)
        features, boxes, index = (given.pop(k) for k in ("features", "boxes", "batch_index"))
        ps_roi_align(features, boxes, index, **given, sampling_ratio=-1)


@pytest.mark.parametrize("kind", ["pool", "align"])
def test_boxes_that_are_not_finite_give_zeros(kind: str) -> None:
    x = torch.rand(1, 18, 24, 34, requires_grad=True)
    boxes = torch.tensor([[1.0, 1, 20, 20], [float("nan"), 1, 9, 9], [1, 1, float("inf"), 9]])
    index = torch.zeros(3, dtype=torch.int64)
    out = ours(kind, x, boxes, index, (3, 3), 2)
    assert torch.equal(out[:1], ours(kind, x, boxes[:1], index[:1], (3, 3), 2))
    assert not out[1:].any()
    out.sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()
