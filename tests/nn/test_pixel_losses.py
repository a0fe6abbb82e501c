"""Losses of pixels against torch, torchvision, and slow plain forms of their definitions."""

import json
import math
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from maskwright.errors import OptionError
from maskwright.nn.semantic.losses import (
    LOSSES,
    cross_entropy,
    dice,
    focal,
    jaccard,
    lovasz,
    make_loss,
    ohem,
    pixel_cross_entropy,
    topk,
)
from maskwright.structures import IGNORED

WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 0.25])


def batch(seed: int = 0, size: tuple[int, ...] = (3, 7, 5), classes: int = 4, dtype=torch.float32):
    """Logits, and labels of which some are ignored; the last image has two classes only."""
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(size[0], classes, *size[1:], generator=rng, dtype=dtype) * 2
    maps = torch.randint(0, classes, size, generator=rng).to(torch.uint8)
    maps[-1] %= 2
    maps[torch.rand(size, generator=rng) < 0.2] = IGNORED
    return logits.requires_grad_(), maps


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_cross_entropy_equals_torch(weights, channels_last: bool) -> None:
    logits, maps = batch()
    if channels_last:
        logits = logits.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    found = cross_entropy(logits, maps, weights)
    (gradient,) = torch.autograd.grad(found * 3, logits)
    wanted = F.cross_entropy(logits, maps.long(), weights, ignore_index=IGNORED)
    (expected,) = torch.autograd.grad(wanted * 3, logits)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(gradient, expected)
    assert gradient.stride() == logits.stride()


def test_cross_entropy_of_large_logits_is_finite() -> None:
    logits = torch.tensor([1e4, -1e4, 0.0]).reshape(1, 3, 1, 1).requires_grad_()
    for label, wanted in ((0, 0.0), (1, 2e4), (2, 1e4)):
        found = pixel_cross_entropy(logits, torch.full((1, 1, 1), label, dtype=torch.uint8))
        assert found.item() == wanted
        (gradient,) = torch.autograd.grad(found.sum(), logits)
        expected = torch.tensor([1.0, 0.0, 0.0])
        expected[label] -= 1
        assert torch.equal(gradient.flatten(), expected)


def test_a_label_that_is_no_class_is_refused() -> None:
    logits, maps = batch()
    maps[0, 0, 0] = 4
    with pytest.raises((IndexError, RuntimeError), match="4"):
        cross_entropy(logits, maps)


@pytest.mark.parametrize("name", [*LOSSES, "ce+dice"])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_gradients_are_those_of_the_value(name: str, weights) -> None:
    logits, maps = batch(size=(2, 3, 4), dtype=torch.float64)
    weights = None if weights is None else weights.double()
    loss = make_loss(name)
    assert torch.autograd.gradcheck(lambda z: loss(z, maps, weights), logits, atol=1e-6)
    # A pixel that is ignored changes nothing, even where it is far off.
    (gradient,) = torch.autograd.grad(loss(logits, maps, weights), logits)
    assert not gradient.permute(0, 2, 3, 1)[maps == IGNORED].any()
    assert gradient.permute(0, 2, 3, 1)[maps != IGNORED].any()
    other = torch.where((maps == IGNORED)[:, None], logits + torch.randn_like(logits) * 9, logits)
    torch.testing.assert_close(loss(other, maps, weights), loss(logits, maps, weights))


@pytest.mark.parametrize("name", [*LOSSES, "ce+dice"])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_without_a_pixel_that_counts_there_is_no_loss(name: str, weights) -> None:
    logits, maps = batch()
    for images in (3, 0):
        found = make_loss(name)(logits[:images], torch.full_like(maps, IGNORED)[:images], weights)
        (gradient,) = torch.autograd.grad(found, logits)
        assert found.shape == () and found.item() == 0 and not gradient.any()
    # Classes whose weight is 0 count for as little.
    found = make_loss(name)(logits, maps, torch.zeros(4))
    (gradient,) = torch.autograd.grad(found, logits)
    assert found.item() == 0 and not gradient.any()


def test_focal_loss_of_two_classes_equals_torchvision() -> None:
    ops = pytest.importorskip("torchvision.ops")
    logits, maps = batch(classes=2)
    valid = maps != IGNORED
    z, t = (logits[:, 1] - logits[:, 0])[valid], maps[valid].float()
    for gamma in (0.5, 2.0):
        wanted = ops.sigmoid_focal_loss(z, t, alpha=-1, gamma=gamma, reduction="mean")
        torch.testing.assert_close(focal(logits, maps, gamma=gamma), wanted)
    # alpha is what a weight of the classes is, but for what is divided by.
    alpha = torch.tensor([0.75, 0.25])
    wanted = ops.sigmoid_focal_loss(z, t, alpha=0.25, gamma=2, reduction="sum")
    found = focal(logits, maps, alpha) * alpha[maps[valid].long()].sum()
    torch.testing.assert_close(found, wanted)
    logits, maps = batch()
    torch.testing.assert_close(focal(logits, maps, gamma=0.0), cross_entropy(logits, maps))


def plain_hardest(logits, maps, share: float, thresh: float, weights) -> float:
    """Pick pixels image by image from sorted lists."""
    total = over = 0.0
    for z, truth in zip(logits.double(), maps, strict=True):
        pixels = []
        for (y, x), label in zip(torch.ones_like(truth).nonzero(), truth.flatten(), strict=True):
            if label != IGNORED:
                loss = -torch.log_softmax(z[:, y, x], 0)[int(label)].item()
                weight = 1.0 if weights is None else weights[int(label)].item()
                pixels.append((loss, weight))
        pixels.sort(reverse=True)
        for rank, (loss, weight) in enumerate(pixels):
            if rank < math.ceil(share * len(pixels)) or math.exp(-loss) < thresh:
                total += loss * weight
                over += weight
    return total / over


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_hard_pixels_are_those_of_sorted_lists(weights) -> None:
    logits, maps = batch(size=(3, 9, 8))
    with torch.no_grad():
        logits[1] += 9 * F.one_hot(maps[1].long() % 4, 4).permute(2, 0, 1)  # an easy image
    for thresh, least in ((0.7, 1 / 16), (0.3, 0.5)):
        wanted = plain_hardest(logits.detach(), maps, least, thresh, weights)
        found = ohem(logits, maps, weights, thresh=thresh, least=least)
        assert found.item() == pytest.approx(wanted, rel=1e-5)
    for share in (0.2, 0.01, 1.0):
        wanted = plain_hardest(logits.detach(), maps, share, 0.0, weights)
        assert topk(logits, maps, weights, share=share).item() == pytest.approx(wanted, rel=1e-5)
    torch.testing.assert_close(
        topk(logits, maps, weights, share=1.0), cross_entropy(logits, maps, weights)
    )


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("loss", [dice, jaccard])
def test_overlaps_are_those_of_the_definition(loss, weights) -> None:
    logits, maps = batch()
    maps[maps == 3] = 2  # a class that the batch lacks
    probs, total, over = logits.detach().double().softmax(1), 0.0, 0.0
    for label in range(3):
        p = probs[:, label][maps != IGNORED]
        t = (maps[maps != IGNORED] == label).double()
        both = (p * t).sum()
        overlap = 2 * both / (p + t).sum() if loss is dice else both / (p + t - p * t).sum()
        weight = 1.0 if weights is None else weights[label].item()
        total, over = total + weight * (1 - overlap.item()), over + weight
    assert loss(logits, maps, weights).item() == pytest.approx(total / over, rel=1e-6)


def plain_lovasz(logits, maps, weights) -> float:
    """Sum over the sorted errors, with the Jaccard loss of each set of the worst pixels."""
    images = []
    for z, truth in zip(logits.double().softmax(1), maps, strict=True):
        pixels = [i for i, label in enumerate(truth.flatten().tolist()) if label != IGNORED]
        labels = truth.flatten().tolist()
        total = over = 0.0
        for c in sorted({labels[i] for i in pixels}):
            mine = {i for i in pixels if labels[i] == c}
            p = z[c].flatten().tolist()
            errors = {i: abs((i in mine) - p[i]) for i in pixels}
            wrong: set[int] = set()
            value = before = 0.0
            for i in sorted(pixels, key=lambda i: -errors[i]):
                wrong.add(i)
                delta = len(wrong) / len(mine | wrong)
                value += errors[i] * (delta - before)
                before = delta
            weight = 1.0 if weights is None else weights[c].item()
            total, over = total + weight * value, over + weight
        if pixels:
            images.append(total / over)
    return sum(images) / len(images)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_lovasz_equals_the_slow_definition(weights) -> None:
    logits, maps = batch(3, (4, 8, 6))
    maps[1] = IGNORED  # an image that does not count
    maps[2] = 1
    wanted = plain_lovasz(logits.detach(), maps, weights)
    assert lovasz(logits, maps, weights).item() == pytest.approx(wanted, rel=1e-5)


def test_lovasz_of_sure_answers_is_one_less_the_iou() -> None:
    logits, maps = batch(1, (1, 12, 10))
    said = logits.detach().argmax(1)
    sure = 200.0 * F.one_hot(said, 4).permute(0, 3, 1, 2).float()
    valid = maps != IGNORED
    ious = []
    for label in maps[valid].unique().tolist():
        p, t = said[valid] == label, maps[valid] == label
        ious.append(((p & t).sum() / (p | t).sum()).item())
    assert lovasz(sure, maps).item() == pytest.approx(1 - sum(ious) / len(ious), rel=1e-6)
    assert jaccard(sure, maps).item() == pytest.approx(1 - sum(ious) / len(ious), rel=1e-6)


def test_losses_are_made_of_words() -> None:
    logits, maps = batch()
    wanted = cross_entropy(logits, maps, WEIGHTS) + 0.5 * dice(logits, maps, WEIGHTS)
    torch.testing.assert_close(make_loss("ce + 0.5*dice")(logits, maps, WEIGHTS), wanted)
    for text in ("dise", "ce+", "", "-1*ce", "2*", "x*ce", "nan*ce", "ce dice"):
        with pytest.raises(OptionError, match="loss is one of ce, ohem"):
            make_loss(text)
    with pytest.raises(OptionError, match="did you mean 'dice'"):
        make_loss("ce+dise")


def test_a_compiled_loss_is_the_same() -> None:
    logits, maps = batch()
    for name in ("ce", "ohem+dice"):
        loss = make_loss(name)
        compiled = torch.compile(loss, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(logits, maps, WEIGHTS), loss(logits, maps, WEIGHTS))


def losses_of(maps: torch.Tensor, logits: torch.Tensor) -> dict[str, tuple[float, list[float]]]:
    found = {}
    for name in LOSSES:
        for weights in (None, WEIGHTS):
            value = LOSSES[name](logits, maps, weights)
            (gradient,) = torch.autograd.grad(value, logits)
            key = f"{name} {weights is not None}"
            found[key] = value.item(), gradient.flatten().tolist()
    return found


def share_of(rank: int, folder: str) -> None:
    """Compute all losses of two or of one of three images."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    logits, maps = batch(7)
    maps[1] = IGNORED
    part = slice(0, 2) if rank == 0 else slice(2, 3)
    found = losses_of(maps[part], logits.detach()[part].requires_grad_())
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one(forked: ForkServerContext, tmp_path: Path) -> None:
    """The means of their losses and gradients, as distributed training takes them."""
    both = [forked.Process(target=share_of, args=(rank, str(tmp_path))) for rank in (0, 1)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    logits, maps = batch(7)
    maps[1] = IGNORED
    for key, (value, gradient) in losses_of(maps, logits).items():
        assert (first[key][0] + second[key][0]) / 2 == pytest.approx(value, rel=1e-5), key
        halves = torch.tensor(first[key][1] + second[key][1]) / 2
        torch.testing.assert_close(halves, torch.tensor(gradient), msg=key)
