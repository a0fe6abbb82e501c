"""Box head with linear SVMs and ridge regression (Girshick et al. 2014, R-CNN; He et al. 2014).

The fully connected layers are trained with a softmax over the classes and background. Afterwards
`nn.svm_fit` fits one linear SVM for each class on the last layer's features, and for each class a
ridge regression from the pooled features to the box. Both are tensors here: predicting needs
nothing else. Until they are fitted, the softmax scores and boxes stay as they are.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ...errors import OptionError
from ..dropout import RegionNoise
from .box_head import BoxHead, BoxTargets

CLASSIFIERS = ("svm", "softmax")
# Scores lie in [0, 1], a margin of 1 is one of 0.98; the order of detections is that of margins.
SLOPE = 4.0


class SVMOutput(NamedTuple):
    """Raw output: logits (R, C + 1), deltas (R, C, 4) of the ridge, margins (R, C) of the SVMs."""

    logits: Tensor
    deltas: Tensor
    margins: Tensor


class SVMHead(BoxHead):
    """Fully connected layers with a softmax for training; SVMs and ridge regression at test.

    Args:
        channels: channels of the region features.
        num_classes: real classes.
        classifier: whose scores count once all is fitted: "svm" or "softmax".
        **options: of `BoxHead`.

    Attributes:
        svm_weight, svm_bias: (C, width) and (C,), for the features as they come.
        ridge_weight, ridge_bias: (C, 4, pooled) and (C, 4), the same; deltas without factors.
        fitted: bool, whether they are.
    """

    fitted_later: ClassVar = ("svm_weight", "svm_bias", "ridge_weight", "ridge_bias", "fitted")

    svm_weight: Tensor
    svm_bias: Tensor
    ridge_weight: Tensor
    ridge_bias: Tensor
    fitted: Tensor

    def __init__(
        self, channels: int, num_classes: int, *, classifier: str = "svm", **options: Any
    ) -> None:
        super().__init__(channels, num_classes, weights=(1, 1, 1, 1), **options)
        if classifier not in CLASSIFIERS:
            raise OptionError(f"classifier is 'svm' or 'softmax', got {classifier!r}")
        self.classifier = classifier
        del self.deltas  # boxes are not regressed in training
        self.class_rows = {"logits": (1, True)}
        width = self.logits.weight.shape[1]
        pooled = channels * (options.get("bins") or self.pool * self.pool)
        self.register_buffer("svm_weight", torch.zeros(num_classes, width))
        self.register_buffer("svm_bias", torch.zeros(num_classes))
        self.register_buffer("ridge_weight", torch.zeros(num_classes, 4, pooled))
        self.register_buffer("ridge_bias", torch.zeros(num_classes, 4))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    def forward(  # type: ignore[override]
        self, x: Tensor, noise: RegionNoise | None = None
    ) -> SVMOutput:
        """Run the head on region features (R, channels, pool, pool), or as many bins."""
        hidden = self.hidden(x, noise)
        last = hidden.detach().float()
        pooled = self.flat(x).detach().float()
        deltas = pooled @ self.ridge_weight.flatten(0, 1).T
        return SVMOutput(
            self.logits(hidden),
            deltas.unflatten(1, (self.num_classes, 4)) + self.ridge_bias,
            last @ self.svm_weight.T + self.svm_bias,
        )

    @staticmethod
    def flat(x: Tensor) -> Tensor:
        """Return region features (R, C, h, w) as rows (R, h * w * C)."""
        return x.permute(0, 2, 3, 1).flatten(1)

    def scores(self, output: Any) -> Tensor:
        """Return scores (R, C): of the SVMs once they are fitted, else of the softmax."""
        probabilities = super().scores(output)
        if self.classifier == "softmax":
            return probabilities
        return torch.where(self.fitted, (SLOPE * output.margins).sigmoid(), probabilities)

    def losses_by_box(
        self, output: Any, rois: Tensor, targets: BoxTargets
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of the class (R,), and none of the box; see `BoxBranch`."""
        classes, box = super().losses_by_box(output, rois, targets)
        return classes, torch.zeros_like(box)

    def loss(
        self, output: Any, rois: Tensor, targets: BoxTargets, valid: Tensor
    ) -> dict[str, Tensor]:
        """Return `roi/class`: boxes are fitted afterwards."""
        return {"roi/class": super().loss(output, rois, targets, valid)["roi/class"]}

    @torch.no_grad()
    def set_fit(self, svm: tuple[Tensor, Tensor], ridge: tuple[Tensor, Tensor]) -> None:
        """Take weights and biases of SVMs and ridge regression; see the attributes."""
        for buffer, value in zip(
            (self.svm_weight, self.svm_bias, self.ridge_weight, self.ridge_bias),
            (*svm, *ridge),
            strict=True,
        ):
            buffer.copy_(value)
        self.fitted.fill_(True)
