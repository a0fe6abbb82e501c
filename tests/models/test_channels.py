"""Models for other channels than red, green and blue: their first convolution, and the pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.models import adapt_input_conv

from maskwright.data.augment.colours import distort, photometric
from maskwright.data.pixels.depth import shown, to_eight_bit, to_pixels
from maskwright.data.pixels.resizing import resize_image
from maskwright.errors import OptionError
from maskwright.models.channels import adapted, with_channels
from maskwright.models.registry import build, build_tiny, get_entry, list_models
from maskwright.structures import Resize

FAMILIES = sorted(name for name in list_models() if get_entry(name).tiny is not None)
COLOURS_ALONE = ("crf_rnn", "lenet5")  # a CRF compares colours; LeNet makes grey of them


@pytest.mark.parametrize("count", [1, 2, 4, 7, 16])
def test_filters_equal_those_of_timm(count: int) -> None:
    weight = torch.randn(5, 3, 7, 7, generator=torch.Generator().manual_seed(count))
    torch.testing.assert_close(adapted(weight, count), adapt_input_conv(count, weight.clone()))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_takes_other_channels(name: str) -> None:
    """It looks at images of one, four and more channels, or says that it cannot."""
    for count in (1, 5):
        model = build_tiny(name).eval()
        try:
            with_channels(model, count, name)
        except OptionError as error:
            assert name in COLOURS_ALONE
            assert str(error).startswith(f"{name} looks at red, green and blue alone: for one ch")
            return
        assert model.channels == count == len(model.fill)
        side = model.example_side(64)
        with torch.no_grad():
            model.look(torch.rand(1, count, side, side) * 255)


def test_equal_channels_are_answered_as_before() -> None:
    """Repeated and scaled, the filters see grey as those of colours did."""
    torch.manual_seed(0)
    model = build_tiny("mask_rcnn_resnet50_fpn")
    conv = next(one for one in model.backbone.modules() if isinstance(one, torch.nn.Conv2d))
    grey = torch.rand(1, 1, 32, 32)
    before = conv(grey.repeat(1, 3, 1, 1))
    with_channels(model, 6, "model")
    torch.testing.assert_close(conv(grey.repeat(1, 6, 1, 1)), before)
    with_channels(model, 1, "model")
    torch.testing.assert_close(conv(grey), before)


def test_blue_first_is_put_in_order() -> None:
    """Of a network of Caffe the filters are brought into the order of the channels first."""
    torch.manual_seed(0)
    name = "mask_rcnn_resnet50_fpn"
    model = build(name, 2, **{**get_entry(name).tiny, "conventions": "detectron2"})
    assert model.bgr
    conv = next(one for one in model.backbone.modules() if isinstance(one, torch.nn.Conv2d))
    weight, mean = conv.weight.detach().clone(), model.mean.clone()
    with_channels(model, 4, name)
    assert not model.bgr
    torch.testing.assert_close(conv.weight[:, :3] * 4 / 3, weight.flip(1))
    torch.testing.assert_close(model.mean[:3], mean.flip(0))


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_channels_are_resized_one_by_one(count: int, kind: type) -> None:
    """Each channel is what Pillow makes of it alone, in its own depth; three of 8 bits as ever."""
    rng = np.random.default_rng(3)
    pixels = (rng.random((40, 50, count)) * 255).astype(kind)
    found = resize_image(pixels, (23, 31), Resize(), window=(2, 3, 30, 20))
    for channel in range(count):
        plane = Image.fromarray(np.ascontiguousarray(pixels[..., channel]))
        whole = np.asarray(plane.resize((31, 23), Image.Resampling.BILINEAR))
        expected = torch.from_numpy(whole[3:20, 2:30].astype(np.float32))
        # A window may round otherwise than the whole, by one step of 8 bits.
        step = 1.0 if kind is np.uint8 else 1e-3
        torch.testing.assert_close(found[channel], expected, atol=step, rtol=0)


def test_samples_keep_their_depth() -> None:
    rng = np.random.default_rng(4)
    samples = rng.integers(0, 2**16, (300, 301, 2), np.uint16)
    found = to_pixels(samples, (1000.0, 60000.0))
    expected = (samples.astype(np.float64).clip(1000, 60000) - 1000) * 255 / 59000
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert len(np.unique(found)) > 10_000
    # People see the same, rounded to 8 bits.
    eight = to_eight_bit(samples, (1000.0, 60000.0))[..., :2].astype(int)
    assert np.abs(shown(found)[..., :2] - eight).max() <= 1
    assert not shown(found)[..., 2].any()
    holes = np.array([[np.nan, np.inf, -np.inf, 0.5]], np.float32)
    assert to_pixels(holes, (0.0, 1.0))[..., 0].tolist() == [[0.0, 255.0, 0.0, 127.5]]
    assert not to_pixels(np.full((4, 4), 7, np.uint16)).any()  # a constant channel is black


@pytest.mark.parametrize("change", [photometric, distort])
def test_colours_change_where_there_are_some(change: Any) -> None:
    """Of other channels brightness and contrast change alone: in the same way in all."""
    grey = torch.rand(1, 6, 7) * 255
    for seed in range(8):
        several = change(grey.repeat(4, 1, 1), np.random.default_rng(seed))
        assert several.shape == (4, 6, 7) and several.min() >= 0 and several.max() <= 255
        torch.testing.assert_close(several, several[:1].repeat(4, 1, 1))
