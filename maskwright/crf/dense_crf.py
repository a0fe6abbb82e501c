"""Dense CRF: every pixel pulls at every other one, the more the nearer and the more alike they are.

Kraehenbuehl and Koltun 2011, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
Potentials": parallel mean field, where sums over all pairs of pixels are filters on the
permutohedral lattice. As in all public implementations, a pixel counts among its own neighbours.
Equal to pydensecrf, but that adds points at zero where the pixels are no multiple of four.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import OptionError, whole_number
from .lattice import Array, Lattice, as_kind, build_lattice, library

NORMALISATIONS = ("symmetric", "before", "after", "none")
_LEAST = 1e-5  # of a probability, whose logarithm is an energy
_UNKNOWN = 255  # in a label map
_FEW = 8  # numbers in a row: with fewer, torch is quicker at their softmax by columns


class Gaussian(NamedTuple):
    """The smoothness kernel: pixels that are near.

    Attributes:
        sxy: standard deviation in pixels, or (x, y).
        weight: what two near pixels of the same class gain (Potts), or what pixels of two classes
            lose, a matrix (C, C): positive repels, and it is symmetrised.
    """

    sxy: float | Sequence[float] = 3.0
    weight: Any = 3.0


class Bilateral(NamedTuple):
    """The appearance kernel: pixels that are near and of like colour.

    Attributes:
        sxy: standard deviation in pixels, or (x, y).
        srgb: of colours, 0 to 255, or one for each channel.
        weight: as in `Gaussian`.
    """

    sxy: float | Sequence[float] = 80.0
    srgb: float | Sequence[float] = 13.0
    weight: Any = 10.0


SMOOTHNESS, APPEARANCE = Gaussian(), Bilateral()


def _published(gaussian: Gaussian, bilateral: Bilateral, iterations: int = 10) -> dict[str, Any]:
    return {"gaussian": gaussian, "bilateral": bilateral, "iterations": iterations}


# Options of `dense_crf` by where they were published. They are for photos of about 500 pixels.
PUBLISHED = {
    "pydensecrf": _published(Gaussian(3, 3), Bilateral(80, 13, 10), 5),
    "deeplab_v1": _published(Gaussian(3, 3), Bilateral(50, 10, 5)),
    "deeplab_v1_msc": _published(Gaussian(3, 3), Bilateral(95, 3, 3)),
    "deeplab_v1_coco": _published(Gaussian(3, 3), Bilateral(67, 3, 5)),
    "deeplab_v1_largefov": _published(Gaussian(3, 3), Bilateral(121, 5, 4)),
    "deeplab_v1_msc_largefov": _published(Gaussian(3, 3), Bilateral(83, 5, 4)),
    "deeplab_v1_coco_largefov": _published(Gaussian(3, 3), Bilateral(69, 5, 5)),
    "deeplab_v1_msc_coco_largefov": _published(Gaussian(3, 3), Bilateral(59, 5, 4)),
    "deeplab_v2_vgg16": _published(Gaussian(2, 2), Bilateral(65, 3, 4)),
    "deeplab_v2_resnet101": _published(Gaussian(1, 3), Bilateral(67, 3, 4)),
    "deconvnet": _published(Gaussian(3, 3), Bilateral(20, 3, 5)),
}


def dense_crf(
    unary: Array,
    image: Array,
    *,
    gaussian: Gaussian | Sequence[Any] | None = SMOOTHNESS,
    bilateral: Bilateral | Sequence[Any] | None = APPEARANCE,
    iterations: int = 5,
    normalisation: str = "symmetric",
) -> Array:
    """Return the probabilities (C, H, W), float32, of the classes of each pixel.

    Without gradients; `nn.semantic.crf_rnn` has them.

    Args:
        unary: (C, H, W) energies, minus the logarithm of a probability up to a constant: see
            `unary_from_probabilities`; or minus the logits of a network. A NumPy array or a
            tensor, and so is what comes back.
        image: (H, W, 3) uint8, an array or a tensor.
        gaussian: (sxy, weight) of the smoothness kernel; None: none.
        bilateral: (sxy, srgb, weight) of the appearance kernel; None: none.
        iterations: steps of mean field; 0 gives the softmax of `-unary`.
        normalisation: how the filter of a kernel is divided by the sums n of its rows: "symmetric"
            by the root of n before and after filtering, "before", "after", or "none", for which
            weights must be tiny.

    Raises:
        ValueError: if shapes or types differ from these, or an energy is not finite.

    Example:
        >>> second = np.array([[0.1, 0.1, 0.1, 0.1, 0.1, 0.4, 0.6, 0.8, 0.8]])
        >>> image = np.zeros((1, 9, 3), np.uint8)
        >>> image[:, 7:] = 200
        >>> unary = unary_from_probabilities(np.stack([1 - second, second]))
        >>> dense_crf(unary, image, gaussian=None, bilateral=(9, 13, 2)).argmax(0).tolist()
        [[0, 0, 0, 0, 0, 0, 0, 1, 1]]
    """
    unary, image = checked_input(unary, image)
    iterations = whole_number("iterations", iterations, 0)
    if not math.prod(unary.shape):
        return unary
    kernels = _kernels([image], gaussian, bilateral, normalisation, unary)
    rows = mean_field(pixel_rows(unary), kernels, iterations)
    return library(rows).stack(list(rows.T)).reshape(unary.shape)


def _kernels(
    images: Sequence[np.ndarray], gaussian: Any, bilateral: Any, normalisation: str, like: Array
) -> list[tuple[Lattice, Any]]:
    """Return the kernels that there are as `mean_field` takes them; see `dense_crf`."""
    kernels = []
    for name, kernel, kind in (
        ("gaussian", gaussian, Gaussian),
        ("bilateral", bilateral, Bilateral),
    ):
        if kernel is not None:
            if not isinstance(kernel, tuple | list) or len(kernel) != len(kind._fields):
                fields = ", ".join(kind._fields)
                raise OptionError(f"{name}: expected ({fields}), got {kernel!r}")
            *deviations, weight = kernel
            lattice = crf_kernel(images, *deviations, normalisation=normalisation, like=like)
            kernels.append((lattice, checked_weight(name, weight, like)))
    return kernels


def refine_mask(probs: Array, image: Array, **options: Any) -> Array:
    """Return the probabilities (H, W) of one mask, drawn to the edges of its image.

    Args:
        probs: (H, W), of a mask in the crop around its object, at the size of the crop.
        image: (H, W, 3) uint8, the crop.
        options: those of `dense_crf`.

    Raises:
        ValueError: as `dense_crf`, or if these are no probabilities.
    """
    return refine_masks([probs], [image], **options)[0]


def refine_masks(
    probs: Sequence[Array],
    images: Sequence[Array],
    *,
    gaussian: Gaussian | Sequence[Any] | None = SMOOTHNESS,
    bilateral: Bilateral | Sequence[Any] | None = APPEARANCE,
    iterations: int = 5,
    normalisation: str = "symmetric",
) -> list[Array]:
    """Return `refine_mask` of several masks, computed together: small ones are quicker so.

    Args:
        probs: (H, W) each, see `refine_mask`.
        images: (H, W, 3) uint8 each.
        gaussian: see `dense_crf`.
        bilateral: see `dense_crf`.
        iterations: see `dense_crf`.
        normalisation: see `dense_crf`.

    Raises:
        ValueError: as `refine_mask`.
    """
    iterations = whole_number("iterations", iterations, 0)
    made = list(probs)
    known: list[tuple[int, Array, np.ndarray]] = []
    for number, (one, image) in enumerate(zip(probs, images, strict=True)):
        if one.ndim != 2:
            raise ValueError(f"probs: expected (H, W) of one mask, got {tuple(one.shape)}")
        both = library(one).stack([1 - one, one])
        unary, pixels = checked_input(unary_from_probabilities(both), image)
        if math.prod(one.shape):
            known.append((number, unary, pixels))
    if known:
        numbers, unaries, crops = zip(*known, strict=True)
        kernels = _kernels(crops, gaussian, bilateral, normalisation, unaries[0])
        energies = library(unaries[0]).concatenate([pixel_rows(unary) for unary in unaries])
        rows, begin = mean_field(energies, kernels, iterations), 0
        for number, crop in zip(numbers, crops, strict=True):
            end = begin + math.prod(crop.shape[:2])
            made[number] = rows[begin:end, 1].reshape(crop.shape[:2])
            begin = end
    return made


def unary_from_probabilities(probs: Array, *, trust: float = 1.0) -> Array:
    """Return the energies (C, ...) of probabilities, which `dense_crf` takes.

    Args:
        probs: (C, ...), each class between 0 and 1.
        trust: share of the probabilities that counts; the rest is spread over all classes.

    Raises:
        ValueError: if a value lies outside 0 to 1.
    """
    if not 0 < trust <= 1:
        raise OptionError(f"trust: expected more than 0, at most 1, got {trust!r}")
    if not bool(((probs >= -_LEAST) & (probs <= 1 + _LEAST)).all()):  # means may be rounded
        raise ValueError(
            "probs: expected numbers from 0 to 1; of logits the energies are the negative"
        )
    probs = trust * probs + (1 - trust) / max(len(probs), 1)
    return -library(probs).log(probs.clip(_LEAST, 1))


def unary_from_labels(
    labels: Array, num_classes: int, *, confidence: float = 0.7, zero_unsure: bool = False
) -> Array:
    """Return the energies (C, H, W), float32, of a map of labels of which one is not sure.

    Args:
        labels: (H, W) integers; 255 is a pixel of which nothing is known.
        num_classes: C.
        confidence: probability that a label is right.
        zero_unsure: whether 0 means that nothing is known, and the classes are 1 to C in the map
            and 0 to C - 1 in what comes back (the default of pydensecrf). A map where 0 is the
            background has no such zeros.

    Raises:
        ValueError: if a label is no class, or they are no integers.
    """
    if not 0 < confidence < 1:
        raise OptionError(f"confidence: expected more than 0 and less than 1, got {confidence!r}")
    num_classes = whole_number("num_classes", num_classes)
    if labels.ndim != 2 or "float" in str(labels.dtype):
        got = f"{tuple(labels.shape)} of {labels.dtype}"
        raise ValueError(f"labels: expected integers (H, W), got {got}")
    xp = library(labels)
    number = xp.asarray(labels, dtype=xp.int64)
    unknown = number == _UNKNOWN
    if zero_unsure:
        unknown, number = unknown | (number == 0), number - 1
    wrong = ((number < 0) | (number >= num_classes)) & ~unknown
    if bool(wrong.any()):
        first = int(labels[wrong][0])
        raise ValueError(f"labels: {first} is none of {num_classes} classes")
    others = (1 - confidence) / max(num_classes - 1, 1)
    costs = [-math.log(p) for p in (confidence, others, 1 / num_classes)]
    classes = as_kind(np.arange(num_classes), labels)[:, None, None]
    energy = xp.where(number == classes, costs[0], costs[1])
    return xp.asarray(xp.where(unknown, costs[2], energy), dtype=xp.float32)


def crf_kernel(
    image: np.ndarray | Sequence[np.ndarray],
    sxy: Any,
    srgb: Any = None,
    *,
    normalisation: str,
    like: Array,
) -> Lattice:
    """Return the matrix (N, N) by which the pixels of an image pull at one another, of weight 1.

    Args:
        image: (H, W, 3), one pixel at least; of several, pixels hear of those of their own alone,
            and N is the sum of all.
        sxy: standard deviation of positions, or (x, y).
        srgb: of colours, or one for each channel; None: colours do not count.
        normalisation: see `dense_crf`.
        like: an array or a tensor; the matrix is for such.
    """
    if normalisation not in NORMALISATIONS:
        raise OptionError(
            f"normalisation: expected one of {', '.join(NORMALISATIONS)}, got {normalisation!r}"
        )
    x, y = _deviations("sxy", sxy, 2)
    parts = []
    for one in [image] if isinstance(image, np.ndarray) else image:
        rows, columns = np.indices(one.shape[:2], np.float32)
        features = [columns / x, rows / y]
        if srgb is not None:
            colours = np.moveaxis(one, 2, 0).astype(np.float32)
            features += [c / s for c, s in zip(colours, _deviations("srgb", srgb, 3), strict=True)]
        parts.append(np.stack([feature.reshape(-1) for feature in features], 1))
    lattice = build_lattice(as_kind(np.concatenate(parts), like), [len(part) for part in parts])
    return normalised(lattice, normalisation)


def normalised(lattice: Lattice, how: str) -> Lattice:
    """Return a lattice divided by the sums of its rows; see `dense_crf`."""
    if how == "none":
        return lattice
    ones = library(lattice.order).ones_like(lattice.slice.weights[:, :1])
    sums = (lattice @ ones)[:, 0]
    if how == "symmetric":
        return lattice.scaled(sums**-0.5, sums**-0.5)
    return lattice.scaled(before=1 / sums) if how == "before" else lattice.scaled(after=1 / sums)


def pixel_rows(planes: Array) -> Array:
    """Return (H W, C) of (C, H, W), contiguous: a pixel is read and written as a whole."""
    return library(planes).stack(list(planes.reshape(len(planes), -1)), 1)


def mean_field(energies: Array, kernels: Sequence[tuple[Lattice, Any]], iterations: int) -> Array:
    """Return the probabilities (N, C) of N pixels after some iterations.

    Args:
        energies: (N, C) float32.
        kernels: the matrices of `crf_kernel` with their weights: a number, or (C, C) symmetric.
        iterations: how often all pixels hear of one another.
    """
    kernels = [
        (lattice.times(weight), None) if np.ndim(weight) == 0 else (lattice, weight)
        for lattice, weight in kernels
    ]
    probs = _softmax(-energies)
    for _ in range(iterations):
        logits = -energies
        for lattice, matrix in kernels:
            message = lattice @ probs
            logits += message if matrix is None else -(message @ matrix)
        probs = _softmax(logits)
    return probs


def _softmax(logits: Array) -> Array:
    """Return the softmax of each row."""
    if library(logits) is not np:
        if logits.shape[1] >= _FEW:
            return logits.softmax(1)
        return logits.T.contiguous().softmax(0).T.contiguous()
    exps = np.exp(logits - logits.max(1, keepdims=True))
    return exps / exps.sum(1, keepdims=True)


def _deviations(name: str, value: Any, count: int) -> tuple[float, ...]:
    """Return as many standard deviations, of one or of as many."""
    try:
        numbers = tuple(float(v) for v in (value if np.ndim(value) else [value] * count))
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != count or not all(0 < number < math.inf for number in numbers):
        raise OptionError(
            f"{name}: expected a standard deviation above 0, or {count} of them, got {value!r}"
        )
    return numbers


def checked_weight(name: str, value: Any, unary: Array) -> Any:
    """Return the weight of a kernel as `mean_field` takes it."""
    weight, count = np.asarray(value), len(unary)
    if weight.dtype.kind not in "fiu" or not np.isfinite(weight).all():
        raise OptionError(f"the weight of {name}: expected numbers, got {value!r}")
    if weight.ndim == 0:
        return float(weight)
    if weight.shape != (count, count):
        raise OptionError(
            f"the weight of {name}: expected a number or a matrix ({count}, {count}) for "
            f"{count} classes, got one of shape {weight.shape}"
        )
    return as_kind(((weight + weight.T) / 2).astype(np.float32), unary)


def checked_input(unary: Array, image: Array) -> tuple[Array, np.ndarray]:
    """Return energies as float32 without gradients, and the image as an array; see `dense_crf`."""
    if "float" not in str(unary.dtype) or unary.ndim != 3 or not len(unary):
        raise ValueError(
            "unary: expected energies (C, H, W) of a floating type and at least one class, "
            f"got {tuple(unary.shape)} of {unary.dtype}"
        )
    arrays = isinstance(unary, np.ndarray)
    energies = unary.astype(np.float32) if arrays else unary.detach().float()
    if not bool(library(energies).isfinite(energies).all()):
        raise ValueError("unary: expected finite energies, got infinite ones or nan")
    pixels = image if isinstance(image, np.ndarray) else image.detach().cpu().numpy()
    if pixels.dtype != np.uint8:
        raise ValueError(f"image: expected uint8, 0 to 255, got {pixels.dtype}")
    size, expected = tuple(unary.shape[1:]), (*unary.shape[1:], 3)
    if pixels.shape != expected:
        hint = ""
        if pixels.shape == (*size[::-1], 3):
            hint = "; are height and width swapped?"
        elif pixels.shape == (3, *size):
            hint = "; channels come last here"
        elif pixels.shape == (*unary.shape[:2], 3):
            hint = "; in unary, the classes come first"
        raise ValueError(
            f"image: expected {expected} as unary is {tuple(unary.shape)}, got {pixels.shape}{hint}"
        )
    return energies, pixels
