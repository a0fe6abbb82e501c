"""Losses and decoding of the heads against torchvision's functions and plain references."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torchvision.models.detection.roi_heads import (
    fastrcnn_loss,
    keypointrcnn_loss,
    maskrcnn_loss,
)

from maskwright.nn.detection.box_head import BoxHead, BoxOutput, BoxTargets
from maskwright.nn.detection.keypoint_head import KeypointHead
from maskwright.nn.detection.mask_head import ConvMaskHead, MaskOutput, MaskTargets
from maskwright.ops import SoftNMS, decode_deltas, encode_deltas, soft_nms_padded


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
def test_decode_equals_the_plain_rule(
    count: int, classes: int, max_det: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last case has more candidates than the first look takes, and wants them all."""
    monkeypatch.setattr("maskwright.nn.detection.box_head.PER_OBJECT", 1)
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
    boxes, score, labels, kept, slot = head.decode(
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
        assert torch.equal(scores[image, slot[image], labels[image]][found], score[image][found])
        torch.testing.assert_close(boxes[image][found], torch.stack([row[2] for row in expected]))
        assert not boxes[image][~found].any()


@pytest.mark.parametrize("method", ["linear", "gaussian"])
def test_soft_decoding_sees_all_candidates_that_matter(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first look takes 30 of 120 pairs of box and class; scores that fall let others in."""
    generator = torch.Generator().manual_seed(3)
    head = BoxHead(2, 3, pool=2, width=8)
    rois = torch.tensor([10.0, 10, 40, 40]) + 4 * torch.randn(1, 40, 4, generator=generator)
    deltas = torch.randn(1, 40, 3, 4, generator=generator) * 0.1
    scores = torch.randperm(120, generator=generator).view(1, 40, 3) / 120
    sizes = torch.tensor([[60, 60]])
    rule = SoftNMS(method, 0.5, floor=0.02)
    # All pairs at once, pair i of box i // 3 and class i % 3.
    boxes = decode_deltas(deltas[0], rois[0][:, None], (10, 10, 5, 5)).flatten(0, 1)
    boxes = torchvision.ops.clip_boxes_to_image(boxes, (60, 60))
    flat, labels = scores.flatten(), torch.arange(120) % 3
    index, new, kept = soft_nms_padded(
        boxes[None], flat[None], (flat > 0.05)[None], rule, 0.3, 20, labels=labels[None]
    )
    monkeypatch.setattr("maskwright.nn.detection.box_head._CANDIDATES", 30)
    monkeypatch.setattr("maskwright.nn.detection.box_head.PER_OBJECT", 1)
    found = head.decode(
        scores, deltas, rois, torch.ones(1, 40, dtype=torch.bool), sizes,
        score_thresh=0.05, nms_thresh=0.3, max_det=20, soft_nms=rule,
    )  # fmt: skip
    assert bool(kept.all()) and bool(new[0, -1] < flat.sort(descending=True)[0][30])
    torch.testing.assert_close(found[1], new)
    assert torch.equal(found[2], labels[index])
    torch.testing.assert_close(found[0], boxes[index])


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


def keypoint_scene(joints: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ground truth (2, 4, J, 3), boxes (2, 6, 4), and which object each box belongs to."""
    generator = torch.Generator().manual_seed(3)
    points = torch.rand(2, 4, joints, 3, generator=generator) * 60
    points[..., 2] = torch.randint(0, 3, (2, 4, joints), generator=generator)
    boxes = torch.stack([boxes_in(6, 60, generator) for _ in range(2)])
    boxes[..., 2:] += 30
    gt = torch.randint(0, 4, (2, 6), generator=generator)
    # On the borders: the near one belongs to the first cell, the far one to the last.
    points[0, gt[0, 0], 0] = torch.cat([boxes[0, 0, :2], torch.ones(1)])
    points[0, gt[0, 0], 1] = torch.cat([boxes[0, 0, 2:], torch.ones(1)])
    return points, boxes, gt


@pytest.mark.parametrize("joints", [2, 17])
def test_keypoint_loss_equals_torchvision(joints: int) -> None:
    torch.manual_seed(0)
    points, boxes, gt = keypoint_scene(joints)
    head = KeypointHead(4, joints, convs=1, width=4)
    logits = torch.randn(12, joints, 56, 56)
    expected = keypointrcnn_loss(logits, list(boxes), list(points), list(gt))
    targets = head.targets(points, boxes, gt)
    loss = head.loss(logits, targets, torch.ones(12).bool())
    torch.testing.assert_close(loss["roi/keypoints"], expected)
    first, last = targets.cell[0, :2].tolist()
    assert targets.shown[0, :2].all() and (first, last) == (0, 56 * 56 - 1)
    part = head.loss(logits, targets, torch.arange(12) < 6)
    torch.testing.assert_close(
        part["roi/keypoints"],
        keypointrcnn_loss(logits[:6], [boxes[0]], [points[0]], [gt[0]]),
    )


def test_keypoint_scores_do_not_depend_on_the_box() -> None:
    """The softmax of the highest cell: a sixteenth where sixteen share the height."""
    head = KeypointHead(4, 2, convs=1, width=4)
    logits = torch.zeros(2, 2, 56, 56)
    logits[:, 1, 20:24, 30:34] = 50.0
    boxes = torch.tensor([[10.0, 20, 66, 76], [0, 0, 560, 280]])
    found = head.decode(logits, boxes)
    torch.testing.assert_close(found[:, 0, 2], torch.full((2,), 1 / 56**2))
    torch.testing.assert_close(found[:, 1, 2], torch.full((2,), 1 / 16))
    cells = (found[:, 1, :2] - boxes[:, :2]) / ((boxes[:, 2:] - boxes[:, :2]) / 56)
    assert bool(((cells >= torch.tensor([30, 20])) & (cells <= torch.tensor([34, 24]))).all())
    raw = KeypointHead(4, 2, convs=1, width=4, scores="logit").decode(logits, boxes)
    assert raw[0, 1, 2].item() >= 50 and torch.equal(raw[..., :2], found[..., :2])
    with pytest.raises(ValueError, match="'enlarged' or 'logit'"):
        KeypointHead(4, 2, scores="heat")
