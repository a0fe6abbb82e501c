"""Stochastic depth: which branches run, what the expectation is, and who draws."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torchvision.ops import stochastic_depth

from maskwright.errors import OptionError
from maskwright.models import build, list_models
from maskwright.nn.random import ImageNoise
from maskwright.nn.stochastic_depth import StochasticDepth, fold
from maskwright.structures import Images, Labels

RESIDUAL = [
    name
    for name, entry in list_models().items()
    if "drop_path" in entry.arguments() and not name.startswith("plain")
]
# The smallest of each family, every order of the unit and both kinds of shortcut.
SMALL: list[tuple[str, dict[str, object]]] = [
    ("resnet18", {}),
    ("resnet20_cifar", {"depth": 8}),
    *(("preact_resnet20_cifar", {"depth": 8, "order": order}) for order in "abcde"),
    ("preact_resnet20_cifar", {"depth": 14, "order": "e"}),
    ("preact_resnet164_cifar", {"depth": 11}),
]


def small(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    model = build(name, 3, **options).network
    for key, value in model.state_dict().items():
        if key.endswith("running_mean"):
            value.normal_(std=0.1)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    return model


def test_every_residual_network_has_it() -> None:
    kinds = {"resnet", "resnext", "preact"}
    assert {kind for kind in kinds if any(name.startswith(kind) for name in RESIDUAL)} == kinds
    for name in RESIDUAL:
        with torch.device("meta"):
            network = build(name, 2, drop_path=0.5).network
        kept = network.depth.kept
        assert len(kept) == len(network.last_layers())
        assert kept[-1] == 0.5 and kept[0] == 1 - 0.5 / len(kept)
        steps = [a - b for a, b in itertools.pairwise(kept)]
        assert steps == pytest.approx([steps[0]] * len(steps)), "linear"


@pytest.mark.parametrize(("name", "options"), SMALL)
def test_a_branch_that_is_left_out_does_not_run(name: str, options: dict[str, object]) -> None:
    """Of one block: no convolution, no statistics moved; its parameters get a gradient of zeros."""
    model = small(name, **options, drop_path=0.5)
    count = len(model.depth.kept)
    last = model.last_layers()[-1].rpartition(".")[0]
    ran: list[nn.Module] = []
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda layer, *_: ran.append(layer))
    x = torch.randn(2, 3, 32, 32)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.head(model.run(x, [1.0] * (count - 1) + [0.0])).sum().backward()
    block = model.get_submodule(last)
    branch = [block.get_submodule(n) for n, _ in block.named_children() if n.startswith("conv")]
    assert branch and not set(branch) & set(ran)
    others = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m not in branch]
    assert set(others) - set(ran) == set()
    order = options.get("order", "e" if name.startswith("preact") else "")
    changes = order == "e" and options["depth"] != 14
    # What comes behind the sum, or what the shortcut takes, is no part of the branch.
    outside = "norm2" if order == "b" else "norm1" if changes else "?"
    outside = f"{last}.{outside}"
    for key, value in model.state_dict().items():
        inner = key.startswith(last) and "downsample" not in key and not key.startswith(outside)
        if "running" in key:
            assert torch.equal(value, before[key]) == inner, key
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None
        inner = key.startswith(last) and "downsample" not in key and not key.startswith(outside)
        if inner:
            assert not parameter.grad.any(), key


@pytest.mark.parametrize(("name", "options"), SMALL)
def test_at_test_the_branch_counts_as_often_as_it_ran(
    name: str, options: dict[str, object]
) -> None:
    """Against the block's own sum: short + p f(x), with f(x) taken from the network without it."""
    model = small(name, **options, drop_path=0.5).eval()
    plain = small(name, **options).eval()
    plain.load_state_dict(model.state_dict())
    last = model.last_layers()[-1].rpartition(".")[0]
    block, whole = model.get_submodule(last), plain.get_submodule(last)
    channels = next(c.in_channels for c in block.modules() if isinstance(c, nn.Conv2d))
    x = torch.randn(2, channels, 8, 8).relu()
    with torch.no_grad():
        order = options.get("order")
        if order in ("a", "b") or not name.startswith("preact"):
            # A ReLU stands behind the sum: look where nothing is cut off.
            bare, full = block(x, 0.0), whole(x)
            half = block(x, 0.5)
            seen = (full > 0) & (bare > 0)
            assert seen.float().mean() > 0.2
            torch.testing.assert_close(half[seen], (bare + 0.5 * (full - bare))[seen])
        else:
            bare, full, half = block(x, 0.0), whole(x), block(x, 0.5)
            torch.testing.assert_close(half, bare + 0.5 * (full - bare))
        images = torch.randn(2, 3, 32, 32)
        torch.testing.assert_close(
            model(images), plain.head(plain.run(images, model.depth.kept)), rtol=0, atol=0
        )
        assert (model(images) - plain(images)).abs().max() > 1e-3


@pytest.mark.parametrize(("name", "options"), SMALL)
def test_folded_weights_give_the_same_without_it(name: str, options: dict[str, object]) -> None:
    model = small(name, **options, drop_path=0.5).eval()
    plain = small(name, **options).eval()
    plain.load_state_dict(fold(model.state_dict(), model.last_layers(), 0.5))
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(plain(x), model(x), rtol=1e-4, atol=1e-4)


def test_expectation_over_all_draws_of_a_mini_batch() -> None:
    """Each draw by its probability: of a linear branch, exactly what test multiplies by."""
    depth = StochasticDepth(3, 0.6)
    assert depth.kept == pytest.approx([0.8, 0.6, 0.4])
    expected = torch.zeros(3)
    for draw in itertools.product([0.0, 1.0], repeat=3):
        chance = 1.0
        for run, kept in zip(draw, depth.kept, strict=True):
            chance *= kept if run else 1 - kept
        expected += chance * torch.tensor(draw)
    at_test = torch.tensor(depth.shares(torch.zeros(1), training=False))
    torch.testing.assert_close(expected, at_test)
    generator = torch.Generator().manual_seed(0)
    seen = [depth.shares(torch.zeros(4), True, generator) for _ in range(4000)]
    assert all(share in (0.0, 1.0) for draw in seen for share in draw), "not scaled in training"
    torch.testing.assert_close(torch.tensor(seen).mean(0), at_test, rtol=0, atol=0.03)


def test_rows_are_those_of_torchvision() -> None:
    """For the same random numbers: kept rows divided by p, the others 0, and nothing at test."""
    depth = StochasticDepth(2, 0.5, "row")
    x = torch.randn(64, 5, 2, 2)
    shares = depth.shares(x, True, torch.Generator().manual_seed(0))
    for kept, share in zip(depth.kept, shares, strict=True):
        assert share.shape == (64, 1, 1, 1)
        assert share.unique().tolist() == pytest.approx([0.0, 1 / kept])
        scaled = x * share
        whole = share.flatten() > 0
        # torchvision with p = 1 keeps all rows: the scaling of the kept ones is what is compared.
        torch.manual_seed(0)
        theirs = stochastic_depth(x, 1 - kept, "row")
        theirs_kept = theirs.flatten(1).any(1)
        assert 0 < whole.sum() < 64 and 0 < theirs_kept.sum() < 64
        both = whole & theirs_kept
        torch.testing.assert_close(scaled[both], theirs[both])
        assert not scaled[~whole].any()
    assert depth.shares(x, False) == ()


def test_expectation_of_rows_is_the_whole_branch() -> None:
    depth = StochasticDepth(4, 0.8, "row")
    shares = depth.shares(torch.zeros(20000, 1), True, torch.Generator().manual_seed(0))
    for kept, share in zip(depth.kept, shares, strict=True):
        bound = 5 * ((1 - kept) / kept / 20000) ** 0.5
        assert abs(float(share.mean()) - 1) < bound


def test_draws_hang_on_the_keys_of_the_images() -> None:
    """Those of a mini-batch on all of them in any order; those of an image on its own alone."""
    keys = torch.tensor([5, 2**40 + 1, 77])
    noise, turned = ImageNoise(keys), ImageNoise(keys[[2, 0, 1]])
    batch = StochasticDepth(50, 0.5)
    x = torch.zeros(3, 1)
    first = batch.shares(x, True, noise)
    assert first == batch.shares(x, True, noise) == batch.shares(x, True, turned)
    assert first != batch.shares(x, True, ImageNoise(keys + 1))
    row = StochasticDepth(50, 0.5, "row")
    rows, others = (torch.stack(list(row.shares(x, True, n))) for n in (noise, turned))
    assert torch.equal(rows[:, [2, 0, 1]], others)
    alone = torch.stack(list(row.shares(x[:1], True, ImageNoise(keys[:1]))))
    assert torch.equal(alone[:, 0], rows[:, 0])
    drawn = torch.tensor([batch.shares(x, True, ImageNoise(keys + i)) for i in range(400)])
    torch.testing.assert_close(drawn.mean(0), torch.tensor(batch.kept), rtol=0, atol=0.13)


@pytest.mark.parametrize("mode", ["batch", "row"])
def test_losses_repeat_with_the_same_keys(mode: str) -> None:
    torch.manual_seed(0)
    model = build("resnet20_cifar", 3, drop_path=0.5, drop_path_mode=mode)
    size = torch.tensor([[32, 32]] * 4)
    images = Images(torch.rand(4, 3, 32, 32) * 255, size, size)
    targets = Labels(torch.eye(3)[[0, 1, 2, 0]])
    keys = torch.arange(4)
    found = [
        float(model.losses(images, targets, generator=ImageNoise(keys + shift))["class"].detach())
        for shift in (0, 0, 1)
    ]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("name", ["resnet20_cifar", "preact_resnet20_cifar"])
def test_options_are_checked(name: str) -> None:
    for wrong in (1.0, -0.1, "half"):
        with pytest.raises(OptionError, match=r"drop_path must lie in \[0, 1\)"):
            build(name, 2, drop_path=wrong)
    with pytest.raises(OptionError, match="drop_path_mode is one of batch, row"):
        build(name, 2, drop_path=0.1, drop_path_mode="image")
    with pytest.raises(OptionError, match=r"depth must be 6 n \+ 2, such as 20"):
        build(name, 2, depth=21)


def train_share(rank: int, folder: str) -> None:
    """Train on one image of each mini-batch in one of two processes; write what was drawn."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = build("resnet20_cifar", 3, drop_path=0.9)
    model.forward = lambda x, keys: model.network.all_logits(x, ImageNoise(keys))[0][0]
    step = nn.parallel.DistributedDataParallel(model)
    drawn = []
    for number in range(3):
        keys = torch.tensor([2 * number + rank])
        drawn.append(model.network.depth.shares(torch.zeros(1), True, ImageNoise(keys)))
        step(torch.randn(2, 3, 32, 32), keys).square().mean().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
    Path(folder, f"{rank}.json").write_text(json.dumps(drawn))
    dist.destroy_process_group()


@pytest.mark.slow
def test_processes_draw_together(tmp_path: Path) -> None:
    """As one process does for the whole mini-batch; every parameter has its gradient in each."""
    torch.multiprocessing.spawn(train_share, (str(tmp_path),), nprocs=2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    depth = StochasticDepth(9, 0.9)
    pairs = [ImageNoise(torch.tensor([2 * number, 2 * number + 1])) for number in range(3)]
    assert first == second == [depth.shares(torch.zeros(2), True, pair) for pair in pairs]
    assert any(0.0 in draw for draw in first)


def test_a_plain_network_has_no_branches_to_leave_out() -> None:
    with pytest.raises(OptionError, match="needs shortcuts"):
        build("plain20_cifar", 2, drop_path=0.5)
