"""What every registered classifier keeps to, on the tiny instance of its family."""

from __future__ import annotations

import pytest
import torch
from tiny_models import fresh
from torch import nn
from torch._dynamo.testing import CompileCounter

from maskwright.errors import OptionError
from maskwright.models import build, get_entry, list_models
from maskwright.models.classification.base import Classifier
from maskwright.models.inference import fast_network
from maskwright.models.transfer import class_rows
from maskwright.nn.random import ImageNoise
from maskwright.structures import Images, Labels

FAMILIES = [n for n, e in list_models().items() if e.tiny is not None and e.task == "classify"]

# Made of the same blocks as others, and slow.
LONG = ("inception_v4", "vgg16_bn")


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=pytest.mark.slow if n in LONG else []) for n in FAMILIES],
)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(name: str) -> Classifier:
    built: Classifier = fresh(name, 3)
    return built.eval()


def make_images(count: int, side: int) -> Images:
    pixels = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1)) * 255
    size = torch.full((count, 2), side)
    return Images(pixels, size, size)


def make_targets(count: int) -> Labels:
    return Labels(torch.eye(3)[torch.arange(count) % 3])


def randomise(model: nn.Module) -> None:
    """Give every norm statistics of its own."""
    for key, value in model.state_dict().items():
        if "running" in key:
            value.uniform_(0.5, 1.5)


def test_one_tensor_of_logits_whatever_the_mode(model: Classifier) -> None:
    images = make_images(2, model.crop)
    for mode in (False, True):
        with torch.no_grad():
            logits = model.train(mode)(images)
        assert logits.shape == (2, 3) and logits.dtype == torch.float32
        assert bool(logits.isfinite().all())
    torch.testing.assert_close(model.probabilities(logits).sum(1), torch.ones(2))


def test_larger_images_than_the_published_ones(model: Classifier) -> None:
    with torch.no_grad():
        assert model(make_images(1, model.crop + 37)).shape == (1, 3)


def test_no_image_no_logits(model: Classifier) -> None:
    with torch.no_grad():
        assert model(make_images(0, model.crop)).shape == (0, 3)


def test_losses_reach_every_parameter(model: Classifier) -> None:
    model.train()
    losses = model.losses(make_images(3, model.crop), make_targets(3))
    assert all(loss.shape == () and bool(loss.isfinite()) for loss in losses.values())
    assert ("auxiliary" in losses) == bool(model.network.auxiliary)
    torch.stack(list(losses.values())).sum().backward()
    unreached = [key for key, p in model.named_parameters() if p.grad is None]
    assert not unreached


def test_what_is_drawn_hangs_on_the_images(model: Classifier) -> None:
    """The same keys, the same losses, whatever else torch's own generator gave."""
    model.train()
    images, targets = make_images(3, model.crop), make_targets(3)
    found = []
    for _ in range(2):
        noise = ImageNoise(torch.tensor([3, 5, 8]))
        found.append(model.losses(images, targets, generator=noise))
        torch.rand(3)
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


def test_the_size_it_states_is_the_least(name: str, model: Classifier) -> None:
    least = model.network.smallest
    with torch.no_grad():
        assert model(make_images(1, least)).shape == (1, 3)
    if least == 1:
        return
    with pytest.raises(OptionError, match=f"at least {least} pixels"):
        model(make_images(1, least - 1))
    with pytest.raises(OptionError, match=f"at least {least} for this network"):
        build(name, 3, **{**(get_entry(name).tiny or {}), "imgsz": least - 1})


def test_frozen_stages_keep_weights_and_statistics(model: Classifier) -> None:
    randomise(model)
    stages = model.network.stages()
    model.freeze(len(stages))
    model.train()
    frozen = [module for stage in stages for module in stage]
    inside = {id(part) for module in frozen for part in module.modules()}
    parameters = {id(p) for module in frozen for p in module.parameters()}
    before = {key: value.clone() for key, value in model.state_dict().items()}
    losses = model.losses(make_images(3, model.crop), make_targets(3))
    torch.stack(list(losses.values())).sum().backward()
    for key, layer in model.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            same = torch.equal(layer.running_mean, before[f"{key}.running_mean"])
            assert same == (id(layer) in inside), key
    for key, p in model.named_parameters():
        assert (p.grad is None) == (id(p) in parameters), key
    with pytest.raises(OptionError, match="freeze must lie in"):
        model.freeze(len(stages) + 1)


def test_the_fast_network_gives_the_same_logits(model: Classifier) -> None:
    randomise(model)
    fast = fast_network(model)
    images = make_images(2, model.crop)
    with torch.no_grad():
        expected, found = model(images), fast(images)
    limit = 1e-4 * float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=limit)


def test_bfloat16_rounds_and_no_more(model: Classifier) -> None:
    images = make_images(2, model.crop)
    short = fast_network(model, dtype=torch.bfloat16)
    with torch.no_grad():
        expected, found = model(images), short(images)
    limit = 0.05 * float(expected.abs().max())
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=limit)
    assert model.probabilities(found).dtype == torch.float32


@pytest.mark.contract("compiles")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name.startswith("densenet") else [pytest.mark.slow])
        for name in FAMILIES
        if name != "inception_v4"
    ],
    indirect=True,
)
def test_compiles_as_one_graph(model: Classifier) -> None:
    torch.compiler.reset()  # families share the code that is compiled
    counter = CompileCounter()
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    images = make_images(2, model.crop)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), model(images))
    assert counter.frame_count == 1


def test_the_rows_of_the_classes_are_known(model: Classifier) -> None:
    rows = class_rows(model)
    for key, value in model.state_dict().items():
        assert (key in rows) == (3 in value.shape[:1]), key
