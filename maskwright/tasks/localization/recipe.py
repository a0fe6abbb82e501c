"""The options of trainings of localizers, beside those that all tasks have."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from ...errors import OptionError
from ..recipe import Number, TrainRecipe


@dataclass(frozen=True)
class LocalizationRecipe(TrainRecipe):
    """The options of one training of a localizer."""

    DOES: ClassVar[str] = "locate one object"
    NUMBERS: ClassVar[dict[str, Number]] = {
        **TrainRecipe.NUMBERS,
        "nme_limit": ((int, float), lambda x: 0 < x <= 10, "a number above 0 and up to 10"),
    }
    CHOICES: ClassVar[dict[str, tuple[str, ...]]] = {
        **TrainRecipe.CHOICES,
        "several": ("largest", "error"),
    }

    model: str = "locate_resnet18"
    """Registered name of the model: `maskwright models` lists them, `maskwright models NAME` the
    further options of one."""

    batch: int = 16
    """Images per step and device; -1: automatic (2 on the CPU, by free memory on CUDA)."""

    imgsz: int | tuple[int, int] | str | None = None
    """Side of the square input in pixels. None: that of the model."""

    scale_jitter: tuple[float, float] = (0.9, 1.25)
    """Smallest and largest random factor on the image size. A larger image is cut to the input at a
    random place that keeps the centre of the object and at least a quarter of its box."""

    several: Literal["largest", "error"] = "largest"
    """What to do with an image that has several objects: learn the largest, or stop with an error
    that names the image. A box is right in validation if it fits any object of its class."""

    nme_pair: tuple[str, ...] | str | None = None
    """Two keypoints whose distance the errors of keypoints are divided by, as in
    left_eye,right_eye. None: by the root of the area of the box."""

    nme_limit: float = 0.08
    """Normalised error of keypoints from which on an image has failed."""

    def _check_numbers(self) -> None:
        super()._check_numbers()
        smallest, largest = self.scale_jitter
        if not 0 < smallest <= largest < math.inf:
            raise OptionError(
                f"scale_jitter={self.scale_jitter}: expected the smallest and the largest factor, "
                "both above 0, such as (0.9, 1.25)"
            )
        pair_of(self.nme_pair)


def pair_of(pair: tuple[str, ...] | str | None) -> tuple[str, str] | None:
    """Return the names of two keypoints that are given joined by a comma or as a pair.

    Raises:
        OptionError: if they are not two.
    """
    if pair is None:
        return None
    names = pair.split(",") if isinstance(pair, str) else list(pair)
    names = [name.strip() for name in names]
    if len(names) != 2 or not all(names) or names[0] == names[1]:
        raise OptionError(
            f"nme_pair={pair!r}: expected two keypoints, as in nme_pair=left_eye,right_eye"
        )
    return names[0], names[1]


RECIPE = LocalizationRecipe
