"""Losses of places against torch, torchvision and the published formulas."""

import math

import pytest
import torch
import torch.nn.functional as F

from maskwright.ops.losses import (
    box_location_losses,
    mirror_points,
    mirrored_order,
    point_loss,
    wing_loss,
)
from maskwright.structures import Skeleton


def test_wing_loss_equals_the_formula():
    x = torch.linspace(-30, 30, 601, dtype=torch.float64)
    for w, eps in ((10.0, 2.0), (5.0, 0.5)):
        c = w - w * math.log(1 + w / eps)
        wanted = [w * math.log(1 + abs(v) / eps) if abs(v) < w else abs(v) - c for v in x.tolist()]
        assert wing_loss(x, w, eps).tolist() == pytest.approx(wanted, abs=1e-12)
        edge = torch.tensor([w * (1 - 1e-12), w], dtype=torch.float64)
        below, above = wing_loss(edge, w, eps).tolist()
        assert below == pytest.approx(above, abs=1e-9)  # the parts meet
    assert torch.autograd.gradcheck(wing_loss, x[::37].clone().requires_grad_())
    with pytest.raises(ValueError, match="eps=0"):
        wing_loss(x, eps=0)


@pytest.mark.parametrize("kind", ["l1", "smooth_l1", "mse", "wing"])
def test_points_that_are_not_visible_count_for_nothing(kind):
    points = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(0)) * 9
    true = points.flip(0) + 3
    visible = torch.tensor([[1, 1, 0, 1, 0], [0, 0, 0, 0, 1]], dtype=torch.bool)
    plain = {
        "l1": F.l1_loss,
        "smooth_l1": F.smooth_l1_loss,
        "mse": F.mse_loss,
        "wing": lambda a, b, reduction: wing_loss(a - b),
    }[kind]
    wanted = plain(points, true, reduction="none").sum(-1) * visible
    true[~visible] = math.nan
    points.requires_grad_()
    found = point_loss(points, true, visible, kind)
    assert torch.allclose(found, wanted)
    found.sum().backward()
    assert torch.isfinite(points.grad).all()
    assert not points.grad[~visible].any() and points.grad[visible].all()


def test_smooth_l1_turns_where_it_is_told():
    points, true = torch.tensor([[[0.0, 0.0]]]), torch.tensor([[[0.5, 2.0]]])
    seen = torch.ones(1, 1, dtype=torch.bool)
    found = point_loss(points, true, seen, beta=0.25)
    assert found.item() == pytest.approx(0.5 - 0.125 + 2 - 0.125)


def test_box_losses_equal_torchvision():
    ops = pytest.importorskip("torchvision.ops")
    rng = torch.Generator().manual_seed(1)
    corners = torch.rand(2, 6, 2, 2, generator=rng).sort(2).values
    boxes, true = corners.flatten(2)
    present = torch.tensor([1, 0, 1, 1, 0, 1], dtype=torch.bool)
    wanted_giou = ops.generalized_box_iou_loss(boxes, true) * present
    wanted_l1 = F.smooth_l1_loss(boxes, true, reduction="none", beta=0.1).sum(-1) * present
    true[~present] = math.nan
    boxes.requires_grad_()
    smooth, giou = box_location_losses(boxes, true, present, beta=0.1)
    assert torch.allclose(smooth, wanted_l1) and torch.allclose(giou, wanted_giou, atol=1e-6)
    (smooth + giou).sum().backward()
    assert torch.isfinite(boxes.grad).all() and not boxes.grad[~present].any()
    exact = box_location_losses(boxes.detach(), boxes.detach(), torch.ones(6, dtype=torch.bool))
    assert torch.allclose(exact[1], torch.zeros(6), atol=1e-6) and not exact[0].any()


def test_mirrored_points_change_places():
    order = mirrored_order(3, [(1, 2)])
    assert order == Skeleton(("nose", "left_eye", "right_eye")).mirrored
    points = torch.tensor([[[5.0, 1, 2], [3, 2, 2], [8, 2, 1]]])
    assert mirror_points(points, 10, order).tolist() == [[[5, 1, 2], [2, 2, 1], [7, 2, 2]]]
    widths = torch.tensor([[10.0]])
    assert torch.equal(mirror_points(points, widths, order), mirror_points(points, 10, order))
    assert torch.equal(mirror_points(mirror_points(points, 10, order), 10, order), points)


def test_faults_are_named():
    points, seen = torch.zeros(1, 3, 2), torch.ones(1, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="did you mean 'wing'"):
        point_loss(points, points, seen, "wings")
    with pytest.raises(ValueError, match=r"\(1, 3, 2\), \(1, 3, 2\) and \(1, 2\)"):
        point_loss(points, points, seen[:, :2])
    with pytest.raises(ValueError, match="no point 3 among 3"):
        mirrored_order(3, [(1, 3)])
    with pytest.raises(ValueError, match="point 1 stands there twice"):
        mirrored_order(3, [(0, 1), (1, 2)])
    with pytest.raises(ValueError, match="point 2 stands there twice"):
        mirrored_order(3, [(2, 2)])
