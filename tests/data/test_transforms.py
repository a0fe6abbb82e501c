"""Augmented images, masks and boxes against a plain reference on full-size arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from maskwright.data import Augment, Dataset, open_dataset, read_coco
from maskwright.data.augment.crops import resample_crop
from maskwright.data.augment.view import View
from maskwright.data.batches import random_source
from maskwright.data.transforms import Sample, draw_view, make_sample
from maskwright.structures import Resize

Scene = Any  # of conftest.py
SAME = Resize(None, None, 1.0)


def full_mask(dataset: Dataset, index: int, k: int) -> np.ndarray:
    crop, (x1, y1, x2, y2) = dataset.mask(index, k)
    full = np.zeros(dataset[index].size, np.uint8)
    full[y1:y2, x1:x2] = crop
    return full


def reference(array: np.ndarray, view: View) -> np.ndarray:
    """Resize the whole array with Pillow, put black around, cut, mirror, turn."""
    image = Image.fromarray(array).resize(view.full[::-1], Image.Resampling.BILINEAR)
    x1, y1, x2, y2 = view.window
    margin = max(-x1, -y1, x2 - view.full[1], y2 - view.full[0], 0)
    around = [(margin, margin)] * 2 + [(0, 0)] * (array.ndim - 2)
    out = np.pad(np.asarray(image), around)[y1 + margin : y2 + margin, x1 + margin : x2 + margin]
    out = out[:, ::-1] if view.flip else out
    out = out[::-1] if view.vflip else out
    return np.rot90(out, view.turns)


def placed(sample: Sample, k: int) -> np.ndarray:
    assert sample.masks is not None
    crop, (x1, y1, x2, y2) = sample.masks[k]
    full = np.zeros(sample.pixels.shape[1:], bool)
    full[y1:y2, x1:x2] = crop
    return full


def tight_box(mask: np.ndarray) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def check_sample(dataset: Dataset, index: int, resize: Resize, augment: Augment, seed: int) -> int:
    """Compare a sample with the reference; return the number of objects."""
    sample = make_sample(dataset, index, resize, augment, random_source(seed, 0, index))
    record = dataset[index]
    view = draw_view(record, resize, augment, random_source(seed, 0, index))
    pixels = reference(dataset.image(index), view)
    # Pillow takes the corners of a window in single precision: a rounding step may differ.
    assert np.abs(sample.pixels.numpy().transpose(1, 2, 0) - pixels).max() <= 2
    masks = [
        reference(full_mask(dataset, index, k) * 255, view) >= 128
        for k in range(len(record.labels))
    ]
    masks = [
        mask for mask, crowd in zip(masks, record.crowd, strict=True) if mask.any() and not crowd
    ]
    height, width = sample.pixels.shape[1:]
    assert len(sample.masks or ()) == len(sample.boxes) == len(sample.labels)
    inter = union = 0
    for k in np.flatnonzero(~sample.crowd):
        mask = placed(sample, int(k))
        overlaps = [int((mask & other).sum()) for other in masks]
        twin = masks[int(np.argmax(overlaps))]
        inter += max(overlaps)
        union += int((mask | twin).sum())
        x1, y1, x2, y2 = sample.boxes[k].tolist()
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        if x1 == 0 or y1 == 0 or x2 == width or y2 == height:
            # At the window's edge: cut (box of the mask) or just touching it.
            assert np.abs(sample.boxes[k] - tight_box(mask)).max() <= 2
    if union:
        assert inter / union > 0.98
    return len(sample.boxes)


AUGMENTS = {
    "none": Augment(flip=0),
    "flips": Augment(flip=0.5, vflip=0.5),
    "turns": Augment(flip=0.5, rotate90=0.8),
    "crop": Augment(crop=(120, 150)),
    "large jitter": Augment(scale_jitter=(0.4, 2.0), crop=200, vflip=0.5, rotate90=0.5),
    "canvas": Augment(expand=1.0),
    "patches": Augment(expand=0.5, patches=True, vflip=0.5, rotate90=0.5),
    "part of a patch": Augment(patches=True, scale_jitter=(0.8, 2.0), crop=220),
}
# The others are parts of these.
MIXED = ("large jitter", "patches", "part of a patch")
SOME = [n if n in MIXED else pytest.param(n, marks=pytest.mark.slow) for n in AUGMENTS]


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("factor", [pytest.param(1.0, marks=pytest.mark.slow), 1.25])
def test_run_length_masks(nuclei_mini: Path, name: str, factor: float) -> None:
    dataset = open_dataset(nuclei_mini)
    resize = Resize(None, None, factor)
    assert sum(check_sample(dataset, i, resize, AUGMENTS[name], 7) for i in range(0, 32, 8)) > 20


@pytest.mark.parametrize("jitter", [(1.0, 1.0), (0.5, 0.9), (1.2, 2.0)])
def test_stretched_images_keep_their_size(nuclei_mini: Path, jitter: tuple[float, float]) -> None:
    dataset = open_dataset(nuclei_mini)
    resize = Resize(None, None, stretch=(224, 160))
    augment = Augment(vflip=0.5, scale_jitter=jitter, expand=0.3, patches=jitter[1] == 1)
    assert sum(check_sample(dataset, i, resize, augment, 5) for i in range(0, 32, 8)) > 20
    for index in range(4):
        view = draw_view(dataset[index], resize, augment, random_source(1, 0, index))
        assert view.size == (224, 160)


@pytest.mark.parametrize("name", SOME)
def test_polygons(shared_data: Path, name: str) -> None:
    dataset = open_dataset(shared_data / "penn_fudan", "val")
    resize = Resize(400, 600)
    assert sum(check_sample(dataset, i, resize, AUGMENTS[name], 3) for i in range(0, 25, 5)) >= 5


def test_without_augmentation_boxes_are_the_annotated_ones(shared_data: Path) -> None:
    dataset = open_dataset(shared_data / "coco_subset", "val")
    resize = Resize(200, 333)
    for index in range(0, 40, 4):
        record = dataset[index]
        sample = make_sample(dataset, index, resize, None, random_source(0, 0, index))
        height, width = resize.target_size(*record.size)
        assert sample.pixels.shape == (3, height, width)
        scale = np.array([width / record.size[1], height / record.size[0]] * 2)
        scaled = record.boxes * scale
        expected = scaled[(scaled[:, 2:] - scaled[:, :2]).min(1) >= 1]
        np.testing.assert_allclose(sample.boxes, expected, rtol=1e-4, atol=1e-3)


def test_native_scale_is_exact(nuclei_mini: Path) -> None:
    dataset = open_dataset(nuclei_mini, "val")
    for index in range(len(dataset)):
        sample = make_sample(dataset, index, SAME, None, random_source(0, 0, 0))
        for k in range(len(sample.labels)):
            np.testing.assert_array_equal(placed(sample, k), full_mask(dataset, index, k) > 0)
        np.testing.assert_array_equal(
            sample.pixels.numpy(), dataset.image(index).transpose(2, 0, 1).astype(np.float32)
        )


def test_box_of_a_cut_object_is_that_of_its_mask(scene: Scene) -> None:
    # An L: in the lower right window of 4 x 4 only its foot is left.
    scene.first["segmentation"] = [[2, 2, 6, 2, 6, 10, 12, 10, 12, 12, 2, 12]]
    dataset = read_coco(scene.write())
    augment = Augment(flip=0, crop=(8, 8), min_visible=0)
    seen = set()
    for seed in range(60):
        rng = random_source(seed, 0, 0)
        view = draw_view(dataset[0], SAME, augment, random_source(seed, 0, 0))
        sample = make_sample(dataset, 0, SAME, augment, rng)
        x1, y1, x2, y2 = view.window
        part = full_mask(dataset, 0, 0)[y1:y2, x1:x2] > 0
        assert len(sample.boxes) == part.any()
        if part.any():
            assert sample.boxes[0].tolist() == tight_box(part)
        seen.add(bool(part.any()))
    assert True in seen


def test_windows_show_objects_if_there_are_any(scene: Scene) -> None:
    augment = Augment(crop=(12, 12))
    dataset = read_coco(scene.write())
    counts = [
        len(make_sample(dataset, 0, SAME, augment, random_source(seed, 0, 0)).boxes)
        for seed in range(50)
    ]
    assert sum(counts) >= 48  # a window drawn without looking would show it in one case of three
    scene.content["annotations"] = []
    empty = read_coco(scene.write())
    sample = make_sample(empty, 0, SAME, augment, random_source(0, 0, 0))
    assert sample.boxes.shape == (0, 4)
    assert sample.pixels.shape == (3, 12, 12)
    assert sample.masks is None


def test_boxes_without_masks_are_clipped(scene: Scene) -> None:
    for entry in scene.content["annotations"]:
        entry["segmentation"] = []
    dataset = read_coco(scene.write())
    augment = Augment(flip=0, crop=(8, 8), min_visible=0)
    view = draw_view(dataset[0], SAME, augment, random_source(1, 0, 0))
    sample = make_sample(dataset, 0, SAME, augment, random_source(1, 0, 0))
    x1, y1, _, _ = view.window
    expected = np.clip(np.array([2, 2, 12, 12]) - [x1, y1, x1, y1], 0, 8)
    np.testing.assert_array_equal(sample.boxes, [expected])


def _sides_of(boxes: np.ndarray) -> list[float]:
    return (boxes[:, 2:] - boxes[:, :2]).ravel().tolist()  # whatever the augmentation turned


def test_barely_visible_objects_are_neither_objects_nor_background(scene: Scene) -> None:
    dataset = read_coco(scene.write())
    for seed in range(40):
        augment = Augment(crop=(11, 11), min_visible=0.6)
        view = draw_view(dataset[0], SAME, augment, random_source(seed, 0, 0))
        sample = make_sample(dataset, 0, SAME, augment, random_source(seed, 0, 0))
        x1, y1, x2, y2 = view.window
        inside = np.clip(np.array([2, 2, 12, 12]) - [x1, y1, x1, y1], 0, 11)
        share = (full_mask(dataset, 0, 0)[y1:y2, x1:x2]).sum() / 100
        assert sample.crowd.tolist() == ([share < 0.6] if share else [])
        assert sorted(_sides_of(sample.boxes)) == sorted(_sides_of(inside[None][: int(share > 0)]))


def test_crowd_regions_keep_box_and_flag(shared_data: Path) -> None:
    dataset = open_dataset(shared_data / "coco_subset", "val")
    index = next(i for i in range(len(dataset)) if dataset[i].crowd.any())
    sample = make_sample(dataset, index, Resize(200, 333), None, random_source(0, 0, 0))
    assert sample.crowd.any()
    assert sample.masks is not None
    for crowd, (crop, frame) in zip(sample.crowd, sample.masks, strict=True):
        assert (crop.size == 0) == crowd
        assert (frame == (0, 0, 0, 0)) == crowd


def test_keypoints_follow_and_swap_sides(shared_data: Path) -> None:
    file = shared_data / "coco_subset/annotations/person_keypoints_val.json"
    dataset = open_dataset(file, "val")
    index = next(i for i in range(len(dataset)) if (dataset[i].keypoints[:, :, 2] > 0).all(1).any())
    record = dataset[index]
    width = record.size[1]
    sample = make_sample(dataset, index, SAME, Augment(flip=1), random_source(0, 0, 0))
    assert record.keypoints is not None
    assert sample.keypoints is not None
    left, right = (dataset.skeleton.names.index(f"{side}_wrist") for side in ("left", "right"))
    shown = record.keypoints[:, left, 2] > 0
    np.testing.assert_allclose(
        sample.keypoints[shown, right, 0], width - record.keypoints[shown, left, 0], rtol=1e-5
    )
    np.testing.assert_allclose(sample.keypoints[shown, right, 1], record.keypoints[shown, left, 1])
    assert (sample.keypoints[sample.keypoints[..., 2] == 0] == 0).all()


def test_photometric_changes_pixels_only(nuclei_mini: Path) -> None:
    dataset = open_dataset(nuclei_mini)
    plain, changed = (
        make_sample(
            dataset, 1, SAME, Augment(flip=0, photometric=photometric), random_source(5, 0, 1)
        )
        for photometric in (False, True)
    )
    assert not torch.equal(plain.pixels, changed.pixels)
    assert changed.pixels.min() >= 0
    assert changed.pixels.max() <= 255
    np.testing.assert_array_equal(plain.boxes, changed.boxes)


@example(seed=73, factors=(2.0, 0.5), corner=(0, 0))  # touches the border of the image
@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    factors=st.tuples(st.floats(0.05, 4), st.floats(0.05, 4)),
    corner=st.tuples(st.integers(0, 30), st.integers(0, 30)),
)
def test_any_scale_keeps_crops_inside(
    seed: int, factors: tuple[float, float], corner: tuple[int, int]
) -> None:
    rng = np.random.default_rng(seed)
    crop = rng.random(rng.integers(1, 12, 2)) < 0.7
    h, w = crop.shape
    x, y = corner
    full = (max(round(50 * factors[0]), 1), max(round(60 * factors[1]), 1))
    x1, y1 = int(rng.integers(full[1])), int(rng.integers(full[0]))
    x2, y2 = int(rng.integers(x1, full[1])) + 1, int(rng.integers(y1, full[0])) + 1
    view = View(full, (full[1] / 60, full[0] / 50), (x1, y1, x2, y2))
    out, frame = resample_crop(crop, (x, y, x + w, y + h), view)
    native = np.zeros((50, 60), np.uint8)
    native[y : y + h, x : x + w] = crop * 255
    expected = reference(native, view) >= 128
    found = np.zeros_like(expected)
    found[frame[1] : frame[3], frame[0] : frame[2]] = out
    # The rounding of Pillow's two passes may tip a pixel that lies on the threshold.
    soft = reference(native, view).astype(int)
    assert ((found == expected) | (np.abs(soft - 127.5) <= 3)).all()
    if out.size:
        assert tight_box(found) == list(frame)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"flip": 1.5}, "flip"),
        ({"rotate90": -1}, "rotate90"),
        ({"scale_jitter": (2.0, 1.0)}, "scale_jitter"),
        ({"crop": 0}, "crop"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Augment(**options)
