"""How a photo becomes network input: part of a model's conventions, stored in its checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from ..errors import OptionError

MAX_INPUT = 2**27  # pixels of one image as network input
Triple = tuple[float, float, float]  # red, green, blue
# Mean and deviation of the samples of ImageNet, 0 to 255.
IMAGENET_MEAN: Triple = (123.675, 116.28, 103.53)
IMAGENET_STD: Triple = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Resize:
    """How a photo becomes network input; part of a model's conventions, stored in its checkpoint.

    Exactly one of five rules holds. `short` and `long`: scale so that the short side is `short`,
    unless the long side would pass `long` (Faster R-CNN). `long` alone: scale the long side to
    `long`. `factor`: the same scale for every image (microscopy, where a pixel has a fixed size).
    `stretch`: every image to one size, whatever its shape (SSD, YOLO v1). `within` alone: as large
    as fits (Darknet's letterbox).

    Attributes:
        short: side in pixels, or None.
        long: side in pixels, or None.
        factor: ratio of new to old side, or None.
        rounding: how a side becomes whole: "nearest" (half up), "floor" of the scaled side
            (torchvision), "whole", a division of whole numbers (Darknet), or "steps" (detectron2):
            half up of a side that is scaled for `short` first and then for `long`, which gives a
            half in other cases.
        antialias: True resizes the 8-bit image with a low-pass filter, as Pillow does
            (detectron2); False samples the float image bilinearly without one (torchvision).
        within: (height, width) that the result must not pass either: what a graph of fixed size
            takes. None: no such bound.
        stretch: (height, width) of the result, or None.
        corners: the centres of the outermost pixels stay where they are when the image is sampled,
            not its edges (Darknet); only without `antialias`.
        fixed_point: 8-bit samples stay so, bilinear with weights of eleven bits, as OpenCV has them
            (mmdetection); only without `antialias`. Others are sampled as floats.
    """

    short: int | None = 800
    long: int | None = 1333
    factor: float | None = None
    rounding: str = "nearest"
    antialias: bool = True
    within: tuple[int, int] | None = None
    stretch: tuple[int, int] | None = None
    corners: bool = False
    fixed_point: bool = False

    def __post_init__(self) -> None:
        names = ("short", "long", "factor", "stretch")
        rule = [name for name in names if getattr(self, name) is not None]
        usual = rule in (["short", "long"], ["long"], ["factor"], ["stretch"])
        if not usual and not (not rule and self.within):
            raise OptionError(
                "Resize takes short and long, or long, factor, stretch or within alone; "
                f"got short={self.short}, long={self.long}, factor={self.factor}, "
                f"stretch={self.stretch}"
            )
        for name in names:
            value = getattr(self, name)
            numbers = value if isinstance(value, tuple) else (value,)
            if value is not None and not all(0 < number < math.inf for number in numbers):
                raise OptionError(f"Resize: {name} must be above 0 and finite, got {value}")
        if self.rounding not in ("nearest", "floor", "whole", "steps"):
            raise OptionError(
                f"Resize: rounding is 'nearest', 'floor', 'whole' or 'steps', got {self.rounding!r}"
            )
        if (self.corners or self.fixed_point) and self.antialias:
            raise OptionError("Resize: corners and fixed_point are for antialias=False")

    @classmethod
    def parse(cls, imgsz: Any, **conventions: Any) -> Resize:
        """Read the `imgsz` option: 640, (800, 1333), "800,1333" or "1.25x".

        Args:
            imgsz: a whole number is the long side, a pair the short and the long side, a text
                that ends in "x" a factor.
            **conventions: `rounding`, `antialias`, `corners`, `fixed_point` and `within` of the
                result.

        Raises:
            OptionError: if `imgsz` has none of these forms.
        """
        try:
            if isinstance(imgsz, str) and imgsz.strip().lower().endswith("x"):
                return cls(None, None, float(imgsz.strip()[:-1]), **conventions)
            sides = _sides(imgsz)
            if len(sides) == 1:
                return cls(None, sides[0], None, **conventions)
            short, long = sides
            return cls(short, long, None, **conventions)
        except (TypeError, ValueError, OverflowError) as error:
            raise OptionError(
                "imgsz is the long side (imgsz=640), the short and the long side "
                f"(imgsz=800,1333) or a factor (imgsz=1.25x); got {imgsz!r} ({error})"
            ) from None

    def to(self, imgsz: Any) -> Resize:
        """Return the rule for another size by the same conventions; None: this one.

        Of a network that takes one size a whole number is the side of its square input, a pair the
        height and the width.

        Raises:
            OptionError: if `imgsz` is no size.

        Examples:
            >>> Resize(None, None, stretch=(300, 300)).to("512").stretch
            (512, 512)
        """
        if imgsz is None:
            return self
        if not self.one_size:
            kept = ("rounding", "antialias", "corners", "fixed_point")
            same = {key: getattr(self, key) for key in kept}
            return Resize.parse(imgsz, within=self.within, **same)
        try:
            sides = _sides(imgsz)
            height, width = sides * 2 if len(sides) == 1 else sides
            return self.bound((height, width))
        except (TypeError, ValueError, OverflowError) as error:
            raise OptionError(
                "imgsz is the side of the square that this network takes (imgsz=300), or its "
                f"height and width (imgsz=300,400); got {imgsz!r} ({error})"
            ) from None

    @property
    def one_size(self) -> bool:
        """Whether every image comes to one size, or as near as fits into it."""
        return self.short is None and self.long is None and self.factor is None

    def bound(self, size: tuple[int, int] | None) -> Resize:
        """Return the rule whose results fit into (height, width); None: this one."""
        if size is None:
            return self
        if self.stretch is not None:
            return replace(self, stretch=size)
        return replace(self, within=size)

    def scaled(self, factor: float) -> Resize:
        """Return the rule that makes every image larger by this factor."""

        def times(side: int | None) -> int | None:
            return None if side is None else max(round(side * factor), 1)

        def both(size: tuple[int, int] | None) -> tuple[int, int] | None:
            return size and (max(round(size[0] * factor), 1), max(round(size[1] * factor), 1))

        return replace(
            self,
            short=times(self.short),
            long=times(self.long),
            factor=None if self.factor is None else self.factor * factor,
            stretch=both(self.stretch),
            within=both(self.within) if self.one_size else self.within,
        )

    def scale(self, height: int, width: int) -> float:
        """Return the ratio of new to old side of an image; stretched: of the roots of the areas."""
        if self.stretch is not None:
            return math.sqrt(self.stretch[0] * self.stretch[1] / (height * width))
        new, old = min(self._bounds(height, width), key=lambda bound: bound[0] / bound[1])
        return new / old

    def _bounds(self, height: int, width: int) -> list[tuple[float, int]]:
        """Return what must not be passed: a new side, and the old side that becomes it."""
        bounds: list[tuple[float, int]] = []
        if self.factor is not None:
            bounds.append((self.factor, 1))
        if self.long is not None:
            bounds.append((self.long, max(height, width)))
        if self.short is not None:
            bounds.append((self.short, min(height, width)))
        if self.within is not None:
            bounds += [(self.within[0], height), (self.within[1], width)]
        return bounds

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) of the network input, before padding, at least one pixel each.

        Raises:
            ValueError: if that is more than `MAX_INPUT` pixels, which no memory would hold.
        """
        if self.stretch is not None:
            size = self.stretch
        elif self.rounding == "whole":
            new, old = min(self._bounds(height, width), key=lambda bound: bound[0] / bound[1])
            size = max(int(height * new / old), 1), max(int(width * new / old), 1)
        else:
            sides = [side * self.scale(height, width) for side in (height, width)]
            if self.rounding == "steps" and self.short is not None and self.within is None:
                assert self.long is not None
                first = self.short / min(height, width)
                sides = [first * side for side in (height, width)]
                sides[height > width] = self.short
                if max(sides) > self.long:
                    sides = [side * (self.long / max(sides)) for side in sides]
            half = 0.0 if self.rounding == "floor" else 0.5
            size = max(int(sides[0] + half), 1), max(int(sides[1] + half), 1)
        if self.within is not None:  # by rounding, a side may pass it
            size = min(size[0], self.within[0]), min(size[1], self.within[1])
        if size[0] * size[1] > MAX_INPUT:
            raise ValueError(
                f"an image of {width}x{height} pixels would become {size[1]}x{size[0]} pixels of "
                f"network input, more than {MAX_INPUT}: lower imgsz, or cut it into tiles"
            )
        return size


def _sides(imgsz: Any) -> list[int]:
    """Return the numbers of an `imgsz` option: 640, (800, 1333) or "800,1333"."""
    if isinstance(imgsz, str):
        imgsz = imgsz.split(",")
    return [int(side) for side in (imgsz if isinstance(imgsz, list | tuple) else [imgsz])]


@dataclass(frozen=True)
class Preprocess:
    """How a photo becomes network input at test: short side scaled, then its middle cut out.

    Attributes:
        crop: side of the square that is cut out, in pixels.
        short: short side before that, at least `crop`.
        interpolation: "bilinear" or "bicubic", of 8-bit samples with a low-pass filter, as Pillow
            does and torchvision with `antialias`.
        mean: of red, green and blue samples, 0 to 255, in the data of the weights.
        std: their deviation.
    """

    crop: int = 224
    short: int = 256
    interpolation: str = "bilinear"
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) of a photo before the cut; the long side is truncated.

        Raises:
            ValueError: if that is more than `MAX_INPUT` pixels.
        """
        long = int(self.short * max(height, width) / min(height, width))
        if self.short * long > MAX_INPUT:
            raise ValueError(
                f"an image of {width}x{height} pixels would have {long} pixels along its long side "
                f"where the short one has {self.short}: cut it into parts"
            )
        return (self.short, long) if height <= width else (long, self.short)

    def resize(self) -> Resize:
        """Return the rule before the cut in the general form, for its description."""
        return Resize(self.short, MAX_INPUT // self.short, rounding="floor")
