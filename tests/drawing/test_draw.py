"""Drawing: exact colours where they can be computed, equal pictures for equal inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle

from maskwright.drawing.draw import (
    CROWD,
    FILL,
    draw_instances,
    instance_colors,
    mosaic,
    save_mosaic,
)
from maskwright.drawing.labels import LEAST_POINTS, fit_label
from maskwright.structures import Skeleton

HEIGHT, WIDTH = 120, 160


def scene(count: int = 3, seed: int = 0):
    """Ellipses in random places: image, boxes, labels, masks (N, H, W), crops, RLE."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    yy, xx = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    masks = np.zeros((count, HEIGHT, WIDTH), bool)
    for k in range(count):
        cx, cy = rng.uniform(25, WIDTH - 25), rng.uniform(25, HEIGHT - 25)
        rx, ry = rng.uniform(8, 22, 2)
        masks[k] = ((xx - cx) / rx) ** 2 + ((yy - cy) / ry) ** 2 <= 1
    boxes, crops = np.zeros((count, 4)), []
    for k, mask in enumerate(masks):
        rows, cols = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
        x1, y1, x2, y2 = cols[0], rows[0], cols[-1] + 1, rows[-1] + 1
        boxes[k] = x1, y1, x2, y2
        crops.append((mask[y1:y2, x1:x2], (x1, y1, x2, y2)))
    codes = [rle.encode(np.asfortranarray(mask)) for mask in masks]
    steps = np.nonzero(np.diff(masks[0].ravel("F").astype(int), prepend=0, append=0))[0]
    runs = np.diff(np.concatenate([[0], steps, [HEIGHT * WIDTH]])).tolist()
    codes[0] = {"size": [HEIGHT, WIDTH], "counts": runs}  # not compressed, as COCO's crowds
    return image, boxes, np.arange(count) % 2, masks, crops, codes


def test_forms_of_input_give_one_picture():
    image, boxes, labels, masks, crops, codes = scene()
    names = ["cat", "dog"]
    first = np.array(draw_instances(image, boxes, labels, names, masks=masks))
    assert first.shape == image.shape and first.dtype == np.uint8
    tensors = [torch.from_numpy(v) for v in (boxes, labels, masks)]
    for other in (
        draw_instances(Image.fromarray(image), boxes, labels, names, masks=crops),
        draw_instances(image, boxes.tolist(), labels.tolist(), names, masks=codes),
        draw_instances(torch.from_numpy(image), *tensors[:2], names, masks=tensors[2]),
        draw_instances(
            image, boxes, labels, names, masks=[(torch.from_numpy(c), f) for c, f in crops]
        ),
    ):
        np.testing.assert_array_equal(np.array(other), first)


def test_input_image_is_left_alone():
    image, boxes, labels, masks, *_ = scene()
    before = image.copy()
    draw_instances(image, boxes, labels, ["cat", "dog"], masks=masks)
    np.testing.assert_array_equal(image, before)
    picture = Image.fromarray(image)
    draw_instances(picture, boxes, labels, ["cat", "dog"])
    np.testing.assert_array_equal(np.array(picture), before)


def test_fill_contour_and_untouched_pixels():
    image = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    mask = np.zeros((1, HEIGHT, WIDTH), bool)
    mask[0, 40:60, 50:90] = True
    # An empty name leaves the picture to mask and box.
    drawn = np.array(draw_instances(image, [[50, 40, 90, 60]], [0], [""], masks=mask))
    (color,) = instance_colors(np.array([0]), 1)
    inside = drawn[41:59, 51:89]
    assert (inside == inside[0, 0]).all()
    np.testing.assert_allclose(inside[0, 0], 100 + FILL * (np.array(color) - 100.0), atol=1)
    edge = np.concatenate([drawn[40, 50:90], drawn[59, 50:90], drawn[40:60, 50], drawn[40:60, 89]])
    assert (edge == color).all()
    drawn[40:60, 50:90] = 100
    assert (drawn == 100).all()


def test_mask_beyond_its_box_and_crop_beyond_the_image():
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    mask = np.zeros((1, HEIGHT, WIDTH), bool)
    mask[0, 10:50, 10:50] = True
    drawn = np.array(draw_instances(image, [[20, 20, 30, 30]], [0], [""], masks=mask))
    np.testing.assert_array_equal(drawn.any(-1), mask[0])
    crop = (np.ones((20, 20), bool), (-10, -10, 10, 10))
    drawn = np.array(draw_instances(image, [[0, 0, 5, 5]], [0], [""], masks=[crop]))
    assert drawn[:10, :10].any(-1).all() and not drawn[10:].any() and not drawn[:, 10:].any()
    gone = (np.ones((5, 5), bool), (500, 500, 505, 505))
    assert not np.array(draw_instances(image, [[0, 0, 0, 0]], [0], [""], masks=[gone]))[
        1:, 1:
    ].any()


def test_crowded_images_get_no_labels():
    image, boxes, labels, _, crops, _ = scene(300)
    plain = draw_instances(image, boxes, labels, ["", ""], masks=crops)
    named = draw_instances(image, boxes, labels, ["cat", "dog"], np.ones(300), crops)
    np.testing.assert_array_equal(np.array(plain), np.array(named))
    few = slice(0, 30)
    plain = draw_instances(image, boxes[few], labels[few], ["", ""], masks=crops[few])
    named = draw_instances(image, boxes[few], labels[few], ["cat", "dog"], masks=crops[few])
    assert (np.array(plain) != np.array(named)).any()


def test_tiny_objects_get_no_label():
    image = np.zeros((400, 400, 3), np.uint8)
    drawn = np.array(draw_instances(image, [[200, 200, 206, 206]], [0], ["cat"]))
    assert drawn[200:206, 200:206].any() and drawn.any(-1).sum() <= 36


@pytest.mark.parametrize("options", [{"max_side": 80}, {"min_side": 320}])
def test_scaled_pictures(options):
    image, boxes, labels, masks, crops, _ = scene()
    points = np.full((3, 17, 3), 60.0)
    drawn = draw_instances(image, boxes, labels, ["a", "b"], None, crops, points, **options)
    factor = next(iter(options.values())) / WIDTH
    assert drawn.size == (WIDTH * factor, HEIGHT * factor)
    flat = np.full_like(image, 90)
    drawn = np.array(draw_instances(flat, boxes, labels, ["", ""], None, masks, **options))
    painted = (np.abs(drawn.astype(int) - 90) > 2).any(-1)
    expected = np.array(
        Image.fromarray(masks.any(0)).resize(drawn.shape[1::-1], Image.Resampling.NEAREST)
    )
    # All but the boxes, which are thin lines, is the scaled mask.
    assert (painted & ~expected).mean() < 0.08 and (expected & ~painted).mean() < 0.02


def test_size_in_range_is_kept():
    image, boxes, labels, *_ = scene()
    drawn = draw_instances(image, boxes, labels, ["a", "b"], max_side=500, min_side=20)
    assert drawn.size == (WIDTH, HEIGHT)


def test_keypoints_without_score_are_left_out():
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    points = np.zeros((1, 17, 3))
    points[0, 0] = 80, 60, 1
    points[0, 1] = 20, 20, 0
    drawn = np.array(draw_instances(image, [[0, 0, 0, 0]], [0], [""], keypoints=points))
    assert drawn[60, 80].any()
    assert not drawn[10:40, 10:40].any()


def test_bones_have_hues_of_their_own_and_suit_the_size_of_the_object():
    skeleton = Skeleton(("a", "b", "c"), ((0, 1), (1, 2)))
    shape = np.array([[10, 10, 2], [40, 10, 1], [40, 40, 2.0]])

    def bones(factor: int) -> np.ndarray:
        points = shape * [factor, factor, 1]
        image = np.zeros((50 * factor, 50 * factor, 3), np.uint8)
        side = 50 * factor
        return np.array(
            draw_instances(
                image, [[0, 0, side, side]], [0], [""], keypoints=points[None], skeleton=skeleton
            )
        )

    small, large = bones(1), bones(8)
    first, second = small[10, 25], small[25, 40]
    assert first.any() and second.any() and np.abs(first.astype(int) - second).sum() > 100
    assert large[80, 200].tolist() == first.tolist(), "the same hue in all objects"
    thickness = [int((picture[:, int(x)] == first).all(-1).sum()) for picture, x in
                 ((small, 25), (large, 200))]  # fmt: skip
    assert thickness[0] == 1 and 2 <= thickness[1] <= 8
    hidden = shape * [1, 1, 0]
    drawn = draw_instances(
        np.zeros((50, 50, 3), np.uint8), [[0, 0, 1, 1]], [0], [""], keypoints=hidden[None],
        skeleton=skeleton,
    )  # fmt: skip
    assert not np.array(drawn)[2:, 2:].any()
    with pytest.raises(ValueError, match="keypoints: 3 of each object, the skeleton has 1"):
        draw_instances(
            np.zeros((50, 50, 3), np.uint8), [[0, 0, 1, 1]], [0], [""], keypoints=shape[None],
            skeleton=Skeleton(("a",)),
        )  # fmt: skip


def test_nothing_to_draw():
    image = scene()[0]
    empty = np.zeros((0, 4))
    for masks in (None, [], np.zeros((0, HEIGHT, WIDTH), bool)):
        drawn = draw_instances(image, empty, [], ["cat"], scores=[], masks=masks)
        np.testing.assert_array_equal(np.array(drawn), image)


def test_labels_without_a_name():
    image, boxes, _, *_ = scene()
    drawn = draw_instances(image, boxes, [0, 1, 9], ["cat", None])
    assert drawn.size == (WIDTH, HEIGHT)


def test_colors_tell_neighbours_and_classes_apart():
    one = np.array(instance_colors(np.zeros(12, int), 1), int)
    gaps = np.abs(one[:, None] - one[None]).sum(-1) + 1000 * np.eye(12, dtype=int)
    assert gaps.min() > 40
    assert np.abs(np.diff(one, axis=0)).sum(-1).min() > 120
    labels = np.array([0, 1, 0, 1])
    several = np.array(instance_colors(labels, 5), int)
    same = np.abs(several[0] - several[2]).sum()
    assert 0 < same < np.abs(several[0] - several[1]).sum()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": [0]}, "labels: 1 entries, but there are 3 boxes"),
        ({"scores": [0.5]}, "scores: 1 entries"),
        ({"masks": np.zeros((1, HEIGHT, WIDTH), bool)}, "masks: 1 entries"),
        ({"masks": np.zeros((3, 5, 5), bool)}, r"height, width\) \(5, 5\), the image \(120, 160\)"),
        ({"image": np.zeros((5, 5), np.uint8)}, r"got uint8 \(5, 5\)"),
        ({"image": np.zeros((5, 5, 3))}, r"got float64 \(5, 5, 3\)"),
    ],
)
def test_errors_name_what_is_wrong(change, words):
    image, boxes, labels, *_ = scene()
    arguments = {"image": image, "boxes": boxes, "labels": labels, "names": ["a", "b"]} | change
    with pytest.raises(ValueError, match=words):
        draw_instances(**arguments)


def test_mosaic_places_images_in_cells():
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    images = [Image.new("RGB", (40, 20), color) for color in colors]
    board = np.array(mosaic(images, ["one", "", "a title far too long " * 9], 2, 100))
    assert board.shape[1] > board.shape[0] * 0.8
    for color in colors:
        rows, cols = np.nonzero((board == color).all(-1))
        assert (rows.max() - rows.min() + 1, cols.max() - cols.min() + 1) == (50, 100)
    row = [np.nonzero((board == color).all(-1))[0].min() for color in colors]
    assert row[0] == row[1] < row[2]
    assert mosaic(images[:1], [""], 4, 100).width < 130
    with pytest.raises(ValueError, match="2 titles"):
        mosaic(images, ["a", "b"], 2)


def test_a_mosaic_is_written_as_a_square(tmp_path):
    images = [Image.new("RGB", (40, 40), color) for color in ("red", "green", "blue")]
    save_mosaic(tmp_path / "a.png", images, ["a", "b", "c"], 60, heading="all")
    with Image.open(tmp_path / "a.png") as written:
        expected = mosaic(images, ["a", "b", "c"], 2, 60, heading="all")
        assert np.array_equal(np.array(written), np.array(expected))
    save_mosaic(tmp_path / "b.png", images, ["", "", ""], 60, columns=3)
    with Image.open(tmp_path / "b.png") as written:
        assert written.width > 3 * 60 and written.height < 2 * 60
    with pytest.raises(ValueError, match="got 0 images"):
        save_mosaic(tmp_path / "c.png", [], [])
    assert {file.name for file in tmp_path.iterdir()} == {"a.png", "b.png"}


def test_colours_and_texts_can_be_given():
    image = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    boxes = np.array([[20.0, 60, 60, 100], [90, 60, 130, 100]])
    labels, names = np.array([0, 1]), ["a", "b"]
    colors = [(200, 10, 20), (10, 200, 30)]
    plain = np.asarray(draw_instances(image, boxes, labels, names, colors=colors, texts=["", ""]))
    assert plain[60, 40].tolist() == [200, 10, 20] and plain[60, 110].tolist() == [10, 200, 30]
    named = np.asarray(draw_instances(image, boxes, labels, names, colors=colors, texts=["x", ""]))
    rows, cols = np.nonzero((named != plain).any(2))
    assert len(rows) > 20 and cols.max() < 80  # a label at the first box, none at the second
    # Labels that are empty do not count as many.
    crowd = np.tile(boxes, (40, 1))
    texts = ["x", *[""] * 79]
    drawn = draw_instances(image, crowd, np.zeros(80), names, colors=colors * 40, texts=texts)
    bare = draw_instances(image, crowd, np.zeros(80), names, colors=colors * 40, texts=[""] * 80)
    assert (np.asarray(drawn) != np.asarray(bare)).any()
    with pytest.raises(ValueError, match="texts: 1 entries, but there are 2 boxes"):
        draw_instances(image, boxes, labels, names, texts=["x"])


@pytest.mark.parametrize("text", ["cat 0.93", "cat", "0.93", "w" * 200, "w" * 200 + " 0.93"])
def test_labels_shrink_with_their_objects(text):
    size = (640, 480)
    for side in range(2, 200, 7):
        crowded = fit_label(text, (side, 0.8 * side), size, 30)
        if crowded is not None:  # no larger than the object, and legible
            assert crowded.width <= side and crowded.height <= 0.8 * side
            assert crowded.letters.points >= LEAST_POINTS
            assert crowded.text == text or "…" in crowded.text or crowded.text == "0.93"
            assert crowded.text.endswith("0.93") == text.endswith("0.93")
        few = fit_label(text, (side, side), size, 2)
        assert (few is None) == (side < 1.6 * LEAST_POINTS)
        assert few is None or few.width <= max(0.5 * size[0], 8 * few.letters.points)
    sizes = [fit_label("cat 0.93", (s, s), size, 30).letters.points for s in (50, 60, 90, 400)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]


def test_the_number_of_an_object_that_is_followed_stays():
    """On smaller and smaller objects the score goes first, then the name."""
    found = [fit_label("#7 person 0.93", (s, s), (640, 480), 30) for s in range(200, 2, -2)]
    texts = list(dict.fromkeys(label.text for label in found if label is not None))
    assert texts[:2] == ["#7 person 0.93", "#7 person"] and texts[-1] == "#7"
    assert all(text.startswith("#7") for text in texts)
    assert fit_label("#7 0.93", (22, 22), (640, 480), 30).text == "#7"


def test_regions_of_many_objects_are_grey_and_named():
    image = np.zeros((200, 200, 3), np.uint8)
    boxes = np.array([[10, 40, 90, 90], [100, 120, 190, 180.0]])
    crowd = np.array([False, True])
    drawn = np.asarray(draw_instances(image, boxes, [0, 0], ["cat"], crowd=crowd))
    assert drawn[60, 10].tolist() != list(CROWD) and drawn[150, 100].tolist() == list(CROWD)
    plain = np.asarray(draw_instances(image, boxes, [0, 0], ["cat"]))
    assert (drawn[100:125, 100:] != plain[100:125, 100:]).any()  # "cat (crowd)"
    with pytest.raises(ValueError, match="crowd: 1 entries"):
        draw_instances(image, boxes, [0, 0], ["cat"], crowd=[True])
