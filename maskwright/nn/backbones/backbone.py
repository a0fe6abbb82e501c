"""Backbones: any module that returns maps fine to coarse; our networks, everything else from timm.

`Backbone` wraps the network and owns what detection adds to it: channels and strides of the maps,
freezing by stage, and batch norm that keeps its statistics while the detector trains.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...errors import OptionError
from ..detection.poolers import Trunk
from .alexnet import AlexNet
from .efficientnet import LITES, EfficientNetLite
from .mobilenets import MOBILENETS, MobileNet
from .resnet import RESNETS, ResNet
from .vgg import VGG, VGGS

NORMS = ("frozen", "affine", "bn")
STRIDES = (2, 4, 8, 16, 32)  # of the maps that a network may offer
PYRAMID = STRIDES[1:]  # those of a detector
OUTPUT_STRIDES = (32, 16, 8)  # of the last map; less than 32: by dilation
_WITH_TAIL = "mobilenet_v3_large"
_OWN = (*RESNETS, *VGGS, *MOBILENETS, *LITES, "alexnet")  # need no timm
# Classes of timm's feature networks that run their children one after the other.
_CHAINS = ("FeatureListNet", "EfficientNetFeatures", "MobileNetV3Features")


class _Body(Protocol):
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    tail_channels: int

    def stages(self) -> list[list[nn.Module]]: ...

    def tail(self, x: Tensor) -> Tensor: ...


def is_backbone(name: str) -> bool:
    """Whether a network is called so, ours or timm's; whether its maps serve is seen later."""
    if name in _OWN:
        return True
    import timm

    return name in timm.list_models()


def finest_stride(name: str) -> int:
    """Return the stride of the finest map that a backbone has, 2 or 4."""
    if name in _OWN:
        return 4 if name == "alexnet" else 2
    import timm

    with torch.device("meta"):
        probe: Any = timm.create_model(name, features_only=True, pretrained=False)
    return 2 if 2 in probe.feature_info.reduction() else 4


class TimmBody(nn.Module):
    """A timm network as maps at strides 4, 8, 16 and 32, or the first of these, or with 2 before.

    Where a network has several maps of a stride, the last one is taken.

    Args:
        name: a timm name; the network is built without its classifier and without weights.
        deepest: stride of the last map; what comes after it is not built.
        finest: stride of the first map, 4 or 2.
        output_stride: 16 or 8: the maps behind it have this stride, as timm dilates.
        full_dilation: the first block of a dilated stage has the dilation of the stage; in timm it
            has that of the stage before.
        tail: what leads to stride 32 is there for regions, see `tail`, not part of `forward`.

    Raises:
        ValueError: if timm has no such network, it offers no maps at these strides, or it cannot
            be dilated or cut before its last stage.
    """

    def __init__(
        self,
        name: str,
        deepest: int = 32,
        *,
        finest: int = 4,
        output_stride: int = 32,
        full_dilation: bool = False,
        tail: bool = False,
    ) -> None:
        super().__init__()
        import timm

        if name not in timm.list_models():
            near = timm.list_models(f"*{name.split('_')[0]}*")[:5]
            hint = f"; timm has for example {', '.join(near)}" if near else ""
            raise ValueError(
                f"no backbone is called {name!r}: it is one of {', '.join(_OWN)} or a timm "
                f"name{hint}"
            )
        probe: Any = timm.create_model(name, features_only=True, pretrained=False)
        reductions = probe.feature_info.reduction()
        self.strides = tuple(stride for stride in STRIDES if finest <= stride <= deepest)
        built = STRIDES[STRIDES.index(finest) :] if tail else self.strides
        last = {stride: i for i, stride in enumerate(reductions)}
        if not set(built) <= set(last):
            raise ValueError(
                f"backbone {name!r} has maps at strides {reductions}; needed are "
                f"{', '.join(map(str, built))}"
            )
        wanted = [last[stride] for stride in built]
        options: dict[str, Any] = {"output_stride": output_stride} if output_stride < 32 else {}
        try:
            body: Any = timm.create_model(
                name, features_only=True, pretrained=False, out_indices=wanted, **options
            )
        except (TypeError, AssertionError, ValueError, NotImplementedError):
            if not options:
                raise
            raise OptionError(_cannot_dilate(name)) from None
        self.body = body
        info = probe.feature_info.get_dicts()
        self._ends = [
            info[i]["module"] for i, stride in zip(wanted, built, strict=True) if stride in PYRAMID
        ]
        finer = [entry["module"] for entry in info if entry["reduction"] < PYRAMID[0]]
        self._stem_end: str | None = finer[-1] if finer else None
        channels = body.feature_info.channels()
        self.channels: tuple[int, ...] = tuple(channels[: len(self.strides)])
        self.tail_channels: int = channels[-1]
        self._drop_unused()
        self._stages = self._stage_names()
        if full_dilation:
            self._dilate_fully()
        self.has_tail = tail
        chained = type(body).__name__ in _CHAINS and len(self._stages) == len(PYRAMID) + 1
        if tail and not (chained and any(True for m in self.stages()[4] for _ in m.parameters())):
            raise OptionError(_cannot_end_on_regions(name))
        config = body.pretrained_cfg or {}
        mean, std = (
            config.get("mean", (0.485, 0.456, 0.406)),
            config.get("std", (0.229, 0.224, 0.225)),
        )
        self.mean = tuple(255.0 * value for value in mean)
        self.std = tuple(255.0 * value for value in std)

    def _drop_unused(self) -> None:
        """Delete the blocks behind the last map; timm leaves some networks whole."""
        parent, _, last = self._ends[-1].rpartition(".")
        blocks = dict(self.body.named_children()).get(parent)
        if isinstance(blocks, nn.Sequential | nn.ModuleList):
            del blocks[int(last) + 1 :]

    def _dilate_fully(self) -> None:
        """Let all blocks of a stage reach as far as its last one."""
        for modules in self.stages()[1:]:
            convs = [
                layer
                for module in modules
                for layer in module.modules()
                if isinstance(layer, nn.Conv2d) and layer.kernel_size[0] > 1
            ]
            for conv in convs:
                more = convs[-1].dilation[0] - conv.dilation[0]
                reach = more * (conv.kernel_size[0] // 2)
                conv.dilation = convs[-1].dilation
                if not type(conv).__name__.endswith("Same"):  # those pad as they run
                    conv.padding = tuple(int(side) + reach for side in conv.padding)

    def stages(self) -> list[list[nn.Module]]:
        """Return the modules by stage: the stem, then what leads to each of the maps.

        The stem ends with the last map finer than stride 4, or where the first map's module
        begins.
        """
        return [[self.body.get_submodule(name) for name in names] for names in self._stages]

    def _stage_names(self) -> list[list[str]]:
        # timm writes the inner modules of a network "stages.0" or, flattened, "stages_0".
        ends = [end.replace(".", "_") for end in self._ends]
        stem_end = None if self._stem_end is None else self._stem_end.replace(".", "_")
        parts: list[str] = []
        for name, child in self.body.named_children():
            if name not in ends and any(end.startswith(f"{name}_") for end in ends):
                parts += [f"{name}.{inner}" for inner, _ in child.named_children()]
            else:
                parts.append(name)
        stages: list[list[str]] = [[]]
        for name in parts:
            flat = name.replace(".", "_")
            if len(stages) == 1 and flat == ends[0]:
                stages.append([])
            stages[-1].append(name)
            if flat == stem_end or (flat in ends[:-1] and len(stages) > 1):
                stages.append([])
        return stages

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the maps of (B, 3, H, W), fine to coarse."""
        if not self.has_tail:
            maps: Sequence[Tensor] = self.body(x)
            return tuple(maps)
        found = []
        for modules in self.stages()[:-1]:
            for module in modules:
                x = module(x)
            found.append(x)
        return tuple(found[-len(self.strides) :])

    def tail(self, x: Tensor) -> Tensor:
        """Run what leads to stride 32 on parts (R, C, h, w) of the map at stride 16."""
        for module in self.stages()[-1]:
            x = module(x)
        return x


_ABLE = f"take one of {', '.join(RESNETS)}, an EfficientNet or a MobileNet"


def _cannot_dilate(name: str) -> str:
    return f"cannot dilate backbone {name!r}: {_ABLE}"


def _cannot_end_on_regions(name: str) -> str:
    return f"backbone {name!r} has no last stage that could run on regions: {_ABLE}"


class Backbone(Trunk):
    """A network that returns maps fine to coarse, with the habits of detection.

    Args:
        name: one of our networks (ResNets, VGGs, MobileNets, EfficientNet-Lites, "alexnet") or a
            timm name.
        norm: "frozen": batch norm is a constant; "affine": statistics are constant, weight and
            bias train; "bn": everything trains. None: frozen for our ResNets, affine for timm.
        eps: epsilon of the batch norm of our ResNets.
        stride_in_1x1: where the bottlenecks of our ResNets stride.
        strides: the maps that are returned, rising; the stages behind the last are not built. That
            at stride 2 is the last one of the stem.
        output_stride: 16 or 8: the maps behind this stride have it too; the networks are dilated in
            place of striding (VGG as in DeepLab, see `VGG`).
        full_dilation: whether the first block of a dilated stage has the dilation of the stage, or
            that of the stage before: see `ResNet`. Weights know only one of both. None: as the
            network's publisher has it: before, but for MobileNets.
        multi_grid: factors of the dilations in the last stage of our ResNets, a block each.
        tail: the stage behind the last map, that at stride 16, is there for regions; see `tail`.
        expansion, reduced_tail: see `MobileNet`, of which alone they are.

    Attributes:
        channels: channels of the maps.
        strides: their strides in input pixels.
        has_tail: whether there is a stage for regions.
        tail_channels: channels of what it returns.
        mean, std: of the input, 0 to 255, as the weights expect.
    """

    def __init__(
        self,
        name: str,
        *,
        norm: str | None = None,
        eps: float = 1e-5,
        stride_in_1x1: bool = False,
        strides: Sequence[int] = PYRAMID,
        output_stride: int = 32,
        full_dilation: bool | None = None,
        multi_grid: Sequence[int] = (),
        tail: bool = False,
        expansion: bool = False,
        reduced_tail: bool = False,
    ) -> None:
        super().__init__()
        if not strides or list(strides) != [s for s in STRIDES if s in strides]:
            raise OptionError(f"strides are rising ones of {STRIDES}, got {tuple(strides)}")
        if output_stride not in OUTPUT_STRIDES:
            raise OptionError(
                f"output_stride is one of {', '.join(map(str, OUTPUT_STRIDES))}; got "
                f"{output_stride!r}"
            )
        dilated = output_stride < 32
        if (dilated and strides[-1] != 32) or (tail and strides[-1] != 16):
            raise OptionError(
                f"an output_stride of {output_stride} needs a map at stride 32, and a tail maps up "
                f"to stride 16; got {tuple(strides)}"
            )
        norm = norm or ("frozen" if name in RESNETS else "affine")
        if norm not in NORMS:
            raise OptionError(f"the backbone's norm is one of {', '.join(NORMS)}; got {norm!r}")
        if multi_grid and name not in RESNETS:
            raise OptionError(f"multi_grid is for {', '.join(RESNETS)}; {name} has none")
        if (expansion and name not in MOBILENETS) or (reduced_tail and name != _WITH_TAIL):
            raise OptionError(
                f"a map of an expansion is for {', '.join(MOBILENETS)}, a reduced tail for "
                f"{_WITH_TAIL}; {name} has none"
            )
        body: ResNet | TimmBody | AlexNet | VGG | MobileNet | EfficientNetLite
        finest = min(strides[0], PYRAMID[0])
        self.mean: tuple[float, ...] = (123.675, 116.28, 103.53)
        self.std: tuple[float, ...] = (58.395, 57.12, 57.375)
        if name == "alexnet":
            if strides[-1] > 16 or finest < 4 or tail:
                raise OptionError("alexnet has maps at strides 4, 8 and 16, and no stage behind")
            body = AlexNet(strides[-1])
        elif name in (*VGGS, *MOBILENETS):
            if tail:
                raise OptionError(_cannot_end_on_regions(name))
            if name in VGGS:
                body = VGG(name, strides[-1], finest=finest, output_stride=output_stride)
            else:
                body = MobileNet(
                    name,
                    strides[-1],
                    finest=finest,
                    output_stride=output_stride,
                    full_dilation=full_dilation is not False,
                    expansion=expansion,
                    reduced_tail=reduced_tail,
                )
        elif name in RESNETS:
            body = ResNet(
                name,
                norm=norm,
                eps=eps,
                stride_in_1x1=stride_in_1x1,
                deepest=strides[-1],
                finest=finest,
                output_stride=output_stride,
                full_dilation=bool(full_dilation),
                multi_grid=multi_grid,
                tail=tail,
            )
        else:
            make = EfficientNetLite if name in LITES else TimmBody
            body = make(
                name,
                strides[-1],
                finest=finest,
                output_stride=output_stride,
                full_dilation=bool(full_dilation),
                tail=tail,
            )
            self.mean, self.std = body.mean, body.std
        self.name = name
        self.norm = norm
        self.body = body
        self._wanted = [body.strides.index(stride) for stride in strides]
        self.channels = tuple(body.channels[i] for i in self._wanted)
        self.strides = tuple(min(stride, output_stride) for stride in strides)
        self.has_tail = tail
        self.tail_channels = body.tail_channels
        self.fixed: frozenset[int] = frozenset()
        self._apply_freezing()

    def freeze(self, stages: int) -> None:
        """Stop the training of the first `stages` stages: the stem is stage 1.

        Raises:
            ValueError: if the network has fewer stages.
        """
        count = len(self.body.stages())
        if not 0 <= stages <= count:
            raise OptionError(f"freeze must lie in 0..{count} for {self.name}, got {stages}")
        self.fix(range(stages))

    def fix(self, stages: Iterable[int]) -> None:
        """Stop the training of stages by number, the stem being 0; the others train."""
        self.fixed = frozenset(stages)
        self._apply_freezing()

    def _apply_freezing(self) -> None:
        for index, modules in enumerate(self.body.stages()):
            for module in modules:
                for parameter in module.parameters():
                    parameter.requires_grad_(index not in self.fixed)
        if self.norm == "frozen":
            for layer in self.modules():
                if isinstance(layer, _BatchNorm):
                    for parameter in layer.parameters():
                        parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> Backbone:
        """Switch the mode, except that batch norm keeps its statistics unless `norm="bn"`."""
        super().train(mode)
        if mode:
            stages = self.body.stages()
            frozen = [m for index in self.fixed for m in stages[index]]
            for module in frozen if self.norm == "bn" else [self]:
                for layer in module.modules():
                    if isinstance(layer, _BatchNorm):
                        layer.eval()
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the maps of (B, 3, H, W), fine to coarse."""
        maps: tuple[Tensor, ...] = self.body(x)
        return tuple(maps[i] for i in self._wanted)

    def tail(self, x: Tensor) -> Tensor:
        """Run the last stage on regions (R, C, h, w); (R, tail_channels, h / 2, w / 2)."""
        return self.body.tail(x)
