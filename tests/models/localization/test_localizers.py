"""Localizers: losses against plain ones, places, names on any backbone, contracts of a model."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss

from maskwright.errors import OptionError
from maskwright.models import build, build_tiny, get_entry, list_models
from maskwright.models.inference import fast_network
from maskwright.models.transfer import transfer
from maskwright.structures import Images, Instances, Places, Skeleton
from maskwright.tasks import get_task

NAMES = ["locate_resnet18", "locate_keypoints_resnet18"]


def images(count: int = 3, side: int = 64) -> Images:
    pixels = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1)) * 255
    sizes = torch.tensor([[side, side], [side, side // 2], [side // 2, side]])[:count]
    return Images(pixels, sizes, sizes * 2)


def targets(count: int = 3, joints: int = 0) -> Instances:
    """An object, a background, an image of which nobody knows."""
    boxes = torch.zeros(3, 1, 4)
    boxes[0, 0] = torch.tensor([4.0, 8, 40, 56])
    valid = torch.tensor([[True], [False], [True]])
    crowd = torch.tensor([[False], [False], [True]])
    labels = torch.tensor([[1], [0], [0]])
    points = torch.rand(3, 1, joints, 3, generator=torch.Generator().manual_seed(2)) * 60
    if joints:
        points[..., 2] = torch.tensor([2.0, 0, 1, 2, 0])
        points[1:, ..., 2] = 0
    made = Instances(boxes, labels, valid, crowd=crowd, keypoints=points if joints else None)
    return made.first(count)


@pytest.mark.parametrize("specific", [False, True])
def test_losses_of_class_and_box_are_the_plain_ones(specific: bool) -> None:
    torch.manual_seed(0)
    model = build("locate_resnet18", 2, imgsz=64, class_specific=specific, norm="frozen").eval()
    found = model.losses(images(), targets())
    with torch.no_grad():
        logits, boxes = model.head(model.maps(images()))
    own = boxes[0, 1] * 64
    true = torch.tensor([4.0, 8, 40, 56])
    plain = F.cross_entropy(logits[:2], torch.tensor([1, 2]), reduction="sum") / 3
    torch.testing.assert_close(found["class"], plain)
    smooth = F.smooth_l1_loss(own / 64, true / 64, beta=0.1, reduction="sum")
    torch.testing.assert_close(found["box"], 2 * smooth / 3)
    giou = generalized_box_iou_loss(own[None], true[None], reduction="sum", eps=0)
    torch.testing.assert_close(found["giou"], 2 * giou / 3)


@pytest.mark.parametrize("kind", ["l1", "smooth_l1", "mse", "wing"])
def test_loss_of_keypoints_is_the_mean_over_the_visible_ones(kind: str) -> None:
    torch.manual_seed(0)
    model = build("locate_keypoints_resnet18", 1, imgsz=64, num_keypoints=5, loss=kind).eval()
    truth = targets(joints=5)
    found = model.losses(images(), truth)["keypoints"]
    with torch.no_grad():
        points = model.head(model.maps(images()))[0]
    assert truth.keypoints is not None
    error = (points - truth.keypoints[0, 0, :, :2] / 64)[[0, 2, 3]] * 256
    size = error.abs()
    bent = 10 * torch.log(1 + size / 2)
    each = {
        "l1": size,
        "smooth_l1": torch.where(size < 1, size**2 / 2, size - 0.5),
        "mse": size**2,
        "wing": torch.where(size < 10, bent, size - 10 + 10 * torch.log(torch.tensor(6.0))),
    }[kind]
    scale = 256**2 if kind == "mse" else 256
    torch.testing.assert_close(found, each.sum(1).mean() / (3 * scale))


def test_an_image_without_an_object_teaches_no_box() -> None:
    model = build_tiny("locate_resnet18")
    found = model.losses(images(), targets(3).to("cpu"))
    one = Images(images().pixels[1:2], images().sizes[1:2], images().original_sizes[1:2])
    truth = Instances(torch.zeros(1, 1, 4), torch.zeros(1, 1).long(), torch.zeros(1, 1).bool())
    alone = model.eval().losses(one, truth)
    assert alone["box"] == alone["giou"] == 0 and alone["class"] > 0
    sum(found.values()).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_boxes_lie_inside_the_image() -> None:
    model = build("locate_resnet18", 3, imgsz=64, class_specific=True).eval()
    with torch.no_grad():
        model.head.box.bias.normal_(0, 3)
        found = model(images())
    limits = images().sizes.flip(1).repeat(1, 2)[:, None]
    assert found.boxes.shape == (3, 3, 4) and found.logits.shape == (3, 4)
    assert bool(((found.boxes >= 0) & (found.boxes <= limits)).all())
    assert not torch.equal(found.boxes[:, 0], found.boxes[:, 1])


def parts(found: Places) -> list[Tensor]:
    return [part for part in (found.logits, found.boxes, found.keypoints) if part is not None]


@pytest.mark.parametrize("name", NAMES)
def test_what_every_model_keeps_to(name: str) -> None:
    torch.manual_seed(0)
    model = build_tiny(name, 2)
    assert get_task(model.task).name == "localization" and get_entry(name).task == model.task
    model.eval()
    with torch.no_grad():
        wanted = model(images())
        dirty = images().pixels.clone()
        dirty[1, :, :, 32:] = 200  # outside of the image
        again = model(Images(dirty, images().sizes, images().original_sizes))
        alone = model(images(1))
        fast = fast_network(model)(images())
        large = model(images(2, side=96))
        none = model.losses(images(3).first(0), targets(3, model.num_keypoints).first(0))
    for a, b, c, d, e in zip(
        parts(wanted), parts(again), parts(alone), parts(fast), parts(large), strict=True
    ):
        assert torch.equal(a, b)
        torch.testing.assert_close(a[:1], c, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(a, d, rtol=1e-3, atol=1e-3)
        assert e.shape == (2, *a.shape[1:])
    assert all(value == 0 for value in none.values())
    exported = torch.export.export(
        Whole(model), (images().pixels, images().sizes), dynamic_shapes=({0: _B}, {0: _B})
    )
    made = exported.module()(images(2).pixels, images(2).sizes)
    for a, b in zip(parts(wanted), made, strict=True):
        torch.testing.assert_close(a[:2], b, rtol=1e-4, atol=1e-4)


_B = torch.export.Dim("batch", min=1, max=64)


class Whole(torch.nn.Module):
    """A localizer as a graph of tensors."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        return tuple(parts(self.model(Images(pixels, sizes, sizes))))


@pytest.mark.parametrize("name", NAMES)
def test_frozen_stages_stay_and_others_learn(name: str) -> None:
    model = build_tiny(name, 2)
    model.freeze(2)
    frozen = {key for key, value in model.named_parameters() if not value.requires_grad}
    assert any("layer1" in key for key in frozen) and not any("layer4.0.conv" in k for k in frozen)
    sum(model.losses(images(), targets(joints=model.num_keypoints)).values()).backward()
    for key, value in model.named_parameters():
        assert (value.grad is None) == (not value.requires_grad), key


def test_rows_go_by_the_names_of_classes_and_keypoints() -> None:
    torch.manual_seed(0)
    old = build("locate_resnet18", 3, imgsz=64, class_specific=True)
    new = build("locate_resnet18", 2, imgsz=64, class_specific=True)
    transfer(new, ["dog", "cat"], old.state_dict(), ["cat", "cow", "dog"])
    assert torch.equal(new.head.classes.weight, old.head.classes.weight[[2, 0, 3]])
    assert torch.equal(new.head.box.bias.view(2, 4), old.head.box.bias.view(3, 4)[[2, 0]])
    assert torch.equal(new.head.box.weight[:4], old.head.box.weight[8:])
    points = build("locate_keypoints_resnet18", 1, imgsz=64, num_keypoints=2)
    fewer = build("locate_keypoints_resnet18", 1, imgsz=64, num_keypoints=1)
    transfer(
        fewer,
        ["face"],
        points.state_dict(),
        ["face"],
        skeleton=Skeleton(("b",)),
        source_skeleton=Skeleton(("a", "b")),
    )
    assert torch.equal(fewer.head.y.weight, points.head.y.weight[1:])


def test_any_backbone_makes_a_localizer() -> None:
    assert "locate_densenet121" not in list_models()
    for name, backbone in (
        ("locate_vgg11_bn", "vgg11_bn"),
        ("locate_test_efficientnet", "test_efficientnet"),
        ("locate_keypoints_alexnet", "alexnet"),
        ("locate_densenet121", "densenet121"),
    ):
        assert get_entry(name).arguments()["backbone"] == backbone
    model = build("locate_test_efficientnet", 2, imgsz=64)
    assert model(images()).boxes.shape == (3, 2, 4)
    assert build("locate_keypoints_alexnet", 1, imgsz=96)(images(3, 96)).keypoints.shape[1] == 17
    with pytest.raises(ValueError, match=r"locate_resnet19.*did you mean 'locate_resnet18'"):
        get_entry("locate_resnet19")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("locate_resnet18", {"imgsz": (64, 64)}, "imgsz is the side of the square"),
        ("locate_resnet18", {"imgsz": 16}, "32 to 4096"),
        ("locate_resnet18", {"box_weight": 0.0}, "box_weight"),
        ("locate_keypoints_resnet18", {"loss": "wings"}, "did you mean 'wing'"),
        ("locate_keypoints_resnet18", {"region": "box"}, "region is one of image, object"),
        ("locate_keypoints_resnet18", {"num_keypoints": 0}, "num_keypoints"),
    ],
)
def test_wrong_options_are_named(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        build(name, 2, **options)
