from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from maskwright.tasks.detection.recipe import DetectionRecipe
from maskwright.training.ema import Ema
from maskwright.training.optim import (
    build_optimizer,
    load_optimizer_tensors,
    lr_factor,
    optimizer_tensors,
    set_lr,
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Conv2d(4, 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(x))


HALF = {"backbone.0.weight": 0.5, "backbone.1.weight": 0.5, "backbone.1.bias": 0.5}


def recipe(**options: object) -> DetectionRecipe:
    return DetectionRecipe(data="x", **options)  # type: ignore[arg-type]


def test_groups_cover_each_trainable_parameter_once() -> None:
    net = Net()
    net.backbone[0].bias.requires_grad_(False)
    optimizer = build_optimizer(recipe(weight_decay=0.1), net, 0.2, HALF)
    seen = {
        id(p): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    expected = {
        "backbone.0.weight": (0.1, 0.1),
        "backbone.1.weight": (0.1, 0.0),
        "backbone.1.bias": (0.1, 0.0),
        "head.weight": (0.2, 0.1),
        "head.bias": (0.2, 0.0),
    }
    assert {name: seen.get(id(p)) for name, p in net.named_parameters() if p.requires_grad} == (
        expected
    )
    assert len(seen) == len(expected)
    net.requires_grad_(False)
    with pytest.raises(ValueError, match="freeze=2 leaves nothing to train"):
        build_optimizer(recipe(), net, 0.2, {})


def test_cosine_with_warm_up_against_its_formula() -> None:
    options = recipe(warmup=4)
    values = [lr_factor(options, step, 12) for step in range(12)]
    assert values[:4] == [0.25, 0.5, 0.75, 1.0]
    assert values[4:] == [pytest.approx((1 + math.cos(math.pi * k / 8)) / 2) for k in range(8)]
    assert lr_factor(options, 12, 12) == pytest.approx(0)


def test_multistep_and_constant() -> None:
    steps = recipe(schedule="multistep", warmup=0, milestones=(0.5, 0.75))
    assert [lr_factor(steps, s, 8) for s in range(8)] == pytest.approx(
        [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]
    )
    assert lr_factor(recipe(schedule="constant", warmup=0), 7, 8) == 1


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_state_by_name_continues_to_the_bit(name: str) -> None:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))

    def step(net: Net, optimizer: torch.optim.Optimizer, k: int) -> None:
        set_lr(optimizer, 1 / (k + 1))
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()

    torch.manual_seed(0)
    whole = Net().to(memory_format=torch.channels_last)
    options = recipe(optimizer=name)
    optimizer = build_optimizer(options, whole, 0.05, HALF)
    for k in range(3):
        step(whole, optimizer, k)
    # As a checkpoint keeps them: contiguous, by name.
    tensors = {
        key: value.clone(memory_format=torch.contiguous_format)
        for key, value in optimizer_tensors(optimizer, whole).items()
    }
    torch.manual_seed(5)
    resumed = Net().to(memory_format=torch.channels_last)
    resumed.load_state_dict(whole.state_dict())
    again = build_optimizer(options, resumed, 0.05, HALF)
    load_optimizer_tensors(again, resumed, tensors)
    for k in range(3, 6):
        step(whole, optimizer, k)
        step(resumed, again, k)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_foreign_optimiser_state_is_an_error() -> None:
    net = Net()
    optimizer = build_optimizer(recipe(), net, 0.1, {})
    with pytest.raises(ValueError, match="no trainable parameter"):
        load_optimizer_tensors(optimizer, net, {"neck.weight.exp_avg": torch.zeros(2)})
    with pytest.raises(ValueError, match="expected"):
        load_optimizer_tensors(optimizer, net, {"head.weight.exp_avg": torch.zeros(2)})


def test_average_follows_the_recurrence() -> None:
    net = Net()
    ema = Ema(net, decay=0.6)
    expected = {k: v.clone().double() for k, v in net.state_dict().items()}
    for t in range(1, 30):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(t)))
            net.backbone[1].num_batches_tracked += 1
        ema.update(net)
        decay = min(0.6, (1 + t) / (10 + t))
        for key, value in net.state_dict().items():
            expected[key] = (
                decay * expected[key] + (1 - decay) * value.double()
                if value.is_floating_point()
                else value.double()
            )
    for key, value in ema.model.state_dict().items():
        torch.testing.assert_close(value.double(), expected[key], rtol=1e-5, atol=1e-5)
    assert not ema.model.training and not any(p.requires_grad for p in ema.model.parameters())


@pytest.mark.parametrize("schedule", ["cosine", "multistep", "constant"])
@pytest.mark.parametrize("warmup", [0, 1, 2])
@pytest.mark.parametrize("total", [0, 1, 2])
def test_the_first_and_the_zeroth_step(schedule: str, warmup: int, total: int) -> None:
    """What was reached before any step counts as the first one: a number above 0, at most 1."""
    recipe = DetectionRecipe(data="x", schedule=schedule, warmup=warmup, epochs=1)
    factors = [lr_factor(recipe, step, total) for step in (-1, 0, 1)]
    assert factors[0] == factors[1] and all(0 <= factor <= 1 for factor in factors)
    if total:
        assert factors[0] > 0 or (schedule == "multistep" and total == 1)
