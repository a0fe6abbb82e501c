"""The network that predicts: a model's own, rearranged for inference and kept up to date."""

from __future__ import annotations

import operator
import threading
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from ..models.base import Model
from ..models.inference import fast_network


class FastNetwork:
    """A model's `fast_network`, made when it is first asked for and anew when it changed.

    What counts is all that the modules hold: layers, tensors and their versions, settings and
    hooks. Of changes that leave no version (`tensor.data`, optimisers with `fused=True`) those are
    seen that reach the middle element of a tensor that requires a gradient, as training does.

    Args:
        model: in evaluation mode whenever it is asked.
        dtype: in which its layers compute.
    """

    def __init__(self, model: Model, dtype: torch.dtype = torch.float32) -> None:
        self.model = model
        self.dtype = dtype
        self._made: Model | None = None
        self._places: list[dict[str, Any]] = []
        self._parts: list[Any] = []
        self._tensors = _Tensors([])
        self._state: list[Any] = []
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[FastNetwork], tuple[Model, torch.dtype]]:
        return type(self), (self.model, self.dtype)

    def get(self) -> Model:
        """Return the network for the model as it is now; looking takes a millisecond."""
        with self._lock:
            # Where nothing was put in, the modules are those of before, and so are their places.
            parts = _parts(self._places)
            same = len(parts) == len(self._parts) and all(map(operator.is_, parts, self._parts))
            if self._made is None or not same or self._tensors.state() != self._state:
                self._made, self._parts, self._tensors = None, [], _Tensors([])  # memory first
                self._made = fast_network(self.model, dtype=self.dtype)
                self._places = _places(self.model)
                parts = self._parts = _parts(self._places)
                self._tensors = _Tensors([part for part in parts if isinstance(part, Tensor)])
                self._state = self._tensors.state()
            return self._made


def _places(model: Model) -> list[dict[str, Any]]:
    """Return where the modules of a model hold something: attributes, tensors, layers, hooks."""
    found = []
    for module in model.modules():
        own = vars(module)
        found += [own, *(value for value in own.values() if isinstance(value, dict))]
    return found


def _parts(places: list[dict[str, Any]]) -> list[Any]:
    """Return what lies in places: compared by identity, as floats may be nan.

    Keeping them keeps them alive, so that no other object gets the identity of one.
    """
    return list(chain.from_iterable(map(dict.values, places)))


class _Tensors:
    """What tells that tensors changed in place: versions, places, and one element of each.

    Args:
        tensors: parameters and buffers; elements are those of the ones that are trained.
    """

    def __init__(self, tensors: list[Tensor]) -> None:
        self._counted = [tensor for tensor in tensors if not tensor.is_inference()]
        self._all = tensors
        # Views, so that they show what stands there later.
        with torch.inference_mode(False), torch.no_grad():
            self._middles = [
                tensor.detach()[tuple(side // 2 for side in tensor.shape)]
                for tensor in tensors
                if tensor.requires_grad and tensor.numel()
            ]

    def state(self) -> list[Any]:
        """Return numbers that differ if one of the tensors does."""
        state: list[Any] = [tensor._version for tensor in self._counted]
        state += [tensor.data_ptr() for tensor in self._all]
        if self._middles:
            device = self._middles[0].device
            row = torch.stack([m.to(device, torch.float32) for m in self._middles])
            state += row.view(torch.int32).tolist()  # bits: nan is equal to itself
        return state
