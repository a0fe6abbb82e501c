"""Connected parts, holes and outlines against a flood fill and OpenCV."""

import numpy as np
import pytest

from maskwright.ops.components import find_outlines, find_parts, label_parts


def flood(mask, corners):
    """Number the pieces of a mask by walking from pixel to pixel."""
    labels, count = np.zeros(mask.shape, int), 0
    steps = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    steps += [(1, 1), (1, -1), (-1, 1), (-1, -1)] if corners else []
    for start in zip(*np.nonzero(mask), strict=True):
        if labels[start]:
            continue
        count += 1
        todo = [start]
        while todo:
            y, x = todo.pop()
            inside = 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1]
            if inside and mask[y, x] and not labels[y, x]:
                labels[y, x] = count
                todo += [(y + dy, x + dx) for dy, dx in steps]
    return labels


def boxes_of(labels):
    found = []
    for number in range(1, labels.max() + 1):
        rows, columns = np.nonzero(labels == number)
        found.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return found


@pytest.fixture(scope="module")
def masks():
    rng = np.random.default_rng(0)
    return rng.random((12, 14, 11)) < np.linspace(0, 1, 12)[:, None, None]


def test_parts_equal_a_flood_fill(masks):
    found = find_parts(masks)
    for number, mask in enumerate(masks):
        labels = flood(mask, corners=True)
        mine = found.mask == number
        assert found.boxes[mine].tolist() == boxes_of(labels)
        assert found.area[mine].tolist() == np.bincount(labels[mask])[1:].tolist()
        assert (label_parts(mask) == labels).all()


def test_holes_equal_a_flood_fill(masks):
    found = find_outlines(masks)
    assert found.parts.boxes.tolist() == find_parts(masks).boxes.tolist()
    some = 0
    for number, mask in enumerate(masks):
        labels = flood(np.pad(~mask, 1, constant_values=True), corners=False)[1:-1, 1:-1]
        wanted = [labels == n for n in range(2, labels.max() + 1)]  # 1 is the outside
        boxes = [b for n, b in enumerate(boxes_of(labels), 1) if n > 1]
        mine = found.holes.mask == number
        assert found.holes.boxes[mine].tolist() == boxes
        assert found.holes.area[mine].tolist() == [int(hole.sum()) for hole in wanted]
        some += len(boxes)
    assert some > 20


def test_outer_outlines_equal_opencv(masks):
    cv2 = pytest.importorskip("cv2")
    found = find_outlines(masks)
    for number, mask in enumerate(masks):
        contours, _ = cv2.findContours(
            mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
        )
        mine = found.outer.mask == number
        # OpenCV lists the last one first.
        wanted = [(*cv2.boundingRect(c), cv2.contourArea(c)) for c in reversed(contours)]
        boxes = found.outer.boxes[mine]
        sizes = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]).tolist()
        areas = found.enclosed[mine].tolist()
        assert [(*box, area) for box, area in zip(sizes, areas, strict=True)] == wanted


def test_masks_without_pixels_or_without_an_end():
    for shape in ((0, 4, 4), (3, 4, 4), (1, 1, 1)):
        empty = find_outlines(np.zeros(shape, bool))
        assert not len(empty.parts.mask) and not len(empty.holes.mask) and not len(empty.enclosed)
    full = find_outlines(np.ones((2, 3, 5), bool))
    assert full.parts.boxes.tolist() == [[0, 0, 5, 3]] * 2 and full.parts.mask.tolist() == [0, 1]
    assert full.enclosed.tolist() == [8, 8] and full.outer.area.tolist() == [15, 15]


def test_a_spiral_is_one_part():
    mask = np.zeros((9, 9), bool)
    mask[0, :], mask[:, 8], mask[8, :], mask[2:, 0] = True, True, True, True
    mask[2, :7], mask[2:7, 6], mask[6, 2:6], mask[4:6, 2] = True, True, True, True
    found = find_outlines(mask[None])
    assert len(found.parts.mask) == 1 and len(found.holes.mask) == 0
    assert found.parts.area.tolist() == [int(mask.sum())]
