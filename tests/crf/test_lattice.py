"""The permutohedral lattice against recorded filters of the compiled one, and as a matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from crf_golden import INDEX, part
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.crf.lattice import Lattice, build_lattice
from maskwright.ops import permutohedral_filter


def numbered(vertices: np.ndarray) -> np.ndarray:
    """Number vertices by their first use."""
    _, first, inverse = np.unique(vertices, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].reshape(vertices.shape)


def dense(lattice: Lattice, count: int) -> torch.Tensor:
    return torch.as_tensor(lattice @ torch.eye(count))


@pytest.mark.parametrize("tensors", [False, True])
@pytest.mark.parametrize("case", INDEX["lattice"])
def test_filters_are_those_of_the_compiled_lattice(case: str, tensors: bool) -> None:
    golden = part("lattice.safetensors", case)
    features, values = golden["features"], golden["values"]
    dims = features.shape[1]
    if tensors:
        lattice = build_lattice(torch.from_numpy(features))
        forth, back = (side @ torch.from_numpy(values) for side in (lattice, lattice.T))
    else:
        lattice = build_lattice(features)
        forth, back = lattice @ values, lattice.T @ values
    most = np.abs(golden["filtered"]).max()
    np.testing.assert_allclose(forth, golden["filtered"], rtol=0, atol=2e-4 * most)
    np.testing.assert_allclose(back, golden["filtered_transposed"], rtol=0, atol=2e-4 * most)
    weights = np.asarray(lattice.slice.weights) * (1 + 2.0**-dims)
    np.testing.assert_allclose(weights, golden["barycentric"], rtol=0, atol=1e-4)
    np.testing.assert_array_equal(numbered(np.asarray(lattice.slice.index)), golden["vertex"])


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 30),
    dims=st.integers(1, 6),
    spread=st.floats(0.01, 50),
    seed=st.integers(0, 999),
)
def test_arrays_and_tensors_make_one_matrix(
    count: int, dims: int, spread: float, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    features = (draw.normal(size=(count, dims)) * spread).astype(np.float32)
    lattice = build_lattice(torch.from_numpy(features))
    matrix = dense(lattice, count)
    same = build_lattice(features) @ np.eye(count, dtype=np.float32)
    np.testing.assert_allclose(matrix, same, atol=1e-6)
    np.testing.assert_allclose(dense(lattice.T, count), matrix.T, atol=1e-6)
    weights = np.asarray(lattice.slice.weights) * (1 + 2.0**-dims)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-4)
    assert weights.min() > -1e-4 and (matrix.diagonal() > 0).all()


@settings(max_examples=20, deadline=None)
@given(count=st.integers(2, 25), dims=st.integers(1, 5), seed=st.integers(0, 999))
def test_points_move_together_and_in_any_order(count: int, dims: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    features = draw.uniform(-3, 3, (count, dims)).astype(np.float32)
    values = draw.normal(size=(count, 2)).astype(np.float32)
    order = draw.permutation(count)
    filtered = build_lattice(features) @ values
    mixed = build_lattice(features[order]) @ values[order]
    np.testing.assert_allclose(mixed, filtered[order], atol=1e-5)


def test_scaled_rows_and_columns() -> None:
    draw = torch.Generator().manual_seed(0)
    lattice = build_lattice(torch.randn(12, 3, generator=draw))
    before, after = torch.rand(12, generator=draw), torch.rand(12, generator=draw)
    matrix = dense(lattice, 12)
    expected = after[:, None] * matrix * before
    torch.testing.assert_close(dense(lattice.scaled(before, after), 12), expected)
    torch.testing.assert_close(dense(lattice.scaled(before, after).T, 12), expected.T)
    torch.testing.assert_close(dense(lattice.times(-3), 12), -3 * matrix)


def test_gradients_go_back_by_the_transposed_filter() -> None:
    draw = torch.Generator().manual_seed(0)
    lattice = build_lattice(torch.randn(14, 5, generator=draw) * 2)
    values = torch.randn(14, 2, generator=draw, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(permutohedral_filter, (values, lattice))
    assert torch.autograd.gradgradcheck(permutohedral_filter, (values, lattice))
    # The filter itself is not symmetric here, as lattice points are missing.
    matrix = dense(lattice, 14)
    assert (matrix - matrix.T).abs().max() > 1e-3


def test_half_types_are_filtered_in_float32() -> None:
    lattice = build_lattice(torch.tensor([[0.0], [0.5], [9.0]]))
    filtered = permutohedral_filter(torch.ones(3, 1, dtype=torch.bfloat16), lattice)
    assert filtered.dtype == torch.float32
    torch.testing.assert_close(filtered, lattice @ torch.ones(3, 1))


@pytest.mark.parametrize("tensors", [False, True])
def test_what_cannot_be_numbered_is_said(tensors: bool) -> None:
    def build(rows: list[list[float]]) -> None:
        features = np.array(rows, np.float32)
        build_lattice(torch.from_numpy(features) if tensors else features)

    with pytest.raises(ValueError, match="too small for the range"):
        build([[0.0] * 5, [1e5] * 5])
    with pytest.raises(ValueError, match="finite"):
        build([[0.0, float("nan")], [1.0, 2.0]])
    with pytest.raises(ValueError, match="finite"):
        build([[0.0, float("inf")], [1.0, 2.0]])
