from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from maskwright.nn.convolution import WinogradConv2d
from maskwright.nn.inference import fold_norms, prepare, share
from maskwright.nn.packed import ACTIVATIONS, PackedConv2d, can_pack

pytestmark = pytest.mark.skipif(not can_pack(), reason="this build of torch has no such operators")


def layer(**options: object) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(16, 24, **{"kernel_size": 3, **options}).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1},
        {"kernel_size": 1, "bias": False},
        {"stride": 2, "padding": (1, 2)},
        {"dilation": 3, "padding": 3},
        {"groups": 8, "kernel_size": 5},
        {"kernel_size": (1, 7), "padding": (0, 3)},
    ],
    ids=str,
)
def test_equal_to_the_layers_it_stands_for(
    options: dict[str, object], activation: type[nn.Module] | None
) -> None:
    conv = layer(**options)
    packed = PackedConv2d(conv, activation)
    for shape in ((2, 16, 9, 13), (1, 16, 20, 8), (5, 16, 9, 13)):
        x = torch.randn(shape)
        for given in (x, x.contiguous(memory_format=torch.channels_last)):
            with torch.no_grad():
                wanted = conv(x) if activation is None else activation()(conv(x))
                torch.testing.assert_close(packed(given), wanted, rtol=1e-4, atol=1e-5)


def test_gradients_other_types_and_empty_batches_take_the_plain_way() -> None:
    conv = layer(padding=1)
    packed = PackedConv2d(conv, nn.ReLU)
    x = torch.randn(2, 16, 8, 8, requires_grad=True)
    packed(x).square().sum().backward()
    found = x.grad
    x.grad = None
    conv(x).relu().square().sum().backward()
    assert found is not None and x.grad is not None
    torch.testing.assert_close(found, x.grad)
    with torch.no_grad():
        assert packed(torch.zeros(0, 16, 8, 8)).shape == (0, 24, 8, 8)
        with pytest.raises(RuntimeError):  # as of the layer itself
            packed(torch.zeros(1, 16, 8, 8, dtype=torch.float64))


def test_copies_and_pickles() -> None:
    packed = PackedConv2d(layer(padding=1), nn.SiLU)
    x = torch.randn(1, 16, 8, 8)
    with torch.no_grad():
        wanted = packed(x)
        for again in (copy.deepcopy(packed), pickle.loads(pickle.dumps(packed))):
            torch.testing.assert_close(again(x), wanted)


class Awkward(nn.Module):
    """Activations that may become part of the convolution before them beside such that may not."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.bn, self.relu_a = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        self.b, self.relu_b = nn.Conv2d(8, 8, 1), nn.ReLU(inplace=True)  # read beside it
        self.c, self.relu_c = nn.Conv2d(8, 8, 1), nn.ReLU()  # runs twice
        self.d, self.relu_d = nn.Conv2d(8, 8, 1), nn.ReLU(inplace=True)  # something is added first
        self.e, self.relu_e = nn.Conv2d(8, 8, 1), nn.ReLU6()
        self.f, self.relu_f = nn.Conv2d(8, 8, 1), nn.ReLU()  # the map itself is a result
        self.g, self.odd = nn.Conv2d(8, 8, 1, padding_mode="reflect"), nn.ReLU()

    def forward(self, x: Tensor) -> dict[str, list[Tensor]]:
        x = self.relu_a(self.bn(self.a(x)))
        y = self.b(x)
        x = y * 3 + self.relu_b(y.clone())
        x = self.relu_c(self.c(self.relu_c(self.c(x))))
        x = self.relu_d(self.d(x).add_(1))
        x = self.relu_e(self.e(x))
        x = self.f(x)
        return {"maps": [x, self.odd(self.g(self.relu_f(x)))]}


def test_only_activations_that_stay_equal_are_taken() -> None:
    torch.manual_seed(1)
    module = Awkward().eval()
    x = torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        before = module(x)["maps"]
        fast = prepare(module, lambda net: net(x))
        for found, wanted in zip(fast(x)["maps"], before, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    gone = {name for name, part in fast.named_children() if isinstance(part, nn.Identity)}
    assert gone == {"bn", "relu_a", "relu_e"}
    assert isinstance(fast.g, nn.Conv2d)


def test_a_map_that_is_a_result_itself_keeps_its_norm_outside() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
            self.bn.running_mean.fill_(0.5)  # type: ignore[union-attr]

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.conv(x)
            return y, self.bn(y)

    pair, x = Pair().eval(), torch.randn(1, 3, 5, 5)
    assert fold_norms(share(pair), lambda net: net(x)) == 0


def test_an_activation_counts_for_large_and_for_small_maps() -> None:
    torch.manual_seed(2)
    module = nn.Sequential(nn.Conv2d(128, 128, 3, padding=1), nn.ReLU()).eval()
    fast = prepare(module, lambda net: net(torch.ones(1, 128, 8, 8)))
    assert isinstance(fast[0], WinogradConv2d) and isinstance(fast[1], nn.Identity)
    for side in (8, 64):  # only the second is one for Winograd's filtering
        x = torch.randn(2, 128, side, side).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            torch.testing.assert_close(fast(x), module(x), rtol=1e-4, atol=1e-4)
    assert fast[0]._filters


def test_dropout_that_does_nothing_does_not_stand_between() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout(0.5), nn.BatchNorm2d(4), nn.ReLU())
    x = torch.linspace(-2, 2, 75).view(1, 3, 5, 5)
    module(x)  # statistics
    module.eval()
    fast = prepare(module, lambda net: net(x))
    assert [type(layer) for layer in fast] == [PackedConv2d, nn.Dropout, nn.Identity, nn.Identity]
    with torch.no_grad():
        torch.testing.assert_close(fast(x), module(x), rtol=1e-4, atol=1e-5)
