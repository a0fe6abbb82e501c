"""LeNet-5 beside the layers of its paper, written plainly."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from maskwright.models import build
from maskwright.models.classification.lenet import SEEN, PartialConv, Subsampling, class_codes
from maskwright.structures import Images, Labels


def images(pixels: torch.Tensor) -> Images:
    size = torch.tensor([pixels.shape[-2:]] * len(pixels))
    return Images(pixels, size, size)


def test_trained_parameters_by_layer() -> None:
    network = build("lenet5", 10, original=True).network
    counts = {
        name: sum(p.numel() for p in layer.parameters()) for name, layer in network.named_children()
    }
    assert {name: count for name, count in counts.items() if count} == {
        "c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48120, "f6": 10164,
    }  # fmt: skip
    assert sum(counts.values()) == 60_000
    assert sum(p.numel() for p in build("lenet5", 10).parameters()) == 61_706


def test_third_layer_by_the_table_of_the_paper() -> None:
    """LeCun et al. 1998, table I: an X where a map of C3 (column) sees a map of S2 (row)."""
    table = [
        "X...XXX..XXXX.XX",
        "XX...XXX..XXXX.X",
        "XXX...XXX..X.XXX",
        ".XXX..XXXX..X.XX",
        "..XXX..XXXX.XX.X",
        "...XXX..XXXX.XXX",
    ]
    columns = [tuple(i for i in range(6) if table[i][k] == "X") for k in range(16)]
    assert [tuple(sorted(seen)) for seen in SEEN] == columns


def test_a_partly_connected_map_is_the_sum_over_what_it_sees() -> None:
    torch.manual_seed(0)
    layer = PartialConv(SEEN, 6).double()
    with torch.no_grad():
        layer.weight.normal_()
        layer.bias.normal_()
    x = torch.randn(2, 6, 9, 8, dtype=torch.float64)
    weights = iter(layer.weight.view(-1, 1, 1, 5, 5))
    for k, seen in enumerate(SEEN):
        parts = [F.conv2d(x[:, i : i + 1], next(weights)) for i in seen]
        expected = torch.stack(parts).sum(0)[:, 0] + layer.bias[k]
        torch.testing.assert_close(layer(x)[:, k], expected)


def test_logits_of_the_published_form() -> None:
    """Every step by hand, on an image of 32 x 32."""
    torch.manual_seed(0)
    model = build("lenet5", 10, original=True).double().eval()
    net = model.network
    for layer in (net.s2, net.s4):
        assert isinstance(layer, Subsampling)
        torch.nn.init.normal_(layer.weight)
        torch.nn.init.normal_(layer.bias)

    def squash(a: torch.Tensor) -> torch.Tensor:
        return 1.7159 * torch.tanh(2 * a / 3)

    def sampled(layer: Subsampling, a: torch.Tensor) -> torch.Tensor:
        mean = (a[..., ::2, ::2] + a[..., 1::2, ::2] + a[..., ::2, 1::2] + a[..., 1::2, 1::2]) / 4
        return squash(mean * layer.weight + layer.bias)

    x = torch.randn(2, 1, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        a = sampled(net.s2, squash(F.conv2d(x, net.c1.weight, net.c1.bias)))
        a = sampled(net.s4, squash(net.c3(a)))
        f6 = squash(net.f6(squash(net.c5(a.flatten(1)))))
        expected = -(torch.cdist(f6, class_codes(10).double()) ** 2)
        found = net(x.expand(2, 3, 32, 32))
    torch.testing.assert_close(found, expected)


def test_samples_become_those_of_the_paper() -> None:
    model = build("lenet5", 10)
    pixels = torch.zeros(2, 3, 28, 28)
    pixels[1] = 255
    black, white = model.normalise(images(pixels))
    torch.testing.assert_close(black, torch.full_like(black, -0.1))
    torch.testing.assert_close(white, torch.full_like(white, 1.175))


@pytest.mark.parametrize("original", [False, True])
def test_an_image_of_mnist_gets_a_border_of_two_pixels(original: bool) -> None:
    torch.manual_seed(0)
    model = build("lenet5", 10, original=original).eval()
    small = torch.zeros(1, 3, 28, 28)
    small[..., 4:24, 4:24] = torch.rand(20, 20) * 255  # as in MNIST, the digit is inside
    large = F.pad(small, (2, 2, 2, 2))
    with torch.no_grad():
        assert torch.equal(model(images(small)), model(images(large)))


def test_codes_are_signs_that_differ() -> None:
    """The digits are told apart by more pixels than a wrong bit or two; others likewise."""
    for count in (2, 10, 37):
        codes = class_codes(count)
        assert codes.shape == (count, 84) and bool((codes.abs() == 1).all())
        distance = torch.cdist(codes, codes) ** 2 / 4  # pixels that differ
        assert distance.fill_diagonal_(84).min() >= 6, count
    assert torch.equal(class_codes(5), class_codes(37)[:5])


def test_the_published_form_learns() -> None:
    """Bars of two directions: the loss falls far below that of a guess."""
    torch.manual_seed(0)
    model = build("lenet5", 2, original=True).train()
    pixels = torch.zeros(16, 3, 28, 28)
    for i in range(8):
        pixels[i, :, :, 4 + 2 * i : 7 + 2 * i] = 255
        pixels[8 + i, :, 4 + 2 * i : 7 + 2 * i] = 255
    targets = Labels(torch.eye(2).repeat_interleave(8, 0))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.005, momentum=0.9)
    for _ in range(40):
        loss = model.losses(images(pixels), targets)["class"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.1 * math.log(2)
