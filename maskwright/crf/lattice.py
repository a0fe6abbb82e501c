"""The permutohedral lattice: sums over all pairs of points, by nearness, in linear time.

Adams, Baek and Davis 2010, "Fast High-Dimensional Filtering Using the Permutohedral Lattice": each
point is shared out among the d + 1 corners of the simplex around it (splat), the corners are
blurred along d + 1 axes, and the point reads its corners (slice). Here all three are sparse
matrices, made once for the points by sorting, without a hash table, and applied to any values. The
same lines compute with NumPy arrays and with tensors, on any device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np

Array = Any  # a NumPy array or a tensor: what goes in decides what comes out
_MOST_KEYS = 2**62


def library(values: Array) -> Any:
    """Return the library whose functions take these values: numpy or torch."""
    return np if isinstance(values, np.ndarray) else import_module("torch")


def as_kind(array: np.ndarray, other: Array) -> Array:
    """Return an array in the library of another one, and on its device."""
    xp = library(other)
    return array if xp is np else xp.from_numpy(array).to(other.device)


@dataclass(frozen=True)
class SparseRows:
    """A sparse matrix (R, X) by rows.

    Attributes:
        index: int32 column of each entry: (R, k) if all rows have k entries, else (E,).
        weights: float32, the entries themselves.
        begins: (R + 1,) int32, where each row begins among E entries, and the end of the last one.
    """

    index: Array
    weights: Array
    begins: Array = None

    def __matmul__(self, values: Array) -> Array:
        """Return the product (R, C) with values (X, C)."""
        xp = library(values)
        if xp is not np:
            return xp.nn.functional.embedding_bag(
                self.index,
                values,
                self.begins,
                mode="sum",
                per_sample_weights=self.weights.to(values.dtype),
                include_last_offset=self.begins is not None,
            )
        if self.begins is not None:
            return np.add.reduceat(self.weights[:, None] * values[self.index], self.begins[:-1])
        columns = zip(self.index.T, self.weights.T[:, :, None], strict=True)
        return sum(weights * values[index] for index, weights in columns)


@dataclass(frozen=True)
class Lattice:
    """The approximate Gaussian of all pairs of N points, as a matrix (N, N): `lattice @ values`.

    Attributes:
        splat: (M, N), from points to the M lattice points that are corners of their simplices.
        blurs: d + 1 symmetric matrices (M, M), the first one is applied first.
        slice: (N, M), back to the points: d + 1 entries in each row.
        order: (N (d + 1),) which entry of `slice` each one of `splat` is.
    """

    splat: SparseRows
    blurs: Sequence[SparseRows]
    slice: SparseRows
    order: Array

    def __matmul__(self, values: Array) -> Array:
        """Return for each point the sum of the values (N, C) of all points by their nearness."""
        values = self.splat @ values
        for blur in self.blurs:
            values = blur @ values
        return self.slice @ values

    @cached_property
    def T(self) -> Lattice:  # noqa: N802
        """The transposed matrix, by which gradients go back.

        It is another one: where lattice points are missing, the order of the axes matters.
        """
        splat, slices = self.splat, self.slice
        back = _moved(splat.weights, self.order).reshape(slices.weights.shape)
        return Lattice(
            replace(splat, weights=_picked(slices.weights.reshape(-1), self.order)),
            self.blurs[::-1],
            replace(slices, weights=back),
            self.order,
        )

    def scaled(self, before: Array | None = None, after: Array | None = None) -> Lattice:
        """Return diag(after) @ self @ diag(before), where each is (N,) or None for ones."""
        splat, slices = self.splat, self.slice
        if before is not None:
            splat = replace(splat, weights=splat.weights * _picked(before, splat.index))
        if after is not None:
            slices = replace(slices, weights=slices.weights * after[:, None])
        return replace(self, splat=splat, slice=slices)

    def times(self, factor: float) -> Lattice:
        """Return the matrix with all entries multiplied."""
        return replace(self, slice=replace(self.slice, weights=self.slice.weights * factor))


def build_lattice(features: Array, counts: Sequence[int] = ()) -> Lattice:
    """Return the lattice of points, for the kernel exp(-|a - b|^2 / 2).

    An isolated point gets less than its own value back, 0.4 to 0.9 of it: the lattice is coarse.

    Args:
        features: (N, d) float32, at least one point: its coordinates in standard deviations.
        counts: of how many points each group is, which hears nothing of the others; they sum to N.
            Groups get the numbers that they would get alone.

    Raises:
        ValueError: if a coordinate is not finite, or the points lie so far apart that 64 bits
            cannot number the lattice.

    Example:
        >>> lattice = build_lattice(np.array([[0.0], [0.5], [9.0]], np.float32))
        >>> print((lattice @ np.ones((3, 1), np.float32)).ravel().round(2))
        [1.57 1.49 0.75]
    """
    xp = library(features)
    count, dims = features.shape
    sides = dims + 1
    if not bool(xp.isfinite(features).all()):
        raise ValueError("features: expected finite coordinates")
    corner, rank, weights = _simplices(features)
    low, high = (f(corner, 1).tolist() for f in (xp.amin, xp.amax))
    # One number stands for the first d coordinates, with room for those of neighbours.
    strides, span = [], 1
    for a, b in zip(low[:-1], high[:-1], strict=True):
        strides.append(span)
        span *= int(b - a) + 3 * sides
    if not span * max(len(counts), 1) < _MOST_KEYS:
        raise ValueError(
            f"features: {dims} coordinates span {span:.2g} lattice points, too many to number: the "
            "standard deviations are too small for the range of positions or colours"
        )
    corner = xp.asarray(corner, dtype=xp.int64)
    base = sum((corner[j] - int(low[j])) * strides[j] for j in range(dims))
    if counts:
        base = base + as_kind(np.repeat(np.arange(len(counts)), counts), features) * span
    # Vertex r of a simplex lies r further along all axes, and d + 1 back on the last r in rank.
    back = _moved(xp.stack([0 * base + stride for stride in [*strides, 0]]), rank)
    steps = sum(strides) - sides * xp.flip(back, (0,))[:-1]
    keys, order = _sorted(xp.cumsum(xp.concatenate([base[None], steps]), 0).T.reshape(-1))

    first = xp.diff(keys, prepend=keys[:1] - 1) != 0
    vertices = keys[first]
    begins = xp.concatenate([xp.where(first)[0], order[:1] * 0 + len(order)])
    splat = SparseRows(
        xp.asarray(order // sides, dtype=xp.int32),
        _picked(weights.reshape(-1), order),
        xp.asarray(begins, dtype=xp.int32),
    )
    # Blurring has a gain of its own, which `alpha` takes back.
    alpha = 1 / (1 + 2.0**-dims)
    corners = xp.asarray(_moved(xp.cumsum(first, 0) - 1, order), dtype=xp.int32)
    slices = SparseRows(corners.reshape(count, sides), weights * alpha)
    ahead = [sum(strides) - sides * stride for stride in [*strides, 0]]
    return Lattice(splat, [_blur(vertices, step) for step in ahead], slices, order)


def _simplices(features: Array) -> tuple[Array, Array, Array]:
    """Return the simplex around each of the points (N, d).

    All in float32, and in the order of operations of the public implementations, for which vertex
    a point on a border counts to depends on the last bit.

    Returns:
        corner (d + 1, N) of remainder 0; rank (d + 1, N) int64 of the coordinates within the
        simplex, the largest first; weights (N, d + 1) of its vertices.
    """
    xp = library(features)
    dims = features.shape[1]
    sides = dims + 1
    # Between lattice points, so that the blur has variance 1; rounded as the others round it.
    unit = float(np.float32(math.sqrt(2 / 3) * sides))
    elevated: list[Any] = []
    total = xp.zeros_like(features[:, 0])
    for j in range(dims, 0, -1):
        scaled = features[:, j - 1] * (1 / math.sqrt(j * (j + 1)) * unit)
        elevated.append(total - j * scaled)
        total = total + scaled
    height = xp.stack([total, *elevated[::-1]])
    place = xp.round(height * (1 / sides))
    corner = place * sides
    left = height - corner
    # Rounding leaves the plane in which coordinates sum to zero; ranks that wrap around return.
    ranks = [xp.asarray(place.sum(0), dtype=xp.int64)] * sides
    for i in range(sides):
        for j in range(i + 1, sides):
            less = left[i] < left[j]
            ranks[i], ranks[j] = ranks[i] + less, ranks[j] + ~less
    rank = xp.stack(ranks)
    corner = xp.where(rank < 0, corner + sides, xp.where(rank > dims, corner - sides, corner))
    rank = rank % sides
    part = (height - corner) * (1 / sides)
    falling = _moved(part, rank)
    weights = [1 - falling[0] + falling[-1]]
    weights += [falling[r - 1] - falling[r] for r in range(dims, 0, -1)]
    return corner, rank, xp.stack(weights, 1)


def _blur(vertices: Array, step: int) -> SparseRows:
    """Return the blur along one axis: half of each neighbour is added, if it exists.

    Args:
        vertices: (M,) rising numbers.
        step: from one vertex to the next along the axis.
    """
    xp = library(vertices)
    own = xp.cumsum(xp.ones_like(vertices), 0) - 1
    at = _searched(vertices, vertices + step)
    found = _picked(vertices, at) == vertices + step
    # A vertex without neighbour has itself in its place, with weight 0.
    upper, lower = xp.where(found, at, own), own + 0
    lower[upper[found]] = own[found]
    index = xp.stack([own, upper, lower], 1)
    weights = xp.asarray(index != own[:, None], dtype=xp.float32) / 2
    weights[:, 0] = 1
    return SparseRows(xp.asarray(index, dtype=xp.int32), weights)


# What the libraries call by different names, or are quick at by different ones.


def _sorted(keys: Array) -> tuple[Array, Array]:
    """Return keys (X,) in rising order, and where each one was."""
    if library(keys) is not np:
        return tuple(keys.sort(stable=True))
    order = keys.argsort(kind="stable")
    return keys[order], order


def _picked(values: Array, index: Array) -> Array:
    """Return values[index], both of one dimension."""
    return values[index] if library(values) is np else values.index_select(0, index)


def _moved(values: Array, places: Array) -> Array:
    """Return values with each one at its place along the first axis."""
    moved = library(values).empty_like(values)
    if library(values) is not np:
        return moved.scatter_(0, places, values)
    np.put_along_axis(moved, places, values, 0)
    return moved


def _searched(rising: Array, wanted: Array) -> Array:
    """Return where rising values (X,) have each of the rising values wanted (Y,), or any place."""
    if library(rising) is not np and rising.device.type == "cpu":
        return as_kind(_searched(rising.numpy(), wanted.numpy()), rising)  # much quicker
    return library(rising).searchsorted(rising, wanted).clip(max=len(rising) - 1)
