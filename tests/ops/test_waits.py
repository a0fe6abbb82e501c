"""Operators on a card that is not there: the results of the CPU, and how often they wait for it."""

from __future__ import annotations

import pytest
import torch
from card import Card, OnCard
from torch import Tensor

from maskwright.models.inference import whole_products
from maskwright.ops import nms_padded, roi_align
from maskwright.ops.boxes import decode_deltas, encode_deltas
from maskwright.ops.overlaps import owned_boxes
from maskwright.structures import Images


def boxes(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 200
    return torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * 60 + 2], 1)


@pytest.mark.parametrize("levels", [1, 3])
def test_pooling_waits_once_forward_and_once_backward(levels: int) -> None:
    strides = (4, 8, 16)[:levels]
    maps = [torch.rand(2, 3, 256 // s, 256 // s) for s in strides]
    box, index = boxes(40) * torch.linspace(0.2, 1, 40)[:, None], torch.arange(40) % 2

    def run(maps: list[Tensor], box: Tensor, index: Tensor) -> tuple[Tensor, list[Tensor]]:
        maps = [m.detach().requires_grad_() for m in maps]
        pooled = roi_align(maps, box, index, strides=strides, output_size=5)
        pooled.square().sum().backward()
        return pooled.detach(), [m.grad for m in maps]

    expected, slopes = run(maps, box, index)
    with Card() as card:
        moved = [m.to("cuda") for m in maps], box.to("cuda"), index.to("cuda")
        with card.counting():
            got, grads = run(*moved)
        assert sum(card.waits.values()) <= 2, card.report()
    torch.testing.assert_close(got.value, expected)
    for grad, slope in zip(grads, slopes, strict=True):
        torch.testing.assert_close(grad.value, slope)


@pytest.mark.parametrize("labels", [5, 60])
def test_nms_of_many_labels_waits_no_more_often_than_of_a_few(labels: int) -> None:
    box, score = boxes(120)[None], torch.rand(1, 120, generator=torch.Generator().manual_seed(1))
    label = (torch.arange(120) % labels)[None]
    valid = torch.ones(1, 120, dtype=torch.bool)
    expected = nms_padded(box, score, valid, 0.3, 50, labels=label)
    with Card() as card:
        moved = [x.to("cuda") for x in (box, score, valid, label)]
        with card.counting():
            got = nms_padded(*moved[:3], 0.3, 50, labels=moved[3])
        assert sum(card.waits.values()) <= 5, card.report()
    assert all(torch.equal(a.value, b) for a, b in zip(got, expected, strict=True))


def test_owners_are_found_with_a_wait_for_each_conflict_alone() -> None:
    priors, truth = boxes(50), boxes(50)[None, :6] + 1
    valid = torch.ones(1, 6, dtype=torch.bool)
    expected = owned_boxes(priors, truth, valid)
    with Card() as card:
        moved = [x.to("cuda") for x in (priors, truth, valid)]
        with card.counting():
            got = owned_boxes(*moved)
        assert sum(card.waits.values()) <= 4, card.report()
    assert torch.equal(got.value, expected)


def test_deltas_of_published_weights_need_nothing_of_the_host() -> None:
    with Card() as card:
        box, anchor = boxes(9).to("cuda"), boxes(9, 1).to("cuda")
        with card.counting():
            delta = encode_deltas(box, anchor, (10, 10, 5, 5))
            back = decode_deltas(delta, anchor, (10, 10, 5, 5))
        assert not card.waits
    torch.testing.assert_close(back.value, box.value)
    uneven = (1.0, 2.0, 3.0, 4.0)
    delta = encode_deltas(boxes(9), boxes(9, 1), uneven)
    torch.testing.assert_close(decode_deltas(delta, boxes(9, 1), uneven), boxes(9))


def test_a_card_that_is_not_there_refuses_what_a_card_does() -> None:
    with Card() as card:
        x = torch.rand(3, 2, device="cuda")
        assert isinstance(x, OnCard) and x.is_cuda and x.device.type == "cuda"
        with pytest.raises(RuntimeError, match="cuda:0 and on the CPU"):
            x + torch.rand(2)
        with pytest.raises(RuntimeError, match="cuda:0 and on the CPU"):
            torch.cat([x[0], torch.rand(2)])
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(2, device="cuda", generator=torch.Generator())
        with pytest.raises(TypeError, match="numpy"):
            x.numpy()
        assert not card.waits
        _ = x[x > 0.5], x.sum().item(), x.tolist(), x.cpu(), torch.tensor([1.0], device="cuda")
        assert sum(card.waits.values()) == 5, card.report()


def test_convolutions_are_compared_in_float32_and_left_as_they_were() -> None:
    backends = torch.backends
    kinds = backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul
    before = [kind.fp32_precision for kind in kinds]
    with whole_products(torch.device("cpu")):
        assert [kind.fp32_precision for kind in kinds] == before
    with whole_products(torch.device("cuda")):
        assert [kind.fp32_precision for kind in kinds] == ["ieee"] * 3
    assert [kind.fp32_precision for kind in kinds] == before
    # Where its parts differ, torch does not tell what holds, and exports, which ask, end.
    assert backends.cudnn.allow_tf32 in (True, False)


def test_all_of_a_batch_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[int] = []

    def pin(self: Tensor) -> Tensor:
        pinned.append(self.numel())
        return self.clone()

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    size = torch.tensor([[8, 8]])
    copy = Images(torch.zeros(1, 3, 8, 8), size, size).pin_memory()
    assert pinned == [192, 2, 2] and torch.equal(copy.sizes, size)
