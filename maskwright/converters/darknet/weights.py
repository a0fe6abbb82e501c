"""`.weights` files of Darknet: a header, then the float32 numbers of the layers in their order.

| header | bytes |
| --- | --- |
| 0.2 and later | int32 major, minor, revision, int64 images seen |
| 0.1 | int32 major, minor, revision, int32 images seen |
| up to early 2016 | float32 learning rate, momentum, decay, int32 images seen |

In the last form fully connected weights are stored (inputs, outputs). What follows the header is
told by the network alone, so that nothing but its length and its values can show a wrong file.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...nn.darknet.layers import Connected, Convolution, Local, UnbiasedBatchNorm2d
from ...nn.darknet.network import DarknetNetwork
from ...nn.darknet.table import Section

VERSION = (0, 2, 0)  # that is written
_OLD = 1000  # whole numbers from here on are no version: the header holds fractions
_NORM = ("norm.weight", "norm.running_mean", "norm.running_var")


@dataclass(frozen=True)
class Header:
    """The header of a file.

    Attributes:
        version: major, minor and revision, or None where it holds fractions.
        seen: images that the network was trained with.
        size: its bytes.
        transposed: fully connected weights are stored (inputs, outputs).
    """

    version: tuple[int, int, int] | None
    seen: int
    size: int
    transposed: bool


@dataclass(frozen=True)
class Weights:
    """What a file holds.

    Attributes:
        state: tensors by the names of `DarknetNetwork`.
        header: of the file.
        layers: of the network that the file has the numbers of, all or the first ones.
        whole: whether these are all.
    """

    state: dict[str, Tensor]
    header: Header
    layers: int
    whole: bool


def is_weights(path: str | Path) -> bool:
    """Whether a file is one of Darknet's, by its name: `.weights`, or a body such as `.conv.23`."""
    name = Path(path).name
    ending = name.rpartition(".")[2]
    return ending == "weights" or (ending.isdigit() and ".conv." in name)


def read_header(data: bytes) -> Header:
    """Return the header of a file.

    Raises:
        ValueError: if it is none.
    """
    if len(data) < 16:
        raise ValueError(f"the file ends within its header: {len(data)} bytes of 16 or 20")
    major, minor, revision = struct.unpack_from("<3i", data)
    if major >= _OLD or minor >= _OLD:
        rate, momentum, decay = struct.unpack_from("<3f", data)
        # Of other files the bytes are numbers too, but mostly none that a training has.
        usual = all(value == 0 or 1e-10 < value < 1e4 for value in (rate, momentum, decay))
        if not usual or momentum > 1:
            raise ValueError(_no_header(data))
        seen, size = struct.unpack_from("<i", data, 12)[0], 16
        version = None
    else:
        if min(major, minor, revision) < 0:
            raise ValueError(_no_header(data))
        version = major, minor, revision
        long = major * 10 + minor >= 2
        size = 20 if long else 16
        if len(data) < size:
            raise ValueError(f"the file ends within its header: {len(data)} bytes of {size}")
        seen = struct.unpack_from("<q" if long else "<i", data, 12)[0]
    if seen < 0:
        raise ValueError(_no_header(data))
    return Header(version, seen, size, version is None)


def _no_header(data: bytes) -> str:
    return (
        "its first 16 bytes are no header of Darknet's (version and images seen, or learning rate, "
        f"momentum, decay and images seen): {data[:16].hex(' ', 4)}"
    )


def read_weights(path: Path, network: DarknetNetwork) -> Weights:
    """Read the numbers of a network.

    Args:
        path: the file.
        network: which it is of; its tensors may be without memory.

    Raises:
        ValueError: naming layer and bytes: if the file has no such header, ends within a layer or
            goes on behind the last, or its numbers cannot be those of the network.
    """
    data = path.read_bytes()
    header = read_header(data)
    layers = list(layers_of(network))
    sizes = [4 * sum(math.prod(shape) for _, shape, _ in rows) for _, rows in layers]
    told = f"the network needs {header.size + sum(sizes)} bytes, the file has {len(data)}"
    # Where it ends first: a wrong file has wrong numbers as well.
    end, count = header.size, 0
    while count < len(layers) and (end < len(data) or not count):
        size, section = sizes[count], layers[count][0]
        if end + size > len(data):
            raise ValueError(
                f"the file ends within {section.called}, at byte {len(data)}: the layer has {size} "
                f"bytes from byte {end} on ({told}); it is cut off, or of another network"
            )
        end, count = end + size, count + 1
    if end < len(data):
        last = layers[-1][0].called if layers else "the header"
        raise ValueError(
            f"{len(data) - end} bytes are left behind {last}, from byte {end} on ({told}): the "
            "file is of another network, or damaged"
        )
    place, state = header.size, {}
    for section, rows in layers[:count]:
        for name, shape, kind in rows:
            values = np.frombuffer(data, "<f4", math.prod(shape), place).astype(np.float32)
            place += values.nbytes
            _check_values(values, name, section)
            tensor = torch.from_numpy(values)
            if kind == "columns" and header.transposed:
                tensor = tensor.view(shape[1], shape[0]).t()
            elif kind == "flipped":
                tensor = tensor.view(-1, shape[0]).t()
            state[name] = tensor.reshape(shape).contiguous()
    done = layers[count - 1][0].number + 1 if count else 0
    return Weights(state, header, done, count == len(layers))


def _check_values(values: np.ndarray, name: str, section: Section) -> None:
    wrong = ~np.isfinite(values)
    if name.endswith("running_var"):
        wrong |= values < 0
    if wrong.any():
        raise ValueError(
            f"{section.called}: {int(wrong.sum())} of {len(values)} numbers of {name} cannot be "
            f"({values[wrong][0]}): the file is of another network, or damaged"
        )


def write_weights(
    path: Path, network: DarknetNetwork, state: Mapping[str, Tensor], seen: int
) -> None:
    """Write the numbers of a network, with the header of version 0.2.0.

    Args:
        path: the file.
        network: the network; its tensors may be without memory.
        state: its tensors.
        seen: images that it was trained with.
    """
    with path.open("wb") as file:
        file.write(struct.pack("<3iq", *VERSION, seen))
        for _, rows in layers_of(network):
            for name, _, kind in rows:
                value = state[name].detach().float().cpu()
                if kind == "flipped":
                    value = value.flatten(1).t()
                file.write(value.contiguous().numpy().astype("<f4").tobytes())


Row = tuple[str, tuple[int, ...], str]  # name of a tensor, its shape in the file, how it is stored


def layers_of(network: DarknetNetwork) -> Iterator[tuple[Section, list[Row]]]:
    """Yield the layers that have numbers, and these in the order of the file."""
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    for section, layer in zip(network.sections, network.layers, strict=True):
        begin = f"layers.{section.number}."

        def rows(names: tuple[str, ...], kind: str = "", begin: str = begin) -> list[Row]:
            return [(begin + name, shapes[begin + name], kind) for name in names]

        if isinstance(layer, Convolution):
            normed = layer.norm is not None
            first = rows(("norm.bias", *_NORM) if normed else ("conv.bias",))
            yield section, first + rows(("conv.weight",), "flipped" if section["flipped"] else "")
        elif isinstance(layer, Connected):
            normed = layer.norm is not None
            first = rows(("norm.bias",) if normed else ("linear.bias",))
            first += rows(("linear.weight",), "columns")
            yield section, first + (rows(_NORM) if normed else [])
        elif isinstance(layer, Local):
            yield section, rows(("bias", "weight"))
        elif isinstance(layer, UnbiasedBatchNorm2d):
            yield section, rows(("weight", "running_mean", "running_var"))
