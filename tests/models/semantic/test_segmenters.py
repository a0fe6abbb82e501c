"""What every registered segmenter keeps to, on the tiny instance of its family."""

from __future__ import annotations

import pytest
import torch
from tiny_models import fresh, random_norms
from torch import nn
from torch._dynamo.testing import CompileCounter

from maskwright.errors import OptionError
from maskwright.models import list_models
from maskwright.models.inference import fast_network
from maskwright.models.semantic.base import Segmenter
from maskwright.models.transfer import class_rows, class_squares
from maskwright.structures import IGNORED, Images, LabelMaps

FAMILIES = [n for n, e in list_models().items() if e.tiny is not None and e.task == "semantic"]
CLASSES = 5
# Those that take long, and of each kind of head all but one.
HEAVY = (
    *("fcn8s_vgg16", "segnet", "deconvnet", "crf_rnn", "fcn_resnet50"),
    *("deeplab_largefov", "deeplabv2_resnet101", "deeplabv3_resnet50"),
)


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=pytest.mark.slow if n in HEAVY else []) for n in FAMILIES],
)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(name: str) -> Segmenter:
    built: Segmenter = fresh(name, CLASSES)
    return built.eval()


def make_images(model: Segmenter, sizes: list[tuple[int, int]]) -> Images:
    """Random images, padded to what the model takes."""
    divisor = model.size_divisor
    height, width = (-(-max(side) // divisor) * divisor for side in zip(*sizes, strict=True))
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(len(sizes), 3, height, width, generator=generator) * 255
    return Images(pixels, torch.tensor(sizes), torch.tensor(sizes))


def make_targets(images: Images) -> LabelMaps:
    """Two halves of each image, an ignored row, and ignored padding."""
    maps = torch.full((len(images), *images.pixels.shape[-2:]), IGNORED, dtype=torch.uint8)
    for single, (height, width) in zip(maps, images.sizes.tolist(), strict=True):
        single[:height, : width // 2] = 1
        single[:height, width // 2 : width] = 3
        single[height // 2] = IGNORED
    return LabelMaps(maps)


SIZES = [(60, 90), (64, 96)]


def randomise(model: nn.Module) -> None:
    """Give every norm statistics of its own, and scores that begin at zero some weights."""
    random_norms(model)
    for key in class_rows(model):
        value = model.state_dict().get(key)
        if value is not None and not value.any():
            value.normal_(std=0.1)


def total(losses: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(losses.values())).sum()


def test_logits_for_every_pixel_whatever_the_mode(model: Segmenter) -> None:
    randomise(model)
    images = make_images(model, SIZES)
    for mode in (False, True):
        with torch.no_grad():
            logits = model.train(mode)(images)
        assert logits.shape == (2, CLASSES, *images.pixels.shape[-2:])
        assert logits.dtype == torch.float32 and bool(logits.isfinite().all())
    assert logits.std() > 0


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (37, 33)])
def test_images_of_any_size(model: Segmenter, size: tuple[int, int]) -> None:
    images = make_images(model, [size])
    with torch.no_grad():
        logits = model(images)
    assert logits.shape == (1, CLASSES, *images.pixels.shape[-2:])
    assert bool(logits.isfinite().all())


def test_no_image_no_logits(model: Segmenter) -> None:
    some = make_images(model, SIZES)
    none = Images(some.pixels[:0], some.sizes[:0], some.original_sizes[:0])
    with torch.no_grad():
        assert model(none).shape == (0, CLASSES, *some.pixels.shape[-2:])


def test_losses_reach_every_parameter(model: Segmenter) -> None:
    model.train()
    images = make_images(model, SIZES)
    losses = model.losses(images, make_targets(images))
    assert all(loss.shape == () and bool(loss.isfinite()) for loss in losses.values())
    assert ("auxiliary" in losses) == bool(model.network.auxiliary)
    total(losses).backward()
    unreached = [k for k, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not unreached


def test_ignored_pixels_teach_nothing(model: Segmenter) -> None:
    model.train()
    images = make_images(model, SIZES)
    nothing = LabelMaps(torch.full_like(make_targets(images).maps, IGNORED))
    losses = model.losses(images, nothing)
    assert not any(loss.item() for loss in losses.values())
    total(losses).backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


def test_steps_lower_the_loss(name: str, model: Segmenter) -> None:
    for layer in model.modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            layer.p = 0.0
    model.train()
    images = make_images(model, [(64, 64), (48, 64)])
    targets = make_targets(images)
    # Scores that begin at zero leap, and mean-field steps enlarge what changes.
    lr = {"fcn8s_vgg16": 1e-3, "crf_rnn": 3e-5}.get(name, 1e-2)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
    seen = []
    for _ in range(8):
        loss = total(model.losses(images, targets))
        seen.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert seen[-1] < 0.9 * seen[0]


def test_frozen_stages_keep_weights_and_statistics(model: Segmenter) -> None:
    randomise(model)
    free = {key for key, p in model.named_parameters() if p.requires_grad}
    model.freeze(2)
    model.train()
    frozen = free - {key for key, p in model.named_parameters() if p.requires_grad}
    assert frozen and frozen != free
    assert all(key.startswith("network.backbone.") for key in frozen)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    images = make_images(model, SIZES)
    total(model.losses(images, make_targets(images))).backward()
    for key, layer in model.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            same = torch.equal(layer.running_mean, before[f"{key}.running_mean"])
            assert same == (f"{key}.weight" in frozen or not layer.training), key
    assert all((p.grad is None) == (k in frozen) for k, p in model.named_parameters() if k in free)
    with pytest.raises(OptionError, match="freeze must lie in"):
        model.freeze(100)
    model.freeze(0)
    assert {key for key, p in model.named_parameters() if p.requires_grad} == free


def test_the_fast_network_gives_the_same_logits(name: str, model: Segmenter) -> None:
    randomise(model)
    fast = fast_network(model)
    # Of maxima that are equal, as in padding, rounding chooses the place that DeconvNet remembers.
    images = make_images(model, [(224, 224)] if name == "deconvnet" else SIZES)
    with torch.no_grad():
        expected, found = model(images), fast(images)
    assert float(expected.std((0, 2, 3)).min()) > 1e-4, "something is seen"
    limit = 1e-4 * float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=limit)


def test_all_layers_compute_in_bfloat16(model: Segmenter) -> None:
    images = make_images(model, [(64, 64)])
    short = fast_network(model, dtype=torch.bfloat16)
    with torch.no_grad():
        expected, found = model(images).float(), short(images).float()
    assert bool(found.isfinite().all())
    assert float((found - expected).abs().mean()) <= 0.05 * float(expected.abs().max())


@pytest.mark.slow
@pytest.mark.contract("compiles")
def test_compiles_as_one_graph(name: str, model: Segmenter) -> None:
    if name == "crf_rnn":
        pytest.skip("its lattice depends on the image")
    torch.compiler.reset()  # families share the code that is compiled
    counter = CompileCounter()
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    images = make_images(model, [(64, 64)])
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), model(images))
    assert counter.frame_count == 1


@pytest.mark.slow
def test_one_graph_for_images_of_all_sizes(name: str, model: Segmenter) -> None:
    if name == "deconvnet":
        pytest.skip("its graph is made for images of at least 256 pixels a side")
    if name == "crf_rnn":
        with pytest.raises(OptionError, match="there is no graph of crf_rnn"):
            torch.export.export(model.network, (torch.zeros(1, 3, 64, 64),), strict=False)
        return
    randomise(model)
    divisor = max(model.size_divisor, 8)
    rows, columns = (torch.export.Dim(n, min=1, max=4096 // divisor) for n in ("rows", "columns"))
    dims = ({2: divisor * rows, 3: divisor * columns},)
    given = (torch.zeros(1, 3, 192, 256),)
    graph = torch.export.export(model.network, given, dynamic_shapes=dims, strict=False).module()
    x = torch.randn(1, 3, 3 * divisor, 5 * divisor)
    with torch.no_grad():
        torch.testing.assert_close(graph(x), model.network(x))


def test_the_rows_of_the_classes_are_known(model: Segmenter) -> None:
    known = {*class_rows(model), *class_squares(model)}
    for key, value in model.state_dict().items():
        assert (key in known) == (CLASSES in value.shape[:1]), key
