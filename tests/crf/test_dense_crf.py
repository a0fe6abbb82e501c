"""Dense CRF: recorded outputs of pydensecrf, a plain sum over all pairs, properties, bad input."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from crf_golden import INDEX, arrays, options
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.crf import (
    PUBLISHED,
    Bilateral,
    Gaussian,
    refine_mask,
    refine_masks,
    unary_from_labels,
    unary_from_probabilities,
)
from maskwright.errors import OptionError
from maskwright.ops import dense_crf

Found = np.ndarray


def either(tensors: bool, unary: np.ndarray, image: np.ndarray, **options: Any) -> Found:
    """Return what arrays or tensors give, as an array."""
    if tensors:
        found = dense_crf(torch.from_numpy(unary), torch.from_numpy(image), **options)
        assert isinstance(found, torch.Tensor)
        return found.numpy()
    found = dense_crf(unary, image, **options)
    assert isinstance(found, np.ndarray) and found.dtype == np.float32
    return found


def scene(height: int = 9, width: int = 12, classes: int = 3, seed: int = 0) -> tuple[Found, Found]:
    draw = np.random.default_rng(seed)
    image = draw.integers(0, 256, (height, width, 3)).astype(np.uint8)
    return draw.normal(size=(classes, height, width)).astype(np.float32), image


@pytest.mark.parametrize("tensors", [False, True])
@pytest.mark.parametrize("case", INDEX["crf"])
def test_probabilities_are_those_of_pydensecrf(case: str, tensors: bool) -> None:
    golden = arrays(f"{case}.safetensors")
    probs = golden["probs"]
    found = either(tensors, golden["unary"], golden["image"], **options(case))
    np.testing.assert_allclose(found, probs, rtol=0, atol=1e-3)
    best = np.sort(probs, 0)
    sure = best[-1] - best[-2] > 2e-3
    np.testing.assert_array_equal(found.argmax(0)[sure], probs.argmax(0)[sure])


def plain(unary: Found, image: Found, sxy: float, srgb: float, options: dict[str, Any]) -> Found:
    """Mean field of both kernels with the exact Gaussian, every pixel with every pixel."""
    height, width = image.shape[:2]
    y, x = (g.reshape(-1, 1).astype(float) for g in np.mgrid[:height, :width])
    near = np.hstack([x, y]) / options["gaussian"][0]
    alike = np.hstack([np.hstack([x, y]) / sxy, image.reshape(-1, 3) / srgb])
    kernels = []
    for points, weight in ((near, options["gaussian"][1]), (alike, options["bilateral"][2])):
        matrix = np.exp(-((points[:, None] - points) ** 2).sum(-1) / 2)
        n = matrix.sum(1)
        if options["normalisation"] == "symmetric":
            matrix = matrix / np.sqrt(n[:, None] * n)
        elif options["normalisation"] == "after":
            matrix = matrix / n[:, None]
        else:
            matrix = matrix / n
        kernels.append((matrix, weight))
    start = -unary.reshape(len(unary), -1).astype(float)
    logits = start
    for _ in range(options["iterations"] + 1):
        probs = np.exp(logits - logits.max(0))
        probs /= probs.sum(0)
        logits = start + sum(w * probs @ matrix.T for matrix, w in kernels)
    return probs.reshape(unary.shape)


@pytest.mark.parametrize("case", ["tiny_symmetric", "tiny_after", "tiny_before"])
def test_as_near_to_the_exact_sum_as_the_compiled_lattice(case: str) -> None:
    golden, chosen = arrays(f"{case}.safetensors"), options(case)
    unary, image = golden["unary"], golden["image"]
    exact = plain(unary, image, *chosen["bilateral"][:2], chosen)
    np.testing.assert_allclose(exact, golden["probs_exact"], atol=1e-5)
    theirs, ours = (
        np.abs(p - exact) for p in (golden["probs"], either(True, unary, image, **chosen))
    )
    assert ours.mean() < 1.01 * theirs.mean() and ours.max() < 1.01 * theirs.max()
    assert ours.mean() < 0.01


@pytest.mark.parametrize("tensors", [False, True])
def test_classes_may_be_permuted(tensors: bool) -> None:
    unary, image = scene()
    order = [2, 0, 1]
    found = either(tensors, unary, image)
    np.testing.assert_allclose(either(tensors, unary[order], image), found[order], atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    classes=st.integers(1, 4),
    iterations=st.integers(0, 4),
    normalisation=st.sampled_from(["symmetric", "before", "after"]),
    seed=st.integers(0, 99),
)
def test_arrays_and_tensors_give_one_distribution_whatever_the_size(
    height: int, width: int, classes: int, iterations: int, normalisation: str, seed: int
) -> None:
    unary, image = scene(height, width, classes, seed)
    chosen = {"iterations": iterations, "normalisation": normalisation}
    found = either(False, unary, image, **chosen)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)
    assert found.min() >= 0
    np.testing.assert_allclose(either(True, unary, image, **chosen), found, atol=1e-4)
    # A constant added to all energies of a pixel changes nothing.
    moved = either(False, unary + np.float32(3), image, **chosen)
    np.testing.assert_allclose(moved, found, atol=1e-4)


def test_one_pixel_hears_itself_alone() -> None:
    unary, image = scene(1, 1, 2)
    found = either(True, unary, image, gaussian=(3, 2), bilateral=None, iterations=1)
    start = np.exp(-unary) / np.exp(-unary).sum(0)
    expected = np.exp(-unary + 2 * start)
    np.testing.assert_allclose(found, expected / expected.sum(0), atol=1e-6)


@pytest.mark.parametrize("tensors", [False, True])
def test_without_classes_to_choose_or_kernels_or_pixels(tensors: bool) -> None:
    unary, image = scene(4, 5, 1)
    np.testing.assert_array_equal(either(tensors, unary, image), np.ones((1, 4, 5)))
    unary, image = scene(4, 5, 3)
    softmax = np.exp(-unary) / np.exp(-unary).sum(0)
    for chosen in ({"iterations": 0}, {"gaussian": None, "bilateral": None}):
        np.testing.assert_allclose(either(tensors, unary, image, **chosen), softmax, atol=1e-6)
    for shape in ((3, 0, 7), (3, 7, 0)):
        empty = either(tensors, np.zeros(shape, np.float32), np.zeros((*shape[1:], 3), np.uint8))
        assert empty.shape == shape


def test_in_a_constant_image_only_positions_count() -> None:
    unary, _ = scene(8, 10, 2)
    black, grey = (np.full((8, 10, 3), level, np.uint8) for level in (0, 90))
    found = either(True, unary, black, gaussian=None, bilateral=(4, 5, 3))
    same = either(True, unary, black, gaussian=None, bilateral=(4, 9, 3))
    np.testing.assert_allclose(same, found, atol=1e-6)
    # Another grey moves all points, so they lie otherwise among those of the lattice.
    moved = either(True, unary, grey, gaussian=None, bilateral=(4, 5, 3))
    assert np.abs(moved - found).mean() < 0.05


def test_edges_of_the_image_hold() -> None:
    image = np.zeros((16, 20, 3), np.uint8)
    image[:, 10:] = 200
    probs = np.full((2, 16, 20), 0.5, np.float32)
    probs[0, :, :7], probs[0, :, 13:] = 0.9, 0.1  # three columns either side are unsure
    probs[1] = 1 - probs[0]
    found = dense_crf(unary_from_probabilities(probs), image, gaussian=None)
    assert (found.argmax(0) == (image[..., 0] > 0)).all()


def test_a_potts_weight_is_a_matrix_of_either_kind() -> None:
    unary, image = scene()
    found = either(True, unary, image, gaussian=(2, 1.5), bilateral=None)
    for matrix in (-1.5 * np.eye(3), 1.5 * (1 - np.eye(3))):
        same = either(True, unary, image, gaussian=(2, matrix), bilateral=None)
        np.testing.assert_allclose(same, found, atol=1e-5)
    lopsided = 1.5 * (1 - np.eye(3)) + np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 0]])
    same = either(True, unary, image, gaussian=(2, lopsided), bilateral=None)
    np.testing.assert_allclose(same, found, atol=1e-5)


def test_deviations_may_differ_by_direction() -> None:
    unary, image = scene(10, 10)
    wide = either(True, unary, image, gaussian=((6, 1), 3), bilateral=((8, 2), (9, 30, 60), 3))
    turned = either(
        True,
        np.ascontiguousarray(unary.swapaxes(1, 2)),
        np.ascontiguousarray(image.swapaxes(0, 1)),
        gaussian=((1, 6), 3),
        bilateral=((2, 8), (9, 30, 60), 3),
    )
    # Turned about, the lattice lies otherwise: near, not equal.
    assert np.abs(turned.swapaxes(1, 2) - wide).mean() < 0.05
    assert (turned.swapaxes(1, 2).argmax(0) == wide.argmax(0)).mean() > 0.9


def test_what_the_options_mean_together() -> None:
    for name, chosen in PUBLISHED.items():
        assert isinstance(chosen["gaussian"], Gaussian), name
        assert isinstance(chosen["bilateral"], Bilateral), name
    unary, image = scene()
    np.testing.assert_array_equal(
        dense_crf(unary, image, **PUBLISHED["pydensecrf"]), dense_crf(unary, image)
    )


def test_input_is_left_alone_and_gets_no_gradients() -> None:
    unary, image = scene()
    before = unary.copy()
    image.flags.writeable = False
    dense_crf(unary, image)
    tensor = torch.from_numpy(unary).requires_grad_()
    found = dense_crf(tensor, image)  # image as an array that cannot be written, as Pillow's are
    assert not found.requires_grad and (unary == before).all()
    assert found.is_contiguous()
    half = dense_crf(tensor.detach().bfloat16(), image)
    assert half.dtype == torch.float32 and (half - found).abs().max() < 0.1
    planes = torch.from_numpy(unary.transpose(1, 2, 0).copy()).permute(2, 0, 1)
    torch.testing.assert_close(dense_crf(planes, image), found)


@pytest.mark.parametrize("tensors", [False, True])
def test_bad_input_is_named(tensors: bool) -> None:
    unary, image = scene()

    def refused(words: str, energies: Found = unary, pixels: Found = image, **chosen: Any) -> None:
        with pytest.raises(ValueError, match=words):
            either(tensors, energies, pixels, **chosen)

    refused("height and width swapped", pixels=np.zeros((12, 9, 3), np.uint8))
    refused("channels come last", pixels=np.zeros((3, 9, 12), np.uint8))
    refused("classes come first", energies=np.zeros((9, 12, 3), np.float32))
    refused(r"image: expected \(9, 12, 3\)", pixels=np.zeros((9, 12), np.uint8))
    refused("expected uint8", pixels=image.astype(np.float32) / 255)
    refused("finite", energies=np.where(unary > 1, np.float32(np.nan), unary))
    refused("finite", energies=np.where(unary > 1, np.float32(np.inf), unary))
    refused("floating", energies=np.zeros((3, 9, 12), np.int64))
    refused("at least one class", energies=np.zeros((0, 9, 12), np.float32))
    refused(r"\(C, H, W\)", energies=np.zeros((9, 12), np.float32))
    refused("iterations must be at least 0", iterations=-1)
    refused("iterations", iterations=2.5)
    refused("normalisation: expected one of", normalisation="both")
    refused("sxy: expected a standard deviation", gaussian=(0, 3))
    refused("sxy: expected a standard deviation", gaussian=((1, 2, 3), 3))
    refused("srgb: expected a standard deviation", bilateral=(80, -1, 3))
    refused("srgb: expected a standard deviation", bilateral=(80, "wide", 3))
    refused("weight of gaussian", gaussian=(3, np.ones(3)))
    refused("weight of gaussian", gaussian=(3, np.ones((2, 2))))
    refused("weight of bilateral: expected numbers", bilateral=(80, 13, float("nan")))
    refused(r"bilateral: expected \(sxy, srgb, weight\)", bilateral=(80, 13))
    refused(r"gaussian: expected \(sxy, weight\)", gaussian=3)


def test_energies_of_probabilities() -> None:
    probs = np.array([[0.0, 0.25], [1.0, 0.75]], np.float32)
    energies = unary_from_probabilities(probs)
    np.testing.assert_allclose(energies, -np.log([[1e-5, 0.25], [1, 0.75]]), atol=1e-6)
    np.testing.assert_allclose(
        unary_from_probabilities(torch.from_numpy(probs), trust=0.5),
        -np.log([[0.25, 0.375], [0.75, 0.625]]),
        atol=1e-6,
    )
    assert unary_from_probabilities(probs * np.float32(1 + 1e-6)).min() == 0  # rounded
    for wrong in (2 * probs, -probs, probs * np.nan):
        with pytest.raises(ValueError, match="0 to 1"):
            unary_from_probabilities(wrong)
    with pytest.raises(OptionError, match="trust"):
        unary_from_probabilities(probs, trust=0)


@pytest.mark.parametrize("tensors", [False, True])
def test_energies_of_labels(tensors: bool) -> None:
    def energies(labels: list[list[int]], classes: int, **chosen: Any) -> Found:
        array = np.array(labels, np.uint8)
        found = unary_from_labels(torch.from_numpy(array) if tensors else array, classes, **chosen)
        return np.asarray(found)

    known, other, nothing = -np.log([0.8, 0.1, 1 / 3])
    found = energies([[0, 2, 255]], 3, confidence=0.8)
    expected = [[[known, other, nothing]], [[other, other, nothing]], [[other, known, nothing]]]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == np.float32
    # With 0 for what is unknown, classes are counted from 1.
    shifted = energies([[1, 3, 0]], 3, confidence=0.8, zero_unsure=True)
    np.testing.assert_array_equal(shifted, found)
    assert np.isfinite(energies([[0, 0]], 1)).all()
    with pytest.raises(ValueError, match="3 is none of 3 classes"):
        energies([[0, 3]], 3)
    with pytest.raises(ValueError, match=r"integers \(H, W\)"):
        unary_from_labels(np.zeros((2, 3)), 3)
    with pytest.raises(OptionError, match="confidence"):
        energies([[0]], 3, confidence=1.0)


def test_a_mask_is_drawn_to_the_edge() -> None:
    image = np.full((24, 24, 3), 30, np.uint8)
    y, x = np.mgrid[:24, :24]
    disc = (y - 12) ** 2 + (x - 12) ** 2 < 64
    image[disc] = 180
    rough = 1 / (1 + np.exp(-(6 - np.maximum(abs(y - 11), abs(x - 13))) / 2.0))
    refined = refine_mask(rough.astype(np.float32), image)

    def iou(mask: np.ndarray) -> float:
        return (mask & disc).sum() / (mask | disc).sum()

    assert iou(rough > 0.5) < 0.8 < 0.97 < iou(refined > 0.5)
    both = np.stack([1 - rough, rough]).astype(np.float32)
    expected = dense_crf(unary_from_probabilities(both), image)[1]
    np.testing.assert_allclose(refined, expected, atol=1e-6)
    tensor = refine_mask(torch.from_numpy(rough), image)
    np.testing.assert_allclose(tensor, refined, atol=1e-4)
    with pytest.raises(ValueError, match="one mask"):
        refine_mask(both, image)


@pytest.mark.parametrize("tensors", [False, True])
def test_masks_together_are_masks_one_by_one(tensors: bool) -> None:
    rng = np.random.default_rng(0)
    sizes = ((12, 9), (1, 1), (0, 7), (30, 21), (5, 5))
    images = [rng.integers(0, 255, (*size, 3)).astype(np.uint8) for size in sizes]
    masks = [rng.random(size, np.float32) for size in sizes]
    probs = [torch.from_numpy(one) for one in masks] if tensors else masks
    options = {"gaussian": (2, 1), "bilateral": (6, 40, 2), "iterations": 4}
    for one, alone, image in zip(
        refine_masks(probs, images, **options), probs, images, strict=True
    ):
        # Which pixels a vector of the processor ends with differs, and so may the last digit.
        np.testing.assert_allclose(one, refine_mask(alone, image, **options), rtol=1e-6)
    assert refine_masks([], []) == []
    with pytest.raises(ValueError, match="image: expected"):
        refine_masks(probs, images[::-1])


def test_numpy_alone_is_enough() -> None:
    code = (
        "import sys, numpy as np\n"
        "from maskwright.crf import refine_mask\n"
        "refine_mask(np.full((4, 5), 0.7, np.float32), np.zeros((4, 5, 3), np.uint8))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
