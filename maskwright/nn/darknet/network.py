"""A network that a table of layers describes, in Darknet's language (`table`)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..random import ImageNoise, RandomSource
from .layers import (
    Connected,
    Convolution,
    DropMaps,
    GroupSoftmax,
    Local,
    Mean,
    Pool,
    Reorg,
    UnbiasedBatchNorm2d,
    Upsample,
    make_activation,
)
from .table import HEADS, Section, Table

Shape = tuple[int, int, int]  # channels, height, width
# Layers that read others by their number, or hand on what they are given.
_JOINING = ("route", "shortcut")
_WITHOUT = ("cost", *HEADS)


class DarknetNetwork(nn.Module):
    """The layers of a table up to the one that makes boxes of what they give.

    Args:
        table: the network; see `table.read_table`.

    Attributes:
        layers: a module for each layer, by its number.
        shapes: channels, height and width of what each gives, at the size that the table names.

    Raises:
        ValueError: naming the first layer that does not fit those before it.
    """

    def __init__(self, table: Table) -> None:
        super().__init__()
        net, *sections = table
        self.sections = tuple(one for one in sections if one.kind not in _WITHOUT)
        behind = [one for one in sections[len(self.sections) :] if one.kind in _WITHOUT]
        if len(behind) != len(sections) - len(self.sections):
            wrong = next(one for one in sections if one.kind in _WITHOUT)
            raise ValueError(f"{wrong.called} can only be the last one")
        self.input: Shape = (net["channels"], net["height"], net["width"])
        self.shapes: list[Shape] = []
        self.layers = nn.ModuleList()
        self._sources: list[list[int]] = []
        for section in self.sections:
            try:
                layer, shape, sources = self._make(section)
            except ValueError as error:
                raise ValueError(f"{section.called}: {error}") from None
            if min(shape) < 1:
                raise ValueError(f"{section.called}: nothing is left of its input {self._last}")
            self.layers.append(layer)
            self.shapes.append(shape)
            self._sources.append(sources)
        self._kept = {one for sources in self._sources for one in sources}

    @property
    def _last(self) -> Shape:
        return self.shapes[-1] if self.shapes else self.input

    @property
    def output(self) -> Shape:
        """Channels, height and width of what the network gives at the size of its table."""
        return self._last

    def _make(self, section: Section) -> tuple[nn.Module, Shape, list[int]]:
        """Return the module of a layer, the shape of its output, and the layers that it reads."""
        kind, (c, h, w) = section.kind, self._last
        if kind == "convolutional":
            size, stride = section["size"], section["stride"]
            padding = size // 2 if section["pad"] else section["padding"]
            made: nn.Module = Convolution(
                c,
                section["filters"],
                size,
                stride=stride,
                padding=padding,
                groups=section["groups"],
                norm=bool(section["batch_normalize"]),
                activation=section["activation"],
            )
            sides = [(side + 2 * padding - size) // stride + 1 for side in (h, w)]
            return made, (section["filters"], sides[0], sides[1]), []
        if kind == "local":
            return self._local(section)
        if kind == "connected":
            made = Connected(
                c * h * w,
                section["output"],
                norm=bool(section["batch_normalize"]),
                activation=section["activation"],
            )
            return made, (section["output"], 1, 1), []
        if kind == "maxpool":
            stride = section["stride"]
            size = stride if section["size"] < 0 else section["size"]
            padding = size - 1 if section["padding"] < 0 else section["padding"]
            sides = [(side + padding - size) // stride + 1 for side in (h, w)]
            return Pool(size, stride, padding), (c, sides[0], sides[1]), []
        if kind == "reorg":
            return self._reorg(section)
        if kind == "avgpool":
            return Mean(), (c, 1, 1), []
        if kind == "dropout":
            return DropMaps(section["probability"]), (c, h, w), []
        if kind == "softmax":
            if c * h * w % section["groups"] or not section["temperature"]:
                raise ValueError(f"{c * h * w} values are not {section['groups']} groups")
            return GroupSoftmax(section["groups"], section["temperature"]), (c, h, w), []
        if kind == "upsample":
            stride = section["stride"]
            return Upsample(stride, section["scale"]), (c, h * stride, w * stride), []
        if kind == "batchnorm":
            norm = UnbiasedBatchNorm2d(c)
            norm.bias.requires_grad_(False)  # Darknet's files have no place for it
            return norm, (c, h, w), []
        return self._joined(section)

    def _local(self, section: Section) -> tuple[nn.Module, Shape, list[int]]:
        c, h, w = self._last
        size, stride, pad = section["size"], section["stride"], section["pad"]
        sides = [((n - 1 if pad else n - size) // stride) + 1 for n in (h, w)]
        if sides != [(n + 2 * pad - size) // stride + 1 for n in (h, w)]:
            raise ValueError(f"size={size} with pad={pad} gives maps of no one size")
        made = Local(
            c, section["filters"], size, stride, pad, sides[0] * sides[1], section["activation"]
        )
        return made, (section["filters"], sides[0], sides[1]), []

    def _reorg(self, section: Section) -> tuple[nn.Module, Shape, list[int]]:
        c, h, w = self._last
        s = section["stride"]
        made = Reorg(s, bool(section["reverse"]), bool(section["flatten"]))
        if c % s**2 or (not made.reverse and (h % s or w % s)):
            raise ValueError(f"stride={s} does not divide {c} channels of {h} x {w}")
        return made, made.shape(c, h, w), []

    def _joined(self, section: Section) -> tuple[nn.Module, Shape, list[int]]:
        asked = section["layers"] if section.kind == "route" else (section["from"],)
        number = section.number
        sources = [number + one if one < 0 else one for one in asked]
        if not sources or not all(0 <= one < number for one in sources):
            raise ValueError(f"reads layers before it; got {', '.join(map(str, asked)) or 'none'}")
        found = [self.shapes[one] for one in sources]
        if section.kind == "route":
            if len({shape[1:] for shape in found}) > 1:
                raise ValueError(f"maps of different sizes cannot be joined: {found}")
            return nn.Identity(), (sum(shape[0] for shape in found), *found[0][1:]), sources
        if found[0] != self._last:
            raise ValueError(f"adds maps of {found[0]} to those of {self._last}")
        return make_activation(section["activation"]), self._last, sources

    def each(self, x: Tensor, generator: RandomSource = None) -> Iterator[Tensor]:
        """Yield what each layer gives for (B, C, H, W).

        Args:
            x: the input.
            generator: the random numbers of dropout.
        """
        kept: dict[int, Tensor] = {}
        for number, (section, layer) in enumerate(zip(self.sections, self.layers, strict=True)):
            sources = [kept[one] for one in self._sources[number]]
            if section.kind == "route":
                x = sources[0] if len(sources) == 1 else torch.cat(sources, 1)
            elif section.kind == "shortcut":
                x = layer(section["alpha"] * x + section["beta"] * sources[0])
            elif isinstance(layer, DropMaps):
                own = generator.stream(number) if isinstance(generator, ImageNoise) else generator
                x = layer(x, own)
            else:
                x = layer(x)
            if number in self._kept:
                kept[number] = x
            yield x

    def forward(self, x: Tensor, generator: RandomSource = None) -> Tensor:
        """Return what the last layer gives; see `each`."""
        for made in self.each(x, generator):
            x = made
        return x

    def stages(self) -> list[list[nn.Module]]:
        """Return the layers by stage, from the input on: one ends where maps become smaller."""
        stages: list[list[nn.Module]] = [[]]
        before = self.input
        for layer, shape in zip(self.layers, self.shapes, strict=True):
            stages[-1].append(layer)
            if shape[1] * shape[2] < before[1] * before[2]:
                stages.append([])
            before = shape
        return [stage for stage in stages if stage]
