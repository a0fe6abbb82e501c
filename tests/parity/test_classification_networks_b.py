"""Residual and dense classifiers: torchvision's and timm's logits, and the counts of the papers."""

from __future__ import annotations

import re

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from maskwright.models import build, get_entry


def randomise(model: nn.Module) -> nn.Module:
    """Give a network statistics and affine parameters that are not those of a new one."""
    generator = torch.Generator().manual_seed(0)
    for key, value in model.state_dict().items():
        if key.endswith("running_mean"):
            value.normal_(std=0.1, generator=generator)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=generator)
        elif value.dim() == 1 and key.endswith("weight"):
            value.uniform_(0.5, 1.0, generator=generator)
        elif value.dim() == 1 and key.endswith("bias"):
            value.normal_(std=0.1, generator=generator)
    return model.eval()


def stage(match: re.Match[str]) -> str:
    return f"stages.{int(match[1]) - 1}.blocks.{match[2]}."


def loaded(ours: nn.Module, theirs: nn.Module, names: dict[str, str]) -> None:
    state = theirs.state_dict()
    assert set(names.values()) == set(state)
    own = ours.state_dict()
    fitting = {name: state[key].reshape(own[name].shape) for name, key in names.items()}
    ours.load_state_dict(fitting)


TORCHVISION = ["resnet18", "resnet50", "resnext50_32x4d", "densenet121"]


@pytest.mark.parametrize("name", TORCHVISION)
def test_logits_are_those_of_torchvision(name: str) -> None:
    torch.manual_seed(0)
    theirs = randomise(torchvision.models.get_model(name, num_classes=11))
    ours = build(name, 11).eval()
    names = {key: re.sub(r"^network\.(body\.)?", "", key) for key in ours.state_dict()}
    loaded(ours, theirs, names)
    x = torch.randn(2, 3, 75, 64)
    with torch.no_grad():
        expected, found = theirs(x), ours.network(x)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_gradients_and_statistics_are_those_of_torchvision() -> None:
    torch.manual_seed(0)
    theirs = randomise(torchvision.models.get_model("resnet50", num_classes=5)).double().train()
    ours = build("resnet50", 5).double().train()
    names = {key: re.sub(r"^network\.(body\.)?", "", key) for key in ours.state_dict()}
    loaded(ours, theirs, names)
    x = torch.randn(2, 3, 64, 64, dtype=torch.double)
    for call in (theirs, ours.network):
        call(x).square().mean().backward()
    expected = dict(theirs.named_parameters())
    for key, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[names[key]].grad)
    buffers = dict(theirs.named_buffers())
    for key, value in ours.named_buffers():
        if key.startswith("network."):
            torch.testing.assert_close(value, buffers[names[key]])


def pre_activation_names(model: nn.Module) -> dict[str, str]:
    """Return timm's names of the tensors of a pre-activation ResNet."""
    names = {}
    for key in model.state_dict():
        name = re.sub(r"layer(\d)\.(\d+)\.", stage, key.removeprefix("network."))
        names[key] = name.replace("fc.", "head.fc.")
    return names


def test_logits_of_full_pre_activation_are_those_of_timm() -> None:
    torch.manual_seed(0)
    theirs = randomise(timm.create_model("resnetv2_50", num_classes=11))
    ours = build("preact_resnet50", 11).eval()
    loaded(ours, theirs, pre_activation_names(ours))
    x = torch.randn(2, 3, 75, 64)
    with torch.no_grad():
        expected, found = theirs(x), ours.network(x)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("depth", [101, 152])
def test_deeper_ones_have_timms_shapes(depth: int) -> None:
    with torch.device("meta"):
        ours = build(f"preact_resnet{depth}", 1000)
        theirs = timm.create_model(f"resnetv2_{depth}").state_dict()
    names = pre_activation_names(ours)
    assert set(names.values()) == set(theirs)
    for key, value in ours.state_dict().items():
        assert value.numel() == theirs[names[key]].numel()


# Published counts of ImageNet networks; those of CIFAR in millions, as the papers round them.
COUNTS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272,
    "densenet121": 7_978_856,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
    "densenet161": 28_681_000,
}
CIFAR_COUNTS = {
    "resnet20_cifar": 0.27,
    "resnet32_cifar": 0.46,
    "resnet44_cifar": 0.66,
    "resnet56_cifar": 0.85,
    "resnet110_cifar": 1.7,
    "preact_resnet110_cifar": 1.7,
    "preact_resnet164_cifar": 1.7,
    "densenet40_12_cifar": 1.0,
    "densenet100_12_cifar": 7.0,
    "densenet_bc_100_12_cifar": 0.8,
    "densenet_bc_190_40_cifar": 25.6,
}


@pytest.mark.parametrize("name", [*COUNTS, *CIFAR_COUNTS])
def test_counts_of_parameters(name: str) -> None:
    with torch.device("meta"):
        model = build(name, 1000 if name in COUNTS else 10)
    count = sum(parameter.numel() for parameter in model.parameters())
    if name in COUNTS:
        assert count == COUNTS[name]
        theirs = torchvision.models.get_model_weights(name)
        assert count == theirs.DEFAULT.meta["num_params"]
    else:
        digits = 2 if CIFAR_COUNTS[name] < 0.9 and name.startswith("resnet") else 1
        assert round(count / 1e6, digits) == CIFAR_COUNTS[name]


@pytest.mark.parametrize("depth", [20, 56])
def test_a_plain_network_has_the_parameters_of_the_residual_one(depth: int) -> None:
    with torch.device("meta"):
        plain, residual = build(f"plain{depth}_cifar", 10), build(f"resnet{depth}_cifar", 10)
    shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (plain, residual)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", list(COUNTS))
def test_published_files_and_figures_are_torchvisions(name: str) -> None:
    """Addresses, hashes, accuracies and crops, as the enumerations of torchvision state them."""
    theirs = {weights.url: weights for weights in torchvision.models.get_model_weights(name)}
    ours = get_entry(name).weights
    assert {published.url for published in ours.values()} == set(theirs)
    for published in ours.values():
        weights = theirs[published.url]
        assert published.sha256 in published.url
        figures = weights.meta["_metrics"]["ImageNet-1K"]
        assert published.metrics == {"top1": figures["acc@1"], "top5": figures["acc@5"]}
        with torch.device("meta"):
            how = build(name, 1000, **published.options).preprocess
        transform = weights.transforms()
        assert [how.crop] == transform.crop_size and [how.short] == transform.resize_size
        assert [255 * value for value in transform.mean] == pytest.approx(how.mean, abs=1e-3)
        assert [255 * value for value in transform.std] == pytest.approx(how.std, abs=1e-3)


class PlainBlock(nn.Module):
    """He et al. 2016 with option A, written anew: no layer of ours."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.stride, self.more = stride, cout - cin
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        rows = torch.arange(0, x.shape[2], self.stride)
        columns = torch.arange(0, x.shape[3], self.stride)
        short = x.index_select(2, rows).index_select(3, columns)
        zeros = short.new_zeros(len(short), self.more, *short.shape[2:])
        return torch.relu(out + torch.cat([short, zeros], 1))


def test_shortcuts_without_parameters() -> None:
    """ResNet-20 for CIFAR against a plain form of it, in training and in evaluation."""
    torch.manual_seed(0)
    ours = build("resnet20_cifar", 10)
    layers: list[nn.Module] = []
    cin = 16
    for number, width in enumerate((16, 32, 64)):
        blocks = []
        for block in range(3):
            blocks.append(PlainBlock(cin, width, 2 if number and not block else 1))
            cin = width
        layers.append(nn.Sequential(*blocks))
    theirs = nn.ModuleDict({f"layer{i + 1}": layer for i, layer in enumerate(layers)})
    theirs["conv1"] = nn.Conv2d(3, 16, 3, padding=1, bias=False)
    theirs["bn1"] = nn.BatchNorm2d(16)
    theirs["fc"] = nn.Linear(64, 10)
    theirs.load_state_dict(
        {key.removeprefix("network."): value for key, value in ours.state_dict().items()}
    )
    for mode in (True, False):
        ours.train(mode)
        theirs.train(mode)
        x = torch.randn(3, 3, 33, 32)
        out = torch.relu(theirs["bn1"](theirs["conv1"](x)))
        for layer in layers:
            out = layer(out)
        torch.testing.assert_close(ours.network(x), theirs["fc"](out.mean((2, 3))))


def reference_unit(
    order: str, x: Tensor, state: dict[str, Tensor], stride: int, first: bool
) -> Tensor:
    """A residual unit of two convolutions, each order written out (He et al. 2016, fig. 4)."""

    def conv(x: Tensor, number: int, stride: int = 1) -> Tensor:
        return nn.functional.conv2d(x, state[f"conv{number}.weight"], None, stride, 1)

    def bn(x: Tensor, name: str) -> Tensor:
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt() * weight[
            :, None, None
        ] + bias[:, None, None]

    def short(x: Tensor) -> Tensor:
        more = state["conv1.weight"].shape[0] - x.shape[1]
        return nn.functional.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, more))

    relu = torch.relu
    changes = state["conv1.weight"].shape[0] != x.shape[1]
    if order == "a":
        return relu(short(x) + bn(conv(relu(bn(conv(x, 1, stride), "norm1")), 2), "norm2"))
    if order == "b":
        return relu(bn(short(x) + conv(relu(bn(conv(x, 1, stride), "norm1")), 2), "norm2"))
    if order == "c":
        return short(x) + relu(bn(conv(relu(bn(conv(x, 1, stride), "norm1")), 2), "norm2"))
    if order == "d":
        return short(x) + bn(conv(relu(bn(conv(relu(x), 1, stride), "norm1")), 2), "norm2")
    active = relu(bn(x, "norm1"))
    branch = conv(relu(bn(conv(active, 1, stride), "norm2")), 2)
    return short(active if first or changes else x) + branch


@pytest.mark.parametrize("order", list("abcde"))
def test_five_orders_of_a_unit(order: str) -> None:
    torch.manual_seed(0)
    model = randomise(build("preact_resnet20_cifar", 10, order=order))
    state = {key.removeprefix("network."): v for key, v in model.state_dict().items()}
    x = torch.randn(2, 3, 32, 32)

    def bn(x: Tensor, name: str) -> Tensor:
        values = [state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")]
        return torch.relu(nn.functional.batch_norm(x, *values))

    out = nn.functional.conv2d(x, state["stem.conv.weight"], padding=1)
    out = out if order == "e" else bn(out, "stem.norm")
    for layer in (1, 2, 3):
        for unit in range(3):
            prefix = f"layer{layer}.{unit}."
            own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            assert not any("downsample" in key for key in own)
            stride = 2 if layer > 1 and unit == 0 else 1
            out = reference_unit(order, out, own, stride, layer == 1 and unit == 0)
    out = bn(out, "norm") if order == "e" else out
    expected = nn.functional.linear(out.mean((2, 3)), state["fc.weight"], state["fc.bias"])
    with torch.no_grad():
        torch.testing.assert_close(model.network(x), expected, rtol=1e-4, atol=1e-4)


def test_original_order_is_the_resnet() -> None:
    """Order a with projections is ResNet-50, up to the names."""
    torch.manual_seed(0)
    ours = randomise(build("preact_resnet50", 5, order="a"))
    theirs = randomise(build("resnet50", 5))
    state = {}
    for key in ours.state_dict():
        name = re.sub(r"\.norm(\d)\.", r".bn\1.", key).replace("stem.conv", "conv1")
        name = name.replace("stem.norm", "bn1").replace("downsample.conv", "downsample.0")
        name = name.replace("downsample.norm", "downsample.1").replace("network.", "network.body.")
        state[key] = theirs.state_dict()[name.replace("body.fc", "fc")]
    ours.load_state_dict(state)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours.network(x), theirs.network(x))


def test_stride_in_the_first_convolution() -> None:
    """As in the paper and in Caffe: only where the stride stands differs."""
    blocks = [
        build("resnet50", 2, stride_in_1x1=first).network.body.layer2[0] for first in (False, True)
    ]
    assert [(b.conv1.stride[0], b.conv2.stride[0]) for b in blocks] == [(1, 2), (2, 1)]
