"""Result: what people get, checked against rectangles whose pixels are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from maskwright.structures import Detections
from maskwright.tasks.detection.result import Result

SIZE = (40, 60)
BOXES = [[10.0, 5.0, 30.0, 25.0], [40.0, 0.0, 60.0, 40.0], [2.0, 30.0, 8.0, 36.0]]


def make(count: int = 3, *, masks: bool = True, keypoints: bool = False) -> Result:
    """Objects whose masks fill their boxes, so that every pixel is known."""
    found = Detections(
        SIZE,
        torch.tensor(BOXES[:count]).reshape(-1, 4),
        torch.tensor([0.9, 0.8, 0.3][:count]),
        torch.tensor([1, 0, 1][:count], dtype=torch.int64),
        torch.ones(count, 14, 14) if masks else None,
        torch.full((count, 17, 3), 7.0) if keypoints else None,
    )
    return Result(
        found,
        np.full((*SIZE, 3), 200, np.uint8),
        ["cell", "nucleus"],
        path="photos/slide 1.png",
        speed={"load": 1.0, "inference": 40.0},
        category_ids=[7, 3],
    )


def rectangle(box: list[float]) -> np.ndarray:
    full = np.zeros(SIZE, bool)
    x1, y1, x2, y2 = (int(v) for v in box)
    full[y1:y2, x1:x2] = True
    return full


def test_masks_and_codes_are_the_known_rectangles() -> None:
    result = make()
    assert result.masks is not None and result.rle is not None
    assert result.masks.shape == (3, *SIZE) and result.masks.dtype == torch.bool
    for i, box in enumerate(BOXES):
        assert np.array_equal(result.masks[i].numpy(), rectangle(box))
        assert isinstance(result.rle[i]["counts"], str)
        assert np.array_equal(coco_mask.decode(result.rle[i]).astype(bool), rectangle(box))


def test_masks_follow_the_paste_mode_of_the_model() -> None:
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    probs = torch.linspace(0, 1, 28 * 28).reshape(1, 28, 28)
    box = torch.tensor([[10.3, 5.6, 31.2, 27.9]])
    found = Detections(SIZE, box, torch.ones(1), torch.zeros(1, dtype=torch.int64), probs)
    image = np.zeros((*SIZE, 3), np.uint8)
    theirs = paste_masks_in_image(probs[:, None], box, SIZE)[:, 0] > 0.5
    masks = Result(found, image, ["a"], paste_mode="torchvision").masks
    assert masks is not None and torch.equal(masks, theirs)
    grid = Result(found, image, ["a"]).masks
    assert grid is not None and not torch.equal(grid, theirs)


def test_coco_rows_have_the_ids_of_the_data_set() -> None:
    rows = make(keypoints=True).to_coco(12)
    assert [row["category_id"] for row in rows] == [3, 7, 3]
    assert {row["image_id"] for row in rows} == {12}
    assert rows[0]["bbox"] == [10.0, 5.0, 20.0, 20.0]
    assert rows[0]["score"] == pytest.approx(0.9)
    assert rows[0]["keypoints"] == [7.0] * 51
    assert coco_mask.area(rows[0]["segmentation"]) == 400
    json.dumps(rows)
    assert "segmentation" not in make(masks=False).to_coco(1)[0]


def test_category_ids_count_from_one_when_there_are_none() -> None:
    result = make()
    bare = Result(result.detections, result.image, result.names)
    assert [row["category_id"] for row in bare.to_coco(0)] == [2, 1, 2]


def test_json_holds_everything_but_the_pixels() -> None:
    document = json.loads(make(keypoints=True).to_json())
    assert (document["height"], document["width"]) == SIZE
    assert document["path"] == "photos/slide 1.png"
    assert document["speed"] == {"load": 1.0, "inference": 40.0}
    first = document["objects"][0]
    assert first["name"] == "nucleus" and first["category_id"] == 3 and first["label"] == 1
    assert first["box"] == BOXES[0] and first["score"] == 0.9
    assert len(first["keypoints"]) == 17
    assert np.array_equal(coco_mask.decode(first["segmentation"]), rectangle(BOXES[0]))


def test_repr_is_a_line_for_people() -> None:
    assert repr(make()) == "slide 1.png: 2 nucleus, 1 cell, 41 ms"
    assert repr(make(0)) == "slide 1.png: no objects, 41 ms"
    result = make()
    assert repr(Result(result.detections, result.image, result.names)).startswith("image: 2 nuc")
    url = Result(result.detections, result.image, result.names, "https://a.org/b%20c.jpg?size=2")
    assert url.file_name == "b c.jpg"


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (0, [0]),
        (-1, [2]),
        (np.int64(1), [1]),
        (slice(1, None), [1, 2]),
        ([2, 0], [2, 0]),
        ([True, False, True], [0, 2]),
        (np.array([False, True, False]), [1]),
        (torch.tensor([False, False, False]), []),
        ([], []),
    ],
)
def test_indexing(index: object, expected: list[int]) -> None:
    result = make(keypoints=True)
    part = result[index]  # type: ignore[index]
    assert part.boxes.tolist() == [BOXES[i] for i in expected]
    assert part.masks is not None and part.masks.shape == (len(expected), *SIZE)
    assert part.rle == [make().rle[i] for i in expected]  # type: ignore[index]
    assert part.names == result.names and part.path == result.path


def test_filter_by_score_and_iterate() -> None:
    result = make()
    assert len(result[result.scores > 0.5]) == 2
    assert [len(one) for one in result] == [1, 1, 1]
    assert [one.labels.item() for one in result] == [1, 0, 1]


@pytest.mark.parametrize("index", [3, -4, [7], [True, False]])
def test_wrong_index(index: object) -> None:
    with pytest.raises(IndexError):
        make()[index]  # type: ignore[index]


@pytest.mark.filterwarnings("ignore:OpenCV")
@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("keypoints", [True, False])
def test_results_without_objects_work_everywhere(
    tmp_path: Path, masks: bool, keypoints: bool
) -> None:
    result = make(0, masks=masks, keypoints=keypoints)
    assert len(result) == 0 and list(result) == [] and bool(result)
    assert result.to_coco(1) == [] and json.loads(result.to_json())["objects"] == []
    assert result.rle == ([] if masks else None)
    assert masks == (result.masks is not None)
    if result.masks is not None:
        assert result.masks.shape == (0, *SIZE)
    assert result.plot().size == (60, 40)
    assert np.array_equal(np.asarray(result.plot()), result.image)
    assert result.save(tmp_path / "a.png").is_file()
    assert len(result.to_supervision()) == 0
    assert len(result[:2]) == 0 and len(result[result.scores > 0.5]) == 0


@pytest.mark.filterwarnings("ignore:OpenCV")
def test_supervision_gets_the_same_objects() -> None:
    result = make()
    theirs = result.to_supervision()
    assert theirs.xyxy.tolist() == BOXES
    assert theirs.class_id.tolist() == [1, 0, 1]
    assert theirs.data["class_name"].tolist() == ["nucleus", "cell", "nucleus"]
    assert np.array_equal(theirs.mask[1], rectangle(BOXES[1]))
    assert make(masks=False).to_supervision().mask is None
    assert "keypoints" not in theirs.data
    with_points = make(keypoints=True).to_supervision()
    assert with_points.data["keypoints"].shape == (3, 17, 2)
    assert with_points.data["keypoint_scores"].tolist() == [[7.0] * 17] * 3
    assert with_points[with_points.confidence > 0.75].data["keypoints"].shape == (2, 17, 2)


def test_save_writes_pictures_and_data(tmp_path: Path) -> None:
    result = make()
    path = result.save(tmp_path / "new" / "folder" / "a.jpg")
    with Image.open(path) as picture:
        assert picture.size == (60, 40) and picture.format == "JPEG"
    drawn = np.asarray(result.plot())
    assert not np.array_equal(drawn, result.image)
    data = result.save(str(tmp_path / "a.json"))
    assert json.loads(data.read_text(encoding="utf-8"))["objects"][0]["name"] == "nucleus"
    for name in ("a.xyz", "a", "a.pdf.exe"):
        with pytest.raises(ValueError, match=r"must end in \.png"):
            result.save(tmp_path / name)


def test_polygons_give_back_the_masks() -> None:
    from scipy import ndimage

    noise = torch.from_numpy(
        ndimage.gaussian_filter(np.random.default_rng(0).random((3, 28, 28)), 2)
    )
    probs = (noise > noise.flatten(1).median(1).values[:, None, None]).float()
    result = make()
    result = replace(result, detections=replace(result.detections, mask_probs=probs))
    shapes = result.polygons()
    assert shapes is not None and result.masks is not None
    assert sum(len(parts) for parts in shapes) > 3
    for parts, mask in zip(shapes, result.masks.numpy(), strict=True):
        full = np.zeros(SIZE, int)
        for part in parts:
            for sign, ring in [(1, part.outline), *((-1, hole) for hole in part.holes)]:
                code = coco_mask.frPyObjects([ring.ravel().tolist()], *SIZE)[0]
                full += sign * coco_mask.decode(code).astype(int)
        assert np.array_equal(full, mask)
    assert make(masks=False).polygons() is None


def test_geojson_has_a_feature_for_every_object(tmp_path: Path) -> None:
    result = make()
    assert result.detections.mask_probs is not None
    probs = result.detections.mask_probs.clone()
    probs[1, :, 5:9] = 0  # two parts
    probs[2] = 0  # no pixel at all
    result = replace(result, detections=replace(result.detections, mask_probs=probs))
    text = result.save(tmp_path / "a.geojson").read_text(encoding="utf-8")
    first, second, third = json.loads(text)["features"]
    ring = [[10, 5], [30, 5], [30, 25], [10, 25], [10, 5]]
    assert first["geometry"] == {"type": "Polygon", "coordinates": [ring]}
    assert first["properties"]["classification"] == {"name": "nucleus"}
    assert first["properties"]["score"] == pytest.approx(0.9)
    assert second["geometry"]["type"] == "MultiPolygon"
    assert len(second["geometry"]["coordinates"]) == 2
    assert third["geometry"] is None and third["properties"]["box"] == BOXES[2]
    boxes = json.loads(make(masks=False).to_geojson())["features"]
    assert boxes[0]["geometry"]["coordinates"] == [ring]
    assert json.loads(make(0).to_geojson())["features"] == []


def test_label_images_keep_16_bits_and_the_better_object_above(tmp_path: Path) -> None:
    result = make()
    crowd = result[torch.arange(3).repeat(100)]  # numbers beyond 8 bits; copies lie below
    path = crowd.save_labels(tmp_path / "new" / "a.png")
    with Image.open(path) as picture:
        read = np.asarray(picture)
    expected = np.zeros(SIZE, int)
    for number, box in enumerate(BOXES, 1):
        expected[rectangle(box)] = number
    assert np.array_equal(read, expected)
    many = Detections(SIZE, torch.zeros(300, 4), torch.ones(300), torch.zeros(300).long())
    spread = torch.stack([torch.arange(300) % 60, torch.arange(300) // 60], 1).float()
    many = replace(many, boxes=torch.cat([spread, spread + 1], 1), mask_probs=torch.ones(300, 1, 1))
    labels = replace(result, detections=many).save_labels(tmp_path / "many.png")
    with Image.open(labels) as picture:
        assert np.asarray(picture)[:5].ravel().tolist() == list(range(1, 301))
    with pytest.raises(ValueError, match=r"must end in \.png"):
        result.save_labels(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="boxes alone"):
        make(masks=False).label_image()


def test_show_without_a_display_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(OSError, match=r"result\.save"):
        make().show()
