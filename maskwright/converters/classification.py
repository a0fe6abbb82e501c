"""torchvision's and timm's classification networks: one row of a table for each family.

Ours bear the names of the common source, so that most rows say nothing but that. A row tells what
a library calls otherwise, and which tensors have another shape there; values never change, so that
the way there and back is equal to the bit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .common import Converted, ConvertReport, require

OURS = "network."  # before the names of our networks
_COUNTER = "num_batches_tracked"  # files of older versions have none


@dataclass(frozen=True)
class Layout:
    """How a library calls the tensors of a family.

    Attributes:
        names: regular expressions on our names and what stands there in theirs; all are applied.
        shapes: by their names, the shape of one row where it differs from ours.
        older: regular expressions on names of older files, and the present ones.
    """

    names: tuple[tuple[str, str], ...] = ()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    older: tuple[tuple[str, str], ...] = ()

    def their_name(self, ours: str) -> str:
        """Return their name of one of our tensors."""
        return _replaced(ours.removeprefix(OURS), self.names)


_PLAIN = Layout()
# A classifier on the network of the detectors, which is called `body` in ours.
_BODY = Layout(names=((r"^body\.", ""),))
_VGG_OF_TIMM = Layout(
    names=(
        (r"^classifier\.0\.", "pre_logits.fc1."),
        (r"^classifier\.3\.", "pre_logits.fc2."),
        (r"^classifier\.6\.", "head.fc."),
    ),
    shapes={"pre_logits.fc1.weight": (512, 7, 7), "pre_logits.fc2.weight": (-1, 1, 1)},
)
_PRE_ACTIVATION_OF_TIMM = Layout(
    names=(
        *((rf"^layer{n + 1}\.", f"stages.{n}.blocks.") for n in range(4)),
        (r"^fc\.", "head.fc."),
    ),
    shapes={"head.fc.weight": (-1, 1, 1)},
)
# Files of torchvision call the layers of a dense layer by two parts.
_DENSE = Layout(older=((r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2."),))
# Registered names, as a regular expression, to the layout of each library; the first of equal ones
# is what a file is taken for.
LAYOUTS: tuple[tuple[str, Mapping[str, Layout]], ...] = (
    (r"alexnet|googlenet_bn", {"torchvision": _PLAIN}),
    (r"vgg(16|19)(_bn)?", {"torchvision": _PLAIN, "timm": _VGG_OF_TIMM}),
    (r"inception_v3", {"torchvision": _PLAIN, "timm": _PLAIN}),
    (r"inception_v4", {"timm": _PLAIN}),
    (r"resnet(18|34|50|101|152)|resnext\w+", {"torchvision": _BODY, "timm": _BODY}),
    (r"preact_resnet(50|101|152)", {"timm": _PRE_ACTIVATION_OF_TIMM}),
    (r"densenet(121|169|201|161)", {"torchvision": _DENSE, "timm": _DENSE}),
    (r"classify_\w+", {"timm": _BODY}),
)
# Heads that only training has, by the beginning of their names in ours: a file may lack them.
_AUXILIARY = ("network.aux1.", "network.aux2.", "network.AuxLogits.")


def layouts(model: str) -> Mapping[str, Layout]:
    """Return the layouts of a model by library; none if only we have it."""
    for pattern, known in LAYOUTS:
        if re.fullmatch(pattern, model):
            return known
    return {}


def known_name(model: str, our_names: Iterable[str]) -> Callable[[str], bool]:
    """Return what tells whether a tensor is one of a model, by anyone's name of it."""
    ours = set(our_names)
    known = {layout.their_name(name) for layout in layouts(model).values() for name in ours}

    def found(key: str) -> bool:
        older = [_replaced(key, layout.older) for layout in layouts(model).values()]
        return key in ours or not known.isdisjoint([key, *older])

    return found


def detect_layout(keys: Iterable[str], model: str, our_names: Iterable[str]) -> str:
    """Return whose names these are: "torchvision", "timm" or our own, "maskwright".

    Args:
        keys: names of the tensors of a file.
        model: the registered name that they should belong to.
        our_names: our names of its tensors.

    Raises:
        ValueError: if nobody calls this model's tensors so.
    """
    keys, ours = list(keys), list(our_names)
    counts = {"maskwright": len(set(ours).intersection(keys))}
    for library, layout in layouts(model).items():
        theirs = {_replaced(key, layout.older) for key in keys}
        counts[library] = len(theirs.intersection(map(layout.their_name, ours)))
    best = max(counts, key=counts.__getitem__)  # the first of equal ones
    if not counts[best]:
        expected = [
            ", ".join(list(map(layout.their_name, ours))[:2]) for layout in layouts(model).values()
        ] or [", ".join(ours[:2])]
        raise ValueError(
            f"these are no weights of {model}: expected names such as {' or '.join(expected)}, "
            f"found {', '.join(keys[:3]) or 'nothing'}"
        )
    return best


def to_maskwright(
    state: Mapping[str, Tensor], our_names: list[str], *, model: str, source: str, final: str
) -> Converted:
    """Convert a library's weights.

    Args:
        state: their tensors by name.
        our_names: names of the tensors of our model.
        model: its registered name.
        source: the library, or "maskwright" for our own names.
        final: our name of the layer whose rows are the classes.

    Raises:
        ValueError: if a tensor is missing.
    """
    layout = Layout(((r"^", OURS),)) if source == "maskwright" else layouts(model)[source]
    report = ConvertReport()
    theirs = {_replaced(key, layout.older): value for key, value in state.items()}
    absent = [
        head
        for head in _AUXILIARY
        if not any(layout.their_name(n) in theirs for n in our_names if n.startswith(head))
    ]
    converted: dict[str, Tensor] = {}
    for name in our_names:
        key = layout.their_name(name)
        if name.startswith(tuple(absent)):
            continue
        if key.endswith(_COUNTER) and key not in theirs:
            converted[name] = torch.zeros((), dtype=torch.int64)
            report.filled[name] = "no batch counted: the file is of an older version"
            continue
        value = require(theirs, key)
        converted[name] = value.flatten(1) if key in layout.shapes else value
        report.used.append(key)
    for key in theirs:
        if key not in report.used:
            report.ignored[key] = "not part of this model"
    options = {"auxiliary": 0.0} if any(n.startswith(tuple(absent)) for n in our_names) else {}
    if options:
        report.notes.append("the file has no auxiliary heads: auxiliary=0")
    count = len(converted[f"{final}.weight"])
    names: list[str | None] = [*(imagenet_names() if count == 1000 else ())]
    names = names or [f"class_{i}" for i in range(1, count + 1)]
    return Converted(converted, options, names, list(range(1, count + 1)), {}, report)


def from_maskwright(
    state: Mapping[str, Tensor], *, model: str, target: str
) -> tuple[dict[str, Tensor], ConvertReport]:
    """Convert our weights to a library's names and layouts.

    Args:
        state: our tensors by name.
        model: the registered name.
        target: the library.

    Raises:
        ValueError: if the library has no such network.
    """
    known = layouts(model)
    if target not in known:
        others = f"it goes to {' and '.join(known)}" if known else "no library has it but ours"
        raise ValueError(f"{target} has no counterpart of {model}: {others}")
    layout, report = known[target], ConvertReport()
    result: dict[str, Tensor] = {}
    for name, value in state.items():
        key = layout.their_name(name)
        shape = layout.shapes.get(key)
        result[key] = value if shape is None else value.unflatten(1, shape)
        report.used.append(name)
    return result, report


# What other libraries build in one way only, where ours has an option.
_FIXED: tuple[tuple[str, object, str], ...] = (
    ("stride_in_1x1", False, "bottlenecks that stride in their 3x3"),
    ("order", "e", "full pre-activation, order=e"),
)


def check_options(model: str, args: Mapping[str, object]) -> None:
    """Make sure that other libraries can build a model as it is.

    Raises:
        ValueError: naming the option that they have not.
    """
    for option, there, what in _FIXED:
        if args.get(option, there) != there:
            raise ValueError(
                f"this {model} has {option}={args[option]}; other libraries have {what}, alone"
            )


def imagenet_names() -> list[str]:
    """Return the thousand classes of ImageNet in the order of published networks."""
    from torchvision.models import AlexNet_Weights

    return [str(name) for name in AlexNet_Weights.DEFAULT.meta["categories"]]


def _replaced(name: str, rules: Iterable[tuple[str, str]]) -> str:
    for pattern, new in rules:
        name = re.sub(pattern, new, name)
    return name
