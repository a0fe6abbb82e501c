"""Soft-NMS against the authors' algorithm, box by box in plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_iou

from maskwright.ops import SoftNMS, nms_padded, soft_nms_padded


def scene(
    count: int, labels: int, seed: int, *, coarse: bool, images: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores and labels (images, count, ...); `coarse` ones are full of ties."""
    draw = torch.Generator().manual_seed(seed)
    corner = torch.rand(images, count, 2, generator=draw, dtype=torch.float64) * 60
    side = torch.rand(images, count, 2, generator=draw, dtype=torch.float64) * 40
    scores = torch.rand(images, count, generator=draw, dtype=torch.float64)
    if coarse:
        corner, side = (corner / 10).round() * 10, (side / 10).round() * 10
        scores = (scores * 8).round() / 8
    return (
        torch.cat([corner, corner + side], -1),
        scores,
        torch.randint(0, labels, (images, count), generator=draw),
    )


def plain(
    boxes: Tensor, scores: Tensor, labels: Tensor, rule: SoftNMS, thresh: float
) -> list[tuple[float, int]]:
    """Figure 2 of the paper, class by class; (score, position) by falling score."""
    iou = torch.nan_to_num(box_iou(boxes, boxes)).tolist()
    out = []
    for label in labels.unique().tolist():
        left = {i: scores[i].item() for i in (labels == label).nonzero().flatten().tolist()}
        while left:
            best = min(left, key=lambda i: (-left[i], i))
            score = left.pop(best)
            if score < rule.floor:
                break
            out.append((score, best))
            for i in left:
                overlap = iou[best][i]
                if rule.method == "gaussian":
                    left[i] *= math.exp(-(overlap**2) / rule.sigma)
                elif overlap > thresh:
                    left[i] *= 1 - overlap
    return sorted(out, key=lambda pair: (-pair[0], pair[1]))


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(0, 60),
    labels=st.integers(1, 4),
    seed=st.integers(0, 10_000),
    coarse=st.booleans(),
    method=st.sampled_from(["linear", "gaussian"]),
    thresh=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    sigma=st.sampled_from([0.1, 0.5, 2.0]),
    floor=st.sampled_from([0.0, 0.001, 0.3]),
)
def test_like_the_paper(
    count: int,
    labels: int,
    seed: int,
    coarse: bool,
    method: str,
    thresh: float,
    sigma: float,
    floor: float,
) -> None:
    boxes, scores, label = scene(count, labels, seed, coarse=coarse)
    rule = SoftNMS(method, sigma, floor)
    valid = torch.ones_like(label, dtype=torch.bool)
    expected = plain(boxes[0], scores[0], label[0], rule, thresh)
    index, new, kept = soft_nms_padded(boxes, scores, valid, rule, thresh, 70, labels=label)
    assert index.shape == new.shape == kept.shape == (1, 70)
    number = int(kept.sum())
    assert bool(kept[0, :number].all()) and not bool(
        new[0, number:].any() or index[0, number:].any()
    )
    assert number == len(expected)
    wanted = torch.tensor([score for score, _ in expected], dtype=torch.float64)
    torch.testing.assert_close(new[0, :number], wanted, rtol=1e-12, atol=1e-12)
    if not coarse:  # scores that differ by rounding only may change places
        assert index[0, :number].tolist() == [position for _, position in expected]
    assert len(set(index[0, :number].tolist())) == number
    # A shorter result is the beginning of the longer one.
    short = soft_nms_padded(boxes, scores, valid, rule, thresh, 5, labels=label)
    for whole, part in zip((index, new, kept), short, strict=True):
        assert torch.equal(whole[:, :5], part)


def test_hand_computed() -> None:
    # IoU of the first two: 80 / 120 = 2/3. The third lies alone.
    boxes = torch.tensor([[[0.0, 0, 10, 10], [2, 0, 12, 10], [50, 50, 60, 60]]])
    scores, valid = torch.tensor([[0.9, 0.8, 0.5]]), torch.ones(1, 3, dtype=torch.bool)
    index, new, _ = soft_nms_padded(boxes, scores, valid, SoftNMS("linear"), 0.5, 3)
    assert index.tolist() == [[0, 2, 1]]
    torch.testing.assert_close(new, torch.tensor([[0.9, 0.5, 0.8 / 3]]))
    index, new, _ = soft_nms_padded(boxes, scores, valid, SoftNMS("linear"), 0.7, 3)
    assert index.tolist() == [[0, 1, 2]] and torch.equal(new, scores)
    gaussian = 0.8 * math.exp(-4 / 9 / 0.5)
    _, new, _ = soft_nms_padded(boxes, scores, valid, SoftNMS("gaussian", 0.5), 0.5, 3)
    torch.testing.assert_close(new, torch.tensor([[0.9, 0.5, gaussian]]))
    _, new, kept = soft_nms_padded(boxes, scores, valid, SoftNMS("linear", floor=0.3), 0.5, 3)
    assert kept.tolist() == [[True, True, False]]
    # By label, the first two do not meet.
    labels = torch.tensor([[0, 1, 0]])
    index, new, _ = soft_nms_padded(boxes, scores, valid, SoftNMS(), 0.5, 3, labels=labels)
    assert index.tolist() == [[0, 1, 2]] and torch.equal(new, scores)


def test_a_narrow_gaussian_is_hard_nms_without_a_threshold() -> None:
    boxes, scores, labels = scene(80, 3, 1, coarse=False, images=2)
    valid = torch.rand(2, 80) > 0.2
    rule = SoftNMS("gaussian", 1e-12)
    index, new, kept = soft_nms_padded(boxes, scores, valid, rule, 0.5, 40, labels=labels)
    hard, hard_kept = nms_padded(boxes, scores, valid, 0.0, 40, labels=labels)
    strong = hard_kept & (scores.gather(1, hard) >= rule.floor)
    assert torch.equal(index * kept, hard * strong) and torch.equal(kept, strong)
    torch.testing.assert_close(new, scores.gather(1, hard) * strong)


def test_images_do_not_meet_and_empty_slots_do_nothing() -> None:
    boxes, scores, labels = scene(30, 2, 2, coarse=False, images=3)
    valid = torch.ones(3, 30, dtype=torch.bool)
    valid[1, 10:] = False
    valid[2] = False
    together = soft_nms_padded(boxes, scores, valid, SoftNMS(), 0.5, 50, labels=labels)
    for b in range(3):
        n = int(valid[b].sum())
        part = slice(b, b + 1)
        alone = soft_nms_padded(
            boxes[part, :n], scores[part, :n], valid[part, :n], SoftNMS(), 0.5, 50,
            labels=labels[part, :n],
        )  # fmt: skip
        for one, other in zip(together, alone, strict=True):
            assert torch.equal(one[part], other)
    assert not bool(together[2][2].any())
    nothing = torch.zeros(2, 0)
    for part in soft_nms_padded(
        nothing[..., None].expand(2, 0, 4), nothing, nothing.bool(), SoftNMS(), 0.5, 4
    ):
        assert part.shape == (2, 4) and not bool(part.any())


def test_one_graph() -> None:
    def run(boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        valid = scores > 0.1
        return soft_nms_padded(boxes + 0, scores, valid, SoftNMS(), 0.5, 7, labels=labels)

    args = scene(40, 2, 3, coarse=False, images=2)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for one, other in zip(run(*args), compiled(*args), strict=True):
        assert torch.equal(one, other)
    tests = ("test_schema", "test_faketensor")
    rest = (torch.ones(2, 40, dtype=torch.bool), 0.5, 0.001, 0.5, 9, args[2])
    torch.library.opcheck(
        torch.ops.maskwright.soft_nms_padded, (*args[:2], *rest), test_utils=tests
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "cubic"}, "linear, gaussian or gaussian:SIGMA, got 'cubic'"),
        ({"sigma": 0.0}, "sigma .* above 0"),
        ({"sigma": math.nan}, "sigma .* above 0"),
        ({"floor": 1.5}, "score floor"),
    ],
)
def test_rules_out_of_range(options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        SoftNMS(**options)
