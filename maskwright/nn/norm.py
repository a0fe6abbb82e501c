"""Normalisation layers: batch norm with frozen statistics, and the choice of a norm by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import OptionError
from .convolution import Conv2d
from .winograd import EXACT


class FrozenBatchNorm2d(nn.Module):
    """Batch norm whose statistics and affine parameters are constants.

    Detection trains with few images at a time, too few for batch statistics, so the backbone
    keeps those of its pretraining (He et al. 2017, section 3.1, by way of ResNet fine-tuning).

    Shape: (B, C, H, W) to the same.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return `(x - mean) / sqrt(var + eps) * weight + bias` with one multiply and one add."""
        scale, shift = self.affine()
        return x * scale[:, None, None].to(x.dtype) + shift[:, None, None].to(x.dtype)

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return factor and summand of each channel."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def extra_repr(self) -> str:
        """Describe the layer in `print(model)`."""
        return f"{self.weight.numel()}, eps={self.eps}"


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm that trains on a single value a channel too: by its running statistics.

    One value has no deviation. It is what the mean over one image leaves, or a map of one cell;
    `nn.BatchNorm2d` refuses it.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return (B, C, H, W) of the same."""
        images, _, height, width = input.shape
        if self.training and images * height * width == 1:
            mean, var = self.running_mean, self.running_var
            return F.batch_norm(input, mean, var, self.weight, self.bias, eps=self.eps)
        normed: Tensor = super().forward(input)
        return normed


OUTSIDE = 1e-6  # added to a deviation, not to a variance: as Darknet predicts on a CPU


def norm_outside(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Return `(x - mean) / (sqrt(var) + 1e-6) * weight + bias` by the running statistics."""
    assert norm.running_var is not None and norm.running_mean is not None
    scale = norm.weight / (norm.running_var.sqrt() + OUTSIDE)
    shift = norm.bias - norm.running_mean * scale
    return x * scale[:, None, None].to(x.dtype) + shift[:, None, None].to(x.dtype)


def conv_norm(conv: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """Return `norm(conv(x))`; in training frozen batch norm costs no pass over the maps.

    Args:
        conv: `Conv2d` without bias, or what takes its place at inference.
        norm: what follows it.
        x: (B, C, H, W).
    """
    learns = torch.is_grad_enabled()
    if learns and isinstance(norm, FrozenBatchNorm2d) and isinstance(conv, Conv2d):
        return conv.scaled(x, *norm.affine())
    result: Tensor = norm(conv(x))
    return result


GROUPS = {"gn": 16, "gn32": 32}  # of group norm, by its names


def make_norm(name: str | None, channels: int) -> list[nn.Module]:
    """Return the layers that normalise `channels` maps: none or one.

    Args:
        name: None; "bn": batch norm; "gn": group norm with at most 16 groups; "gn32": with at most
            32, as published (Wu & He 2018).
        channels: number of maps.

    Raises:
        ValueError: for another name.
    """
    if name is None:
        return []
    if name == "bn":
        return [nn.BatchNorm2d(channels)]
    if name in GROUPS:
        return [nn.GroupNorm(min(GROUPS[name], channels), channels)]
    raise OptionError(f"norm is None, 'bn', 'gn' or 'gn32', got {name!r}")


@contextmanager
def still_norms(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Let batch norm use its running statistics, and not change them, inside the block."""
    live = [
        layer
        for module in modules
        for layer in module.modules()
        if isinstance(layer, _BatchNorm) and layer.training
    ]
    for layer in live:
        layer.eval()
    try:
        yield
    finally:
        for layer in live:
            layer.train()


def starved_norm(module: nn.Module, run: Callable[[], object]) -> bool:
    """Tell whether a batch norm that learns would see a single value of each channel.

    Of one value there is no deviation, so torch refuses it: a batch of one image, where the maps
    have one pixel. Statistics stay as they are.

    Args:
        module: in the mode of its training.
        run: runs it on some input.
    """
    starved: list[nn.Module] = []

    def see(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0].numel() == inputs[0].shape[1]:
            starved.append(layer)

    live = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.training]
    handles = [layer.register_forward_pre_hook(see) for layer in live]
    try:
        with still_norms([module]), torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return bool(starved)


class SameStatistics(AbstractContextManager[None]):
    """Lets a batch norm compute as it does, but leave its running statistics where they are.

    For what is computed a second time: the statistics of a batch count once.
    """

    def __init__(self, norm: nn.Module) -> None:
        self.norm = norm
        self.own: dict[str, Tensor | None] = {}

    def __enter__(self) -> None:
        self.own = dict(self.norm._buffers)
        for name, value in self.own.items():
            self.norm._buffers[name] = None if value is None else value.clone()

    def __exit__(self, *_: object) -> None:
        self.norm._buffers.update(self.own)


def init_convs(module: nn.Module) -> None:
    """Initialise all convolutions of a module for ReLUs behind them (He et al. 2015, eq. 10)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def conv_block(
    in_channels: int,
    out_channels: int,
    kernel: int = 3,
    *,
    norm: str | None = None,
    relu: bool = True,
    tiles: Sequence[int] = EXACT,
) -> nn.Sequential:
    """Return convolution, optional norm, optional ReLU; size kept; bias only without a norm.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel: side of the kernel.
        norm: see `make_norm`.
        relu: whether there is one.
        tiles: see `Conv2d`.
    """
    conv = Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=norm is None)
    conv.tiles = tiles
    layers: list[nn.Module] = [conv, *make_norm(norm, out_channels)]
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class ResponseNorm(nn.Module):
    """Local response normalisation (Krizhevsky et al. 2012, section 3.3), as the paper writes it.

    b_i = a_i / (k + alpha * sum of a_j^2 over the n maps around i) ^ beta. Caffe and PyTorch divide
    alpha by n. Computed in float32 at least: powers of sums do not bear rounding to 8 bits.

    Args:
        alpha: weight of the sum.
        k: what is added to it.
        n: maps in the sum, odd.
        beta: the power.
    """

    def __init__(self, *, alpha: float, k: float, n: int = 5, beta: float = 0.75) -> None:
        super().__init__()
        self.alpha, self.k, self.n, self.beta = alpha, k, n, beta

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W) of the same."""
        maps = x.shape[1]
        exact = x.float() if x.dtype.itemsize < 4 else x
        squares = F.pad(exact.square(), (0, 0, 0, 0, self.n // 2, self.n // 2))
        total = squares[:, :maps]
        for shift in range(1, self.n):
            total = total + squares[:, shift : shift + maps]
        return (exact / (self.k + self.alpha * total) ** self.beta).to(x.dtype)

    def extra_repr(self) -> str:
        """Describe the layer in `print(model)`."""
        return f"alpha={self.alpha}, k={self.k}, n={self.n}, beta={self.beta}"


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm and ReLU, as the Inception networks are made of.

    Args:
        cin: channels of the input.
        cout: of the output.
        kernel: side of the kernel, or (height, width).
        stride: of the convolution.
        padding: pixels on each side, or (above and below, left and right); None: the size is kept,
            with a stride halved.
        eps: of the norm.
    """

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] | None = None,
        *,
        eps: float = 1e-3,
    ) -> None:
        super().__init__()
        high, wide = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (high // 2, wide // 2) if padding is None else padding
        self.conv = Conv2d(cin, cout, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(cout, eps=eps)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, cout, H / stride, W / stride)."""
        out: Tensor = self.relu(conv_norm(self.conv, self.bn, x))
        return out
