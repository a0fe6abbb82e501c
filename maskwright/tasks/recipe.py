"""All options of a training run in one frozen dataclass, plain data in and out.

`maskwright.train`, the command line, the run folder (`args.yaml`) and every checkpoint use this
one list of fields: name, default and meaning stand here and nowhere else. The module imports no
torch, because the command line reads its options before anything heavy is loaded.
"""

from __future__ import annotations

import ast
import inspect
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal

from ..errors import OptionError, nearest
from ..paths import home_path, names_path
from ..window import parse_window


@dataclass(frozen=True)
class TrainRecipe:
    """The options of one training run; contradictions raise OptionError when it is made."""

    data: str | Path = ""
    """Folder or file of the data set, any format that `maskwright data check` reads."""

    model: str = "mask_rcnn_resnet50_fpn"
    """Registered name of the model: `maskwright models` lists them, `maskwright models NAME` the
    further options of one."""

    weights: str | Path | Literal["none"] | None = None
    """Weights to start from: a checkpoint, a run folder or a published name such as coco; None:
    ImageNet weights of the backbone where they can be had; imagenet:FILE: those of a classifier in
    a local file; "none": random."""

    backbone: str | None = None
    """Name of a timm backbone in place of the model's own. None: the model's own."""

    epochs: int = 100
    """Passes over the training images."""

    steps: int | None = None
    """Stop after this many optimiser steps instead; an epoch is then only the unit of
    `val_every` and `patience`. None: `epochs` decides."""

    patience: int = 20
    """Epochs without a better AP after which training stops; 0: never."""

    batch: int = 2
    """Images per step and device; -1: automatic (2 on the CPU, by free memory on CUDA)."""

    imgsz: int | tuple[int, int] | str | None = None
    """Image size in pixels: the long side, a pair of short and long side, or a factor such as
    "1.25x". None: the rule of the model (800,1333 for the ResNet models)."""

    lr: float | None = None
    """Peak learning rate. None: scaled to the images per step n: sgd 0.02 * n / 16, adamw
    0.001 * sqrt(n / 16)."""

    freeze: int = 2
    """Stages of the backbone that stay as they are, counted from the input; 0: none."""

    device: str = "auto"
    """Where to compute: auto, cpu, mps, cuda, cuda:1; several with torchrun."""

    workers: int = 2
    """Processes that load images beside the one that trains; 0: none."""

    seed: int = 0
    """Start of all random numbers: on the CPU the same seed gives the same weights."""

    resume: str | Path | None = None
    """Run folder or `last` checkpoint to go on with, with the options of that run; only data,
    device, workers and patience may be given anew."""

    project: str | Path = "runs"
    """Folder that holds the run folders."""

    name: str | None = None
    """Name of the run: the folder is project/train/name, numbered if taken. None: "train"."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    """Update rule."""

    weight_decay: float | None = None
    """Decay of weights; biases and norms (one-dimensional) have none. None: 0.05 with adamw,
    0.0001 with sgd."""

    momentum: float = 0.9
    """Momentum of sgd and first beta of adamw."""

    backbone_lr: float = 0.5
    """Learning rate of the backbone as a fraction of `lr`."""

    warmup: int | None = None
    """Optimiser steps over which the learning rate rises linearly from near 0 to its peak, so
    that fresh heads do not wreck pretrained features. None: a tenth of all, at most 500."""

    schedule: Literal["cosine", "multistep", "constant"] = "cosine"
    """Learning rate after the warm-up: a half cosine to 0, a tenth at each milestone, or flat."""

    milestones: tuple[float, ...] = (0.66, 0.92)
    """Where `multistep` falls, as fractions of all steps."""

    clip: float | None = 5.0
    """Largest norm of the gradient; a longer one is shortened to it. None: never."""

    accumulate: int = 1
    """Batches whose gradients are averaged into one optimiser step."""

    ema: float | None = None
    """Decay per step of a running average of the weights, which is then what is validated and
    kept as best, such as 0.999. None: no average."""

    precision: Literal["32", "bf16"] = "32"
    """"bf16" computes convolutions and products in bfloat16, with float32 weights."""

    flip: float = 0.5
    """Share of images mirrored left to right."""

    vflip: float = 0.0
    """Share of images mirrored top to bottom (microscopy, aerial images)."""

    rotate90: float = 0.0
    """Share of images turned by 90, 180 or 270 degrees (microscopy, aerial images)."""

    scale_jitter: tuple[float, float] = (1.0, 1.0)
    """Smallest and largest random factor on the image size."""

    crop: int | tuple[int, int] | None = None
    """Random window of the scaled image in pixels, one side or (height, width). None: whole."""

    photometric: bool = False
    """Random brightness, contrast, saturation and hue."""

    difficult: bool = False
    """Train on objects that Pascal VOC marks `difficult` as well; otherwise they count neither as
    objects nor as background. In validation they never count."""

    window: tuple[float, float] | str | None = None
    """Sample values that become 0 to 255 in images of more than 8 bits: the smallest and the
    largest, as in 0,4095; minmax: of the training images. None: auto, like percentile: from the 0.1
    to the 99.9 percentile of the training images. The window stays in the checkpoint."""

    crowd_as_objects: bool = False
    """Take what COCO JSON marks iscrowd=1 as objects, in training and validation; CVAT marks masks
    so. Otherwise these are regions of many, which count neither as objects nor as background."""

    max_det: int = 100
    """Most detections per image in validation; raise it for crowded images."""

    val_boundary: bool = False
    """Score masks in validation by boundary IoU as well (`val/boundary/AP`, Cheng et al. 2021)."""

    val_every: int = 1
    """Epochs between validations; the last epoch always has one."""

    val_fraction: float = 0.15
    """Share of the images held out for validation when the data has one split only; 0: none, all
    are trained on and the newest weights are the best."""

    holdout: Literal["stratified", "random"] = "stratified"
    """How these images are chosen: stratified (images with objects and every class in both parts,
    in proportion) or random (whatever is in them)."""

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

    model_args: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the model's builder function, by name."""

    def __post_init__(self) -> None:
        set_field = object.__setattr__  # the dataclass is frozen
        for name in ("imgsz", "milestones", "scale_jitter", "crop", "window"):
            value = getattr(self, name)
            if isinstance(value, list):
                set_field(self, name, tuple(value))
        for entry in fields(self):
            if names_path(str(entry.type)):
                set_field(self, entry.name, home_path(getattr(self, entry.name)))
        set_field(self, "model_args", dict(self.model_args))
        parse_window(self.window)
        self._check_numbers()
        self._check_combinations()

    def _check_numbers(self) -> None:
        for name, (kind, accepts, expected) in _NUMBERS.items():
            value = getattr(self, name)
            if value is None and name in _MAY_BE_NONE:
                continue
            good = isinstance(value, kind) and not isinstance(value, bool)
            if not (good and math.isfinite(value) and accepts(value)):
                raise OptionError(f"{name}={value!r}: expected {expected}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise OptionError(
                    f"{name}={getattr(self, name)!r}: expected one of {', '.join(choices)}"
                    f"{nearest(str(getattr(self, name)), choices)}"
                )
        smallest, largest = self.scale_jitter
        if not 0 < smallest <= largest < math.inf:
            raise OptionError(
                f"scale_jitter={self.scale_jitter}: expected the smallest and the largest factor, "
                "both above 0, such as (0.8, 1.25)"
            )
        sides = (self.crop,) if isinstance(self.crop, int) else self.crop
        if sides is not None and not (len(sides) in (1, 2) and min(sides) >= 1):
            raise OptionError(f"crop={self.crop}: expected one side or (height, width) in pixels")
        if self.imgsz is not None:
            from ..structures import Resize  # imports torch

            Resize.parse(self.imgsz)

    def _check_combinations(self) -> None:
        if not str(self.data) and self.resume is None:
            raise OptionError("data is missing: give the folder or file of the data set")
        if self.resume is not None and self.weights is not None:
            raise OptionError(
                f"weights={self.weights} contradicts resume={self.resume}: a resumed run has its "
                "weights; leave one of the two out"
            )
        if list(self.milestones) != sorted(set(self.milestones)) or not all(
            0 < fraction < 1 for fraction in self.milestones
        ):
            raise OptionError(
                f"milestones={self.milestones}: expected rising fractions of all steps between "
                "0 and 1, such as (0.66, 0.92)"
            )
        if self.steps is not None and self.warmup is not None and self.warmup > self.steps:
            raise OptionError(
                f"warmup={self.warmup} is longer than the whole training, steps={self.steps}: "
                "lower warmup or leave it out"
            )
        if self.alternate and (self.train_part != "all" or self.proposal_model is not None):
            raise OptionError(
                "alternate=true chooses train_part and proposal_model of its steps by itself: "
                "leave them out"
            )
        if self.proposal_model is not None and not self.train_part.startswith("heads"):
            raise OptionError(
                f"proposal_model is for train_part=heads, got train_part={self.train_part}"
            )
        for name in ("backbone", "imgsz"):
            if getattr(self, name) is not None and name in self.model_args:
                raise OptionError(f"{name} is given twice, by itself and in model_args: drop one")

    def peak_lr(self, images_per_step: int) -> float:
        """Return `lr`, or the value scaled to the number of images behind one optimiser step."""
        if self.lr is not None:
            return self.lr
        if self.optimizer == "sgd":  # the linear rule, Goyal et al. 2017
            return 0.02 * images_per_step / 16
        return 1e-3 * math.sqrt(images_per_step / 16)  # the square-root rule for Adam

    def decay(self) -> float:
        """Return `weight_decay`, or the default of the optimiser."""
        if self.weight_decay is not None:
            return self.weight_decay
        return 0.05 if self.optimizer == "adamw" else 1e-4

    def warmup_steps(self, total: int) -> int:
        """Return the length of the warm-up in a training of `total` optimiser steps."""
        return min(500, total // 10) if self.warmup is None else self.warmup

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain data (for YAML and JSON): paths as text, tuples as lists."""
        return {entry.name: _plain(getattr(self, entry.name)) for entry in fields(self)}

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> TrainRecipe:
        """Build a recipe from plain data; what `args.yaml` adds under `resolved` is left out.

        Raises:
            TypeError: if a name is no field; the message names the nearest one.
        """
        options = {name: value for name, value in options.items() if name != "resolved"}
        check_names(options)
        return cls(**options)


_WHOLE = (int, lambda x: x >= 0, "a whole number of at least 0")
_COUNT = (int, lambda x: x >= 1, "a whole number of at least 1")
_ABOVE_0 = ((int, float), lambda x: x > 0, "a number above 0")
# Nobody wants factors beyond these, and their products would leave what float32 can hold.
_RATE = ((int, float), lambda x: 0 < x <= 1e9, "a number above 0 and up to 1e9")
_FACTOR = ((int, float), lambda x: 0 <= x <= 1e6, "a number of at least 0 and up to 1e6")
_SHARE = ((int, float), lambda x: 0 <= x <= 1, "a share between 0 and 1")
_INSIDE = ((int, float), lambda x: 0 < x < 1, "a number between 0 and 1")
# Type, range and its description of each field that is one number.
_NUMBERS: dict[str, tuple[Any, Callable[[float], bool], str]] = {
    "epochs": _COUNT,
    "steps": _COUNT,
    "patience": _WHOLE,
    "batch": (int, lambda x: x >= 1 or x == -1, "at least 1, or -1 for automatic"),
    "lr": _RATE,
    "freeze": _WHOLE,
    "workers": _WHOLE,
    "seed": _WHOLE,
    "weight_decay": _FACTOR,
    "momentum": ((int, float), lambda x: 0 <= x < 1, "a number from 0 up to 1, without 1"),
    "backbone_lr": _FACTOR,
    "warmup": _WHOLE,
    "clip": _ABOVE_0,
    "accumulate": _COUNT,
    "ema": _INSIDE,
    "flip": _SHARE,
    "vflip": _SHARE,
    "rotate90": _SHARE,
    "max_det": _COUNT,
    "val_every": _COUNT,
    "val_fraction": ((int, float), lambda x: 0 <= x < 1, "a number from 0 up to 1, without 1"),
}
_MAY_BE_NONE = ("steps", "lr", "weight_decay", "warmup", "clip", "ema")
_CHOICES = {
    "optimizer": ("adamw", "sgd"),
    "schedule": ("cosine", "multistep", "constant"),
    "precision": ("32", "bf16"),
    "holdout": ("stratified", "random"),
    "train_part": ("all", "rpn", "heads", "rpn-only", "heads-only"),
}


def check_names(options: Iterable[str]) -> None:
    """Raise TypeError for the first option that is no field, with the nearest known name."""
    known = [entry.name for entry in fields(TrainRecipe)]
    for name in options:
        if name not in known:
            raise TypeError(f"train has no option {name!r}{nearest(name, known)}")


@cache
def option_help() -> dict[str, str]:
    """Return the meaning of each field: the text that stands under it in this file."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(TrainRecipe))).body[0]
    assert isinstance(tree, ast.ClassDef)
    texts: dict[str, str] = {}
    for entry, text in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(entry, ast.AnnAssign)
            and isinstance(entry.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            texts[entry.target.id] = " ".join(str(text.value.value).split())
    return texts


def option_parameters() -> list[inspect.Parameter]:
    """Return the fields as parameters of a function, `data` and `model` positional."""
    parameters = []
    for entry in fields(TrainRecipe):
        positional = entry.name in ("data", "model")
        default = entry.default
        if default is MISSING:
            assert entry.default_factory is not MISSING
            default = entry.default_factory()
        parameters.append(
            inspect.Parameter(
                entry.name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD
                if positional
                else inspect.Parameter.KEYWORD_ONLY,
                default=default,
                annotation=entry.type,
            )
        )
    return parameters


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
