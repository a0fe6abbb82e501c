from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from maskwright.nn.convolution import (
    Conv2d,
    WinogradConv2d,
    of_maps,
    suits_winograd,
    where_wanted,
)
from maskwright.nn.inference import prepare
from maskwright.nn.norm import conv_block
from maskwright.nn.winograd import (
    EXACT,
    REGIONS,
    best_tile,
    convolve,
    repays,
    transform_filters,
)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "shape",
    [(1, 128, 28, 28), (2, 128, 29, 31), (5, 160, 30, 26), (1, 128, 4, 300), (3, 256, 14, 14)],
)
@pytest.mark.parametrize(("tiles", "rounding"), [((4,), 6e-6), ((7,), 4e-4), (REGIONS, 4e-4)])
def test_equals_the_direct_convolution(
    shape: tuple[int, ...], bias: bool, tiles: tuple[int, ...], rounding: float
) -> None:
    torch.manual_seed(0)
    conv = Conv2d(shape[1], shape[1] + 8, 3, padding=1, bias=bias)
    conv.tiles = tiles
    x = torch.randn(shape)
    with torch.no_grad():
        # In double precision: neither side's rounding counts as truth.
        exact = conv.double()(x.double())
        found = WinogradConv2d(conv.float())(x)
        assert not torch.equal(found, conv(x)), "it was the direct convolution"
        channels_last = WinogradConv2d(conv)(x.contiguous(memory_format=torch.channels_last))
    assert found.shape == exact.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(
        found.double(), exact, rtol=0, atol=rounding * exact.abs().max().item()
    )
    assert torch.equal(found, channels_last)


def test_small_maps_take_the_direct_way() -> None:
    conv = nn.Conv2d(128, 128, 3, padding=1)
    for shape in ((1, 128, 8, 8), (0, 128, 40, 40), (20, 128, 7, 7)):
        x = torch.randn(shape)
        with torch.no_grad():
            layer = WinogradConv2d(conv)
            torch.testing.assert_close(layer(x), conv(x), rtol=1e-5, atol=1e-5)
            assert not layer._filters


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(128, 128, 1),
        nn.Conv2d(128, 128, 3, padding=1, stride=2),
        nn.Conv2d(128, 128, 3, padding=1, dilation=2),
        nn.Conv2d(128, 128, 3, padding=(1, 2), dilation=(1, 2)),
        nn.Conv2d(128, 128, 3),
        nn.Conv2d(128, 128, 3, padding=1, groups=2),
        nn.Conv2d(128, 128, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(64, 128, 3, padding=1),
        nn.Conv2d(128, 128, 3, padding=1, dtype=torch.float64),
        nn.ReLU(),
    ],
)
def test_what_it_cannot_replace_is_refused(layer: nn.Module) -> None:
    assert not suits_winograd(layer)
    with pytest.raises(ValueError, match="Winograd needs"):
        WinogradConv2d(layer)  # type: ignore[arg-type]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "shape", [(1, 128, 28, 28), (2, 128, 29, 31), (1, 128, 4, 300), (4, 256, 14, 14)]
)
@pytest.mark.parametrize(("tiles", "rounding"), [((4,), 1e-5), ((7,), 1e-3)])
def test_gradients_equal_those_of_the_direct_convolution(
    shape: tuple[int, ...], bias: bool, tiles: tuple[int, ...], rounding: float
) -> None:
    torch.manual_seed(0)
    conv = Conv2d(shape[1], shape[1] + 8, 3, padding=1, bias=bias)
    conv.tiles = tiles
    exact = nn.Conv2d(shape[1], shape[1] + 8, 3, padding=1, bias=bias).double()
    exact.load_state_dict(conv.state_dict())
    x = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    x, x_exact = x.requires_grad_(), x.detach().double().requires_grad_()
    out, expected = conv(x), exact(x_exact)
    assert repays(shape, shape[1] + 8) and "_Winograd" in str(out.grad_fn)
    grad = torch.randn_like(expected)
    # In place, as the layers behind it are.
    out.mul_(0.5).backward(grad.float())
    (expected * 0.5).backward(grad)
    pairs = [(x.grad, x_exact.grad), (conv.weight.grad, exact.weight.grad)]
    if bias:
        pairs.append((conv.bias.grad, exact.bias.grad))
    for mine, truth in pairs:
        limit = rounding * truth.abs().max().item()
        torch.testing.assert_close(mine.double(), truth, rtol=0, atol=limit)


@pytest.mark.parametrize("channels", [128, 256])
def test_maps_together_equal_maps_one_by_one(channels: int) -> None:
    """Values and gradients of a layer that several maps share, the smallest of a few pixels."""
    torch.manual_seed(0)
    layer = nn.Sequential(Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True))
    exact = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()).double()
    exact.load_state_dict(layer.state_dict())
    sizes = ((32, 40), (16, 20), (8, 10), (5, 3), (1, 2))
    maps = [torch.randn(2, channels, *size) for size in sizes]
    grown = [x.clone().requires_grad_(i != 1) for i, x in enumerate(maps)]
    doubles = [x.double().requires_grad_() for x in maps]
    found, wanted = of_maps(layer, grown), [exact(x) for x in doubles]
    assert len({one.grad_fn.next_functions[0][0] for one in found}) == 1  # one for all
    grads = [torch.randn_like(one) for one in wanted]
    torch.autograd.backward(found, [grad.float() for grad in grads])
    torch.autograd.backward(wanted, grads)
    assert grown[1].grad is None
    pairs = [*zip(found, wanted, strict=True)]
    pairs += [(a.grad, b.grad) for a, b in zip(grown, doubles, strict=True) if a.requires_grad]
    pairs += [(layer[0].weight.grad, exact[0].weight.grad)]
    pairs += [(layer[0].bias.grad, exact[0].bias.grad)]
    for mine, truth in pairs:
        limit = 1e-5 * truth.abs().max().item()
        torch.testing.assert_close(mine.double(), truth, rtol=0, atol=limit)
    with torch.inference_mode():
        fast = WinogradConv2d(layer[0])
        for mine, truth in zip(of_maps(fast, maps), wanted, strict=True):
            torch.testing.assert_close(mine.relu().double(), truth, rtol=0, atol=1e-5)
        # Other layers, and without a gradient in view, one by one.
        for mine, x in zip(of_maps(layer, maps), maps, strict=True):
            assert torch.equal(mine, layer(x))


def test_only_what_needs_a_gradient_gets_one() -> None:
    conv = Conv2d(128, 128, 3, padding=1)
    x = torch.randn(1, 128, 32, 32)
    conv(x).sum().backward()
    assert x.grad is None and conv.weight.grad is not None
    conv.requires_grad_(False)
    conv.zero_grad()
    conv(x.requires_grad_()).sum().backward()
    assert conv.weight.grad is None and x.grad is not None


def test_without_gradients_it_is_the_plain_convolution_to_the_bit() -> None:
    conv = Conv2d(128, 128, 3, padding=1)
    x = torch.randn(1, 128, 32, 32)
    with torch.no_grad():
        assert torch.equal(conv(x), nn.Conv2d.forward(conv, x))
    conv.requires_grad_(False)
    assert torch.equal(conv(x), nn.Conv2d.forward(conv, x))
    small = torch.randn(1, 128, 8, 8).requires_grad_()
    assert torch.equal(conv(small), nn.Conv2d.forward(conv, small))


def test_masks_have_tiles_that_fit_them_and_large_maps_do_not() -> None:
    assert best_tile((256, 14, 14), 256, REGIONS) == 7
    assert best_tile((1, 256, 14, 14), 256) == EXACT[0] == 4
    for shape in ((256, 28, 28), (256, 16, 16), (128, 200, 304)):
        assert best_tile(shape, shape[0], REGIONS) == 4


@pytest.mark.parametrize("tile", REGIONS)
def test_a_tile_is_the_convolution_in_double_precision(tile: int) -> None:
    """Without rounding, the rule is exact."""
    torch.manual_seed(0)
    x = torch.randn(1, 2, 2 * tile + 1, 3 * tile, dtype=torch.float64)
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64)
    found = convolve(x, transform_filters(weight, tile), None)
    torch.testing.assert_close(found, F.conv2d(x, weight, padding=1), rtol=0, atol=1e-11)


def test_a_map_without_batch_goes_to_the_direct_convolution() -> None:
    torch.manual_seed(0)
    conv = Conv2d(128, 128, 3, padding=1)
    plain = nn.Conv2d(128, 128, 3, padding=1)
    plain.load_state_dict(conv.state_dict())
    x = torch.rand(128, 40, 40)
    assert torch.equal(conv(x), plain(x))


@pytest.mark.parametrize("size", [(64, 96), (61, 96)])
@pytest.mark.parametrize("part", ["boxes", "corner", "lines", "nothing", "all"])
def test_pixels_that_are_wanted_are_those_of_the_whole_map(
    size: tuple[int, int], part: str
) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(*(conv_block(128, 128) for _ in range(3))).eval()
    x = torch.randn(2, 128, *size)
    wanted = torch.zeros(2, *size, dtype=torch.bool)
    if part == "boxes":
        wanted[0, 3:19, 40:70] = wanted[0, 10:30, 60:61] = wanted[1, 30:45, 7:29] = True
    elif part == "corner":
        wanted[1, -2:, -3:] = wanted[0, :1, :1] = True
    elif part == "lines":  # whole blocks beside parts of one
        wanted[0, :33] = wanted[1, 40, 17] = True
    elif part == "all":
        wanted[:] = True
    with torch.no_grad():
        exact = layers.double()(x.double())
        fast = prepare(layers.float(), lambda module: module(x))
        found, whole = where_wanted(fast, x, lambda: wanted), fast(x)
    chosen = wanted[:, None].expand_as(exact)
    bound = 1e-5 * exact.abs().max().item()
    torch.testing.assert_close(found.double()[chosen], exact[chosen], rtol=0, atol=bound)
    if size[0] % 4:  # no whole tiles: everything is computed
        assert found.equal(whole)
    elif part != "all":
        elsewhere = F.max_pool2d(wanted[:, None].float(), 9, 1, 4) == 0
        assert found[elsewhere.expand_as(found)].count_nonzero() == 0


@torch.no_grad()
def test_a_dilated_layer_reads_as_far_as_its_dilation() -> None:
    torch.manual_seed(0)
    plain, dilated = (nn.Conv2d(128, 128, 3, padding=d, dilation=d) for d in (1, 6))
    layers = nn.Sequential(WinogradConv2d(plain), WinogradConv2d(dilated)).eval()
    x = torch.randn(1, 128, 32, 32)
    wanted = torch.zeros(1, 32, 32, dtype=torch.bool)
    wanted[0, 12:16, 12:16] = True
    found, whole = where_wanted(layers, x, lambda: wanted), layers(x)
    pixels = wanted[:, None].expand_as(whole)
    torch.testing.assert_close(found[pixels], whole[pixels], rtol=0, atol=1e-5)


@torch.no_grad()
def test_layers_that_look_at_all_pixels_see_all_pixels() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(conv_block(128, 128, norm="gn"), conv_block(128, 128)).eval()
    x = torch.randn(1, 128, 32, 32)
    wanted = torch.zeros(1, 32, 32, dtype=torch.bool)
    wanted[0, 4:9, 4:9] = True
    fast = prepare(layers, lambda module: module(x))
    assert where_wanted(fast, x, lambda: wanted).equal(fast(x))
    seen = []
    layers = nn.Sequential(conv_block(128, 128)).eval()
    layers[0].register_forward_hook(lambda *args: seen.append(args[2]))
    fast = prepare(layers, lambda module: module(x))
    seen.clear()
    assert where_wanted(fast, x, lambda: wanted).equal(fast(x)) and len(seen) == 2
