"""The option `tta`: at which sizes a photo is looked at, and whether mirrored as well."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from ..errors import OptionError
from ..structures import Images, Resize


@dataclass(frozen=True)
class Views:
    """The views of a photo.

    Attributes:
        scales: factors on the size that the model's resize rule gives.
        flip: show each size mirrored left to right as well.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self) -> None:
        if not self.scales or not all(0 < scale < math.inf for scale in self.scales):
            raise OptionError(f"tta: scales are factors above 0, got {self.scales}")

    @classmethod
    def parse(cls, value: str | Views | None) -> Views | None:
        """Read the option `tta`: factors and the word flip, as in "flip" or "0.75,1,1.25,flip".

        Raises:
            OptionError: if it holds anything else.
        """
        if value is None or isinstance(value, Views):
            return value
        words = [word.strip().lower() for word in str(value).split(",")]
        numbers = [word for word in words if word != "flip"]
        try:
            scales = tuple(float(word) for word in numbers)
        except ValueError:
            raise OptionError(
                f"tta={value!r}: expected factors on the image size and the word flip, such as "
                "flip or 0.75,1,1.25,flip"
            ) from None
        return cls(scales or (1.0,), len(numbers) < len(words))

    def resizes(self, rule: Resize) -> list[Resize]:
        """Return the resize rule of each scale."""
        return [rule.scaled(scale) for scale in self.scales]


def mirror_pixels(images: Images) -> Images:
    """Return images mirrored left to right, each inside its own size."""
    pixels = torch.zeros_like(images.pixels)
    for b, (height, width) in enumerate(images.sizes.tolist()):
        pixels[b, :, :height, :width] = images.pixels[b, :, :height, :width].flip(-1)
    return replace(images, pixels=pixels)
