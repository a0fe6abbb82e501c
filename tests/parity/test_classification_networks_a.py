"""LeNet, AlexNet, VGG, GoogLeNet, Inception beside torchvision and timm, on equal weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from maskwright.converters import networks
from maskwright.models import build, get_entry
from maskwright.models.classification.base import Classifier, Network
from maskwright.nn.norm import ResponseNorm
from maskwright.structures import Images

CLASSES = 7
# our name, library, its name, side of the images
CASES: list[Any] = [
    ("alexnet", "torchvision", "alexnet", 63),
    ("alexnet", "torchvision", "alexnet", 100),  # maps of another size than the published
    ("vgg16", "timm", "vgg16", 224),
    pytest.param("vgg19_bn", "torchvision", "vgg19_bn", 40, marks=pytest.mark.slow),
    ("googlenet_bn", "torchvision", "googlenet", 96),
    ("inception_v3", "torchvision", "inception_v3", 96),
    ("inception_v3", "timm", "inception_v3", 96),
    ("inception_v4", "timm", "inception_v4", 96),
]
EXTRA: dict[str, dict[str, Any]] = {
    "googlenet": {"init_weights": False, "aux_logits": True},
    "inception_v3": {"init_weights": False},
}
PUBLISHED = ["alexnet", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn", "googlenet_bn", "inception_v3"]
THEIR_NAMES = {"googlenet_bn": "googlenet"}
# Whose fully connected layers are large.
SINGLE = ("vgg16", "vgg19_bn")


def theirs(library: str, name: str, dtype: torch.dtype, count: int = CLASSES) -> nn.Module:
    """Return a network of another library with random weights and statistics."""
    torch.manual_seed(0)
    with torch.device("meta"):
        if library == "timm":
            import timm

            model: nn.Module = timm.create_model(name, num_classes=count)
        else:
            import torchvision

            extra = EXTRA.get(name, {})
            model = torchvision.models.get_model(name, weights=None, num_classes=count, **extra)
    model = model.to(dtype).to_empty(device="cpu")
    for key, value in model.state_dict().items():
        if key.endswith("num_batches_tracked"):
            value.fill_(3)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif value.dim() == 1:
            value.normal_(1.0 if key.endswith("weight") else 0.0, 0.1)
        else:
            value.normal_(0.0, (2 / value[0].numel()) ** 0.5)
    return model.eval()


def pair(ours: str, library: str, name: str) -> tuple[nn.Module, Classifier]:
    """Return their network and our classifier on the same tensors."""
    dtype = torch.float32 if ours in SINGLE else torch.float64
    other = theirs(library, name, dtype)
    with torch.device("meta"):
        classifier: Classifier = build(ours, CLASSES)
    converted = networks.to_maskwright(
        other.state_dict(),
        list(classifier.state_dict()),
        model=ours,
        source=library,
        final=f"network.{classifier.network.final}",
    )
    with torch.device("meta"):
        classifier = build(ours, CLASSES, **converted.options)
    classifier.load_state_dict(converted.state, assign=True)
    for key, values in (("mean", classifier.preprocess.mean), ("std", classifier.preprocess.std)):
        classifier.register_buffer(key, torch.tensor(values).view(3, 1, 1), persistent=False)
    return other, classifier.eval()


@pytest.mark.parametrize(("ours", "library", "name", "side"), CASES)
def test_logits_are_equal_and_weights_go_back(
    ours: str, library: str, name: str, side: int
) -> None:
    other, classifier = pair(ours, library, name)
    state = other.state_dict()
    back, _ = networks.from_maskwright(classifier.state_dict(), model=ours, target=library)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], value) for key, value in state.items())
    dtype = next(other.parameters()).dtype
    x = torch.randn(2, 3, side, side + 5 if side < 200 else side, dtype=dtype)
    with torch.no_grad():
        found, expected = classifier.network(x), other(x)
    limit = 1e-10 if dtype == torch.float64 else 1e-5
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=limit * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("ours", "name", "side"),
    [("googlenet_bn", "googlenet", 96), ("inception_v3", "inception_v3", 299)],
)
def test_auxiliary_logits_are_equal(ours: str, name: str, side: int) -> None:
    """In training, with batch statistics and without dropout."""
    other, classifier = pair(ours, "torchvision", name)
    for model in (other.train(), classifier.train()):
        for layer in model.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
    x = torch.randn(2, 3, side, side, dtype=torch.float64)
    with torch.no_grad():
        main, *others = classifier.network.all_logits(x)
        expected = other(x)
    torch.testing.assert_close(main, (expected[0], 1.0), rtol=1e-9, atol=1e-9)
    assert len(others) == len(expected) - 1  # theirs count from the last
    for (found, _), wanted in zip(others, reversed(expected[1:]), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("ours", "name"), [("googlenet_bn", "googlenet"), ("inception_v3", "inception_v3")]
)
def test_photos_are_standardised_as_the_published_files_want(ours: str, name: str) -> None:
    """torchvision's transform and then `transform_input`, which its weights set."""
    other, classifier = pair(ours, "torchvision", name)
    other.transform_input = True
    pixels = torch.rand(1, 3, 96, 96, dtype=torch.float64) * 255
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64).view(3, 1, 1)
    size = torch.tensor([[96, 96]])
    with torch.no_grad():
        expected = other((pixels / 255 - mean) / std)
        found = classifier.network(classifier.normalise(Images(pixels, size, size)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9 * float(expected.abs().max()))


def test_responses_are_normalised_by_the_formula_of_the_paper() -> None:
    """Krizhevsky et al. 2012, section 3.3, map by map."""
    network = build("alexnet_two_towers", 2, width=8).network
    layers = [layer for layer in network.features if isinstance(layer, ResponseNorm)]
    assert len(layers) == 2
    a = torch.randn(1, 9, 2, 3, dtype=torch.float64) * 50
    expected = torch.empty_like(a)
    for i in range(9):
        near = a[:, max(0, i - 2) : min(8, i + 2) + 1].square().sum(1)
        expected[:, i] = a[:, i] / (2 + 1e-4 * near) ** 0.75
    for layer in layers:
        torch.testing.assert_close(layer(a), expected)


def test_responses_of_googlenet_are_normalised_as_in_caffe() -> None:
    layer = build("googlenet", 2).network.normalise
    a = torch.randn(2, 7, 3, 4) * 100
    torch.testing.assert_close(layer(a), nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1)(a))
    half = layer(a.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), layer(a), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_and_figures_are_torchvisions(name: str) -> None:
    import torchvision

    theirs = {
        weights.url: weights
        for weights in torchvision.models.get_model_weights(THEIR_NAMES.get(name, name))
        if "IMAGENET1K_FEATURES" not in weights.name
    }
    ours = get_entry(name).weights["imagenet"]
    weights = theirs.pop(ours.url)
    assert not theirs and ours.sha256 in ours.url
    figures = weights.meta["_metrics"]["ImageNet-1K"]
    assert ours.metrics == {"top1": figures["acc@1"], "top5": figures["acc@5"]}
    with torch.device("meta"):
        how = build(name, 1000, **ours.options).preprocess
    transform = weights.transforms()
    assert [how.crop] == transform.crop_size and [how.short] == transform.resize_size


def test_two_towers_are_two_networks_that_meet_in_the_third_layer() -> None:
    """Groups of a convolution see one half of the maps; the third sees both."""
    features = build("alexnet_two_towers", 2, width=8).network.features
    convs = [layer for layer in features if isinstance(layer, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.groups) for c in convs] == [
        (3, 96, 1), (96, 256, 2), (256, 384, 1), (384, 384, 2), (384, 256, 2),
    ]  # fmt: skip
    means = [c.bias.mean().item() for c in convs]
    assert means == [0, 1, 0, 1, 1]
    assert all(abs(c.weight.std().item() - 0.01) < 1e-3 for c in convs)


PARAMETERS = {
    "alexnet": 61_100_840,
    "alexnet_two_towers": 60_965_224,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "googlenet": 6_998_552,
    "googlenet_bn": 6_624_904,
    "inception_v3": 23_834_568,
    "inception_v4": 42_679_816,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_as_many_as_published(name: str) -> None:
    with torch.device("meta"):
        classifier = build(name, 1000)
    heads = {name.split(".")[0] for name in classifier.network.auxiliary}
    count = sum(p.numel() for n, p in classifier.named_parameters() if n.split(".")[1] not in heads)
    assert count == PARAMETERS[name]
    if heads:
        with torch.device("meta"):
            alone = build(name, 1000, auxiliary=0)
        assert sum(p.numel() for p in alone.parameters()) == PARAMETERS[name]


SMALLEST = [
    *("alexnet", "alexnet_two_towers", "vgg16", "vgg19_bn"),
    *("googlenet", "googlenet_bn", "inception_v3", "inception_v4"),
]


@pytest.mark.parametrize("name", SMALLEST)
def test_the_smallest_input_is_the_smallest_that_works(name: str) -> None:
    with torch.device("meta"):
        network: Network = build(name, 3, imgsz=224).network.eval()
        side = network.smallest
        assert network(torch.empty(1, 3, side, side)).shape == (1, 3)
        with pytest.raises(RuntimeError):
            network(torch.empty(1, 3, side - 1, side - 1))
