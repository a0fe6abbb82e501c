"""Label maps in colour: exact colours where they can be computed, classes that differ."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from maskwright.drawing.label_maps import (
    FILL,
    LEAST_SIDE,
    WRONG,
    class_palette,
    draw_errors,
    draw_label_map,
    label_picture,
    voc_palette,
)
from maskwright.structures import IGNORED


def test_vocs_palette_is_the_published_one() -> None:
    """The 21 colours of the VOC 2012 development kit, and that of the border."""
    wanted = [
        (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128),
        (0, 128, 128), (128, 128, 128), (64, 0, 0), (192, 0, 0), (64, 128, 0), (192, 128, 0),
        (64, 0, 128), (192, 0, 128), (64, 128, 128), (192, 128, 128), (0, 64, 0), (128, 64, 0),
        (0, 192, 0), (128, 192, 0), (0, 64, 128),
    ]  # fmt: skip
    palette = voc_palette()
    assert [tuple(color) for color in palette[:21].tolist()] == wanted
    assert palette[255].tolist() == [224, 224, 192]
    assert len({tuple(color) for color in palette.tolist()}) == 256


def cielab(colors: np.ndarray) -> np.ndarray:
    """CIE 1976 L*a*b* of sRGB by its definition: another space than the one colours are made in."""
    c = colors / 255
    c = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    xyz = c @ np.array(
        [[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]]
    )
    xyz = xyz / (0.9505, 1.0, 1.089)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


def least_distance(colors: np.ndarray) -> float:
    places = cielab(colors)
    away = np.linalg.norm(places[:, None] - places, axis=2)
    return float(away[~np.eye(len(colors), dtype=bool)].min())


@pytest.mark.parametrize(("count", "least"), [(8, 35), (21, 20), (60, 12), (150, 9), (255, 5)])
def test_classes_can_be_told_apart(count: int, least: float) -> None:
    """A difference of 2.3 in CIELAB is just seen; two of VOC's 21 colours are 8.8 apart."""
    names = [str(i) for i in range(count)]
    colors = class_palette(names)
    assert colors.shape == (count, 3) and colors.dtype == np.uint8
    assert least_distance(colors) > least
    assert np.array_equal(colors[:5], class_palette(names[:5]))


def test_given_colors_win_and_others_keep_away_from_them() -> None:
    plain = class_palette(["a", "b", "c"])
    given = tuple(plain[0].tolist())
    colors = class_palette(["x", "Background", "y", "z"], [None, None, given])
    assert colors[1].tolist() == [0, 0, 0]
    assert colors[2].tolist() == list(given)
    assert least_distance(colors) > 40
    assert class_palette(["background"], [(1, 2, 3)]).tolist() == [[1, 2, 3]]
    assert class_palette([]).shape == (0, 3)


def scene() -> tuple[np.ndarray, np.ndarray]:
    image = np.full((300, 400, 3), 100, np.uint8)
    labels = np.zeros((300, 400), np.uint8)
    labels[:, 200:] = 1
    labels[200:, 200:] = 2
    labels[:50] = IGNORED
    return image, labels


def test_colors_of_the_overlay() -> None:
    image, labels = scene()
    colors = np.array([[9, 9, 9], [200, 0, 50], [0, 180, 90]], np.uint8)
    found = draw_label_map(image, labels, ["Background", "a", "b"], colors=colors, legend=False)
    pixels = np.asarray(found)
    assert pixels.shape == image.shape
    assert pixels[150, 100].tolist() == [100, 100, 100]  # the photo itself
    assert np.array_equal(pixels[150, 300], (100 + (colors[1] - 100.0) * FILL).round())
    assert pixels[150, 200].tolist() == [200, 0, 50]  # its line
    assert pixels[199, 300].tolist() == [200, 0, 50]
    assert pixels[200, 300].tolist() == [0, 180, 90]
    assert len(np.unique(pixels[:49].reshape(-1, 3), axis=0)) == 2  # stripes
    tensors = torch.from_numpy(image), torch.from_numpy(labels)
    again = draw_label_map(*tensors, ["Background", "a", "b"], colors=colors, legend=False)
    assert np.array_equal(np.asarray(again), pixels)


def test_the_legend_names_the_classes_that_occur() -> None:
    image, labels = scene()
    names = ["sky", "road", "car", "tree"]
    colors = class_palette(names)
    below = np.asarray(draw_label_map(image, labels, names))[300:]
    shown = {tuple(color) for color in below.reshape(-1, 3).tolist()}
    assert [tuple(color) in shown for color in colors.tolist()] == [True, True, True, False]


@pytest.mark.parametrize("size", [(1, 1), (9, 7), (40, 2000), (900, 3), (700, 1200)])
def test_pictures_of_any_size(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (*size, 3)).astype(np.uint8)
    labels = rng.integers(0, 150, size).astype(np.uint8)
    names = [f"a class with a long name {i}" for i in range(150)]
    found = draw_label_map(image, labels, names)
    assert found.width >= LEAST_SIDE and found.height > size[0]
    assert max(found.size) <= max(2 * max(size), 1600)
    assert draw_label_map(image, labels, names, legend=False).size == size[::-1]
    assert max(draw_label_map(image, labels, names, legend=False, side=50).size) == 50


def test_errors_have_one_color() -> None:
    image, truth = scene()
    labels = truth.copy()
    labels[100:110, 100:110] = 3
    labels[:50] = 1  # nothing counts there
    pixels = np.asarray(draw_errors(image, labels, truth)).astype(int)
    wrong = np.abs(pixels - np.array(WRONG)).sum(-1) < 60
    expected = np.zeros((300, 400), bool)
    expected[100:110, 100:110] = True
    assert np.array_equal(wrong, expected)
    grey = pixels[60:][~expected[60:]]
    assert (grey == grey[:, :1]).all()


def test_label_files_hold_the_labels(tmp_path) -> None:
    _, labels = scene()
    colors = class_palette(["a", "b", "c"])
    label_picture(torch.from_numpy(labels), colors).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert np.array_equal(np.asarray(picture), labels)
        rgb = np.asarray(picture.convert("RGB"))
    assert np.array_equal(rgb[60:], colors[labels[60:]])
    assert rgb[0, 0].tolist() == [224, 224, 192]


def test_faults_are_named() -> None:
    image, labels = scene()
    with pytest.raises(ValueError, match=r"\(299, 400\), the image \(300, 400\)"):
        draw_label_map(image, labels[1:], ["a", "b", "c"])
    with pytest.raises(ValueError, match="the label 2, but there are 2 names"):
        draw_label_map(image, labels, ["a", "b"])
