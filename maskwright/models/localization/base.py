"""What every localizer is: a backbone, its last maps, and a place that is computed from them.

The whole image is the input: it is scaled to the side `imgsz` and padded at the right and the
bottom to a square, never cut, because a cut may lose what is looked for. Places are relative to
that square, so that a position of the maps always means the same place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import OptionError
from ...nn.backbones.backbone import Backbone
from ...structures import Images, Instances, Places, Resize
from ..base import Model

REDUCED = 128  # channels of the maps from which places are computed
HIDDEN = 256  # numbers between these maps and the place


@dataclass(frozen=True)
class LocalizerOptions:
    """Options of all localizers.

    Attributes:
        backbone: one of our ResNets or VGGs, alexnet, or a timm name.
        imgsz: long side of an image at the input of the network, in pixels, and the side of the
            square that it is padded to.
        norm: batch norm of the backbone: frozen, affine (statistics are constant) or bn. None:
            frozen for our ResNets, affine for others.
    """

    SMALLEST: ClassVar[int] = 32

    backbone: str = "resnet18"
    imgsz: int = 224
    norm: str | None = None

    def __post_init__(self) -> None:
        if type(self.imgsz) is not int or not self.SMALLEST <= self.imgsz <= 4096:
            raise OptionError(
                f"imgsz is the side of the square input of a localizer, {self.SMALLEST} to 4096 "
                f"pixels; got {self.imgsz!r}"
            )


class Localizer(Model):
    """Base of all localizers.

    Args:
        num_classes: number of classes, background not counted.
        options: see `LocalizerOptions`.

    Attributes:
        task: "localize": a class and a box; "localize+keypoints": keypoints.
        num_keypoints: keypoints of an object, 0 for models of boxes.
        side: that of the square input in pixels.
    """

    backbone: Backbone
    num_keypoints = 0

    def __init__(self, num_classes: int, options: LocalizerOptions) -> None:
        strides = (16,) if options.backbone == "alexnet" else (32,)
        backbone = Backbone(options.backbone, norm=options.norm, strides=strides)
        (m1, m2, m3), (s1, s2, s3) = backbone.mean, backbone.std
        super().__init__(
            num_classes,
            mean=(m1, m2, m3),
            std=(s1, s2, s3),
            resize=Resize(None, options.imgsz, None),
        )
        self.backbone = backbone
        self.side = options.imgsz

    @property
    def cells(self) -> int:
        """Positions along a side of the last maps of an input of the side `side`."""
        return max(round(self.side / self.backbone.strides[-1]), 1)

    def forward(self, images: Images) -> Places:
        """Return what the network says of B images; see `Places`."""
        raise NotImplementedError

    def losses(
        self, images: Images, targets: Instances, *, generator: object = None
    ) -> dict[str, Tensor]:
        """Return the loss terms; see `Model.losses`.

        Args:
            images: B images.
            targets: one slot an image: valid where there is an object, and `crowd` as well where
                nobody knows what there is: that image counts for nothing.
            generator: of no use here: nothing is drawn.
        """
        raise NotImplementedError

    def maps(self, images: Images) -> Tensor:
        """Return the last maps (B, K, h, w) of the backbone."""
        maps: Tensor = self.backbone(self.normalise(images))[-1]
        return maps


class PlaceTrunk(nn.Module):
    """From maps to numbers that know where things are: reduced, brought to one size, connected.

    A mean over the positions would forget the place. Maps of another size than `cells` are
    resampled, so that images of any size serve.

    Args:
        channels: K of the maps.
        cells: positions along each side.
    """

    def __init__(self, channels: int, cells: int) -> None:
        super().__init__()
        self.cells = cells
        self.reduce = nn.Conv2d(channels, REDUCED, 1)
        self.fc = nn.Linear(REDUCED * cells**2, HIDDEN)

    def forward(self, maps: Tensor) -> Tensor:
        """Return (B, HIDDEN) of maps (B, K, h, w)."""
        x = F.relu(self.reduce(maps))
        size = (self.cells, self.cells)
        x = F.interpolate(x, size, mode="bilinear", align_corners=False)
        return F.relu(self.fc(x.flatten(1)))
