"""What every segmenter is: a network that gives every pixel logits, and a loss on maps of labels.

A `PixelNetwork` is the architecture alone; families write one each. `Segmenter` adds what all
share: standardised input, logits at the size of the input, losses with auxiliary heads.
`SegmenterOptions` are the options that all have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import OptionError
from ...nn.random import RandomSource
from ...nn.semantic.losses import PixelLoss, cross_entropy
from ...structures import (
    IGNORED,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Images,
    LabelMaps,
    Resize,
    Triple,
)
from ..base import Model

MOST_CLASSES = IGNORED  # numbers 0 to 254 are left for classes
# Mean and deviation of the three samples of a pixel, 0 to 255, with which weights were trained, and
# whether blue comes first.
STATISTICS: dict[str, tuple[Triple, Triple, bool]] = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD, False),
    "half": ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5), False),  # -1 to 1
    "unit": ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0), False),  # 0 to 1
    "raw": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), False),
    "caffe": ((104.00699, 116.66877, 122.67892), (1.0, 1.0, 1.0), True),
}


@dataclass(frozen=True)
class SegmenterOptions:
    """Options of all segmenters.

    Attributes:
        imgsz: size of a photo at the input of the network: the long side, a pair of short and long
            side, or a factor such as "1.25x".
        statistics: how samples are standardised: imagenet; half, to -1 to 1; unit, to 0 to 1; raw,
            0 to 255; caffe, blue first and the mean subtracted, no more. None: as the ImageNet
            weights of the backbone expect.
    """

    imgsz: int | tuple[int, int] | str = (520, 2048)
    statistics: str | None = None

    def __post_init__(self) -> None:
        Resize.parse(self.imgsz)
        if self.statistics not in (None, *STATISTICS):
            raise OptionError(
                f"statistics is one of {', '.join(STATISTICS)}; got {self.statistics!r}"
            )


class PixelNetwork(nn.Module):
    """A network for pixels: standardised pixels in, logits out, at a stride of its own.

    Attributes:
        backbone: what `freeze(stages)` and ImageNet weights are for.
        divisor: the padded sides of its input are multiples of this.
        final: name of the last layer, whose rows are the classes.
        auxiliary: names of the last layers of the heads that only training has.
        named: its classes are those of the model; False: two of its own, ground and object.
        align_corners: how its logits lie on the input: False: a cell covers its share of the input
            (pixel centres); True: the corner cells lie on the corner pixels.
    """

    backbone: Any
    divisor: int = 1
    final: str
    auxiliary: tuple[str, ...] = ()
    named = True
    align_corners = False

    @property
    def class_rows(self) -> dict[str, tuple[int, bool]]:
        """The layers with a row for each class; see `transfer.class_rows`."""
        return dict.fromkeys((self.final, *self.auxiliary) if self.named else (), (1, False))

    def last_stage(self) -> nn.Module:
        """Return the last layer of the backbone, whose maps are explained."""
        own = getattr(self.backbone, "body", self.backbone)
        stages: list[list[nn.Module]] = own.stages()
        return stages[-1][-1]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, C, h, w) of (B, 3, H, W), where h and w are H and W or less."""
        raise NotImplementedError

    def all_logits(self, x: Tensor) -> list[tuple[Tensor, float]]:
        """Return the logits that train and their weights in the loss: the main ones first.

        Args:
            x: (B, 3, H, W).
        """
        return [(self(x), 1.0)]


class Segmenter(Model):
    """A segmenter: `forward` gives logits for every pixel of the network input.

    Args:
        num_classes: classes, the background, if there is one, among them.
        network: the architecture.
        options: what all segmenters have.
        mean: of the input, 0 to 255, where the options name no statistics; None: that of the
            backbone.
        std: deviation; None: that of the backbone.
        bgr: whether the network wants blue first.

    Attributes:
        criterion: the loss of one map of logits at the size of the maps of labels.

    Raises:
        OptionError: if there are more classes than numbers of a pixel.
    """

    task = "semantic"

    def __init__(
        self,
        num_classes: int,
        network: PixelNetwork,
        options: SegmenterOptions,
        *,
        mean: Triple | None = None,
        std: Triple | None = None,
        bgr: bool = False,
    ) -> None:
        if num_classes > MOST_CLASSES:
            raise OptionError(
                f"a segmenter tells at most {MOST_CLASSES} classes apart, as a pixel of a label "
                f"map has 8 bits and {IGNORED} is ignored; got {num_classes}"
            )
        if options.statistics is not None:
            mean, std, bgr = STATISTICS[options.statistics]
        super().__init__(
            num_classes,
            mean=mean or network.backbone.mean,
            std=std or network.backbone.std,
            bgr=bgr,
            resize=Resize.parse(options.imgsz),
        )
        self.network = network
        self.size_divisor = network.divisor
        self.criterion: PixelLoss = cross_entropy

    @property
    def backbone(self) -> Any:
        """What can be frozen and starts from ImageNet weights."""
        return self.network.backbone

    def coarse(self, images: Images) -> Tensor:
        """Return the logits (B, C, h, w) at the stride of the network: they cover the padded image.

        How a cell lies on it says `network.align_corners`.
        """
        logits: Tensor = self.network(self.normalise(images))
        return logits

    def forward(self, images: Images) -> Tensor:
        """Return the logits (B, C, H, W) of every pixel of the padded images."""
        return self.enlarged(self.coarse(images), images)

    def enlarged(self, logits: Tensor, images: Images) -> Tensor:
        """Return logits at the size of the padded images."""
        size = images.pixels.shape[-2:]
        if logits.shape[-2:] == size:
            return logits
        return F.interpolate(
            logits, size, mode="bilinear", align_corners=self.network.align_corners
        )

    def losses(
        self, images: Images, targets: LabelMaps, *, generator: RandomSource = None
    ) -> dict[str, Tensor]:
        """Return `pixel`, and `auxiliary` where the network has auxiliary heads.

        Args:
            images: B images.
            targets: the class of each pixel.
            generator: of no use here: dropout takes torch's own.
        """
        (main, _), *others = self.network.all_logits(self.normalise(images))
        losses = {"pixel": self._loss(main, images, targets)}
        if others:
            terms = [weight * self._loss(logits, images, targets) for logits, weight in others]
            losses["auxiliary"] = torch.stack(terms).sum()
        return losses

    def _loss(self, logits: Tensor, images: Images, targets: LabelMaps) -> Tensor:
        logits = self.enlarged(logits, images).float()
        # Sums over all pixels are products in some losses, which autocast would round to 8 bits.
        with torch.autocast(logits.device.type, enabled=False):
            return self.criterion(logits, targets.maps, targets.weights)
