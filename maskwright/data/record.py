"""One image of a data set: where it lies, and all that is annotated in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Record:
    """One image, its n annotated objects and its labels, without pixels.

    Attributes:
        index: position in the data set.
        image_id: id in the annotation file.
        path: the image file; of an image inside a file, that file and its number there, as in
            train-images-idx3-ubyte.gz#17, to be shown.
        size: (height, width) of the original image; (0, 0) where only the file knows it.
        boxes: (n, 4) float32 xyxy in original pixels, clipped to the image.
        labels: (n,) int64, 0 to C - 1; `ANY_CLASS` for an ignored region of unknown class.
        crowd: (n,) bool: no object to learn or to find, and no background either: a region of many
            objects, or an ignored one.
        ann_ids: (n,) int64, ids in the annotation file.
        keypoints: (n, J, 3) float32 x, y in original pixels and visibility 0, 1, 2; or None.
        ignored: (n,) bool: of `crowd`, areas in which nothing is scored and nothing is trained:
            objects that are marked difficult or cannot be used.
        image_labels: (m,) int64, 0 to C - 1: what the image shows as a whole; None where images
            have no labels.
        label_map: file with the class of every pixel, see `Dataset.encoding`; None: there is none.
        group: images of one number belong together and are held out together; None: alone.
        channels: of the pixels in the file, where somebody has looked; else None.
        stored: the image is one of many in a file, not a file itself.
        checked: (m,) int64, the labels that somebody looked for in the image, where not for all:
            whether it shows others is not known, so nothing that is found of them is wrong.
    """

    index: int
    image_id: int
    path: Path
    size: tuple[int, int]
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    ann_ids: np.ndarray
    keypoints: np.ndarray | None
    ignored: np.ndarray
    image_labels: np.ndarray | None = None
    label_map: Path | None = None
    group: int | None = None
    channels: int | None = None
    stored: bool = False
    checked: np.ndarray | None = None
