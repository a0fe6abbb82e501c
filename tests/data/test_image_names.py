"""Images that are called otherwise in the annotations than on the disk: found by rule, or named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from maskwright.data import Dataset, check_data, open_dataset

SIZE = {"height": 30, "width": 40}


def make(root: Path, names: list[str], files: list[str], ann: str = "annotations.json") -> Path:
    """A data set of these file names, and these image files below its folder."""
    for number, file in enumerate(files):
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (number, 0, 0)).save(path, "PNG")
    content = {
        "images": [{"id": i, "file_name": n, **SIZE} for i, n in enumerate(names, 1)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [2, 2, 9, 9]}
            for i in range(1, len(names) + 1)
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (root / ann).parent.mkdir(parents=True, exist_ok=True)
    (root / ann).write_text(json.dumps(content))
    return root


def paths(root: Path, dataset: Dataset) -> list[str]:
    return [dataset[i].path.resolve().relative_to(root).as_posix() for i in range(len(dataset))]


FOUND: dict[str, tuple[str, str, str]] = {
    # name in the annotations, file, what the note says; "" is no note
    "as it is": ("a.png", "images/a.png", ""),
    "backslashes": ("sub\\a.png", "images/sub/a.png", ""),
    "suffix in another case": ("a.png", "images/a.PNG", "in another case"),
    "stem in another case": ("IMG_a.png", "images/img_A.png", "in another case"),
    "accents apart on the disk": ("\u00e9.png", "images/e\u0301.png", "form of Unicode"),
    "accents apart in the JSON": ("E\u0301.png", "images/\u00e9.png", "form of Unicode"),
    "folder in another case": ("Sub/a.png", "images/sub/a.png", "in another folder"),
    "another folder": ("a.png", "images/day 1/a.png", "in another folder"),
    "a folder too many": ("upload/1/a.png", "images/a.png", "in another folder"),
    "URL-encoded": ("my%20photo%C3%A4.png", "images/my photoä.png", "with the name decoded"),
    "digits of an upload": ("1a2b3c4d-a.png", "images/a.png", "digits of an upload"),
    "digits on the disk": ("a.png", "images/1a2b3c4d-a.png", "digits of an upload"),
    "another machine": ("/home/x/images/a.png", "images/a.png", "of another machine"),
    "another machine's drive": ("D:\\data\\a.png", "images/a.png", "of another machine"),
    "a share": ("\\\\server\\share\\a.png", "images/a.png", "of another machine"),
    "beside the JSON": ("a.png", "a.png", ""),
    "data/images": ("a.png", "photos/a.png", ""),
}


@pytest.mark.parametrize("case", FOUND)
def test_found_by_a_safe_rule(case: str, tmp_path: Path) -> None:
    name, file, note = FOUND[case]
    root = make(tmp_path, [name, "b.png"], [file, "images/b.png"])
    if not file.startswith("images"):
        (root / "images/b.png").rename(root / Path(file).parent / "b.png")
    dataset = open_dataset(root)
    assert len(dataset) == 2
    assert file in paths(tmp_path, dataset)
    messages = [(f.kind, f.action, f.message) for f in dataset.faults]
    if note:
        ((kind, action, message),) = messages
        assert (kind, action) == ("image under another name", "repaired")
        assert note in message and repr(name.split("\\")[-1])[1:-1] in message
    else:
        assert messages == []
    assert check_data(root).ok


def test_one_note_for_many(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(30)]
    root = make(tmp_path, names, [f"images/{i}.PNG" for i in range(30)])
    dataset = open_dataset(root)
    assert paths(root, dataset) == [f"images/{i}.PNG" for i in range(30)]
    (fault,) = dataset.faults
    assert "30 image(s)" in fault.message and "'0.png' is" in fault.message


NEAR: dict[str, tuple[str, list[str], str]] = {
    # name, files, what is said
    "another suffix": ("a.jpg", ["images/a.png"], "did you mean 'images/a.png', with another"),
    "a typo": ("photo_one.png", ["images/foto_one.png"], "did you mean 'images/foto_one.png'"),
    "out of the folder": ("..\\..\\a.png", ["images/a.png"], "did you mean 'images/a.png'"),
    "out with slashes": ("../images/a.png", ["images/a.png"], "did you mean 'images/a.png'"),
    "two of one name": ("a.png", ["images/1/a.png", "images/2/a.png"], "several are called so"),
    "two in other cases": ("a.png", ["images/1/A.png", "images/2/a.PNG"], "did you mean"),
    "another number": ("img_0002.png", ["images/img_0001.png"], "which hold 1 image"),
    "nothing there": ("a.png", [], "which hold none"),
}


@pytest.mark.parametrize("case", NEAR)
def test_what_is_near_is_said(case: str, tmp_path: Path) -> None:
    name, files, message = NEAR[case]
    (tmp_path / "images").mkdir()
    root = make(tmp_path, [name], files)
    with pytest.raises(ValueError, match="gives no usable image of 1") as refused:
        open_dataset(root)
    said = str(refused.value)
    assert message in said
    assert ("looked for images in" in said) == ("did you mean" not in said)


def test_an_image_of_another_split_is_none_of_this(tmp_path: Path) -> None:
    root = make(tmp_path, ["a.png", "b.png"], ["images/train/a.png"], "annotations/train.json")
    make(
        tmp_path,
        ["b.png", "c.png"],
        ["images/val/b.png", "images/val/c.png"],
        "annotations/val.json",
    )
    train = open_dataset(root)
    assert paths(tmp_path, train) == ["images/train/a.png"]
    assert [fault.kind for fault in train.faults] == ["missing image"]


def test_pictures_of_labels_are_no_images(tmp_path: Path) -> None:
    root = make(tmp_path, ["a.png", "b.png"], ["images/a.png", "masks/b.png", "runs/x/b.png"])
    dataset = open_dataset(root)
    assert paths(tmp_path, dataset) == ["images/a.png"]


def test_no_image_is_taken_twice(tmp_path: Path) -> None:
    names = ["a.png", "A.png", "11111111-b.png", "22222222-b.png", "/x/1/c.png", "/x/2/c.png"]
    root = make(tmp_path, names, ["images/a.png", "images/b.png", "images/c.png"])
    dataset = open_dataset(root)
    assert paths(tmp_path, dataset) == ["images/a.png"]
    assert [f.action for f in dataset.faults] == ["left out"] * 5
    # Where folders tell which is which, both are found.
    names = ["/x/1/c.png", "/x/2/c.png"]
    root = make(tmp_path / "d", names, ["images/1/c.png", "images/2/c.png"])
    assert paths(root, open_dataset(root)) == ["images/1/c.png", "images/2/c.png"]


def test_nothing_outside_is_read(tmp_path: Path) -> None:
    make(tmp_path, ["x"], ["secret.png", "elsewhere/other.png"])
    names = [str(tmp_path / "secret.png"), "../secret.png", "a.png", "other.png"]
    root = make(tmp_path / "data", names, ["images/a.png"])
    (root / "images/link").symlink_to(tmp_path / "elsewhere")
    dataset = open_dataset(root)
    assert paths(tmp_path, dataset) == ["data/images/a.png"]
    kinds = [fault.kind for fault in dataset.faults]
    assert sorted(kinds) == ["missing image"] + ["path outside the data set"] * 2


def test_images_of_xml_files_in_folders_below(tmp_path: Path) -> None:
    for name in ("a", "b"):
        path = tmp_path / f"JPEGImages/camera {name}/{name}.PNG"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (40, 30)).save(path)
        file = tmp_path / f"Annotations/{name}.xml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(
            "<annotation><object><name>cat</name><bndbox><xmin>3</xmin><ymin>3</ymin><xmax>12"
            "</xmax><ymax>12</ymax></bndbox></object></annotation>"
        )
    dataset = open_dataset(tmp_path)
    assert paths(tmp_path, dataset) == [f"JPEGImages/camera {n}/{n}.PNG" for n in "ab"]


@pytest.mark.parametrize(
    ("first", "says"),
    [
        (b"PK\x03\x04rest", "ZIP archive"),
        (b"\x1f\x8b\x08rest", "gzip archive"),
        (b"x" * 257 + b"ustar\0", "tar archive"),
        (b"\x89PNG\r\n", "PNG image"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
    ],
)
def test_files_that_are_no_json_say_what_they_are(first: bytes, says: str, tmp_path: Path) -> None:
    root = make(tmp_path, ["a.png"], ["images/a.png"])
    (root / "annotations.json").write_bytes(first)
    for data in (root, root / "annotations.json"):
        with pytest.raises(ValueError, match=rf"annotations\.json is .*{says}"):
            open_dataset(data)
