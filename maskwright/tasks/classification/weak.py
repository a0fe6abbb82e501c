"""Boxes from labels alone: how well the heat maps of a classifier find the objects of a data set.

Choe et al. 2020 (Evaluating Weakly Supervised Object Localization Methods Right): each image is
resized to the square input, the map is that of its true class, and boxes are those of the pixels
above a share of the maximum. MaxBoxAcc and MaxBoxAccV2 take the best threshold on the scored images
themselves, so they say what a method could reach; `gt_known` is what it reaches with the threshold
that was best on images of the training part, which are never scored. A centred Gaussian and the
whole image stand beside each method: maps that have seen nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...data.pixels.resizing import resized
from ...data.records import Dataset
from ...errors import OptionError
from ...metrics.heatmap_boxes import (
    THRESHOLDS,
    accuracy_at,
    best_threshold,
    centred_gaussian,
    map_boxes,
    max_box_accuracy,
    max_box_accuracy_v2,
    resize_boxes,
    whole_image,
)
from ...nn.cam import explain
from ...structures import Images
from ...terminal import console

TUNED = 300  # images of the training part on which the threshold is chosen, at most
BASELINES = {"gaussian": centred_gaussian, "whole": whole_image}


@dataclass(frozen=True)
class Maps:
    """How well boxes of heat maps fit, by method, image and threshold.

    Attributes:
        indices: (N,) positions of the images in the data set.
        largest: by method and baseline (N, T), IoU of the box of the largest part.
        any: the same of the best of all parts.
        right: (N,) whether the first class of the network is the true one.
        kept: maps of the first images, (H, W) of the square input, for pictures.
    """

    indices: list[int]
    largest: dict[str, np.ndarray]
    any: dict[str, np.ndarray]
    right: np.ndarray
    kept: list[np.ndarray]


def squeeze(photo: np.ndarray, side: int) -> torch.Tensor:
    """Return pixels (C, side, side) float32, resized whatever their shape: nothing is cut off."""
    made = resized(photo, (side, side), "bilinear")
    return torch.from_numpy(made.transpose(2, 0, 1).copy()).float()


def objects_of(data: Dataset, index: int) -> tuple[int, np.ndarray] | None:
    """Return the class of the largest object of an image and all boxes (n, 4) of that class.

    None for an image without an object.
    """
    record = data[index]
    real = ~record.crowd
    if not real.any():
        return None
    areas = np.where(real, (record.boxes[:, 2:] - record.boxes[:, :2]).prod(1), -1)
    label = int(record.labels[int(areas.argmax())])
    return label, record.boxes[real & (record.labels == label)]


def spread(data: Dataset, most: int, *, without: Collection[str] = ()) -> list[int]:
    """Return positions of at most so many images with an object, evenly spread over the data.

    Args:
        data: the images; its labels are those of the model.
        most: how many.
        without: files that must not be among them.
    """
    found = [
        index
        for index in range(len(data))
        if str(data[index].path) not in without and objects_of(data, index) is not None
    ]
    if len(found) <= most:
        return found
    return [found[place] for place in np.linspace(0, len(found) - 1, most).round().astype(int)]


def look_at(
    model: Any,
    data: Dataset,
    indices: Sequence[int],
    method: str,
    *,
    side: int | None = None,
    batch: int = 8,
    keep: int = 0,
    label: str = "maps",
) -> Maps:
    """Make the maps of the true classes of images, and fit boxes to them.

    Args:
        model: a `Classifier`.
        data: the images; labels are those of the model.
        indices: those with an object.
        method: see `nn.cam.METHODS`.
        side: of the square input, pixels; a larger one has finer maps. None: that of the model.
        batch: images that are computed at once.
        keep: how many maps to keep.
        label: what stands in front of the progress bar.
    """
    side = side or model.preprocess.crop
    device = model.mean.device
    names = [method, *BASELINES]
    fixed = {name: map_boxes(make((side, side))) for name, make in BASELINES.items()}
    largest: dict[str, list[np.ndarray]] = {name: [] for name in names}
    every: dict[str, list[np.ndarray]] = {name: [] for name in names}
    right: list[bool] = []
    kept: list[np.ndarray] = []
    with console.progress(label, total=len(indices), unit="img") as bar:
        for group in _groups(indices, batch):
            truth = [objects_of(data, index) for index in group]
            assert all(one is not None for one in truth)
            pixels = torch.stack([squeeze(data.image(index), side) for index in group])
            sizes = torch.full((len(group), 2), side)
            x = model.normalise(Images(pixels, sizes, sizes).to(device))
            labels = torch.tensor([one[0] for one in truth if one is not None], device=device)
            with torch.no_grad():
                right += (model.network(x).argmax(1) == labels).tolist()
            maps = explain(model.network, x, labels, method).cpu().numpy()
            for index, one, heat in zip(group, truth, maps, strict=True):
                assert one is not None
                boxes = resize_boxes(one[1], data[index].size, (side, side))
                for name, made in {method: map_boxes(heat), **fixed}.items():
                    fit = made.overlaps(boxes)
                    largest[name].append(fit.largest)
                    every[name].append(fit.any)
                if len(kept) < keep:
                    kept.append(heat)
            bar.update(len(group))
    return Maps(
        list(indices),
        {name: np.array(rows) for name, rows in largest.items()},
        {name: np.array(rows) for name, rows in every.items()},
        np.array(right),
        kept,
    )


def _groups(indices: Sequence[int], size: int) -> Iterator[list[int]]:
    for first in range(0, len(indices), size):
        yield list(indices[first : first + size])


@dataclass(frozen=True)
class WeakScores:
    """What heat maps are worth as boxes.

    Attributes:
        metrics: "cam/MaxBoxAcc", "cam/MaxBoxAccV2", "cam/gt_known", "cam/top1_loc" and
            "cam/threshold", and those of "gaussian" and "whole"; in [0, 1].
        method: the method.
        thresholds: by method and baseline, chosen on the training part.
        scored: of the images that are scored.
        tuned: how many images the thresholds were chosen on.
    """

    metrics: dict[str, float]
    method: str
    thresholds: dict[str, float]
    scored: Maps
    tuned: int


def score_maps(scored: Maps, tuning: Maps, method: str) -> WeakScores:
    """Return the scores of maps with the thresholds that were best on other images.

    Args:
        scored: of the images that are scored.
        tuning: of images of the training part.
        method: the method of both.
    """
    metrics: dict[str, float] = {}
    thresholds: dict[str, float] = {}
    for name in (method, *BASELINES):
        place = best_threshold(tuning.largest[name])
        thresholds[name] = float(THRESHOLDS[place])
        right = scored.largest[name][:, place] >= 0.5
        metrics |= {
            f"{name}/gt_known": accuracy_at(scored.largest[name], place),
            f"{name}/top1_loc": float((right & scored.right).mean()),
            f"{name}/MaxBoxAcc": max_box_accuracy(scored.largest[name]),
            f"{name}/MaxBoxAccV2": max_box_accuracy_v2(scored.any[name]),
            f"{name}/threshold": thresholds[name],
        }
    return WeakScores(metrics, method, thresholds, scored, len(tuning.indices))


def weak_scores(
    model: Any,
    method: str,
    data: Dataset,
    train: Callable[[], Dataset],
    *,
    side: int | None = None,
    batch: int = 8,
    keep: int = 16,
) -> WeakScores:
    """Score a classifier's heat maps as boxes on a detection data set.

    Args:
        model: a `Classifier`.
        method: see `nn.cam.METHODS`.
        data: the images that are scored; labels are those of the model.
        train: opens the training part.
        side: see `look_at`.
        batch: images that are computed at once.
        keep: how many maps to keep for pictures.

    Raises:
        ValueError: if no image has an object, or the training part has none that is not scored.
    """
    indices = spread(data, len(data))
    if not indices:
        raise ValueError(f"{data.source} has no object: there is no place that could be found")
    try:
        other = train()
    except ValueError as error:
        raise ValueError(
            "the threshold of heat maps is chosen on a training part, never on the scored images, "
            f"and there is none: {error}"
        ) from None
    chosen = spread(other, TUNED, without=data.files())
    if not chosen:
        raise OptionError(
            f"all images of the training part of {other.source} are scored themselves, and a "
            "threshold chosen on them would be no test: score another split"
        )
    given: dict[str, Any] = {"side": side, "batch": batch}
    tuning = look_at(model, other, chosen, method, label="threshold", **given)
    scored = look_at(model, data, indices, method, keep=keep, label="val", **given)
    return score_maps(scored, tuning, method)
