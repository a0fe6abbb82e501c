"""RefineMask: functions against plain references, the network against one of bare functions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision.ops as tv
from pycocotools import mask as coco
from torch import Tensor

from maskwright.errors import OptionError
from maskwright.models import build
from maskwright.models.detection.refine_mask import (
    RefineMaskHead,
    boundary_region,
    mask_loss,
    mask_targets,
    merge_stages,
    semantic_loss,
    semantic_target,
)
from maskwright.nn.convolution import WinogradConv2d
from maskwright.nn.detection.mask_head import MaskOutput, MaskTargets
from maskwright.nn.detection.refine_head import FUSION_PARTS
from maskwright.nn.inference import prepare
from maskwright.ops import unite_masks
from maskwright.structures import Instances, PackedMasks

WEIGHTS = (0.25, 0.5, 0.75, 1.0)


def blobs(count: int, side: int, seed: int) -> Tensor:
    """Smooth random logits (R, 1, side, side): regions with boundaries, not noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 1, 5, 5, generator=generator) * 3
    fine = torch.randn(count, 1, side, side, generator=generator) * 0.3
    return F.interpolate(coarse, (side, side), mode="bicubic", align_corners=True) + fine


def plain_boundary(mask: Tensor, width: int) -> Tensor:
    """Look at every window, pixel by pixel; outside the map is background."""
    side = mask.shape[-1]
    out = torch.zeros_like(mask)
    for r in range(len(mask)):
        padded = np.zeros((side + 2 * width,) * 2, bool)
        padded[width : width + side, width : width + side] = mask[r].numpy()
        for y in range(side):
            for x in range(side):
                window = padded[y : y + 2 * width + 1, x : x + 2 * width + 1]
                inside = int((window != padded[y + width, x + width]).sum())
                out[r, y, x] = 10 * inside > (2 * width + 1) ** 2
    return out


def plain_double(x: Tensor) -> Tensor:
    """Corner-aligned bilinear upsampling of (R, S, S) by its matrix."""
    side = x.shape[-1]
    at = torch.arange(2 * side, dtype=torch.float64) * (side - 1) / (2 * side - 1)
    weight = (1 - (at[:, None] - torch.arange(side)).abs()).clamp(min=0)
    return weight @ x.double() @ weight.T


def plain_merge(logits: list[Tensor], width: int = 1) -> Tensor:
    merged = logits[1][:, 0]
    for finer in logits[2:]:
        near = plain_boundary(merged > 0, width).double()
        merged = torch.where(plain_double(1 - near) >= 0.5, plain_double(merged), finer[:, 0])
    return merged[:, None]


def plain_loss(logits: list[Tensor], targets: list[Tensor]) -> Tensor:
    total = 0
    for s, (logit, target) in enumerate(zip(logits, targets, strict=True)):
        p = logit[:, 0].double().sigmoid()
        entropy = -(target * p.log() + (1 - target) * (1 - p).log())
        if s < 2:
            total = total + WEIGHTS[s] * entropy.mean()
            continue
        previous = logits[1][:, 0].detach()
        if s == 3:
            near = plain_double(plain_boundary(previous > 0, 1)) >= 0.5
            previous = torch.where(near, logits[2][:, 0].detach(), plain_double(previous))
        region = plain_boundary(previous > 0, 2) | plain_boundary(targets[s - 1] > 0, 2)
        region = plain_double(region) >= 0.5
        total = total + WEIGHTS[s] * (entropy * region).sum() / max(int(region.sum()), 1)
    return total


@pytest.mark.parametrize("width", [0, 1, 2, 3])
def test_boundary_region_is_that_of_every_window(width: int) -> None:
    masks = blobs(4, 14, 0)[:, 0] > 0
    masks[0], masks[1] = True, False
    expected = plain_boundary(masks, width)
    assert torch.equal(boundary_region(masks, width), expected)
    assert not expected[1].any(), "background at the frame is not boundary"
    frame = torch.ones(14, 14, dtype=torch.bool)
    frame[width : 14 - width, width : 14 - width] = False
    assert torch.equal(expected[0], frame), "a full mask has a frame of its width"


@pytest.mark.parametrize(("width", "least"), [(1, 1), (2, 3), (3, 5)])
def test_boundary_starts_at_a_tenth_of_the_window(width: int, least: int) -> None:
    side = 2 * width + 1
    for others in range(1, least + 2):
        mask = torch.zeros(1, side + 4, side + 4, dtype=torch.bool)
        window = mask[:, 2 : 2 + side, 2 : 2 + side].flatten().clone()
        window[:others] = True
        mask[:, 2 : 2 + side, 2 : 2 + side] = window.view(side, side)
        centre = boundary_region(mask, width)[0, 2 + width, 2 + width]
        assert bool(centre) == (others >= least)


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_merge_is_sequential_and_keeps_the_coarse_inside(stages: int) -> None:
    logits = [blobs(3, 6 << k, k) for k in range(stages)]
    merged = merge_stages(logits)
    if stages == 1:
        assert torch.equal(merged, logits[0])
        return
    torch.testing.assert_close(merged.double(), plain_merge(logits).double(), rtol=0, atol=1e-5)
    logits[0] = torch.full_like(logits[0], float("nan"))
    assert torch.equal(merge_stages(logits), merged), "the first stage has no part in it"


def test_mask_loss_equals_the_plain_rule_with_its_gradient() -> None:
    logits = [blobs(3, 14 << k, 10 + k).requires_grad_() for k in range(4)]
    targets = [(blobs(3, 14 << k, 10)[:, 0] > 0).float() for k in range(4)]
    loss, expected = mask_loss(logits, targets), plain_loss(logits, targets)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    found = torch.autograd.grad(loss, logits)
    for a, b in zip(found, torch.autograd.grad(expected, logits), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-8)
    # The last stage learns near the boundaries only.
    assert 0.02 < (found[3] != 0).float().mean() < 0.7
    assert bool((found[1] != 0).all())


def test_regions_that_do_not_count_have_no_part_in_the_loss() -> None:
    logits = [blobs(5, 7 << k, 20 + k).requires_grad_() for k in range(4)]
    targets = [(blobs(5, 7 << k, 20)[:, 0] > 0).float() for k in range(4)]
    valid = torch.tensor([True, False, True, True, False])
    some = mask_loss([x[valid] for x in logits], [t[valid] for t in targets])
    torch.testing.assert_close(mask_loss(logits, targets, valid=valid), some)
    none = mask_loss(logits, targets, valid=valid & False)
    assert none.item() == 0
    assert not any(g.any() for g in torch.autograd.grad(none, logits))
    empty = [x[:0] for x in logits]
    assert mask_loss(empty, [t[:0] for t in targets]).item() == 0
    with pytest.raises(ValueError, match="4 stages need as many targets"):
        mask_loss(logits, targets[:3])
    with pytest.raises(ValueError, match="at least 0"):
        boundary_region(valid[None, None], -1)


def test_losses_pass_gradcheck() -> None:
    logits = [blobs(1, 3 << k, 30 + k).double().requires_grad_() for k in range(4)]
    targets = [(blobs(1, 3 << k, 31)[:, 0] > 0).double() for k in range(4)]
    assert torch.autograd.gradcheck(lambda *x: mask_loss(x, targets), logits)
    semantic = torch.randn(2, 1, 4, 5, dtype=torch.float64, requires_grad=True)
    goal = (torch.rand(2, 4, 5) > 0.5).float()
    assert torch.autograd.gradcheck(lambda x: semantic_loss(x, goal), [semantic])
    expected = F.binary_cross_entropy(semantic[:, 0].sigmoid(), goal.double())
    torch.testing.assert_close(semantic_loss(semantic, goal), expected)


def plain_crop(mask: Tensor, box: Tensor, size: int) -> Tensor:
    """RoIAlign of one mask (H, W): adaptive, aligned, sample by sample."""
    height, width = mask.shape
    x1, y1, x2, y2 = box.double().tolist()
    bw, bh = (x2 - x1) / size, (y2 - y1) / size
    nx, ny = int(np.ceil(bw)), int(np.ceil(bh))
    out = torch.zeros(size, size, dtype=torch.float64)
    for i in range(size):
        for j in range(size):
            for a in range(ny):
                for b in range(nx):
                    y = y1 - 0.5 + i * bh + (a + 0.5) * bh / ny
                    x = x1 - 0.5 + j * bw + (b + 0.5) * bw / nx
                    if y < -1 or y > height or x < -1 or x > width:
                        continue
                    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
                    fy, fx = y - int(y), x - int(x)
                    for yy, wy in ((int(y), 1 - fy), (min(int(y) + 1, height - 1), fy)):
                        for xx, wx in ((int(x), 1 - fx), (min(int(x) + 1, width - 1), fx)):
                            out[i, j] += wy * wx * float(mask[yy, xx])
    return out / max(nx * ny, 1)


def pack(masks: list[Tensor]) -> PackedMasks:
    """Whole masks (G, H, W) of each image, packed in their tight frames."""
    slots = max(len(m) for m in masks)
    offsets = torch.zeros(len(masks), slots, dtype=torch.int64)
    frames = torch.zeros(len(masks), slots, 4, dtype=torch.int64)
    data: list[Tensor] = []
    for b, image in enumerate(masks):
        for k, mask in enumerate(image):
            rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
            x1, y1, x2, y2 = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
            offsets[b, k] = sum(len(part) for part in data)
            frames[b, k] = torch.stack([x1, y1, x2, y2])
            data.append(mask[y1:y2, x1:x2].flatten().to(torch.uint8))
    return PackedMasks(torch.cat(data), offsets, frames)


BOXES = torch.tensor(
    [
        [3.3, 5.1, 30.7, 39.2],
        [-4.0, 10.5, 70.0, 44.0],
        [0.0, 0.0, 64.0, 48.0],
        [20.2, 20.9, 20.8, 21.3],
        [40.0, 8.0, 68.0, 36.0],
    ]
)


@pytest.mark.parametrize("size", [14, 28])
def test_bitmap_targets_equal_roi_align_sample_by_sample(size: int) -> None:
    masks = F.interpolate(blobs(2, 20, 3), (48, 64))[:, 0] > 0
    index = torch.tensor([0, 1, 1, 0, 1])
    clipped = tv.clip_boxes_to_image(BOXES, (48, 64))
    expected = [
        plain_crop(masks[i], box, size) for i, box in zip(index.tolist(), clipped, strict=True)
    ]
    found = mask_targets(masks, BOXES, index, size, (48, 64))
    sure = (torch.stack(expected) - 0.5).abs() > 1e-5
    assert sure.float().mean() > 0.98
    assert torch.equal(found[sure], (torch.stack(expected)[sure] >= 0.5).float())


def test_a_pixel_that_is_covered_by_half_is_foreground_in_both_ways_of_cutting() -> None:
    """Bins of 12 x 12 samples of which half are 1: exactly 0.5, however the sum is rounded."""
    stripes = (torch.arange(168) % 12 < 6).expand(1, 168, 168)
    box = torch.tensor([[[0.0, 0.0, 168.0, 168.0]]])
    one = torch.ones(1, 1, dtype=torch.bool)
    gt = Instances(box, torch.zeros(1, 1, dtype=torch.int64), one, masks=pack([stripes]))
    head = RefineMaskHead(8, 1, stages=1)
    sizes = torch.tensor([[168, 168]])
    cut = head.targets(gt, box, gt.labels, one, sizes, [torch.zeros(1, 8, 42, 42)]).masks[0]
    assert bool(cut.all())
    assert bool(mask_targets(stripes, box[0], gt.labels[0], 14, (168, 168)).all())


def test_polygon_targets_equal_the_rasteriser_on_moved_and_scaled_polygons() -> None:
    polygons = [
        [[5.0, 6, 30, 8, 28, 35, 9, 30], [40.0, 10, 50, 10, 45, 20]],
        [[0.0, 0, 64, 0, 64, 48, 0, 48]],
        [],
    ]
    boxes = torch.cat([BOXES, torch.tensor([[0.0, 0, 10, 10]])])
    index = torch.tensor([0, 1, 0, 0, 1, 2])
    for size in (14, 56):
        found = mask_targets(polygons, boxes, index, size, (48, 64))
        for row, (i, box) in enumerate(
            zip(index.tolist(), tv.clip_boxes_to_image(boxes, (48, 64)).tolist(), strict=True)
        ):
            x1, y1, x2, y2 = np.float32(box)
            sx, sy = size / max(float(x2 - x1), 1), size / max(float(y2 - y1), 1)
            moved = [
                [(v - (x1, y1)[k % 2]) * (sx, sy)[k % 2] for k, v in enumerate(np.float64(p))]
                for p in polygons[i]
            ]
            expected = np.zeros((size, size))
            if moved:
                expected = coco.decode(coco.merge(coco.frPyObjects(moved, size, size)))
            assert np.array_equal(found[row].numpy(), expected), row
    far = [[[0.0, 0, 4000, 0, 4000, 3000, 0, 3000]]]
    dot = torch.tensor([[2000.0, 1500, 2001, 1501]])
    assert mask_targets(far, dot, torch.tensor([0]), 112, (3000, 4000)).all()
    with pytest.raises(ValueError, match="three points"):
        mask_targets([[[1.0, 2, 3, 4]]], dot, torch.tensor([0]), 14, (9, 9))


def test_semantic_target_is_the_union_at_a_quarter_with_halves_kept() -> None:
    masks = [blobs(3, 40, 5)[:, 0, :30] > 0, torch.zeros(0, 20, 36)]
    found = semantic_target(masks, (40, 48), (10, 12))
    assert not found[1].any()
    union = torch.zeros(40, 48)
    union[:30, :40] = masks[0].any(0)
    for i in range(10):
        for j in range(12):
            # At a quarter, the sampling point lies in the middle of four pixels.
            four = union[4 * i + 1 : 4 * i + 3, 4 * j + 1 : 4 * j + 3].sum()
            assert found[0, i, j] == float(four >= 2)
    edge = torch.zeros(1, 8, 8)
    edge[:, :, 2:] = 1
    assert semantic_target([edge], (8, 8), (2, 2)).all(), "a tie is foreground"


def test_the_semantic_loss_leaves_out_ignored_pixels() -> None:
    logits = torch.randn(2, 1, 3, 4, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([[0.0, 1, -1, 1] * 3, [-1.0] * 4 + [1, 0] * 4]).reshape(2, 3, 4)
    known = target >= 0
    expected = F.binary_cross_entropy_with_logits(logits[:, 0][known], target[known])
    torch.testing.assert_close(semantic_loss(logits, target), expected)


def test_targets_of_the_head_are_those_of_whole_masks() -> None:
    whole = [F.interpolate(blobs(3, 20, s), (48, 64))[:, 0] > 0 for s in (1, 2)]
    index = torch.tensor([[0, 1, 2, 0, 1], [2, 1, 0, 0, 2]])
    boxes = BOXES.expand(2, 5, 4)
    flags = torch.ones(2, 3, dtype=torch.bool)
    crowd = torch.tensor([[False, False, True], [False, False, False]])
    gt = Instances(boxes[:, :3], index[:, :3], flags, crowd=crowd, masks=pack(whole))
    head = RefineMaskHead(32, 2)
    pyramid = [torch.zeros(2, 32, 16, 16)]
    valid = torch.ones(2, 5, dtype=torch.bool)
    sizes = torch.tensor([[48, 64], [48, 60]])
    found = head.targets(gt, boxes, index, valid, sizes, pyramid)
    padded = [F.pad(m.float(), (0, 0, 0, 16)) for m in whole]
    for cut, size in zip(found.masks, (14, 28, 56, 112), strict=True):
        expected = [mask_targets(padded[b], BOXES, index[b], size, (64, 64)) for b in range(2)]
        # Rounding decides where a pixel is covered by half.
        assert (cut != torch.cat(expected)).float().mean() < 1e-4
    assert found.semantic is not None
    used = [padded[0][:2], padded[1]]
    expected_map = semantic_target(used, (64, 64), (16, 16))
    x1, y1, x2, y2 = boxes[0, 2].tolist()
    for i in range(16):  # cells of 4 pixels whose centre lies in the crowd region
        for j in range(16):
            inside = x1 <= 4 * j + 2 < x2 and y1 <= 4 * i + 2 < y2
            if inside and not expected_map[0, i, j]:
                expected_map[0, i, j] = -1
    assert (expected_map == -1).any() and (expected_map == 1).any()
    assert torch.equal(found.semantic, expected_map)
    union = unite_masks(gt.masks, flags & ~crowd, (64, 64))
    assert torch.equal(union, torch.stack([m.any(0) for m in used]).to(torch.uint8))


def plain_forward(
    state: dict[str, Tensor],
    feats: Tensor,
    p2: Tensor,
    boxes: Tensor,
    image: Tensor,
    labels: Tensor,
    *,
    stages: int = 4,
    fast: bool = False,
    sigmoid: bool = True,
    average: bool = False,
    first: bool = False,
    late: bool = False,
    without: tuple[str, ...] = (),
) -> tuple[list[Tensor], Tensor | None]:
    """The network from bare functions; `late`: the faster variant upsamples its last features."""

    def conv(name: str, x: Tensor, **kind: int) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **kind)

    def class_logits(k: int, x: Tensor) -> Tensor:
        every = conv(f"logits.{k}", x)
        own = labels if every.shape[1] > 1 else labels * 0
        return torch.stack([maps[c] for maps, c in zip(every, own.tolist(), strict=True)])[:, None]

    def align(fmap: Tensor, size: int) -> Tensor:
        rois = torch.cat([image[:, None].to(boxes), boxes], 1)
        return tv.roi_align(fmap, rois, size, 0.25, 0, True)

    def centres(fmap: Tensor, size: int) -> Tensor:
        steps = (torch.arange(size).to(boxes) + 0.5) / size
        rows = []
        for box, b in zip(boxes, image.tolist(), strict=True):
            x, y = (box[i] + steps * (box[i + 2] - box[i]) for i in (0, 1))
            height, width = fmap.shape[-2:]
            grid = torch.stack(torch.broadcast_tensors(x[None] / width, y[:, None] / height), -1)
            # From pixels of the input to [-1, 1]: 4 pixels to one of the map.
            rows.append(F.grid_sample(fmap[b : b + 1], grid[None] / 2 - 1, align_corners=False))
        return torch.cat(rows)

    def aligned(x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)

    x, s = feats, p2
    for i in range(2):
        x = conv(f"instance_convs.{i}.0", x, padding=1).relu()
    for i in range(4 if "semantic_convs.0.0.weight" in state else 0):
        s = conv(f"semantic_convs.{i}.0", s, padding=1).relu()
    q = None if fast or "semantic_mask" in without else conv("semantic_logits", s)
    out = []
    for k in range(stages - 1):
        size, at = 14 << k, f"stages.{k}"
        seen = [x]
        if "semantic" not in without:
            f = conv(f"{at}.semantic_in", s).relu()
            f = centres(f, size) if fast else conv(f"{at}.semantic_out", align(f, size)).relu()
            seen.append(f)
        out.append(class_logits(k, x))
        masks = []
        if "instance_mask" not in without:
            masks.append(out[-1].sigmoid() if sigmoid else out[-1])
        if q is not None:
            masks.append(align(q.sigmoid() if sigmoid else q, size))
        y = conv(f"{at}.fuse", torch.cat([*seen, *masks], 1)).relu()
        total = sum(
            conv(f"{at}.branches.{i}", y, padding=d, dilation=d).relu()
            for i, d in enumerate((1,) if "dilation" in without else (1, 3, 5))
        )
        if average or fast:
            total = total + y.mean((2, 3), keepdim=True).expand_as(y)
        y = conv(f"{at}.merge", total).relu()
        y = conv(f"{at}.out", y).relu()
        if first or fast:
            x = torch.cat([y, *masks], 1)
            if not fast or k < stages - 2 or late:
                x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        else:
            y = F.interpolate(y, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = torch.cat([y, *(aligned(m) for m in masks)], 1)
    last = class_logits(stages - 1, x)
    out.append(aligned(last) if fast and not late and stages > 1 else last)
    return out, q


CASES: dict[str, tuple[dict, dict]] = {
    "published": ({}, {}),
    "agnostic": ({"class_agnostic_last": True}, {}),
    "raw": ({"sigmoid_masks": False}, {"sigmoid": False}),
    "average": ({"avg_branch": True}, {"average": True}),
    "paper": ({"masks_first": True}, {"first": True}),
    "fast": ({"fast": True, "class_agnostic_last": True}, {"fast": True}),
    "late": ({"fast": True, "upsample_features": True}, {"fast": True, "late": True}),
    "three": ({"stages": 3}, {"stages": 3}),
    "two": ({"stages": 2, "fast": True}, {"stages": 2, "fast": True}),
    "one": ({"stages": 1}, {"stages": 1}),
    **{
        f"without {' and '.join(names)}": (
            {"parts": [part for part in FUSION_PARTS if part not in names]},
            {"without": names},
        )
        for names in (
            *((part,) for part in FUSION_PARTS),
            ("semantic", "semantic_mask"),
            ("instance_mask", "semantic_mask"),
        )
    },
}


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(7)
    feats = torch.randn(5, 6, 14, 14, generator=generator, dtype=dtype)
    p2 = torch.randn(2, 6, 12, 16, generator=generator, dtype=dtype)
    image = torch.tensor([1, 0, 1, 0, 0])  # not sorted
    return feats, p2, BOXES.to(dtype), image, torch.tensor([0, 2, 1, 1, 0])


@pytest.mark.parametrize("case", CASES)
def test_network_equals_one_of_bare_functions(case: str) -> None:
    options, plain = CASES[case]
    torch.manual_seed(1)
    head = RefineMaskHead(6, 3, width=32, **options).double()
    for name, value in head.state_dict().items():
        if name.endswith("bias"):
            value.uniform_(0, 1)  # no channel is dead
    feats, p2, *rest = inputs(torch.float64)
    feats.requires_grad_(), p2.requires_grad_()
    logits, semantic = head(feats, p2, *rest)
    state = dict(head.named_parameters())
    expected, foreground = plain_forward(state, feats, p2, *rest, **plain)
    sides = [14, 28, 56, 112][: len(logits)]
    assert [tuple(x.shape) for x in logits] == [(5, 1, side, side) for side in sides]
    for a, b in zip(logits, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)
    absent = head.fast or "semantic_mask" in plain.get("without", ())
    assert (semantic is None) == (foreground is None) == absent
    if semantic is not None:
        assert semantic.shape == (2, 1, 12, 16)
        torch.testing.assert_close(semantic, foreground)
    weights = [torch.randn_like(x) for x in logits]
    sums = [
        sum((x * w).mean() for x, w in zip(result, weights, strict=True))
        for result in (logits, expected)
    ]
    used = {"": feats, **state}
    if case == "one":  # the whole image has no part in the first stage
        used = {key: value for key, value in used.items() if "semantic" not in key}
    elif head.semantic_convs is not None:
        used["p2"] = p2
    grads = [torch.autograd.grad(total, list(used.values())) for total in sums]
    for key, a, b in zip(used, *grads, strict=True):
        scale = float(b.abs().max())
        assert scale > 0, key
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9 * scale)


def test_more_regions_than_fit_at_once_give_the_same_masks() -> None:
    torch.manual_seed(0)
    head = RefineMaskHead(8, 3, width=16, stages=3)
    generator = torch.Generator().manual_seed(0)
    feats = torch.randn(230, 8, 14, 14, generator=generator)
    p2 = torch.randn(2, 8, 12, 16, generator=generator)
    boxes = BOXES.repeat(46, 1)
    image, labels = torch.arange(230) % 2, torch.arange(230) % 3
    whole = head(feats, [p2], boxes, image, labels)  # a pyramid, with gradients: at once
    with torch.no_grad():
        parts = head(feats, p2, boxes, image, labels)
    for a, b in zip(whole.logits, parts.logits, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b)
    probs = head.decode(parts)
    assert probs.shape == (230, 56, 56)
    assert torch.equal(probs, merge_stages(parts.logits)[:, 0].sigmoid())


@pytest.mark.parametrize("fast_variant", [False, True])
def test_the_head_can_be_rearranged_for_inference(
    fast_variant: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fine features are then computed where regions are: masks are those of the whole map."""
    torch.manual_seed(0)
    head = RefineMaskHead(128, 2, fast=fast_variant).eval()
    feats, p2 = torch.randn(9, 128, 14, 14), torch.randn(2, 128, 48, 64)
    boxes = torch.rand(9, 4) * 60
    boxes[:, 2:] += boxes[:, :2] + 8
    boxes[0] = torch.tensor([-9.0, -7, 21, 3])
    boxes[1] = torch.tensor([231.0, 150, 270, 199])
    where = (boxes, torch.arange(9) // 5, torch.arange(9) % 2)
    with torch.no_grad():
        fast = prepare(head, lambda module: module(feats, p2, *where))
        assert any(isinstance(layer, WinogradConv2d) for layer in fast.modules())
        found, whole = fast(feats, p2, *where), head(feats, p2, *where)
        for a, b in zip(found.logits, whole.logits, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=2e-4 * float(b.abs().max()))
        semantic = []
        fast.stages[0].semantic_in.register_forward_pre_hook(lambda _, x: semantic.append(x[0]))
        fast(feats, p2, *where)
        assert (semantic[0] == 0).all(1).float().mean() > 0.5, "all of it was computed"
        # To rounding of its own the same as with all of it.
        name = "maskwright.nn.detection.refine_head.where_wanted"
        monkeypatch.setattr(name, lambda layers, x, wanted: layers(x))
        for a, b in zip(found.logits, fast(feats, p2, *where).logits, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-6 * float(b.abs().max()))


def test_size_and_start_are_those_of_the_original() -> None:
    head = RefineMaskHead()
    assert sum(p.numel() for p in head.parameters()) == 6_407_003
    fuse = head.stages[0].fuse
    assert tuple(fuse.weight.shape) == (256, 514, 1, 1)
    torch.testing.assert_close(fuse.weight.std(), torch.tensor(2 / 256).sqrt(), rtol=0.02, atol=0)
    dilated = head.stages[1].branches[2].weight
    expected = torch.tensor(2 / (9 * 128)).sqrt()
    torch.testing.assert_close(dilated.std(), expected, rtol=0.02, atol=0)
    torch.testing.assert_close(
        head.logits[1].weight.std(), torch.tensor(2 / 80).sqrt(), rtol=0.02, atol=0
    )
    assert not any(p.any() for name, p in head.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize("classes", [1, 80])
def test_first_masks_are_as_undecided_for_one_class_as_for_eighty(classes: int) -> None:
    torch.manual_seed(0)
    head = RefineMaskHead(64, classes, width=64)
    boxes = torch.tensor([[8.0, 8.0, 72.0, 72.0]]).repeat(4, 1)
    feats, p2 = torch.randn(4, 64, 14, 14).relu(), torch.randn(1, 64, 24, 24)
    zeros = torch.zeros(4, dtype=torch.int64)
    masks, semantic = head(feats, p2, boxes, zeros, zeros)
    # With the published rule those of one class spread by 4 to 20.
    assert all(logits.std() < 4 for logits in masks)
    assert semantic is not None and semantic.std() < 4


def test_class_rows_leave_out_a_stage_without_classes() -> None:
    assert len(RefineMaskHead(24, 2).class_rows) == 4
    assert set(RefineMaskHead(16, 2, stages=2, class_agnostic_last=True).class_rows) == {"logits.0"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": 5}, "stages must be 1 to 4, got 5"),
        ({"stages": 0}, "stages must be 1 to 4, got 0"),
        ({"width": 20}, "multiple of 8 and at least 24, got 20"),
        ({"width": 16}, "at least 24, got 16"),
        ({"upsample_features": True}, "set fast as well"),
        ({"parts": ["semantics"]}, "no part 'semantics'"),
    ],
)
def test_sizes_that_cannot_be_are_refused(options, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        RefineMaskHead(32, 2, **options)


def test_without_boundaries_every_stage_learns_and_the_last_decides_everywhere() -> None:
    head = RefineMaskHead(24, 2, width=24, boundary=False)
    logits = [blobs(3, 14 << k, k) for k in range(4)]
    targets = [(blobs(3, 14 << k, k + 9)[:, 0] > 0).float() for k in range(4)]
    assert torch.equal(head.decode(MaskOutput(logits, None)), logits[3][:, 0].sigmoid())
    loss = head.loss(
        MaskOutput(logits, None), MaskTargets(tuple(targets), None), torch.ones(3, dtype=torch.bool)
    )
    plain = sum(
        w * F.binary_cross_entropy(x[:, 0].sigmoid(), t)
        for w, x, t in zip(WEIGHTS, logits, targets, strict=True)
    )
    torch.testing.assert_close(loss["roi/mask"], plain)


def test_options_reach_the_head() -> None:
    with torch.device("meta"):
        detector = build("refine_mask_fast_lite0_fpn", 3, mask_stages=3)
        fewer = build("refine_mask_resnet18_fpn", 3, box_loss_weight=1.0, masks_first=True)
        bare = build("refine_mask_lite0_fpn", 3, fusion_parts=("dilation",), boundary=False)
        logits = {"sigmoid_masks": False, "avg_branch": True}
        widths = {"boundary_loss_width": 3, "boundary_width": 2}
        other = build("refine_mask_lite0_fpn", 3, fusion_parts="dilation", **logits, **widths)
        larger = build("refine_mask_fast_lite0_fpn", 3, upsample_features=True)
        with pytest.raises(OptionError, match="boundary_width"):
            build("refine_mask_lite0_fpn", 3, boundary_width=0)
        with pytest.raises(OptionError, match="box_loss_weight"):
            build("refine_mask_resnet18_fpn", 3, box_loss_weight=-1.0)
    head = detector.roi_heads.mask_head
    assert head.fast and len(head.logits) == 3
    assert [layer.out_channels for layer in head.logits] == [3, 3, 1]
    assert head.instance_convs[0][0].out_channels == 128
    assert detector.roi_heads.box_head.loss_weight == 2
    assert fewer.roi_heads.box_head.loss_weight == 1
    assert fewer.roi_heads.mask_head.stages[0].masks_first
    assert bare.roi_heads.mask_head.semantic_convs is None
    assert bare.roi_heads.mask_head.merge_width is None
    head = other.roi_heads.mask_head
    assert (head.loss_width, head.merge_width, head.sigmoid_masks) == (3, 2, False)
    assert head.stages[0].avg_branch and len(head.stages[0].branches) == 3
    assert larger.roi_heads.mask_head.stages[-1].upsample
    assert not detector.roi_heads.mask_head.stages[-1].upsample


def test_the_published_training_keeps_as_many_proposals_as_inference() -> None:
    with torch.device("meta"):
        ours = build("refine_mask_resnet18_fpn", 3, proposals=500)
        theirs = build("refine_mask_resnet18_fpn", 3, proposals=500, conventions="mmdetection")
        light = build("refine_mask_lite0_fpn", 3)
    assert ours.rpn.pre_nms == theirs.rpn.pre_nms == (1000, 500)  # of a level
    assert (ours.rpn.post_nms, theirs.rpn.post_nms) == ((1000, 500), (500, 500))
    assert (light.rpn.pre_nms, light.rpn.post_nms) == ((2000, 300), (2000, 300))
