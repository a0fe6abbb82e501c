"""What every classifier is: a network of stages with a head, and a loss on soft or several labels.

A `Network` is the architecture alone; families write one each, or take that of a detector's
backbone: one class, two uses. `Classifier` adds what all share: standardised input, losses with
auxiliary heads, freezing from the input up, and the layer that is replaced for other classes.
`ClassifierOptions` are the options that all have.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import OptionError
from ...nn.parallel import mean_count, num_processes
from ...nn.random import RandomSource
from ...structures import IMAGENET_MEAN, IMAGENET_STD, Images, Labels, Preprocess, Triple
from ..base import Model
from ..freezing import first_stages, keep_statistics, stop_stages

INTERPOLATIONS = ("bilinear", "bicubic")
# Mean and deviation of red, green and blue, 0 to 255, with which published weights were trained.
STATISTICS: dict[str, tuple[Triple, Triple]] = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "half": ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),  # -1 to 1
    "clip": ((122.7709383, 116.7460125, 104.0937362), (68.5005327, 66.6321579, 70.3231630)),
    "dpn": ((124.0, 117.0, 104.0), (59.8802395, 59.8802395, 59.8802395)),
    "unit": ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),  # 0 to 1
    "cifar": ((125.3, 123.0, 113.9), (63.0, 62.1, 66.7)),
    "lenet": ((20.0, 20.0, 20.0), (200.0, 200.0, 200.0)),  # -0.1 to 1.175
}


@dataclass(frozen=True)
class ClassifierOptions:
    """Options of all classifiers.

    Attributes:
        imgsz: side of the square input in pixels.
        short: short side of a photo at test before the square is cut out of its middle; None: in
            the proportion of the published weights, 256 for a square of 224.
        interpolation: how a photo is scaled: "bilinear" or "bicubic".
        statistics: mean and deviation by which samples are standardised: "imagenet", "cifar",
            "clip" or "dpn" (of their data); "half": from -1 to 1; "unit": from 0 to 1; "lenet":
            from -0.1 to 1.175.
        multilabel: an image may have several classes, or none.
    """

    PUBLISHED: ClassVar[tuple[int, int]] = (224, 256)  # square, short side

    imgsz: int = 224
    short: int | None = None
    interpolation: str = "bilinear"
    statistics: str = "imagenet"
    multilabel: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.imgsz, int) or not 1 <= self.imgsz <= 8192:
            raise OptionError(
                f"imgsz is the side of the square input, 1 to 8192 pixels; got {self.imgsz!r}"
            )
        if self.short is not None and not self.imgsz <= self.short <= 8192:
            raise OptionError(
                f"short must lie between imgsz={self.imgsz} and 8192, got {self.short!r}"
            )
        for name, known in (("interpolation", INTERPOLATIONS), ("statistics", STATISTICS)):
            if getattr(self, name) not in known:
                raise OptionError(
                    f"{name} is one of {', '.join(known)}; got {getattr(self, name)!r}"
                )

    def preprocess(self) -> Preprocess:
        """Return how a photo becomes network input."""
        crop, short = self.PUBLISHED
        mean, std = STATISTICS[self.statistics]
        return Preprocess(
            self.imgsz, self.short or self.imgsz * short // crop, self.interpolation, mean, std
        )


class Network(nn.Module):
    """A classification network, standardised pixels in, logits out.

    Attributes:
        final: name of the last layer, whose rows are the classes.
        auxiliary: names of the last layers of the heads that only training has.
        smallest: least side of the input in pixels that leaves every map at least one pixel.
    """

    final: str
    auxiliary: tuple[str, ...] = ()
    smallest = 1

    def stages(self) -> list[list[nn.Module]]:
        """Return the modules before the head by stage, from the input on: what can be frozen."""
        raise NotImplementedError

    @property
    def class_rows(self) -> dict[str, tuple[int, bool]]:
        """The layers with a row for each class; see `transfer.class_rows`."""
        return dict.fromkeys((self.final, *self.auxiliary), (1, False))

    def maps(self, x: Tensor) -> Tensor:
        """Return the last maps (B, K, h, w) of (B, 3, H, W), which the head takes."""
        raise NotImplementedError

    def head(self, maps: Tensor) -> Tensor:
        """Return the logits (B, C) of the last maps (B, K, h, w)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, C) of (B, 3, H, W)."""
        return self.head(self.maps(x))

    def all_logits(self, x: Tensor, generator: RandomSource = None) -> list[tuple[Tensor, float]]:
        """Return the logits that train and their weights in the loss: the main ones first.

        Args:
            x: (B, 3, H, W).
            generator: random numbers of skipped blocks; dropout takes torch's own.
        """
        return [(self(x), 1.0)]


class Classifier(Model):
    """A classifier: `forward` gives logits, whatever heads there are in training.

    Args:
        num_classes: classes.
        network: the architecture.
        options: what all classifiers have; with `multilabel` a sigmoid for each class takes the
            place of the softmax over all.

    Attributes:
        preprocess: how a photo becomes network input at test.
        crop: side of that input in pixels.

    Raises:
        OptionError: if that is less than the network can take.
    """

    task = "classify"
    size_divisor = 1

    def __init__(self, num_classes: int, network: Network, options: ClassifierOptions) -> None:
        self.preprocess = options.preprocess()
        super().__init__(
            num_classes,
            mean=self.preprocess.mean,
            std=self.preprocess.std,
            resize=self.preprocess.resize(),
        )
        self.network = network
        self.crop = self.preprocess.crop
        if self.crop < network.smallest:
            raise OptionError(
                f"imgsz must be at least {network.smallest} for this network, got {self.crop}"
            )
        self.multilabel = options.multilabel
        self.fixed: frozenset[int] = frozenset()

    def forward(self, images: Images) -> Tensor:
        """Return the logits (B, C) of B images.

        Raises:
            ValueError: if they are smaller than the network's smallest input.
        """
        self.require_size(images)
        logits: Tensor = self.network(self.normalise(images))
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probabilities (B, C): they sum to 1 unless there may be several labels."""
        return logits.float().sigmoid() if self.multilabel else logits.float().softmax(-1)

    def losses(
        self, images: Images, targets: Labels, *, generator: RandomSource = None
    ) -> dict[str, Tensor]:
        """Return `class`, and `auxiliary` where the network has auxiliary heads.

        Args:
            images: B images.
            targets: probabilities of the classes: one of them, mixed, or several.
            generator: see `Model.losses`.
        """
        self.require_size(images)
        (main, _), *others = self.network.all_logits(self.normalise(images), generator)
        losses = {"class": self._loss(main, targets)}
        if others:
            terms = [weight * self._loss(logits, targets) for logits, weight in others]
            losses["auxiliary"] = torch.stack(terms).sum()
        return losses

    def _loss(self, logits: Tensor, targets: Labels) -> Tensor:
        """Return the mean cross-entropy over the images of all processes; 0 without any image."""
        logits = logits.float()
        if self.multilabel:
            each = F.binary_cross_entropy_with_logits(logits, targets.probs, reduction="none")
        else:
            each = -targets.probs * logits.log_softmax(-1)
        if targets.weights is not None:
            each = each * targets.weights
        if num_processes() == 1:
            return each.sum() / max(len(logits), 1)
        return each.sum() / mean_count(
            torch.ones(len(logits), dtype=torch.bool, device=each.device)
        )

    def require_size(self, images: Images) -> None:
        """Make sure that images are not smaller than the network can take.

        Raises:
            ValueError: naming the size that it needs.
        """
        height, width = images.pixels.shape[-2:]
        least = self.network.smallest
        if not torch.compiler.is_compiling() and min(height, width) < least:
            raise OptionError(
                f"the network needs images of at least {least} pixels a side, got {width} x "
                f"{height}: raise imgsz"
            )

    @property
    def final(self) -> nn.Module:
        """The layer whose rows are the classes."""
        return self.network.get_submodule(self.network.final)

    def example_side(self, wanted: int) -> int:
        """Return the side of the square that the network is made for; see `Model`."""
        return self.crop

    def freeze(self, stages: int) -> None:
        """Stop the training of the first `stages` stages; their batch norm keeps its statistics.

        -1 stops all of them, so that the head alone trains. What is `fresh` trains in any case.

        Raises:
            OptionError: if there are fewer.
        """
        own = self.network.stages()
        self.fix(first_stages(own, len(own) if stages == -1 else stages))

    def fix(self, stages: Iterable[int]) -> None:
        """Stop the training of stages by number, the first being 0; all else trains."""
        self.fixed = frozenset(stages)
        stop_stages(self, self.network.stages(), self.fixed, self.fresh)
        self.train(self.training)

    def train(self, mode: bool = True) -> Classifier:
        """Switch the mode, except that batch norm of frozen stages keeps its statistics."""
        super().train(mode)
        if mode:
            keep_statistics(self, self.network.stages(), self.fixed, self.fresh)
        return self
