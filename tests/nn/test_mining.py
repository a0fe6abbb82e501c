"""Which places of a dense detector count, against plain loops."""

import pytest
import torch

from maskwright.errors import OptionError
from maskwright.nn.detection.dense.mining import MININGS, NEGATIVES, SAMPLED, get_mining
from maskwright.nn.random import ImageNoise


def places(count=500):
    generator = torch.Generator().manual_seed(0)
    losses = torch.rand(3, count, generator=generator)
    state = torch.zeros(3, count, dtype=torch.int8)
    state[0, ::50], state[0, 1::50] = 1, -1
    state[1, 7] = 1
    return losses, state


def test_all_but_the_ignored():
    losses, state = places()
    assert torch.equal(MININGS["none"](losses, state, None), state >= 0)


def test_hard_negatives_are_three_times_the_positives():
    losses, state = places()
    taken = MININGS["hard_negatives"](losses, state, None)
    for row, kind, found in zip(losses.tolist(), state.tolist(), taken.tolist(), strict=True):
        positives = [i for i, one in enumerate(kind) if one == 1]
        order = sorted((i for i, one in enumerate(kind) if one == 0), key=lambda i: -row[i])
        wanted = set(positives + order[: NEGATIVES * max(1, len(positives))])
        assert {i for i, one in enumerate(found) if one} == wanted


def test_the_hardest_are_those_of_the_largest_loss():
    losses, state = places()
    taken = MININGS["ohem"](losses, state, None)
    for row, kind, found in zip(losses.tolist(), state.tolist(), taken.tolist(), strict=True):
        order = sorted((i for i, one in enumerate(kind) if one >= 0), key=lambda i: -row[i])
        assert {i for i, one in enumerate(found) if one} == set(order[:SAMPLED])
    few = MININGS["ohem"](losses[:, :9], state[:, :9], None)
    assert torch.equal(few, state[:, :9] >= 0)


def test_at_random_half_may_be_positive_and_the_image_decides():
    losses, state = places()
    state[2, :300] = 1
    draws = [
        MININGS["random"](losses, state, ImageNoise(torch.tensor(k))) for k in ([1, 2, 3],) * 2
    ]
    assert torch.equal(*draws)
    assert draws[0].sum(1).tolist() == [SAMPLED] * 3
    positives = (draws[0] & (state == 1)).sum(1).tolist()
    assert positives == [10, 1, SAMPLED // 2]
    assert not (draws[0] & (state < 0)).any()
    other = MININGS["random"](losses, state, ImageNoise(torch.tensor([4, 5, 6])))
    assert not torch.equal(draws[0], other)


def test_an_unknown_name_is_an_error():
    with pytest.raises(OptionError, match="mining is one of none, random"):
        get_mining("hard")
