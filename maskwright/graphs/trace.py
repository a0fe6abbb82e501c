"""A detector with the fixed interface of exported graphs, and its graph in torch's own form.

    pixels (B, 3, H, W) float32 RGB 0 to 255, sizes (B, 2) int64 (height, width) before padding
    -> boxes (B, K, 4), scores (B, K), labels (B, K) int64, mask_probs (B, K, M, M), count (B,)
       int64, keypoints (B, K, J, 3)

by falling score, in padded-image pixels; slots from `count` on are zeros. Detectors that take their
regions from outside have a third input: regions (B, R, 4) in padded-image pixels, of which those
without area do not count.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..models.detection.base import Detector, PostProcess
from ..models.inference import fast_network
from ..nn.inference import share
from ..nn.same_padding import fix_padding
from ..structures import Images, Instances
from .spec import GraphSpec

# Of the example that a graph for any size is traced with: no side equals another one, on no level.
_EXAMPLE = (3, 5)
MOST_IMAGES, MOST_PIXELS = 4096, 32768  # a batch and a side of a graph with free ones


class WholeModel(nn.Module):
    """From pixels to instances with plain tensors, in evaluation mode, without gradients.

    Args:
        detector: the network.
        spec: thresholds and outputs.
    """

    def __init__(self, detector: Detector, spec: GraphSpec) -> None:
        super().__init__()
        self.detector = detector
        self.spec = spec

    def forward(
        self, pixels: Tensor, sizes: Tensor, regions: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Return the outputs that `spec.outputs` names; see the module."""
        proposals = None
        if regions is not None:
            valid = (regions[..., 2:] > regions[..., :2]).all(-1)
            proposals = Instances(regions, torch.zeros_like(valid, dtype=torch.int64), valid)
        found = self.detector(Images(pixels, sizes, sizes, proposals), self.spec.post)
        values = {
            "boxes": found.boxes,
            "scores": found.scores,
            "labels": found.labels,
            "mask_probs": found.mask_crops,
            "count": found.valid.sum(1),
            "keypoints": found.keypoints,
        }
        return tuple(values[name] for name in self.spec.outputs)


def whole_model(detector: Detector, spec: GraphSpec) -> WholeModel:
    """Return the model that is exported: batch norm folded, weights in the precision of `spec`.

    Args:
        detector: in evaluation mode; it stays as it is.
        spec: its description.
    """
    network = share(fast_network(detector, winograd=False))
    if spec.size is None:
        fix_padding(network, _run_blocks)
    if spec.precision == "fp16":
        _halve(network)
    model = WholeModel(network, spec).eval()
    return model


def _run_blocks(network: nn.Module, blocks: int) -> object:
    """Run a detector on an image of so many times `size_divisor` a side."""
    assert isinstance(network, Detector)
    side = blocks * network.size_divisor
    size = torch.tensor([[side, side]])
    whole = torch.tensor([[[0.0, 0.0, side, side]]])
    valid = torch.ones(1, 1, dtype=torch.bool)
    regions = Instances(whole, valid.long(), valid)  # for detectors that take them
    images = Images(torch.zeros(1, 3, side, side), size, size, regions)
    return network(images, PostProcess(score_thresh=0.0, max_det=1))


class _Widen(nn.Module):
    """Weights kept in half precision, used in single precision."""

    def forward(self, kept: Tensor) -> Tensor:
        """Return the weights as the layer wants them."""
        return kept.float()


def _halve(network: nn.Module) -> None:
    """Keep the weights of all layers in half precision; biases and norms are too small to count."""
    for layer in list(network.modules()):
        for name, value in list(layer.named_parameters(recurse=False)):
            if value.ndim >= 2 and value.dtype == torch.float32:
                parametrize.register_parametrization(layer, name, _Widen(), unsafe=True)
                kept = layer.get_submodule(f"parametrizations.{name}")
                kept.original = nn.Parameter(value.detach().half(), requires_grad=False)


def trace(model: WholeModel) -> torch.export.ExportedProgram:
    """Return the graph of a model, with our own operators in it."""
    spec = model.spec
    batch = 2 if spec.batch is None else spec.batch
    height, width = spec.size or [64 * n for n in _EXAMPLE]
    pixels = torch.zeros(batch, 3, height, width)
    sizes = torch.tensor([[height, width]]).repeat(batch, 1)
    given = [pixels, sizes]
    if spec.regions is not None:
        # Not expanded: compiled graphs take the strides of the example for granted.
        given.append(torch.tensor([0.0, 0, width, height]).repeat(batch, spec.regions.slots, 1))
    dims: dict[str, dict[int, object]] = {name: {} for name in spec.inputs}
    if spec.batch is None:
        images = torch.export.Dim("batch", min=1, max=MOST_IMAGES)
        dims = {name: {0: images} for name in spec.inputs}
    if spec.size is None:
        for axis, name in ((2, "rows"), (3, "columns")):
            count = torch.export.Dim(name, min=1, max=MOST_PIXELS // spec.divisor)
            dims["pixels"][axis] = spec.divisor * count
    with torch.no_grad(), quiet():
        return torch.export.export(model, tuple(given), dynamic_shapes=dims, strict=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what exporters say about their own inner workings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
