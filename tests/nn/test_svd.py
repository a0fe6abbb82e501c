"""Truncated SVD of linear layers against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskwright.errors import OptionError
from maskwright.nn.detection.box_head import BoxHead
from maskwright.nn.detection.svd import LowRankLinear, truncate


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_the_product_is_the_truncation_of_numpy(rank: int) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(9, 6)
    made = truncate(layer, rank)
    u, s, vh = np.linalg.svd(layer.weight.detach().double().numpy(), full_matrices=False)
    expected = u[:, :rank] * s[:rank] @ vh[:rank]
    product = (made.outer.weight @ made.inner.weight).detach().numpy()
    np.testing.assert_allclose(product, expected, atol=1e-6)
    x = torch.randn(4, 9)
    target = x @ torch.from_numpy(expected).float().T + layer.bias
    torch.testing.assert_close(made(x), target, rtol=1e-5, atol=1e-6)
    # Eckart and Young: what is lost is the norm of the other singular values.
    lost = np.linalg.norm(product - layer.weight.detach().numpy())
    assert lost == pytest.approx(np.linalg.norm(s[rank:]), abs=1e-5)
    assert sum(p.numel() for p in made.parameters()) == rank * (9 + 6) + 6


def test_the_full_rank_loses_nothing_and_a_higher_one_is_an_error() -> None:
    layer = torch.nn.Linear(5, 8, bias=False)
    x = torch.randn(3, 5)
    torch.testing.assert_close(truncate(layer, 5)(x), layer(x), rtol=1e-5, atol=1e-6)
    for rank in (6, 0):
        with pytest.raises(OptionError, match=f"5 to 8 has a rank from 1 to 5, got {rank}"):
            truncate(layer, rank)


def test_a_head_is_built_with_ranks() -> None:
    head = BoxHead(4, 2, pool=3, fcs=2, width=16, ranks=(5,))
    assert isinstance(head.fcs[0], LowRankLinear) and isinstance(head.fcs[1], torch.nn.Linear)
    assert head(torch.randn(7, 4, 3, 3)).logits.shape == (7, 3)
    with pytest.raises(OptionError, match="a rank from 1 to 16, got 17"):
        BoxHead(4, 2, pool=3, fcs=2, width=16, ranks=(17,))
    with pytest.raises(OptionError, match="3 ranks for 2"):
        BoxHead(4, 2, pool=3, fcs=2, width=16, ranks=(4, 4, 4))
