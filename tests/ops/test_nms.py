"""NMS against torchvision's kernel, run label by label."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from crowded_boxes import crowd
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.ops import batched_nms as torchvision_batched_nms
from torchvision.ops import nms as torchvision_nms

from maskwright.ops import batched_nms, nms, nms_padded
from maskwright.ops.nms import Apart, moved_apart


def scene(count: int, labels: int, seed: int, *, coarse: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes, scores and labels; `coarse` ones are full of ties and duplicates."""
    draw = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=draw) * 100
    side = torch.rand(count, 2, generator=draw) * 40
    scores = torch.rand(count, generator=draw)
    if coarse:
        corner, side = (corner / 10).round() * 10, (side / 10).round() * 10
        scores = (scores * 8).round() / 8
    return (
        torch.cat([corner, corner + side], 1),
        scores,
        torch.randint(0, labels, (count,), generator=draw),
    )


def expected(boxes: Tensor, scores: Tensor, labels: Tensor, thresh: float) -> Tensor:
    """Return what torchvision keeps label by label, by falling score, then rising position."""
    kept = torch.zeros(len(boxes), dtype=torch.bool)
    for label in labels.unique():
        at = (labels == label).nonzero().flatten()
        kept[at[torchvision_nms(boxes[at], scores[at], thresh)]] = True
    position = kept.nonzero().flatten()
    return position[scores[position].argsort(stable=True, descending=True)]


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(0, 200),
    labels=st.integers(1, 6),
    seed=st.integers(0, 10_000),
    coarse=st.booleans(),
    thresh=st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]),
)
def test_keeps_what_torchvision_keeps(
    count: int, labels: int, seed: int, coarse: bool, thresh: float
) -> None:
    boxes, scores, label = scene(count, labels, seed, coarse=coarse)
    assert torch.equal(nms(boxes, scores, thresh), torchvision_nms(boxes, scores, thresh))
    kept = batched_nms(boxes, scores, label, thresh)
    assert torch.equal(kept, expected(boxes, scores, label, thresh))


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(0, 200),
    max_out=st.integers(1, 250),
    seed=st.integers(0, 10_000),
    coarse=st.booleans(),
    labelled=st.booleans(),
)
def test_padded_is_the_head_of_the_full_list(
    count: int, max_out: int, seed: int, coarse: bool, labelled: bool
) -> None:
    boxes, scores, labels = scene(2 * count, 4, seed, coarse=coarse)
    valid = torch.rand(2, count, generator=torch.Generator().manual_seed(seed)) < 0.7
    boxes, scores, labels = boxes.view(2, count, 4), scores.view(2, -1), labels.view(2, -1)
    index, filled = nms_padded(
        boxes, scores, valid, 0.5, max_out, labels=labels if labelled else None
    )
    assert index.shape == filled.shape == (2, max_out)
    for b in range(2):
        slot = valid[b].nonzero().flatten()
        label = labels[b, slot] if labelled else torch.zeros_like(slot)
        want = slot[expected(boxes[b, slot], scores[b, slot], label, 0.5)][:max_out]
        assert torch.equal(index[b, : len(want)], want)
        assert filled[b].tolist() == [i < len(want) for i in range(max_out)]
        assert not index[b, len(want) :].any()


@pytest.mark.parametrize("labelled", [False, True])
def test_padded_grows_its_prefix_until_enough_survive(labelled: bool) -> None:
    # Thousands of near copies at the top: the first 1024 candidates leave only a few survivors.
    boxes, scores, labels = scene(9000, 3, 0, coarse=False)
    boxes[:6000] = boxes[:6000] * 0.001 + torch.tensor([0.0, 0, 50, 50])
    scores[:6000] += 1
    valid = torch.ones(1, 9000, dtype=torch.bool)
    index, filled = nms_padded(
        boxes[None], scores[None], valid, 0.5, 60, labels=labels[None] if labelled else None
    )
    want = expected(boxes, scores, labels if labelled else torch.zeros_like(labels), 0.5)[:60]
    assert filled.all()
    assert torch.equal(index[0], want)


def test_large_coordinates_keep_their_precision() -> None:
    # The coordinate shift by label would round these to the same place.
    boxes = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1.9], [3e6, 0, 3e6 + 1, 1]])
    labels = torch.tensor([7, 7, 90])
    kept = batched_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), labels, 0.53)
    assert kept.tolist() == [0, 1, 2]


class Padded(nn.Module):
    """NMS as a module, with and without labels."""

    def __init__(self, labelled: bool) -> None:
        super().__init__()
        self.labelled = labelled

    def forward(
        self, boxes: Tensor, scores: Tensor, valid: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        index, filled = nms_padded(
            boxes * 2, scores, valid, 0.5, 20, labels=labels if self.labelled else None
        )
        return scores.gather(1, index), filled


def _compiled(model: nn.Module, args: tuple[Tensor, ...]) -> Callable[..., tuple[Tensor, Tensor]]:
    run: Callable[..., tuple[Tensor, Tensor]] = torch.compile(
        model, fullgraph=True, backend="aot_eager"
    )
    return run


def _exported(model: nn.Module, args: tuple[Tensor, ...]) -> Callable[..., tuple[Tensor, Tensor]]:
    run: Callable[..., tuple[Tensor, Tensor]] = torch.export.export(model, args).module()
    return run


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("into_graph", [_compiled, _exported])
def test_padded_goes_into_graphs(
    into_graph: Callable[..., Callable[..., tuple[Tensor, Tensor]]], labelled: bool
) -> None:
    boxes, scores, labels = scene(100, 4, 1, coarse=True)
    args = (boxes.view(2, 50, 4), scores.view(2, 50), scores.view(2, 50) > 0, labels.view(2, 50))
    model = Padded(labelled)
    got = into_graph(model, args)(*args)
    for ours, theirs in zip(got, model(*args), strict=True):
        assert torch.equal(ours, theirs)


def test_padded_passes_the_checks_of_custom_operators() -> None:
    boxes, scores, labels = scene(30, 4, 1, coarse=True)
    args = (boxes[None], scores[None], scores[None] > 0.2, 0.5, 7, labels[None])
    torch.library.opcheck(torch.ops.maskwright.nms_padded.default, args)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_keeps_what_its_torchvision_kernel_keeps() -> None:
    boxes, scores, _ = (t.cuda() for t in scene(3000, 4, 1, coarse=False))
    valid = torch.ones(1, 3000, dtype=torch.bool, device="cuda")
    index, filled = nms_padded(boxes[None], scores[None], valid, 0.5, 50)
    assert filled.all()
    assert torch.equal(index[0], torchvision_nms(boxes, scores, 0.5)[:50])


def test_few_boxes_of_many_labels_are_kept_as_one_label_at_a_time() -> None:
    """Of boxes on a grid, whose overlaps often are the threshold exactly, and of empty ones."""
    generator = torch.Generator().manual_seed(0)
    for seed in range(20):
        corner = torch.randint(0, 6, (150, 2), generator=generator).float()
        side = torch.randint(0, 5, (150, 2), generator=generator).float()
        boxes = torch.cat([corner, corner + side], 1)
        scores = torch.rand(150, generator=generator)
        labels = torch.randint(0, 12 if seed % 2 else 3, (150,), generator=generator)
        for thresh in (0.0, 0.25, 0.5, 1.0):
            found = batched_nms(boxes, scores, labels, thresh)
            wanted = [
                own[torchvision_nms(boxes[own], scores[own], thresh)]
                for own in (labels.eq(label).nonzero()[:, 0] for label in range(12))
            ]
            expected = torch.cat(wanted)
            assert torch.equal(found, expected[scores[expected].argsort(descending=True)])


@pytest.mark.parametrize("seed", [13, 15, 16, 24])
def test_boxes_moved_apart_are_kept_as_torchvision_does(seed: int) -> None:
    """Its trick up to 1000 boxes rounds coordinates; in these scenes another box stays for it."""
    boxes, scores, labels = crowd(600, seed)

    def kept(apart: Apart) -> list[int]:
        valid = torch.ones(2, 600, dtype=torch.bool)
        valid[1] = False  # an image without boxes
        moved = moved_apart(boxes.expand(2, -1, -1), labels.expand(2, -1), valid, apart)
        both = [x.expand(2, -1) for x in (scores, labels)]
        index, filled = nms_padded(moved, both[0], valid, 0.5, 600, labels=both[1])
        assert not filled[1].any() and moved.isfinite().all()
        return index[0][filled[0]].tolist()

    wanted = torchvision_batched_nms(boxes, scores, labels, 0.5).tolist()
    assert kept(Apart(600)) == wanted
    assert (
        kept(Apart(600, first=1))
        == torchvision_batched_nms(boxes, scores, labels + 1, 0.5).tolist()
    )
    alone = batched_nms(boxes, scores, labels, 0.5).tolist()
    assert kept(Apart()) == kept(Apart(599)) == alone != wanted
