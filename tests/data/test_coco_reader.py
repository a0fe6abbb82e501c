"""The COCO reader on real data, against pycocotools, and on damaged files."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from maskwright.data import Dataset, open_dataset, read_coco, split_dataset
from maskwright.data.building.objects import whole_number
from maskwright.data.records import ANY_CLASS
from maskwright.structures import COCO_PERSON

Scene = Any  # of conftest.py
NAN, INF = float("nan"), float("inf")


def full_mask(dataset: Dataset, index: int, k: int) -> np.ndarray:
    crop, (x1, y1, x2, y2) = dataset.mask(index, k)
    full = np.zeros(dataset[index].size, bool)
    full[y1:y2, x1:x2] = crop
    return full


def check_against_pycocotools(dataset: Dataset, step: int = 1) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(str(dataset.source))
    # Penn-Fudan has its masks in a second form, too, which is told.
    assert {fault.kind for fault in dataset.faults} <= {"two kinds of labels"}
    assert [dataset[i].image_id for i in range(len(dataset))] == list(reference.imgs)
    assert dataset.category_ids == sorted(reference.cats)
    for index in range(0, len(dataset), step):
        record = dataset[index]
        annotations = reference.imgToAnns[record.image_id]
        assert record.ann_ids.tolist() == [entry["id"] for entry in annotations]
        for k, entry in enumerate(annotations):
            x, y, w, h = entry["bbox"]
            clipped = np.clip([x, y, x + w, y + h], 0, [*record.size[::-1], *record.size[::-1]])
            np.testing.assert_allclose(record.boxes[k], clipped, rtol=1e-6)
            assert dataset.category_ids[record.labels[k]] == entry["category_id"]
            assert record.crowd[k] == entry["iscrowd"]
            np.testing.assert_array_equal(full_mask(dataset, index, k), reference.annToMask(entry))


def test_mini_set(nuclei_mini: Path) -> None:
    for split, images, objects in (("train", 32, 926), ("val", 12, 405)):
        dataset = open_dataset(nuclei_mini, split)
        assert (len(dataset), dataset.names, dataset.has_masks) == (images, ["nucleus"], True)
        assert sum(len(dataset[i].labels) for i in range(len(dataset))) == objects
        check_against_pycocotools(dataset, 4)
        assert dataset.image(0).shape == (*dataset[0].size, 3)


def test_coco_itself(shared_data: Path) -> None:
    dataset = open_dataset(shared_data / "coco_subset", "val")
    assert (len(dataset), len(dataset.names)) == (134, 80)
    count = Counter(crowd for i in range(134) for crowd in dataset[i].crowd.tolist())
    assert count == {False: 1214 - 13, True: 13}
    check_against_pycocotools(dataset, 5)


def test_polygons_and_keypoints(shared_data: Path) -> None:
    check_against_pycocotools(open_dataset(shared_data / "penn_fudan", "val"), 5)
    file = shared_data / "coco_subset/annotations/person_keypoints_val.json"
    people = open_dataset(file, "val")
    assert people.skeleton == COCO_PERSON
    entries = json.loads(file.read_bytes())["annotations"]
    labelled = sum(entry["num_keypoints"] for entry in entries)
    found = [people[i].keypoints for i in range(len(people))]
    assert (
        sum(int((joints[..., 2] > 0).sum()) for joints in found if joints is not None) == labelled
    )
    truth = people.to_coco()["annotations"]
    assert sum(entry["num_keypoints"] for entry in truth) == labelled


def test_background_of_labelme_is_no_class(shared_data: Path) -> None:
    dataset = open_dataset(shared_data / "labelme_voc/coco")
    assert dataset.names[0] == "aeroplane"
    assert [fault.kind for fault in dataset.faults] == ["unused category"]
    assert sorted(len(dataset[i].labels) for i in range(3)) == [3, 3, 6]


def test_ids_of_any_kind_map_to_labels(scene: Scene) -> None:
    dataset = read_coco(scene.write())
    assert (dataset.names, dataset.category_ids) == (["cat", "dog"], [3, 7])
    assert (dataset[0].labels.tolist(), dataset[1].labels.tolist()) == ([0], [1])
    assert dataset[-1].image_id == 9
    with pytest.raises(IndexError):
        dataset[2]


def test_names_of_a_model_give_the_labels(scene: Scene) -> None:
    dataset = read_coco(scene.write(), names=["cow", "dog", "cat"])
    assert (dataset[0].labels.tolist(), dataset[1].labels.tolist()) == ([2], [1])
    assert dataset.category_ids == [-1, 7, 3]
    with pytest.raises(ValueError, match=r"\['cat'\].*\['dog', 'fox'\]"):
        read_coco(scene.file, names=["dog", "fox"])
    scene.content["categories"].append({"id": 8, "name": "never used"})
    assert read_coco(scene.write(), names=["cat", "dog"]).names == ["cat", "dog"]


def test_unused_heading_of_roboflow_is_no_class(scene: Scene) -> None:
    scene.content["categories"] = [
        {"id": 0, "name": "animals", "supercategory": "none"},
        {"id": 3, "name": "cat", "supercategory": "animals"},
        {"id": 7, "name": "dog", "supercategory": "animals"},
    ]
    assert read_coco(scene.write()).names == ["cat", "dog"]
    scene.first["category_id"] = 0
    assert read_coco(scene.write()).names == ["animals", "cat", "dog"]


def test_byte_order_mark_and_utf16(scene: Scene) -> None:
    scene.content["categories"][0]["name"] = "ноs"
    for encoding in ("utf-8-sig", "utf-16"):
        text = json.dumps(scene.content, ensure_ascii=False)
        scene.file.write_text(text, encoding=encoding)
        assert read_coco(scene.file).names == ["cat", "ноs"]


def test_round_trip(scene: Scene, tmp_path: Path) -> None:
    scene.content["annotations"].append(
        {"id": 3, "image_id": 9, "category_id": 3, "bbox": [1, 0, 2, 3], "iscrowd": 1}
        | {"segmentation": {"size": [30, 40], "counts": [30, 3, 27, 3, 1137]}}
    )
    first = read_coco(scene.write())
    assert [fault.kind for fault in first.faults] == ["many crowd regions"]  # one of three
    other = tmp_path / "other.json"
    other.write_text(json.dumps(first.to_coco()), encoding="utf-8")
    second = read_coco(other)
    assert second.names == first.names
    for index in range(2):
        a, b = first[index], second[index]
        assert (a.image_id, a.path, a.size) == (b.image_id, b.path, b.size)
        for field in ("boxes", "labels", "crowd"):
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
        for k in range(len(a.labels)):
            np.testing.assert_array_equal(full_mask(first, index, k), full_mask(second, index, k))
    assert [entry["id"] for entry in first.to_coco([1])["annotations"]] == [1, 2]
    assert first.to_coco([1])["annotations"][1]["area"] == 6


def test_pickled_data_set_is_the_same(scene: Scene) -> None:
    dataset = read_coco(scene.write())
    other = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(full_mask(dataset, 1, 0), full_mask(other, 1, 0))


def test_split_dataset(nuclei_mini: Path) -> None:
    dataset = open_dataset(nuclei_mini)
    train, val = split_dataset(dataset, 0.25, seed=3)
    ids = [{part[i].image_id for i in range(len(part))} for part in (train, val, dataset)]
    assert (len(train), len(val)) == (24, 8)
    assert ids[0] | ids[1] == ids[2]
    assert not ids[0] & ids[1]
    assert (train.split, val.split) == ("train", "val")
    again = split_dataset(dataset, 0.25, seed=3)[1]
    assert [again[i].image_id for i in range(8)] == [val[i].image_id for i in range(8)]
    with pytest.raises(ValueError, match="between 0 and 1"):
        split_dataset(dataset, 1.0)
    with pytest.raises(ValueError, match="at least two"):
        split_dataset(dataset.select([0]))


Change = Callable[[Scene], None]


def annotation(**entries: Any) -> Change:
    return lambda scene: scene.first.update(entries)


def image(**entries: Any) -> Change:
    return lambda scene: scene.content["images"][0].update(entries)


def without(key: str) -> Change:
    return lambda scene: scene.first.pop(key)


def polygon(*numbers: Any) -> Change:
    return annotation(segmentation=[list(numbers)])


def rle(counts: Any, size: Any = (30, 40)) -> Change:
    return annotation(segmentation={"size": list(size), "counts": counts})


LEFT_OUT = {
    "no usable box": ("empty box", annotation(bbox=[2, 2, 0, 5], segmentation=[])),
    "box elsewhere": ("box outside the image", annotation(bbox=[90, 2, 5, 5], segmentation=None)),
    "unknown image": ("unknown image", annotation(image_id=77)),
    "duplicate": (
        "duplicate annotation",
        lambda scene: scene.content["annotations"].insert(0, dict(scene.first)),
    ),
    "no object": (
        "bad annotation",
        lambda scene: scene.content["annotations"].append("nothing"),
    ),
    "image without id": ("bad image entry", image(id=None)),
    "image without name": ("bad image entry", image(file_name="")),
    "missing file": ("missing image", image(file_name="c.png")),
    "long name": ("missing image", image(file_name="c" * 5000)),
    "absolute path": ("path outside the data set", image(file_name="/etc/passwd")),
    "drive": ("path outside the data set", image(file_name="C:\\photos\\q.png")),
    "way out": ("path outside the data set", image(file_name="x/../../a.png")),
    "folder": ("folder instead of an image", image(file_name="sub")),
    "no bytes": ("empty image file", image(file_name="empty.png")),
    "huge size": ("bad image size", image(height=10**9)),
    "one id twice": (
        "duplicate image id",
        lambda scene: scene.content["images"].append({**scene.content["images"][1], "id": 5}),
    ),
}
# A broken mask beside a good box.
MASKS = {
    "NaN polygon": ("NaN or infinite coordinates", polygon(1, 1, 5, NAN, 5, 5)),
    "infinite polygon": ("NaN or infinite coordinates", polygon(1, 1, 5, INF, 5, 5)),
    "two points": ("polygon with too few points", polygon(1, 1, 5, 5)),
    "a line": ("polygon without area", polygon(1, 1, 5, 1, 9, 1)),
    "odd polygon": ("bad polygon", polygon(1, 1, 5, 5, 5, 1, 9)),
    "words": ("bad polygon", polygon("one", "two", 5, 5, 5, 1)),
    "polygon elsewhere": ("polygon outside the image", polygon(90, 90, 95, 90, 95, 95)),
    "endless polygon": ("polygon outside the image", polygon(1, 1, 1e9, 1, 1e9, 1e9)),
    "text": ("bad segmentation", annotation(segmentation="a mask")),
    "other size": ("RLE of another size", rle([600, 600], (30, 41))),
    "swapped size": ("RLE of another size", rle([600, 600], (40, 30))),
    "short RLE": ("bad RLE", rle([600, 5])),
    "negative RLE": ("bad RLE", rle([600, -5, 605])),
    "nested RLE": ("bad RLE", rle([[600], [600]])),
    "garbage RLE": ("bad RLE", rle("\u00e4\u00f6")),
    "cut RLE": ("bad RLE", rle("oo")),
    "no counts": ("bad RLE", rle(None)),
    "nothing in the mask": ("empty mask", rle([1200])),
}
IGNORED = {
    "NaN box": ("NaN or infinite coordinates", annotation(bbox=[2, NAN, 5, 5], segmentation=[])),
    "short box": ("bad box", annotation(bbox=[2, 2, 5], segmentation=[])),
    "unknown category": ("unknown category", annotation(category_id=77)),
    "category as list": ("unknown category", annotation(category_id=[3])),
}


@pytest.mark.parametrize("case", LEFT_OUT)
def test_what_cannot_be_used_is_left_out_and_listed(scene: Scene, case: str) -> None:
    kind, change = LEFT_OUT[case]
    (scene.folder / "sub").mkdir()
    (scene.folder / "empty.png").touch()
    change(scene)
    dataset = read_coco(scene.write())
    faults = [fault for fault in dataset.faults if fault.action == "left out"]
    assert kind in [fault.kind for fault in faults]
    assert all(fault.file and fault.message for fault in faults)
    kept = sum(len(dataset[i].labels) for i in range(len(dataset)))
    before = len(scene.content["annotations"])
    assert kept < before or len(dataset) < len(scene.content["images"])


@pytest.mark.parametrize("case", MASKS)
def test_the_box_serves_where_its_mask_is_broken(scene: Scene, case: str) -> None:
    kind, change = MASKS[case]
    change(scene)
    dataset = read_coco(scene.write())
    assert [(f.kind, f.action) for f in dataset.faults] == [(kind, "repaired")]
    assert "its box serves as its mask" in dataset.faults[0].message
    x, y, w, h = scene.first["bbox"]
    assert dataset[0].boxes[0].tolist() == [x, y, x + w, y + h]
    assert not dataset[0].crowd.any()
    assert dataset.mask(0, 0)[0].sum() == w * h  # filled
    # Without a box nobody knows where the object is, unless its mask is certainly not in the image.
    scene.first["bbox"] = None
    dataset = read_coco(scene.write())
    nothing = ("empty mask", "polygon without area", "polygon outside the image")
    if kind in nothing and case != "endless polygon":
        assert [(f.kind, f.action) for f in dataset.faults] == [(kind, "left out")]
    else:
        assert [(f.kind, f.action) for f in dataset.faults] == [(kind, "ignored")]
        assert dataset[0].crowd.tolist()[:1] == [True]
        assert dataset[0].boxes[0].tolist() == [0, 0, *dataset[0].size[::-1]]


@pytest.mark.parametrize("case", IGNORED)
def test_what_has_a_place_or_a_class_alone_becomes_an_ignored_region(
    scene: Scene, case: str
) -> None:
    kind, change = IGNORED[case]
    before = read_coco(scene.write())
    change(scene)
    dataset = read_coco(scene.write())
    assert [(f.kind, f.action) for f in dataset.faults] == [(kind, "ignored")]
    assert dataset[0].crowd.tolist()[:1] == [True]
    truth = [a for a in dataset.to_coco()["annotations"] if a["iscrowd"]]
    if kind == "unknown category":
        assert dataset[0].labels[0] == ANY_CLASS
        assert dataset[0].boxes[0].tolist() == before[0].boxes[0].tolist()
        assert [a["category_id"] for a in truth] == [3, 7]
    else:
        assert dataset[0].boxes[0].tolist() == [0, 0, *dataset[0].size[::-1]]
        assert [a["category_id"] for a in truth] == [scene.first["category_id"]]


REPAIRED = {
    "box of the mask": ("empty box", annotation(bbox=[2, 2, 0, 5])),
    "NaN box": ("NaN or infinite coordinates", annotation(bbox=[NAN, 2, 1, 5])),
    "null box": ("bad box", annotation(bbox=[None, 2, 1, 5])),
    "corners": ("box and mask disagree", annotation(bbox=[30, 20, 12, 12])),
    "part with two points": (
        "polygon with too few points",
        annotation(segmentation=[[2, 2, 12, 2, 12, 12, 2, 12], [5, 5, 6, 6]]),
    ),
    "flat polygon": ("flat polygon", annotation(segmentation=[2, 2, 12, 2, 12, 12, 2, 12])),
    "no mask among masks": ("no mask", annotation(segmentation=[])),
    "id of text": ("bad annotation id", annotation(id="first")),
    "one id twice": ("duplicate annotation id", annotation(id=2)),
    "no size": ("missing image size", image(height=None, width=None)),
    "one class twice": (
        "duplicate category name",
        lambda scene: scene.content["categories"].append({"id": 8, "name": "cat"}),
    ),
}


@pytest.mark.parametrize("case", REPAIRED)
def test_what_can_be_repaired_is_kept_and_listed(scene: Scene, case: str) -> None:
    kind, change = REPAIRED[case]
    change(scene)
    dataset = read_coco(scene.write())
    assert [(fault.kind, fault.action) for fault in dataset.faults] == [(kind, "repaired")]
    np.testing.assert_allclose(dataset[0].boxes, [[2, 2, 12, 12]])
    expected = np.zeros((30, 40), bool)
    expected[2:12, 2:12] = True
    np.testing.assert_array_equal(full_mask(dataset, 0, 0), expected)


def test_box_beyond_the_image_is_clipped(scene: Scene) -> None:
    annotation(bbox=[-5, 2, 20, 10], segmentation=[])(scene)
    scene.content["annotations"].pop()
    dataset = read_coco(scene.write())
    assert [fault.kind for fault in dataset.faults] == ["box beyond the image"]
    assert dataset[0].boxes.tolist() == [[0, 2, 15, 12]]
    assert not dataset.has_masks
    assert dataset.mask(0, 0)[1] == (0, 0, 0, 0)


def test_swapped_corners_are_recognised(scene: Scene) -> None:
    scene.first["segmentation"] = [[20, 15, 26, 15, 26, 20, 20, 20]]
    scene.first["bbox"] = [20, 15, 26, 20]
    dataset = read_coco(scene.write())
    assert "x1, y1, x2, y2" in dataset.faults[0].message
    assert dataset[0].boxes.tolist() == [[20, 15, 26, 20]]


@pytest.mark.parametrize("key", ["id", "area", "iscrowd", "bbox"])
def test_entries_that_may_be_missing(scene: Scene, key: str) -> None:
    without(key)(scene)
    dataset = read_coco(scene.write())
    assert dataset.faults == []
    assert dataset.to_coco()["annotations"][0]["area"] == 100
    np.testing.assert_allclose(dataset[0].boxes, [[2, 2, 12, 12]])


def test_images_without_objects_are_kept(scene: Scene) -> None:
    scene.content["annotations"] = []
    dataset = read_coco(scene.write())
    assert len(dataset) == 2
    assert dataset[0].boxes.shape == (0, 4)
    assert dataset.faults == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"images": [', "no valid JSON"),
        ("", "no valid JSON"),
        ("\xff\xfe\xfa", "no valid JSON"),
        ("[" * 200_000, "nested too deeply"),
        ("[1, 2]", "no COCO JSON"),
        ('{"images": [], "annotations": []}', "no COCO JSON.*annotations"),
        ('{"images": [], "annotations": [], "categories": {}}', "no COCO JSON"),
        ('{"images": [], "annotations": [], "categories": []}', "no category"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', "'name'"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "x"}]}', "no usable"),
    ],
)
def test_files_that_are_no_coco_json(scene: Scene, text: str, problem: str) -> None:
    scene.file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=rf"(?s)train\.json.*{problem}"):
        read_coco(scene.file)


def test_one_id_for_two_categories(scene: Scene) -> None:
    scene.content["categories"].append({"id": 3, "name": "fox"})
    with pytest.raises(ValueError, match="category id 3"):
        read_coco(scene.write())


def test_wrong_image_size_names_the_file(scene: Scene) -> None:
    image(height=31)(scene)
    dataset = read_coco(scene.write())
    with pytest.raises(ValueError, match=r"a\.png is 40x30.*40x31.*data check"):
        dataset.image(0)


def test_compressed_rle_equals_pycocotools(scene: Scene) -> None:
    full = np.random.default_rng(1).random((30, 40)) < 0.3
    code = coco_mask.encode(np.asfortranarray(full.astype(np.uint8)))
    rle(code["counts"].decode())(scene)
    annotation(bbox=[0, 0, 40, 30])(scene)
    dataset = read_coco(scene.write())
    np.testing.assert_array_equal(full_mask(dataset, 0, 0), full)
    assert dataset.to_coco()["annotations"][0]["segmentation"]["counts"] == code["counts"].decode()


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 50),
    st.sampled_from([10**18, 10**30, -1, 2**63]),
    st.floats(),
    st.text(max_size=3),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["size", "counts"]), inner)
    ),
    max_leaves=6,
)


@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_change_is_read_or_refused_in_words(scene: Scene, data: st.DataObject) -> None:
    content = copy.deepcopy(scene.content)
    for _ in range(data.draw(st.integers(1, 3))):
        place: Any = content
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and data.draw(st.integers(0, 5)):
                place = place[key]
                continue
            place[key] = data.draw(VALUES)
            break
    scene.file.write_text(json.dumps(content), encoding="utf-8")
    try:
        dataset = read_coco(scene.file)
    except ValueError as error:
        assert str(scene.file) in str(error)
        return
    # Nothing is lost without a fault, but for the objects of images that were left out.
    lost = [fault for fault in dataset.faults if fault.action == "left out"]
    no_image = ("bad annotation", "unused category")
    of_images = [f for f in lost if f.annotation_id is None and f.kind not in no_image]
    twice = sum(fault.kind == "duplicate image entry" for fault in dataset.faults)
    assert len(dataset) + len(of_images) + twice == len(content["images"])
    gone = {fault.image_id for fault in of_images}
    with_them = sum(
        isinstance(entry, dict) and whole_number(entry.get("image_id")) in gone
        for entry in content["annotations"]
    )
    of_objects = [f for f in lost if f.annotation_id is not None or f.kind == "bad annotation"]
    kept = sum(len(dataset[i].labels) for i in range(len(dataset)))
    assert kept + len(of_objects) + with_them >= len(content["annotations"])
    truth = dataset.to_coco()
    assert len({entry["id"] for entry in truth["annotations"]}) == len(truth["annotations"])
    for index in range(len(dataset)):
        record = dataset[index]
        assert np.isfinite(record.boxes).all()
        assert (record.boxes[:, 2:] > record.boxes[:, :2]).all()
        known = (record.labels >= 0) & (record.labels < len(dataset.names))
        assert (known | (record.crowd & (record.labels == ANY_CLASS))).all()
        for k in range(len(record.labels)):
            crop, (x1, y1, x2, y2) = dataset.mask(index, k)
            assert crop.shape == (y2 - y1, x2 - x1)
