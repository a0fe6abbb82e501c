"""SSD and SSDLite: what they are made of, which boxes learn what, and what their options change."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import box_iou

from maskwright.errors import OptionError
from maskwright.models import PostProcess, build, build_tiny
from maskwright.nn.detection.dense.mining import MININGS
from maskwright.nn.detection.dense.scores import SoftmaxScores
from maskwright.nn.detection.matchers import OwningMatcher
from maskwright.structures import Images, Instances


def batch(side: int = 64) -> tuple[Images, Instances]:
    size = torch.tensor([[side, side]] * 2)
    pixels = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1)) * 255
    boxes = torch.tensor([[[10.0, 12, 34, 40], [30, 20, 62, 60]], [[0, 0, 0, 0], [0, 0, 0, 0]]])
    valid = torch.tensor([[True, True], [False, False]])
    return Images(pixels, size, size), Instances(boxes, torch.tensor([[0, 1], [0, 0]]), valid)


def tiny(name: str = "ssd300_vgg16", **options):
    from maskwright.models import get_entry

    torch.manual_seed(0)
    return build(name, 2, **{**(get_entry(name).tiny or {}), **options})


@pytest.mark.parametrize(
    ("name", "maps", "boxes"),
    [
        ("ssd300_vgg16", (38, 19, 10, 5, 3, 1), 8732),
        ("ssd512_vgg16", (64, 32, 16, 8, 4, 2, 1), 24564),
        ("ssdlite320_mobilenet_v3_large", (20, 10, 5, 3, 2, 1), 3234),
        ("ssdlite320_mobilenet_v2", (20, 10, 5, 3, 2, 1), 3234),
        ("ssdlite320_lite0", (20, 10, 5, 3, 2, 1), 3234),
    ],
)
def test_published_maps_and_boxes(name: str, maps: tuple[int, ...], boxes: int) -> None:
    with torch.device("meta"):
        detector = build(name, 20).eval()
    height, width = detector.resize.stretch
    size = torch.tensor([[height, width]])
    pixels = torch.empty(1, 3, height, width, device="meta")
    levels = detector.fpn(detector.backbone(pixels))
    assert [tuple(level.shape[-2:]) for level in levels] == [(side, side) for side in maps]
    assert [level.shape[1] for level in levels] == list(detector.fpn.channels)
    cells = zip(maps, detector.head.anchors.per_level, strict=True)
    assert sum(side * side * count for side, count in cells) == boxes
    assert size.tolist() == [[height, height]]


def test_default_boxes_in_pixels_as_published() -> None:
    """Those of the first and fifth map on Pascal VOC, by the table of the paper's code."""
    sizes = (30, 60, 111, 162, 213, 264, 315)
    detector = build("ssd300_vgg16", 20, anchor_sizes=sizes)
    sides = (38, 19, 10, 5, 3, 1)
    levels = detector.head.anchors([(side, side) for side in sides], (300, 300))
    first, fifth = levels[0][: 4 * 38].view(38, 4, 4), levels[4][:4]
    centres = (first[:, 0, :2] + first[:, 0, 2:]) / 2
    torch.testing.assert_close(centres[:, 0], torch.arange(38) * 8 + 4.0)
    wide = 30 * 2**0.5
    torch.testing.assert_close(
        first[0, :, 2:] - first[0, :, :2],
        torch.tensor([[30, 30], [1800**0.5] * 2, [wide, wide / 2], [wide / 2, wide]]),
    )
    torch.testing.assert_close(
        fifth[1],
        torch.tensor([50 - (213 * 264) ** 0.5 / 2] * 2 + [50 + (213 * 264) ** 0.5 / 2] * 2),
    )


def test_the_finest_map_has_one_length() -> None:
    detector = tiny().eval()
    images, _ = batch()
    with torch.no_grad():
        finest = detector.features(images)[0]
    lengths = finest.norm(dim=1)
    assert torch.allclose(lengths[lengths > 0], torch.tensor(20.0))


def test_every_object_owns_a_box_of_its_own() -> None:
    """Against the rule as a plain loop over all pairs; and as torchvision has it, the last wins."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(300, 2, generator=generator) * 80
    boxes = torch.cat([corner, corner + 4 + 30 * torch.rand(300, 2, generator=generator)], 1)
    corner = torch.rand(1, 40, 2, generator=generator) * 20 + 30
    gt = torch.cat([corner, corner + 5 + 20 * torch.rand(1, 40, 2, generator=generator)], 2)
    valid = torch.ones(1, 40, dtype=torch.bool)
    valid[0, 7] = False
    iou = torch.where(valid[0, :, None], box_iou(gt[0], boxes), -1)
    left, owner = iou.clone(), torch.full((300,), -1)
    while left.max() > 0:
        slot, box = divmod(int(left.argmax()), 300)
        owner[box] = slot
        left[slot], left[:, box] = -1, -1
    best, which = iou.max(0)
    match = OwningMatcher(0.5)(boxes, gt, valid)
    assert torch.equal(match.state[0] == 1, (owner >= 0) | (best >= 0.5))
    positive = match.state[0] == 1
    assert torch.equal(match.slot[0][positive], torch.where(owner >= 0, owner, which)[positive])
    assert sorted(owner[owner >= 0].tolist()) == valid[0].nonzero()[:, 0].tolist()

    from torchvision.models.detection._utils import SSDMatcher

    gt, iou = gt[:, valid[0]], iou[valid[0]]
    wanted = SSDMatcher(0.5)(iou)
    match = OwningMatcher(0.5, shared=True)(boxes, gt, valid[:, valid[0]])
    assert torch.equal(match.state[0] == 1, wanted >= 0)
    assert torch.equal(match.slot[0][wanted >= 0], wanted[wanted >= 0])


def test_what_lies_in_crowds_is_no_background() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [40, 40, 50, 50], [60, 60, 70, 70]])
    gt = torch.tensor([[[0.0, 0, 10, 10], [35, 35, 55, 55]]])
    crowd = torch.tensor([[False, True]])
    match = OwningMatcher(0.5)(boxes, gt, torch.ones(1, 2, dtype=torch.bool), crowd)
    assert match.state.tolist() == [[1, -1, 0]]


@pytest.mark.parametrize("name", ["ssd300_vgg16", "ssdlite320_mobilenet_v3_large"])
def test_an_empty_image_teaches_as_many_boxes_as_are_asked_for(name: str) -> None:
    images, targets = batch(96)
    none = Instances(targets.boxes, targets.labels, torch.zeros_like(targets.valid))
    for least, conventions in ((None, "maskwright"), (5, "maskwright"), (None, "torchvision")):
        detector = tiny(name, min_negatives=least, conventions=conventions).eval()
        output = detector.judged(images)
        found = detector.head.losses(output, none)
        assert found["dense/box"] == 0
        count = {"maskwright": least or 3, "torchvision": 0}[conventions]
        losses = -torch.cat(output.logits, 1).log_softmax(2)[..., -1]
        wanted = losses.topk(count, 1)[0].sum() if count else torch.zeros(())
        torch.testing.assert_close(found["dense/class"], wanted)


def test_losses_of_a_batch_by_hand() -> None:
    images, targets = batch()
    detector = tiny(box_weight=2.0, min_negatives=0).eval()
    output = detector.judged(images)
    found = detector.head.losses(output, targets)
    anchors, deltas = torch.cat(output.anchors), torch.cat(output.deltas, 1)
    match = detector.head.matcher(anchors, targets.boxes, targets.valid)
    assert not (match.state[1] == 1).any()
    logs = torch.cat(output.logits, 1).log_softmax(2)
    count, boxes, classes, negatives = 0, 0.0, 0.0, []
    for place in range(len(anchors)):
        if match.state[0, place] != 1:
            negatives.append(-logs[0, place, 2])
            continue
        slot = int(match.slot[0, place])
        classes = classes - logs[0, place, targets.labels[0, slot]]
        (x1, y1, x2, y2), (a, b, c, d) = targets.boxes[0, slot], anchors[place]
        goal = torch.stack(
            [
                ((x1 + x2) - (a + c)) / 2 / (c - a) * 10,
                ((y1 + y2) - (b + d)) / 2 / (d - b) * 10,
                ((x2 - x1) / (c - a)).log() * 5,
                ((y2 - y1) / (d - b)).log() * 5,
            ]
        )
        off = (deltas[0, place] - goal).abs()
        boxes = boxes + torch.where(off < 1, off**2 / 2, off - 0.5).sum()
        count += 1
    assert count >= 2
    classes = classes + torch.stack(negatives).sort(descending=True)[0][: 3 * count].sum()
    torch.testing.assert_close(found["dense/class"], classes / count)
    torch.testing.assert_close(found["dense/box"], 2 * boxes / count)


@pytest.mark.parametrize("mining", MININGS)
def test_every_way_to_count_is_finite(mining: str) -> None:
    images, targets = batch()
    detector = tiny(mining=mining)
    losses = detector.losses(images, targets, generator=torch.Generator().manual_seed(0))
    sum(losses.values()).backward()
    for name, parameter in detector.named_parameters():
        assert not parameter.requires_grad or parameter.grad is not None, name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def test_the_best_of_each_class() -> None:
    """So many of each class, over all levels; and in a graph the same ones."""
    generator = torch.Generator().manual_seed(3)
    levels = [2 * torch.randn(2, count, 4, generator=generator) for count in (60, 20)]
    scores = SoftmaxScores(candidates=7)
    best = scores.best(levels, 0.1, 5)
    whole = torch.cat(levels, 1).softmax(2)[..., :-1]
    for b in range(2):
        wanted = set()
        for label in range(3):
            top, at = whole[b, :, label].topk(7)
            wanted |= {(int(p), label) for p, s in zip(at, top, strict=True) if s > 0.1}
        real = best.scores[b] > 0.1
        pairs = zip(best.places[b][real].tolist(), best.labels[b][real].tolist(), strict=True)
        assert set(pairs) == wanted
        torch.testing.assert_close(
            best.scores[b][real], whole[b, best.places[b][real], best.labels[b][real]]
        )
    compiled = torch.compile(scores.best, backend="eager", fullgraph=True)(levels, 0.1, 5)
    for b in range(2):
        count = int((best.scores[b] > 0.1).sum())
        for mine, other in zip(compiled, best, strict=True):
            torch.testing.assert_close(mine[b, :count], other[b, :count])
    assert SoftmaxScores(candidates=7).best(levels, 0.0, 9).scores.shape == (2, 27)
    assert SoftmaxScores(candidates=7, growing=False).best(levels, 0.0, 9).scores.shape == (2, 21)


def test_the_best_pairs_of_each_level() -> None:
    """By mmdetection's rules; and in a graph the same ones."""
    generator = torch.Generator().manual_seed(3)
    levels = [2 * torch.randn(2, count, 4, generator=generator) for count in (60, 20, 1)]
    scores = SoftmaxScores(candidates=7, growing=False, by_level=True)
    best = scores.best(levels, 0.1, 5)
    compiled = torch.compile(scores.best, backend="eager", fullgraph=True)(levels, 0.1, 5)
    for b in range(2):
        wanted, start = [], 0
        for level in levels:
            top, at = level[b].softmax(1)[:, :-1].flatten().sort(descending=True)
            pairs = [
                (float(s), int(p) // 3 + start, int(p) % 3) for s, p in zip(top, at, strict=True)
            ]
            wanted += [pair for pair in pairs[:7] if pair[0] > 0.1]
            start += len(level[b])
        wanted.sort(reverse=True)
        for found in (best, compiled):
            rows = zip(*(values[b].tolist() for values in found), strict=True)
            rows = sorted((row for row in rows if row[0] > 0.1), reverse=True)
            assert [row[1:] for row in rows] == [pair[1:] for pair in wanted]
            assert [row[0] for row in rows] == pytest.approx([pair[0] for pair in wanted])


def test_images_smaller_than_the_network_is_for() -> None:
    """A 3x3 convolution without padding, and 4x4 ones, on maps of one cell."""
    for name in ("ssd300_vgg16", "ssd512_vgg16"):
        detector = build(name, 1, backbone="resnet18").eval()
        size = torch.tensor([[96, 60]])
        with torch.no_grad():
            found = detector(Images(torch.rand(1, 3, 96, 60), size, size), PostProcess(0.0, 0.5, 5))
        assert found.valid.all()


def test_no_more_is_found_than_is_there_at_a_threshold_of_one() -> None:
    images, _ = batch()
    with torch.no_grad():
        found = build_tiny("ssd300_vgg16").eval()(images, PostProcess(score_thresh=1.0))
    assert found.boxes.shape == (2, 100, 4)
    assert not found.valid.any() and not found.boxes.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mining": "easy"}, "mining is one of none, random"),
        ({"box_loss": "iou"}, "box_loss is one of l1, smooth_l1, giou"),
        ({"box_weight": 0}, "box_weight must be above 0"),
        ({"extras": (64, 1)}, "extras are channels from 2"),
        ({"anchor_sizes": (32, 64)}, "anchor_sizes needs 7 sizes"),
        ({"anchor_ratios": (2, 3)}, "anchor_ratios needs a whole number .* each of 6 maps"),
        ({"anchor_ratios": (2, 3, 3, 3, 2, 0)}, "anchor_ratios needs a whole number"),
        ({"min_negatives": -1}, "min_negatives must be a whole number"),
        ({"imgsz": "1.5x"}, "imgsz is the side of the square"),
        ({"reduced_tail": True}, "reduced tail for mobilenet_v3_large; vgg16 has none"),
        ({"conventions": "caffe"}, "conventions is one of"),
    ],
)
def test_wrong_options_say_what_is_right(options, message: str) -> None:
    with pytest.raises(OptionError, match=message), torch.device("meta"):
        build("ssd300_vgg16", 3, **options)


def test_scores_do_not_depend_on_the_height_of_logits() -> None:
    """Adding a number to all logits of a box changes no softmax, however small exponentials get."""
    logits = torch.randn(1, 50, 4, generator=torch.Generator().manual_seed(2))
    scores = SoftmaxScores(candidates=10)
    expected = scores.best([logits], 0.05, 10)
    for shift in (-88, -95, -102, -200, 95):  # sums are subnormal, zero, infinite
        moved = scores.best([logits + shift], 0.05, 10)
        torch.testing.assert_close(moved.scores, expected.scores, rtol=1e-4, atol=0)
        assert moved.places.equal(expected.places) and moved.labels.equal(expected.labels)
