"""The network that predicts: a detector's own, rearranged for inference and kept up to date."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from ..models.base import Detector
from ..models.inference import fast_network


class FastNetwork:
    """A detector's `fast_network`, made when it is first asked for and anew when weights change.

    Args:
        detector: in evaluation mode whenever it is asked.
        dtype: in which its layers compute.
    """

    def __init__(self, detector: Detector, dtype: torch.dtype = torch.float32) -> None:
        self.detector = detector
        self.dtype = dtype
        self._made: Detector | None = None
        self._tensors: list[Tensor] = []
        self._version = -1

    def get(self) -> Detector:
        """Return the network for the detector's present weights."""
        version = sum(tensor._version for tensor in self._tensors)
        if self._made is None or version != self._version:
            self._made = fast_network(self.detector, dtype=self.dtype)
            both = itertools.chain(self.detector.parameters(), self.detector.buffers())
            self._tensors = [tensor for tensor in both if not tensor.is_inference()]
            self._version = sum(tensor._version for tensor in self._tensors)
        return self._made
