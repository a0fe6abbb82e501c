"""The options of a training run that all tasks have, in a frozen dataclass: plain data in and out.

`maskwright.train`, the command line, the run folder (`args.yaml`) and every checkpoint use the list
of fields here and in the `recipe` module of a task: name, default and meaning stand there and
nowhere else. These modules import no torch, because the command line reads its options before
anything heavy is loaded.
"""

from __future__ import annotations

import ast
import inspect
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from ..channels import parse_channels, parse_one_page
from ..errors import NoOptionError, OptionError, nearest
from ..paths import home_path, names_path
from ..window import parse_window

# Type, range and its description of fields that are one number.
Number = tuple[Any, Callable[[float], bool], str]
WHOLE: Number = (int, lambda x: x >= 0, "a whole number of at least 0")
COUNT: Number = (int, lambda x: x >= 1, "a whole number of at least 1")
ABOVE_0: Number = ((int, float), lambda x: x > 0, "a number above 0")
# Nobody wants factors beyond these, and their products would leave what float32 can hold.
RATE: Number = ((int, float), lambda x: 0 < x <= 1e9, "a number above 0 and up to 1e9")
FACTOR: Number = ((int, float), lambda x: 0 <= x <= 1e6, "a number of at least 0 and up to 1e6")
SHARE: Number = ((int, float), lambda x: 0 <= x <= 1, "a share between 0 and 1")
INSIDE: Number = ((int, float), lambda x: 0 < x < 1, "a number between 0 and 1")
BELOW_1: Number = ((int, float), lambda x: 0 <= x < 1, "a number from 0 up to 1, without 1")
# Options that a comparison of several models decides for each of its trainings.
OF_ONE = ("model", "model_args", "seed", "resume")
LOGS = ("mlflow", "wandb")  # trackers that `log` names


@dataclass(frozen=True)
class TrainRecipe:
    """The options of one training run; contradictions raise OptionError when it is made.

    A task adds its own in a subclass, and may have other defaults: a field stands there again.
    """

    DOES: ClassVar[str] = "learn"
    NUMBERS: ClassVar[dict[str, Number]] = {
        "epochs": COUNT,
        "steps": COUNT,
        "minutes": ABOVE_0,
        "patience": WHOLE,
        "batch": (int, lambda x: x >= 1 or x == -1, "at least 1, or -1 for automatic"),
        "lr": RATE,
        "freeze": WHOLE,
        "workers": WHOLE,
        "seed": WHOLE,
        "weight_decay": FACTOR,
        "momentum": BELOW_1,
        "backbone_lr": FACTOR,
        "warmup": WHOLE,
        "clip": ABOVE_0,
        "accumulate": COUNT,
        "ema": INSIDE,
        "flip": SHARE,
        "vflip": SHARE,
        "rotate90": SHARE,
        "val_every": COUNT,
        "val_fraction": BELOW_1,
    }
    MAY_BE_NONE: ClassVar[tuple[str, ...]] = (
        "steps",
        "minutes",
        "lr",
        "weight_decay",
        "warmup",
        "clip",
        "ema",
    )
    CHOICES: ClassVar[dict[str, tuple[str, ...]]] = {
        "optimizer": ("adamw", "sgd"),
        "schedule": ("cosine", "multistep", "poly", "constant"),
        "precision": ("32", "bf16"),
        "holdout": ("stratified", "random"),
    }

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

    format: str | None = None
    """Read the data as this format, such as yolo or labelme, where a folder has several or is taken
    for another. None: as what is recognised."""

    epochs: int = 100
    """Passes over the training images."""

    steps: int | None = None
    """Stop after this many optimiser steps instead; an epoch is then only the unit of
    `val_every` and `patience`. None: `epochs` decides."""

    minutes: float | None = None
    """Stop after so many minutes of training steps instead, and let the learning rate fall with the
    time; validations and the first step, in which libraries warm up, do not count. Another run
    makes another number of steps, so that no seed repeats it. None: `epochs` or `steps` decides."""

    patience: int = 20
    """Epochs without a better score after which training stops; 0: never."""

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
    device, workers, patience and log may be given anew."""

    project: str | Path = "runs"
    """Folder that holds the run folders."""

    name: str | None = None
    """Name of the run: the folder is project/train/name, numbered if taken. None: "train"."""

    log: str | tuple[str, ...] | None = None
    """Trackers that get the numbers of each epoch as well: mlflow, wandb or mlflow,wandb. None:
    TensorBoard alone, if it is installed."""

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

    schedule: Literal["cosine", "multistep", "poly", "constant"] = "cosine"
    """Learning rate after the warm-up: a half cosine to 0, a tenth at each milestone, the power 0.9
    of what is left of the training, or flat."""

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

    photometric: bool = False
    """Random brightness, contrast, saturation and hue."""

    window: tuple[float, float] | str | None = None
    """Sample values that become 0 to 255 in images of more than 8 bits: the smallest and the
    largest, as in 0,4095; minmax: of the training images. None: auto, like percentile: from the 0.1
    to the 99.9 percentile of the training images. The window stays in the checkpoint."""

    page: int | str | None = None
    """Which image of files that hold several, such as TIFF stacks, from 0 on; None: the first."""

    channels: int | str | tuple[int, ...] | None = None
    """Numbers from 0 on of the channels of the files that the network gets, in this order, as in
    3,0,1. None: red, green and blue, or grey; of other images all they have. They stay in the
    checkpoint."""

    val_every: int = 1
    """Epochs between validations; the last epoch always has one."""

    val_fraction: float = 0.15
    """Share of the images held out for validation when the data has one split only; 0: none, all
    are trained on and the newest weights are the best."""

    holdout: Literal["stratified", "random"] = "stratified"
    """How these images are chosen: stratified (images with objects and every class in both parts,
    in proportion) or random (whatever is in them)."""

    model_args: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the model's builder function, by name."""

    def __post_init__(self) -> None:
        set_field = object.__setattr__  # the dataclass is frozen
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, list):
                set_field(self, entry.name, tuple(value))
            if names_path(str(entry.type)):
                set_field(self, entry.name, home_path(getattr(self, entry.name)))
        set_field(self, "model_args", dict(self.model_args))
        parse_window(self.window)
        parse_one_page(self.page)
        parse_channels(self.channels)
        self._check_numbers()
        self._check_combinations()
        for name in set(self.logs).difference(LOGS):
            raise OptionError(f"log={name}: known are {', '.join(LOGS)}{nearest(name, LOGS)}")

    def _check_numbers(self) -> None:
        for name, (kind, accepts, expected) in self.NUMBERS.items():
            value = getattr(self, name)
            if value is None and name in self.MAY_BE_NONE:
                continue
            good = isinstance(value, kind) and not isinstance(value, bool)
            if not (good and math.isfinite(value) and accepts(value)):
                raise OptionError(f"{name}={value!r}: expected {expected}")
        for name, choices in self.CHOICES.items():
            if getattr(self, name) not in choices:
                raise OptionError(
                    f"{name}={getattr(self, name)!r}: expected one of {', '.join(choices)}"
                    f"{nearest(str(getattr(self, name)), choices)}"
                )
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
        if self.steps is not None and self.minutes is not None:
            raise OptionError(
                f"steps={self.steps} and minutes={self.minutes:g} both end the training: leave one "
                "of the two out"
            )
        if self.steps is not None and self.warmup is not None and self.warmup > self.steps:
            raise OptionError(
                f"warmup={self.warmup} is longer than the whole training, steps={self.steps}: "
                "lower warmup or leave it out"
            )
        for name in ("backbone", "imgsz"):
            if getattr(self, name) is not None and name in self.model_args:
                raise OptionError(f"{name} is given twice, by itself and in model_args: drop one")

    @property
    def logs(self) -> tuple[str, ...]:
        """The trackers that `log` names, each once."""
        given = self.log if isinstance(self.log, str) else ",".join(self.log or ())
        return tuple(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))

    @property
    def validates(self) -> bool:
        """False for a training whose model cannot be scored yet."""
        return True

    @property
    def whole_images(self) -> bool:
        """True if a step sees whole images, so that the largest of them tell how much it needs."""
        return True

    @property
    def varies(self) -> bool:
        """True if other parameters train in one epoch than in another."""
        return False

    @property
    def learns_more(self) -> bool:
        """True if something is learned from that is never scored."""
        return False

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
    def from_dict(cls, options: Mapping[str, Any]) -> Self:
        """Build a recipe from plain data; what `args.yaml` adds under `resolved` is left out.

        Raises:
            TypeError: if a name is no field; the message names the nearest one.
        """
        options = {name: value for name, value in options.items() if name != "resolved"}
        check_names(options, cls)
        return cls(**options)


def check_names(
    options: Iterable[str], kind: type[TrainRecipe], others: Iterable[type[TrainRecipe]] = ()
) -> None:
    """Raise for the first option that is no field; the message names the nearest.

    Args:
        options: names.
        kind: the options of the task.
        others: those of the other tasks, of which an option is told apart from a slip.

    Raises:
        NoOptionError: which is a TypeError.
    """
    known = [entry.name for entry in fields(kind)]
    for name in options:
        if name in known:
            continue
        having = [other.DOES for other in others if name in [entry.name for entry in fields(other)]]
        if having:
            raise NoOptionError(
                f"train has the option {name!r} for models that {' or '.join(having)}; this one is "
                f"there to {kind.DOES}"
            )
        raise NoOptionError(f"train has no option {name!r}{nearest(name, known)}")


def check_known(options: Iterable[str], kinds: Iterable[type[TrainRecipe]]) -> None:
    """Raise for the first option that no task has, whatever the model; see `check_names`.

    Raises:
        NoOptionError: which is a TypeError.
    """
    known = list(dict.fromkeys(entry.name for kind in kinds for entry in fields(kind)))
    for name in options:
        if name not in known:
            raise NoOptionError(f"train has no option {name!r}{nearest(name, known)}")


def option_help(kind: type[TrainRecipe]) -> dict[str, str]:
    """Return the meaning of each field: the text that stands under it in its file."""
    texts: dict[str, str] = {}
    for part in reversed(kind.__mro__[:-1]):
        tree = ast.parse(textwrap.dedent(inspect.getsource(part))).body[0]
        assert isinstance(tree, ast.ClassDef)
        for entry, text in zip(tree.body, tree.body[1:], strict=False):
            if (
                isinstance(entry, ast.AnnAssign)
                and isinstance(entry.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                texts[entry.target.id] = " ".join(str(text.value.value).split())
    return texts


def marked_help(kinds: Sequence[type[TrainRecipe]]) -> dict[str, str]:
    """Return the meaning of the fields of several recipes; those that not all have say who has.

    Args:
        kinds: the recipes; where several have a field, the first explains it, and behind that
            stands what it is to those that explain it otherwise.
    """
    meaning: dict[str, list[tuple[str, str]]] = {}
    for kind in kinds:
        for name, text in option_help(kind).items():
            meaning.setdefault(name, []).append((text, kind.DOES))
    marked = {}
    for name, texts in meaning.items():
        parts = [texts[0][0], *(f"For {who}: {text}" for text, who in _differing(texts))]
        if len(texts) < len(kinds):
            parts.append(f"Only for models that {' or '.join(does for _, does in texts)}.")
        marked[name] = " ".join(parts)
    return marked


def other_defaults(kinds: Sequence[type[TrainRecipe]]) -> dict[str, list[tuple[Any, str]]]:
    """Return the defaults other than those of `option_parameters`, by name of the field.

    Returns:
        Pairs of a default and who has it, such as (32, "models that classify images"). `model` has
        none: it chooses the recipe, and without it the first one holds.
    """
    defaults: dict[str, list[tuple[Any, str]]] = {}
    for kind in kinds:
        for entry in fields(kind):
            defaults.setdefault(entry.name, []).append((_default(entry), kind.DOES))
    del defaults["model"]
    return {name: found for name, pairs in defaults.items() if (found := _differing(pairs))}


def _differing(pairs: Sequence[tuple[Any, str]]) -> list[tuple[Any, str]]:
    """Return the values other than the first, each once, with all who have it in words."""
    others: list[Any] = []
    for value, _ in pairs:
        if value not in (pairs[0][0], *others):
            others.append(value)
    return [
        (other, f"models that {' or '.join(does for value, does in pairs if value == other)}")
        for other in others
    ]


def option_parameters(*kinds: type[TrainRecipe]) -> list[inspect.Parameter]:
    """Return the fields of recipes as parameters of a function, `data` and `model` positional.

    A field of several has the default of the first (`other_defaults`: the rest), and the types of
    all.
    """
    types: dict[str, list[str]] = {}
    for entry in (entry for kind in kinds for entry in fields(kind)):
        types.setdefault(entry.name, []).extend(str(entry.type).split(" | "))
    parameters: dict[str, inspect.Parameter] = {}
    for entry in (entry for kind in kinds for entry in fields(kind)):
        positional = entry.name in ("data", "model")
        parameter = inspect.Parameter(
            entry.name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD
            if positional
            else inspect.Parameter.KEYWORD_ONLY,
            default=_default(entry),
            annotation=" | ".join(dict.fromkeys(types[entry.name])),
        )
        parameters.setdefault(entry.name, parameter)
    return list(parameters.values())


def _default(entry: Field[Any]) -> Any:
    if entry.default is MISSING:
        assert entry.default_factory is not MISSING
        return entry.default_factory()
    return entry.default


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
