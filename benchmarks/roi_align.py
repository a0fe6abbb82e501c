"""RoIAlign and RoIPool against torchvision, forward and with gradients.

    python benchmarks/roi_align.py [--repeats 11] [--threads 2] [--only TEXT]

Timed from the pyramid to the matrix that the box head consumes (each side in its own column order)
or, for one map, to the pooled tensor; backward from a gradient in the order of that tensor to
gradients of the maps. Maps of an 800 x 1216 image with 256 channels, P2 to P5 (torchvision pools
from these four); boxes with log-uniform sides of 16 to 600 pixels, clipped to the image.
torchvision gets contiguous maps, its fastest; ours channels-last or ("planar") contiguous ones,
RoIPool, which comes with VGG, the latter only.
Every case is checked to give equal numbers before it is timed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from common import Comparison, compare, header, line, machine, parse
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops import roi_align as torchvision_roi_align
from torchvision.ops import roi_pool as torchvision_roi_pool

from maskwright.ops import roi_align, roi_pool

SIZE, STRIDES, CHANNELS = (800, 1216), (4, 8, 16, 32), 256
Case = tuple[Callable[[list[Tensor]], Tensor], Callable[[list[Tensor]], Tensor]]


def draw_boxes(count: int) -> Tensor:
    """Return (R, 4) boxes with log-uniform size and an aspect ratio of up to two."""
    extent = torch.tensor([SIZE[1], SIZE[0]])
    size = torch.exp(torch.rand(count, 1) * math.log(600 / 16)) * 16
    half = size * torch.exp((torch.rand(count, 2) - 0.5) * math.log(2)) / 2
    centre = torch.rand(count, 2) * extent
    boxes = torch.cat([centre - half, centre + half], 1).clamp(min=0)
    return torch.minimum(boxes, extent.repeat(2))


def pyramid(boxes: Tensor, size: int, ratio: int) -> Case:
    """Pool from four maps to the rows of a fully connected layer."""
    index = torch.zeros(len(boxes), dtype=torch.int64)
    pool = MultiScaleRoIAlign(["0", "1", "2", "3"], size, ratio)

    def theirs(maps: list[Tensor]) -> Tensor:
        named = {str(i): fmap for i, fmap in enumerate(maps)}
        return pool(named, [boxes], [SIZE]).flatten(1)

    def ours(maps: list[Tensor]) -> Tensor:
        out = roi_align(
            maps,
            boxes,
            index,
            strides=STRIDES,
            output_size=size,
            sampling_ratio=ratio,
            aligned=False,
        )
        return out.permute(0, 2, 3, 1).flatten(1)

    return theirs, ours


def single(boxes: Tensor, stride: int, size: int, ratio: int) -> Case:
    """Pool from one map."""
    index = torch.zeros(len(boxes), dtype=torch.int64)
    rois = torch.cat([index[:, None], boxes], 1)

    def theirs(maps: list[Tensor]) -> Tensor:
        return torchvision_roi_align(maps[0], rois, size, 1 / stride, ratio, True)

    def ours(maps: list[Tensor]) -> Tensor:
        return roi_align(
            maps, boxes, index, strides=[stride], output_size=size, sampling_ratio=ratio
        )

    return theirs, ours


def maximum(boxes: Tensor, stride: int) -> Case:
    """RoIPool of 7 x 7 bins from one map."""
    index = torch.zeros(len(boxes), dtype=torch.int64)
    rois = torch.cat([index[:, None], boxes], 1)

    def theirs(maps: list[Tensor]) -> Tensor:
        return torchvision_roi_pool(maps[0], rois, 7, 1 / stride)

    def ours(maps: list[Tensor]) -> Tensor:
        return roi_pool(maps[0], boxes, index, stride=stride, output_size=7)

    return theirs, ours


def cases() -> Iterator[tuple[str, tuple[int, ...], Case]]:
    """Yield title, strides of the maps and the two functions."""
    for count in (1000, 512, 100, 10, 1):
        yield f"pyramid, {count} boxes, 7x7", STRIDES, pyramid(draw_boxes(count), 7, 2)
    yield "pyramid, 1000 boxes, 7x7, adaptive", STRIDES, pyramid(draw_boxes(1000), 7, 0)
    yield "pyramid, 100 boxes, 14x14", STRIDES, pyramid(draw_boxes(100), 14, 2)
    for stride in (4, 16):
        for count in (100, 10):
            case = single(draw_boxes(count), stride, 14, 2)
            yield f"one map of stride {stride}, {count} boxes, 14x14", (stride,), case
    for stride, count in ((16, 1000), (16, 100), (16, 10), (4, 100)):
        case = maximum(draw_boxes(count), stride)
        yield f"RoIPool, stride {stride}, {count} boxes, 7x7", (stride,), case


def order_like(grad: Tensor, out: Tensor) -> Tensor:
    """Return `grad` with the numbers of torchvision's order in the order of our output."""
    if out.dim() == 4:
        return grad.contiguous(memory_format=torch.channels_last)
    cells = grad.view(len(grad), CHANNELS, -1)
    return cells.transpose(1, 2).flatten(1)


def measure(
    title: str, strides: tuple[int, ...], case: Case, planar: bool, backward: bool, repeats: int
) -> Comparison:
    """Check and time one case; `planar`: our maps are contiguous too."""
    theirs, ours = case
    shapes = [(1, CHANNELS, SIZE[0] // s, SIZE[1] // s) for s in strides]
    planes = [torch.randn(shape).requires_grad_(backward) for shape in shapes]
    order = torch.contiguous_format if planar else torch.channels_last
    maps = [plane.detach().clone(memory_format=order).requires_grad_(backward) for plane in planes]
    out = theirs(planes)
    grad = torch.randn_like(out)
    ours_grad = order_like(grad, out)
    torch.testing.assert_close(ours(maps), order_like(out, out), atol=1e-5, rtol=1e-5)

    def step(pool: Callable[[list[Tensor]], Tensor], leaves: list[Tensor], grad: Tensor) -> None:
        pooled = pool(leaves)
        if backward:
            for leaf in leaves:
                leaf.grad = None
            pooled.backward(grad)

    row = compare(
        title,
        lambda: step(theirs, planes, grad),
        lambda: step(ours, maps, ours_grad),
        repeats=repeats,
    )
    if backward:
        for mine, other in zip(maps, planes, strict=True):
            torch.testing.assert_close(
                mine.grad, other.grad, atol=1e-4, rtol=1e-4, check_stride=False
            )
    return row


def main() -> None:
    options = parse(__doc__)
    torch.manual_seed(0)
    print(machine())
    print(header("torchvision"))
    for title, strides, case in cases():
        for planar in (False, True) if not title.startswith("RoIPool") else (True,):
            for backward in (False, True):
                name = title + (", planar" if planar else "")
                name += ", forward and backward" if backward else ", forward"
                if options.only in name:
                    row = measure(name, strides, case, planar, backward, options.repeats)
                    print(line(row), flush=True)


if __name__ == "__main__":
    main()
