"""What the values in label maps stand for: files of classes, none at all, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from map_files import kinds, numbers, pair, photo, read, save, stripes
from PIL import Image

from maskwright.data import Dataset
from maskwright.data.formats.maps.classes import read_table
from maskwright.errors import OptionError

COLORS = np.array([(64, 128, 64), (0, 0, 0), (0, 128, 192)], np.uint8)


def one(root: Path, labels: np.ndarray, classes: str = "", name: str = "classes.txt") -> Dataset:
    """A data set of one image, opened."""
    lay(root, labels, classes, name)
    return read(root)


def lay(root: Path, labels: np.ndarray, classes: str = "", name: str = "classes.txt") -> Path:
    photo(root / "images/a.jpg", (labels.shape[0], labels.shape[1]))
    if classes:
        (root / name).write_text(classes)
    return save(root / "masks/a.png", labels)


# File, its text; names of the classes, and the labels of the numbers 0, 1, 2.
TABLES = {
    "a name a line": ("classes.txt", "a\nb\n\nc\n", ["a", "b", "c"], [0, 1, 2]),
    "numbers and names": ("labels.txt", "2: a\n0: b\n1: c d\n", ["a", "b", "c d"], [1, 2, 0]),
    "labelme": ("class_names.txt", "__ignore__\n_bg_\na\nb\n", ["_bg_", "a", "b"], [0, 1, 2]),
    "void among them": ("names.txt", "a\nVoid\nb\n", ["a", "b"], [0, 255, 1]),
    "a table with numbers": ("classes.csv", "id,name\n1,a\n0,b\n2,c\n", ["a", "b", "c"], [1, 0, 2]),
    "Roboflow": ("_classes.csv", "Pixel Value, Class\n1, a\n0, b", ["a", "b"], [1, 0]),
    "a list in YAML": ("data.yaml", "names: [a, b, c]\ntrain: x\n", ["a", "b", "c"], [0, 1, 2]),
    "numbers in YAML": ("data.yaml", "names: {2: a, 1: b, 0: c}\n", ["a", "b", "c"], [2, 1, 0]),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLES)
def test_files_of_classes(case: str, tmp_path: Path) -> None:
    file, text, names, labels = TABLES[case]
    data = one(tmp_path, numbers(*range(len(labels)), 255), text, file)
    assert data.names == names and stripes(data) == [*labels, 255]


COLOR_TABLES = {
    "class_dict.csv": "name,r,g,b\nAnimal,64,128,64\nVoid,0,0,0\nBicyclist,0,128,192\n",
    "label_colors.txt": "64 128 64\tAnimal\n0 0 0\t\tVoid\n0 128 192\t\tBicyclist\n",
    "label_colors.csv": "Red,Green,Blue,Class\n64,128,64,Animal\n0,0,0,Void\n0,128,192,Bicyclist\n",
    "labelmap.txt": "# label:color\nAnimal:64,128,64::\nVoid:0,0,0::\nBicyclist:0,128,192::\n",
    "label_map.txt": "Animal 64 128 64\nVoid 0 0 0\nBicyclist 0 128 192\n",
}  # fmt: skip


@pytest.mark.parametrize("name", COLOR_TABLES)
@pytest.mark.parametrize("form", ["RGB", "RGBA", "P", "numbers", "P with another palette"])
def test_colours(name: str, form: str, tmp_path: Path) -> None:
    labels = numbers(0, 1, 2)
    file = lay(tmp_path, labels, COLOR_TABLES[name], name)
    if form.startswith("RGB"):
        Image.fromarray(COLORS[labels]).convert(form).save(file)
    elif form == "P":  # indices in another order than the rows: the colours count
        save(file, np.array([2, 0, 1], np.uint8)[labels], COLORS[[1, 2, 0]])
    elif form == "P with another palette":
        save(file, labels, [(9, 9, 9), (8, 8, 8), (7, 7, 7)])
    data = read(tmp_path)
    assert data.names == ["Animal", "Bicyclist"] and stripes(data) == [0, 255, 1]
    said = ("numbers in place of colours", "kept") in kinds(data)
    assert said == (form in ("numbers", "P with another palette"))


def test_unknown_colours_are_an_error_with_place_and_count(tmp_path: Path) -> None:
    picture = COLORS[numbers(0, 1, 2)]
    picture[3, 5] = (1, 2, 3)
    file = lay(tmp_path, numbers(0), COLOR_TABLES["class_dict.csv"], "class_dict.csv")
    Image.fromarray(picture).save(file)
    data = read(tmp_path)
    with pytest.raises(
        ValueError,
        match=r"a\.png: 1 pixel\(s\) have the colour 1,2,3, the first at x=5, y=3; "
        r".*class_dict\.csv has no such class: add",
    ):
        data.label_map(0)
    soft = Image.fromarray(picture).resize((48, 40), Image.Resampling.BILINEAR)
    soft.resize((12, 10), Image.Resampling.BILINEAR).save(file)
    with pytest.raises(ValueError, match=r"more have \d+ other.* interpolated or compressed"):
        data.label_map(0)


def test_grey_colours(tmp_path: Path) -> None:
    """0 and 255 as the colours black and white of a table."""
    table = "cell:255,255,255::\nbackground:0,0,0::\n"
    data = one(tmp_path, numbers(0, 255), table, "labelmap.txt")
    assert data.names == ["cell", "background"] and stripes(data) == [1, 0] and not data.faults


def test_two_files_of_classes(tmp_path: Path) -> None:
    colors = "name,r,g,b\nb,1,1,1\na,2,2,2\n"
    lay(tmp_path, numbers(0, 1), "a\nb\n")
    (tmp_path / "class_dict.csv").write_text(colors.replace("b,1,1,1\na", "a,1,1,1\nb"))
    assert read(tmp_path).names == ["a", "b"]
    (tmp_path / "class_dict.csv").write_text(colors)
    with pytest.raises(ValueError, match="both name the classes, but not alike: leave the one"):
        read(tmp_path)
    (tmp_path / "masks/classes.txt").write_text("x\ny\n")
    assert read(tmp_path).names == ["x", "y"]  # the nearest


def test_without_a_file_the_numbers_are_the_names(tmp_path: Path) -> None:
    data = one(tmp_path, numbers(0, 2, 7, 255))
    assert data.names == ["0", "2", "7"] and stripes(data) == [0, 1, 2, 255]
    assert kinds(data) == {("classes without names", "kept")}
    assert (
        "the numbers found are their names, 0, 2, 7; name the classes in" in data.faults[0].message
    )
    assert read(tmp_path, ignore=7).names == ["0", "2"]
    assert stripes(read(tmp_path, ignore=[7, 0])) == [255, 0, 255]
    again = read(tmp_path, names=["7", "2", "0", "3"])
    assert stripes(again) == [2, 1, 0, 255]
    save(tmp_path / "masks/a.png", numbers(0, 5))
    with pytest.raises(ValueError, match=r"pixel\(s\) have the value 5, .*masks has no such class"):
        read(tmp_path, names=["0", "2", "7"]).label_map(0)
    with pytest.raises(
        ValueError, match=r"nothing says which numbers in .* \['road'\]: put the cl"
    ):
        read(tmp_path, names=["road"])


@pytest.mark.parametrize("form", ["L", "1", "RGB", "P"])
def test_masks_of_0_and_255_are_two_classes(form: str, tmp_path: Path) -> None:
    file = lay(tmp_path, numbers(0, 255))
    Image.open(file).convert(form).save(file)
    if form == "P":
        save(file, numbers(0, 255), [(0, 0, 0)] * 256)
    data = read(tmp_path)
    assert data.names == ["background", "foreground"] and stripes(data) == [0, 1]
    assert kinds(data) == {("two values", "repaired")}
    save(file, numbers(0))  # a mask without the object, of another split
    assert stripes(read(tmp_path, names=["background", "foreground"])) == [0]
    save(file, numbers(0, 255))
    assert read(tmp_path, ignore=255).names == ["0"]
    (tmp_path / "classes.txt").write_text("other\ncell\n")
    data = read(tmp_path)
    assert data.names == ["other", "cell"] and stripes(data) == [0, 1]
    assert "hold 0 and 255, so 255 is 'cell'" in data.faults[0].message
    save(file, numbers(0, 1, 255))
    assert stripes(read(tmp_path)) == [0, 1, 255]


def test_interpolated_masks_are_refused(tmp_path: Path) -> None:
    size = (200, 240)
    y, x = np.mgrid[:400, :480]
    disc = np.uint8(255) * ((y - 200) ** 2 + (x - 200) ** 2 < 120**2)
    file = lay(tmp_path, numbers(0, size=size))
    Image.fromarray(disc).resize(size[::-1], Image.Resampling.BILINEAR).save(file)
    with pytest.raises(
        ValueError, match=r"values between, such as \d+ in .*a\.png: edges that were"
    ):
        read(tmp_path)
    save(file, numbers(0, 0, 0, 0, 1, 2, 3, 4, 255, size=size))  # classes and a border
    assert len(read(tmp_path).names) == 5


def test_names_that_are_known(tmp_path: Path) -> None:
    """Classes are matched by name; one that nobody knows is an error where it occurs."""
    lay(tmp_path, numbers(0, 1), "c\na\nb\n")
    data = read(tmp_path, names=["a", "c"])
    assert data.names == ["a", "c"] and stripes(data) == [1, 0]
    save(tmp_path / "masks/a.png", numbers(0, 1, 2))
    with pytest.raises(
        ValueError, match=r"the value 2, .*: the class 'b' of .*classes\.txt, which"
    ):
        read(tmp_path, names=["a", "c"]).label_map(0)


def test_ignore(tmp_path: Path) -> None:
    lay(tmp_path, numbers(0, 1, 2, 11), "a\nb\nc\n")
    with pytest.raises(ValueError, match=r"30 pixel\(s\) have the value 11, .* with ignore=11"):
        read(tmp_path).label_map(0)
    data = read(tmp_path, ignore=(11, "b"))
    assert data.names == ["a", "c"] and stripes(data) == [0, 255, 1, 255]
    assert stripes(read(tmp_path, ignore=(11, 1))) == [0, 255, 1, 255]
    with pytest.raises(
        OptionError, match=r"ignore='d': .*classes\.txt has no such class, only a, b"
    ):
        read(tmp_path, ignore="d")


BAD_TABLES = {
    "a\nb\na\n": r"has the class 'a' twice",
    "\n\n": r"is empty: it must name a class a line",
    "void\n": r"names no class",
    "a 1 2 3\nb 1 2 3\n": r"gives the colour 1 2 3 to 'a' and 'b'",
    "a 1 2 300\nb 1 2 3\n": r"has '300', expected a number from 0 to 255",
    "\n".join(f"c{i}" for i in range(256)): r"has 256 classes, but a label map tells at most 255",
}


@pytest.mark.parametrize("text", BAD_TABLES)
def test_bad_files_of_classes(text: str, tmp_path: Path) -> None:
    lay(tmp_path, numbers(0, 1), text)
    with pytest.raises(ValueError, match=rf"classes\.txt {BAD_TABLES[text]}"):
        read(tmp_path)


def test_bad_tables(tmp_path: Path) -> None:
    file = tmp_path / "classes.csv"
    for text, message in (
        ("path,label\na.png,x\n", "has the columns path,label: expected name,r,g,b or name,id"),
        ("name,r,g,b\nx,1\n", "the row x,1 has too few columns"),
        ("name,id\nx,one\n", "has 'one', expected a number from 0 to 65535"),
        ("", "has the columns : expected"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_table(file)
    file = tmp_path / "data.yaml"
    for text, message in (
        ("names: 3\n", "names must be a list of names, or names by number"),
        ("names: {a: 1}\n", "names must be a list"),
        ("{", "is no valid YAML"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_table(file)
    file.write_text("train: x\n")
    assert read_table(file) is None


def test_labels_of_16_bits(tmp_path: Path) -> None:
    data = one(tmp_path, numbers(0, 1000), "0: a\n1000: b\n")
    assert stripes(data) == [0, 1]
    (tmp_path / "classes.txt").write_text("a\nb\n")
    with pytest.raises(
        ValueError, match=r"value 1000, .* a class is a number below 255, so renumber"
    ):
        read(tmp_path).label_map(0)
    (tmp_path / "classes.txt").unlink()
    assert read(tmp_path).names == ["0", "1000"]
    save(tmp_path / "masks/a.png", np.arange(300, dtype=np.uint16).reshape(15, 20))
    photo(tmp_path / "images/a.jpg", (15, 20))
    with pytest.raises(
        ValueError, match=r"masks .* has 299 classes, but a label map tells at most 255"
    ):
        read(tmp_path)


def test_files_that_cannot_be_label_maps(tmp_path: Path) -> None:
    file = lay(tmp_path, numbers(0, 1), "a\nb\n")
    photo(tmp_path / "images/b.jpg")
    photo(tmp_path / "masks/b.jpg")
    photo(tmp_path / "images/c.jpg")
    (tmp_path / "masks/c.png").touch()
    photo(tmp_path / "images/d.jpg")
    (tmp_path / "masks/d.png").write_bytes(b"no picture at all")
    data = read(tmp_path)
    assert len(data) == 1 and stripes(data) == [0, 1]
    assert kinds(data) == {
        ("JPEG label map", "left out"),
        ("empty image file", "left out"),
        ("unreadable label map", "left out"),
    }
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"a\.png is damaged or incomplete"):
        data.label_map(0)
    Image.fromarray(np.full((10, 12), 0.5, np.float32)).save(tmp_path / "masks/a.tif")
    file.unlink()
    with pytest.raises(ValueError, match=r"a\.tif has samples that are no whole numbers"):
        read(tmp_path).label_map(0)
    for name in ("a.tif", "c.png", "d.png"):
        (tmp_path / "masks" / name).unlink()
    with pytest.raises(
        ValueError,
        match="gives no usable image of 1; the first fault: ",
    ):
        read(tmp_path)


def test_a_label_map_of_another_size(tmp_path: Path) -> None:
    lay(tmp_path, numbers(0, 1), "a\nb\n")
    photo(tmp_path / "images/a.jpg", (10, 13))
    with pytest.raises(
        ValueError, match=r"label map .*a\.png is 12x10 pixels, its image .*a\.jpg is 13x10"
    ):
        read(tmp_path).image(0)


def test_an_image_that_was_annotated_unturned(tmp_path: Path) -> None:
    """A tool that ignores EXIF draws on the stored pixels; another one on the upright ones."""
    lay(tmp_path, numbers(0, 1), "a\nb\n")
    pixels = np.random.default_rng(0).integers(0, 256, (10, 12, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "images/a.png", exif=exif)
    (tmp_path / "images/a.jpg").unlink()
    np.testing.assert_array_equal(read(tmp_path).image(0), pixels)
    save(tmp_path / "masks/a.png", numbers(0, 1, size=(12, 10)))
    np.testing.assert_array_equal(read(tmp_path).image(0), np.rot90(pixels, -1))


def coco(root: Path, category: str, x: int) -> None:
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 10, "width": 12}],
        "annotations": [
            {
                "id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 60,
                "bbox": [x, 0, 6, 10], "segmentation": [[x, 0, x + 6, 0, x + 6, 10, x, 10]],
            }
        ],
        "categories": [{"id": 1, "name": category}],
    }  # fmt: skip
    (root / "labels.json").write_text(json.dumps(content))


def test_polygons_beside_label_maps_must_agree(tmp_path: Path) -> None:
    lay(tmp_path, numbers(0, 1), "sky\nroad\n")
    coco(tmp_path, "road", 6)
    assert stripes(read(tmp_path)) == [0, 1]
    coco(tmp_path, "road", 2)
    with pytest.raises(
        ValueError,
        match=r"labels\.json and the label map .*a\.png do not agree on a\.jpg: "
        r"of the pixels of 'road' in the polygons 33% have this class",
    ):
        read(tmp_path)
    coco(tmp_path, "car", 6)
    with pytest.raises(
        ValueError, match=r"of \['car'\], so that they cannot be compared: if the pol"
    ):
        read(tmp_path)
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(ValueError, match=r"and no file names the classes of .*masks, so that"):
        read(tmp_path)
    assert read(tmp_path / "labels.json").names == ["background", "car"]


def test_polygons_of_labelme_must_agree(tmp_path: Path) -> None:
    lay(tmp_path, numbers(0, 1), "sky\nroad\n")
    shape = {
        "label": "road",
        "points": [[6, 0], [12, 0], [12, 10], [6, 10]],
        "shape_type": "polygon",
    }
    file = tmp_path / "images/a.json"
    file.write_text(json.dumps({"shapes": [shape, {**shape, "shape_type": "point"}]}))
    assert stripes(read(tmp_path)) == [0, 1]
    file.write_text(json.dumps({"shapes": [{**shape, "label": "sky"}]}))
    with pytest.raises(
        ValueError,
        match=r"a\.json and the label map .* do not agree on a\.jpg: .*'sky' in the polygons 0%",
    ):
        read(tmp_path)
    file.write_text("no JSON")
    assert stripes(read(tmp_path)) == [0, 1]


def test_images_of_one_pixel(tmp_path: Path) -> None:
    data = one(tmp_path, numbers(1, size=(1, 1)), "a\nb\n")
    assert data[0].size == (1, 1) and stripes(data) == [1]


def test_nothing_but_ignored_pixels(tmp_path: Path) -> None:
    data = one(tmp_path, numbers(255), "a\nb\n")
    assert stripes(data) == [255]
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(ValueError, match="no pixel of 1 label maps has a class"):
        read(tmp_path)


def test_several_palettes_in_one_folder(tmp_path: Path) -> None:
    """Where nothing speaks of colours the indices count."""
    for name, palette in (("a", [(0, 0, 0), (9, 9, 9)]), ("b", [(7, 0, 0), (0, 0, 0)])):
        pair(tmp_path, f"images/{name}.jpg", f"masks/{name}.png", numbers(0, 1), palette)
    (tmp_path / "classes.txt").write_text("a\nb\n")
    data = read(tmp_path)
    assert stripes(data, 0) == stripes(data, 1) == [0, 1]
