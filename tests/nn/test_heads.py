"""Losses and decoding of the heads against torchvision's functions and plain references."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torchvision.models.detection.roi_heads import fastrcnn_loss, maskrcnn_loss

from maskwright.nn.box_head import BoxHead, BoxOutput, BoxTargets
from maskwright.nn.mask_head import ConvMaskHead, MaskOutput, MaskTargets
from maskwright.ops import decode_deltas, encode_deltas


def boxes_in(count: int, side: float, generator: torch.Generator) -> torch.Tensor:
    corner = torch.rand(count, 2, generator=generator) * side * 0.7
    return torch.cat([corner, corner + 2 + torch.rand(count, 2, generator=generator) * side / 4], 1)


def test_box_loss_equals_torchvision() -> None:
    generator = torch.Generator().manual_seed(0)
    classes, count = 4, 50
    head = BoxHead(2, classes, pool=2, width=8)
    logits = torch.randn(count, classes + 1, generator=generator)
    deltas = torch.randn(count, classes, 4, generator=generator)
    rois, goal = boxes_in(count, 100, generator), boxes_in(count, 100, generator)
    labels = torch.randint(0, classes + 1, (count,), generator=generator)
    loss = head.loss(
        BoxOutput(logits, deltas), rois, BoxTargets(labels, goal), torch.ones(count).bool()
    )
    # torchvision: background first, and one set of deltas for it.
    tv_labels = torch.where(labels == classes, 0, labels + 1)
    tv_logits = torch.cat([logits[:, -1:], logits[:, :-1]], 1)
    tv_deltas = torch.cat([torch.zeros(count, 1, 4), deltas], 1).flatten(1)
    goal_deltas = encode_deltas(goal, rois, (10, 10, 5, 5))
    expected = fastrcnn_loss(tv_logits, tv_deltas, [tv_labels], [goal_deltas])
    torch.testing.assert_close(loss["roi/class"], expected[0])
    torch.testing.assert_close(loss["roi/box"], expected[1])


def test_empty_slots_have_no_part_in_the_box_loss() -> None:
    generator = torch.Generator().manual_seed(1)
    head = BoxHead(2, 3, pool=2, width=8)
    logits = torch.randn(10, 4, generator=generator)
    deltas = torch.randn(10, 3, 4, generator=generator)
    rois, goal = boxes_in(10, 50, generator), boxes_in(10, 50, generator)
    labels = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 0, 1])
    valid = torch.arange(10) < 6
    whole = head.loss(BoxOutput(logits, deltas), rois, BoxTargets(labels, goal), valid)
    part = head.loss(
        BoxOutput(logits[:6], deltas[:6]), rois[:6], BoxTargets(labels[:6], goal[:6]), valid[:6]
    )
    for key in part:
        torch.testing.assert_close(whole[key], part[key])
    none = head.loss(BoxOutput(logits, deltas), rois, BoxTargets(labels, goal), valid & False)
    assert all(float(value) == 0 for value in none.values())


def plain_decode(scores, deltas, rois, size, thresh, iou, max_det):
    """Post-processing of one image, class by class, as written in the papers."""
    rows = []
    for label in range(scores.shape[1]):
        boxes = decode_deltas(deltas[:, label], rois, (10, 10, 5, 5))
        boxes = torchvision.ops.clip_boxes_to_image(boxes, size)
        keep = (scores[:, label] > thresh) & ((boxes[:, 2:] - boxes[:, :2]) >= 1e-2).all(1)
        boxes, score = boxes[keep], scores[keep, label]
        kept = torchvision.ops.nms(boxes, score, iou)
        rows += [(float(score[i]), label, boxes[i]) for i in kept]
    rows.sort(key=lambda row: -row[0])
    return rows[:max_det]


@pytest.mark.parametrize(
    ("count", "classes", "max_det"), [(40, 3, 20), (200, 60, 100), (300, 40, 9000)]
)
def test_decode_equals_the_plain_rule(count: int, classes: int, max_det: int) -> None:
    """The last case has more candidates than the first look takes, and wants them all."""
    generator = torch.Generator().manual_seed(count)
    head = BoxHead(2, classes, pool=2, width=8)
    rois = torch.stack([boxes_in(count, 200, generator) for _ in range(2)])
    deltas = torch.randn(2, count, classes, 4, generator=generator)
    # All different: the order of equal scores is nobody's promise.
    total = 2 * count * classes
    scores = torch.randperm(total, generator=generator).view(2, count, classes) / total
    valid = torch.ones(2, count, dtype=torch.bool)
    valid[1, count // 2 :] = False
    sizes = torch.tensor([[180, 200], [200, 150]])
    boxes, score, labels, kept = head.decode(
        scores, deltas, rois, valid, sizes, score_thresh=0.05, nms_thresh=0.5, max_det=max_det
    )
    for image in range(2):
        use = valid[image]
        expected = plain_decode(
            scores[image][use],
            deltas[image][use],
            rois[image][use],
            tuple(sizes[image].tolist()),
            0.05,
            0.5,
            max_det,
        )
        assert int(kept[image].sum()) == len(expected)
        found = kept[image]
        assert score[image][found].tolist() == [row[0] for row in expected]
        assert labels[image][found].tolist() == [row[1] for row in expected]
        torch.testing.assert_close(boxes[image][found], torch.stack([row[2] for row in expected]))
        assert not boxes[image][~found].any()


def test_mask_loss_equals_torchvision() -> None:
    torch.manual_seed(0)
    classes, count, side = 3, 6, 28
    logits = torch.randn(count, classes, side, side)
    labels = torch.randint(0, classes, (count,))
    masks = (torch.rand(count, 40, 60) > 0.5).to(torch.uint8)
    generator = torch.Generator().manual_seed(2)
    boxes = boxes_in(count, 40, generator)
    expected = maskrcnn_loss(
        torch.cat([torch.zeros(count, 1, side, side), logits], 1),
        [boxes],
        [masks],
        [labels + 1],
        [torch.arange(count)],
    )
    goal = torchvision.ops.roi_align(
        masks[:, None].float(),
        torch.cat([torch.arange(count)[:, None], boxes], 1),
        side,
        1.0,
    )[:, 0]
    head = ConvMaskHead(4, classes, width=4)
    chosen = logits[torch.arange(count), labels]
    loss = head.loss(MaskOutput((chosen,)), MaskTargets((goal,)), torch.ones(count).bool())
    torch.testing.assert_close(loss["roi/mask"], expected)


def test_mask_logits_of_one_class_equal_the_full_convolution() -> None:
    torch.manual_seed(0)
    head = ConvMaskHead(4, 5, width=6, pool=7)
    feats, labels = torch.randn(3, 4, 7, 7), torch.tensor([4, 0, 2])
    (logits,) = head(feats, (), torch.zeros(3, 4), torch.zeros(3), labels).logits
    x = feats
    for block in head.convs:
        x = block(x)
    full = head.logits(torch.relu(head.upsample(x)))
    torch.testing.assert_close(logits, full[torch.arange(3), labels])
