"""Heat maps over pictures: colours against matplotlib's, and what each pixel shows."""

import numpy as np
import pytest
import torch
from PIL import Image

from maskwright.drawing.heatmap import draw_heatmap, heat_colors, with_scale


def test_colours_are_those_of_inferno():
    matplotlib = pytest.importorskip("matplotlib")
    values = np.linspace(0, 1, 256)
    wanted = matplotlib.colormaps["inferno"](values)[:, :3] * 255
    assert np.abs(heat_colors(values) - wanted).max() < 8
    assert np.abs(heat_colors(values[::17]) - wanted[::17]).max() <= 0.5
    # Lighter all the way, as luminance in linear light.
    linear = (heat_colors(np.linspace(0, 1, 40)) / 255) ** 2.2 @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(linear) > 0).all()
    assert heat_colors([-1, 2]).tolist() == [[0, 0, 4], [252, 255, 164]]


def test_every_pixel_is_a_blend():
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (40, 60, 3), np.uint8)
    heat = rng.random((40, 60))
    found = np.asarray(draw_heatmap(photo, heat, scale=False), float)
    wanted = 0.5 * photo + 0.5 * heat_colors(heat.astype(np.float32))
    assert found.shape == photo.shape and np.abs(found - wanted).max() <= 1
    assert np.array_equal(draw_heatmap(photo, heat, opacity=0, scale=False), photo)
    full = draw_heatmap(Image.fromarray(photo), torch.from_numpy(heat), opacity=1, scale=False)
    assert np.array_equal(full, heat_colors(heat.astype(np.float32)))


def test_a_small_map_is_stretched_bilinearly():
    heat = torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
    photo = np.zeros((32, 45, 3), np.uint8)
    large = torch.nn.functional.interpolate(heat[None, None], (32, 45), mode="bilinear")[0, 0]
    found = np.asarray(draw_heatmap(photo, heat, opacity=1, scale=False), int)
    assert np.abs(found - heat_colors(large.numpy())).max() <= 1


@pytest.mark.parametrize("size", [(200, 300), (30, 40), (12, 500), (1, 1)])
def test_the_scale_stands_beside_the_picture(size):
    photo = np.full((*size, 3), 128, np.uint8)
    found = np.asarray(draw_heatmap(photo, np.zeros(size)))
    plain = np.asarray(draw_heatmap(photo, np.zeros(size), scale=False))
    assert found.shape[0] == size[0] and found.shape[1] > size[1]
    assert np.array_equal(found[:, : size[1]], plain)
    if size[0] > 20:  # the highest at the top; the colour of 0 is that of the map over this grey
        bar = np.asarray(with_scale(Image.fromarray(photo), 1.0))[:, size[1] + 6]
        assert bar[0].tolist() == [252, 255, 164] and bar[-1].tolist() == [0, 0, 4]
        assert np.abs(found[-1, size[1] + 6].astype(int) - plain[0, 0]).max() <= 1
        assert (found[:, -14:] > 200).any()  # numbers are written


def test_faults_are_named():
    photo = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match=r"opacity.*got 2"):
        draw_heatmap(photo, np.zeros((2, 2)), opacity=2)
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 0.0 to 3.0"):
        draw_heatmap(photo, [[0.0, 3.0]])
    with pytest.raises(ValueError, match="got nan"):
        draw_heatmap(photo, [[0.0, np.nan]])
    with pytest.raises(ValueError, match=r"got \(1, 2, 2\)"):
        draw_heatmap(photo, np.zeros((1, 2, 2)))
