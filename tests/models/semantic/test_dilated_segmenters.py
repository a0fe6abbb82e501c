"""FCN, DeepLab and LR-ASPP on dilated backbones: beside torchvision, and by what they promise."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import segmentation

from maskwright.errors import OptionError
from maskwright.models import build, build_tiny
from maskwright.models.transfer import class_rows
from maskwright.structures import Images, LabelMaps

TINY = (
    *("fcn_resnet50", "deeplab_largefov", "deeplabv2_resnet101", "deeplabv3_resnet50"),
    *("deeplabv3plus_resnet18", "lraspp_mobilenet_v3_large"),
)


def images_of(pixels: Tensor) -> Images:
    size = torch.tensor([pixels.shape[-2:]] * len(pixels))
    return Images(pixels, size, size)


def random_tensors(model: nn.Module) -> None:
    """Give norms statistics of their own, and last layers weights that are seen."""
    generator = torch.Generator().manual_seed(3)
    for key, value in model.state_dict().items():
        if key.endswith("running_mean"):
            value.normal_(std=0.1, generator=generator)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=generator)


@pytest.mark.parametrize(
    ("name", "classes", "options", "parameters"),
    [
        ("fcn_resnet50", 21, {}, 35_322_218),
        ("fcn_resnet101", 21, {}, 54_314_346),
        ("deeplabv3_resnet50", 21, {}, 42_004_074),
        ("deeplabv3_resnet101", 21, {}, 60_996_202),
        ("deeplabv3_mobilenet_v3_large", 21, {}, 11_029_328),
        ("lraspp_mobilenet_v3_large", 21, {}, 3_221_538),
        ("deeplab_largefov", 21, {}, 20_505_429),
        ("deeplabv2_vgg16", 21, {}, 37_877_652),
        ("deeplabv2_resnet101", 4, {"norm": "bn"}, 42_795_088),
        ("deeplabv3_resnet50", 21, {"auxiliary": 0.0}, 39_638_869),
        ("deeplabv3plus_resnet50", 21, {"form": "smp", "separable": True}, 26_682_725),
    ],
)
def test_parameters_as_published(
    name: str, classes: int, options: dict[str, Any], parameters: int
) -> None:
    with torch.device("meta"):
        model = build(name, classes, **options)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "aux"),
    [
        ("fcn_resnet50", True),
        ("deeplabv3_resnet50", True),
        ("deeplabv3_mobilenet_v3_large", True),
        ("deeplabv3_mobilenet_v3_large", False),
        ("lraspp_mobilenet_v3_large", False),
    ],
)
def test_logits_are_torchvisions(name: str, aux: bool) -> None:
    torch.manual_seed(0)
    more: dict[str, Any] = {} if name.startswith("lraspp") else {"aux_loss": aux}
    theirs = getattr(segmentation, name)(
        weights=None, weights_backbone=None, num_classes=5, **more
    ).eval()
    random_tensors(theirs)
    with torch.device("meta"):
        model = build(name, 5, **({} if aux or not more else {"auxiliary": 0.0})).eval()
    inner = "backbone.body.features." if "mobilenet" in name else "backbone.body."
    state = {re.sub(r"^backbone\.", inner, key): v for key, v in theirs.state_dict().items()}
    model.network.load_state_dict(state, assign=True)
    x = torch.randn(1, 3, 41, 50)
    with torch.no_grad():
        expected = theirs(x)
        found = model.network.all_logits(x)
    assert [weight for _, weight in found] == [1.0, 0.5][: len(expected)]
    for (logits, _), wanted in zip(found, expected.values(), strict=True):
        close(model.enlarged(logits, images_of(x)), wanted)


def close(found: Tensor, expected: Tensor) -> None:
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def conv(x: Tensor, layers: Any, rate: int = 1) -> Tensor:
    """Return what convolution and norm of a branch make of a map, written out; with a ReLU."""
    first, norm = layers[0], layers[1]
    if hasattr(first, "depthwise"):
        w = first.depthwise.weight
        x = F.conv2d(x, w, padding=rate, dilation=rate, groups=len(w))
        if first.between is not None:
            x = normed(x, first.between[0]).relu()
        x = F.conv2d(x, first.pointwise.weight)
    else:
        wide = first.kernel_size[0] > 1
        x = F.conv2d(x, first.weight, padding=rate if wide else 0, dilation=rate)
    return normed(x, norm).relu()


def normed(x: Tensor, norm: Any) -> Tensor:
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return x * scale[:, None, None] + (norm.bias - norm.running_mean * scale)[:, None, None]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"separable": True},
        {"form": "smp", "separable": True, "align_corners": True, "rates": [12, 24, 36]},
    ],
)
def test_decoder_of_deeplabv3plus_written_out(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model: Any = build("deeplabv3plus_resnet18", 4, width=8, **options).eval()
    random_tensors(model)
    network = model.network
    rates = options.get("rates", (6, 12, 18))
    corners = options.get("align_corners", False)
    with torch.no_grad():
        low, last = network.backbone(torch.randn(2, 3, 64, 96))
        assert last.shape[-2:] == (4, 6)
        branches = network.aspp.convs
        found = [conv(last, branches[0])]
        found += [conv(last, branches[i + 1], rate) for i, rate in enumerate(rates)]
        whole = conv(last.mean((2, 3), keepdim=True), branches[4][1:])
        x = torch.cat([*found, whole.expand_as(found[0])], 1)
        x = conv(x, network.aspp.project)
        if options.get("form") == "smp":
            x = conv(x, network.before[0])
        x = F.interpolate(x, (16, 24), mode="bilinear", align_corners=corners)
        x = torch.cat([x, conv(low, network.low)], 1)
        for layers in network.behind:
            x = conv(x, layers)
        expected = F.conv2d(x, network.classifier.weight, network.classifier.bias)
        logits = network.head([low, last])
    assert len(network.behind) == (1 if options.get("form") == "smp" else 2)
    close(logits, expected)


def test_options_take_away_parts_of_deeplabv3plus() -> None:
    """The ablations of the papers: what is left out is gone, and nothing else."""
    with torch.device("meta"):
        whole = build("deeplabv3plus_resnet18", 21)
        keys = set(whole.state_dict())
        flat = build("deeplabv3plus_resnet18", 21, image_pooling=False)
        alone = build("deeplabv3plus_resnet18", 21, low_level=False)
        coarse = build("deeplabv3plus_resnet18", 21, output_stride=32)
    gone = keys - set(flat.state_dict())
    assert gone and all(key.startswith("network.aspp.convs.4.") for key in gone)
    assert flat.network.aspp.project[0].in_channels == 4 * 256
    gone = keys - set(alone.state_dict())
    assert gone and all(key.startswith("network.low.") for key in gone)
    assert set(coarse.state_dict()) == keys
    pixels = torch.zeros(2, 3, 65, 97, device="meta")
    sizes = [model.network(pixels).shape[-2:] for model in (whole, alone, coarse)]
    assert sizes == [(17, 25), (5, 7), (17, 25)]
    dilated = [m.network.backbone.body.layer4[1].conv2.dilation for m in (whole, coarse)]
    assert dilated == [(2, 2), (1, 1)]


def test_rates_follow_the_output_stride() -> None:
    def rates(**options: Any) -> list[int]:
        with torch.device("meta"):
            aspp = build(
                "deeplabv3_resnet50", 3, backbone="resnet18", **options
            ).network.classifier[0]
        return [branch[0].dilation[0] for branch in aspp.convs[1:4]]

    assert rates() == [12, 24, 36] and rates(output_stride=16) == [6, 12, 18]
    assert rates(output_stride=16, rates=[12, 24, 36]) == [12, 24, 36]


@pytest.mark.parametrize("name", TINY)
def test_all_layers_of_classes_are_known(name: str) -> None:
    """Those whose rows go by class name when weights serve other classes."""
    few, more = build_tiny(name, 3), build_tiny(name, 4)
    other = more.state_dict()
    changed = {key for key, value in few.state_dict().items() if value.shape != other[key].shape}
    assert changed == set(class_rows(few))


def test_an_image_alone_trains_by_the_statistics_so_far() -> None:
    """The mean over a single image leaves one value a channel, which has no deviation."""
    model: Any = build_tiny("deeplabv3plus_resnet18", 2).train()
    norm = model.network.aspp.convs[4][2]
    before = norm.running_mean.clone(), norm.running_var.clone()
    images = images_of(255 * torch.rand(1, 3, 64, 64))
    model.losses(images, LabelMaps(torch.zeros(1, 64, 64, dtype=torch.uint8)))["pixel"].backward()
    assert torch.equal(norm.running_mean, before[0]) and torch.equal(norm.running_var, before[1])
    assert norm.weight.grad is not None
    assert int(model.network.aspp.project[1].num_batches_tracked) == 1


def test_the_greatest_logits_of_several_sizes_count() -> None:
    torch.manual_seed(0)
    model: Any = build("deeplabv2_resnet101", 3, backbone="resnet18", scales=[0.5]).eval()
    random_tensors(model)
    network = model.network
    x = torch.randn(1, 3, 33, 49)
    with torch.no_grad():
        (best, _), (own, _), (half, _) = network.all_logits(x)
        small = F.interpolate(x, (16, 24), mode="bilinear", align_corners=False)
        alone = network.head(network.backbone(small))
        enlarged = F.interpolate(alone, own.shape[-2:], mode="bilinear", align_corners=False)
        assert torch.equal(network(x), best)
    close(half, enlarged)
    assert torch.equal(best, torch.maximum(own, half))
    assert not torch.equal(best, own) and not torch.equal(best, half)


def test_what_is_no_option_says_so() -> None:
    for name, options, message in (
        ("deeplabv3_resnet50", {"rates": [6, 0, 18]}, "rates are dilations from 1 up"),
        ("deeplab_largefov", {"rates": []}, "rates are dilations from 1 up, 1 to 8"),
        ("deeplabv3plus_resnet50", {"form": "tf"}, "form is one of paper, smp; got 'tf'"),
        ("deeplabv2_resnet101", {"scales": [0.5, 9]}, "scales are shares above 0 and up to 4"),
        ("fcn_resnet50", {"auxiliary": -1}, "auxiliary must be a weight from 0 up"),
        ("fcn_resnet50", {"output_stride": 4}, "output_stride is one of 32, 16, 8"),
        ("fcn_resnet50", {"dropout": 1.0}, "dropout must be a share"),
    ):
        with torch.device("meta"), pytest.raises(OptionError, match=message):
            build(name, 3, **options)
