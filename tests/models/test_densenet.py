"""DenseNet with recomputation: the same numbers, statistics that move once, and less kept."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from maskwright.errors import OptionError
from maskwright.models import build

# name, side of the images, megabytes kept without and with recomputation, as the module says
MEASURED = [
    ("densenet40_12_cifar", 32, 38, 8),
    ("densenet_bc_100_12_cifar", 32, 70, 25),
    ("densenet121", 64, 22, 10),
]


class Convolutions(TorchDispatchMode):
    """Counts the convolutions that run, by the side of their kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution.default:
            self.ran.append(args[1].shape[-1])
        return func(*args, **(kwargs or {}))


def step(model: nn.Module, x: Tensor) -> tuple[float, list[Tensor]]:
    """Return the megabytes that autograd keeps of a step beside the weights, and the gradients."""
    kept: dict[int, Tensor] = {}

    def pack(value: Tensor) -> Tensor:
        kept[value.untyped_storage().data_ptr()] = value
        return value

    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        loss = model(x).square().sum()
    size = sum(v.untyped_storage().nbytes() for at, v in kept.items() if at not in weights) / 1e6
    kept.clear()
    with Convolutions() as seen:
        loss.backward()
    assert seen.ran == [], "a convolution ran again"
    return size, [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize(("name", "side", "plain", "less"), MEASURED)
def test_recomputation_changes_nothing_but_what_is_kept(
    name: str, side: int, plain: int, less: int
) -> None:
    found = []
    torch.manual_seed(1)
    x = torch.randn(2, 3, side, side)
    for recompute in (False, True):
        torch.manual_seed(0)
        model = build(name, 10, recompute=recompute).network
        size, gradients = step(model, x)
        found.append((size, gradients, dict(model.named_buffers())))
    (before, expected, statistics), (after, gradients, buffers) = found
    assert (round(before), round(after)) == (plain, less)
    assert len(expected) == len(gradients) == len(list(model.parameters()))
    assert all(map(torch.equal, gradients, expected))
    assert all(torch.equal(buffers[key], value) for key, value in statistics.items())
    assert int(buffers["features.denseblock1.denselayer1.norm1.num_batches_tracked"]) == 1


def test_recomputation_of_a_frozen_network_keeps_its_statistics() -> None:
    model = build("densenet40_12_cifar", 4, depth=10, recompute=True)
    model.freeze(2)
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.network(torch.randn(2, 3, 32, 32)).sum().backward()
    for key, value in model.state_dict().items():
        if "running" in key:
            frozen = "denseblock1" in key
            assert torch.equal(value, before[key]) == frozen, key
    assert not any(p.grad is not None for p in model.network.features.denseblock1.parameters())


def test_dropout_stands_behind_each_convolution_but_the_first() -> None:
    torch.manual_seed(0)
    model = build("densenet_bc_100_12_cifar", 4, depth=10, dropout=0.5).network
    seen = []
    model.features.denseblock1.denselayer1.norm2.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0])
    )
    x = torch.randn(4, 3, 32, 32)
    model.train()(x)
    model.eval()(x)
    shares = [float((value == 0).float().mean()) for value in seen]
    assert shares[0] == pytest.approx(0.5, abs=0.02) and shares[1] == 0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("densenet40_12_cifar", {"depth": 41}, r"depth must be 3 n \+ 4, such as 28: 41"),
        ("densenet121", {"growth": 0}, "growth must lie in"),
        ("densenet121", {"dropout": 1}, r"dropout must lie in \[0, 1\)"),
        ("densenet121", {"layers": (6, 0)}, "one count above 0 for each block"),
    ],
)
def test_options_are_checked(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        build(name, 2, **options)
