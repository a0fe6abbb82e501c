"""The options of trainings of classifiers, beside those that all tasks have."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from ...errors import OptionError
from ..recipe import COUNT, FACTOR, SHARE, WHOLE, Number, TrainRecipe

ALL_STAGES = -1  # as `freeze`


@dataclass(frozen=True)
class ClassificationRecipe(TrainRecipe):
    """The options of one training of a classifier."""

    DOES: ClassVar[str] = "classify images"
    NUMBERS: ClassVar[dict[str, Number]] = {
        **TrainRecipe.NUMBERS,
        "freeze": (int, lambda x: x >= ALL_STAGES, "a whole number of at least 0, or -1 for all"),
        "erasing": SHARE,
        "mixup": FACTOR,
        "cutmix": FACTOR,
        "label_smoothing": (
            *((int, float), lambda x: 0 <= x < 1),
            "a number from 0 up to 1, without 1",
        ),
        "layer_decay": (
            *((int, float), lambda x: 0 < x <= 1),
            "a number above 0 and up to 1",
        ),
        "topk": COUNT,
        "patience": WHOLE,
    }
    MAY_BE_NONE: ClassVar[tuple[str, ...]] = (*TrainRecipe.MAY_BE_NONE, "flip")
    CHOICES: ClassVar[dict[str, tuple[str, ...]]] = {
        **TrainRecipe.CHOICES,
        "augment": ("none", "randaugment", "trivialaugment"),
        "balance": ("none", "inverse", "sqrt", "effective"),
        "balance_by": ("loss", "sampler"),
        "val_tta": ("none", "flip", "tencrop"),
    }

    batch: int = 32
    """Images per step and device; -1: automatic (2 on the CPU, by free memory on CUDA)."""

    imgsz: int | tuple[int, int] | str | None = None
    """Side of the square input in pixels. None: that of the model."""

    lr: float | None = None
    """Peak learning rate. None: scaled to the images per step n: sgd 0.1 * n / 256, adamw
    0.001 * sqrt(n / 32)."""

    freeze: int = 0
    """Stages of the network that stay as they are, counted from the input, with the statistics of
    their batch norm; 0: none; -1: all, so that the head alone trains (a linear probe)."""

    unfreeze_at: tuple[int, ...] | None = None
    """Epochs before which frozen stages wait, from the head down: with 3,6 the head trains alone
    for 3 epochs, then with the last half of the stages for 3 more, then with all. Without `freeze`
    all stages wait. None: no stage waits."""

    backbone_lr: float = 0.1
    """Learning rate of what comes before the head as a fraction of `lr`; random weights learn at
    `lr` itself."""

    layer_decay: float = 1.0
    """Factor on the learning rate from each stage to the one before it, such as 0.75: what lies
    near the input changes least."""

    flip: float | None = None  # type: ignore[assignment]
    """Share of images mirrored left to right. None: 0.5, but 0 for digits and letters, and where
    names of classes tell left from right."""

    crop_scale: tuple[float, float] | None = None
    """Smallest and largest share of the area of the random part of an image that is seen, scaled to
    the input; 1,1: all of it, out of proportion. None: 0.08,1 from 10,000 training images on,
    0.35,1 below, 0.6,1 for small images out of one file, such as MNIST."""

    augment: Literal["none", "randaugment", "trivialaugment"] = "none"
    """Further random changes of colours and geometry (Cubuk et al. 2020; Mueller and Hutter
    2021)."""

    erasing: float = 0.0
    """Share of images in which a random rectangle is erased (Zhong et al. 2020), such as 0.1."""

    mixup: float = 0.0
    """Mix each image with another one of its batch, labels too, in shares drawn from
    Beta(mixup, mixup) (Zhang et al. 2018), such as 0.2; 0: never. With `cutmix` it is one of both
    for each batch."""

    cutmix: float = 0.0
    """Paste a rectangle of another image of the batch, in shares drawn from Beta(cutmix, cutmix)
    (Yun et al. 2019), such as 1; 0: never."""

    label_smoothing: float = 0.0
    """Share of the label that is spread over all classes (Szegedy et al. 2016), such as 0.1."""

    balance: Literal["none", "inverse", "sqrt", "effective"] = "none"
    """For classes of unlike numbers: how much more the images of rare ones count: by the inverse of
    their number, by its root, or by the effective number of images (Cui et al. 2019)."""

    balance_by: Literal["loss", "sampler"] = "loss"
    """Where `balance` makes them count: in the loss, or by showing them more often."""

    topk: int = 5
    """k of the second accuracy in validation: the true class is among the k most probable."""

    val_tta: Literal["none", "flip", "tencrop"] = "none"
    """How often validation looks at an image: once, also mirrored, or at four corners and the
    middle, each also mirrored (Krizhevsky et al. 2012)."""

    def _check_numbers(self) -> None:
        super()._check_numbers()
        if self.crop_scale is not None:
            low, high = (*self.crop_scale, math.nan)[:2]
            if len(self.crop_scale) != 2 or not 0 < low <= high <= 1:
                raise OptionError(
                    f"crop_scale={self.crop_scale}: expected the smallest and the largest share of "
                    "the area, above 0 and up to 1, such as (0.08, 1)"
                )
        epochs = list(self.unfreeze_at or ())
        if epochs != sorted(set(epochs)) or not all(type(e) is int and e >= 1 for e in epochs):
            raise OptionError(
                f"unfreeze_at={self.unfreeze_at}: expected rising numbers of epochs from 1 on, "
                "such as (3, 6)"
            )

    def _check_combinations(self) -> None:
        super()._check_combinations()
        late = [epoch for epoch in self.unfreeze_at or () if epoch >= self.epochs]
        if late and self.steps is None:
            raise OptionError(
                f"unfreeze_at={late[0]} is never reached in epochs={self.epochs}: give earlier "
                "ones, or freeze=-1 for the head alone"
            )

    @property
    def whole_images(self) -> bool:
        """False: the input is a square, whatever the images are."""
        return False

    @property
    def varies(self) -> bool:
        """True with stages that wait; see `TrainRecipe`."""
        return bool(self.unfreeze_at)

    def peak_lr(self, images_per_step: int) -> float:
        """Return `lr`, or the value scaled to the number of images behind one optimiser step."""
        if self.lr is not None:
            return self.lr
        if self.optimizer == "sgd":  # the linear rule, Goyal et al. 2017
            return 0.1 * images_per_step / 256
        return 1e-3 * math.sqrt(images_per_step / 32)  # the square-root rule for Adam


RECIPE = ClassificationRecipe
