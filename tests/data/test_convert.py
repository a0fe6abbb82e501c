"""From every format to every other, through the command as well."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from drawn_objects import CLASSES, WRITTEN, Drawn, DrawnImage, full_mask, lay, painted
from PIL import Image
from tool_cases import lay_tool

from maskwright.cli import main
from maskwright.data import convert_data, open_dataset, write_dataset
from maskwright.data.formats.lost import WORDS
from maskwright.errors import OptionError, WriteError

KEEPS = {row.format: row.keeps for row in WRITTEN}
FORMATS = list(KEEPS)
RING = np.zeros((24, 30), bool)
RING[2:12, 3:14] = True
RING[5:8, 6:9] = False
OBJECTS = [
    Drawn(0, "mask", mask=RING),
    Drawn(1, "polygons", polygons=(np.array([[16.0, 2], [25, 2], [25, 11], [16, 11]]),)),
]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same two images in every format, two splits each."""
    root = tmp_path_factory.mktemp("formats")
    images = [DrawnImage((24, 30), OBJECTS), DrawnImage((24, 30), OBJECTS[1:])]
    names = CLASSES[:2]
    data = open_dataset(lay(root / "drawn", images, names))
    for format in FORMATS:
        write_dataset(data, root / format, format)
        write_dataset(data.select([0], "val"), root / format, format)
    return root


# Each format out of COCO JSON, into it, and into the next; the other pairs are in the long target.
NEXT = dict(zip(FORMATS, [*FORMATS[1:], FORMATS[0]], strict=True))
PAIRS = [
    pytest.param(one, to, marks=() if "coco" in (one, to) or to == NEXT[one] else pytest.mark.slow)
    for one in FORMATS
    for to in FORMATS
]


@pytest.mark.parametrize(("format", "to"), PAIRS)
def test_every_pair(format: str, to: str, drawn: Path, tmp_path: Path) -> None:
    report = convert_data(drawn / format, to, tmp_path / "out")
    assert report.images == {"train": 2, "val": 1} and report.objects == {"train": 3, "val": 2}
    masks = "masks" in KEEPS[format]
    lost = "masks" if masks else "boxes"
    assert report.lost["train"] == ({} if lost in KEEPS[to] else {WORDS[lost]: 3})
    assert not report.faults["train"]
    data = open_dataset(tmp_path / "out")
    assert data.format == to and data.names == list(CLASSES[:2]) and not data.faults
    if not masks and "boxes" not in KEEPS[to]:
        return
    first = [data[i].path.stem for i in range(2)].index("1")
    assert data[first].labels.tolist() == [0, 1]
    np.testing.assert_allclose(data[first].boxes, [[3, 2, 14, 12], [16, 2, 25, 11]], atol=1e-4)
    if not masks or "masks" not in KEEPS[to]:
        assert not data.has_masks
        return
    for k, one in enumerate(OBJECTS):
        np.testing.assert_array_equal(full_mask(data, first, k), painted(one, (24, 30)))


def test_classes_that_only_one_split_has(tmp_path: Path) -> None:
    """They are joined: the classes of the training split first."""
    root = lay_tool(tmp_path / "in", "labelme")
    text = (root / "val/v.json").read_text().replace('"cat"', '"bird"')
    (root / "val/v.json").write_text(text)
    convert_data(root, "yolo", tmp_path / "out")
    for split in ("train", "val"):
        assert open_dataset(tmp_path / "out", split).names == ["cat", "dog", "bird"]
    assert open_dataset(tmp_path / "out", "val")[0].labels.tolist() == [2]


@pytest.mark.parametrize("format", FORMATS)
def test_objects_become_label_maps_and_labels(format: str, drawn: Path, tmp_path: Path) -> None:
    """Of every format, whatever else its folders look like."""
    report = convert_data(drawn / format, "csv", tmp_path / "csv")
    data = open_dataset(tmp_path / "csv", records="labels")
    stems = [data[i].path.stem for i in range(2)]
    labels = dict(zip(stems, (data[i].image_labels.tolist() for i in range(2)), strict=True))
    assert data.names == list(CLASSES[:2]) and labels == {"1": [0, 1], "2": [1]}
    assert 3 in report.lost["train"].values()
    if "masks" in KEEPS[format]:
        convert_data(drawn / format, "maps", tmp_path / "maps")
        data = open_dataset(tmp_path / "maps", records="maps")
        assert data.names == ["background", *CLASSES[:2]]
        first = [data[i].path.stem for i in range(2)].index("1")
        expected = np.where(RING, 1, 0) + 2 * painted(OBJECTS[1], RING.shape)
        np.testing.assert_array_equal(data.label_map(first), expected)


def test_the_command_tells_what_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    crowd = Drawn(0, "mask", mask=RING, region="crowd")
    lay(tmp_path / "in", [DrawnImage((24, 30), [*OBJECTS, crowd])])
    assert main(["data", "convert", "data=in", "to=yolo", "out=out"]) == 0
    out = capsys.readouterr().out
    assert "regions of many objects: left out" in out and "out/data.yaml" in out
    assert main(["data", "convert", "data=out", "to=labelme", "out=back"]) == 0
    assert "Lost: nothing" in capsys.readouterr().out
    assert main(["data", "convert", "data=in", "to=yolo", "out=out"]) == 2
    assert "choose a new or empty folder" in capsys.readouterr().err
    assert main(["data", "convert", "data=in", "to=yollo", "out=x"]) == 2
    assert "did you mean 'yolo'?" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("to", ["labelme", "cvat", "labelstudio", "supervisely", "coco"])
def test_masks_become_polygons_to_the_pixel(to: str, tmp_path: Path) -> None:
    """A ring with a hole, and two parts that touch at a corner."""
    parts = np.zeros((24, 30), bool)
    parts[14:18, 2:8] = parts[18:22, 8:12] = True
    objects = [*OBJECTS, Drawn(1, "mask", mask=parts)]
    root = lay(tmp_path / "in", [DrawnImage((24, 30), objects)], CLASSES[:2])
    report = convert_data(root, to, tmp_path / "out", polygons=0)
    assert report.lost == {"train": {}}
    assert report.notes == ["train: 2 masks are polygons now (polygons=0), all of them exactly"]
    data = open_dataset(tmp_path / "out")
    assert [len(data.polygons(0, k) or ()) for k in range(3)] == [1, 1, 2]
    for k, one in enumerate(objects):
        np.testing.assert_array_equal(full_mask(data, 0, k), painted(one, (24, 30)))


def test_what_polygons_with_few_corners_lose_is_told(tmp_path: Path) -> None:
    disk = np.hypot(*np.mgrid[-12:12, -15:15]) < 10
    root = lay(tmp_path / "in", [DrawnImage((24, 30), [Drawn(0, "mask", mask=disk)])])
    report = convert_data(root, "labelme", tmp_path / "out", polygons=1)
    ((what, count),) = report.lost["train"].items()
    data = open_dataset(tmp_path / "out")
    found, exact = full_mask(data, 0, 0), disk
    iou = (found & exact).sum() / (found | exact).sum()
    assert count == 1 and f"{iou:.2f} at worst" in what
    assert len((data.polygons(0, 0) or [[]])[0]) < 20
    for wrong, message in ((-1, "from 0"), ("x", "from 0"), (True, "from 0")):
        with pytest.raises(OptionError, match=message):
            convert_data(root, "labelme", tmp_path / "b", polygons=wrong)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"is for coco, yolo, .*not for to=kitti"):
        convert_data(root, "kitti", tmp_path / "b", polygons=1)


def test_an_ignored_region_of_no_class_goes_to_pascal_voc(tmp_path: Path) -> None:
    root = lay_tool(tmp_path / "in", "labelme")
    text = (root / "train/a.json").read_text().replace('"rectangle"', '"polygon"')
    text = text.replace("[[2, 3], [12, 8]]", "[[2, 3], [12, 3], [12, 8]]")
    (root / "train/a.json").write_text(text.replace('"cat"', '"__ignore__"'))
    report = convert_data(root, "voc", tmp_path / "out")
    assert WORDS["nameless"] in report.lost["train"]
    data = open_dataset(tmp_path / "out")
    first = [data[i].path.stem for i in range(3)].index("a")
    assert data[first].crowd.all() and sorted(data[first].labels.tolist()) == [0, 1]
    np.testing.assert_allclose(data[first].boxes, [[2, 3, 12, 8]] * 2)


def test_a_wrong_guess_is_corrected(tmp_path: Path) -> None:
    root = lay_tool(tmp_path / "in", "yolo")
    lay_tool(root, "labelme")
    convert_data(root, "coco", tmp_path / "a", format="labelme")
    data = open_dataset(tmp_path / "a")
    assert len(data) == 3 and not data.faults
    with pytest.raises(OptionError, match=r"format='labelmee'.*labelme"):
        convert_data(root, "coco", tmp_path / "b", format="labelmee")


def lay_square(root: Path, stated: tuple[int, int], orientation: int) -> Path:
    """A white square in a black JPEG of 100 x 80 stored pixels, annotated as it is stored."""
    photo = Image.new("RGB", (100, 80))
    photo.paste((255, 255, 255), (10, 20, 40, 50))
    exif = Image.Exif()
    exif[0x0112] = orientation
    (root / "images").mkdir(parents=True)
    photo.save(root / "images" / "a.jpg", exif=exif, quality=95)
    ring = [10, 20, 40, 20, 40, 50, 10, 50]
    row = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 30], "iscrowd": 0}
    image = {"id": 1, "file_name": "a.jpg", "width": stated[0], "height": stated[1]}
    content = {"images": [image], "categories": [{"id": 1, "name": "square"}]}
    content["annotations"] = [row | {"area": 900, "segmentation": [ring]}]
    (root / "annotations").mkdir()
    (root / "annotations" / "train.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize("to", FORMATS)
def test_what_was_annotated_unturned_lies_where_it_was(to: str, tmp_path: Path) -> None:
    data = lay_square(tmp_path / "data", (100, 80), 6)
    convert_data(data, to, tmp_path / "out")
    made = open_dataset(tmp_path / "out")
    pixels = made.image(0)
    assert pixels.shape == (80, 100, 3)
    (box,) = made[0].boxes.round().astype(int)
    assert box.tolist() == [10, 20, 40, 50]
    assert pixels[20:50, 10:40].min() > 200 and pixels[:18].max() < 50 and pixels[52:].max() < 50


@pytest.mark.parametrize("to", ["yolo", "labelstudio", "voc", "openimages"])
def test_another_size_than_annotated_is_refused(to: str, tmp_path: Path) -> None:
    data = lay_square(tmp_path / "data", (200, 160), 1)
    with pytest.raises(ValueError, match=r"a\.jpg has 100 x 80 pixels, .* with 200 x 160"):
        convert_data(data, to, tmp_path / "out")


@pytest.mark.parametrize("to", ["yolo", "coco", "labelme"])
def test_what_cannot_be_written_whole_leaves_nothing(to: str, tmp_path: Path) -> None:
    """A file that may not grow so large, in the middle; then the same folder serves."""
    resource = pytest.importorskip("resource")
    square = Drawn(1, "polygons", polygons=(np.array([[2.0, 2], [9, 2], [9, 9]]),))
    root = lay(tmp_path / "in", [DrawnImage((20, 30), [square]) for _ in range(3)])
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    content = json.loads((root / "train.json").read_text())
    Image.fromarray(noise).save(root / "2.png")  # more than the limit
    content["images"][1] |= {"height": 200, "width": 200}
    (root / "train.json").write_text(json.dumps(content))
    (tmp_path / "there").mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for out in (tmp_path / "new", tmp_path / "there"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
        try:
            with pytest.raises(WriteError, match="files may not grow that large"):
                convert_data(root, to, out)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert not (out.exists() and list(out.iterdir()))
    assert not (tmp_path / "new").exists()
    (tmp_path / "there/.unfinished").mkdir()  # of a process that was killed
    report = convert_data(root, to, tmp_path / "there")
    assert report.written["train"].exists() and len(open_dataset(tmp_path / "there")) == 3
