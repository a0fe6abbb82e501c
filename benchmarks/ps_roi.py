"""Position-sensitive RoI pooling against torchvision, forward and with gradients.

    python benchmarks/ps_roi.py [--repeats 11] [--threads 2] [--only TEXT]

From the score maps of an 800 x 1216 image at stride 16 (R-FCN: 21 or 81 classes with background,
7 x 7 parts) to the pooled scores; backward to the gradient of the maps. Boxes as in `roi_align.py`.
Every case is checked to give equal numbers before it is timed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torchvision
from common import compare, header, line, machine, parse
from roi_align import draw_boxes
from torch import Tensor

from maskwright.ops import ps_roi_align, ps_roi_pool

STRIDE, PARTS = 16, 7
Pool = Callable[[Tensor], Tensor]


def sides(kind: str, boxes: Tensor) -> tuple[Pool, Pool]:
    """Return torchvision's function and ours."""
    index = torch.zeros(len(boxes), dtype=torch.int64)
    rois = torch.cat([index[:, None], boxes], 1)
    if kind == "pool":
        return (
            lambda x: torchvision.ops.ps_roi_pool(x, rois, PARTS, 1 / STRIDE),
            lambda x: ps_roi_pool(x, boxes, index, stride=STRIDE, output_size=PARTS),
        )
    return (
        lambda x: torchvision.ops.ps_roi_align(x, rois, PARTS, 1 / STRIDE, 2),
        lambda x: ps_roi_align(x, boxes, index, stride=STRIDE, output_size=PARTS),
    )


def main() -> None:
    options = parse(__doc__)
    torch.manual_seed(0)
    print(machine())
    print(header("torchvision"))
    for classes in (21, 81):
        maps = torch.randn(1, classes * PARTS**2, 50, 76)
        for kind in ("pool", "align"):
            for count in (300, 1000):
                theirs, ours = sides(kind, draw_boxes(count))
                torch.testing.assert_close(ours(maps), theirs(maps), rtol=1e-5, atol=1e-5)
                for backward in (False, True):
                    what = "forward and backward" if backward else "forward"
                    title = f"ps_roi_{kind}, {classes} classes, {count} boxes, {what}"
                    if options.only not in title:
                        continue
                    leaf = maps.clone().requires_grad_(backward)
                    grad = torch.randn(count, classes, PARTS, PARTS)

                    def step(
                        pool: Pool, x: Tensor = leaf, g: Tensor = grad, back: bool = backward
                    ) -> None:
                        out = pool(x)
                        if back:
                            x.grad = None
                            out.backward(g)

                    row = compare(
                        title,
                        lambda f=theirs, s=step: s(f),
                        lambda f=ours, s=step: s(f),
                        repeats=options.repeats,
                    )
                    print(line(row), flush=True)


if __name__ == "__main__":
    main()
