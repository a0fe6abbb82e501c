"""Darknet's language and layers: against plain loops, and what is said of wrong descriptions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from maskwright.models.darknet import FORMS
from maskwright.nn.darknet.layers import Local, Pool, UnbiasedBatchNorm2d, reorg, reorg_back
from maskwright.nn.darknet.network import DarknetNetwork
from maskwright.nn.darknet.table import (
    head_of,
    outputs_of,
    read_table,
    unknown_keys,
    with_classes,
    write_table,
)
from maskwright.nn.inference import fold_norms

NET = "[net]\nwidth=32\nheight=32\n"


@pytest.mark.parametrize(("shape", "s"), [((2, 8, 4, 6), 2), ((1, 9, 6, 3), 3), ((1, 4, 2, 2), 2)])
def test_reorg_rereads_memory(shape: tuple[int, int, int, int], s: int) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    images, channels, height, width = shape
    small = channels // s**2
    wanted = torch.zeros(shape)
    for b in range(images):
        read = x[b].flatten().view(small, s * height, s * width)
        for k in range(channels):
            for j in range(height):
                for i in range(width):
                    offset = k // small
                    wanted[b, k, j, i] = read[k % small, s * j + offset // s, s * i + offset % s]
    wanted = wanted.view(images, channels * s**2, height // s, width // s)
    assert torch.equal(reorg(x, s), wanted)
    if s == 2:
        assert not torch.equal(reorg(x, s), nn.functional.pixel_unshuffle(x, s))


def test_reverse_reorg_writes_what_reorg_reads() -> None:
    """`reverse=1` puts element [k, j, i] where the other direction takes it from."""
    x = torch.randn(1, 8, 4, 6, generator=torch.Generator().manual_seed(0))
    back = reorg_back(x, 2)
    assert back.shape == (1, 2, 8, 12)
    for k, j, i in ((0, 0, 0), (3, 1, 2), (7, 3, 5)):
        offset = k // 2
        assert back[0, k % 2, 2 * j + offset // 2, 2 * i + offset % 2] == x[0, k, j, i]


@pytest.mark.parametrize("side", [6, 7])
@pytest.mark.parametrize(
    ("size", "stride", "padding"),
    [(2, 2, 1), (2, 1, 1), (3, 2, 2), (3, 3, 2), (2, 2, 0), (5, 1, 4)],
)
def test_pools_pad_less_before_and_nothing_padded_wins(
    side: int, size: int, stride: int, padding: int
) -> None:
    x = -1 - torch.rand(1, 1, side, side, generator=torch.Generator().manual_seed(1))
    found = Pool(size, stride, padding)(x)
    out = (side + padding - size) // stride + 1
    assert found.shape == (1, 1, out, out)
    for j in range(out):
        for i in range(out):
            rows, columns = (
                range(
                    max(n * stride - padding // 2, 0), min(n * stride - padding // 2 + size, side)
                )
                for n in (j, i)
            )
            assert found[0, 0, j, i] == max(x[0, 0, r, c] for r in rows for c in columns)


@pytest.mark.parametrize(("stride", "pad"), [(1, 1), (2, 1), (1, 0)])
def test_local_layers_have_filters_of_their_own(stride: int, pad: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 7)
    out = [(n + 2 * pad - 3) // stride + 1 for n in (5, 7)]
    layer = Local(3, 4, 3, stride, pad, out[0] * out[1], "linear")
    nn.init.normal_(layer.bias)
    found = layer(x)
    padded = nn.functional.pad(x, (pad,) * 4)
    for place in range(out[0] * out[1]):
        j, i = place // out[1] * stride, place % out[1] * stride
        part = padded[:, :, j : j + 3, i : i + 3].flatten(1)
        wanted = part @ layer.weight[place].t() + layer.bias[:, place]
        torch.testing.assert_close(found[:, :, place // out[1], place % out[1]], wanted)


def test_batch_norm_divides_by_the_unbiased_deviation() -> None:
    torch.manual_seed(0)
    norm, x = UnbiasedBatchNorm2d(3), torch.randn(2, 3, 2, 2) + 5
    found = norm.train()(x)
    values = x.transpose(0, 1).flatten(1)
    mean, var = values.mean(1), values.var(1)
    shown = (x - mean[:, None, None]) / (var + 1e-5).sqrt()[:, None, None]
    torch.testing.assert_close(found, shown, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(norm.running_mean, 0.01 * mean)
    torch.testing.assert_close(norm.running_var, 0.99 + 0.01 * var)
    assert int(norm.num_batches_tracked) == 1


def test_the_cpu_build_adds_to_the_deviation() -> None:
    """Alone, and folded into the convolution before it."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), UnbiasedBatchNorm2d(4)).double().eval()
    conv, norm = net
    norm.outside = True
    norm.running_var.copy_(torch.tensor([1e-10, 1e-6, 1e-3, 1.0]))
    norm.running_mean.normal_()
    x = torch.randn(1, 3, 6, 6, dtype=torch.double)
    scale = 1 / (norm.running_var.sqrt() + 1e-6)
    wanted = (conv(x) - norm.running_mean[:, None, None]) * scale[:, None, None]
    torch.testing.assert_close(net(x), wanted)
    assert fold_norms(net, lambda module: module(x)) == 1
    torch.testing.assert_close(net(x), wanted)


@pytest.mark.parametrize("form", list(FORMS))
def test_tables_survive_being_written(form: str) -> None:
    table = FORMS[form]
    assert read_table(write_table(table)) == table
    assert unknown_keys(table) == []


# As counted in the published files, 20 bytes of header or 16 left out.
PUBLISHED = {("v2", 80): (203_934_260 - 16) // 4, ("v2", 20): (202_704_260 - 20) // 4}


def test_as_many_numbers_as_the_published_file() -> None:
    from maskwright.converters.darknet.weights import layers_of

    with torch.device("meta"):
        network = DarknetNetwork(with_classes(FORMS["v2"], 80))
    rows = [shape for _, rows in layers_of(network) for _, shape, _ in rows]
    assert sum(math.prod(shape) for shape in rows) == PUBLISHED["v2", 80]


@pytest.mark.parametrize("form", ["v1", "v1_local", "v1_tiny", "v2", "v2_tiny"])
def test_other_classes_change_the_last_layer_alone(form: str) -> None:
    table = with_classes(FORMS[form], 20)
    head = head_of(table)
    assert head is not None and head["classes"] == 20
    with torch.device("meta"):
        shape = DarknetNetwork(table).output
    assert math.prod(shape[: 3 if head.kind == "detection" else 1]) == outputs_of(head)
    assert form != "v1" or shape == (7 * 7 * 30, 1, 1)
    assert sum(a != b for a, b in zip(table, FORMS[form], strict=True)) == 2


def test_comments_blanks_and_unknown_keys() -> None:
    text = "# one\n ; two\n[network]\nwidth = 32\nheight=3 2\n\n[conv]\nfilters=4\nlazy=1\npad=1"
    net, conv = read_table(text)
    assert (net["width"], net["height"], conv["filters"], conv["size"]) == (32, 32, 4, 1)
    assert unknown_keys((net, conv)) == ["lazy of layer 0 [convolutional]"]


WRONG = {
    "[net]\nwidth=32": "there is no layer",
    "": "there is no layer",
    "width=1": "expected a section",
    NET + "[maxpol]": r"line 4: no layer \[maxpol\] is known; did you mean 'maxpool'",
    "[maxpool]\n": r"\[net\] comes first",
    NET + "[maxpool]\n[net]": r"\[net\] comes first, and once",
    NET + "[convolutional]\nfilters=many": "filters=many of .convolutional.: expected a whole",
    NET + "[convolutional]\nfilters=0": "filters lies between 1 and",
    NET + "[convolutional]\nfilters=9999999999": "filters lies between 1 and",
    NET + "[convolutional]\nsize=3\nhello": "expected a section in square brackets or key=value",
    NET + "[dropout]\nprobability=1.5": "probability lies from 0 up to 1",
    NET + "[convolutional]\nxnor=1": "xnor=1 is not known here",
    NET + "[region]\nnum=2\nanchors=1,2": "anchors are width and height of num=2 anchors",
    NET + "[region]\ncoords=5": "coords=5 is not known here",
    "[net]\nwidth=0\nheight=3\n[maxpool]": "width lies between 1 and",
    "[net]\nwidth=nan\n[maxpool]": "width=nan of .net.: expected a whole number",
}


@pytest.mark.parametrize("text", list(WRONG))
def test_wrong_descriptions_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=WRONG[text]):
        read_table(text)


UNFIT = {
    "[convolutional]\nactivation=swish": r"layer 0 \[convolutional\]: activation is one of linear",
    "[convolutional]\nsize=40": r"layer 0 \[convolutional\]: nothing is left",
    "[maxpool]\n[route]\nlayers=-3": r"layer 1 \[route\]: reads layers before it; got -3",
    "[maxpool]\nstride=2\n[maxpool]\nstride=2\n[route]\nlayers=-1,-2": "of different sizes",
    "[reorg]\nstride=2": r"stride=2 does not divide 3 channels of 32 x 32",
    "[local]\nsize=5\npad=1": "gives maps of no one size",
    "[maxpool]\nstride=2\n[shortcut]\nfrom=-1": "adds maps|reads layers",
    "[convolutional]\nfilters=4\ngroups=2": "groups=2 divides neither 3 nor 4",
    "[region]\n[maxpool]": r"layer 0 \[region\] can only be the last one",
}


@pytest.mark.parametrize("text", list(UNFIT))
def test_layers_that_do_not_fit_are_named(text: str) -> None:
    table = read_table(NET + text)
    if text.startswith("[maxpool]\nstride=2\n[shortcut]"):
        assert DarknetNetwork(table).output == (3, 16, 16)  # adds its own input
        return
    with pytest.raises(ValueError, match=UNFIT[text]):
        DarknetNetwork(table)


def test_layers_of_all_kinds_run() -> None:
    torch.manual_seed(0)
    text = (
        NET
        + """
[convolutional]
filters=8
size=3
pad=1
groups=1
activation=relu
[batchnorm]
[shortcut]
from=-2
activation=leaky
[upsample]
stride=2
[reorg]
stride=2
[convolutional]
filters=6
activation=loggy
[route]
layers=-1,-2
[dropout]
[avgpool]
[connected]
output=10
batch_normalize=1
activation=tanh
[softmax]
groups=2
"""
    )
    network = DarknetNetwork(read_table(text)).train()
    x = torch.randn(2, 3, 32, 32)
    made = list(network.each(x))
    assert [tuple(one.shape[1:]) for one in made] == network.shapes
    torch.testing.assert_close(made[-1].flatten(1).unflatten(1, (2, 5)).sum(-1), torch.ones(2, 2))
    made[-1].square().sum().backward()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)
