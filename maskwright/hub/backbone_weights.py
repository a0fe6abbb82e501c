"""ImageNet weights of backbones: from the package, the publisher's file, or a file at hand."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..converters.common import COUNTER, is_known_name
from ..converters.detectron import body_to_torchvision, is_body
from ..models.base import Model
from ..models.registry import PublishedWeights
from ..models.semantic.encoder import Encoder
from ..storage.published import fetch, read_tensors, read_weights

_PACKAGE = Path(__file__).parents[1] / "weights"
# ImageNet weights of backbones inside the package, by the backbone's name.
SHIPPED_BACKBONES = {
    "tf_efficientnet_lite0": "tf_efficientnet_lite0_imagenet.safetensors",
    "mobilenetv2_100": "mobilenetv2_100_imagenet.safetensors",
}
HUB_SECONDS = 5.0  # after which a hub that does not answer counts as out of reach
# ImageNet weights of our own networks, as torchvision publishes them.
_TORCHVISION_BACKBONES = {
    "alexnet": "alexnet-owt-7be5be79",
    "mobilenet_v2": "mobilenet_v2-b0353104",
    "mobilenet_v3_large": "mobilenet_v3_large-8738ca79",
    "resnet18": "resnet18-f37072fd",
    "resnet34": "resnet34-b627a593",
    "resnet50": "resnet50-0676ba61",
    "resnet101": "resnet101-63fe2227",
    "resnet152": "resnet152-394f9c45",
    "resnext50_32x4d": "resnext50_32x4d-7cdf4587",
    "resnext101_32x8d": "resnext101_32x8d-8ba56ff5",
    "resnext101_64x4d": "resnext101_64x4d-173b62eb",
    "vgg11": "vgg11-8a719046",
    "vgg11_bn": "vgg11_bn-6002323d",
    "vgg13": "vgg13-19584684",
    "vgg13_bn": "vgg13_bn-abd245e5",
    "vgg16": "vgg16-397923af",
    "vgg16_bn": "vgg16_bn-6c64b313",
    "vgg19": "vgg19-dcbb9e9d",
    "vgg19_bn": "vgg19_bn-c79401a0",
}
_RESNET = "layer1.0.conv1.weight"  # in torchvision's names, which mmdetection has too
# What the layers of a classifier are called here, in regular expressions and replacements.
_CLASSIFIER_NAMES = (
    (r"^([a-z]\w*)\.(\d+)\.", r"\1_\2."),  # timm's networks of maps
    (r"^classifier\.[01]\.", "pre_logits.fc1."),  # VGG's place, AlexNet's place
    (r"^classifier\.[34]\.", "pre_logits.fc2."),
)


def pretrained_place(name: str) -> str:
    """Return in a few words where the ImageNet weights of a backbone are: here, or with whom."""
    if name in SHIPPED_BACKBONES:
        return "in the package"
    return "fetched from torchvision" if name in _TORCHVISION_BACKBONES else "fetched from timm"


def load_parts(model: Any, state: Mapping[str, Tensor] | None = None, source: str = "") -> str:
    """Give each backbone of a model its ImageNet weights, and return where they come from.

    Args:
        model: see `Model.parts`.
        state: a classifier's state dict for the first backbone, and others of its name.
        source: where that comes from, for people.

    Raises:
        ValueError: see `load_backbone` and `apply_pretrained`.
    """
    sources = [
        load_backbone(part)
        if state is None or part.backbone.name != model.backbone.name
        else apply_pretrained(part, state, source)
        for part in model.parts
    ]
    return ", ".join(dict.fromkeys(sources))


def load_backbone(model: Model) -> str:
    """Give the backbone of a model its ImageNet weights, and return where they come from.

    Shipped ones first, then the publisher's file: torchvision's for our own networks, timm's for
    all other backbones.

    Raises:
        ValueError: if there are none or they cannot be fetched.
    """
    require_backbone(model)
    name = model.backbone.name
    if name in SHIPPED_BACKBONES:
        state = read_tensors(_PACKAGE / SHIPPED_BACKBONES[name])
        source = "ImageNet weights that come with the package"
    elif name in _TORCHVISION_BACKBONES:
        file = _TORCHVISION_BACKBONES[name]
        published = PublishedWeights(
            f"https://download.pytorch.org/models/{file}.pth",
            file.rsplit("-", 1)[1],
            "torchvision",
            "BSD-3-Clause (torchvision); trained on ImageNet",
            "torchvision, ImageNet-1k",
        )
        state = read_tensors(fetch(published))
        source = f"{published.source} ({published.licence})"
    else:
        state = fetch_timm(name, features_only=True)
        source = f"timm's pretrained weights for {name}"
    return apply_pretrained(model, state, source)


def fetch_timm(name: str, **options: Any) -> dict[str, Tensor]:
    """Return the weights that timm publishes for a network.

    Args:
        name: timm's name.
        **options: of `timm.create_model`.

    Raises:
        ValueError: if they cannot be fetched.
    """
    import timm
    from huggingface_hub import constants

    usual: bool = constants.HF_HUB_OFFLINE
    reachable = usual or _hub_answers()
    try:
        # Offline, the client of the hub looks into its cache alone; else it would try each file
        # six times, for most of a minute.
        constants.HF_HUB_OFFLINE = usual or not reachable
        donor = timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # the hub client raises many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        if not reachable:
            reason = f"{constants.ENDPOINT} does not answer, and they are not in its cache here"
        raise ValueError(
            f"timm's weights for {name} could not be fetched ({reason}); go online once, give "
            "a file of yours as weights=imagenet:FILE, choose weights=none, or a backbone "
            f"whose weights come with the package: {', '.join(SHIPPED_BACKBONES)}"
        ) from None
    finally:
        constants.HF_HUB_OFFLINE = usual
    return dict(donor.state_dict())


def _hub_answers() -> bool:
    """Whether the hub that timm fetches from can be reached, by its client's own ways."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except Exception:  # of one library or another, by version
        return False
    return True


def backbone_file(path: Path) -> tuple[dict[str, Tensor], str | None] | None:
    """Return the ImageNet ResNet in a file of a library of detectors, by our names, and its rules.

    Args:
        path: such as "R-50.pkl" of the folders `MSRA` or `torchvision` of detectron2's models, or
            what mmdetection starts from.

    Returns:
        The tensors, and the conventions that they need if the names tell them, which torchvision's
        do not; None if the file holds a detector, or has other names.

    Raises:
        ValueError: if the file cannot be read.
    """
    # A detector has more names of a backbone than of its own: it is looked for first.
    if any(map(is_known_name, read_weights(path).tensors)):
        return None
    file = read_weights(path, lambda key: is_body(key) or key == _RESNET)
    if not any(map(is_body, file.tensors)):
        return (file.tensors, None) if _RESNET in file.tensors else None
    rules = "detectron2_rgb" if file.author == "torchvision" else "detectron2"
    return body_to_torchvision(file.tensors), rules


def require_backbone(model: Model) -> None:
    """Make sure that classifiers can have the weights of a model's backbone.

    Raises:
        ValueError: if it is a network of its own.
    """
    if isinstance(model.backbone, Encoder):
        raise ValueError(
            "no classifier has the encoder of this model, so there are no ImageNet weights for it: "
            "choose weights=none, or the weights of an earlier training of it"
        )


def backbone_names(model: Model) -> Callable[[str], bool]:
    """Return what tells whether a classifier's tensor is one of the backbone, by its name.

    Raises:
        ValueError: if there can be no such tensors.
    """
    require_backbone(model)
    own = set(_network(model).state_dict())

    def known(key: str) -> bool:
        return key in own or any(re.sub(mark, ours, key) in own for mark, ours in _CLASSIFIER_NAMES)

    return known


def _network(model: Model) -> nn.Module:
    """Return the network whose tensors are called as in a classifier."""
    body: Any = model.backbone.body
    network: nn.Module = body.body if hasattr(body, "body") else body
    return network


def apply_pretrained(model: Model, state: Mapping[str, Tensor], source: str) -> str:
    """Give the backbone of a model the weights of a classifier, and return what was given.

    The fully connected layers of a VGG or AlexNet go to the heads on regions, or to the
    convolutions that a segmenter or SSD makes of them, as far as their sizes fit.

    Args:
        model: gets the weights.
        state: the classifier's state dict, or that of its convolutions.
        source: where it comes from, for people.

    Raises:
        ValueError: if it lacks a tensor of the backbone, or has more of one.
    """
    name = model.backbone.name
    target = _network(model)
    # timm's networks of maps call "features_0" what the classifier calls "features.0"; torchvision
    # calls the layers of its head by their places among dropouts and ReLUs.
    for pattern, ours in _CLASSIFIER_NAMES:
        state = {**state, **{re.sub(pattern, ours, key): value for key, value in state.items()}}
    own = target.state_dict()
    fitting = {
        key: value.float() if value.is_floating_point() else value
        for key, value in state.items()
        if key in own and own[key].shape == value.shape
    }
    missing = [key for key in own if key not in fitting and "num_batches_tracked" not in key]
    if missing:
        raise ValueError(
            f"the weights for {name} lack {len(missing)} tensors: {missing[0]}, ...; {source} "
            "holds another network, or a part of one"
        )
    for key in state:  # a deeper ResNet has blocks that would be left out
        block = re.match(r"(layer\d)\.\d+\.", key)
        if block and f"{block[1]}.0.conv1.weight" in own and key not in own and COUNTER not in key:
            raise ValueError(f"{key} of {source} is no tensor of {name}: it holds another network")
    target.load_state_dict(fitting, strict=False)
    layers = [
        (state[f"pre_logits.{layer}.weight"].float(), state[f"pre_logits.{layer}.bias"].float())
        for layer in ("fc1", "fc2")
        if name.startswith(("vgg", "alexnet")) and f"pre_logits.{layer}.weight" in state
    ]
    if layers and layers[0][0].dim() == 2:  # torchvision flattens a map, of 7 x 7 or 6 x 6
        weight, bias = layers[0]
        side = math.isqrt(weight.shape[1] // model.backbone.channels[-1])
        layers[0] = (weight.unflatten(1, (-1, side, side)), bias)
    parts: list[Any] = [part for part in model.modules() if hasattr(part, "load_classifier")]
    if layers and parts:
        taken = min(part.load_classifier(layers) for part in parts)
        source += f", {taken} fully connected layers included"
    return source
