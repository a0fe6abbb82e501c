"""Segmenters of other libraries, written down plainly: their files, their results, and back."""

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

from maskwright.converters import networks
from maskwright.converters.semantic import LAYOUTS
from maskwright.hub.loading import convert, load_model, start_model
from maskwright.models import build
from maskwright.nn.semantic.crf_rnn import CRFRNN

CLASSES = 3


def conv_bn(cin: int, cout: int) -> nn.Sequential:
    conv = nn.Conv2d(cin, cout, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(cout), nn.ReLU())


class ResNetMaps(torchvision.models.ResNet):
    """An encoder of segmentation_models_pytorch: ResNet-18 without its classes."""

    channels = (64, 64, 128, 256, 512)

    def __init__(self) -> None:
        super().__init__(torchvision.models.resnet.BasicBlock, [2, 2, 2, 2])
        del self.fc

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [self.relu(self.bn1(self.conv1(x)))]
        maps.append(self.layer1(self.maxpool(maps[0])))
        for layer in (self.layer2, self.layer3, self.layer4):
            maps.append(layer(maps[-1]))
        return maps


class MobileMaps(torchvision.models.MobileNetV2):
    """Another: MobileNetV2 without its classes, the last convolution included."""

    channels = (16, 24, 32, 96, 1280)

    def __init__(self) -> None:
        super().__init__()
        del self.classifier

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for first, behind in ((0, 2), (2, 4), (4, 7), (7, 14), (14, 19)):
            x = self.features[first:behind](x)
            maps.append(x)
        return maps


class VGGMaps(torchvision.models.VGG):
    """Another: VGG-11 without its classes; its maps come from before the maxima, but the last."""

    channels = (128, 256, 512, 512, 512)
    center = True

    def __init__(self, *, norm: bool) -> None:
        base = torchvision.models.vgg11_bn() if norm else torchvision.models.vgg11()
        super().__init__(base.features, init_weights=False)
        del self.classifier

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                maps.append(x)
            x = layer(x)
        return [*maps[1:], x]


class TimmMaps(nn.Module):
    """Another: any network of timm, behind one more name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.model = timm.create_model(name, features_only=True, pretrained=False)
        info = self.model.feature_info
        channels = dict(zip(info.reduction(), info.channels(), strict=True))
        self.channels = [channels.get(stride, 0) for stride in (2, 4, 8, 16, 32)]

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = list(self.model(x))
        if not self.channels[0]:
            maps.insert(0, x.new_zeros(len(x), 0, x.shape[2] // 2, x.shape[3] // 2))
        return maps


class SmpUnet(nn.Module):
    def __init__(self, encoder: Any, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = nn.Module()
        self.decoder.blocks = nn.ModuleList()
        cin = encoder.channels[-1]
        self.decoder.center = nn.Sequential()
        if hasattr(encoder, "center"):
            self.decoder.center.extend([conv_bn(cin, cin), conv_bn(cin, cin)])
        for skip, width in zip((*encoder.channels[-2::-1], 0), widths, strict=True):
            block = nn.Module()
            block.conv1, block.conv2 = conv_bn(cin + skip, width), conv_bn(width, width)
            self.decoder.blocks.append(block)
            cin = width
        self.segmentation_head = nn.Sequential(nn.Conv2d(cin, CLASSES, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        *skips, x = self.encoder(x)
        x = self.decoder.center(x)
        for block in self.decoder.blocks:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            if skips:
                x = torch.cat([x, skips.pop()], 1)
            x = block.conv2(block.conv1(x))
        return self.segmentation_head(x)


class SmpFPN(nn.Module):
    def __init__(self, encoder: Any, pyramid: int, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        decoder = self.decoder = nn.Module()
        decoder.p5 = nn.Conv2d(encoder.channels[-1], pyramid, 1)
        for level, channels in zip((4, 3, 2), encoder.channels[-2::-1], strict=False):
            part = nn.Module()
            part.skip_conv = nn.Conv2d(channels, pyramid, 1)
            decoder.add_module(f"p{level}", part)
        decoder.seg_blocks = nn.ModuleList()
        for doublings in (3, 2, 1, 0):
            block = nn.Module()
            block.block = nn.ModuleList()
            for step in range(max(doublings, 1)):
                part = nn.Module()
                conv = nn.Conv2d(width if step else pyramid, width, 3, padding=1, bias=False)
                part.block = nn.Sequential(conv, nn.GroupNorm(32, width), nn.ReLU())
                block.block.append(part)
            decoder.seg_blocks.append(block)
        self.segmentation_head = nn.Sequential(nn.Conv2d(width, CLASSES, 1))

    def forward(self, x: Tensor) -> Tensor:
        _, c2, c3, c4, c5 = self.encoder(x)
        decoder = self.decoder
        pyramid = [decoder.p5(c5)]
        for part, single in ((decoder.p4, c4), (decoder.p3, c3), (decoder.p2, c2)):
            above = F.interpolate(pyramid[-1], scale_factor=2, mode="nearest")
            pyramid.append(above + part.skip_conv(single))
        total: Any = 0
        for doublings, level, block in zip((3, 2, 1, 0), pyramid, decoder.seg_blocks, strict=True):
            for part in block.block:
                level = part.block(level)
                if doublings:
                    level = F.interpolate(
                        level, scale_factor=2, mode="bilinear", align_corners=True
                    )
            total = total + level
        scores = self.segmentation_head(total)
        return F.interpolate(scores, scale_factor=4, mode="bilinear", align_corners=True)


class Double(nn.Module):
    def __init__(self, cin: int, cout: int, middle: int) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(*conv_bn(cin, middle), *conv_bn(middle, cout))

    def forward(self, x: Tensor) -> Tensor:
        return self.double_conv(x)


class Milesial(nn.Module):
    def __init__(self, width: int, bilinear: bool) -> None:
        super().__init__()
        widths = [width * 2**n for n in range(5)]
        share = 2 if bilinear else 1
        self.inc = Double(3, width, width)
        for n in range(1, 5):
            cout = widths[n] // (share if n == 4 else 1)
            down = nn.Module()
            down.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), Double(widths[n - 1], cout, cout))
            self.add_module(f"down{n}", down)
        for n in range(1, 5):
            cin, cout = widths[5 - n], widths[4 - n] // (share if n < 4 else 1)
            up = nn.Module()
            if bilinear:
                up.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            else:
                up.up = nn.ConvTranspose2d(cin, cin // 2, 2, stride=2)
            up.conv = Double(cin, cout, cin // 2 if bilinear else cout)
            self.add_module(f"up{n}", up)
        self.outc = nn.Module()
        self.outc.conv = nn.Conv2d(width, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.inc(x)]
        for n in range(1, 5):
            maps.append(self.get_submodule(f"down{n}").maxpool_conv(maps[-1]))
        x = maps.pop()
        for n in range(1, 5):
            part, skip = self.get_submodule(f"up{n}"), maps.pop()
            x = part.up(x)
            high, wide = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
            x = F.pad(x, [wide // 2, wide - wide // 2, high // 2, high - high // 2])
            x = part.conv(torch.cat([skip, x], 1))
        return self.outc.conv(x)


def bilinear_weight(side: int) -> Tensor:
    factor = (side + 1) // 2
    line = [1 - abs(i - (factor - 0.5)) / factor for i in range(side)]
    weight = torch.zeros(CLASSES, CLASSES, side, side)
    for label in range(CLASSES):
        weight[label, label] = torch.tensor(line)[:, None] * torch.tensor(line)
    return weight


class Wkentaro(nn.Module):
    """FCN-8s on VGG-16 with narrow hidden layers."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        cin = 3
        for block, (count, cout) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), 1):
            for number in range(1, count + 1):
                padding = 100 if cin == 3 else 1
                self.add_module(f"conv{block}_{number}", nn.Conv2d(cin, cout, 3, padding=padding))
                cin = cout
        self.fc6, self.fc7 = nn.Conv2d(512, width, 7), nn.Conv2d(width, width, 1)
        self.score_fr = nn.Conv2d(width, CLASSES, 1)
        self.score_pool3 = nn.Conv2d(256, CLASSES, 1)
        self.score_pool4 = nn.Conv2d(512, CLASSES, 1)
        for name, side, stride in (("2", 4, 2), ("8", 16, 8), ("_pool4", 4, 2)):
            up = nn.ConvTranspose2d(CLASSES, CLASSES, side, stride, bias=False)
            up.weight.data = bilinear_weight(side)
            self.add_module(f"upscore{name}", up)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        pools = []
        for block, count in enumerate((2, 2, 3, 3, 3), 1):
            for number in range(1, count + 1):
                x = self.get_submodule(f"conv{block}_{number}")(x).relu()
            x = F.max_pool2d(x, 2, stride=2, ceil_mode=True)
            pools.append(x)
        x = self.upscore2(self.score_fr(self.fc7(self.fc6(x).relu()).relu()))
        skip = self.score_pool4(pools[3])[:, :, 5 : 5 + x.shape[2], 5 : 5 + x.shape[3]]
        x = self.upscore_pool4(x + skip)
        skip = self.score_pool3(pools[2])[:, :, 9 : 9 + x.shape[2], 9 : 9 + x.shape[3]]
        return self.upscore8(x + skip)[:, :, 31 : 31 + height, 31 : 31 + width]


class CrfasRnn(Wkentaro):
    """crfasrnn_pytorch: transposed convolutions with a bias, and the CRF, which has our names."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("2", "8", "_pool4"):
            old = self.get_submodule(f"upscore{name}")
            new = nn.ConvTranspose2d(CLASSES, CLASSES, old.kernel_size, old.stride)
            new.weight.data = old.weight.data + 0.01 * torch.randn(old.weight.shape)
            self.add_module(f"upscore{name}", new)
        self.crfrnn = CRFRNN(CLASSES)
        for parameter in self.crfrnn.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape)

    def forward(self, x: Tensor) -> Tensor:
        return self.crfrnn(super().forward(x), x)


# our model, the library, its network, the options that its tensors tell, sides of an image
CASES: dict[str, tuple[str, str, Callable[[], nn.Module], dict[str, Any], tuple[int, int]]] = {
    "smp Unet": (
        "unet_resnet18",
        "smp",
        lambda: SmpUnet(ResNetMaps(), (256, 128, 64, 32, 16)),
        {},
        (64, 96),
    ),
    "smp Unet of timm": (
        "unet_mobilenetv2_100",
        "smp",
        lambda: SmpUnet(TimmMaps("mobilenetv2_100"), (32, 24, 16, 12, 8)),
        {"widths": [32, 24, 16, 12, 8]},
        (64, 64),
    ),
    "smp Unet of MobileNetV2": (
        "unet_mobilenet_v2",
        "smp",
        lambda: SmpUnet(MobileMaps(), (32, 24, 16, 12, 8)),
        {"widths": [32, 24, 16, 12, 8]},
        (64, 96),
    ),
    "smp Unet of VGG": (
        "unet_vgg11",
        "smp",
        lambda: SmpUnet(VGGMaps(norm=False), (32, 24, 16, 12, 8)),
        {"widths": [32, 24, 16, 12, 8], "middle": True},
        (96, 64),
    ),
    "smp Unet of VGG with norms": (
        "unet_vgg11_bn",
        "smp",
        lambda: SmpUnet(VGGMaps(norm=True), (256, 128, 64, 32, 16)),
        {"middle": True},
        (64, 64),
    ),
    "smp Unet without stride 2": (
        "unet_convnext_atto",
        "smp",
        lambda: SmpUnet(TimmMaps("convnext_atto"), (32, 24, 16, 12, 8)),
        {"widths": [32, 24, 16, 12, 8]},
        (64, 96),
    ),
    "smp FPN": (
        "semantic_fpn_resnet18",
        "smp",
        lambda: SmpFPN(ResNetMaps(), 48, 64),
        {"pyramid_width": 48, "width": 64},
        (96, 64),
    ),
    "smp FPN of MobileNetV2": (
        "semantic_fpn_mobilenet_v2",
        "smp",
        lambda: SmpFPN(MobileMaps(), 32, 64),
        {"pyramid_width": 32, "width": 64},
        (64, 96),
    ),
    "smp FPN of timm": (
        "semantic_fpn_lite0",
        "smp",
        lambda: SmpFPN(TimmMaps("tf_efficientnet_lite0"), 32, 64),
        {"pyramid_width": 32, "width": 64},
        (64, 64),
    ),
    "milesial": (
        "unet",
        "milesial",
        lambda: Milesial(8, False),
        {"width": 8, "statistics": "unit"},
        (37, 90),
    ),
    "milesial bilinear": (
        "unet",
        "milesial",
        lambda: Milesial(8, True),
        {"width": 8, "bilinear": True, "statistics": "unit"},
        (53, 35),
    ),
    "wkentaro": (
        "fcn8s_vgg16",
        "wkentaro",
        Wkentaro,
        {"width": 16, "statistics": "caffe"},
        (35, 50),
    ),
    "crfasrnn": (
        "crf_rnn",
        "crfasrnn",
        CrfasRnn,
        {"width": 16, "statistics": "caffe"},
        (40, 30),
    ),
}


LONG = (
    *("smp Unet of timm", "smp Unet of VGG", "smp Unet of VGG with norms"),
    *("smp Unet without stride 2", "smp FPN of MobileNetV2", "smp FPN of timm"),
)


def random_state(network: nn.Module) -> None:
    torch.manual_seed(0)
    for key, value in network.state_dict().items():
        if key.endswith("running_mean") or (key.endswith("bias") and value.ndim == 1):
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
    model, library, make, options, sides = CASES[case]
    theirs = make()
    random_state(theirs)
    theirs.eval()
    source, ours, back = (tmp_path / name for name in ("a.pth", "b.safetensors", "c.pth"))
    # As a training program leaves it: below a wrapper, beside numbers.
    torch.save({"epoch": 3, "model_state_dict": theirs.state_dict()}, source)
    report = convert(source, ours, model=model)
    assert len(report.used) == len(
        [key for key in theirs.state_dict() if library != "wkentaro" or "upscore" not in key]
    )
    loaded, meta = load_model(ours)
    assert meta.args == options and len(meta.names) == CLASSES
    x = torch.randn(1, 3, *sides)
    with torch.no_grad():
        found, expected = loaded.eval().network(x), theirs(x)
    if found.shape != expected.shape:
        found = F.interpolate(found, sides, mode="bilinear", align_corners=True)
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    convert(ours, back, model=model, target=library)
    state = torch.load(back)
    assert state.keys() == theirs.state_dict().keys()
    for key, value in theirs.state_dict().items():
        assert torch.equal(state[key], value), key
    theirs.load_state_dict(state)


def test_every_row_of_the_table_is_tried() -> None:
    rows = [library for _, known in LAYOUTS for library in known]
    assert {library for _, library, *_ in CASES.values()} == set(rows)


def test_a_dictionary_with_the_values_of_masks(tmp_path: Path) -> None:
    theirs = Milesial(8, False)
    path = tmp_path / "unet.pth"
    torch.save({**theirs.state_dict(), "mask_values": [0, 1, 2]}, path)
    model, options, report = start_model(
        "unet", ["class_2", "other"], weights=path, options={"imgsz": 64}
    )
    assert options == {"imgsz": 64, "width": 8, "statistics": "unit"}
    assert "1 of 2 classes by name" in report
    assert torch.equal(model.network.head.weight[0], theirs.outc.conv.weight[1])


def test_learned_kernels_of_wkentaro_stay_learned(tmp_path: Path) -> None:
    theirs = Wkentaro().eval()
    theirs.upscore8.weight.data += 0.01
    told = networks.told_options(theirs.state_dict(), model="fcn8s_vgg16", source="wkentaro")
    assert told["learn_upsampling"] is True
    ours = build("fcn8s_vgg16", CLASSES, **told).eval()
    converted = networks.to_maskwright(
        theirs.state_dict(),
        list(ours.state_dict()),
        model="fcn8s_vgg16",
        source="wkentaro",
        final="network.score_fr",
    )
    ours.load_state_dict(converted.state)
    x = torch.randn(1, 3, 20, 40)
    with torch.no_grad():
        torch.testing.assert_close(ours.network(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_a_sigmoid_becomes_two_classes(tmp_path: Path) -> None:
    theirs = SmpUnet(ResNetMaps(), (32, 24, 16, 12, 8))
    theirs.segmentation_head[0] = nn.Conv2d(8, 1, 3, padding=1)
    random_state(theirs)
    torch.save(theirs.eval().state_dict(), tmp_path / "a.pth")
    report = convert(tmp_path / "a.pth", tmp_path / "b.safetensors", model="unet_resnet18")
    assert "one class with a sigmoid became background and class" in str(report)
    ours, meta = load_model(tmp_path / "b.safetensors")
    assert meta.names == ["background", "class_1"]
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        probs = ours.eval().network(x).softmax(1)[:, 1:]
        torch.testing.assert_close(probs, theirs(x).sigmoid(), rtol=1e-4, atol=1e-5)


def test_what_would_change_the_network_is_refused(tmp_path: Path) -> None:
    state = SmpUnet(ResNetMaps(), (32, 24, 16, 12, 8)).state_dict()
    attention = {"decoder.blocks.0.attention1.attention.cSE.1.weight": torch.zeros(2, 2, 1, 1)}
    torch.save({**state, **attention}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth: decoder\.blocks\.0\.attention1.*other options"):
        convert(tmp_path / "a.pth", tmp_path / "b.safetensors", model="unet_resnet18")
    head = {"classification_head.3.weight": torch.zeros(2, 512)}
    torch.save({**state, **head}, tmp_path / "a.pth")
    report = convert(tmp_path / "a.pth", tmp_path / "b.safetensors", model="unet_resnet18")
    assert report.ignored == {"classification_head.3.weight": "not part of this model"}


def test_what_others_have_not_is_said() -> None:
    ours = build("unet", 2, width=8, statistics="imagenet").state_dict()
    _, report = networks.from_maskwright(
        ours, model="unet", target="milesial", args={"width": 8, "statistics": "imagenet"}
    )
    assert "milesial standardises as statistics=unit" in str(report)
    with pytest.raises(ValueError, match="backbone=vgg11, wkentaro's always backbone=vgg16"):
        networks.from_maskwright(
            {}, model="fcn8s_vgg16", target="wkentaro", args={"backbone": "vgg11"}
        )
    vgg = {"model": "unet_vgg16", "target": "smp", "args": {"middle": False}}
    with pytest.raises(ValueError, match="has middle=False, smp's always middle=True"):
        networks.from_maskwright({}, **vgg)
    with pytest.raises(ValueError, match="smp has no counterpart of unet: it goes to milesial"):
        networks.from_maskwright({}, model="unet", target="smp")


def test_frozen_norms_count_no_batches_and_theirs_do() -> None:
    ours = build("unet_resnet18", CLASSES, norm="frozen", widths=(32, 24, 16, 12, 8))
    state, _ = networks.from_maskwright(ours.state_dict(), model="unet_resnet18", target="smp")
    SmpUnet(ResNetMaps(), (32, 24, 16, 12, 8)).load_state_dict(state)
