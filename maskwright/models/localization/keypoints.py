"""Keypoints of the one object of an image, as a regression of their coordinates.

Toshev and Szegedy 2014 (DeepPose): two numbers a keypoint, relative to the input, which is the
image or the surroundings of the object. The losses are L1, smooth L1, the square, or wing (Feng et
al. 2018), which asks for more where the error is small already; keypoints that are not labelled
have none.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...errors import OptionError, nearest
from ...ops.losses import POINT_LOSSES, point_loss
from ...structures import Images, Instances, Places
from ..names import register_on_backbones
from .base import HIDDEN, Localizer, LocalizerOptions, PlaceTrunk

CROP = 256.0  # side of the picture in whose pixels errors are measured, as wing has it
REGIONS = ("image", "object")


@dataclass(frozen=True)
class KeypointOptions(LocalizerOptions):
    """Options of localizers of keypoints.

    Attributes:
        num_keypoints: keypoints of an object; in a training the data tells.
        loss: l1, smooth_l1, mse, or wing.
        region: what the network sees: image, or object: the box of the annotation with a quarter
            more on its sides, in training and validation. A prediction always takes the image as it
            is: cut it out before.
    """

    num_keypoints: int = 17
    loss: str = "smooth_l1"
    region: str = "image"

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.num_keypoints) is not int or self.num_keypoints < 1:
            raise OptionError(f"num_keypoints must be at least 1, got {self.num_keypoints!r}")
        for name, known in (("loss", POINT_LOSSES), ("region", REGIONS)):
            value = getattr(self, name)
            if value not in known:
                raise OptionError(
                    f"{name} is one of {', '.join(known)}; got {value!r}"
                    f"{nearest(str(value), known)}"
                )


class KeypointHead(nn.Module):
    """Two numbers for each of J keypoints, on the last maps.

    Args:
        channels: K of the maps.
        cells: see `PlaceTrunk`.
        count: J.

    Attributes:
        keypoint_axes: tensors with a row for each keypoint; see `transfer.keypoint_axes`.
    """

    keypoint_axes = dict.fromkeys(("x.weight", "x.bias", "y.weight", "y.bias"), 0)

    def __init__(self, channels: int, cells: int, count: int) -> None:
        super().__init__()
        self.trunk = PlaceTrunk(channels, cells)
        self.x = nn.Linear(HIDDEN, count)
        self.y = nn.Linear(HIDDEN, count)
        for layer in (self.x, self.y):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.constant_(layer.bias, 0.5)

    def forward(self, maps: Tensor) -> Tensor:
        """Return (B, J, 2) x and y relative to the input."""
        hidden = self.trunk(maps)
        return torch.stack([self.x(hidden), self.y(hidden)], -1).float()


class KeypointLocalizer(Localizer):
    """The keypoints of the one object of an image.

    Args:
        num_classes: number of classes of the data; the model does not tell them apart.
        options: see `KeypointOptions`.

    Attributes:
        region: see `KeypointOptions`.
    """

    task = "localize+keypoints"

    def __init__(self, num_classes: int, options: KeypointOptions) -> None:
        super().__init__(num_classes, options)
        self.num_keypoints = options.num_keypoints
        self.kind = options.loss
        self.region = options.region
        channels = self.backbone.channels[-1]
        self.head = KeypointHead(channels, self.cells, options.num_keypoints)

    def forward(self, images: Images) -> Places:
        """Return keypoints; see `Places`."""
        points = self.head(self.maps(images))
        height, width = images.pixels.shape[-2:]
        return Places(keypoints=points * points.new_tensor([width, height]))

    def losses(
        self, images: Images, targets: Instances, *, generator: object = None
    ) -> dict[str, Tensor]:
        """Return `keypoints`, the mean over the images of the mean over their visible keypoints."""
        points = self.head(self.maps(images))
        first = targets.with_a_slot().first_slot()
        assert first.keypoints is not None
        height, width = images.pixels.shape[-2:]
        true = first.keypoints[..., :2] / points.new_tensor([width, height])
        shown = (first.keypoints[..., 2] > 0) & first.valid[:, None]
        each = point_loss(points * CROP, true * CROP, shown, self.kind)  # (B, J)
        mean = each.sum(1) / shown.sum(1).clamp(min=1)
        # In parts of the side, whatever the loss, so that one learning rate serves all.
        scale = CROP**2 if self.kind == "mse" else CROP
        return {"keypoints": mean.sum() / (scale * max(len(images), 1))}


def locate_keypoints(num_classes: int, options: KeypointOptions) -> KeypointLocalizer:
    """Build a localizer of keypoints."""
    return KeypointLocalizer(num_classes, options)


register_on_backbones(
    "locate_keypoints_",
    locate_keypoints,
    options=KeypointOptions,
    task="localize+keypoints",
    paper="Toshev and Szegedy 2014",
    tiny={"imgsz": 64, "num_keypoints": 5},
)
