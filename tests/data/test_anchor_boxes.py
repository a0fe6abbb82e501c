"""Anchors by k-means over boxes, and batches of one size after another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from maskwright.cli import main
from maskwright.data.anchors.boxes import box_sizes, cluster_boxes, mean_overlap, overlaps
from maskwright.data.discover import open_dataset
from maskwright.data.loader import SAME_SIZE, make_loader
from maskwright.errors import OptionError
from maskwright.models import Meta, build, build_tiny
from maskwright.structures import Resize
from maskwright.tasks import get_task
from maskwright.tasks.detection.data_options import anchors, own_anchors
from maskwright.tasks.detection.recipe import DetectionRecipe


def blobs(count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    centres = np.array([[10.0, 12], [40, 20], [90, 120]])
    return centres, np.concatenate([c * rng.uniform(0.95, 1.05, (count, 2)) for c in centres])


def test_overlap_is_that_of_boxes_with_one_centre() -> None:
    centres, sizes = blobs(5)
    boxes = [np.concatenate([-part / 2, part / 2], 1) for part in (sizes, centres)]
    wanted = box_iou(*(torch.from_numpy(part) for part in boxes)).numpy()
    np.testing.assert_allclose(overlaps(sizes, centres), wanted)


def test_clusters_are_found_and_no_step_of_one_anchor_is_better() -> None:
    centres, sizes = blobs()
    found = cluster_boxes(sizes, 3)
    np.testing.assert_allclose(found, centres, rtol=0.02)
    best = mean_overlap(sizes, found)
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert mean_overlap(sizes, found * rng.uniform(0.8, 1.25, found.shape)) < best
    # Nearest by overlap, and each anchor the mean of its boxes.
    nearest = overlaps(sizes, found).argmax(1)
    for number in range(3):
        np.testing.assert_allclose(found[number], sizes[nearest == number].mean(0))


def test_more_anchors_overlap_better_on_real_boxes(nuclei_mini: Path) -> None:
    report = anchors(nuclei_mini, "yolo_v2")
    means = [report.overlaps[count] for count in range(1, 10)]
    assert report.boxes == 926 and means == sorted(means) and means[4] > 0.7
    dataset, rule = open_dataset(nuclei_mini, "train"), build("yolo_v2", 1).resize
    sizes = 32 * np.array(report.anchors[5]).reshape(-1, 2)
    assert mean_overlap(box_sizes(dataset, rule), sizes) == pytest.approx(means[4], abs=1e-4)


def test_trainings_take_as_many_as_the_model_has(nuclei_mini: Path) -> None:
    dataset = open_dataset(nuclei_mini, "train")

    def recipe(model: str, **more: object) -> DetectionRecipe:
        return DetectionRecipe(data=nuclei_mini, model=model, weights="none", **more)

    own, told = own_anchors(recipe("yolo_lite"), {"imgsz": 320}, dataset)
    assert len(own["anchors"]) == 10 and "mean IoU 0.7" in told
    assert own_anchors(recipe("yolo_lite"), {"anchors": (1.0, 1.0)}, dataset) == ({}, "")
    assert own_anchors(recipe("yolo_v1_tiny"), {}, dataset) == ({}, "")


def test_too_few_boxes_and_models_without_anchors(nuclei_mini: Path) -> None:
    with pytest.raises(ValueError, match="5 anchors need as many different boxes, and there are 1"):
        cluster_boxes(np.array([[3.0, 4], [3, 4]]), 5)
    for model in ("yolo_v1_tiny", "retinanet_lite0_fpn"):
        with pytest.raises(OptionError, match="has no anchors to be clustered"):
            anchors(nuclei_mini, model)


def test_the_command_shows_a_row_for_each_number(nuclei_mini: Path, capsys) -> None:
    assert main(["data", "anchors", f"data={nuclei_mini}", "model=yolo_lite"]) == 0
    text = capsys.readouterr().out
    assert "926 boxes, train split" in text and "mean IoU" in text


@pytest.mark.parametrize(
    "rule", [Resize(None, 96), Resize(None, None, within=(96, 96), rounding="whole")]
)
def test_ten_batches_have_one_size(nuclei_mini: Path, rule: Resize) -> None:
    dataset = open_dataset(nuclei_mini, "train")
    dataset = dataset.select(range(22), "train")

    def sides(rank: int = 0, world: int = 1) -> list[tuple[int, ...]]:
        loader = make_loader(
            dataset,
            batch=2 // world,
            resize=rule,
            augment=None,
            seed=3,
            workers=0,
            shuffle=True,
            rank=rank,
            world=world,
            multiscale=(64, 130),
        )
        found = []
        for epoch in range(2):
            loader.set_epoch(epoch)
            found += [tuple(batch.images.sizes.amax(0).tolist()) for batch in loader]
        return found

    one = sides()
    per_epoch = len(one) // 2
    for epoch in range(2):
        for first in range(0, per_epoch, SAME_SIZE):
            begin = epoch * per_epoch + first
            together = one[begin : begin + min(SAME_SIZE, per_epoch - first)]
            assert len({max(size) for size in together}) == 1
    assert {max(size) for size in one} <= {64, 96, 128} and len({max(s) for s in one}) > 1
    assert [max(size) for size in sides(1, 2)] == [max(size) for size in one]


def test_multiscale_says_what_it_takes(nuclei_mini: Path) -> None:
    with pytest.raises(OptionError, match="a multiple of 32 between them"):
        DetectionRecipe(data=nuclei_mini, multiscale=(65, 90))
    model = build_tiny("yolo_v1", 1)
    recipe = DetectionRecipe(data=nuclei_mini, model="yolo_v1", multiscale=(64, 128))
    dataset, meta = open_dataset(nuclei_mini, "train"), Meta("yolo_v1", {}, ["nucleus"])
    with pytest.raises(OptionError, match="takes images of one size alone"):
        get_task("detect").check(model, recipe, dataset, meta)
