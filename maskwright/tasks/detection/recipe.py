"""The options of trainings of detectors, beside those that all tasks have."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from ...errors import OptionError
from ..recipe import COUNT, Number, TrainRecipe


@dataclass(frozen=True)
class DetectionRecipe(TrainRecipe):
    """The options of one training of a detector."""

    DOES: ClassVar[str] = "find objects"
    NUMBERS: ClassVar[dict[str, Number]] = {**TrainRecipe.NUMBERS, "max_det": COUNT}
    CHOICES: ClassVar[dict[str, tuple[str, ...]]] = {
        **TrainRecipe.CHOICES,
        "train_part": ("all", "rpn", "heads", "rpn-only", "heads-only"),
    }

    scale_jitter: tuple[float, float] = (1.0, 1.0)
    """Smallest and largest random factor on the image size."""

    crop: int | tuple[int, int] | None = None
    """Random window of the scaled image in pixels, one side or (height, width). None: whole."""

    tile: int | None = None
    """Of a larger image see a random square of so many of its pixels, read by window where the file
    allows it; validation looks at it in such tiles. `imgsz` is the size of a tile then."""

    photometric: bool | str | None = None  # type: ignore[assignment]  # more than others have
    """Random brightness, contrast, saturation and hue; "strong": as SSD is trained. None: strong
    for SSD on VGG, none for others."""

    expand: float | None = None
    """Share of images that lie somewhere on a canvas of up to four times their sides, filled with
    the mean colour: small objects for a network that sees large ones. None: 0.5 for SSD on VGG, 0
    for others."""

    patches: bool | None = None
    """See a random patch of each image that overlaps an object by at least 0.1 to 0.9, any patch,
    or the whole. None: true for SSD and SSDLite, false for others."""

    multiscale: tuple[int, int] | None = None
    """Smallest and largest long side in pixels, such as (320, 608), of which ten batches one after
    the other have one, a multiple of 32 (YOLO v2). None: all have that of `imgsz`."""

    difficult: bool = False
    """Train on objects that Pascal VOC marks `difficult` as well; otherwise they count neither as
    objects nor as background. In validation they never count."""

    crowd_as_objects: bool = False
    """Take what COCO JSON marks iscrowd=1 as objects, in training and validation; CVAT marks masks
    so. Otherwise these are regions of many, which count neither as objects nor as background."""

    max_det: int = 100
    """Most detections per image in validation; raise it for crowded images."""

    val_boundary: bool = False
    """Score masks in validation by boundary IoU as well (`val/boundary/AP`, Cheng et al. 2021)."""

    alternate: bool = False
    """4-step alternating training of a two-stage detector (Ren et al. 2015) in place of the joint
    one: RPN; heads with a backbone of their own, on its proposals; RPN and heads again, on the
    backbone of the second step, which stays as it is. Each step takes all `epochs` or `steps`."""

    train_part: Literal["all", "rpn", "heads", "rpn-only", "heads-only"] = "all"
    """What of a two-stage detector trains: all; the RPN or the heads on regions with the backbone;
    or only those of their layers that the other does not use."""

    proposal_model: str | Path | None = None
    """Trained two-stage detector on whose proposals the heads train (train_part=heads). None: on
    those of the model itself."""

    def _check_numbers(self) -> None:
        super()._check_numbers()
        smallest, largest = self.scale_jitter
        if not 0 < smallest <= largest < math.inf:
            raise OptionError(
                f"scale_jitter={self.scale_jitter}: expected the smallest and the largest factor, "
                "both above 0, such as (0.8, 1.25)"
            )
        if self.photometric not in (None, True, False, "strong"):
            raise OptionError(f"photometric={self.photometric!r}: expected true, false, or strong")
        if self.expand is not None and not 0 <= self.expand <= 1:
            raise OptionError(f"expand={self.expand}: expected a share from 0 to 1")
        if self.multiscale is not None:
            low, high = self.multiscale
            if not 32 <= low <= high or low + -low % 32 > high:
                raise OptionError(
                    f"multiscale={self.multiscale}: expected the smallest and the largest side, "
                    "with a multiple of 32 between them, such as (320, 608)"
                )
        sides = (self.crop,) if isinstance(self.crop, int) else self.crop
        if sides is not None and not (len(sides) in (1, 2) and min(sides) >= 1):
            raise OptionError(f"crop={self.crop}: expected one side or (height, width) in pixels")

    def _check_combinations(self) -> None:
        super()._check_combinations()
        if self.alternate and (self.train_part != "all" or self.proposal_model is not None):
            raise OptionError(
                "alternate=true chooses train_part and proposal_model of its steps by itself: "
                "leave them out"
            )
        if self.alternate and self.minutes is not None:
            raise OptionError("alternate=true trains four times: give epochs or steps, not minutes")
        if self.proposal_model is not None and not self.train_part.startswith("heads"):
            raise OptionError(
                f"proposal_model is for train_part=heads, got train_part={self.train_part}"
            )

    @property
    def validates(self) -> bool:
        """False while one of two parts is not trained yet: what it leads to finds nothing."""
        return not self.train_part.startswith("rpn") and self.proposal_model is None

    @property
    def whole_images(self) -> bool:
        """False with random windows; see `TrainRecipe`."""
        return self.crop is None and not self.patches and self.tile is None

    @property
    def learns_more(self) -> bool:
        """True for objects that count as difficult; see `TrainRecipe`."""
        return self.difficult


RECIPE = DetectionRecipe
