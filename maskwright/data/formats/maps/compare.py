"""Polygons and label maps of the same images: they must agree, or the user says which counts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from maskwright.ops.rle import Crop, Frame, rasterise_polygons
from maskwright.structures import IGNORED

from ...records import Dataset
from ..source import ReadOptions, Source

SAMPLE = 8  # images of a split that are compared
AGREE = 0.5  # least share of the pixels of an image's polygons whose label is that of the polygon
MEND = (
    "if the polygons are right, give their file as data= (those of all splits in a YAML file), and "
    "if the label maps are, move the polygons elsewhere"
)
Shape = tuple[str, Crop, Frame]  # name of the class, mask


def compare_polygons(dataset: Dataset, polygons: Source, *, declared: bool) -> None:
    """Make sure that label maps agree with the annotations of objects in the same folder.

    Args:
        dataset: label maps.
        polygons: the objects.
        declared: a file names the classes of the label maps.

    Raises:
        ValueError: if they do not agree, or nobody can tell.
    """
    objects = polygons.read(dataset.split, None, ReadOptions())
    if not objects.has_masks:
        return
    both = f"{polygons.annotations} has polygons of the images in {dataset.root}"
    unknown = sorted(set(objects.names).difference(dataset.names))
    if not declared or unknown:
        why = (
            f"of {unknown[:5]}"
            if declared
            else f"and no file names the classes of {dataset.source}"
        )
        raise ValueError(
            f"{both} beside the label maps of {dataset.source}, {why}, so that they cannot be "
            f"compared: {MEND}" + ("" if declared else " and name their classes in a classes.txt")
        )
    place = {objects[index].path.resolve(): index for index in range(len(objects))}
    indices = range(len(dataset))
    shared = [i for i in indices if dataset[i].path.resolve() in place]
    for index in _spread(shared):
        other = place[dataset[index].path.resolve()]
        record = objects[other]
        if record.size != dataset[index].size:  # which its check tells
            continue
        shapes = (
            (objects.names[record.labels[k]], *objects.mask(other, k))
            for k in np.flatnonzero(~record.crowd).tolist()
        )
        _compare(dataset, index, shapes, polygons.annotations)


def compare_labelme(dataset: Dataset) -> None:
    """Make sure that label maps agree with the polygons that labelme left beside their images.

    Raises:
        ValueError: if they do not.
    """
    files = [dataset[index].path.with_suffix(".json") for index in range(len(dataset))]
    for index in _spread([index for index, file in enumerate(files) if file.is_file()]):
        shapes = _labelme(files[index], dataset[index].size)
        _compare(dataset, index, shapes, files[index])


def _spread(indices: list[int]) -> list[int]:
    places = np.linspace(0, len(indices) - 1, min(SAMPLE, len(indices))).astype(int)
    return [indices[place] for place in np.unique(places).tolist()]


def _compare(dataset: Dataset, index: int, shapes: Iterable[Shape], file: Path) -> None:
    """Raise ValueError if most pixels of the shapes have labels of other classes."""
    try:
        labels = dataset.label_map(index)
    except ValueError:  # which is told where it is used
        return
    assert labels is not None
    number = {name: label for label, name in enumerate(dataset.names)}
    pixels = agree = 0
    worst: tuple[float, str] = (1.0, "")
    for name, crop, (x1, y1, x2, y2) in shapes:
        part = labels[y1:y2, x1:x2][crop]
        part = part[part != IGNORED]
        if name in number and len(part):
            same = int((part == number[name]).sum())
            pixels, agree = pixels + len(part), agree + same
            worst = min(worst, (same / len(part), name))
    if agree < AGREE * pixels:
        record = dataset[index]
        raise ValueError(
            f"{file} and the label map {record.label_map} do not agree on {record.path.name}: of "
            f"the pixels of {worst[1]!r} in the polygons {worst[0]:.0%} have this class in the "
            f"label map; {MEND}"
        )


def _labelme(file: Path, size: tuple[int, int]) -> Iterator[Shape]:
    """Yield the polygons of a file of labelme; nothing of another JSON."""
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
        shapes = content["shapes"]
        for shape in shapes:
            points = np.array(shape["points"], np.float64)
            if shape.get("shape_type", "polygon") == "polygon" and len(points) > 2:
                yield str(shape["label"]), *rasterise_polygons([points.ravel().tolist()], size)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return
