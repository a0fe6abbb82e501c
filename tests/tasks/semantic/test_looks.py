"""From coarse logits to classes in the pixels of the photo: one look, several, and windows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from maskwright.errors import OptionError
from maskwright.structures import Images
from maskwright.structures.tiling import starts
from maskwright.tasks.crf import CrfSettings
from maskwright.tasks.semantic.crf import USUAL
from maskwright.tasks.semantic.settings import SemanticSettings, make_settings
from maskwright.tasks.semantic.views import Look, blend, look, resampling, to_maps
from maskwright.tasks.views import Views

KEEP = SemanticSettings(probs=True)


def images(size: tuple[int, int], original: tuple[int, int], padded: tuple[int, int]) -> Images:
    pixels = torch.rand(1, 3, *padded, generator=torch.Generator().manual_seed(0)) * 255
    pixels[..., size[0] :, :] = 0
    pixels[..., size[1] :] = 0
    return Images(pixels, torch.tensor([size]), torch.tensor([original]))


def logits(*shape: int) -> Tensor:
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("original", [(64, 96), (150, 211), (20, 31), (1, 1)])
def test_without_padding_it_is_interpolation(original: tuple[int, int], corners: bool) -> None:
    """To the input first and then to the photo is what torch does in two steps; one must do."""
    coarse = logits(5, 9, 13)
    one = Look(coarse, images((64, 96), original, (64, 96)), False, corners)
    (found,) = to_maps([one], KEEP)
    if corners:
        grid = [
            (torch.arange(n) + 0.5) * m / n - 0.5 for n, m in zip(original, (64, 96), strict=True)
        ]
        at = torch.stack(
            [
                (grid[1] / 95 * 2 - 1).clamp(-1, 1).expand(*original),
                (grid[0] / 63 * 2 - 1).clamp(-1, 1)[:, None].expand(*original),
            ],
            -1,
        )
        wanted = F.grid_sample(coarse, at[None], align_corners=True, padding_mode="border")[0]
    else:
        wanted = F.interpolate(coarse, original, mode="bilinear")[0]
    assert found.probs is not None
    np.testing.assert_allclose(found.probs, wanted.softmax(0), atol=2e-5)
    assert (found.labels == wanted.argmax(0).numpy()).mean() > 0.999


def test_padding_is_cut_off_and_the_photo_stays_in_place() -> None:
    """A ramp over the padded input is one over the photo: each pixel tells its place."""
    size, padded, original, stride = (50, 70), (64, 96), (200, 140), 8
    y = torch.arange(padded[0] // stride) * stride + (stride - 1) / 2
    x = torch.arange(padded[1] // stride) * stride + (stride - 1) / 2
    ramps = torch.stack([y[:, None].expand(8, 12), x[None].expand(8, 12)])[None]
    one = Look(ramps, images(size, original, padded), False, False)
    rows = resampling(8, padded[0], size[0], original[0])
    columns = resampling(12, padded[1], size[1], original[1])
    made = torch.einsum("rh,chw,sw->crs", rows, one.logits[0], columns)
    want_y = (torch.arange(original[0]) + 0.5) * size[0] / original[0] - 0.5
    want_x = (torch.arange(original[1]) + 0.5) * size[1] / original[1] - 0.5
    inner = want_y > (stride - 1) / 2, want_x > (stride - 1) / 2
    torch.testing.assert_close(made[0][:, 0][inner[0]], want_y[inner[0]], atol=1e-3, rtol=0)
    torch.testing.assert_close(made[1][0][inner[1]], want_x[inner[1]], atol=1e-3, rtol=0)


class Pointwise(torch.nn.Module):
    """A segmenter whose logits are the colours: what it says of a pixel hangs on that alone."""

    size_divisor = 8

    network = SimpleNamespace(align_corners=False)

    def __call__(self, images: Images) -> Tensor:
        return images.pixels / 20

    coarse = __call__


def test_several_looks_are_the_mean_of_their_probabilities() -> None:
    views = Views((1.0,), True)
    batch = images((40, 56), (40, 56), (40, 56))
    looks = look(Pointwise(), [batch], SemanticSettings(views))
    assert [one.mirrored for one in looks] == [False, True]
    (both,) = to_maps(looks, KEEP)
    (plain,) = to_maps(looks[:1], KEEP)
    assert both.probs is not None and plain.probs is not None
    np.testing.assert_allclose(both.probs, plain.probs, atol=1e-5)  # it has no sides
    other = Look(logits(3, 40, 56), batch, False, False)
    (mixed,) = to_maps([looks[0], other], KEEP)
    (alone,) = to_maps([other], KEEP)
    assert mixed.probs is not None and alone.probs is not None
    np.testing.assert_allclose(mixed.probs, (plain.probs + alone.probs) / 2, atol=1e-6)


def test_a_padded_image_is_mirrored_inside_its_own_size() -> None:
    batch = images((40, 50), (40, 50), (40, 56))
    plain, mirrored = to_maps(look(Pointwise(), [batch], SemanticSettings()), KEEP), None
    looks = look(Pointwise(), [batch], SemanticSettings(Views((1.0,), True)))
    mirrored = to_maps(looks[1:], KEEP)
    assert (plain[0].labels == mirrored[0].labels).all()


@pytest.mark.parametrize(("length", "window"), [(1000, 256), (256, 256), (257, 256), (100, 8)])
def test_windows_cover_everything_and_their_weights_sum_to_one(length: int, window: int) -> None:
    total = torch.zeros(length, dtype=torch.float64)
    for start, weights in zip(starts(length, window), blend(length, window), strict=True):
        assert 0 <= start <= length - window and len(weights) == window
        assert (weights > 0).all()
        total[start : start + window] += weights
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-6, rtol=0)


def test_windows_of_a_pointwise_network_change_nothing() -> None:
    batch = images((300, 170), (300, 170), (304, 176))
    whole = to_maps(look(Pointwise(), [batch], SemanticSettings()), KEEP)
    parts = to_maps(look(Pointwise(), [batch], SemanticSettings(slide=64)), KEEP)
    assert whole[0].probs is not None and parts[0].probs is not None
    np.testing.assert_allclose(whole[0].probs, parts[0].probs, atol=1e-4)


def test_a_batch_has_each_image_in_its_own_size() -> None:
    pixels = torch.rand(2, 3, 32, 40) * 255
    batch = Images(pixels, torch.tensor([[32, 40], [20, 30]]), torch.tensor([[64, 80], [10, 15]]))
    found = to_maps(look(Pointwise(), [batch], SemanticSettings()), SemanticSettings())
    assert [one.labels.shape for one in found] == [(64, 80), (10, 15)]
    assert found[0].probs is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"slide": 8}, "at least 64"),
        ({"slide": 0.5}, "at least 64"),
        ({"crf": "often"}, "expected true"),
        ({"crf": "1,2"}, "expected true"),
        ({"crf": "4,0,3"}, "expected true"),
        ({"crf": "deeplab_v2_vgg"}, "deeplab_v2_vgg16"),
        ({"crf": "search"}, "maskwright val"),
        ({"tta": "twice"}, "tta"),
    ],
)
def test_wrong_options_are_told(given: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make_settings(given, {})


def test_options_are_read_and_written_alike() -> None:
    for crf in ("4,67,3", "true", "deconvnet"):
        settings = make_settings({"tta": "0.5,1,flip", "slide": 128, "crf": crf}, {})
        assert make_settings(settings.used(), {}) == settings
    for nothing in ("false", None, False):
        assert CrfSettings.parse(nothing, USUAL) is None
    assert CrfSettings.parse(True, USUAL) == CrfSettings.parse("deeplab_v2_resnet101", USUAL)
