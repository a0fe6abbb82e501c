"""Any network of timm as a classifier: `classify_` and its name, such as `classify_resnet50d`.

Layers, names and forward are timm's (behind `body.`); ours are the stages for freezing, found by a
general rule, and how a photo becomes input, which timm states with its weights: side, share of the
crop, interpolation, mean and deviation.

The rule of the stages. The parts of a network are its children in order, up to the one that holds
the classes; a child in which timm names a map (`feature_info`) is taken apart into its own
children. A stage ends with each part that makes such a map, so a transformer has one for each of
its blocks; the stem, what stands before the first of them, is a stage of its own, with positions
and tokens, which are no modules. What stands behind the last map, such as a last norm or
convolution, belongs to the last stage. Where timm names no maps, every part is a stage.

| network | stages |
| --- | --- |
| EfficientNet, MobileNetV2 | stem; blocks to strides 2, 4, 8, 16, 32, with the last convolution |
| ResNet | stem; layer1; layer2; layer3; layer4 |
| ConvNeXt | stem; four stages |
| ViT | patches with positions; twelve blocks, with the last norm |
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import OptionError, nearest
from ...structures import Preprocess
from ..registry import ModelEntry, register, register_pattern
from .base import STATISTICS, Classifier, ClassifierOptions, Network

PREFIX = "classify_"


@dataclass(frozen=True)
class TimmOptions(ClassifierOptions):
    """Options of timm's networks as classifiers.

    Attributes:
        backbone: timm's name of the network.
        crop_pct: the square as a share of the short side of a photo at test, unless `short` is
            given.
        dropout: share of the values before the last layer that training sets to 0.
    """

    backbone: str = "tf_efficientnet_lite0"
    crop_pct: float = 0.875
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.1 <= self.crop_pct <= 1:
            raise OptionError(f"crop_pct must lie in [0.1, 1], got {self.crop_pct!r}")
        if not 0 <= self.dropout < 1:
            raise OptionError(f"dropout must lie in [0, 1), got {self.dropout!r}")

    def preprocess(self) -> Preprocess:
        """Return how a photo becomes network input: timm rounds the short side down."""
        short = self.short or math.floor(self.imgsz / self.crop_pct)
        return replace(super().preprocess(), short=short)


class TimmNetwork(Network):
    """A network of timm; its maps are tokens (B, N, K) or channels-last where timm has them so.

    Args:
        num_classes: rows of the last layer.
        options: which one.

    Raises:
        ValueError: if timm has no such network, or it cannot classify.
        OptionError: if it takes images of one size, and that cannot be `imgsz`.
    """

    def __init__(self, num_classes: int, options: TimmOptions) -> None:
        super().__init__()
        import timm

        name = options.backbone
        config = _config(name)
        more: dict[str, Any] = {"drop_rate": options.dropout} if options.dropout else {}
        # Of a network whose parameters count its tokens.
        self.side = options.imgsz if config.fixed_input_size else 0
        if self.side and self.side != config.input_size[-1]:
            more["img_size"] = self.side
        try:
            body: Any = timm.create_model(name, pretrained=False, num_classes=num_classes, **more)
        except (TypeError, ValueError, AssertionError, RuntimeError) as error:
            if not more:
                raise
            given = f"imgsz={options.imgsz}" if "img_size" in more else f"dropout={options.dropout}"
            raise OptionError(
                f"timm's {name} cannot have {given} ({error}): leave it out for "
                f"{config.input_size[-1]} pixels and no dropout"
            ) from None
        self.body = body
        final = config.classifier
        heads = [final] if isinstance(final, str) else list(final or ())
        if not heads or not hasattr(body, "forward_head"):
            raise ValueError(f"timm's {name} has no classes of its own: take another network")
        self.final = f"body.{heads[0]}"
        self.auxiliary = tuple(f"body.{head}" for head in heads[1:])
        for head in heads:
            _small(body.get_submodule(head))
        self._stages = _stages(body, heads)
        reductions = [entry["reduction"] for entry in _feature_info(body)]
        self.smallest = self.side or max(reductions, default=1)

    def stages(self) -> list[list[nn.Module]]:
        """Return the parts before the head by stage; see the module."""
        own = _loose(self.body)
        return [
            [
                *([own] if number == 0 and any(True for _ in own.parameters()) else []),
                *(self._part(name) for name in names),
            ]
            for number, names in enumerate(self._stages)
        ]

    def _part(self, name: str) -> nn.Module:
        # A name with a dot at its end stands for what a child that was taken apart holds itself.
        found = self.body.get_submodule(name.rstrip("."))
        part: nn.Module = _loose(found) if name.endswith(".") else found
        return part

    def maps(self, x: Tensor) -> Tensor:
        """Return the last maps or tokens, as timm has them.

        Raises:
            OptionError: if the network takes images of another size.
        """
        if self.side and not torch.compiler.is_compiling() and x.shape[-2:] != (self.side,) * 2:
            raise OptionError(
                f"the network takes images of {self.side} x {self.side} pixels alone, got "
                f"{x.shape[-1]} x {x.shape[-2]}: set imgsz"
            )
        maps: Tensor = self.body.forward_features(x)
        return maps

    def head(self, maps: Tensor) -> Tensor:
        """Return the logits (B, C); of two heads their mean."""
        logits = self.body.forward_head(maps)
        # Networks with a head for distillation give both while they train.
        both = isinstance(logits, tuple)
        result: Tensor = torch.stack(list(logits)).mean(0) if both else logits
        return result


def _small(head: nn.Module) -> None:
    """Let a fresh head begin without an opinion.

    timm draws that of some networks from a range that grows as the classes get fewer: with two of
    them the first loss would be 10 in place of 0.7, and the features that were trained are wrecked.
    """
    if isinstance(head, nn.Linear | nn.Conv2d):
        nn.init.normal_(head.weight, std=0.01)
        if head.bias is not None:
            nn.init.zeros_(head.bias)


def _loose(module: nn.Module) -> nn.Module:
    """Return a module with the parameters that a module holds beside its children, not copied."""
    holder = nn.Module()
    for name, parameter in module.named_parameters(recurse=False):
        holder.register_parameter(name, parameter)
    return holder


def _feature_info(body: Any) -> list[dict[str, Any]]:
    """Return what timm says of the maps of a network, fine to coarse; nothing if it says none."""
    found = getattr(body, "feature_info", None) or []
    return [dict(entry) for entry in found]


def _stages(body: nn.Module, heads: list[str]) -> list[list[str]]:
    """Return the names of the parts of each stage, by the rule of the module."""
    ends = [entry["module"] for entry in _feature_info(body)]
    parts = [name for name in _parts(body, ends) if not _holds(name, heads)]
    closing = {part for end in ends if (part := _last_part(parts, end)) is not None}
    stages: list[list[str]] = [[]]
    for part in parts:
        heavy, before = _has_weights(body, [part]), _has_weights(body, stages[-1])
        # A norm or activation that makes the first map ends the stem; a block begins a stage.
        opens = (not closing and heavy) or (part in closing and len(stages) == 1 and heavy)
        if opens and before:
            stages.append([])
        stages[-1].append(part)
        if part in closing:
            stages.append([])
    # What comes behind the last map belongs to the last stage.
    behind = stages.pop() if len(stages) > 1 else []
    if closing or not stages[-1]:
        stages[-1] += behind
    else:
        stages.append(behind)
    return stages


def _parts(body: nn.Module, ends: list[str]) -> Iterator[str]:
    """Yield the names of the parts of a network in order."""
    for name, child in body.named_children():
        if any(end.startswith(f"{name}.") for end in ends):
            if any(True for _ in child.parameters(recurse=False)):
                yield f"{name}."
            yield from (f"{name}.{inner}" for inner, _ in child.named_children())
        else:
            yield name


def _last_part(parts: list[str], end: str) -> str | None:
    """Return the part that is, or holds, the module of a map."""
    found = [part for part in parts if end == part or end.startswith(f"{part}.")]
    return found[-1] if found else None


def _holds(part: str, heads: list[str]) -> bool:
    return any(head == part or head.startswith(f"{part}.") for head in heads)


def _has_weights(body: nn.Module, parts: list[str]) -> bool:
    """Whether parts hold more than norms: some tensor of two or more dimensions."""
    return any(
        parameter.dim() > 1
        for part in parts
        if not part.endswith(".")
        for parameter in body.get_submodule(part).parameters()
    )


def _config(name: str) -> Any:
    """Return what timm states of a network's default weights.

    Raises:
        OptionError: if it has no such network.
    """
    import timm
    from timm.models import get_pretrained_cfg

    names = timm.list_models()
    if name not in names:
        meant = nearest(name, names)
        raise OptionError(
            f"timm has no network called {name!r}{meant} (a name is {PREFIX!r} and one of "
            "`timm.list_models()`)"
        )
    config = get_pretrained_cfg(name)
    if config is None:
        raise ValueError(f"timm says nothing of {name!r}, neither size nor statistics")
    return config


def _presets(name: str) -> dict[str, Any]:
    """Return the options that go with timm's default weights of a network."""
    config = _config(name)
    scaled = [tuple(255.0 * value for value in part) for part in (config.mean, config.std)]
    known = [
        key
        for key, (mean, std) in STATISTICS.items()
        if all(
            abs(a - b) < 1e-3
            for ours, theirs in zip((mean, std), scaled, strict=True)
            for a, b in zip(ours, theirs, strict=True)
        )
    ]
    if not known:
        raise ValueError(
            f"timm's {name} standardises by mean {config.mean} and deviation {config.std}, which "
            f"are none of {', '.join(STATISTICS)}"
        )
    return {
        "backbone": name,
        "imgsz": config.input_size[-1],
        "crop_pct": config.crop_pct,
        "interpolation": "bilinear" if config.interpolation == "bilinear" else "bicubic",
        "statistics": known[0],
    }


def timm_classifier(num_classes: int, options: TimmOptions) -> Classifier:
    """Build a network of timm as a classifier."""
    network = TimmNetwork(num_classes, options)
    model = Classifier(num_classes, network, options)
    if network.side:
        model.buckets = ((network.side, network.side),)
    return model


def timm_entry(name: str) -> ModelEntry:
    """Return the entry of a name that begins with `PREFIX`.

    Raises:
        ValueError: if timm has no network of the rest of it.
    """
    presets = _presets(name.removeprefix(PREFIX))
    return ModelEntry(
        name,
        timm_classifier,
        TimmOptions,
        "classify",
        presets,
        None,
        {},
        "timm (Wightman 2019)",
        "timm",
    )


register_pattern(PREFIX, timm_entry, "any network of timm (`timm.list_models()`)")
# Those whose backbones come with the package, so that listing the models does not ask timm.
for _name, _statistics, _paper in (
    ("tf_efficientnet_lite0", "half", "Tan & Le 2019"),
    ("mobilenetv2_100", "imagenet", "Sandler et al. 2018"),
):
    register(
        f"{PREFIX}{_name}",
        options=TimmOptions,
        task="classify",
        paper=_paper,
        tiny={"imgsz": 64} if _name == "mobilenetv2_100" else None,
        presets={"backbone": _name, "interpolation": "bicubic", "statistics": _statistics},
        family="timm",
    )(timm_classifier)
