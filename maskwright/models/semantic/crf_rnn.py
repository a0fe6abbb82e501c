"""CRF-RNN: FCN-8s, and behind it a dense CRF that trains with it (Zheng et al. 2015).

The CRF is `nn.semantic.crf_rnn`: mean-field steps with gradients, whose weights of kernels and
compatibilities of classes are learned. It starts from a run of `fcn8s_vgg16` (`weights=`), whose
layers bear equal names, as the authors' does. Differences from the public versions: batches of any
number of images, any device, images of any size in place of 500 x 500. The lattice of colours
depends on the image, so that there is no graph for other programs; export the FCN-8s, and refine
what it gives by `crf=`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import OptionError
from ...nn.semantic.crf_rnn import CRFRNN
from ..options import check_ranges
from ..registry import register
from .base import STATISTICS, Segmenter
from .fcn import FCN, FCNOptions


@dataclass(frozen=True)
class CRFRNNOptions(FCNOptions):
    """Options of CRF-RNN, which are those of its FCN, and of the CRF.

    Attributes:
        alpha: standard deviation of positions in the kernel of colours, in pixels of the input.
        beta: standard deviation of colours in it, in steps of 8 bits.
        gamma: standard deviation of positions in the other kernel, in pixels of the input.
        train_iterations: mean-field steps in training.
        test_iterations: the same in validation and prediction.
    """

    stride: int = 8
    learn_upsampling: bool = True
    alpha: float = 160.0
    beta: float = 3.0
    gamma: float = 3.0
    train_iterations: int = 5
    test_iterations: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, {"train_iterations": (1, 100), "test_iterations": (1, 100)})
        for name in ("alpha", "beta", "gamma"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise OptionError(f"{name} is a standard deviation above 0; got {value!r}")


class CRFRNNNetwork(FCN):
    """FCN-8s with a CRF on its scores."""

    deviation: Tensor

    def __init__(self, num_classes: int, options: CRFRNNOptions) -> None:
        super().__init__(num_classes, options, upscore_bias=True)
        self.crfrnn = CRFRNN(
            num_classes,
            alpha=options.alpha,
            beta=options.beta,
            gamma=options.gamma,
            train_iterations=options.train_iterations,
            test_iterations=options.test_iterations,
        )
        name = options.statistics
        deviation = self.backbone.std if name is None else STATISTICS[name][1]
        self.register_buffer("deviation", torch.tensor(deviation).view(3, 1, 1), persistent=False)

    @property
    def class_squares(self) -> list[str]:
        """The tensors from each class to each; see `transfer.class_squares`."""
        own = [f"crfrnn.{name}" for name, _ in self.crfrnn.named_parameters()]
        return [*super().class_squares, *own]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, C, H, W), float32, of (B, 3, H, W).

        Raises:
            OptionError: if a graph for other programs is made of it.
        """
        if torch.compiler.is_exporting():
            raise OptionError(
                "there is no graph of crf_rnn for other programs, as its lattice depends on the "
                "image: export fcn8s_vgg16, and take crf= in predictions"
            )
        # Colours in steps of 8 bits, whatever they were standardised by.
        logits: Tensor = self.crfrnn(super().forward(x), x * self.deviation)
        return logits


def crf_rnn(num_classes: int, options: CRFRNNOptions) -> Segmenter:
    """Build a CRF-RNN."""
    model = Segmenter(num_classes, CRFRNNNetwork(num_classes, options), options)
    model.any_channels = False  # its CRF compares colours
    return model


register(
    "crf_rnn",
    options=CRFRNNOptions,
    task="semantic",
    paper="Zheng et al. 2015",
    tiny={"backbone": "vgg11", "width": 16, "imgsz": 64, "test_iterations": 3},
)(crf_rnn)
