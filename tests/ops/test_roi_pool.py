"""RoIPool against torchvision's kernel."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import roi_pool as torchvision_roi_pool

from maskwright.ops import roi_pool
from maskwright.ops.pooling import roi_gather

# The package has a function of the same name.
module = importlib.import_module("maskwright.ops.pooling.roi_pool")
HEIGHT, WIDTH = 24, 34


@pytest.fixture(params=["channels_last", "planar"])
def memory(request: pytest.FixtureRequest) -> torch.memory_format:
    return torch.channels_last if request.param == "channels_last" else torch.contiguous_format


def draw_map(memory: torch.memory_format, *, ties: bool = False, channels: int = 5) -> Tensor:
    torch.manual_seed(1)
    fmap = torch.randn(2, channels, HEIGHT, WIDTH)
    if ties:
        fmap = fmap.round().relu()
    return fmap.contiguous(memory_format=memory)


def draw_boxes(stride: float = 1.0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(2)
    side = torch.exp(torch.rand(40, 2) * 5 - 2)
    centre = torch.rand(40, 2) * torch.tensor([WIDTH * 1.2, HEIGHT * 1.2]) - 2
    awkward = [
        (10, 10, 10, 10),
        (0, 0, WIDTH, HEIGHT),
        (-90, -50, 120, 100),
        (-30, -20, -8, -9),
        (20, 12, 9, 4),  # reversed
        (20, 4, 9, 12),
        (2.5, 3.5, 6.5, 4.5),  # halves round away from zero
        (-0.5, -1.5, 5, 5),
    ]
    random = torch.cat([centre - side / 2, centre + side / 2], 1)
    boxes = torch.cat([torch.tensor(awkward, dtype=torch.float32), random]) * stride
    return boxes, torch.arange(len(boxes)) % 2


def check(fmap: Tensor, boxes: Tensor, index: Tensor, stride: int, size: tuple[int, int]) -> None:
    """Compare values to the bit, by tables and by torchvision's kernel, gradients to 1e-5."""
    ours, theirs = (fmap.clone().requires_grad_() for _ in range(2))
    out = roi_pool(ours, boxes, index, stride=stride, output_size=size)
    rois = torch.cat([index[:, None], boxes], 1).to(fmap)
    want = torchvision_roi_pool(theirs.contiguous(), rois, size, 1 / stride)
    assert torch.equal(out, want)
    for fixed in (-1e9, 1e9):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_FIXED", fixed)
            pooled = roi_pool(fmap, boxes, index, stride=stride, output_size=size)
        assert torch.equal(pooled, want)
    assert out.is_contiguous()
    grad = torch.randn_like(want)
    out.backward(grad)
    want.backward(grad)
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-5, check_stride=False)
    assert ours.grad is not None and ours.grad.stride() == fmap.stride()


@pytest.mark.parametrize("size", [(7, 7), (3, 5), (1, 1), (14, 14)])
@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("ties", [False, True])
def test_equals_torchvision(
    memory: torch.memory_format, size: tuple[int, int], stride: int, ties: bool
) -> None:
    boxes, index = draw_boxes(stride)
    check(draw_map(memory, ties=ties), boxes, index, stride, size)


def test_every_height_of_box_is_quantised_alike() -> None:
    """Where a side over the number of bins rounds in float32, the last bin reaches further."""
    side = torch.arange(1.0, 400)
    boxes = torch.stack([torch.zeros(399), torch.zeros(399), side, side.flip(0)], 1)
    torch.manual_seed(0)
    fmap = torch.randn(1, 1, 400, 400)
    index = torch.zeros(399, dtype=torch.int64)
    out = roi_pool(fmap, boxes, index, stride=1, output_size=7)
    rois = torch.cat([index[:, None], boxes], 1)
    assert torch.equal(out, torchvision_roi_pool(fmap, rois, 7, 1.0))


def test_channels_are_copied_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roi_gather, "BUFFER_BYTES", 16 * 4 * HEIGHT * WIDTH)
    boxes, index = draw_boxes()
    check(draw_map(torch.contiguous_format, channels=40), boxes, index, 1, (7, 7))


def test_one_box(memory: torch.memory_format) -> None:
    boxes, index = draw_boxes()
    for at in range(len(boxes)):
        check(draw_map(memory), boxes[at : at + 1], index[at : at + 1], 1, (7, 7))


def test_no_boxes(memory: torch.memory_format) -> None:
    fmap = draw_map(memory).requires_grad_()
    none = torch.zeros(0, dtype=torch.int64)
    out = roi_pool(fmap, torch.zeros(0, 4), none, stride=4, output_size=(7, 3))
    assert out.shape == (0, 5, 7, 3)
    out.sum().backward()
    assert fmap.grad is not None and not fmap.grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types(memory: torch.memory_format, dtype: torch.dtype) -> None:
    boxes, index = draw_boxes()
    half = draw_map(memory).to(dtype).requires_grad_()
    full = half.detach().float().requires_grad_()
    out, want = (roi_pool(m, boxes, index, stride=1, output_size=7) for m in (half, full))
    grad = torch.randn_like(out)
    out.backward(grad)
    want.backward(grad.float())
    assert torch.equal(out, want.to(dtype))
    assert torch.equal(roi_pool(half.detach(), boxes, index, stride=1, output_size=7), out)
    assert half.grad is not None and full.grad is not None
    torch.testing.assert_close(half.grad, full.grad.to(dtype))


def test_gradcheck(memory: torch.memory_format) -> None:
    torch.manual_seed(0)
    fmap = torch.randperm(120, dtype=torch.float64).view(2, 2, 5, 6)
    fmap = fmap.contiguous(memory_format=memory).requires_grad_()
    boxes = torch.rand(8, 4, dtype=torch.float64) * 4
    boxes[:, 2:] += boxes[:, :2]
    index = torch.arange(8) % 2
    assert torch.autograd.gradcheck(
        lambda m: roi_pool(m, boxes, index, stride=1, output_size=(2, 3)), fmap
    )


@settings(deadline=None, max_examples=40)
@given(
    boxes=st.lists(
        st.tuples(*[st.integers(-80, 120).map(lambda v: v / 4)] * 4), min_size=1, max_size=12
    ),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
)
def test_any_box_equals_torchvision(boxes: list[tuple[float, ...]], size: tuple[int, int]) -> None:
    index = torch.zeros(len(boxes), dtype=torch.int64)
    check(draw_map(torch.channels_last)[:1], torch.tensor(boxes), index, 1, size)


def test_compiles_whole_with_gradients(memory: torch.memory_format) -> None:
    def step(fmap: Tensor, boxes: Tensor, index: Tensor) -> Tensor:
        out = roi_pool(fmap, boxes, index, stride=1, output_size=7)
        return out.permute(0, 2, 3, 1).flatten(1).square().mean()

    boxes, index = draw_boxes()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=True)
    for count in (40, 30):
        results = []
        for run in (step, compiled):
            leaf = draw_map(memory).requires_grad_()
            loss = run(leaf, boxes[:count], index[:count])
            loss.backward()
            results.append([loss, leaf.grad])
        torch.testing.assert_close(*results)
    torch._dynamo.reset()


def test_the_operator_keeps_its_promises(memory: torch.memory_format) -> None:
    boxes, index = draw_boxes()
    args = (draw_map(memory).requires_grad_(), boxes, index, 1, [7, 7], True)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.maskwright.roi_pool.default, args, test_utils=tests)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": torch.zeros(3, 8, 8)}, r"features: expected \(B, C, H, W\)"),
        ({"boxes": torch.zeros(2, 5)}, r"boxes: expected \(R, 4\) xyxy, got \(2, 5\)"),
        ({"batch_index": torch.zeros(3).long()}, r"batch_index: expected \(2,\) as boxes"),
        ({"stride": 0}, "stride: expected"),
        ({"output_size": (7, 0)}, "output_size: expected"),
    ],
)
def test_errors_name_the_argument(change: dict[str, object], message: str) -> None:
    arguments = {
        "features": torch.zeros(1, 3, 8, 8),
        "boxes": torch.zeros(2, 4),
        "batch_index": torch.zeros(2, dtype=torch.int64),
        "stride": 4,
        "output_size": 7,
    }
    with pytest.raises(ValueError, match=message):
        roi_pool(**{**arguments, **change})


@pytest.mark.parametrize("wrong", [-1, 2])
def test_an_index_of_no_image_is_an_error(memory: torch.memory_format, wrong: int) -> None:
    fmap, (boxes, index) = draw_map(memory), draw_boxes()
    index[3] = wrong
    with pytest.raises(ValueError, match="batch_index: expected 0 to 1, got"):
        roi_pool(fmap, boxes, index, stride=1, output_size=7)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("fixed", [-1e9, 1e9])
def test_boxes_that_are_not_finite_give_zeros(
    memory: torch.memory_format, monkeypatch: pytest.MonkeyPatch, grad: bool, fixed: float
) -> None:
    monkeypatch.setattr(module, "_FIXED", fixed)
    fmap = torch.rand(1, 5, 24, 34).contiguous(memory_format=memory).requires_grad_(grad)
    boxes = torch.tensor([[1.0, 1, 20, 20], [math.nan, 1, 9, 9], [1, 1, math.inf, 9]])
    index = torch.zeros(3, dtype=torch.int64)
    out = roi_pool(fmap, boxes, index, stride=1, output_size=7)
    assert torch.equal(out[:1], roi_pool(fmap, boxes[:1], index[:1], stride=1, output_size=7))
    assert not out[1:].any()
