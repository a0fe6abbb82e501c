"""Files that other programs wrote: Datumaro, supervision, datasets, the SDK of Label Studio.

`tool_files/README.md` says which and how. All show the same: a cat's box, a dog's quadrilateral,
and a dog's mask with a hole; each format has of these what it holds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn_objects import full_mask
from PIL import Image
from pycocotools import mask as rle

from maskwright.data import find_splits, open_dataset
from maskwright.data.records import ANY_CLASS

FILES = Path(__file__).parent / "tool_files"
CAT = [10, 3, 22, 12]
QUADRILATERAL = [(30, 4), (44, 6), (40, 18), (31, 15)]
QUAD_BOX = [30, 4, 44, 18]
MASK_BOX = [4, 20, 14, 28]


def dog() -> np.ndarray:
    mask = np.zeros((32, 48), bool)
    mask[20:28, 4:14] = True
    mask[22:25, 7:10] = False
    return mask


# Folder, splits, boxes by class as they stand there.
BOXES = {
    "datumaro/coco_instances": ("train val", [CAT, QUAD_BOX, MASK_BOX]),
    "datumaro/cvat": ("train val", [CAT, QUAD_BOX, MASK_BOX]),
    "datumaro/datumaro": ("train val", [CAT, QUAD_BOX, MASK_BOX]),
    "datumaro/kitti_detection": ("train val", [CAT]),
    "datumaro/open_images": ("train val", [CAT]),
    # Datumaro writes corners as they are; in VOC's own files the first pixel has the number 1.
    "datumaro/voc": ("train val", [[9, 2, 22, 12], MASK_BOX]),
    "datumaro/yolo": ("train val", [CAT]),
    "datumaro/yolo_ultralytics": ("train val", [CAT]),
    "supervision/coco": ("train", [CAT, MASK_BOX]),
    # supervision draws outlines through the middle of the outer pixels.
    "supervision/yolo": ("train", [[10, 3, 21, 11], [4, 20, 13, 27]]),
    "supervision/voc": ("train", [CAT, MASK_BOX]),
    "supervision/createml": ("train", [CAT, MASK_BOX]),
    "supervision/labelme": ("train", [[10, 3, 21, 11], [4, 20, 13, 27]]),
    "datasets/parquet": ("train", [CAT, MASK_BOX]),
    "datasets/disk": ("train", [CAT, MASK_BOX]),
}


@pytest.mark.parametrize("folder", BOXES)
def test_boxes(folder: str) -> None:
    splits, boxes = BOXES[folder]
    assert list(find_splits(FILES / folder)) == splits.split()
    for split in splits.split():
        dataset = open_dataset(FILES / folder, split, crowd_as_objects=True)
        assert dataset.names[:1] == ["cat"]
        assert len(dataset) == 1
        record = dataset[0]
        found = dict(zip(map(tuple, np.round(record.boxes).tolist()), record.labels, strict=True))
        wanted = {tuple(map(float, box)): int(k > 0) for k, box in enumerate(boxes)}
        if folder == "datumaro/voc":  # masks without an object in the XML file have no class
            wanted[tuple(map(float, MASK_BOX))] = ANY_CLASS
        assert found == wanted
        assert record.crowd.tolist() == (record.labels == ANY_CLASS).tolist()
        assert (dataset.image(0) < 120).all()  # grey pixels of 40 and 100


@pytest.mark.parametrize(
    "folder", ["datumaro/coco_instances", "datumaro/cvat", "datumaro/datumaro"]
)
def test_outlines(folder: str) -> None:
    dataset = open_dataset(FILES / folder, "train", crowd_as_objects=True)
    record = dataset[0]
    masks = {
        tuple(np.round(box).tolist()): full_mask(dataset, 0, k)
        for k, box in enumerate(record.boxes)
    }
    code = rle.frPyObjects([[float(side) for corner in QUADRILATERAL for side in corner]], 32, 48)
    assert np.array_equal(masks[tuple(QUAD_BOX)], rle.decode(code)[..., 0])
    assert np.array_equal(masks[tuple(MASK_BOX)], dog())


def test_a_hole_joined_to_its_outline_by_doubled_lines() -> None:
    """YOLO's text has no holes: supervision writes both outlines as one."""
    dataset = open_dataset(FILES / "supervision/yolo", "train")
    mask = full_mask(dataset, 0, 1)
    assert mask[21, 5] and mask[26, 12] and not mask[23, 8]


@pytest.mark.parametrize("folder", ["supervision/coco", "datumaro/coco_instances"])
def test_masks_with_holes_that_are_marked_as_crowds(folder: str) -> None:
    dataset = open_dataset(FILES / folder, "train")
    assert dataset[0].crowd.sum() == 1
    (told,) = [fault for fault in dataset.faults if fault.kind == "many crowd regions"]
    assert "crowd_as_objects=true" in told.message
    as_objects = open_dataset(FILES / folder, "train", crowd_as_objects=True)
    assert not [fault for fault in as_objects.faults if fault.kind == told.kind]
    last = len(as_objects[0].boxes) - 1
    assert np.array_equal(full_mask(as_objects, 0, last), dog())


def test_objects_numbered_by_colours() -> None:
    """Datumaro paints the n-th object in the n-th colour of Pascal VOC's palette."""
    with Image.open(FILES / "datumaro/voc/SegmentationObject/a0.png") as stored:
        assert stored.mode == "RGB"
    dataset = open_dataset(FILES / "datumaro/voc", "train")
    assert not [fault for fault in dataset.faults if fault.kind == "unreadable masks"]
    at = [tuple(box) for box in dataset[0].boxes.tolist()].index(tuple(MASK_BOX))
    assert np.array_equal(full_mask(dataset, 0, at), dog())


def test_panoptic_segments() -> None:
    dataset = open_dataset(FILES / "datumaro/coco_panoptic", "train", records="maps")
    classes = dataset.label_map(0)
    value = dataset.names.index("dog")
    assert np.array_equal(classes == value, dog())


def test_label_studios_own_code_for_brushes() -> None:
    dataset = open_dataset(FILES / "labelstudio", "train")
    assert dataset.names == ["dog"]
    assert np.array_equal(full_mask(dataset, 0, 0), dog())


def test_labels_of_images() -> None:
    dataset = open_dataset(FILES / "datasets/labels", "train", records="labels")
    assert dataset.names == ["cat", "dog"]
    assert [dataset[k].image_labels.tolist() for k in range(2)] == [[1], [0]]
