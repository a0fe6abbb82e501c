"""Models for images of other channels than red, green and blue: the first convolution is adapted.

Its pretrained filters are repeated over the channels in order and scaled so that a picture whose
channels are all alike is answered as before; of one channel they are added up. That is how timm
does it (`adapt_input_conv`). Mean and deviation go the same way; for one channel they are averaged.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from ..channels import MOST_CHANNELS
from ..errors import OptionError
from .base import Model


def with_channels(model: Any, count: int, name: str) -> None:
    """Let a model take so many channels; weights that see the pixels are adapted.

    Args:
        model: the model.
        count: of the images.
        name: what the user calls it.

    Raises:
        OptionError: if it cannot, or the number is not from 1 to `MOST_CHANNELS`.
    """
    if not isinstance(count, int) or not 1 <= count <= MOST_CHANNELS:
        raise OptionError(f"a model takes 1 to {MOST_CHANNELS} channels, got {count!r}")
    for part in [one for one in model.modules() if isinstance(one, Model)]:
        if part.channels == count:
            continue
        conv = _first(part) if part.any_channels else None
        if conv is None:
            held = "one channel" if count == 1 else f"{count} channels"
            three = ",".join(str(min(number, count - 1)) for number in range(3))
            raise OptionError(
                f"{name} looks at red, green and blue alone: for {held} choose another model or "
                f"backbone, or three of them, as in channels={three}"
            )
        if part.bgr:  # the filters then stand in the order of the channels
            conv.weight = nn.Parameter(conv.weight.detach().flip(1), conv.weight.requires_grad)
            part.mean, part.std, part.bgr = part.mean.flip(0), part.std.flip(0), False
        weight = adapted(conv.weight.detach(), count)
        conv.weight = nn.Parameter(weight, requires_grad=conv.weight.requires_grad)
        conv.in_channels = count
        part.mean, part.std = _spread(part.mean, count), _spread(part.std, count)


def adapted(weight: Tensor, count: int) -> Tensor:
    """Return filters (K, C, h, w) for `count` channels; see the module."""
    have = weight.shape[1]
    if count == 1:
        return weight.sum(1, keepdim=True)
    times = -(-count // have)
    return weight.repeat(1, times, 1, 1)[:, :count] * (have / count)


def _spread(values: Tensor, count: int) -> Tensor:
    if count == 1:
        return values.mean(0, keepdim=True)
    return values.repeat(-(-count // len(values)), 1, 1)[:count].clone()


def _first(part: Model) -> nn.Conv2d | None:
    """Return the convolution that sees the pixels, the first one of the backbone; None: there is
    none over red, green and blue.
    """
    backbone = cast(nn.Module, getattr(part, "backbone", part))
    found = next((one for one in backbone.modules() if isinstance(one, nn.Conv2d)), None)
    if found is None or found.in_channels != part.channels or found.groups != 1:
        return None
    assert isinstance(found.weight, torch.Tensor)
    return found
