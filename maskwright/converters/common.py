"""What all converters share: the result, the report, the COCO classes, recognising a format."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import first_few
from ..structures import COCO_PERSON, Skeleton

COUNTER = "num_batches_tracked"  # of batch norm
# A tensor that no other library keeps with its weights: the running normaliser of a RetinaNet.
OURS_ALONE = "head.positives"

# The 80 classes of COCO 2017 by their ids 1 to 90; ten ids are unused.
_COCO = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,-,"
    "stop sign,parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,-,"
    "backpack,umbrella,-,-,handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,"
    "baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,-,wine glass,cup,fork,"
    "knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,"
    "chair,couch,potted plant,bed,-,dining table,-,-,toilet,-,tv,laptop,mouse,remote,keyboard,"
    "cell phone,microwave,oven,toaster,sink,refrigerator,-,book,clock,vase,scissors,teddy bear,"
    "hair drier,toothbrush"
)
COCO_91_NAMES: list[str | None] = [name if name != "-" else None for name in _COCO.split(",")]


@dataclass
class ConvertReport:
    """What became of every tensor.

    Attributes:
        used: source tensors whose values are in the result.
        ignored: source tensors that the result does not need, each with the reason.
        filled: result tensors that the source did not have, each with what stands there.
        notes: anything else that the user should know.
        model: our name of the model.
    """

    used: list[str] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)
    filled: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    model: str = ""

    def __str__(self) -> str:
        lines = [
            (f"{self.model}: " if self.model else "") + f"{len(self.used)} tensors used, "
            f"{len(self.ignored)} ignored, {len(self.filled)} filled"
        ]
        for word, table in (("ignored", self.ignored), ("filled", self.filled)):
            by_reason: dict[str, list[str]] = {}
            for name, reason in table.items():
                by_reason.setdefault(reason, []).append(name)
            lines += [
                f"  {word}: {first_few(names, 2)}: {reason}" for reason, names in by_reason.items()
            ]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


@dataclass
class Converted:
    """Weights in our layout.

    Attributes:
        state: tensors by our names.
        options: builder options that make the detector fit them.
        names: class names, None where the source left a class unused.
        category_ids: the source's ids of the classes.
        extras: what our layout has no place for but the way back needs, by the source's names.
        report: what became of every tensor.
        skeleton: the keypoints, for a model that finds some.
        body: the last layers are not there, see `darknet`: for trainings to start from.
    """

    state: dict[str, Tensor]
    options: dict[str, Any]
    names: list[str | None]
    category_ids: list[int]
    extras: dict[str, Tensor]
    report: ConvertReport
    skeleton: Skeleton | None = None
    body: bool = False


def default_skeleton(count: int) -> Skeleton | None:
    """Return the keypoints of weights that do not name them: COCO's person if there are 17."""
    if not count:
        return None
    if count == len(COCO_PERSON):
        return COCO_PERSON
    return Skeleton(tuple(f"keypoint_{i}" for i in range(1, count + 1)))


# Tensors that tell whose names a file uses; older torchvision has no ".0".
_MARKS = {
    "torchvision": re.compile(
        r"(backbone\.fpn\.inner_blocks|head\.classification_head\.module_list)"
        r"\.\d+\.(\d+\.)?(weight|bias)"
    ),
    "mmdetection": re.compile(
        r"(neck\.lateral_convs\.\d+|neck\.extra_layers\.\d+\.\d+|backbone\.extra\.\d+)"
        r"\.(\w+\.)?(weight|bias)"
    ),
    "detectron2": re.compile(
        r"((backbone\.)?fpn_lateral\d|(proposal_generator\.)?rpn_head\.anchor_deltas)"
        r"\.(\w+\.)?(weight|bias)"
    ),
    "detectron": re.compile(r"(rpn_bbox_pred(_fpn\d)?|bbox_pred)_[wb]"),
    "amdegroot": re.compile(r"(loc|conf)\.\d+\.(weight|bias)"),
    "maskwright": re.compile(
        r"(roi_heads\.box_)?head\.(logits|deltas)\.(\d+\.)?(1\.)?(weight|bias)"
    ),
}


def is_known_name(key: str) -> bool:
    """Whether a tensor's name tells that its file is of a known library; see `detect_format`."""
    return any(mark.fullmatch(key) for mark in _MARKS.values())


def detect_format(keys: Iterable[str]) -> str:
    """Return whose names these are: those of one of `CONVERTERS`, or our own, "maskwright".

    Raises:
        ValueError: if no known library uses such names.
    """
    keys = list(keys)
    for name, mark in _MARKS.items():
        if any(mark.fullmatch(key) for key in keys):
            return name
    raise ValueError(
        "these are no weights of a known library: expected torchvision's names "
        "(backbone.fpn.inner_blocks..., head.classification_head...), mmdetection's "
        "(neck.lateral_convs...), detectron2's (proposal_generator.rpn_head..., "
        "backbone.fpn_lateral...), Detectron's (bbox_pred_w...) or ssd.pytorch's (loc.0...), "
        f"found {', '.join(keys[:3]) or 'nothing'}"
    )


def require(state: Mapping[str, Tensor], key: str) -> Tensor:
    """Return a tensor, or say which one is missing.

    Raises:
        ValueError: if there is no tensor of this name.
    """
    if key not in state:
        raise ValueError(
            f"the weights have no tensor {key!r}: the file is incomplete, or another model's"
        )
    return state[key]


def count_rows(state: Mapping[str, Tensor], classes: str, boxes: str, *, background: bool) -> int:
    """Return how many rows the class scores have, background included.

    Args:
        state: tensors by name.
        classes: prefix of the layer of the class scores.
        boxes: prefix of the layer of the box deltas, four rows a class.
        background: whether the background has deltas.

    Raises:
        ValueError: if a tensor is missing or the rows do not fit together.
    """
    rows = require(state, classes + "weight").shape[0]
    box_rows, wanted = require(state, boxes + "weight").shape[0], 4 * (rows - (not background))
    if box_rows != wanted:
        raise ValueError(
            f"{classes}weight has {rows} rows, so {boxes}weight needs {wanted}; got {box_rows}"
            + (": one box for all classes, which does not come in" if box_rows == 4 else "")
        )
    return rows


def for_each_class(
    state: Mapping[str, Tensor], count: int, layers: Mapping[str, int], report: ConvertReport
) -> Mapping[str, Tensor]:
    """Return tensors where a layer that serves all classes alike has its rows for each of them.

    What such a network finds stays the same to the bit.

    Args:
        state: tensors by name.
        count: real classes.
        layers: prefix and rows of one class, background aside.
        report: gets a note of each that was changed.
    """
    found = dict(state)
    for prefix, rows in layers.items():
        own = {key: state[key] for key in (f"{prefix}weight", f"{prefix}bias") if key in state}
        if count > 1 and own and all(len(value) == rows for value in own.values()):
            found |= {key: torch.cat([value] * count) for key, value in own.items()}
            report.notes.append(f"{prefix}weight is one for all classes: each has it now")
    return found


def renamed(name: str, prefixes: Iterable[tuple[str, str]]) -> str | None:
    """Return another library's name of our tensor; None if no prefix is that of the name.

    Args:
        name: ours.
        prefixes: our prefix and theirs; `#` stands for a number that is kept.
    """
    for ours, theirs in prefixes:
        match = re.match(re.escape(ours).replace(r"\#", r"(\d+)"), name)
        if match:
            number = match.group(1) if match.groups() else ""
            return theirs.replace("#", number) + name[match.end() :]
    return None


def kept_classes(
    names: Sequence[str | None], rows: int, drop_unused: bool, report: ConvertReport
) -> list[int]:
    """Return the positions of the classes that stay, of rows that have the background before them.

    Args:
        names: of the classes, None for an unused one.
        rows: classes and background.
        drop_unused: leave out those without a name, and say so in the report.
        report: of the conversion.

    Raises:
        ValueError: if there are not as many names as classes.
    """
    if len(names) != rows - 1:
        raise ValueError(f"the weights have {rows - 1} classes, but {len(names)} names were given")
    keep = [i for i, name in enumerate(names) if name is not None or not drop_unused]
    if len(keep) < len(names):
        report.notes.append(f"{len(names) - len(keep)} unused classes dropped (lossy)")
    return keep


def plain_classes(
    names: list[str | None] | None, rows: int, *, joints: int = 0
) -> tuple[list[str | None], list[int]]:
    """Return names and ids of the classes of weights that have no rows of the background.

    Args:
        names: if they are known; None: COCO's if there are 80, or one with the keypoints of a
            person.
        rows: how many classes there are.
        joints: keypoints of an object.

    Raises:
        ValueError: if there are not as many names as classes.
    """
    ids = list(range(1, rows + 1))
    if names is None and rows == 80:
        ids = [i for i, name in enumerate(COCO_91_NAMES, 1) if name is not None]
        names = [name for name in COCO_91_NAMES if name is not None]
    elif names is None and rows == 1 and joints == len(COCO_PERSON):
        names = ["person"]
    elif names is None:
        names = [f"class_{i}" for i in ids]
    if len(names) != rows:
        raise ValueError(f"the weights have {rows} classes, but {len(names)} names were given")
    return names, ids


def rows_of_classes(category_ids: list[int], report: ConvertReport) -> Tensor:
    """Return the row of each class where row 0 is of none: its id, or its position if ids clash."""
    if sorted(set(category_ids)) == sorted(category_ids) and min(category_ids) >= 1:
        return torch.tensor(category_ids)
    report.notes.append("classes renumbered from 1")
    return torch.arange(1, len(category_ids) + 1)


def put_back_counters(result: dict[str, Tensor], extras: Mapping[str, Tensor]) -> None:
    """Give norms the counts of batches that were kept for the way back, perhaps by another library.

    Args:
        result: tensors by the names of a library, to which they are added.
        extras: what was kept.
    """
    for key, value in extras.items():
        if key.endswith(COUNTER) and key.removesuffix(COUNTER) + "weight" in result:
            result[key] = value


def flat_columns(weight: Tensor, channels: int, *, ours: bool) -> Tensor:
    """Reorder the columns of the first fully connected layer to our order, or back."""
    side = round((weight.shape[1] // channels) ** 0.5)
    rows = weight.shape[0]
    if ours:  # (channel, row, column) -> (row, column, channel)
        return weight.reshape(rows, channels, side, side).permute(0, 2, 3, 1).flatten(1)
    return weight.reshape(rows, side, side, channels).permute(0, 3, 1, 2).flatten(1)
