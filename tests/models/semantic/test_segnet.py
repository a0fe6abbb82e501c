"""SegNet, SegNet-Basic and DeconvNet against plain references, and norms that are recomputed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskwright.errors import OptionError
from maskwright.models import build
from maskwright.models.semantic.deconvnet import DeconvNetOptions
from maskwright.models.semantic.segnet import SegNetOptions, mirror
from maskwright.structures import Images

TINY = {"backbone": "vgg11_bn", "imgsz": 64}


def randomise(network: nn.Module) -> None:
    torch.manual_seed(0)
    for key, value in network.state_dict().items():
        if key.endswith(("running_mean", "bias")):
            value.normal_(std=0.1)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 1.5)


@pytest.mark.parametrize(
    ("name", "classes", "count"),
    [("segnet", 11, 29_449_355), ("segnet_basic", 11, 1_416_587), ("deconvnet", 21, 251_805_653)],
)
def test_number_of_parameters(name: str, classes: int, count: int) -> None:
    """SegNet's is published; the others follow from the tables of the papers."""
    with torch.device("meta"):
        model = build(name, classes)
    assert sum(p.numel() for p in model.parameters()) == count


def test_widths_of_the_decoder() -> None:
    assert [[cout for _, cout in stage] for stage in mirror("vgg16_bn")] == [
        [512, 512, 512],
        [512, 512, 256],
        [256, 256, 128],
        [128, 64],
        [64, 64],
    ]


class Plain:
    """Layers one after the other, by the names of a state dict."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state
        self.pooled: list[tuple[Tensor, torch.Size]] = []

    def conv(self, name: str, x: Tensor, padding: int = 1) -> Tensor:
        return F.conv2d(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], 1, padding)

    def transposed(self, name: str, x: Tensor, padding: int = 1) -> Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return F.conv_transpose2d(x, weight, bias, 1, padding)

    def norm(self, name: str, x: Tensor) -> Tensor:
        parts = (self.state[f"{name}.{k}"] for k in ("running_mean", "running_var"))
        return F.batch_norm(x, *parts, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def pool(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        x, indices = F.max_pool2d(x, 2, 2, ceil_mode=True, return_indices=True)
        self.pooled.append((indices, size))
        return x

    def unpool(self, x: Tensor) -> Tensor:
        indices, size = self.pooled.pop()
        return F.max_unpool2d(x, indices, 2, 2, output_size=list(size))

    def vgg11(self, x: Tensor) -> Tensor:
        for place in (0, None, 4, None, 8, 11, None, 15, 18, None, 22, 25, None):
            if place is None:
                x = self.pool(x)
            else:
                name = "backbone.body.features"
                x = self.norm(f"{name}.{place + 1}", self.conv(f"{name}.{place}", x)).relu()
        return x


@pytest.mark.parametrize("sides", [(45, 52), (64, 64)])
def test_segnet_layer_by_layer(sides: tuple[int, int]) -> None:
    network = build("segnet", 4, **TINY).eval().network
    randomise(network)
    plain = Plain(network.state_dict())
    x = torch.randn(2, 3, *sides)
    with torch.no_grad():
        found = network(x)
        y = plain.vgg11(x)
        for stage, count in enumerate((2, 2, 2, 1)):
            y = plain.unpool(y)
            for number in range(count):
                name = f"decoder.{stage}.{3 * number}"
                y = plain.conv(name, y)
                y = plain.norm(f"decoder.{stage}.{3 * number + 1}", y).relu()
        expected = plain.conv("decoder.4.0", plain.unpool(y))
    assert found.shape == (2, 4, *sides) and expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_segnet_basic_layer_by_layer() -> None:
    model = build("segnet_basic", 4, width=8, imgsz=64).eval()
    network = model.network
    randomise(network)
    plain = Plain(network.state_dict())
    size = torch.tensor([[37, 41]])
    images = Images(torch.rand(1, 3, 37, 41) * 255, size, size)
    with torch.no_grad():
        found = model(images)
        y = F.local_response_norm(images.pixels, 5, alpha=1e-4, beta=0.75, k=1.0)
        for level in range(4):
            name = f"backbone.levels.{level}"
            y = plain.pool(plain.norm(f"{name}.1", plain.conv(f"{name}.0", y, 3)).relu())
        for stage in range(4):
            y = plain.conv(f"decoder.{stage}.0", plain.unpool(y), 3)
            y = plain.norm(f"decoder.{stage}.1", y)
        expected = plain.conv("decoder.3.2", y, 0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_deconvnet_layer_by_layer() -> None:
    network = build("deconvnet", 3, **TINY, width=8).eval().network
    randomise(network)
    plain = Plain(network.state_dict())
    x = torch.randn(1, 3, 230, 200)  # one side is padded to 224
    with torch.no_grad():
        found = network(x)
        y = plain.vgg11(F.pad(x, (0, 24, 0, 0)))
        y = plain.norm("fc6.1", plain.conv("fc6.0", y, 0)).relu()
        y = plain.norm("fc7.1", plain.conv("fc7.0", y, 0)).relu()
        y = plain.norm("fc6_deconv.1", plain.transposed("fc6_deconv.0", y, 0)).relu()
        for stage, count in enumerate((2, 2, 2, 1, 1)):
            y = plain.unpool(y)
            for number in range(count):
                name = f"decoder.{stage}.{3 * number}"
                y = plain.transposed(name, y)
                y = plain.norm(f"decoder.{stage}.{3 * number + 1}", y).relu()
        expected = plain.conv("score", y, 0)[..., :200]
    assert found.shape == (1, 3, 230, 200) and expected.std() > 1e-4
    limit = 1e-4 * float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=limit)


def some_batches() -> Callable[[], Iterator[tuple[Images, Any]]]:
    def batches() -> Iterator[tuple[Images, Any]]:
        generator = torch.Generator().manual_seed(3)
        for count, side in ((2, 32), (1, 48), (2, 32)):
            size = torch.full((count, 2), side)
            yield Images(torch.rand(count, 3, side, side, generator=generator) * 255, size, size), 0

    return batches


def test_norms_get_the_statistics_of_the_training_set() -> None:
    """The mean of the statistics of all batches, each layer behind norms that use their own."""
    torch.manual_seed(0)
    model = build("segnet_basic", 3, width=8, imgsz=64, recompute_norms=True)
    assert model.fits_after_training
    assert not build("segnet_basic", 3, width=8).fits_after_training
    randomise(model)
    seen: dict[str, list[Tensor]] = {}
    norms = {k: m for k, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}

    def see(key: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen.setdefault(key, []).append(inputs[0].transpose(0, 1).flatten(1))

        return hook

    handles = [m.register_forward_pre_hook(see(k)) for k, m in norms.items()]
    model.fit_after_training(some_batches(), 5, ["a", "b", "c"], print, lambda _, pieces: pieces)
    for handle in handles:
        handle.remove()
    for key, layer in norms.items():
        means = torch.stack([x.mean(1) for x in seen[key]]).mean(0)
        variances = torch.stack([x.var(1) for x in seen[key]]).mean(0)  # corrected
        torch.testing.assert_close(layer.running_mean, means, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(layer.running_var, variances, rtol=1e-4, atol=1e-4)
        assert layer.momentum == 0.1
    assert not model.training


def test_norms_of_frozen_stages_stay() -> None:
    model = build("segnet_basic", 3, width=8, imgsz=64, recompute_norms=True)
    randomise(model)
    model.freeze(2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.fit_after_training(some_batches(), 5, [], print, lambda _, pieces: pieces)
    for key, value in model.state_dict().items():
        frozen = key.startswith(("network.backbone.levels.0", "network.backbone.levels.1"))
        changed = "running" in key or "batches" in key
        assert torch.equal(value, before[key]) == (frozen or not changed), key


def test_options_that_cannot_be() -> None:
    for options in (SegNetOptions, DeconvNetOptions):
        with pytest.raises(OptionError, match="backbone is one of vgg11_bn"):
            options(backbone="vgg16")
