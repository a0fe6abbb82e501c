"""The options of a prediction of classes, checked, and how a photo is cut for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...errors import OptionError, whole_number
from ...structures import Preprocess
from ..base import Settings
from ..thresholds import parse_conf

WAYS = ("flip", "tencrop")
LEAST_SCORE = 0.5  # of a class of an image that may have several, where F1 is measured
# A default as low as this is there for curves over all scores, and chooses no classes.
FOR_CURVES = 0.01


@dataclass(frozen=True)
class Cut:
    """The rule by which a photo becomes network input at test.

    Attributes:
        preprocess: of the model.
        ten: cut out the four corners of the scaled photo as well as its middle, each also mirrored.
    """

    preprocess: Preprocess
    ten: bool = False

    @property
    def count(self) -> int:
        """Squares of one photo."""
        return 10 if self.ten else 1

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) of the input of a photo of this size: its squares in a column."""
        return self.count * self.preprocess.crop, self.preprocess.crop


@dataclass(frozen=True)
class ClassificationSettings(Settings):
    """What of a classifier's answer is shown, and how often an image is looked at.

    Attributes:
        topk: most classes that are shown.
        conf: least probability of a class of an image that may have several.
        floors: that of each class, none below `conf`; None: `conf` counts for all.
        tta: None: once; "flip": mirrored as well; "tencrop": at the corners and the middle, each
            mirrored as well.
    """

    topk: int = 5
    conf: float = LEAST_SCORE
    tta: str | None = None
    floors: tuple[float, ...] | None = None

    def rules(self, resize: Any) -> list[Any]:
        """Return the rule for the middle of a photo, or for ten parts of it."""
        return [replace(resize, ten=True)] if self.tta == "tencrop" else [resize]


def make_settings(
    model: Any,
    given: Mapping[str, Any],
    defaults: Mapping[str, Any],
    names: Sequence[str] = (),
) -> ClassificationSettings:
    """Return the checked options of a prediction or validation.

    Args:
        model: the classifier.
        given: options by name.
        defaults: what they are if nobody says anything.
        names: class names.

    Raises:
        OptionError: if one is wrong, or does not fit the model.
    """
    conf, tta = given.get("conf"), given.get("tta")
    usual = conf == defaults.get("conf")
    if conf is None or (usual and conf <= FOR_CURVES):
        conf = LEAST_SCORE
    elif not usual and not model.multilabel:
        raise OptionError(
            f"conf={conf} chooses among several classes of an image, but this model gives each "
            "image one: leave it out"
        )
    asked = parse_conf(conf)
    floors = asked.by_label(names, defaults.get("conf", LEAST_SCORE)) if asked.named else None
    least = min(floors) if floors else asked.others
    assert least is not None
    if tta is not None and tta not in WAYS:
        raise OptionError(f"tta={tta}: expected {' or '.join(WAYS)} for a model of classes")
    return ClassificationSettings(whole_number("topk", given.get("topk", 5)), least, tta, floors)


def cut_rule(model: Any, imgsz: Any) -> Cut:
    """Return the model's rule, or that of another size of the square in the same proportion.

    Raises:
        OptionError: if `imgsz` is no size, or too small for the network.
    """
    own: Preprocess = model.preprocess
    if imgsz is None:
        return Cut(own)
    try:
        side = int(str(imgsz)) if not isinstance(imgsz, bool) else 0
    except ValueError:
        side = 0
    if side < 1:
        raise OptionError(
            f"imgsz={imgsz}: expected the side of the square in pixels, such as imgsz={own.crop}"
        )
    least = model.network.smallest if hasattr(model, "network") else 1
    if side < least:
        raise OptionError(f"imgsz={side}: this network needs at least {least} pixels")
    return Cut(replace(own, crop=side, short=max(own.short * side // own.crop, side)))
