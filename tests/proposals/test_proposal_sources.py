"""Sources of proposals: OpenCV called directly, geometry, and what is wrong with files."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskwright.errors import OptionError
from maskwright.proposals import make_source, sources
from maskwright.proposals.edges import gradient_edges
from maskwright.proposals.files import short_names, write_proposals
from maskwright.proposals.sources import opencv, sliding_windows

COMPUTED = ["selective_search", "selective_search:quality", "edge_boxes", "sliding_window:300"]


def scene(height: int = 90, width: int = 120) -> np.ndarray:
    """Two bright blocks on a dark, slightly noisy ground."""
    image = np.random.default_rng(3).integers(20, 40, (height, width, 3), dtype=np.uint8)
    image[15:50, 20:60] = (220, 60, 30)
    image[55:85, 70:110] = (40, 200, 220)
    return image


BLOCKS = np.array([[20.0, 15, 60, 50], [70, 55, 110, 85]])


def best_iou(boxes: np.ndarray, target: np.ndarray) -> float:
    corner = np.minimum(boxes[:, 2:], target[2:]) - np.maximum(boxes[:, :2], target[:2])
    inter = corner.clip(0).prod(1)
    union = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (target[2:] - target[:2]).prod() - inter
    return float((inter / union).max())


@pytest.mark.parametrize("name", COMPUTED)
def test_boxes_lie_in_the_image_by_falling_score_and_are_the_same_again(name: str) -> None:
    image = scene()
    first, again = make_source(name)(image), make_source(name)(image)
    assert len(first) > 10
    assert first.boxes.dtype == first.scores.dtype == np.float32
    assert np.array_equal(first.boxes, again.boxes) and np.array_equal(first.scores, again.scores)
    assert (np.diff(first.scores) <= 0).all()
    assert (first.boxes >= 0).all() and (first.boxes <= [120, 90, 120, 90]).all()
    assert (first.boxes[:, 2:] > first.boxes[:, :2]).all()


@pytest.mark.parametrize(("name", "least"), [("selective_search", 0.9), ("edge_boxes", 0.7)])
def test_distinct_blocks_are_found(name: str, least: float) -> None:
    boxes = make_source(name)(scene()).boxes
    assert min(best_iou(boxes, block) for block in BLOCKS) > least


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Selective search at the size of the scenes, which takes a tenth of the time."""
    monkeypatch.setattr(sources, "SEARCH_SIDE", 120)


def test_selective_search_has_the_boxes_of_opencv() -> None:
    import cv2

    image = scene()
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image[..., ::-1]))
    search.switchToSelectiveSearchFast()
    expected = {(x, y, x + w, y + h) for x, y, w, h in search.process().tolist()}
    found = make_source("selective_search")(image).boxes
    assert {tuple(box) for box in found.tolist()} == expected


def test_selective_search_of_a_large_image_is_that_of_the_reduced_one() -> None:
    large = scene().repeat(10, 0).repeat(10, 1)
    found = make_source("selective_search")(large)
    expected = make_source("selective_search")(scene())  # what the mean of 10 x 10 pixels is
    np.testing.assert_allclose(found.boxes, expected.boxes * 10)
    # A small one is enlarged, and its boxes come back in its own pixels.
    boxes = make_source("selective_search")(scene()[::2, ::2].copy()).boxes
    assert boxes.max() == 60 and min(best_iou(boxes * 2, block) for block in BLOCKS) > 0.8


def test_large_regions_come_first_on_the_whole() -> None:
    boxes = make_source("selective_search")(scene()).boxes
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    half = len(areas) // 2
    assert np.median(areas[:half]) > np.median(areas[half:])


@pytest.mark.parametrize("name", COMPUTED)
@pytest.mark.parametrize("shape", [(40, 50), (1, 1), (3, 200)])
def test_images_of_one_colour_give_few_boxes_or_none(name: str, shape: tuple[int, int]) -> None:
    found = make_source(name)(np.full((*shape, 3), 128, np.uint8))
    assert np.isfinite(found.boxes).all()
    assert len(found) <= 300
    if name == "edge_boxes":
        assert len(found) == 0, "without any edge there is no box"


def test_what_is_no_image_is_refused() -> None:
    for array in (np.zeros((5, 5), np.uint8), np.zeros((5, 5, 3)), np.zeros((0, 5, 3), np.uint8)):
        with pytest.raises(ValueError, match="uint8 images"):
            make_source("sliding_window")(array)


def test_edges_stand_where_the_colour_changes_with_the_angle_of_the_normal() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, 30:] = 200
    edges, angle = gradient_edges(opencv(), image)
    assert edges[20].argmax() in (29, 30) and edges[20].max() > 0.9
    assert (edges[20] > 0.1).sum() <= 2, "thin"
    assert min(angle[20, edges[20].argmax()], np.pi - angle[20, edges[20].argmax()]) < 0.01
    edges, angle = gradient_edges(opencv(), np.ascontiguousarray(image.transpose(1, 0, 2)))
    assert angle[edges[:, 20].argmax(), 20] == pytest.approx(np.pi / 2, abs=0.01)


@pytest.mark.parametrize("count", [1, 40, 500, 3000])
def test_sliding_windows_cover_the_image_and_keep_their_number(count: int) -> None:
    windows = sliding_windows(120, 200, count)
    assert 0 < len(windows) <= count
    assert (windows >= -1e-9).all() and (windows <= np.array([200, 120, 200, 120]) + 1e-9).all()
    assert len(np.unique(windows.round(6), axis=0)) == len(windows)
    if count >= 500:
        assert len(windows) > 0.8 * count
        for corner in ((2, 2), (198, 2), (2, 118), (198, 118), (100, 60)):
            inside = (windows[:, :2] <= corner).all(1) & (windows[:, 2:] >= corner).all(1)
            assert inside.any()
        assert (np.diff((windows[:, 2:] - windows[:, :2]).prod(1).round(6)) <= 0).mean() > 0.9


def test_without_opencv_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **options: Any) -> Any:
        if name == "cv2":
            raise ImportError("No module named 'cv2'")
        return real(name, *args, **options)

    opencv.cache_clear()
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"maskwright\[proposals\]"):
        make_source("selective_search")(scene())
    assert len(make_source("sliding_window")(scene())), "needs none"


@pytest.mark.parametrize("name", ["selctive_search", "selective_search:slow", "sliding_window:0"])
def test_unknown_sources_are_named(name: str) -> None:
    with pytest.raises(OptionError, match="expected selective_search"):
        make_source(name)


def test_a_model_of_edges_must_exist_and_be_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no model .* missing\.yml"):
        make_source("edge_boxes:missing.yml")
    (tmp_path / "model.yml").write_text("%YAML:1.0\n---\nnothing: 1\n")
    with pytest.raises(ValueError, match="is no structured edge model"):
        make_source(f"edge_boxes:{tmp_path / 'model.yml'}")(scene())


def test_results_file_gives_boxes_by_image_id(tmp_path: Path) -> None:
    rows = [
        {"image_id": 7, "bbox": [10, 20, 30, 15], "score": 0.25},
        {"image_id": 7, "bbox": [1, 2, 3, 4], "score": 0.75},
        {"image_id": 8, "bbox": [0, 0, 5, 5], "score": 1.0},
    ]
    path = tmp_path / "val.json"
    path.write_text(json.dumps(rows))
    source = make_source(str(tmp_path / "{split}.json"), split="val")
    found = source(scene(), image_id=7)
    assert found.boxes.tolist() == [[1, 2, 4, 6], [10, 20, 40, 35]]
    assert found.scores.tolist() == [0.75, 0.25]
    assert len(source(scene(), image_id=99)) == 0, "no rows: no proposals"
    with pytest.raises(ValueError, match="outside a data set"):
        source(scene(), image_file=Path("photo.jpg"))
    with pytest.raises(ValueError, match="a photo has none: proposal_source="):
        make_source(str(tmp_path / "{split}.json"))


def test_boxes_outside_the_image_or_without_area_are_dropped_and_counted(tmp_path: Path) -> None:
    boxes = np.array(
        [
            [-5.0, -5, 30, 40],  # partly outside: clipped
            [200, 10, 240, 30],  # outside
            [10, 10, 10, 30],  # no width
            [40, 30, 20, 50],  # turned round
            [np.nan, 0, 5, 5],
        ]
    )
    path = tmp_path / "boxes.npz"
    write_proposals(path, {"a.png": (boxes, np.linspace(1, 0, 5))})
    found = make_source(str(path))(scene(), image_file=Path("a.png"))
    assert found.boxes.tolist() == [[0, 0, 30, 40]]
    assert found.dropped == 4


def test_arrays_without_scores_keep_their_order(tmp_path: Path) -> None:
    boxes = np.array([[5.0, 5, 9, 9], [1, 1, 50, 50]])
    np.savez(tmp_path / "boxes.npz", **{"boxes/a.png": boxes})
    source = make_source(str(tmp_path / "boxes.npz"))
    assert source(scene(), image_file=Path("a.png")).boxes.tolist() == boxes.tolist()
    with pytest.raises(ValueError, match=r"for b\.png; it has those of a\.png and 0 more.*split"):
        source(scene(), image_file=Path("b.png"))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.json", b"", "cannot be read as JSON"),
        ("a.json", b'{"boxes": []}', "expected a list"),
        ("a.json", b'[{"image_id": 1, "bbox": [1, 2, 3]}]', "entry 0"),
        ("a.json", b'[{"image_id": 1, "bbox": [1, 2, 3, NaN]}]', "entry 0"),
        ("a.json", b'[{"image_id": "x", "bbox": [1, 2, 3, 4]}]', "entry 0"),
        ("a.npz", b"", "cannot be read as arrays"),
        ("a.npz", b"PK\x03\x04 broken", "cannot be read as arrays"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, file: str, content: bytes, message: str) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        make_source(str(tmp_path / file))
    assert file in str(caught.value)


def test_arrays_of_another_shape_or_kind_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, other=np.zeros(3))
    with pytest.raises(ValueError, match="holds no array boxes/"):
        make_source(str(path))
    np.savez(path, **{"boxes/a.png": np.zeros((2, 3))})
    with pytest.raises(ValueError, match=r"boxes/a\.png: expected \(n, 4\)"):
        make_source(str(path))(scene(), image_file=Path("a.png"))
    np.savez(path, **{"boxes/a.png": np.zeros((2, 4)), "scores/a.png": np.zeros(3)})
    with pytest.raises(ValueError, match=r"scores/a\.png: expected 2 numbers"):
        make_source(str(path))(scene(), image_file=Path("a.png"))
    np.savez(path, **{"boxes/a.png": np.array([{"pickled": 1}], dtype=object)})
    with pytest.raises(ValueError, match=r"a\.npz: cannot be read as arrays"):
        make_source(str(path))(scene(), image_file=Path("a.png"))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ValueError, match=r"nowhere\.npz"):
        make_source("nowhere.npz")


def test_images_of_the_same_name_are_told_apart_by_their_folder(tmp_path: Path) -> None:
    files = [Path(f"/data/{name}") for name in ("a/1.png", "b/1.png", "x/b/1.png", "b/2.png")]
    names = short_names(files)
    assert names == ["a/1.png", "data/b/1.png", "x/b/1.png", "2.png"]
    path = tmp_path / "boxes.npz"
    write_proposals(
        path,
        {
            name: (np.array([[0.0, 0, 10 + i, 10]]), np.ones(1))
            for i, name in enumerate(short_names([*files, files[0]]))
        },
    )
    source = make_source(str(path))
    for i, file in enumerate(files):
        expected = 14 if i == 0 else 10 + i  # the same image twice has the same name
        assert source(scene(), image_file=file).boxes.tolist() == [[0, 0, expected, 10]]


def test_one_entry_for_two_images_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "boxes.npz"
    write_proposals(path, {"1.png": (np.array([[0.0, 0, 9, 9]]), np.ones(1))})
    source = make_source(str(path))
    source(scene(), image_file=Path("a/1.png"))
    source(scene(), image_file=Path("a/1.png"))
    with pytest.raises(
        ValueError, match=r"boxes/1\.png would stand for two images, a.1\.png and b"
    ):
        source(scene(), image_file=Path("b/1.png"))


def test_another_model_of_edges_under_the_same_name_is_another_source(tmp_path: Path) -> None:
    path = tmp_path / "model.yml"
    path.write_text("first")
    first = make_source(f"edge_boxes:{path}")
    path.write_text("second")
    second = make_source(f"edge_boxes:{path}")
    copy = tmp_path / "copy.yml"
    copy.write_text("second")
    assert first.name == second.name and first.key != second.key
    assert make_source(f"edge_boxes:{copy}").key == second.key


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("edge_boxes:", "names no model of structured edges"),
        ("boxes_{spli}.npz", r"only \{split\} stands for something, not \{spli\}"),
    ],
)
def test_half_written_sources_are_named(name: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make_source(name, split="val")


@pytest.mark.filterwarnings("error")
def test_scores_must_be_numbers_and_huge_boxes_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    boxes = np.array([[1.0, 1, 9, 9], [0, 0, 1e39, 1e300], [-1e39, 0, 5, 5]])
    write_proposals(path, {"a.png": (boxes, np.array([0.1, 0.2, np.nan]))})
    with pytest.raises(ValueError, match=r"scores/a\.png: not all of them are numbers"):
        make_source(str(path))(scene(), image_file=Path("a.png"))
    write_proposals(path, {"a.png": (boxes, np.array([0.1, 0.2, 0.3]))})
    found = make_source(str(path))(scene(), image_file=Path("a.png"))
    assert found.boxes.tolist() == [[1, 1, 9, 9]] and found.dropped == 2
