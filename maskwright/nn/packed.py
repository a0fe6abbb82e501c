"""Convolutions for inference on a CPU: weights in oneDNN's own order, activations included.

torch's convolution brings the weights into that order at each call, which for one image costs as
much as the layer where maps are small; it sends 1x1 filters to a matrix product per image, and an
activation passes over the maps once more. The operator here is the one that `torch.compile` puts
in their place. It has no gradient, and not every build of torch has it: see `can_pack`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def is_hooked(layer: nn.Module) -> bool:
    """Whether somebody reads or changes what goes in or out: then the layer has to be called."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks)


class Leaky(nn.LeakyReLU):
    """The leaky ReLU of Darknet's networks: a tenth of what is negative."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(0.1, inplace)


# What oneDNN calls an activation, and its numbers.
ACTIVATIONS: dict[type[nn.Module], tuple[str, tuple[float, ...]]] = {
    nn.ReLU: ("relu", ()),
    nn.ReLU6: ("hardtanh", (0.0, 6.0)),
    nn.SiLU: ("swish", ()),
    Leaky: ("leaky_relu", (0.1,)),
}


@cache
def can_pack() -> bool:
    """Return whether this build of torch has the operators, and they work."""
    if not torch.backends.mkldnn.is_available():
        return False
    x, weight = torch.linspace(-1, 1, 75).view(1, 3, 5, 5), torch.linspace(-2, 1, 216)
    weight, where = weight.view(8, 3, 3, 3), ([1, 1], [1, 1], [1, 1], 1)
    try:
        with torch.inference_mode(False), torch.no_grad():
            packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *where, list(x.shape))
            made = torch.ops.mkldnn._convolution_pointwise(x, packed, None, *where, "relu", (), "")
            return bool(torch.allclose(made, F.conv2d(x, weight, padding=1).relu(), atol=1e-5))
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):
        return False


class PackedConv2d(nn.Conv2d):
    """A convolution with the activation behind it, for inference on the CPU in float32.

    Args:
        conv: the layer to replace, padded with zeros; its tensors are shared, and its weights are
            not looked at again once a map was seen.
        activation: one of `ACTIVATIONS`; None: none.

    Shape: (B, C, H, W) to (B, K, H', W'), channels-last in memory.
    """

    def __init__(self, conv: nn.Conv2d, activation: type[nn.Module] | None = None) -> None:
        nn.Module.__init__(self)
        # Whatever others read of the layer without calling it.
        self.__dict__.update({**vars(conv), "_parameters": dict(conv._parameters)})
        self.activation = activation
        self._packed: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Tensors in oneDNN's order cannot be copied.
        return {**self.__dict__, "_packed": None}

    def forward(self, input: Tensor) -> Tensor:
        """Return the activated convolution of (B, C, H, W)."""
        x = input
        learns = torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad)
        if learns or x.dtype != self.weight.dtype or not x.numel() or not can_pack():
            made = super().forward(x)
            return made if self.activation is None else self.activation()(made)
        where = (self.padding, self.stride, self.dilation, self.groups)
        if self._packed is None:
            with torch.inference_mode(False), torch.no_grad():
                self._packed = torch.ops.mkldnn._reorder_convolution_weight(
                    self.weight.detach(), *where, list(x.shape)
                )
        behind = ("none", ()) if self.activation is None else ACTIVATIONS[self.activation]
        found: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self._packed, self.bias, *where, *behind, ""
        )
        return found

    def forget(self) -> None:
        """Let the next maps decide the order of the weights."""
        self._packed = None

    def extra_repr(self) -> str:
        """Describe the layer in `print(model)`."""
        own = super().extra_repr()
        return own if self.activation is None else f"{own}, {self.activation.__name__}"
