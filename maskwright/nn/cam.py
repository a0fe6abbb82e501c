"""What convinced a network: maps of where the evidence for one of its outputs lies.

CAM (Zhou et al. 2016), Grad-CAM (Selvaraju et al. 2017) and Grad-CAM++ (Chattopadhay et al. 2018)
of any layer whose output are maps, for any number that follows from them: the logit of a class, of
a detection, of the pixels of a class. The number should be a logit and no probability, whose
gradient also asks why the other classes are unlikely. Networks stay as they are: in evaluation mode
while they are asked, also where training is going on; frozen ones serve too, and gradients of the
parameters are neither made nor touched. Copies made for inference have layers without a gradient:
ask the model itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskwright.errors import OptionError, nearest

METHODS = ("cam", "gradcam", "gradcam++")


class ClassNetwork(Protocol):
    """What is asked of a classifier here.

    Attributes:
        final: name of the last layer, whose rows are the classes.
    """

    final: str

    def maps(self, x: Tensor) -> Tensor:
        """Return the last maps (B, K, h, w)."""

    def head(self, maps: Tensor) -> Tensor:
        """Return the logits (B, C) of the last maps."""


@dataclass(frozen=True)
class Evidence:
    """Maps of a layer, and how they move what is to be explained.

    Attributes:
        maps: (B, K, h, w), f.
        gradients: (B, K, h, w), dy / df; (P, B, K, h, w) for P numbers y.
    """

    maps: Tensor
    gradients: Tensor


def explain(
    network: nn.Module,
    x: Tensor,
    classes: Tensor,
    method: str = "gradcam",
    *,
    layer: nn.Module | str | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    """Return where a classifier sees classes, as heat maps of the size of its input.

    Args:
        network: gives logits (B, C); with `maps`, `head` and `final` as `ClassNetwork` has
            them, unless a layer is named.
        x: (B, 3, H, W), what the network takes.
        classes: (B,) the class to explain in each image; (B, P) for several of them.
        method: "cam", "gradcam" or "gradcam++".
        layer: the layer whose maps are looked at, itself or its name; None: the last maps.
        sizes: (B, 2) height and width of the images before padding; None: without padding.

    Returns:
        (B, H, W) or (B, P, H, W) in [0, 1], see `heatmaps`.

    Raises:
        OptionError: if the method is unknown, there is no such layer, or CAM does not fit the
            network.
        ValueError: if a class lies outside 0..C-1.
    """
    if method not in METHODS:
        raise OptionError(
            f"explain must be one of {', '.join(METHODS)}, got {method!r}{nearest(method, METHODS)}"
        )
    columns = classes[:, None] if classes.ndim == 1 else classes
    if columns.ndim != 2 or len(columns) != len(x) or not columns.shape[1]:
        raise ValueError(
            f"expected classes ({len(x)},) or ({len(x)}, P), got {tuple(classes.shape)}"
        )
    if method == "cam":
        if layer is not None:
            raise OptionError("cam looks at the last maps: name a layer for gradcam or gradcam++")
        raw = cam(network, x, columns)
    else:
        found = class_evidence(network, x, columns, layer=layer)
        raw = (gradcam if method == "gradcam" else gradcam_plus_plus)(found)
    maps = heatmaps(raw, (x.shape[-2], x.shape[-1]), sizes).transpose(0, 1)  # (B, P, H, W)
    return maps.reshape(*classes.shape, *maps.shape[-2:])


def cam(network: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
    """Return the class activation maps: the last maps, weighted as the last layer weights them.

    M = sum_k w_k^c f_k, with signs; its mean over the positions is the logit without the bias.

    Args:
        network: see `ClassNetwork`.
        x: (B, 3, H, W).
        classes: (B, P).

    Returns:
        (P, B, h, w), not scaled.

    Raises:
        OptionError: unless the logits are those of one linear layer on the mean of each map.
        ValueError: if a class lies outside 0..C-1.

    Reference: Zhou et al. 2016, equation 2.
    """
    parts: Any = network
    with _evaluating(network), torch.no_grad():
        maps: Tensor = parts.maps(x)
        final = network.get_submodule(parts.final)
        weight = getattr(final, "weight", None)
        rows = weight.flatten(1) if isinstance(weight, Tensor) and weight.ndim > 1 else None
        logits: Tensor = parts.head(maps.clone())  # which may begin with a ReLU in place
        pooled = maps.mean((2, 3))
        if rows is None or rows.shape != (logits.shape[1], pooled.shape[1]):
            raise OptionError(_not_pooled(network))
        bias = getattr(final, "bias", None)
        wanted = F.linear(pooled, rows, bias)
        if not torch.allclose(wanted, logits.flatten(1), rtol=1e-3, atol=1e-3 * _scale(wanted)):
            raise OptionError(_not_pooled(network))
        _check_classes(classes, logits.shape[1])
        return torch.einsum("bpk,bkhw->pbhw", rows[classes.to(rows.device)], maps)


def _not_pooled(network: nn.Module) -> str:
    return (
        f"cam needs logits of one linear layer on the mean of each map, and {_name(network)} "
        "has more than that behind its maps: take gradcam or gradcam++"
    )


def gradcam(found: Evidence) -> Tensor:
    """Return the Grad-CAM maps: ReLU(sum_k a_k f_k), a_k the mean of the gradient over map k.

    Args:
        found: maps and gradients, see `evidence`.

    Returns:
        (B, h, w), (P, B, h, w) for P numbers; at least 0, not scaled.

    Reference: Selvaraju et al. 2017, equations 1 and 2.
    """
    return _weighted(found.maps, found.gradients.mean((-2, -1)))


def gradcam_plus_plus(found: Evidence) -> Tensor:
    """Return the Grad-CAM++ maps: ReLU(sum_k a_k f_k), where positions count by their share.

    The second and third derivatives are those of exp(y), whose common factor exp(y) leaves with the
    scaling: with g = dy / df, alpha = g^2 / (2 g^2 + (sum of f over the map) g^3), 0 where g is 0,
    and a_k = sum over the positions of alpha ReLU(g).

    Args:
        found: maps and gradients, see `evidence`.

    Returns:
        (B, h, w), (P, B, h, w) for P numbers; at least 0, not scaled.

    Reference: Chattopadhay et al. 2018, equations 5, 11 and 19.
    """
    g = found.gradients
    whole = found.maps.sum((-2, -1), keepdim=True)
    # alpha without g^2 above and below: tiny gradients leave no step of the float behind.
    below = 2 + whole * g
    usable = (g != 0) & (below != 0)
    alpha = torch.where(usable, 1 / torch.where(usable, below, 1), 0)
    return _weighted(found.maps, (alpha * g.relu()).sum((-2, -1)))


def _weighted(maps: Tensor, weights: Tensor) -> Tensor:
    """Return ReLU(sum_k a_k f_k) of maps (B, K, h, w) and weights (..., B, K)."""
    return torch.einsum("...bk,bkhw->...bhw", weights, maps).relu()


def class_evidence(
    network: nn.Module, x: Tensor, classes: Tensor, *, layer: nn.Module | str | None = None
) -> Evidence:
    """Return the maps of a classifier, and their gradients for the logits of classes.

    Args:
        network, x, layer: see `explain`.
        classes: (B, P).

    Returns:
        Gradients (P, B, K, h, w).

    Raises:
        OptionError: if there is no such layer.
        ValueError: if a class lies outside 0..C-1, or the layer gives no maps.
    """

    def chosen(logits: Tensor) -> Tensor:
        _check_classes(classes, logits.shape[-1])
        # In evaluation mode no image moves the logit of another: a sum serves for all of them.
        return logits.gather(1, _usable(classes).to(logits.device)).sum(0)

    if layer is not None:
        return evidence(network, layer, lambda: network(_usable(x)), chosen)
    parts: Any = network
    with _evaluating(network):
        with torch.no_grad():
            maps = parts.maps(x)
        # The copy is for heads that begin with a ReLU in place.
        leaf = _leaf(maps, _name(network))
        return _derived(leaf, chosen(parts.head(leaf.clone())), _name(network))


def evidence(
    model: nn.Module,
    layer: nn.Module | str,
    run: Callable[[], Any],
    target: Callable[[Any], Tensor],
) -> Evidence:
    """Return the maps of a layer, and the gradients of any numbers that follow from them.

    Args:
        model: what `run` asks; it is in evaluation mode meanwhile.
        layer: a layer in it that gives maps (B, K, h, w) and runs once; itself, or its name.
        run: asks the model, `lambda: model(images)`, and returns what `target` needs; tensors that
            were made in inference mode must be cloned in it.
        target: the number to explain, a scalar or (P,): a logit, or a sum of logits.

    Returns:
        Gradients (B, K, h, w), or (P, B, K, h, w).

    Raises:
        OptionError: if there is no such layer.
        ValueError: if it gives no maps, does not run or runs more than once, or the target does
            not depend on it.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 1))
        >>> x = torch.rand(1, 3, 8, 8)
        >>> found = evidence(net, "0", lambda: net(x), lambda y: y[:, 1].sum())
        >>> gradcam(found).shape
        torch.Size([1, 6, 6])
    """
    part, name = _find(model, layer)
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> Tensor:
        leaf = _leaf(output, name)
        seen.append(leaf)
        return leaf.clone()  # the next layer may change it in place

    hook = part.register_forward_hook(keep)
    try:
        with _evaluating(model):
            value = target(run())
            if len(seen) != 1:
                raise ValueError(
                    f"the layer {name} runs {len(seen)} times: choose one that runs once"
                )
            return _derived(seen[0], value, name)
    finally:
        hook.remove()


def heatmaps(raw: Tensor, size: tuple[int, int], sizes: Tensor | None = None) -> Tensor:
    """Return maps enlarged to the size of the input and scaled, each for itself, to 0..1.

    Bilinear, a pixel standing for its centre; then the least value becomes 0 and the highest 1. A
    map that is the same everywhere says nothing: it becomes 0 everywhere.

    Args:
        raw: (..., B, h, w).
        size: (height, width) of the input.
        sizes: (B, 2) height and width of each image before padding at the right and the bottom:
            what lies outside is 0, and does not count.

    Returns:
        (..., B, height, width) in [0, 1].

    Raises:
        ValueError: if a map is not finite.
    """
    raw = raw.detach()
    raw = raw if raw.dtype == torch.float64 else raw.float()
    if not torch.isfinite(raw).all():
        raise ValueError("a map of evidence has values that are infinite or nan")
    flat = raw.reshape(-1, 1, *raw.shape[-2:])
    large = F.interpolate(flat, size, mode="bilinear", align_corners=False)
    large = large.reshape(*raw.shape[:-2], *size)
    inside = torch.ones(size, dtype=torch.bool, device=raw.device)
    if sizes is not None:
        limit = sizes.to(raw.device)[:, :, None, None]
        rows = torch.arange(size[0], device=raw.device)[:, None]
        columns = torch.arange(size[1], device=raw.device)
        inside = (rows < limit[:, 0]) & (columns < limit[:, 1])  # (B, height, width)
    low = large.masked_fill(~inside, torch.inf).amin((-2, -1), keepdim=True)
    high = large.masked_fill(~inside, -torch.inf).amax((-2, -1), keepdim=True)
    span = high - low
    # Enlarging the same value everywhere differs in the last bit: no map of evidence.
    noise = 8 * torch.finfo(raw.dtype).eps * torch.maximum(low.abs(), high.abs())
    scaled = (large - low) / torch.where(span > noise, span, 1)
    return torch.where(inside & (span > noise), scaled, 0)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode with gradients; then each module has its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def _find(model: nn.Module, layer: nn.Module | str) -> tuple[nn.Module, str]:
    """Return a layer and its name."""
    names = {name: module for name, module in model.named_modules() if name}
    if isinstance(layer, str):
        if layer not in names:
            raise OptionError(
                f"{_name(model)} has no layer {layer!r}{nearest(layer, names)}; "
                f"its parts are {', '.join(name for name, _ in model.named_children())}"
            )
        return names[layer], layer
    name = next((name for name, module in names.items() if module is layer), None)
    if name is None:
        raise OptionError(f"the layer {_name(layer)} is no part of {_name(model)}")
    return layer, name


def _leaf(output: Any, name: str) -> Tensor:
    """Return maps as the beginning of a graph: nothing below them is asked for a gradient."""
    if not isinstance(output, Tensor) or output.ndim != 4:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"{name} gives no maps (B, K, h, w) but {got}: choose another layer")
    return output.detach().clone().requires_grad_()


def _derived(maps: Tensor, value: Tensor, name: str) -> Evidence:
    """Return maps with the gradients of a value, a scalar or (P,), by them."""
    found = []
    values = value.reshape(-1)
    for number, one in enumerate(values):
        gradient = None
        if one.requires_grad:
            more = number + 1 < len(values)
            (gradient,) = torch.autograd.grad(one, maps, allow_unused=True, retain_graph=more)
        if gradient is None:
            raise ValueError(f"what is to be explained does not depend on the maps of {name}")
        found.append(gradient)
    gradients = torch.stack(found) if value.ndim else found[0]
    return Evidence(maps.detach(), gradients)


def _check_classes(classes: Tensor, count: int) -> None:
    unknown = [label for label in classes.flatten().tolist() if not 0 <= label < count]
    if unknown:
        raise ValueError(f"the network knows the classes 0..{count - 1}, got {unknown[0]}")


def _usable(x: Tensor) -> Tensor:
    """Return a tensor that a graph may hold, which one made in inference mode is not."""
    return x.clone() if x.is_inference() else x


def _scale(values: Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0


def _name(module: nn.Module) -> str:
    return type(module).__name__
