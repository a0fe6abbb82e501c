"""What every model is: two methods, its conventions, and how its images are standardised.

`Model.forward` predicts and `Model.losses` trains; both keep static shapes between input and
output. Each task has a base of its own below this one: `models.detection.base.Detector`,
`models.classification.base.Classifier`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..nn.random import RandomSource
from ..nn.track import Track
from ..structures import Images, Resize


class Model(nn.Module):
    """Base of all models.

    Attributes:
        task: what it is for, a word of `tasks.WORDS`: "classify", "detect", "segment", ...
        num_classes: number of real classes.
        resize: how a photo becomes network input.
        size_divisor: padded sides are multiples of this.
        buckets: padded (height, width) that it takes; empty: all multiples of `size_divisor`.
        backbone: the sub-module with `freeze(stages)`.
        train_scales: short sides of the network input of which each training image has one.
        dtype: in which its layers compute; their weights are of that type.
        fresh: names of the parameters that the weights which training started from lack.
        any_channels: whether the network can be made for other channels than red, green and blue,
            see `models.channels`.
    """

    task: str
    backbone: Any
    size_divisor = 32
    buckets: Sequence[tuple[int, int]] = ()
    train_scales: tuple[int, ...] = ()
    dtype = torch.float32
    fresh: frozenset[str] = frozenset()
    any_channels = True

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        num_classes: int,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        bgr: bool = False,
        resize: Resize | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.resize = resize or Resize()
        self.bgr = bgr
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    @property
    def channels(self) -> int:
        """C of the pixels (B, C, H, W) that it takes; 3: red, green and blue."""
        return len(self.mean)

    def losses(
        self, images: Images, targets: Any, *, generator: RandomSource = None
    ) -> dict[str, Tensor]:
        """Return the loss terms, scalars by name, to be added up.

        Args:
            images: B images.
            targets: what the task's loader makes of the annotations, in padded-image pixels.
            generator: source of the random numbers of samplers and dropout: a generator, or
                `ImageNoise` with a key for each image.
        """
        raise NotImplementedError

    @property
    def parts(self) -> tuple[Model, ...]:
        """The models in it that have a backbone each, which start from ImageNet weights."""
        return (self,)

    @property
    def fits_after_training(self) -> bool:
        """True if a stage follows the training: `fit_after_training`."""
        return False

    @property
    def fit_advice(self) -> str:
        """What may serve better where the weights before that stage found more; or nothing."""
        return ""

    def check_fitting(self) -> None:
        """Make sure, before a training, that the stage after it can run.

        Raises:
            ImportError: if it needs a library that is not installed.
        """

    def fit_after_training(
        self,
        batches: Callable[[], Iterable[tuple[Images, Any]]],
        count: int,
        names: Sequence[str],
        say: Callable[[str], None],
        track: Track,
    ) -> None:
        """Fit what gradient descent does not train; the outcome depends on the weights alone.

        Args:
            batches: gives the training images without augmentation, in order, with their targets;
                may be called several times.
            count: how many images they are.
            names: class names.
            say: is told what went otherwise than planned.
            track: takes a label and the pieces of a long work, and yields them; raises to stop.
        """
        raise NotImplementedError

    def normalise(self, images: Images) -> Tensor:
        """Return the network's input (B, C, H, W): standardised, zero outside `images.sizes`.

        Normalise first and zero the padding then, as the reference libraries do: the mean of the
        data, not black, lies outside the image.
        """
        pixels = images.pixels.flip(1) if self.bgr else images.pixels
        pixels = (pixels - self.mean) / self.std
        height, width = pixels.shape[-2:]
        known = not torch.compiler.is_compiling() and pixels.device.type == "cpu"
        if known and images.sizes.eq(torch.tensor([height, width])).all():  # there is no padding
            return pixels if self.dtype == torch.float32 else pixels.to(self.dtype)
        rows = torch.arange(height, device=pixels.device) < images.sizes[:, :1]
        columns = torch.arange(width, device=pixels.device) < images.sizes[:, 1:]
        inside = (rows[:, :, None] & columns[:, None, :])[:, None]
        pixels = torch.where(inside, pixels, 0)
        return pixels if self.dtype == torch.float32 else pixels.to(self.dtype)

    @property
    def fill(self) -> tuple[float, ...]:
        """Of each channel the value, 0 to 255, that is zero to the network: beyond an image."""
        values = self.mean.flatten().tolist()
        return tuple(values[::-1] if self.bgr else values)

    def example_side(self, wanted: int) -> int:
        """Return a side in pixels that the network takes, about as long as `wanted`; see `look`."""
        return wanted + -wanted % self.size_divisor

    def look(self, pixels: Tensor) -> Any:
        """Run the network on one image, to see its layers at work; what it finds is of no matter.

        Args:
            pixels: (1, C, H, W), sides that are multiples of `size_divisor`.
        """
        size = torch.tensor([pixels.shape[-2:]], device=pixels.device)
        return self(Images(pixels, size, size))

    def freeze(self, stages: int) -> None:
        """Stop the training of the first `stages` of the backbone; 0 trains everything."""
        self.backbone.freeze(stages)
