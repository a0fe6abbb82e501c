"""LeNet-5 (LeCun et al. 1998, "Gradient-based learning applied to document recognition").

| layer | size | `lenet5` | `original=True`, section II.B | trained |
| --- | --- | --- | --- | --- |
| input | 32 | grey | the same | |
| C1 | 28 | 5x5 6 | the same | 156 |
| S2 | 14 | maxima of 2x2 | means of 2x2, times a factor, plus a bias | 12 |
| C3 | 10 | 5x5 16 | each map sees 3, 4 or 6 of the 6 (table I) | 1,516 |
| S4 | 5 | maxima of 2x2 | as S2 | 32 |
| C5 | 1 | 5x5 120 | the same | 48,120 |
| F6 | | 84 | the same | 10,164 |
| output | | linear | squared distances to fixed codes of 7 x 12 | 0 |
| | | ReLU, 61,706 parameters | 1.7159 tanh(2x / 3), 60,000 | |

Red, green and blue are averaged. Images below 32 pixels, such as the 28 of MNIST, get a border that
repeats their last pixels (the paper: two pixels of background); larger ones have S4 averaged to
5 x 5. Samples become -0.1 (black) to 1.175 (white) as in the paper, whose digits are white on black
like those of MNIST.

The codes of ten classes are the digits, drawn in +1 and -1; of any other number of classes they are
fixed pseudo-random signs. Logits are minus the squared distances, so that the cross-entropy is the
paper's discriminative criterion (eq. 9) without its constant j. Differences from the paper: a
softmax in place of that criterion, and trained by any optimiser in place of its second-order one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...nn.convolution import Conv2d
from ...nn.norm import init_convs
from ...nn.random import ImageNoise
from ..registry import register
from .base import Classifier, ClassifierOptions, Network

SIDE = 32  # of the input, in pixels
UNITS = 84  # of F6: the pixels of a code, 7 x 12
# Table I: the maps of S2 that each map of C3 sees.
SEEN = (
    *((i, (i + 1) % 6, (i + 2) % 6) for i in range(6)),
    *((i, (i + 1) % 6, (i + 2) % 6, (i + 3) % 6) for i in range(6)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    tuple(range(6)),
)
# The digits 0 to 9, 12 lines of 7 pixels.
DIGITS = """
.#####. ...#... .#####. .#####. .....#. ####### ..####. ####### .#####. .#####.
##...## ..##... ##...## ##...## ....##. #...... .##.... ......# ##...## ##...##
#.....# .###... #.....# #.....# ...###. #...... ##..... .....## #.....# #.....#
#.....# ...#... ......# ......# ..##.#. #...... #...... .....#. #.....# #.....#
#.....# ...#... ......# .....## .##..#. ######. #.####. ....##. ##...## #.....#
#.....# ...#... .....## ..####. ##...#. .....## ###..## ....#.. .#####. ##...##
#.....# ...#... ....##. .....## #....#. ......# ##....# ...##.. ##...## .#####.
#.....# ...#... ...##.. ......# ####### ......# #.....# ...#... #.....# ......#
#.....# ...#... ..##... ......# .....#. ......# #.....# ..##... #.....# ......#
#.....# ...#... .##.... #.....# .....#. #.....# #.....# ..#.... #.....# .....##
##...## ...#... ##..... ##...## .....#. ##...## ##...## .##.... ##...## ....##.
.#####. .#####. ####### .#####. .....#. .#####. .#####. .#..... .#####. .####..
"""


@dataclass(frozen=True)
class LeNetOptions(ClassifierOptions):
    """Options of LeNet-5.

    Attributes:
        original: the network of the paper, with trained subsampling, partly connected maps and
            fixed codes as its output; else the form that is common today.
    """

    PUBLISHED: ClassVar[tuple[int, int]] = (28, 28)

    imgsz: int = 28
    statistics: str = "lenet"
    original: bool = False


class Squash(nn.Module):
    """The activation of the paper: 1.7159 tanh(2x / 3), which maps 1 to 1 (appendix A)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return values of the same shape."""
        return 1.7159 * torch.tanh(x * (2 / 3))


class Subsampling(nn.Module):
    """Means of 2x2 pixels, each map times a factor of its own plus a bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H / 2, W / 2)."""
        return F.avg_pool2d(x, 2) * self.weight + self.bias


class PartialConv(nn.Module):
    """A 5x5 convolution in which each map sees some of those before it.

    Args:
        seen: for each map of the output those of the input that it sees.
        cin: maps of the input.
    """

    places: Tensor

    def __init__(self, seen: tuple[tuple[int, ...], ...], cin: int) -> None:
        super().__init__()
        pairs = [(row, column) for row, columns in enumerate(seen) for column in columns]
        self.shape = (len(seen), cin)
        self.weight = nn.Parameter(torch.empty(len(pairs), 25))
        self.bias = nn.Parameter(torch.zeros(len(seen)))
        places = torch.tensor([row * cin + column for row, column in pairs])
        self.register_buffer("places", places, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, maps, H - 4, W - 4)."""
        rows, cin = self.shape
        empty = self.weight.new_zeros(rows * cin, 25)
        weight = empty.index_copy(0, self.places, self.weight)
        return F.conv2d(x, weight.view(rows, cin, 5, 5), self.bias)


class Codes(nn.Module):
    """Radial basis functions: minus the squared distance to a fixed code of each class."""

    codes: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("codes", class_codes(num_classes), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, C) of (B, 84)."""
        return -(x[:, None] - self.codes).square().sum(-1)


def class_codes(num_classes: int) -> Tensor:
    """Return (C, 84) of +1 and -1: the drawn digits if they are ten, else pseudo-random signs."""
    if num_classes != 10:
        noise = ImageNoise(torch.arange(num_classes)).uniform(torch.arange(UNITS))
        return (noise >= 0.5).float() * 2 - 1
    lines = [line.split() for line in DIGITS.strip().splitlines()]
    drawn = ["".join(line[digit] for line in lines) for digit in range(10)]
    return torch.tensor([[1.0 if pixel == "#" else -1.0 for pixel in code] for code in drawn])


class LeNet5(Network):
    """LeNet-5 in both forms.

    Args:
        num_classes: classes.
        original: that of the paper.
    """

    final = "output"
    smallest = 28

    def __init__(self, num_classes: int, *, original: bool) -> None:
        super().__init__()
        self.act = Squash() if original else nn.ReLU()
        self.c1 = Conv2d(1, 6, 5)
        self.s2 = Subsampling(6) if original else nn.MaxPool2d(2)
        self.c3 = PartialConv(SEEN, 6) if original else Conv2d(6, 16, 5)
        self.s4 = Subsampling(16) if original else nn.MaxPool2d(2)
        self.c5 = nn.Linear(16 * 25, 120)
        self.f6 = nn.Linear(120, UNITS)
        self.output = Codes(num_classes) if original else nn.Linear(UNITS, num_classes)
        if original:
            self._initialise()
        else:
            init_convs(self)

    def _initialise(self) -> None:
        """Appendix A: uniform within 2.4 / the number of inputs of a unit."""
        inputs: list[tuple[nn.Conv2d | nn.Linear, int]]
        inputs = [(self.c1, 25), (self.c5, 400), (self.f6, 120)]
        for layer, count in inputs:
            nn.init.uniform_(layer.weight, -2.4 / count, 2.4 / count)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        assert isinstance(self.c3, PartialConv)
        counts = torch.tensor([len(columns) for columns in SEEN for _ in columns])
        with torch.no_grad():
            self.c3.weight.uniform_(-2.4, 2.4).div_(25 * counts[:, None])

    def stages(self) -> list[list[nn.Module]]:
        """Return the layers of 28 and 14 pixels, then those of 10 and 5."""
        return [[self.c1, self.s2], [self.c3, self.s4]]

    def maps(self, x: Tensor) -> Tensor:
        """Return S4, (B, 16, 5, 5) at 32 x 32 pixels."""
        x = x.mean(1, keepdim=True)
        high, wide = (max(SIDE - side, 0) for side in x.shape[-2:])
        if high or wide:
            x = F.pad(x, (wide // 2, wide - wide // 2, high // 2, high - high // 2), "replicate")
        x = self._sampled(self.s2, self.act(self.c1(x)))
        return self._sampled(self.s4, self.act(self.c3(x)))

    def _sampled(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Return half the size; trained subsampling is squashed as well."""
        x = layer(x)
        squashed: Tensor = self.act(x) if isinstance(layer, Subsampling) else x
        return squashed

    def head(self, maps: Tensor) -> Tensor:
        """Return the logits (B, C) of S4."""
        if maps.shape[-2:] != (5, 5):
            maps = F.adaptive_avg_pool2d(maps, 5)
        x = self.act(self.f6(self.act(self.c5(maps.flatten(1)))))
        logits: Tensor = self.output(x)
        return logits


@register(
    "lenet5",
    options=LeNetOptions,
    task="classify",
    paper="LeCun et al. 1998",
    tiny={},
)
def lenet5(num_classes: int, options: LeNetOptions) -> Classifier:
    """Build LeNet-5."""
    return Classifier(num_classes, LeNet5(num_classes, original=options.original), options)
