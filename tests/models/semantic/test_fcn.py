"""FCN against a plain reference, its alignment, and what it starts from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from maskwright.errors import OptionError
from maskwright.hub.loading import start_model
from maskwright.models import Meta, build
from maskwright.models.semantic.fcn import FCN, Bilinear, FCNOptions, upscore
from maskwright.models.transfer import transfer
from maskwright.storage.checkpoint import save_checkpoint

TINY = {"backbone": "vgg11", "width": 16, "imgsz": 64}


def make(stride: int, classes: int = 3, **options: object) -> FCN:
    torch.manual_seed(0)
    network = FCN(classes, FCNOptions(**{**TINY, **options}, stride=stride)).eval()
    for key, value in network.state_dict().items():
        if key.startswith("score"):
            value.normal_(std=0.1)
    return network


@pytest.mark.parametrize(
    ("name", "learned", "count"),
    [
        ("fcn8s_vgg16", True, 134_284_620),
        # What stays bilinear is no parameter: 4 x 4 classes, kernels of 4, 4 and 16 pixels.
        ("fcn8s_vgg16", False, 134_284_620 - 16 * (16 + 16 + 256)),
        ("fcn32s_vgg16", True, 14_714_688 + 102_764_544 + 16_781_312 + 16_388 + 16 * 64 * 64),
    ],
)
def test_number_of_parameters(name: str, learned: bool, count: int) -> None:
    with torch.device("meta"):
        model = build(name, 4, learn_upsampling=learned)
    assert sum(p.numel() for p in model.parameters()) == count


def reference(network: FCN, x: Tensor, stride: int, *, at_once: bool = False) -> Tensor:
    """The published network, layer by layer, with kernels from each class to each."""
    state = network.state_dict()
    classes = len(state["score_fr.bias"])

    def conv(name: str, x: Tensor, padding: int = 0) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding)

    def up(x: Tensor, side: int, stride: int) -> Tensor:
        factor = (side + 1) // 2
        centre = factor - 1 if side % 2 else factor - 0.5
        kernel = torch.zeros(classes, classes, side, side)
        for i in range(side):
            for j in range(side):
                value = (1 - abs(i - centre) / factor) * (1 - abs(j - centre) / factor)
                for c in range(classes):
                    kernel[c, c, i, j] = value
        return F.conv_transpose2d(x, kernel, stride=stride)

    pools, size, padding = [], x.shape[-2:], 100
    for place in (0, None, 3, None, 6, 8, None, 11, 13, None, 16, 18, None):  # of VGG-11
        if place is None:
            x = F.max_pool2d(x, 2, 2, ceil_mode=True)
            pools.append(x)
        else:
            x = conv(f"backbone.body.features.{place}", x, padding).relu()
            padding = 1
    x = conv("fc7", conv("fc6", x).relu()).relu()
    x = conv("score_fr", x)
    if stride == 32:
        return up(x, 64, 32)[..., 19 : 19 + size[0], 19 : 19 + size[1]]
    x = up(x, 4, 2)
    skip = conv("score_pool4", pools[3] * (0.01 if at_once else 1))
    x = x + skip[..., 5 : 5 + x.shape[-2], 5 : 5 + x.shape[-1]]
    if stride == 16:
        return up(x, 32, 16)[..., 27 : 27 + size[0], 27 : 27 + size[1]]
    x = up(x, 4, 2)
    skip = conv("score_pool3", pools[2] * (0.0001 if at_once else 1))
    x = x + skip[..., 9 : 9 + x.shape[-2], 9 : 9 + x.shape[-1]]
    return up(x, 16, 8)[..., 31 : 31 + size[0], 31 : 31 + size[1]]


@pytest.mark.parametrize(
    ("stride", "options"),
    [
        (32, {}),
        (16, {"learn_upsampling": True}),
        (8, {}),
        (8, {"learn_upsampling": True, "at_once": True}),
    ],
)
def test_the_published_network_layer_by_layer(stride: int, options: dict[str, bool]) -> None:
    network = make(stride, **options)
    x = torch.randn(1, 3, 37, 70)
    with torch.no_grad():
        found = network(x)
        expected = reference(network, x, stride, at_once=options.get("at_once", False))
    assert found.shape == (1, 3, 37, 70) and expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("stride", "options"), [(32, {}), (8, {}), (32, {"backbone": "alexnet"})])
def test_what_moves_by_32_pixels_moves_the_scores_by_32(
    stride: int, options: dict[str, object]
) -> None:
    network = make(stride, **options)
    patch = torch.randn(1, 3, 32, 32)
    found = []
    for begin in (32, 64):
        x = torch.zeros(1, 3, 128, 160)
        x[:, :, 32:64, begin : begin + 32] = patch
        with torch.no_grad():
            found.append(network(x))
    # At the border itself scores fade; where 0 is the centre of nothing they do not.
    one, two = found[0][..., 32:96], found[1][..., 64:128]
    assert one.std() > 1e-4
    torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("stride", "options", "side"),
    [(32, {}, 58), (16, {}, 58), (8, {}, 58), (32, {"backbone": "alexnet"}, 59)],
)
def test_a_mirrored_image_has_mirrored_scores(
    stride: int, options: dict[str, object], side: int
) -> None:
    """So the crops are in the middle: at sides where all poolings divide evenly."""
    network = make(stride, **options)
    for value in network.state_dict().values():
        if value.ndim == 4:  # kernels that are their own mirror images
            value.add_(value.flip(-1).clone())
    x = torch.randn(1, 3, side, side)
    with torch.no_grad():
        one, other = network(x), network(x.flip(-1)).flip(-1)
    assert one.std() > 1e-4
    torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5 * float(one.abs().max()))


@pytest.mark.parametrize("side", [1, 2, 31, 32, 33, 65, 100])
@pytest.mark.parametrize("options", [{"stride": 32}, {"stride": 8}, {"backbone": "alexnet"}])
def test_images_of_any_side(side: int, options: dict[str, object]) -> None:
    network = make(**{"stride": 32, **options})  # type: ignore[arg-type]
    with torch.device("meta"):
        x = torch.zeros(1, 3, side, 5)
    assert network.to("meta")(x).shape == (1, 3, side, 5)


@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (16, 8), (32, 16), (64, 32)])
def test_bilinear_kernels_interpolate(kernel: int, stride: int) -> None:
    x = torch.randn(2, 3, 4, 5)
    large = Bilinear(kernel, stride)(x)
    half = stride // 2
    # Beyond the centres of the outer cells nothing is left to interpolate with.
    inner = large[..., half:-half, half:-half][..., half:-half, half:-half]
    expected = F.interpolate(x, scale_factor=stride, mode="bilinear")[..., half:-half, half:-half]
    torch.testing.assert_close(inner, expected)


def test_the_odd_kernel_of_alexnet_interpolates_between_centres() -> None:
    x = torch.randn(1, 2, 3, 4)
    large = Bilinear(63, 32)(x)
    expected = F.interpolate(x, size=(65, 97), mode="bilinear", align_corners=True)
    torch.testing.assert_close(large[..., 31:-31, 31:-31], expected)


def test_learned_upsampling_starts_bilinear() -> None:
    x = torch.randn(2, 3, 4, 5)
    learned = upscore(3, 16, 8, learned=True, bias=True)
    torch.testing.assert_close(learned(x), Bilinear(16, 8)(x))
    assert [p.shape for p in learned.parameters()] == [(3, 3, 16, 16), (3,)]


def test_scores_begin_at_zero() -> None:
    model = build("fcn8s_vgg16", 3, **TINY)
    for layer in ("score_fr", "score_pool4", "score_pool3"):
        assert not any(p.any() for p in model.network.get_submodule(layer).parameters())


def test_each_stage_starts_from_the_one_before(tmp_path: Path) -> None:
    """By equal names, rows of classes by theirs; what is new starts at zero."""
    path = tmp_path / "before.safetensors"
    names = ["sky", "road", "car"]
    before = build("fcn32s_vgg16", 3, **TINY)
    before.network.score_fr.bias.data = torch.tensor([1.0, 2.0, 3.0])
    save_checkpoint(path, Meta("fcn32s_vgg16", TINY, list(names)), before.state_dict())
    for name in ("fcn16s_vgg16", "fcn8s_vgg16"):
        model, options, report = start_model(name, ["car", "sky"], weights=path, options=TINY)
        for key, value in before.state_dict().items():
            if "score" not in key:
                assert torch.equal(model.state_dict()[key], value), key
        assert model.network.score_fr.bias.tolist() == [3.0, 1.0]
        assert not model.network.score_pool4.weight.any()
        assert "2 of 2 classes by name" in report and "network.score_pool" in report
        path = tmp_path / f"{name}.safetensors"
        names = ["car", "sky"]
        model.network.score_fr.bias.data = torch.tensor([3.0, 1.0])
        before = model
        save_checkpoint(path, Meta(name, options, list(names)), model.state_dict())


def test_learned_kernels_follow_the_classes() -> None:
    source = build("fcn32s_vgg16", 3, **TINY, learn_upsampling=True)
    source.network.upscore.weight.data.normal_()
    model = build("fcn32s_vgg16", 3, **TINY, learn_upsampling=True)
    start = model.network.upscore.weight.detach().clone()
    transfer(model, ["c", "new", "a"], source.state_dict(), ["a", "b", "c"])
    found, given = model.network.upscore.weight, source.network.upscore.weight
    pairs = {0: 2, 2: 0}
    for i in range(3):
        for j in range(3):
            known = i in pairs and j in pairs
            expected = given[pairs[i], pairs[j]] if known else start[i, j]
            assert torch.equal(found[i, j], expected)


@pytest.mark.parametrize("name", ["vgg16", "alexnet"])
def test_starts_from_a_classifier_with_its_hidden_layers(name: str, tmp_path: Path) -> None:
    path = tmp_path / "classifier.safetensors"
    torch.manual_seed(0)
    classifier = build(name, 7, width=24).eval()
    meta = Meta(name, {"width": 24}, [f"c{i}" for i in range(7)])
    save_checkpoint(path, meta, classifier.state_dict())
    model, _, report = start_model(
        f"fcn32s_{name}", ["a", "b"], weights=f"imagenet:{path}", options={"width": 24}
    )
    assert report.endswith("2 fully connected layers included")
    network, theirs = model.eval().network, classifier.network
    places = (1, 4) if name == "alexnet" else (0, 3)
    for layer, place in zip((network.fc6, network.fc7), places, strict=True):
        own = theirs.classifier[place]
        assert torch.equal(layer.weight.flatten(1), own.weight)
        assert torch.equal(layer.bias, own.bias)
    # Without the 100 pixels the network sees a classifier's image as the classifier does.
    network.backbone.body.features[0].padding = theirs.features[0].padding
    network.last_pool.ceil_mode = False
    for layer in network.backbone.body.features:
        if isinstance(layer, torch.nn.MaxPool2d):
            layer.ceil_mode = False
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        hidden = network.fc7(network.fc6(network._pools(x)[-1]).relu()).relu().flatten(1)
        expected = theirs.classifier[:-1](theirs.maps(x).flatten(1))
    assert hidden.std() > 1e-4
    torch.testing.assert_close(hidden, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stride": 4}, "stride is 32, 16 or 8"),
        ({"backbone": "alexnet", "stride": 8}, "on alexnet there is FCN-32s alone"),
        ({"at_once": True, "stride": 16}, "at_once is for FCN-8s"),
        ({"backbone": "resnet50"}, "backbone is one of vgg11"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        FCNOptions(**options)  # type: ignore[arg-type]
