"""detectron2's detectors a second time, in the plainest form, on its own tensors.

Written from what is known of its conventions: blue first, pixels not divided, the stride in the
1x1, a crop aligned to half pixels with as many samples as it has pixels, anchors by size and then
by ratio, no padding but for a pyramid. `Traps` puts back what is easily got wrong.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import batched_nms, clip_boxes_to_image, roi_align

Params = dict[str, Tensor]
RPN = "proposal_generator.rpn_head."
ANCHOR_CODES, BOX_CODES = BoxCoder((1.0, 1.0, 1.0, 1.0)), BoxCoder((10.0, 10.0, 5.0, 5.0))
SIZES = (32.0, 64.0, 128.0, 256.0, 512.0)


class Traps(NamedTuple):
    """What each convention would be if it were got wrong, one at a time."""

    divided: bool = False  # pixels by the deviation of ImageNet
    red_first: bool = False
    stride_in_3x3: bool = False
    eps: float = 1e-5
    ratio_outer: bool = False
    rounded: bool = False  # corners of anchors
    aligned: bool = True
    samples: int = 0
    background_first: bool = False
    padded: bool = False  # the input of a detector on one map
    divided_resnext: bool = True


def conv(state: Params, name: str, x: Tensor, eps: float = 1e-5, **options: Any) -> Tensor:
    """A convolution and the norm behind it, if there is one."""
    x = F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), **options)
    if f"{name}.norm.weight" not in state:
        return x
    norm = [state[f"{name}.norm.{k}"] for k in ("running_mean", "running_var", "weight", "bias")]
    return F.batch_norm(x, *norm, eps=eps)


def linear(state: Params, name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def stage(state: Params, name: str, x: Tensor, stride: int, traps: Traps, dilation: int = 1) -> Any:
    """A stage of bottlenecks, `name` being such as "backbone.res3"."""
    i, eps = 0, traps.eps
    resnext = state[f"{name}.0.conv2.weight"].shape[1] < state[f"{name}.0.conv2.weight"].shape[0]
    while f"{name}.{i}.conv1.weight" in state:
        at, step = f"{name}.{i}.", stride if i == 0 else 1
        first, middle = (1, step) if traps.stride_in_3x3 or resnext else (step, 1)
        kernel = state[f"{at}conv2.weight"]
        y = F.relu(conv(state, f"{at}conv1", x, eps, stride=first))
        y = conv(
            state, f"{at}conv2", y, eps, stride=middle, padding=dilation, dilation=dilation,
            groups=kernel.shape[0] // kernel.shape[1],
        )  # fmt: skip
        y = conv(state, f"{at}conv3", F.relu(y), eps)
        skip = x if i else conv(state, f"{at}shortcut", x, eps, stride=step)
        x, i = F.relu(y + skip), i + 1
    return x


def body(state: Params, prefix: str, pixels: Tensor, traps: Traps, *, dc5: bool) -> list[Tensor]:
    """The maps C2 to C5, or to C4 where res5 is not there, of (3, H, W) RGB."""
    order = [0, 1, 2] if traps.red_first else [2, 1, 0]
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    kernel = state[f"{prefix}res2.0.conv2.weight"]
    resnext = kernel.shape[1] < kernel.shape[0]
    x = pixels[order] - mean[order, None, None]
    if traps.divided or (resnext and traps.divided_resnext):
        x = x / std[order, None, None]
    x = F.relu(conv(state, f"{prefix}stem.conv1", x[None], traps.eps, stride=2, padding=3))
    x = F.max_pool2d(x, 3, 2, 1)
    maps = []
    for number in (2, 3, 4, 5):
        name = f"{prefix}res{number}"
        if f"{name}.0.conv1.weight" in state:
            last = dc5 and number == 5
            step = 1 if number == 2 or last else 2
            x = stage(state, name, x, step, traps, 2 if last else 1)
            maps.append(x)
    return maps


def pyramid(state: Params, maps: list[Tensor], finest: int) -> list[Tensor]:
    levels: list[Tensor] = []
    above = None
    for level in range(5, finest - 1, -1):
        x = conv(state, f"backbone.fpn_lateral{level}", maps[level - 2])
        above = x if above is None else x + F.interpolate(above, scale_factor=2.0)
        levels.insert(0, conv(state, f"backbone.fpn_output{level}", above, padding=1))
    return levels


def anchors(sizes: Any, stride: int, height: int, width: int, traps: Traps) -> Tensor:
    """(height * width * A, 4), by size and then by ratio, around the corners of the cells."""
    pairs = [(size, ratio) for size in sizes for ratio in (0.5, 1.0, 2.0)]
    if traps.ratio_outer:
        pairs = [(size, ratio) for ratio in (0.5, 1.0, 2.0) for size in sizes]
    cell = []
    for size, ratio in pairs:
        w = (size**2 / ratio) ** 0.5
        cell.append([-w / 2, -w * ratio / 2, w / 2, w * ratio / 2])
    own = torch.tensor(cell).round() if traps.rounded else torch.tensor(cell)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    shift = torch.stack([x, y, x, y], -1).view(-1, 1, 4) * stride
    return (shift + own).view(-1, 4)


def proposals(
    state: Params, levels: list[Tensor], sizes: Any, strides: Any, size: Any, before: int, t: Traps
) -> Tensor:
    found, scores, level_of = [], [], []
    for i, level in enumerate(levels):
        x = level
        several = f"{RPN}conv.conv0.weight" in state
        for name in ("conv.conv0", "conv.conv1") if several else ("conv",):
            x = F.relu(conv(state, RPN + name, x, padding=1))
        logits = conv(state, f"{RPN}objectness_logits", x)[0].permute(1, 2, 0).flatten()
        deltas = conv(state, f"{RPN}anchor_deltas", x)[0].permute(1, 2, 0).reshape(-1, 4)
        own = anchors(sizes[i], strides[i], *level.shape[2:], t)
        top, at = logits.topk(min(before, len(logits)))
        boxes = ANCHOR_CODES.decode(deltas[at], [own[at]])[:, 0]
        found.append(clip_boxes_to_image(boxes, size))
        scores.append(top)
        level_of.append(torch.full((len(at),), i))
    box, score, of = torch.cat(found), torch.cat(scores), torch.cat(level_of)
    whole = ((box[:, 2:] - box[:, :2]) > 0).all(1)
    box, score, of = box[whole], score[whole], of[whole]
    return box[batched_nms(box, score, of, 0.7)[:1000]]


def crops(levels: list[Tensor], boxes: Tensor, side: int, stride: int, t: Traps) -> Tensor:
    """Crops from one map, or from the four levels of a pyramid whose first has this stride."""
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    level = (4 + (area.sqrt() / 224 + 1e-8).log2()).floor().clamp(2, 5) - 2
    if len(levels) == 1:
        level = torch.zeros(len(boxes))
    found = boxes.new_zeros(len(boxes), levels[0].shape[1], side, side)
    for i, feature in enumerate(levels):
        own = level == i
        rois = torch.cat([torch.zeros(int(own.sum()), 1), boxes[own]], 1)
        scale = 1 / stride / 2**i
        found[own] = roi_align(feature, rois, side, scale, t.samples, aligned=t.aligned)
    return found


def detect(state: Params, pixels: Tensor, traps: Traps | None = None) -> tuple[Tensor, ...]:
    """Boxes, scores, labels and, if there is a head, masks and the features of a keypoint head.

    Args:
        state: detectron2's tensors of a Faster, Mask or Keypoint R-CNN, FPN, C4 or DC5.
        pixels: (3, H, W) RGB of the network's input.
        traps: what to get wrong.
    """
    t = traps or Traps()
    size = tuple(pixels.shape[1:])
    fpn = "backbone.fpn_lateral2.weight" in state
    c4 = "roi_heads.res5.0.conv1.weight" in state
    unit = 32 if fpn or t.padded else 1
    maps: list[Tensor]
    if unit > 1:
        pixels = padded(pixels, unit, t)
    maps = body(state, "backbone.bottom_up." if fpn else "backbone.", pixels, t, dc5=not fpn)
    if fpn:
        levels = pyramid(state, maps, 2)
        every = [*levels, levels[-1][:, :, ::2, ::2]]
        sizes, strides, before = [(s,) for s in SIZES], [4, 8, 16, 32, 64], 1000
        stride = 4
    else:
        levels = every = maps[-1:]
        sizes, strides, before, stride = [SIZES], [16], 6000, 16  # type: ignore[list-item]
    box = proposals(state, every, sizes, strides, size, before, t)
    if c4:
        x = stage(state, "roi_heads.res5", crops(levels, box, 14, stride, t), 2, t).mean((2, 3))
    else:
        x = crops(levels, box, 7, stride, t)
        for i in range(1, 5):
            if f"roi_heads.box_head.conv{i}.weight" in state:
                x = F.relu(conv(state, f"roi_heads.box_head.conv{i}", x, padding=1))
        x = x.flatten(1)  # channel, row, column
        for name in ("fc1", "fc2"):
            if f"roi_heads.box_head.{name}.weight" in state:
                x = F.relu(linear(state, f"roi_heads.box_head.{name}", x))
    probs = linear(state, "roi_heads.box_predictor.cls_score", x).softmax(1)
    probs = probs[:, 1:] if t.background_first else probs[:, :-1]
    classes = probs.shape[1]
    deltas = linear(state, "roi_heads.box_predictor.bbox_pred", x)
    boxes = BOX_CODES.decode(deltas, [box]).view(-1, 4)
    boxes = clip_boxes_to_image(boxes, size).view(-1, classes, 4)
    row, label = (probs > 0.05).nonzero(as_tuple=True)
    keep = batched_nms(boxes[row, label], probs[row, label], label, 0.5)[:100]
    box, score, label = boxes[row, label][keep], probs[row, label][keep], label[keep]
    real = ((box[:, 2:] - box[:, :2]) > 0).all(1)
    box, score, label = box[real], score[real], label[real]
    found = [box, score, label]
    if "roi_heads.mask_head.predictor.weight" in state:
        if c4:
            x = stage(state, "roi_heads.res5", crops(levels, box, 14, stride, t), 2, t)
        else:
            x = crops(levels, box, 14, stride, t)
        for i in range(1, 5):
            if f"roi_heads.mask_head.mask_fcn{i}.weight" in state:
                x = F.relu(conv(state, f"roi_heads.mask_head.mask_fcn{i}", x, padding=1))
        up = "roi_heads.mask_head.deconv"
        x = F.relu(F.conv_transpose2d(x, state[f"{up}.weight"], state[f"{up}.bias"], stride=2))
        masks = conv(state, "roi_heads.mask_head.predictor", x).sigmoid()
        found.append(masks[torch.arange(len(label)), label])
    if "roi_heads.keypoint_head.score_lowres.weight" in state:
        x, i = crops(levels, box, 14, stride, t), 1
        while f"roi_heads.keypoint_head.conv_fcn{i}.weight" in state:
            x = F.relu(conv(state, f"roi_heads.keypoint_head.conv_fcn{i}", x, padding=1))
            i += 1
        up = "roi_heads.keypoint_head.score_lowres"
        x = F.conv_transpose2d(x, state[f"{up}.weight"], state[f"{up}.bias"], stride=2, padding=1)
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        found.append(keypoints(x, box))
    return tuple(found)


def padded(pixels: Tensor, unit: int, traps: Traps) -> Tensor:
    """Pixels with the mean, which is zero to the network, up to multiples of `unit`."""
    height, width = pixels.shape[1:]
    full = torch.tensor([123.675, 116.28, 103.53])[:, None, None].expand(
        3, height + -height % unit, width + -width % unit
    )
    full = full.clone()
    full[:, :height, :width] = pixels
    return full


def keypoints(maps: Tensor, boxes: Tensor) -> Tensor:
    """(N, J, 3): the highest pixel of each map enlarged to its box, and its share of the cells."""
    found = torch.zeros(*maps.shape[:2], 3)
    for i, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        w, h = max(x2 - x1, 1), max(y2 - y1, 1)
        high, wide = int(np.ceil(h)), int(np.ceil(w))
        full = F.interpolate(maps[[i]], size=(high, wide), mode="bicubic", align_corners=False)[0]
        for j, one in enumerate(full):
            at = int(one.argmax())
            found[i, j, 0] = x1 + (at % wide + 0.5) * w / wide
            found[i, j, 1] = y1 + (at // wide + 0.5) * h / high
            found[i, j, 2] = (one.max() - maps[i, j].logsumexp((0, 1))).exp()
    return found


def resized(photo: np.ndarray, short: int, long: int) -> Tensor:
    """The network's input (3, h, w) RGB of a photo (H, W, 3) uint8, by Pillow."""
    height, width = photo.shape[:2]
    scale = short / min(height, width)
    new = [short, scale * width] if height < width else [scale * height, short]
    if max(new) > long:
        again = long / max(new)
        new = [side * again for side in new]
    high, wide = (int(side + 0.5) for side in new)
    made = Image.fromarray(photo).resize((wide, high), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(made).copy()).permute(2, 0, 1).float()


def pasted(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, H, W) bool: masks in boxes of the photo, sampled at the centres of its pixels."""
    height, width = size
    found = torch.zeros(len(masks), height, width, dtype=torch.bool)
    for i, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        x = (torch.arange(width) + 0.5 - x1) / (x2 - x1) * 2 - 1
        y = (torch.arange(height) + 0.5 - y1) / (y2 - y1) * 2 - 1
        grid = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1)
        value = F.grid_sample(masks[i][None, None], grid[None], align_corners=False)
        found[i] = value[0, 0] >= 0.5
    return found
