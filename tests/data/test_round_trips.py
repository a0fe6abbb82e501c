"""What goes out in a format and comes in again: all that it can hold, and how precisely."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from drawn_objects import CLASSES, WRITTEN, Drawn, DrawnImage, data_sets, full_mask, lay, painted
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from maskwright.data import Dataset, open_dataset, write_dataset
from maskwright.data.records import Fault


@dataclass(frozen=True)
class Holds:
    """What a format holds.

    Attributes:
        regions: regions that are ignored stay, as objects that count neither way.
        parts: polygons stay polygons, each part one of its own.
        step: how far a corner may move, in pixels.
        pixels: each pixel belongs to one object, the last.
        boxes: "also", "only" or "none", besides masks; they stay where no pixel of a mask does.
        names: class names that it can hold; None: any.
    """

    regions: bool = False
    parts: bool = False
    step: float = 0.0
    pixels: bool = False
    boxes: str = "also"
    names: tuple[str, ...] = CLASSES


FORMATS = {
    "coco": Holds(regions=True, parts=True),
    "yolo": Holds(step=1.1e-5),
    "instances": Holds(pixels=True, boxes="none"),
    "voc": Holds(regions=True, pixels=True),
    "via": Holds(regions=True),
    "cvat": Holds(regions=True, parts=True),
    "labelstudio": Holds(regions=True, parts=True, step=1.1e-5),
    "labelme": Holds(regions=True, parts=True),
    "supervisely": Holds(regions=True, parts=True),
    "geo": Holds(regions=True, parts=True),
    "crowdhuman": Holds(boxes="only"),
    "openimages": Holds(boxes="only"),
    "createml": Holds(boxes="only"),
    "retinanet": Holds(boxes="only"),
    "huggingface": Holds(boxes="only"),
    "kitti": Holds(boxes="only", names=("cat", "dog", "Ünïcode_<&\"'>_日本")),  # no blanks
}
there = [row.format for row in WRITTEN]  # without those whose extras are missing
FORMATS = {name: holds for name, holds in FORMATS.items() if name in there}


def copy(images: list[DrawnImage], folder: Path, format: str) -> tuple[Dataset, list[int]]:
    """Write drawn images in a format, read them, and say which image is which."""
    names = FORMATS[format].names
    write_dataset(open_dataset(lay(folder / "in", images, names)), folder / "out", format)
    read = open_dataset(folder / "out")
    assert read.format == format
    stems = [read[i].path.stem for i in range(len(read))]
    return read, [stems.index(str(number)) for number in range(1, len(images) + 1)]


def unexpected(read: Dataset) -> list[Fault]:
    """The faults but those that chance draws: many crowds, and in VOC an object almost hidden."""
    drawn = ("many crowd regions", "box and mask disagree")
    return [fault for fault in read.faults if fault.kind not in drawn]


def kept(image: DrawnImage, holds: Holds) -> tuple[list[Drawn], list[np.ndarray]]:
    """The objects that stay, and their masks."""
    objects = [one for one in image.objects if holds.regions or not one.region]
    masks = [painted(one, image.size) for one in objects]
    if holds.pixels:
        hidden = np.zeros(image.size, bool)
        for k in reversed(range(len(masks))):
            masks[k], hidden = masks[k] & ~hidden, masks[k] | hidden
    there = [k for k in range(len(objects)) if masks[k].any()]
    return [objects[k] for k in there], [masks[k] for k in there]


@pytest.mark.parametrize("format", [name for name, one in FORMATS.items() if one.boxes != "only"])
@settings(max_examples=15, deadline=None)
@given(images=data_sets())
def test_masks(format: str, images: list[DrawnImage]) -> None:
    holds = FORMATS[format]
    if format == "voc":  # an object that others hide stays as its box; one pixel is a click
        assume(all(len(kept(image, holds)[0]) == len(image.objects) for image in images))
        assume(all(painted(one, own.size).sum() > 1 for own in images for one in own.objects))
    with tempfile.TemporaryDirectory() as folder:
        read, places = copy(images, Path(folder), format)
        assert not unexpected(read)
        for image, index in zip(images, places, strict=True):
            (objects, masks), record = kept(image, holds), read[index]
            assert record.size == image.size
            assert [read.names[k] for k in record.labels] == [CLASSES[o.label] for o in objects]
            assert record.crowd.tolist() == [bool(one.region) for one in objects]
            for k, one in enumerate(objects):
                np.testing.assert_array_equal(full_mask(read, index, k), masks[k])
                if (
                    one.kind == "polygons"
                    and not holds.pixels
                    and (holds.parts or len(one.polygons) == 1)
                ):
                    found = read.polygons(index, k)
                    assert found is not None and len(found) == len(one.polygons)
                    for part, expected in zip(found, one.polygons, strict=True):
                        np.testing.assert_allclose(part, expected, rtol=0, atol=holds.step)


@pytest.mark.parametrize("format", [name for name, one in FORMATS.items() if one.boxes != "none"])
@settings(max_examples=15, deadline=None)
@given(images=data_sets(kinds=("box",)))
def test_boxes(format: str, images: list[DrawnImage]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        read, places = copy(images, Path(folder), format)
        assert not unexpected(read) and not read.has_masks
        for image, index in zip(images, places, strict=True):
            boxes = read.annotated_boxes(index)
            expected = np.array([one.box for one in image.objects]).reshape(-1, 4)
            np.testing.assert_allclose(boxes, expected, rtol=0, atol=FORMATS[format].step + 1e-9)
            labels = [read.names[k] for k in read[index].labels]
            assert labels == [FORMATS[format].names[one.label] for one in image.objects]


JOINTS = ("left_eye", "right_eye", "a nose & <mouth>")


@pytest.mark.parametrize("format", ["yolo", "cvat", "labelstudio", "labelme", "supervisely"])
@settings(max_examples=10, deadline=None)
@given(images=data_sets(kinds=("box",)), data=st.data())
def test_keypoints(format: str, images: list[DrawnImage], data: st.DataObject) -> None:
    """Names, places, which are hidden, lines between them, beside the boxes of their objects."""
    with tempfile.TemporaryDirectory() as folder:
        root = lay(Path(folder) / "in", images)
        content = json.loads((root / "train.json").read_text())
        for category in content["categories"]:
            category |= {"keypoints": list(JOINTS), "skeleton": [[1, 3], [3, 2]]}
        marks: dict[tuple[int, int], np.ndarray] = {}
        for entry in content["annotations"]:
            height, width = images[entry["image_id"] - 1].size
            a_point = st.tuples(
                st.integers(1, 1000 * width), st.integers(1, 1000 * height), st.integers(0, 2)
            )
            drawn = data.draw(st.lists(a_point, min_size=3, max_size=3))
            points = np.array([(x / 1000, y / 1000, v) if v else (0, 0, 0) for x, y, v in drawn])
            entry["keypoints"] = points.ravel().tolist()
            marks[entry["image_id"], len([k for k in marks if k[0] == entry["image_id"]])] = points
        (root / "train.json").write_text(json.dumps(content))
        write_dataset(open_dataset(root), Path(folder) / "out", format)
        read = open_dataset(Path(folder) / "out")
        assert not unexpected(read) and read.skeleton is not None
        assert read.skeleton.names == JOINTS
        if format in ("cvat", "supervisely"):  # the others have no lines
            assert read.skeleton.bones == ((0, 2), (2, 1))
        stems = [read[i].path.stem for i in range(len(read))]
        for number, image in enumerate(images, 1):
            record = read[stems.index(str(number))]
            boxes = np.array([one.box for one in image.objects]).reshape(-1, 4)
            np.testing.assert_allclose(record.boxes, boxes, rtol=0, atol=1e-4)
            assert record.keypoints is not None
            expected = [marks[number, k] for k in range(len(image.objects))]
            np.testing.assert_allclose(
                record.keypoints, np.reshape(expected, (-1, 3, 3)), rtol=0, atol=1e-4
            )


@pytest.mark.parametrize("format", FORMATS)
def test_names_are_taken_once_and_splits_stay(format: str, tmp_path: Path) -> None:
    square = Drawn(1, "polygons", polygons=(np.array([[2.0, 2], [9, 2], [9, 9]]),))
    images = [DrawnImage((20, 30), [square]), DrawnImage((20, 30), [])]
    data = open_dataset(lay(tmp_path / "in", images, FORMATS[format].names))
    write_dataset(data, tmp_path / "out", format)
    write_dataset(data.select([1, 0], "val"), tmp_path / "out", format)
    for split in ("train", "val"):
        read = open_dataset(tmp_path / "out", split)
        assert len(read) == 2 and read.objects_per_class().sum() == 1
    with pytest.raises(ValueError, match="already"):
        write_dataset(data, tmp_path / "out", format)
    if format in ("coco", "cvat"):  # whose files have classes of their own
        return
    with pytest.raises(ValueError, match="other classes"):
        other = open_dataset(lay(tmp_path / "other", images, ("a", "b", "c")))
        write_dataset(other.select([0], "test"), tmp_path / "out", format)


@given(st.data())
@settings(max_examples=1)
def test_drawn_masks_have_holes_and_parts(data: st.DataObject) -> None:
    """The strategy above reaches what is hard: a hole, parts that touch at a corner."""
    from maskwright.ops.outlines import trace_parts

    mask = np.zeros((6, 6), bool)
    mask[0:5, 0:5] = True
    mask[2, 2] = False
    mask[5, 5] = True
    parts = trace_parts(mask, (0, 0, 6, 6))
    assert len(parts) == 2 and len(parts[0].holes) == 1
