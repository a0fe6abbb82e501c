"""Residual and dense classifiers in use: stages, sizes, fast networks, and detectors from them."""

from __future__ import annotations

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from maskwright.errors import OptionError
from maskwright.models import build_tiny
from maskwright.structures import Images

FAMILIES = [
    "resnet18",
    "resnet20_cifar",
    "plain20_cifar",
    "preact_resnet18",
    "preact_resnet20_cifar",
    "densenet121",
    "densenet40_12_cifar",
]


def images(count: int, side: int) -> Images:
    size = torch.tensor([[side, side]] * count)
    return Images(torch.rand(count, 3, side, side) * 255, size, size)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_but_the_head_belongs_to_one_stage(name: str) -> None:
    model = build_tiny(name, 3)
    stages = model.network.stages()
    held = [id(p) for stage in stages for module in stage for p in module.parameters()]
    final = {id(p) for p in model.final.parameters()}
    assert len(held) == len(set(held))
    assert set(held) | final == {id(p) for p in model.parameters()}
    assert not set(held) & final


@pytest.mark.parametrize("name", FAMILIES)
def test_frozen_stages_keep_their_statistics(name: str) -> None:
    torch.manual_seed(0)
    model = build_tiny(name, 3)
    model.freeze(2)
    model.train()
    frozen = [m for stage in model.network.stages()[:2] for m in stage]
    inside = {id(m) for module in frozen for m in module.modules()}
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.network.all_logits(model.normalise(images(2, model.crop)))[0][0].sum().backward()
    for key, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            same = torch.equal(module.running_mean, before[f"{key}.running_mean"])
            assert same == (id(module) in inside), key
    trains = {id(p) for p in model.parameters() if p.grad is not None}
    assert not trains & {id(p) for module in frozen for p in module.parameters()}
    with pytest.raises(OptionError, match="freeze must lie in"):
        model.freeze(len(model.network.stages()) + 1)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_smallest_input_is_the_smallest(name: str) -> None:
    model = build_tiny(name, 3).eval()
    least = model.network.smallest
    with torch.no_grad():
        assert model(images(1, least)).shape == (1, 3)
        if least > 1:
            with pytest.raises((RuntimeError, ValueError)):
                model.network(torch.zeros(1, 3, least - 1, least - 1))
            with pytest.raises(ValueError, match=f"at least {least} pixels"):
                model(images(1, least - 1))


@pytest.mark.parametrize("name", FAMILIES)
def test_an_image_does_not_depend_on_its_batch(name: str) -> None:
    torch.manual_seed(0)
    model = build_tiny(name, 3).eval()
    both = images(2, model.crop)
    alone = Images(both.pixels[1:], both.sizes[1:], both.original_sizes[1:])
    with torch.no_grad():
        torch.testing.assert_close(model(both)[1:], model(alone), rtol=1e-4, atol=1e-4)
