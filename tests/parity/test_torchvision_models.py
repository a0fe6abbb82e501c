"""torchvision's detectors with random weights: the same detections here, and the way back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models import detection, get_model_weights
from torchvision.ops.misc import FrozenBatchNorm2d

from maskwright.converters.torchvision import from_maskwright, to_maskwright
from maskwright.data.pixels.images import load_image
from maskwright.data.pixels.resizing import collate_images, resize_image
from maskwright.models import PostProcess, build, get_entry
from maskwright.structures import COCO_PERSON

SHORT, LONG = 224, 320
CASES = [
    ("fasterrcnn_resnet50_fpn", "faster_rcnn_resnet50_fpn"),
    ("maskrcnn_resnet50_fpn", "mask_rcnn_resnet50_fpn"),
    ("fasterrcnn_resnet50_fpn_v2", "faster_rcnn_resnet50_fpn_v2"),
    ("maskrcnn_resnet50_fpn_v2", "mask_rcnn_resnet50_fpn_v2"),
    ("keypointrcnn_resnet50_fpn", "keypoint_rcnn_resnet50_fpn"),
]


def random_torchvision(name: str) -> torch.nn.Module:
    """A model whose scores differ enough to have an order; statistics of the norms random too."""
    torch.manual_seed(0)
    model = getattr(detection, name)(
        weights=None, weights_backbone=None, min_size=SHORT, max_size=LONG
    ).eval()
    for key, value in model.state_dict().items():
        if key.endswith("running_mean"):
            value.normal_(std=0.1)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif "bn" in key and key.endswith("weight"):
            value.uniform_(0.3, 0.8)
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.weight.mul_(40)
        model.roi_heads.box_predictor.bbox_pred.weight.mul_(3)
        model.rpn.head.cls_logits.weight.mul_(20)
    return model


def ours_from(state: dict[str, Tensor], name: str, conventions: str | None = None):
    options = {"imgsz": (SHORT, LONG)}
    with torch.device("meta"):
        names = list(build(name, 1, **options).state_dict())
    converted = to_maskwright(state, names, conventions=conventions)
    detector = build(name, len(converted.names), **options, **converted.options).eval()
    missing, unexpected = detector.load_state_dict(converted.state, strict=False)
    assert not missing and not unexpected
    return detector, converted


def photos(shared_data: Path | None, mini: Path) -> list[Path]:
    found = sorted((mini / "images" / "val").glob("*.png"))[:1]
    if shared_data is not None:
        found += sorted((shared_data / "penn_fudan/images/val").glob("*.jpg"))[:1]
        found += sorted((shared_data / "coco_subset/images/val").glob("*.jpg"))[:1]
    return found


@pytest.fixture(scope="module")
def pictures(nuclei_mini: Path, request: pytest.FixtureRequest) -> list[np.ndarray]:
    """Real photos beside the checkout, and one that is always there."""
    root = Path(__file__).resolve().parents[3] / "shared" / "data"
    return [load_image(p) for p in photos(root if root.is_dir() else None, nuclei_mini)]


# One network in every run; the tensors of the others are compared in every run.
WITH_PHOTOS = [
    pytest.param(*case, marks=() if case[1] == "mask_rcnn_resnet50_fpn" else pytest.mark.slow)
    for case in CASES
]


@pytest.mark.parametrize(("theirs", "ours"), WITH_PHOTOS)
def test_same_detections_in_the_same_order(theirs: str, ours: str, pictures) -> None:
    model = random_torchvision(theirs)
    state = model.state_dict()
    detector, converted = ours_from(state, ours)
    most = 30 if "mask" in ours else 100  # masks of many take long
    model.roi_heads.detections_per_img = most
    # Raw masks instead of pasted ones: the network is under test here.
    model.transform.postprocess = lambda result, *_: result
    for image in pictures:
        height, width = image.shape[:2]
        tensor = torch.from_numpy(image).permute(2, 0, 1)
        size = detector.resize.target_size(height, width)
        pixels = resize_image(image, size, detector.resize)
        images = collate_images([(pixels, (height, width))])
        with torch.no_grad():
            expected = model([tensor / 255])[0]
            found = detector(images, PostProcess(0.05, 0.5, most))
        count = int(found.valid.sum())
        assert count == len(expected["boxes"]) > 10
        assert torch.equal(found.labels[0, :count] + 1, expected["labels"])
        scores = found.scores[0, :count]
        torch.testing.assert_close(scores, expected["scores"], rtol=0, atol=1e-5)
        torch.testing.assert_close(found.boxes[0, :count], expected["boxes"], rtol=0, atol=1e-3)
        if "mask" in ours:
            crops = found.mask_crops[0, :count]
            torch.testing.assert_close(crops, expected["masks"][:, 0], rtol=0, atol=1e-4)
        if "keypoint" in ours:
            points, theirs_points = found.keypoints[0, :count], expected["keypoints"]
            torch.testing.assert_close(points[..., :2], theirs_points[..., :2], rtol=0, atol=1e-2)
            torch.testing.assert_close(
                points[..., 2], expected["keypoints_scores"], rtol=1e-5, atol=1e-4
            )
    back, report = from_maskwright(detector.state_dict(), converted.extras, converted.category_ids)
    assert set(back) == set(state)
    assert all(torch.equal(back[key], state[key]) for key in state)
    assert not report.filled
    assert set(converted.report.used) | set(converted.report.ignored) == set(state)


def test_older_names_and_the_epsilon_of_the_published_files(pictures) -> None:
    """Version 1 as published: older names, frozen norm with an epsilon of 0."""
    model = random_torchvision("maskrcnn_resnet50_fpn")
    detector, _ = ours_from(model.state_dict(), "mask_rcnn_resnet50_fpn", "torchvision_v1")
    for module in model.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.BatchNorm2d):
                frozen = FrozenBatchNorm2d(child.num_features, eps=0.0)
                frozen.load_state_dict(child.state_dict())
                setattr(module, name, frozen)
    older = {}
    for key, value in model.state_dict().items():
        key = key.replace(".conv.0.0.", ".conv.")
        for i in range(4):
            key = key.replace(f"mask_head.{i}.0.", f"mask_head.mask_fcn{i + 1}.")
            for part in ("inner_blocks", "layer_blocks"):
                key = key.replace(f"{part}.{i}.0.", f"{part}.{i}.")
        older[key] = value
    assert len(older) == 307 and "rpn.head.conv.weight" in older
    again, converted = ours_from(older, "mask_rcnn_resnet50_fpn")
    assert converted.options == {"conventions": "torchvision_v1"}
    for a, b in zip(detector.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    pixels = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        expected = model.backbone.body(pixels)
        found = again.backbone(pixels)
    for a, b in zip(found, expected.values(), strict=True):
        assert float((a - b).norm() / b.norm()) < 1e-5


@pytest.mark.parametrize(("theirs", "ours"), CASES)
def test_published_files_are_those_of_torchvision(theirs: str, ours: str) -> None:
    published = get_entry(ours).weights["coco"]
    weights = get_model_weights(theirs).DEFAULT
    assert published.url == weights.url
    assert Path(published.url).stem.endswith(f"-{published.sha256}")
    figures = weights.meta["_metrics"]["COCO-val2017"]
    names = {"box/AP": "box_map", "mask/AP": "mask_map", "keypoints/AP": "kp_map"}
    assert {names[key]: value for key, value in published.metrics.items()} == figures


@pytest.mark.parametrize("joints", [17, 3])
def test_number_and_names_of_the_keypoints_come_along(joints: int) -> None:
    with torch.device("meta"):
        model = detection.keypointrcnn_resnet50_fpn(
            weights=None, weights_backbone=None, num_keypoints=joints
        )
        ours = build("keypoint_rcnn_resnet50_fpn", 1)
    converted = to_maskwright(model.state_dict(), list(ours.state_dict()))
    assert converted.skeleton is not None
    assert converted.options["num_keypoints"] == len(converted.skeleton) == joints
    assert converted.names == (["person"] if joints == 17 else ["class_1"])
    assert (converted.skeleton == COCO_PERSON) == (joints == 17)
    with torch.device("meta"):
        boxes_only = list(build("faster_rcnn_resnet50_fpn", 1).state_dict())
    without = to_maskwright(model.state_dict(), boxes_only)
    assert without.skeleton is None and "num_keypoints" not in without.options
    assert any("keypoint" in key for key in without.report.ignored)


def test_torchvision_takes_masks_and_keypoints_from_one_model() -> None:
    """Its heads know both, though no model of its own has them."""
    with torch.device("meta"):
        state = build("mask_keypoint_rcnn_resnet50_fpn", 2).state_dict()
        masks = detection.maskrcnn_resnet50_fpn(
            weights=None, weights_backbone=None, num_classes=3
        ).state_dict()
        points = detection.keypointrcnn_resnet50_fpn(
            weights=None, weights_backbone=None, num_classes=3
        ).state_dict()
    theirs, _ = from_maskwright(state, {}, [1, 2])
    expected = {k: v for k, v in {**masks, **points}.items() if "num_batches_tracked" not in k}
    assert {k: v.shape for k, v in theirs.items()} == {k: v.shape for k, v in expected.items()}


def test_unused_classes_can_be_dropped() -> None:
    model = random_torchvision("fasterrcnn_resnet50_fpn")
    names = list(build("faster_rcnn_resnet50_fpn", 90).state_dict())
    all_rows = to_maskwright(model.state_dict(), names)
    fewer = to_maskwright(model.state_dict(), names, drop_unused=True)
    assert len(all_rows.names) == 90 and all_rows.names.count(None) == 10
    assert len(fewer.names) == 80 and None not in fewer.names
    assert fewer.category_ids[-1] == 90
    rows = fewer.state["roi_heads.box_head.logits.weight"]
    source = model.state_dict()["roi_heads.box_predictor.cls_score.weight"]
    assert torch.equal(rows[-1], source[0]), "background moves to the end"
    assert torch.equal(rows[79], source[90]) and torch.equal(rows[11], source[13])
    back, report = from_maskwright(fewer.state, fewer.extras, fewer.category_ids)
    assert back["roi_heads.box_predictor.cls_score.weight"].shape == source.shape
    assert any("unused" in text for text in report.filled.values())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: s.pop("roi_heads.box_predictor.cls_score.weight"), "cls_score.weight"),
        (lambda s: s.pop("rpn.head.bbox_pred.bias"), "rpn.head.bbox_pred.bias"),
        (
            lambda s: s.update({"roi_heads.box_predictor.bbox_pred.weight": torch.zeros(8, 4)}),
            "needs 364",
        ),
    ],
)
def test_incomplete_weights_name_the_tensor(damage, message: str) -> None:
    with torch.device("meta"):
        model = detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
        names = list(build("faster_rcnn_resnet50_fpn", 90).state_dict())
    state = dict(model.state_dict())
    damage(state)
    with pytest.raises(ValueError, match=message):
        to_maskwright(state, names)
