"""Files of torchvision's and segmentation_models_pytorch's DeepLabs and their kin, and back.

The second library is written down plainly; torchvision is there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models import segmentation

from maskwright.converters import networks
from maskwright.hub.loading import convert, load_model, start_model
from maskwright.models import get_entry
from maskwright.storage.checkpoint import load_checkpoint

CLASSES = 3


def dilated_resnet(stride: int) -> nn.Module:
    """ResNet-18 without its classes, all convolutions of its last stages dilated."""
    net = torchvision.models.resnet18()
    del net.fc
    for layer, rate in ((net.layer3, 2 if stride == 8 else 1), (net.layer4, 32 // stride)):
        for conv in layer.modules():
            if isinstance(conv, nn.Conv2d) and rate > 1:
                reach = conv.kernel_size[0] // 2 * rate
                conv.stride, conv.dilation, conv.padding = (1, 1), (rate, rate), (reach, reach)
    return net


def dilated_mobilenet(stride: int) -> nn.Module:
    """MobileNetV2 without its classes, all convolutions of its last stage dilated."""
    net = torchvision.models.mobilenet_v2()
    del net.classifier
    for index, rate in ((range(7, 14), 2 if stride == 8 else 1), (range(14, 19), 32 // stride)):
        for conv in net.features[index.start : index.stop].modules():
            if isinstance(conv, nn.Conv2d) and rate > 1:
                reach = conv.kernel_size[0] // 2 * rate
                conv.stride, conv.dilation, conv.padding = (1, 1), (rate, rate), (reach, reach)
    return net


def resnet_maps(net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    low = net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(x)))))
    return low, net.layer4(net.layer3(net.layer2(low)))


class TimmEncoder(nn.Module):
    def __init__(self, name: str, stride: int) -> None:
        super().__init__()
        self.model: Any = timm.create_model(name, features_only=True, output_stride=stride)


def normed(*convs: nn.Module) -> list[nn.Module]:
    """Return convolutions, a norm and a ReLU; the convolutions in a sequence if they are two."""
    width = convs[-1].out_channels
    first = convs[0] if len(convs) == 1 else nn.Sequential(*convs)
    return [first, nn.BatchNorm2d(width), nn.ReLU()]


def wide(cin: int, cout: int, rate: int = 1, *, separable: bool) -> list[nn.Module]:
    kind = {"padding": rate, "dilation": rate, "bias": False}
    if not separable:
        return normed(nn.Conv2d(cin, cout, 3, **kind))
    depthwise = nn.Conv2d(cin, cin, 3, groups=cin, **kind)
    return normed(depthwise, nn.Conv2d(cin, cout, 1, bias=False))


def narrow(cin: int, cout: int) -> list[nn.Module]:
    return normed(nn.Conv2d(cin, cout, 1, bias=False))


class SmpASPP(nn.Module):
    def __init__(self, cin: int, width: int, *, separable: bool) -> None:
        super().__init__()
        branches = [narrow(cin, width)]
        branches += [wide(cin, width, rate, separable=separable) for rate in (12, 24, 36)]
        branches.append([nn.AdaptiveAvgPool2d(1), *narrow(cin, width)])
        self.convs = nn.ModuleList(nn.Sequential(*layers) for layers in branches)
        self.project = nn.Sequential(*narrow(5 * width, width), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        found = [branch(x) for branch in self.convs]
        found[-1] = F.interpolate(found[-1], x.shape[-2:], mode="bilinear", align_corners=False)
        return self.project(torch.cat(found, 1))


class Smp(nn.Module):
    """DeepLabV3 or DeepLabV3Plus."""

    def __init__(
        self, name: str, *, plus: bool, stride: int, width: int, separable: bool = False
    ) -> None:
        super().__init__()
        self.stride = stride
        own = {"resnet18": dilated_resnet, "mobilenet_v2": dilated_mobilenet}
        self.encoder = own[name](stride) if name in own else TimmEncoder(name, stride)
        low, last = self.maps(torch.zeros(2, 3, 64, 64))
        aspp = SmpASPP(last.shape[1], width, separable=separable)
        decoder = self.decoder = nn.Module()
        self.plus = plus
        if plus:
            between = wide(width, width, separable=True)
            decoder.aspp = nn.Sequential(aspp, *between)
            decoder.block1 = nn.Sequential(*narrow(low.shape[1], 48))
            decoder.block2 = nn.Sequential(*wide(width + 48, width, separable=True))
        else:
            decoder.aspp = aspp
            decoder.conv, decoder.bn, decoder.relu = wide(width, width, separable=False)
        self.segmentation_head = nn.Sequential(nn.Conv2d(width, CLASSES, 1))

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(self.encoder, torchvision.models.ResNet):
            return resnet_maps(self.encoder, x)
        if isinstance(self.encoder, torchvision.models.MobileNetV2):
            low = self.encoder.features[:4](x)
            return low, self.encoder.features[4:](low)
        maps = self.encoder.model(x)
        return maps[1], maps[-1]

    def forward(self, x: Tensor) -> Tensor:
        low, last = self.maps(x)
        decoder = self.decoder
        y = decoder.aspp(last)
        up = nn.UpsamplingBilinear2d(scale_factor=4 if self.plus else self.stride)
        if self.plus:
            finer = nn.UpsamplingBilinear2d(scale_factor=self.stride // 4)(y)
            y = decoder.block2(torch.cat([finer, decoder.block1(low)], 1))
        else:
            y = decoder.relu(decoder.bn(decoder.conv(y)))
        return up(self.segmentation_head(y))


def of_torchvision(name: str, **more: Any) -> nn.Module:
    made: nn.Module = getattr(segmentation, name)(
        weights=None, weights_backbone=None, num_classes=CLASSES, **more
    )
    return made


SMP = {"align_corners": True, "dropout": 0.5}
OURS = {**SMP, "full_dilation": True}
PLUS = {"form": "smp", "rates": [12, 24, 36], "low_level": True}
# our model, the library, its network, what its tensors tell
CASES: dict[str, tuple[str, str, Callable[[], nn.Module], dict[str, Any]]] = {
    "fcn": ("fcn_resnet50", "torchvision", lambda: of_torchvision("fcn_resnet50"), {}),
    "fcn auxiliary": (
        "fcn_resnet50",
        "torchvision",
        lambda: of_torchvision("fcn_resnet50", aux_loss=True),
        {},
    ),
    "deeplabv3": (
        "deeplabv3_resnet50",
        "torchvision",
        lambda: of_torchvision("deeplabv3_resnet50"),
        {},
    ),
    "deeplabv3 mobile": (
        "deeplabv3_mobilenet_v3_large",
        "torchvision",
        lambda: of_torchvision("deeplabv3_mobilenet_v3_large", aux_loss=True),
        {},
    ),
    "lraspp": (
        "lraspp_mobilenet_v3_large",
        "torchvision",
        lambda: of_torchvision("lraspp_mobilenet_v3_large"),
        {},
    ),
    "smp v3": (
        "deeplabv3_resnet18",
        "smp",
        lambda: Smp("resnet18", plus=False, stride=8, width=16),
        {**OURS, "width": 16, "separable": False},
    ),
    "smp v3+": (
        "deeplabv3plus_resnet18",
        "smp",
        lambda: Smp("resnet18", plus=True, stride=16, width=256, separable=True),
        {**OURS, **PLUS, "separable": True},
    ),
    "smp v3+ of MobileNetV2": (
        "deeplabv3plus_mobilenet_v2",
        "smp",
        lambda: Smp("mobilenet_v2", plus=True, stride=16, width=16, separable=True),
        {**OURS, **PLUS, "width": 16, "separable": True},
    ),
    "smp v3+ of timm": (
        "deeplabv3plus_lite0",
        "smp",
        lambda: Smp("tf_efficientnet_lite0", plus=True, stride=16, width=16),
        {**SMP, **PLUS, "width": 16, "separable": False},
    ),
}
LONG = (
    *("fcn", "fcn auxiliary", "deeplabv3", "smp v3"),
    *("smp v3+ of MobileNetV2", "smp v3+ of timm"),
)


def random_state(network: nn.Module) -> None:
    torch.manual_seed(0)
    for key, value in network.state_dict().items():
        if key.endswith("running_mean"):
            value.normal_(std=0.1)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif key.endswith("num_batches_tracked"):
            value.fill_(7)


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=pytest.mark.slow if c in LONG else []) for c in CASES],
)
def test_their_file_gives_their_logits_and_goes_back(case: str, tmp_path: Path) -> None:
    model, library, make, options = CASES[case]
    theirs = make().eval()
    random_state(theirs)
    state = theirs.state_dict()
    source, ours, back = (tmp_path / name for name in ("a.pth", "b.safetensors", "c.pth"))
    torch.save(state, source)
    report = convert(source, ours, model=model)
    assert len(report.used) == len(state) and not report.ignored and not report.filled
    loaded, meta = load_model(ours)
    has_head = any(key.startswith("aux_classifier.") for key in state)
    if not has_head and "auxiliary" in get_entry(model).arguments() and "plus" not in model:
        options = {**options, "auxiliary": 0.0}
    assert meta.args == options and len(meta.names) == CLASSES
    sides = (41, 50) if library == "torchvision" else (64, 96)
    x = torch.randn(1, 3, *sides)
    network = loaded.eval().network
    with torch.no_grad():
        expected = theirs(x)
        expected = expected["out"] if isinstance(expected, dict) else expected
        corners = network.align_corners
        found = F.interpolate(network(x), sides, mode="bilinear", align_corners=corners)
    assert expected.std() > 1e-3
    limit = 1e-4 * float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=limit)
    convert(ours, back, model=model, target=library)
    again = torch.load(back)
    assert again.keys() == state.keys()
    for key, value in state.items():
        assert torch.equal(again[key], value), key


def test_published_files_have_an_auxiliary_head_and_the_classes_of_voc(tmp_path: Path) -> None:
    """A model that is asked for without the head leaves it out, and says so."""
    theirs = segmentation.deeplabv3_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=21, aux_loss=True
    )
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    report = convert(
        tmp_path / "a.pth",
        tmp_path / "b.safetensors",
        model=(name := "deeplabv3_mobilenet_v3_large"),
    )
    names = load_checkpoint(tmp_path / "b.safetensors").meta.names
    assert names[:3] == ["background", "aeroplane", "bicycle"] and len(names) == 21
    assert not report.ignored
    model, options, said = start_model(
        name,
        ["background", "cat", "new"],
        weights=tmp_path / "a.pth",
        options={"auxiliary": 0.0},
    )
    assert options["auxiliary"] == 0.0 and "2 of 3 classes" in said
    assert not any("aux_classifier" in key for key in model.state_dict())
    row = theirs.classifier[4].weight[names.index("cat")]
    assert torch.equal(model.network.classifier[4].weight[1], row)


def test_older_names_of_smp_are_known() -> None:
    state = Smp("resnet18", plus=False, stride=8, width=8).state_dict()
    older = {
        key.replace("decoder.aspp.", "decoder.0.")
        .replace("decoder.conv.", "decoder.1.")
        .replace("decoder.bn.", "decoder.2."): value
        for key, value in state.items()
    }
    layout = networks.layouts("deeplabv3_resnet18")["smp"]
    assert older.keys() != state.keys() and layout.modern(older).keys() == state.keys()


@pytest.mark.parametrize(
    ("model", "target", "args", "message"),
    [
        ("deeplabv3plus_resnet18", "smp", {}, "form=paper, smp's always form=smp"),
        ("deeplabv3_resnet50", "torchvision", {"image_pooling": False}, "image_pooling=False"),
        ("deeplabv3_resnet50", "torchvision", {"output_stride": 16}, "output_stride=16"),
        ("deeplabv3_resnet50", "torchvision", {"rates": [6, 12, 18]}, r"rates=\(6, 12, 18\)"),
        ("fcn_resnet50", "torchvision", {"full_dilation": True}, "always full_dilation="),
        ("deeplabv3plus_resnet18", "torchvision", {}, "torchvision has no counterpart"),
    ],
)
def test_what_they_cannot_build_is_refused(
    model: str, target: str, args: dict[str, Any], message: str
) -> None:
    whole = get_entry(model).resolved(args)
    with pytest.raises(ValueError, match=message):
        networks.from_maskwright({}, model=model, target=target, args=whole)
