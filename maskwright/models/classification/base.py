"""What every classifier is: a network of stages with a head, and a loss on soft or several labels.

A `Network` is the architecture alone; families write one each, or take that of a detector's
backbone: one class, two uses. `Classifier` adds what all share: standardised input, losses with
auxiliary heads, freezing from the input up, and the layer that is replaced for other classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...errors import OptionError
from ...nn.random import RandomSource
from ...structures import Images, Labels
from ..base import Model


class Network(nn.Module):
    """A classification network, standardised pixels in, logits out.

    Attributes:
        final: name of the last layer, whose rows are the classes.
        smallest: least side of the input in pixels that leaves every map at least one pixel.
    """

    final: str
    smallest = 1

    def stages(self) -> list[list[nn.Module]]:
        """Return the modules before the head by stage, from the input on: what can be frozen."""
        raise NotImplementedError

    def features(self, x: Tensor) -> Tensor:
        """Return the last maps (B, K, h, w) of (B, 3, H, W), which the head takes."""
        raise NotImplementedError

    def head(self, maps: Tensor) -> Tensor:
        """Return the logits (B, C) of the last maps (B, K, h, w)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, C) of (B, 3, H, W)."""
        return self.head(self.features(x))

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
        multilabel: an image may have several classes or none: a sigmoid for each in place of the
            softmax over all.
        **conventions: of `Model`.
    """

    task = "classify"
    size_divisor = 1

    def __init__(
        self, num_classes: int, network: Network, *, multilabel: bool = False, **conventions: Any
    ) -> None:
        super().__init__(num_classes, **conventions)
        self.network = network
        self.multilabel = multilabel
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
        """Return the mean cross-entropy over the images, weighted; 0 without any image."""
        logits = logits.float()
        if self.multilabel:
            each = F.binary_cross_entropy_with_logits(logits, targets.probs, reduction="none")
        else:
            each = -targets.probs * logits.log_softmax(-1)
        if targets.weights is not None:
            each = each * targets.weights
        return each.sum() / max(len(logits), 1)

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

    def freeze(self, stages: int) -> None:
        """Stop the training of the first `stages` stages; their batch norm keeps its statistics.

        Raises:
            OptionError: if there are fewer.
        """
        count = len(self.network.stages())
        if not 0 <= stages <= count:
            raise OptionError(f"freeze must lie in 0..{count} for this network, got {stages}")
        self.fix(range(stages))

    def fix(self, stages: Iterable[int]) -> None:
        """Stop the training of stages by number, the first being 0; all else trains."""
        self.fixed = frozenset(stages)
        self.requires_grad_(True)
        for index, modules in enumerate(self.network.stages()):
            for module in modules if index in self.fixed else ():
                module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Classifier:
        """Switch the mode, except that batch norm of frozen stages keeps its statistics."""
        super().train(mode)
        stages = self.network.stages() if mode else []
        for index in self.fixed if mode else ():
            for module in stages[index]:
                for layer in module.modules():
                    if isinstance(layer, _BatchNorm):
                        layer.eval()
        return self
