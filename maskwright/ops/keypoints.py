"""Find keypoints in the maps that a keypoint head predicts in its boxes, finer than a map's cell.

He et al. 2017 (Mask R-CNN), section 5: each map is enlarged to the size of its box by bicubic
interpolation, and the keypoint lies at the highest pixel. Bicubic interpolation is separable, so
an enlarged map is (rows x side) @ (side x side) @ (side x columns); many boxes of about one size
are enlarged together, a bounded number of pixels at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from .checks import from_host
from .operators import operator

# Pixels of enlarged maps that exist at once.
_BLOCK = 1 << 22
CUBIC = -0.75  # the free parameter of the cubic kernel (Keys 1981), as in torch's interpolation


def locate_keypoints(maps: Tensor, boxes: Tensor, *, longest: int | None = None) -> Tensor:
    """Return where each map is highest once it is enlarged to the size of its box.

    As torchvision and detectron2 do: the size is the side of the box rounded up, at least one
    pixel; a pixel stands for its centre; of equal pixels the first row and then the first column
    wins. Usable inside `torch.compile`: the shape of the result does not depend on the boxes.

    Args:
        maps: (R, J, M, M), one map per box and keypoint.
        boxes: (R, 4) xyxy, pixels.
        longest: longest side that a box can have, pixels: what a graph for other programs needs
            to know (see `ops.decompositions`).

    Returns:
        (R, J, 3) float32, without gradient: x, y in the frame of `boxes`, and the enlarged map's
        value there.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> maps = torch.zeros(1, 1, 4, 4)
        >>> maps[0, 0, 2, 1] = 1.0
        >>> locate_keypoints(maps, torch.tensor([[10.0, 20, 14, 24]])).tolist()
        [[[11.5, 22.5, 1.0]]]
    """
    square = maps.ndim == 4 and maps.shape[2] == maps.shape[3] > 0
    if not square or boxes.shape != (maps.shape[0], 4):
        raise ValueError(
            "expected maps (R, J, M, M), M from 1 on, and boxes (R, 4), "
            f"got {tuple(maps.shape)} and {tuple(boxes.shape)}"
        )
    result: Tensor = _locate_keypoints(maps, boxes, longest)
    return result


@operator("maskwright::locate_keypoints")
def _locate_keypoints(maps: Tensor, boxes: Tensor, longest: int | None = None) -> Tensor:
    count, joints = maps.shape[:2]
    boxes = boxes.detach().float()
    extent = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    lengths = extent.ceil()  # (R, 2): columns and rows of the enlarged map
    found = torch.zeros((count, joints, 3), dtype=torch.float32, device=maps.device)
    with torch.autocast(maps.device.type, enabled=False):
        groups = _size_groups(lengths.tolist(), joints) if joints else ()
        for members in groups:  # the only wait for the device
            at = from_host(members, maps.device)
            found[at] = _highest(maps[at].detach().float(), lengths[at])
    scale = extent / lengths
    xy = (found[..., :2] + 0.5) * scale[:, None] + boxes[:, None, :2]
    return torch.cat([xy, found[..., 2:]], -1)


@_locate_keypoints.register_fake
def _(maps: Tensor, boxes: Tensor, longest: int | None = None) -> Tensor:
    return maps.new_empty((*maps.shape[:2], 3), dtype=torch.float32)


def _size_groups(lengths: list[list[float]], joints: int) -> Iterator[list[int]]:
    """Yield the boxes that are computed together: of about one size, few enough for a block."""
    groups: dict[tuple[int, int], list[int]] = {}
    for i, (width, height) in enumerate(lengths):
        key = (math.ceil(2 * math.log2(max(width, 32))), math.ceil(2 * math.log2(max(height, 32))))
        groups.setdefault(key, []).append(i)
    for (columns, rows), members in groups.items():
        step = max(int(_BLOCK / (joints * 2 ** ((columns + rows) / 2))), 1)
        for begin in range(0, len(members), step):
            yield members[begin : begin + step]


def _highest(maps: Tensor, lengths: Tensor) -> Tensor:
    """Return column, row and value of the highest pixel of each enlarged map.

    Args:
        maps: (R, J, M, M) float32.
        lengths: (R, 2) columns and rows of each enlarged map.

    Returns:
        (R, J, 3).
    """
    count, joints, side, _ = maps.shape
    width, height = (int(n) for n in lengths.amax(0).tolist())
    # All keypoints side by side, so that one product serves them all: (R, M, J * M).
    table = maps.transpose(1, 2).reshape(count, side, joints * side)
    across = _cubic_weights(lengths[:, 0], 0, width, side).transpose(1, 2)  # (R, M, width)
    box = torch.arange(count, device=maps.device)[:, None]
    joint = torch.arange(joints, device=maps.device)
    best = maps.new_full((count, joints), -math.inf)
    column, row = torch.zeros_like(best), torch.zeros_like(best)
    block = max(_BLOCK // (count * joints * width), 1)
    for begin in range(0, height, block):
        rows = min(block, height - begin)
        down = _cubic_weights(lengths[:, 1], begin, rows, side) @ table
        value = down.reshape(count, rows * joints, side) @ across
        value = value.view(count, rows, joints, width)
        high, where = value.amax(-1).max(1)  # (R, J): the best row of the block
        line = value[box, where, joint]  # (R, J, width)
        better = high > best
        best = torch.where(better, high, best)
        row = torch.where(better, (where + begin).float(), row)
        column = torch.where(better, line.argmax(-1).float(), column)
    # Pixels past the end of a smaller map repeat its last one.
    last = lengths[:, None] - 1
    return torch.stack([column.minimum(last[..., 0]), row.minimum(last[..., 1]), best], -1)


def _cubic_weights(lengths: Tensor, begin: int, count: int, side: int) -> Tensor:
    """Return what each of `side` samples gives pixels of a line that it is enlarged to.

    Args:
        lengths: (R,) pixels of the line; pixels past its end count as its last one.
        begin, count: the pixels wanted.
        side: number of samples.

    Returns:
        (R, count, side); each pixel has the weights of its four nearest samples, those beyond the
        border falling to the border.
    """
    pixel = torch.arange(begin, begin + count, device=lengths.device)
    pixel = pixel.minimum(lengths[:, None] - 1)  # (R, count)
    at = (side / lengths)[:, None] * (pixel + 0.5) - 0.5
    low = at.floor()
    t = (at - low)[..., None] + torch.tensor([1.0, 0.0, -1.0, -2.0], device=at.device)
    d = t.abs()  # distance of the pixel from its four samples
    near = ((CUBIC + 2) * d - (CUBIC + 3)) * d * d + 1
    far = ((CUBIC * d - 5 * CUBIC) * d + 8 * CUBIC) * d - 4 * CUBIC
    sample = low.long()[..., None] + torch.arange(-1, 3, device=at.device)
    weights = at.new_zeros((*at.shape, side))
    return weights.scatter_add_(2, sample.clamp(0, side - 1), torch.where(d <= 1, near, far))
