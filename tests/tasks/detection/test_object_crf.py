"""`crf` for the masks of objects, against a dense CRF on each crop, written out here."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_runs import make_split

import maskwright as mw
from maskwright.crf import Bilateral, Gaussian, dense_crf
from maskwright.data.discover import open_dataset
from maskwright.errors import OptionError
from maskwright.models import Meta, build_tiny
from maskwright.ops.masks import paste_rle
from maskwright.prediction.predictor import Predictor
from maskwright.structures import Detections
from maskwright.tasks.crf import CrfSettings
from maskwright.tasks.detection.crf import USUAL, make_crf, refined
from maskwright.tasks.detection.evaluate import DetectionEvaluation
from maskwright.tasks.detection.result import Result
from maskwright.tasks.detection.task import TASK
from maskwright.tasks.evaluation import evaluate

STRONG = CrfSettings(Gaussian(1, 2), Bilateral(15, 10, 4), 5)


def by_hand(found: Detections, image: np.ndarray, crf: CrfSettings) -> torch.Tensor:
    """The masks (N, H, W): the soft one at the pixels of the photo, and in its crop a CRF."""
    height, width = found.size
    full = torch.zeros((len(found), height, width), dtype=torch.bool)
    assert found.mask_probs is not None
    for one, (x1, y1, x2, y2), probs in zip(
        full, found.boxes.tolist(), found.mask_probs, strict=True
    ):
        x = (torch.arange(width) + 0.5 - x1) / (x2 - x1) * 2 - 1
        y = (torch.arange(height) + 0.5 - y1) / (y2 - y1) * 2 - 1
        grid = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1)
        soft = F.grid_sample(probs[None, None], grid[None], align_corners=False)[0, 0]
        margin = max(0.2 * max(x2 - x1, y2 - y1), 4)
        top, left = max(math.floor(y1 - margin), 0), max(math.floor(x1 - margin), 0)
        bottom, right = math.ceil(y2 + margin), math.ceil(x2 + margin)
        crop = soft[top:bottom, left:right]
        energies = -torch.stack([1 - crop, crop]).clip(1e-5, 1).log()
        made = dense_crf(
            energies,
            image[top:bottom, left:right],
            gaussian=crf.gaussian,
            bilateral=crf.bilateral,
            iterations=crf.iterations,
        )
        one[top:bottom, left:right] = made[1] >= 0.5
        if not one.any():
            one[:] = soft >= 0.5
    return full


def square(at: float, shade: int = 200, side: int = 8) -> tuple[Detections, np.ndarray]:
    """A bright square of 30 pixels, and a mask of it that is some pixels too small."""
    image = np.full((60, 70, 3), 30, np.uint8)
    image[15:45, 20:50] = shade
    box = torch.tensor([[20.0, 15, 50, 45]])
    probs = torch.full((1, side, side), 0.6)
    probs[:, :, int(at * side) :] = 0.4
    return Detections((60, 70), box, torch.tensor([0.9]), torch.tensor([0]), probs), image


def test_it_is_a_crf_on_every_crop(nuclei_mini: Path) -> None:
    data = open_dataset(nuclei_mini, "val")
    predictor = mw.load("nuclei", device="cpu")
    photo = data.image(0)[:64, :64]
    plain = predictor(photo, conf=0.5)
    result = predictor(photo, conf=0.5, crf=STRONG)
    assert len(plain) > 2 and plain.masks is not None
    want = by_hand(plain.detections, photo, STRONG)
    assert result.masks is not None and torch.equal(result.masks, want)
    changed = (want != plain.masks).float().mean() / plain.masks.float().mean()
    assert 0.001 < changed < 0.5
    # What goes by codes is the same: labels, JSON, parts of a result.
    assert (result.label_image() > 0).tolist() == want.any(0).tolist()
    assert result[1:].rle == (result.rle or [])[1:] and result[[1]].masks is not None
    assert torch.equal(result[[1]].masks[0], want[1])
    assert result.content()["objects"][2]["segmentation"] == (result.rle or [])[2]


def test_a_validation_scores_the_refined_masks(tmp_path: Path) -> None:
    make_split(tmp_path, "val", 2, 0)
    data = open_dataset(tmp_path, "val")
    torch.manual_seed(0)
    predictor = Predictor(
        build_tiny("mask_rcnn_resnet50_fpn"), Meta("m", {}, ["b", "coin"]), device="cpu"
    )
    for one in predictor.model.roi_heads.mask_head.parameters():
        one.data.mul_(4)  # masks of all shapes in place of whole boxes
    options = {"conf": 0.0, "iou": 0.5, "max_det": 4, "crf": "3,8,20"}
    settings = TASK.settings(predictor.model, options, options)
    scored = evaluate(
        TASK.evaluator(predictor.model, predictor.meta, data, settings, {}),
        predictor.model,
        TASK.eval_loader(predictor.model, data),
        total=2,
    )
    assert isinstance(scored, DetectionEvaluation)
    found: dict[int, list[bytes]] = {1: [], 2: []}
    for row in scored.detections:
        found[row["image_id"]].append(row["segmentation"]["counts"])
    for number in (1, 2):
        with pytest.warns(UserWarning, match="max_det"):
            one = predictor(data.image(number - 1), **options)
        plain = paste_rle(one.detections.mask_probs, one.boxes, one.size)
        coins = [k for k, label in enumerate(one.labels.tolist()) if label == 1]
        assert coins, "nothing to compare"
        assert found[number] == [one.detections.codes[k]["counts"] for k in coins]
        assert found[number] != [plain[k]["counts"] for k in coins]


@pytest.mark.parametrize("mode", ["grid", "torchvision"])
def test_borders_go_to_the_edges_of_the_photo(mode: str) -> None:
    found, image = square(0.75)
    result = Result(refined(found, image, STRONG, mode=mode), image, ["a"], paste_mode=mode)
    truth = np.zeros((60, 70), bool)
    truth[15:45, 20:50] = True
    plain = Result(found, image, ["a"], paste_mode=mode)
    assert plain.masks is not None and result.masks is not None
    assert (plain.masks[0].numpy() ^ truth).sum() > 150
    assert (result.masks[0].numpy() == truth).mean() > 0.998


def test_without_weight_nothing_moves() -> None:
    found, image = square(0.5)
    nothing = CrfSettings(Gaussian(1, 0), Bilateral(10, 5, 0))
    for mode in ("grid", "torchvision"):
        plain = Result(found, image, ["a"], paste_mode=mode)
        made = Result(refined(found, image, nothing, mode=mode), image, ["a"], paste_mode=mode)
        assert plain.masks is not None and made.masks is not None
        assert torch.equal(plain.masks, made.masks)


def test_a_mask_does_not_vanish() -> None:
    """A speck in a plain surface is smoothed away: then the mask is better as it was."""
    found, image = square(0.2, shade=30)
    eager = CrfSettings(Gaussian(10, 20), Bilateral(30, 30, 20), 10)
    want = Result(found, image, ["a"]).masks
    made = Result(refined(found, image, eager, mode="grid"), image, ["a"]).masks
    assert want is not None and made is not None and torch.equal(want, made)


def test_boxes_without_area_and_none_at_all() -> None:
    found, image = square(0.5)
    flat = Detections(
        found.size,
        torch.tensor([[5.0, 5, 5, 9]]),
        found.scores,
        found.labels,
        found.mask_probs,
    )
    masks = Result(refined(flat, image, STRONG, mode="grid"), image, ["a"]).masks
    assert masks is not None and masks.shape == (1, 60, 70) and not masks.any()
    nothing = found.keep(torch.zeros(1, dtype=torch.bool))
    masks = Result(refined(nothing, image, STRONG, mode="grid"), image, ["a"]).masks
    assert masks is not None and masks.shape == (0, 60, 70)


def test_what_does_not_fit_is_told() -> None:
    boxes = Predictor(
        build_tiny("faster_rcnn_resnet50_fpn"), Meta("boxes", {}, ["a", "b"]), device="cpu"
    )
    photo = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(OptionError, match="crf=true refines the borders of masks"):
        boxes(photo, crf="true")
    masks = Predictor(
        build_tiny("mask_rcnn_resnet50_fpn"), Meta("masks", {}, ["a", "b"]), device="cpu"
    )
    with pytest.raises(OptionError, match="crf=search is for models that give every pixel"):
        masks(photo, crf="search")
    with pytest.raises(OptionError, match="weight,sxy,srgb"):
        masks(photo, crf="1,2")
    assert make_crf("3,3,8", masks.model) == make_crf(True, masks.model) == USUAL
    assert make_crf("false", masks.model) is None
