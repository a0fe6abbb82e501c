"""RoIAlign against torchvision's kernel and against a plain loop over the samples."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops import roi_align as torchvision_roi_align

from maskwright.ops import roi_align
from maskwright.ops.pooling import roi_gather, roi_plan

HEIGHT, WIDTH = 24, 34
STRIDES = (4, 8, 16, 32)


@pytest.fixture(params=["channels_last", "planar"])
def memory(request: pytest.FixtureRequest) -> torch.memory_format:
    return torch.channels_last if request.param == "channels_last" else torch.contiguous_format


def draw_map(memory: torch.memory_format, dtype: torch.dtype = torch.float32) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 5, HEIGHT, WIDTH, dtype=dtype).contiguous(memory_format=memory)


def draw_boxes(stride: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return boxes of every awkward kind, enough of them to take the gathers, and their images."""
    torch.manual_seed(2)
    side = torch.exp(torch.rand(60, 2) * 5 - 2)
    centre = torch.rand(60, 2) * torch.tensor([WIDTH * 1.2, HEIGHT * 1.2]) - 2
    awkward = [
        (10, 10, 10, 10),  # empty
        (0, 0, WIDTH, HEIGHT),  # all of the map
        (-90, -50, 120, 100),  # much larger
        (-30, -20, -8, -9),  # outside
        (WIDTH - 1, HEIGHT - 1, WIDTH + 9, HEIGHT + 9),  # at the far corner
        (0.5, 0.5, 0.6, 0.7),  # below a pixel
        (3, 2, 3, 20),  # no width
    ]
    random = torch.cat([centre - side / 2, centre + side / 2], 1)
    boxes = torch.cat([torch.tensor(awkward, dtype=torch.float32), random]) * stride
    return boxes, torch.arange(len(boxes)) % 2


def reversed_boxes(boxes: Tensor) -> Tensor:
    """Return boxes with right and left, or both pairs of sides, exchanged."""
    both, one = boxes[::2][:, [2, 3, 0, 1]], boxes[1::2][:, [2, 1, 0, 3]]
    return torch.cat([both, one])


def reference(
    fmap: Tensor, boxes: Tensor, index: Tensor, stride: int, size: tuple[int, int], *rule: int
) -> Tensor:
    rois = torch.cat([index[:, None], boxes], 1).to(fmap)
    return torchvision_roi_align(fmap.contiguous(), rois, size, 1 / stride, *rule)


def check(
    fmap: Tensor, boxes: Tensor, index: Tensor, stride: int, size: tuple[int, int], *rule: int
) -> None:
    """Compare values and gradients to 1e-5 of the largest."""
    ours, theirs = (fmap.clone().requires_grad_() for _ in range(2))
    ratio, aligned = rule
    out = roi_align(
        ours,
        boxes,
        index,
        strides=[stride],
        output_size=size,
        sampling_ratio=ratio,
        aligned=bool(aligned),
    )
    want = reference(theirs, boxes, index, stride, size, ratio, bool(aligned))
    assert (out - want).abs().max() <= 1e-5 * want.abs().max()
    assert out.permute(0, 2, 3, 1).is_contiguous()
    grad = torch.randn_like(want)
    out.backward(grad)
    want.backward(grad)
    assert ours.grad is not None and theirs.grad is not None
    assert (ours.grad - theirs.grad).abs().max() <= 1e-5 * theirs.grad.abs().max()
    assert ours.grad.stride() == fmap.stride()


@pytest.mark.parametrize("size", [(7, 7), (14, 14), (3, 5), (1, 1)])
@pytest.mark.parametrize("ratio", [0, 1, 2, 3])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("stride", [1, 3])
def test_equals_torchvision(
    memory: torch.memory_format, size: tuple[int, int], ratio: int, aligned: bool, stride: int
) -> None:
    boxes, index = draw_boxes(stride)
    check(draw_map(memory), boxes, index, stride, size, ratio, aligned)


@pytest.mark.parametrize("ratio", [1, 2, 3])
@pytest.mark.parametrize("aligned", [True, False])
def test_reversed_boxes_are_sampled_backwards(
    memory: torch.memory_format, ratio: int, aligned: bool
) -> None:
    boxes, index = draw_boxes()
    check(draw_map(memory), reversed_boxes(boxes), index, 1, (7, 7), ratio, aligned)


def test_reversed_boxes_have_no_adaptive_samples(memory: torch.memory_format) -> None:
    # torchvision's CPU kernel raises here.
    boxes, index = draw_boxes()
    options = {"strides": [1], "output_size": 7, "sampling_ratio": 0}
    wrong = (boxes[:, 2:] > boxes[:, :2]).all(1)
    turned = boxes[wrong][:, [2, 3, 0, 1]]
    for count in (2, len(turned)):
        out = roi_align(draw_map(memory), turned[:count], index[:count], **options)
        assert not out.any()


@pytest.mark.parametrize("count", [1, 3])
def test_few_boxes(memory: torch.memory_format, count: int) -> None:
    boxes, index = draw_boxes()
    for start in range(0, len(boxes), count):
        at = slice(start, start + count)
        check(draw_map(memory), boxes[at], index[at], 1, (7, 7), 2, True)


@pytest.mark.parametrize("count", [2, 60])
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_boxes_that_are_not_finite_give_zeros(
    memory: torch.memory_format, count: int, ratio: int, bad: float
) -> None:
    fmap = draw_map(memory).requires_grad_()
    boxes, index = draw_boxes()
    boxes, index = boxes[5 : 5 + count].clone(), index[5 : 5 + count]
    boxes[1, 2] = bad
    out = roi_align(fmap, boxes, index, strides=[1], output_size=7, sampling_ratio=ratio)
    assert not out[1].any()
    keep = torch.arange(count) != 1
    want = reference(fmap, boxes[keep], index[keep], 1, (7, 7), ratio, True)
    assert (out[keep] - want).abs().max() <= 1e-5 * want.abs().max()
    (grad,) = torch.autograd.grad(out.sum(), fmap, retain_graph=True)
    (wanted,) = torch.autograd.grad(want.sum(), fmap)
    assert (grad - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    maps = [torch.rand(2, 5, 64 // s, 64 // s) for s in STRIDES]
    pyramid = roi_align(maps, boxes, index, strides=STRIDES, output_size=7, sampling_ratio=ratio)
    assert not pyramid[1].any() and pyramid.isfinite().all()


def test_equals_a_loop_over_the_samples() -> None:
    """The definition, sample by sample: independent of any kernel."""
    torch.manual_seed(0)
    fmap = torch.randn(1, 1, 9, 11, dtype=torch.float64)
    box, bins, ratio = (1.3, 0.4, 9.1, 7.7), (2, 3), 2

    def pixel(y: float, x: float) -> float:
        y, x = min(max(y, 0), 8), min(max(x, 0), 10)
        y0, x0 = min(int(y), 7), min(int(x), 9)
        v, u = y - y0, x - x0
        (a, b), (c, d) = fmap[0, 0, y0 : y0 + 2, x0 : x0 + 2].tolist()
        return (1 - v) * ((1 - u) * a + u * b) + v * ((1 - u) * c + u * d)

    want = torch.zeros(bins, dtype=torch.float64)
    high, wide = (box[3] - box[1]) / bins[0], (box[2] - box[0]) / bins[1]
    for i in range(bins[0]):
        for j in range(bins[1]):
            for k in range(ratio):
                for m in range(ratio):
                    y = box[1] - 0.5 + (i + (k + 0.5) / ratio) * high
                    x = box[0] - 0.5 + (j + (m + 0.5) / ratio) * wide
                    want[i, j] += pixel(y, x) / ratio**2
    out = roi_align(
        fmap,
        torch.tensor([box], dtype=torch.float64),
        torch.zeros(1, dtype=torch.int64),
        strides=[1],
        output_size=bins,
    )
    torch.testing.assert_close(out[0, 0], want)


def test_a_linear_map_gives_its_value_at_the_bin_centres() -> None:
    y, x = torch.arange(20.0)[:, None], torch.arange(30.0)
    ramp = (2 * x + 3 * y)[None, None].contiguous(memory_format=torch.channels_last)
    box = torch.tensor([[4.0, 3.0, 25.0, 17.0]])
    for ratio in (0, 1, 2, 5):
        out = roi_align(
            ramp,
            box,
            torch.zeros(1, dtype=torch.int64),
            strides=[1],
            output_size=(7, 3),
            sampling_ratio=ratio,
        )
        centre_y = 3 + (torch.arange(7) + 0.5) * 2 - 0.5
        centre_x = 4 + (torch.arange(3) + 0.5) * 7 - 0.5
        torch.testing.assert_close(out[0, 0], 3 * centre_y[:, None] + 2 * centre_x)


def draw_pyramid(memory: torch.memory_format) -> tuple[list[Tensor], Tensor, Tensor]:
    torch.manual_seed(3)
    maps = [torch.randn(2, 6, 256 // s, 320 // s).contiguous(memory_format=memory) for s in STRIDES]
    side = torch.exp(torch.rand(200, 2) * math.log(40)) * 8
    centre = torch.rand(200, 2) * torch.tensor([320, 256])
    boxes = torch.cat([centre - side / 2, centre + side / 2], 1)
    # On the border between two levels, and without a size.
    boxes[0] = torch.tensor([0, 0, 112, 112])
    boxes[1] = torch.tensor([0, 0, 224, 224])
    boxes[2] = torch.tensor([9, 9, 9, 40])
    boxes[3] = torch.tensor([40, 9, 9, 40])
    return maps, boxes, torch.arange(200) % 2


@pytest.mark.parametrize("ratio", [0, 2])
def test_the_pyramid_equals_torchvision(memory: torch.memory_format, ratio: int) -> None:
    maps, boxes, index = draw_pyramid(memory)
    order = index.argsort(stable=True)
    boxes, index = boxes[order], index[order]
    ours, theirs = ([m.clone().requires_grad_() for m in maps] for _ in range(2))
    pool = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, ratio)
    per_image = [boxes[index == i] for i in range(2)]
    want = pool(dict(zip("0123", theirs, strict=True)), per_image, [(256, 320)] * 2)
    out = roi_align(
        ours,
        boxes,
        index,
        strides=STRIDES,
        output_size=7,
        sampling_ratio=ratio,
        aligned=False,
    )
    torch.testing.assert_close(out, want, atol=1e-5, rtol=1e-5)
    grad = torch.randn_like(want)
    out.backward(grad)
    want.backward(grad)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, atol=2e-5, rtol=1e-5)


def test_given_levels_and_boxes_without_one(memory: torch.memory_format) -> None:
    maps, boxes, index = draw_pyramid(memory)
    levels = torch.arange(200) % 6 - 1
    out = roi_align(maps, boxes, index, strides=STRIDES, output_size=5, levels=levels)
    assert not out[(levels < 0) | (levels > 3)].any()
    for level, stride in enumerate(STRIDES):
        at = levels == level
        want = reference(maps[level], boxes[at], index[at], stride, (5, 5), 2, True)
        torch.testing.assert_close(out[at], want, atol=1e-5, rtol=1e-5)
    none = torch.full((200,), -1)
    maps = [m.requires_grad_() for m in maps]
    out = roi_align(maps, boxes, index, strides=STRIDES, output_size=5, levels=none)
    out.sum().backward()
    assert not out.any()
    assert all(m.grad is not None and not m.grad.any() for m in maps)


def test_memory_is_bounded_by_passes(
    memory: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roi_plan, "PASS_ENTRIES", 3000)
    monkeypatch.setattr(roi_plan, "CHUNK_ENTRIES", 500)
    monkeypatch.setattr(roi_plan, "AXIS_SAMPLES", 700)
    monkeypatch.setattr(roi_gather, "BUFFER_BYTES", 16 * 4 * HEIGHT * WIDTH)
    boxes, index = draw_boxes()
    torch.manual_seed(1)
    fmap = torch.randn(2, 40, HEIGHT, WIDTH).contiguous(memory_format=memory)
    check(fmap, boxes, index, 1, (7, 7), 0, True)
    check(fmap, boxes, index, 1, (7, 7), 2, True)


@pytest.mark.parametrize("ratio", [0, 2])
def test_gradcheck(memory: torch.memory_format, ratio: int) -> None:
    torch.manual_seed(0)
    fmap = torch.randn(2, 2, 5, 6, dtype=torch.float64).contiguous(memory_format=memory)
    boxes = torch.rand(90, 4, dtype=torch.float64) * 6
    boxes[:, 2:] += boxes[:, :2]
    index = torch.arange(90) % 2

    def pool(fmap: Tensor) -> Tensor:
        out = roi_align(fmap, boxes, index, strides=[1], output_size=(2, 3), sampling_ratio=ratio)
        return out.reshape(2, 45, -1).sum(1)

    assert torch.autograd.gradcheck(pool, fmap.requires_grad_(), check_batched_grad=False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(
    memory: torch.memory_format, dtype: torch.dtype
) -> None:
    boxes, index = draw_boxes()
    half = draw_map(memory).to(dtype).requires_grad_()
    full = half.detach().float().requires_grad_()
    options = {"strides": [1], "output_size": 7}
    out, want = (roi_align(m, boxes, index, **options) for m in (half, full))
    grad = torch.randn_like(out)
    out.backward(grad)
    want.backward(grad.float())
    assert out.dtype == dtype
    assert torch.equal(out, want.to(dtype))
    assert half.grad is not None and full.grad is not None
    assert torch.equal(half.grad, full.grad.to(dtype))


def test_no_boxes(memory: torch.memory_format) -> None:
    fmap = draw_map(memory).requires_grad_()
    none = torch.zeros(0, dtype=torch.int64)
    out = roi_align(fmap, torch.zeros(0, 4), none, strides=[4], output_size=(7, 3))
    assert out.shape == (0, 5, 7, 3)
    out.sum().backward()
    assert fmap.grad is not None and not fmap.grad.any()


def test_gradients_of_any_memory_order(memory: torch.memory_format) -> None:
    boxes, index = draw_boxes()
    grads = []
    for spread in (False, True):
        fmap = draw_map(memory).requires_grad_()
        out = roi_align(fmap, boxes, index, strides=[1], output_size=7)
        one = torch.ones(())
        out.backward(one.expand_as(out) if spread else one.expand_as(out).contiguous())
        grads.append(fmap.grad)
    torch.testing.assert_close(*grads)


@settings(deadline=None, max_examples=40)
@given(
    boxes=st.lists(
        st.tuples(*[st.floats(-60, 60, width=32)] * 2, *[st.floats(0, 80, width=32)] * 2),
        min_size=1,
        max_size=40,
    ),
    ratio=st.integers(0, 3),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    aligned=st.booleans(),
)
def test_any_box_equals_torchvision(
    boxes: list[tuple[float, ...]], ratio: int, size: tuple[int, int], aligned: bool
) -> None:
    torch.manual_seed(4)
    fmap = torch.randn(1, 3, 20, 17).contiguous(memory_format=torch.channels_last)
    corners = torch.tensor(boxes)
    corners[:, 2:] += corners[:, :2]
    index = torch.zeros(len(boxes), dtype=torch.int64)
    out = roi_align(
        fmap,
        corners,
        index,
        strides=[2],
        output_size=size,
        sampling_ratio=ratio,
        aligned=aligned,
    )
    want = reference(fmap, corners, index, 2, size, ratio, aligned)
    torch.testing.assert_close(out, want, atol=2e-5, rtol=1e-5)


def compiled_step(maps: list[Tensor], boxes: Tensor, index: Tensor) -> Tensor:
    out = roi_align(maps, boxes, index, strides=STRIDES, output_size=7)
    return out.permute(0, 2, 3, 1).flatten(1).square().mean()


def test_compiles_whole_with_gradients_and_dynamic_sizes(memory: torch.memory_format) -> None:
    maps, boxes, index = draw_pyramid(memory)
    compiled = torch.compile(compiled_step, fullgraph=True, backend="aot_eager", dynamic=True)
    for count in (200, 150):
        results = []
        for step in (compiled_step, compiled):
            leaves = [m.clone().requires_grad_() for m in maps]
            loss = step(leaves, boxes[:count], index[:count])
            loss.backward()
            results.append([loss, *(leaf.grad for leaf in leaves)])
        torch.testing.assert_close(*results)
    torch._dynamo.reset()


def test_exports_with_a_dynamic_number_of_boxes() -> None:
    class Pool(torch.nn.Module):
        def forward(self, a: Tensor, b: Tensor, boxes: Tensor, index: Tensor) -> Tensor:
            return roi_align([a, b], boxes, index, strides=(4, 8), output_size=7)

    maps, boxes, index = draw_pyramid(torch.contiguous_format)
    rows = torch.export.Dim("rows", min=2, max=4096)
    args = (*maps[:2], boxes, index)
    program = torch.export.export(
        Pool(), args, dynamic_shapes=({}, {}, {0: rows}, {0: rows}), strict=True
    )
    few = (*maps[:2], boxes[:9], index[:9])
    torch.testing.assert_close(program.module()(*few), Pool()(*few))


def test_the_operator_keeps_its_promises(memory: torch.memory_format) -> None:
    """The fake kernel, the schema and the registered gradient agree with what runs."""
    boxes, index = draw_boxes()
    levels = torch.zeros_like(index)
    args = ([draw_map(memory).requires_grad_()], boxes, index, levels, [1], [7, 7], 2, True)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.maskwright.roi_align.default, args, test_utils=tests)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": []}, "features: expected at least one map"),
        ({"features": torch.zeros(3, 8, 8)}, r"features: expected \(B, C, H, W\)"),
        ({"features": torch.zeros(1, 3, 8, 8).long()}, "features: expected one floating"),
        ({"boxes": torch.zeros(2, 5)}, r"boxes: expected \(R, 4\) xyxy, got \(2, 5\)"),
        ({"batch_index": torch.zeros(3).long()}, r"batch_index: expected \(2,\) as boxes"),
        ({"batch_index": torch.zeros(2)}, "batch_index: expected integers"),
        ({"levels": torch.zeros(1).long()}, r"levels: expected \(2,\)"),
        ({"strides": [4, 8]}, "strides: expected 1 positive"),
        ({"output_size": (7, 0)}, "output_size: expected"),
        ({"sampling_ratio": -1}, "sampling_ratio: expected"),
        (
            {"features": [torch.zeros(1, 3, 8, 8)] * 2, "strides": [4, 16]},
            "strides: the FPN rule needs",
        ),
    ],
)
def test_errors_name_the_argument(change: dict[str, object], message: str) -> None:
    arguments = {
        "features": torch.zeros(1, 3, 8, 8),
        "boxes": torch.zeros(2, 4),
        "batch_index": torch.zeros(2, dtype=torch.int64),
        "strides": [4],
        "output_size": 7,
    }
    with pytest.raises(ValueError, match=message):
        roi_align(**{**arguments, **change})


@pytest.mark.parametrize("wrong", [-1, 2])
def test_an_index_of_no_image_is_an_error(memory: torch.memory_format, wrong: int) -> None:
    fmap, (boxes, index) = draw_map(memory), draw_boxes()
    index[3] = wrong
    with pytest.raises(ValueError, match="batch_index: expected 0 to 1, got"):
        roi_align(fmap, boxes, index, strides=[1], output_size=7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_a_few_boxes_of_many_bins_on_a_planar_map(
    ratio: int, aligned: bool, dtype: torch.dtype
) -> None:
    """Inside, across the border, outside, over the whole map, tiny, empty and reversed."""
    boxes = torch.tensor(
        [
            [10.0, 12, 90, 60],
            [-40, -30, 50, 70],
            [300, 300, 420, 380],
            [-5, -5, 330, 270],
            [70, 70, 70.5, 70.25],
            [64, 64, 64, 64],
            [90, 80, 20, 30],
        ],
        dtype=dtype,
    )
    index = torch.tensor([0, 1, 0, 1, 1, 0, 0])
    fmap = torch.randn(2, 5, 64, 80, dtype=dtype).requires_grad_()
    other = fmap.detach().clone().requires_grad_()
    found = roi_align(
        fmap, boxes, index, strides=[4], output_size=14, sampling_ratio=ratio, aligned=aligned
    )
    rois = torch.cat([index[:, None].to(dtype), boxes], 1)
    expected = torchvision_roi_align(other, rois, 14, 1 / 4, ratio, aligned)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    grad = torch.randn_like(expected)
    found.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(fmap.grad, other.grad, rtol=1e-5, atol=1e-5)
