"""Sources: which images a path, pattern, address or list names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskwright.data.formats.folders import Tree
from maskwright.data.pixels.kinds import image_suffixes
from maskwright.prediction.sources import list_sources, one_source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    photos = tmp_path / "photos"
    (photos / "deep").mkdir(parents=True)
    for name in ("b.png", "a.JPG", "c.tif", "deep/d.png"):
        Image.new("RGB", (8, 6)).save(photos / name, "PNG")
    (photos / "notes.txt").write_text("no image")
    (photos / ".hidden.png").write_bytes(b"")
    return photos


def names(source: object) -> list[str]:
    return [item.name for item in list_sources(source)]


def test_file_and_folder(folder: Path) -> None:
    assert names(folder) == ["a.JPG", "b.png", "c.tif"]
    assert names(str(folder) + "/") == ["a.JPG", "b.png", "c.tif"]
    found = list_sources(folder / "b.png")
    assert found.single and found.items[0].path == str(folder / "b.png")
    assert not list_sources(folder).single


def test_patterns(folder: Path) -> None:
    assert names(f"{folder}/*.png") == ["b.png"]
    assert names(f"{folder}/**/*.png") == ["b.png", "deep/d.png"]
    assert names(folder / "[bc].*") == ["b.png", "c.tif"]
    assert names(f"{folder}/*") == ["a.JPG", "b.png", "c.tif"]


def test_relative_paths(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert names("b.png") == ["b.png"]
    assert names("*.png") == ["b.png"]
    assert names(".") == ["a.JPG", "b.png", "c.tif"]


def test_a_file_name_with_brackets_is_no_pattern(folder: Path) -> None:
    Image.new("RGB", (4, 4)).save(folder / "x[1].png")
    assert names(folder / "x[1].png") == ["x[1].png"]


def test_memory_addresses_and_lists(folder: Path) -> None:
    array = np.zeros((4, 4, 3), np.uint8)
    assert names(array) == ["image"] and list_sources(array).single
    assert names(Image.new("RGB", (4, 4))) == ["image"]
    with Image.open(folder / "b.png") as opened:
        assert names(opened) == ["b.png"]
    url = list_sources("https://example.org/pictures/my%20cat.jpg?w=9").items[0]
    assert url.name == "my cat.jpg" and url.data.endswith("?w=9")
    mixed = list_sources([array, folder / "b.png", array, folder])
    assert [item.name for item in mixed] == [
        "image 1", "b.png", "image 3", "a.JPG", "b.png", "c.tif",
    ]  # fmt: skip
    assert not mixed.single
    assert list_sources(mixed) is mixed


def test_nothing_there(folder: Path) -> None:
    empty = folder.parent / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match=r"empty' holds no image \(\.jpg, "):
        list_sources(empty)
    with pytest.raises(ValueError, match="matches nothing"):
        list_sources(f"{folder}/*.jpeg")
    with pytest.raises(ValueError, match="matches 1 files, none an image"):
        list_sources(f"{folder}/*.txt")
    with pytest.raises(ValueError, match="empty list"):
        list_sources([])
    with pytest.raises(ValueError, match="does not exist"):
        list_sources("")


def test_images_only_below_are_pointed_at(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"did you mean .*photos.*\*\*/\*"):
        list_sources(folder.parent)
    assert names(f"{folder.parent}/**/*") == ["a.JPG", "b.png", "c.tif", "deep/d.png"]


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("photo", "photos"), ("photos/b.jpg", "b.png"), ("Photos/b.png", "photos")],
)
def test_wrong_paths_name_the_nearest(folder: Path, wrong: str, meant: str) -> None:
    path = folder.parent / wrong
    if path.exists():
        pytest.skip("this file system does not tell case apart")
    with pytest.raises(ValueError, match=f"does not exist; did you mean .*{meant}'"):
        list_sources(path)


def test_a_missing_folder_is_named(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no .*qqqqqq'"):
        list_sources(folder / "qqqqqq" / "x.png")


@pytest.mark.parametrize("name", ["weights.pt", "notes.txt"])
def test_other_files_are_no_images(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"abc")
    with pytest.raises(ValueError, match=r"is neither image nor video: give a file such as \.jpg"):
        list_sources(tmp_path / name)


def test_one_source(folder: Path) -> None:
    assert one_source(folder / "b.png").name == "b.png"
    assert one_source(np.zeros((4, 4, 3), np.uint8), 2).name == "image 3"
    with pytest.raises(ValueError, match=r"names 3: .*maskwright\.predict"):
        one_source(folder)


def test_what_a_folder_holds_beside_its_images_is_counted(folder: Path) -> None:
    (folder / "notes.md").touch()
    (folder / ".DS_Store").touch()
    (folder / "other").mkdir()
    (folder / "raw.heic").write_bytes(b"abc")
    said = list_sources(folder).passed_over
    assert said.startswith(f"source '{folder}': 3 images taken, passed over: ")
    assert f"1 folder with images (take all below with source='{folder}/**/*')" in said
    assert f"1 hidden image (take them with source='{folder}/.*')" in said
    assert "3 files, no images: " in said and ".txt (1)" in said and ".md (1)" in said
    assert "Pillow does not read .heic by itself: save it as JPEG" in said
    assert names(f"{folder}/**/*") == ["a.JPG", "b.png", "c.tif", "deep/d.png"]
    assert [Path(name).name for name in names(f"{folder}/.*")] == [".hidden.png"]
    pattern = list_sources(f"{folder}/*")
    assert "3 images taken, passed over: 3 files, no images" in pattern.passed_over
    assert list_sources(f"{folder}/*.png").passed_over == ""


def test_a_folder_of_images_alone_says_nothing(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "Thumbs.db").touch()
    assert list_sources(tmp_path).passed_over == ""


@pytest.mark.parametrize("suffix", [".avif", ".apng", ".tga", ".jpf", ".dib", ".ppm", ".WEBP"])
def test_what_training_reads_is_no_stranger_to_prediction(tmp_path: Path, suffix: str) -> None:
    """One list for both: Pillow's formats that it opens itself."""
    if suffix.lower() not in Image.registered_extensions():
        pytest.skip("this Pillow has no such format")
    Image.new("RGB", (8, 6)).save(tmp_path / f"a{suffix}", "PNG")
    assert names(tmp_path) == [f"a{suffix}"]
    assert suffix.lower() in image_suffixes()
    assert Tree().images(tmp_path) == [tmp_path / f"a{suffix}"]


@pytest.mark.parametrize("suffix", [".eps", ".pdf", ".wmf", ".mpg", ".h5", ".grib", ".ps"])
def test_what_pillow_cannot_turn_into_pixels_is_no_image(suffix: str) -> None:
    assert suffix not in image_suffixes()


def test_an_image_under_another_name_is_taken_when_named(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "scan.001", "PNG")
    assert names(tmp_path / "scan.001") == ["scan.001"]
    (tmp_path / "x.heic").write_bytes(b"abc")
    with pytest.raises(ValueError, match=r"does not read \.heic by itself"):
        list_sources(tmp_path / "x.heic")


def test_equal_names_are_told_apart_by_their_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("plate 1", "plate 2/left", "plate 2/right"):
        (tmp_path / part).mkdir(parents=True)
        Image.new("RGB", (8, 6)).save(tmp_path / part / "07.png")
    wanted = ["plate 1/07.png", "plate 2/left/07.png", "plate 2/right/07.png"]
    assert names(f"{tmp_path}/**/*.png") == wanted
    assert names([tmp_path / name for name in wanted]) == wanted
    monkeypatch.chdir(tmp_path / "plate 2")
    assert names(["left/07.png", "right/07.png"]) == ["left/07.png", "right/07.png"]
    assert names(["../plate 1/07.png", "left"]) == ["plate 1/07.png", "plate 2/left/07.png"]
    assert names(["left/07.png", "left/07.png"]) == ["07.png", "07.png"]
    urls = ["https://a.org/x.png", "https://b.org/x.png", "https://b.org/y.png"]
    assert names(urls) == [*urls[:2], "y.png"]
