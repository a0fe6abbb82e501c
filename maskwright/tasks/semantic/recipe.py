"""The options of trainings of segmenters, beside those that all tasks have."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from ...errors import OptionError
from ..recipe import SHARE, Number, TrainRecipe


@dataclass(frozen=True)
class SemanticRecipe(TrainRecipe):
    """The options of one training of a segmenter."""

    DOES: ClassVar[str] = "give every pixel a class"
    SHORT: ClassVar[int] = 520  # of images, beyond which they are made smaller
    NUMBERS: ClassVar[dict[str, Number]] = {**TrainRecipe.NUMBERS, "class_limit": SHARE}
    CHOICES: ClassVar[dict[str, tuple[str, ...]]] = {
        **TrainRecipe.CHOICES,
        "balance": ("none", "median"),
    }

    model: str = "deeplabv3plus_lite0"
    """Registered name of the model: `maskwright models` lists them, `maskwright models NAME` the
    further options of one."""

    batch: int = 4
    """Images per step and device; -1: automatic (2 on the CPU, by free memory on CUDA)."""

    freeze: int = 0
    """Stages of the backbone that stay as they are, counted from the input; 0: none."""

    photometric: bool = True
    """Random brightness, contrast, saturation and hue."""

    scale_jitter: tuple[float, float] = (0.5, 2.0)
    """Smallest and largest random factor on the image size."""

    crop: int | tuple[int, int] | None = 480
    """Random window of the scaled image in pixels, one side or (height, width); what lies outside
    the image is ignored. None: whole."""

    tile: int | None = None
    """Of a larger image see a random square of so many of its pixels, read by window where the file
    allows it, and of that the `crop`; validation looks at it in such tiles. `imgsz` is the size of
    a tile then."""

    class_limit: float = 0.75
    """Largest share that one class may have of a window; others are drawn again, up to ten times.
    1: any."""

    loss: str = "ce"
    """What is minimised: ce (cross-entropy), ohem or topk (of hard pixels), focal, dice, jaccard,
    lovasz, or a sum such as ce+0.5*dice."""

    balance: Literal["none", "median"] = "none"
    """For classes of unlike sizes: how much more the pixels of rare ones count: median lets each
    class count by the inverse of its share in images that have it (Eigen and Fergus 2015)."""

    ignore: tuple[int | str, ...] | None = None
    """Numbers or names of classes of label files whose pixels are neither trained nor scored,
    beside 255 and those that the format names, as in 0,void."""

    val_boundary: bool = False
    """Score borders in validation as well (`val/boundary/IoU`, `val/boundary/F`)."""

    def _check_numbers(self) -> None:
        super()._check_numbers()
        smallest, largest = self.scale_jitter
        if not 0 < smallest <= largest < math.inf:
            raise OptionError(
                f"scale_jitter={self.scale_jitter}: expected the smallest and the largest factor, "
                "both above 0, such as (0.5, 2)"
            )
        sides = (self.crop,) if isinstance(self.crop, int) else self.crop
        if sides is not None and not (len(sides) in (1, 2) and min(sides) >= 1):
            raise OptionError(f"crop={self.crop}: expected one side or (height, width) in pixels")
        for value in self.ignore or ():
            if type(value) not in (int, str) or (isinstance(value, int) and value < 0):
                raise OptionError(
                    f"ignore={self.ignore}: expected numbers or names of classes of label files, "
                    "as in 0,void"
                )

    @property
    def whole_images(self) -> bool:
        """False with random windows; see `TrainRecipe`."""
        return self.crop is None and self.tile is None

    def peak_lr(self, images_per_step: int) -> float:
        """Return `lr`, or the value scaled to the number of images behind one optimiser step."""
        if self.lr is not None:
            return self.lr
        if self.optimizer == "sgd":  # DeepLab: 0.007 at a batch of 16, by the linear rule
            return 0.007 * images_per_step / 16
        # Twice that of the other tasks: heads of several layers begin from nothing.
        return 2e-3 * math.sqrt(images_per_step / 16)


RECIPE = SemanticRecipe
