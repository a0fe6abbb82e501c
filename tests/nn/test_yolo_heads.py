"""Losses and decoding of YOLO's heads beside plain loops that follow the papers and Darknet."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from maskwright.nn.detection.dense.grid_head import GridHead
from maskwright.nn.detection.dense.region_head import WARM_IMAGES, RegionHead, pick_best
from maskwright.structures import Instances

SIZE = (96, 160)  # of the canvas


def number(value: Tensor) -> float:
    return float(value.detach())


def iou(a: list[float], b: list[float]) -> float:
    """Return the IoU of two boxes as centre and size."""
    sides = []
    for axis in (0, 1):
        low = max(a[axis] - a[axis + 2] / 2, b[axis] - b[axis + 2] / 2)
        high = min(a[axis] + a[axis + 2] / 2, b[axis] + b[axis + 2] / 2)
        sides.append(max(high - low, 0.0))
    shared = sides[0] * sides[1]
    return shared / (a[2] * a[3] + b[2] * b[3] - shared) if shared else 0.0


def objects(rows: list[list[tuple[float, float, float, float, int]]]) -> Instances:
    """Return objects given as centre and size in shares of the canvas, and class."""
    slots = max(len(image) for image in rows)
    boxes, labels = torch.zeros(len(rows), slots, 4), torch.zeros(len(rows), slots).long()
    valid = torch.zeros(len(rows), slots, dtype=torch.bool)
    for b, image in enumerate(rows):
        for k, (x, y, w, h, label) in enumerate(image):
            corners = torch.tensor([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
            boxes[b, k] = corners * torch.tensor([SIZE[1], SIZE[0]] * 2)
            labels[b, k], valid[b, k] = label, True
    return Instances(boxes, labels, valid, crowd=torch.zeros_like(valid))


def drawn(seed: int, images: int = 2, most: int = 7) -> list[list[Any]]:
    """Return random objects, several in a cell."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(images):
        numbers = torch.rand(most, 4, generator=generator)
        labels = torch.randint(3, (most,), generator=generator).tolist()
        sizes = 0.05 + 0.6 * numbers[:, 2:]
        near = 0.4 + 0.3 * numbers[:, :2]
        rows.append(
            [(*c, *s, n) for c, s, n in zip(near.tolist(), sizes.tolist(), labels, strict=True)]
        )
    return rows


def region_reference(head: RegionHead, raw: Tensor, rows: list[list[Any]], seen: int) -> Tensor:
    """Return the summed loss of maps (B, A, H, W, 5 + C), prediction by prediction."""
    total = raw.new_zeros(())
    anchors = head.anchors.tolist()
    _, A, H, W, _ = raw.shape
    for b, image in enumerate(rows):
        goals: dict[tuple[int, int, int], Any] = {}
        also: dict[tuple[int, int, int], set[int]] = {}
        for x, y, w, h, label in image[: head.most_objects]:
            i, j = min(int(x * W), W - 1), min(int(y * H), H - 1)
            shapes = [
                (anchors[n][0] / W, anchors[n][1] / H)
                if head.bias_match
                else (
                    math.exp(number(raw[b, n, j, i, 2])) * anchors[n][0] / W,
                    math.exp(number(raw[b, n, j, i, 3])) * anchors[n][1] / H,
                )
                for n in range(A)
            ]
            fits = [iou([0, 0, *shape], [0, 0, w, h]) for shape in shapes]
            n = fits.index(max(fits))
            goals[n, j, i] = (x, y, w, h, label)  # the later one
            also.setdefault((n, j, i), set()).add(label)
        for n in range(A):
            for j in range(H):
                for i in range(W):
                    t = raw[b, n, j, i]
                    box = [
                        (i + number(t[0].sigmoid())) / W,
                        (j + number(t[1].sigmoid())) / H,
                        math.exp(number(t[2])) * anchors[n][0] / W,
                        math.exp(number(t[3])) * anchors[n][1] / H,
                    ]
                    if (n, j, i) not in goals:
                        best = max((iou(box, list(one[:4])) for one in image), default=0.0)
                        if best <= head.thresh:
                            total = total + 0.5 * head.noobject_scale * t[4].sigmoid() ** 2
                        if seen < WARM_IMAGES:
                            away = (t[0].sigmoid() - 0.5) ** 2 + (t[1].sigmoid() - 0.5) ** 2
                            total = total + 0.5 * 0.01 * (away + t[2] ** 2 + t[3] ** 2)
                        continue
                    x, y, w, h, label = goals[n, j, i]
                    scale = head.coord_scale * (2 - w * h)
                    away = (t[0].sigmoid() - (x * W - i)) ** 2
                    away = away + (t[1].sigmoid() - (y * H - j)) ** 2
                    away = away + (t[2] - math.log(w * W / anchors[n][0])) ** 2
                    away = away + (t[3] - math.log(h * H / anchors[n][1])) ** 2
                    total = total + 0.5 * scale * away
                    wanted = iou(box, [x, y, w, h]) if head.rescore else 1.0
                    total = total + 0.5 * head.object_scale * (t[4].sigmoid() - wanted) ** 2
                    if head.softmax:
                        total = total - head.class_scale * t[5:].log_softmax(0)[label]
                    else:
                        for c in range(head.num_classes):
                            p = t[5 + c].sigmoid()
                            p = p if c in also[n, j, i] else 1 - p
                            total = total - head.class_scale * p.log()
    return total


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({}, 0),
        ({"softmax": False, "class_scale": 2.0}, WARM_IMAGES),
        ({"rescore": False, "bias_match": False, "thresh": 0.3, "coord_scale": 1.5}, 100),
        ({"most_objects": 4, "noobject_scale": 0.5, "object_scale": 3.0}, WARM_IMAGES),
    ],
)
def test_anchors_are_trained_as_the_loops_say(options: dict[str, Any], seen: int) -> None:
    head = RegionHead(3, [(0.8, 0.9), (2.0, 1.5), (3.0, 4.0)], **options).eval()
    head.seen.fill_(seen)
    maps = torch.randn(2, head.channels, 3, 5, generator=torch.Generator().manual_seed(4))
    rows = drawn(1)
    found, wanted = (maps.clone().requires_grad_() for _ in range(2))
    losses = head.losses(head(found), objects(rows), SIZE)
    ours = 2 * torch.stack(list(losses.values())).sum()
    theirs = region_reference(head, head(wanted), rows, seen)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    ours.backward()
    theirs.backward()
    torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-4, atol=1e-5)


def grid_reference(head: GridHead, row: Tensor, rows: list[list[Any]]) -> Tensor:
    """Return twice the summed loss of rows (B, numbers): equation 3, cell by cell."""
    S, n, C = head.side, head.per_cell, head.num_classes
    total = row.new_zeros(())
    for b, image in enumerate(rows):
        owner: dict[int, Any] = {}
        for x, y, w, h, label in image:
            i, j = min(int(x * S), S - 1), min(int(y * S), S - 1)
            owner.setdefault(j * S + i, (x * S - i, y * S - j, w, h, label, i, j))  # the first
        for cell in range(S * S):
            classes = row[b, cell * C : (cell + 1) * C]
            sure = row[b, S * S * C + cell * n : S * S * C + (cell + 1) * n]
            begin = S * S * (C + n) + cell * n * 4
            boxes = row[b, begin : begin + 4 * n].view(n, 4)
            best = -1
            if cell in owner:
                x, y, w, h, label, i, j = owner[cell]
                truth = [(i + x) / S, (j + y) / S, w, h]
                shown = [
                    [
                        *((i + number(one[0])) / S, (j + number(one[1])) / S),
                        *((number(v) ** 2 if head.sqrt else number(v)) for v in one[2:]),
                    ]
                    for one in boxes
                ]
                ious = [iou(one, truth) if min(one[2:]) > 0 else 0.0 for one in shown]
                apart = [math.dist(one, truth) for one in shown]
                best = ious.index(max(ious)) if max(ious) > 0 else apart.index(min(apart))
                for c in range(C):
                    total = total + head.class_scale * (classes[c] - float(c == label)) ** 2
                wanted = ious[best] if head.rescore else 1.0
                total = total + head.object_scale * (sure[best] - wanted) ** 2
                sides = (math.sqrt(w), math.sqrt(h)) if head.sqrt else (w, h)
                for value, goal in zip(boxes[best], (x, y, *sides), strict=True):
                    total = total + head.coord_scale * (value - goal) ** 2
            for k in range(n):
                if k != best:
                    total = total + head.noobject_scale * sure[k] ** 2
    return total


@pytest.mark.parametrize(
    "options", [{}, {"sqrt": False, "boxes": 3}, {"rescore": False, "class_scale": 2.0}]
)
def test_a_grid_is_trained_by_equation_3(options: dict[str, Any]) -> None:
    """Our loss is half of it, so that the gradient has no factor of two."""
    head = GridHead(3, side=4, **options)
    row = torch.randn(2, head.channels, generator=torch.Generator().manual_seed(2))
    rows = drawn(3)
    found, wanted = (row.clone().requires_grad_() for _ in range(2))
    losses = head.losses(head(found), objects(rows), SIZE)
    ours = 2 * torch.stack(list(losses.values())).sum()
    theirs = grid_reference(head, wanted, rows) / 2
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    ours.backward()
    theirs.backward()
    torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-4, atol=1e-5)
    assert int(head.seen) == 2


def heads() -> list[Any]:
    return [GridHead(3, side=4), RegionHead(3, [(0.8, 0.9), (2.0, 1.5)])]


def raw_of(head: Any, images: int) -> Any:
    shape = (
        (images, head.channels, 3, 5) if isinstance(head, RegionHead) else (images, head.channels)
    )
    return torch.randn(shape, generator=torch.Generator().manual_seed(5)).requires_grad_()


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize(
    "box",
    [
        (1.0, 1.0, 0.3, 0.3, 1),
        (0.0, 0.0, 0.2, 0.2, 1),
        (1.0, 0.5, 0.0, 0.2, 0),
        (0.5, 0.5, 0.0, 0.0, 0),
        (0.5, 0.5, -0.2, 0.1, 0),
        (0.5, 0.5, 1.0, 1.0, 2),
        (0.5, 0.5, 30.0, 20.0, 2),
    ],
)
def test_borders_and_boxes_without_an_area_stay_finite(kind: int, box: Any) -> None:
    head = heads()[kind]
    raw = raw_of(head, 1)
    losses = head.losses(head(raw), objects([[box]]), SIZE)
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert bool(total.isfinite()) and bool(raw.grad.isfinite().all())
    assert bool(losses["yolo/box"] > 0) == (min(box[2:4]) > 0)


@pytest.mark.parametrize("kind", [0, 1])
def test_boxes_in_a_crowd_need_not_be_silent(kind: int) -> None:
    head = heads()[kind]
    raw = raw_of(head, 1)
    crowd = objects([[(0.5, 0.5, 1.0, 1.0, 0)]])
    crowd = replace(crowd, crowd=crowd.valid)
    empty = replace(crowd, valid=torch.zeros_like(crowd.valid))
    with torch.no_grad():
        among, alone = (head.losses(head(raw), one, SIZE) for one in (crowd, empty))
    assert among["yolo/box"] == among["yolo/class"] == 0
    assert among["yolo/objectness"] < 0.9 * alone["yolo/objectness"]


def test_images_are_counted_while_it_trains() -> None:
    head = RegionHead(3, [(1.0, 1.0)])
    raw, rows = raw_of(head, 2), objects([[], [(0.5, 0.5, 0.2, 0.2, 0)]])
    head.seen.fill_(WARM_IMAGES - 3)
    assert head.losses(head(raw), rows, SIZE)["yolo/prior"] > 0
    assert head.losses(head(raw), rows, SIZE)["yolo/prior"] == 0  # this batch counts as well
    assert int(head.seen) == WARM_IMAGES + 1
    head.eval().losses(head(raw), rows, SIZE)
    assert int(head.seen) == WARM_IMAGES + 1


def test_forced_and_random_choose_the_responsible_box() -> None:
    row = torch.zeros(1, 2 * 2 * (10 + 1))
    for share, box in ((0.2, 1), (0.5, 0)):
        head = GridHead(1, side=2, forced=True)
        raw = row.clone().requires_grad_()
        losses = head.losses(head(raw), objects([[(0.2, 0.2, share, share, 0)]]), SIZE)
        losses["yolo/box"].backward()
        boxes = raw.grad[0, -2 * 2 * 8 :].view(4, 2, 4)
        assert boxes[0, box].any() and not boxes[0, 1 - box].any()
    head, seen = GridHead(1, side=2, random=True), set()
    for seed in range(8):
        raw = row.clone().requires_grad_()
        generator = torch.Generator().manual_seed(seed)
        targets = objects([[(0.2, 0.2, 0.5, 0.5, 0)]])
        head.losses(head(raw), targets, SIZE, generator=generator)["yolo/box"].backward()
        seen.add(int(raw.grad[0, -2 * 2 * 8 :].view(4, 2, 4)[0].any(1).nonzero()[0]))
    assert seen == {0, 1}


def test_a_box_may_be_of_several_classes() -> None:
    boxes = torch.tensor([[[10.0, 10, 50, 50], [11, 11, 51, 51], [-20, 60, 30, 90]]])
    scores = torch.tensor([[[0.9, 0.4], [0.8, 0.6], [0.3, 0.0]]])
    found = pick_best(
        boxes,
        scores,
        torch.tensor([[80, 100]]),
        score_thresh=0.2,
        nms_thresh=0.5,
        max_det=6,
    )
    assert found.valid[0].tolist() == [True] * 3 + [False] * 3
    torch.testing.assert_close(found.scores[0, :3], torch.tensor([0.9, 0.6, 0.3]))
    assert found.labels[0, :3].tolist() == [0, 1, 0]
    assert found.boxes[0, 2].tolist() == [0, 60, 30, 80]  # clipped when all is decided
