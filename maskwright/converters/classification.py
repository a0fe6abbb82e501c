"""torchvision's and timm's classification networks: one row of a table for each family."""

from __future__ import annotations

from .layout import Layout, Table

_PLAIN = Layout()
# A classifier on the network of the detectors, which is called `body` in ours.
_BODY = Layout(names=((r"^body\.", ""),))
_VGG_OF_TIMM = Layout(
    names=(
        (r"^classifier\.0\.", "pre_logits.fc1."),
        (r"^classifier\.3\.", "pre_logits.fc2."),
        (r"^classifier\.6\.", "head.fc."),
    ),
    shapes={"pre_logits.fc1.weight": (512, 7, 7), "pre_logits.fc2.weight": (-1, 1, 1)},
)
_PRE_ACTIVATION_OF_TIMM = Layout(
    names=(
        *((rf"^layer{n + 1}\.", f"stages.{n}.blocks.") for n in range(4)),
        (r"^fc\.", "head.fc."),
    ),
    shapes={"head.fc.weight": (-1, 1, 1)},
)
# Files of torchvision call the layers of a dense layer by two parts.
_DENSE = Layout(older=((r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2."),))
LAYOUTS: Table = (
    (r"alexnet|googlenet_bn", {"torchvision": _PLAIN}),
    (r"vgg(16|19)(_bn)?", {"torchvision": _PLAIN, "timm": _VGG_OF_TIMM}),
    (r"inception_v3", {"torchvision": _PLAIN, "timm": _PLAIN}),
    (r"inception_v4", {"timm": _PLAIN}),
    (r"resnet(18|34|50|101|152)|resnext\w+", {"torchvision": _BODY, "timm": _BODY}),
    (r"preact_resnet(50|101|152)", {"timm": _PRE_ACTIVATION_OF_TIMM}),
    (r"densenet(121|169|201|161)", {"torchvision": _DENSE, "timm": _DENSE}),
    (r"classify_\w+", {"timm": _BODY}),
)


def imagenet_names() -> list[str]:
    """Return the thousand classes of ImageNet in the order of published networks."""
    from torchvision.models import AlexNet_Weights

    return [str(name) for name in AlexNet_Weights.DEFAULT.meta["categories"]]
