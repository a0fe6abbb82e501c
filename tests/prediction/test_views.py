"""Several views of a photo: what is found in each comes back to the same place, and is merged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from maskwright.errors import OptionError
from maskwright.models import Meta, PostProcess, build_tiny
from maskwright.models.detection.base import Detector
from maskwright.ops import batched_nms
from maskwright.prediction.predict import predict
from maskwright.prediction.predictor import Predictor
from maskwright.prediction.val import val
from maskwright.structures import Detections, Images, Instances, Resize, Skeleton
from maskwright.tasks.detection.views import detect_views, mirror, to_detections
from maskwright.tasks.views import Views

POST = PostProcess(score_thresh=0.05, nms_thresh=0.5, max_det=10)
SKELETON = Skeleton(("left_end", "right_end", "top"))


class Bright(Detector):
    """Finds the bright rectangle of an image, which is red in its left half; keeps what it saw.

    Keypoints are named by look, as a model does: `left_end` is where an object that faces the
    viewer has its left, on the right side of the picture, whatever the picture shows.
    """

    task = "segment+keypoints"
    num_keypoints = 3

    def __init__(self, scores: tuple[float, ...] = (0.9,), *, looks: bool = True) -> None:
        zero, one = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        super().__init__(2, mean=zero, std=one, resize=Resize(None, 128))
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.scores = scores
        self.looks = looks
        self.widths: list[int] = []
        self.calls = 0

    def forward(self, images: Images, post: PostProcess | None = None) -> Instances:
        boxes, valid = torch.zeros(len(images), 2, 4), torch.zeros(len(images), 2, dtype=torch.bool)
        for b in range(len(images)):
            rows, columns = torch.nonzero(images.pixels[b, 0] > 127, as_tuple=True)
            edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            boxes[b, 0] = torch.tensor([int(edge) for edge in edges])
            valid[b, 0] = True
        score = self.scores[self.calls % len(self.scores)]
        self.calls += 1
        self.widths.append(int(images.sizes[0, 1]))
        labels = torch.ones(len(images), 2, dtype=torch.int64) * valid
        found = Instances(boxes, labels, valid, torch.full(valid.shape, score) * valid)
        return self.look(images, found)

    def look(self, images: Images, found: Instances) -> Instances:
        crops = torch.zeros(*found.valid.shape, 8, 8)
        points = torch.zeros(*found.valid.shape, 3, 3)
        for b, k in found.valid.nonzero().tolist():
            x1, y1, x2, y2 = found.boxes[b, k].tolist()
            # Where green is dark, the object is red: one half of it.
            inside = images.pixels[b, 1, round(y1) : round(y2), round(x1) : round(x2)] < 127
            small = torch.nn.functional.adaptive_avg_pool2d(inside.float()[None], (8, 8))
            crops[b, k] = small[0]
            middle = (y1 + y2) / 2
            points[b, k] = torch.tensor([[x2, middle, 0.5], [x1, middle, 0.7], [x1, y1, 0.2]])
        return Instances(
            found.boxes, found.labels, found.valid, found.scores, mask_crops=crops, keypoints=points
        )

    def refine(self, images: Images, found: Instances) -> Instances | None:
        return self.look(images, found) if self.looks else None


def photo(width: int = 96, height: int = 64) -> np.ndarray:
    """Black, with a rectangle from (16, 8) to (48, 40): red in its left half, white else."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[8:40, 16:48] = 255
    pixels[8:40, 16:32, 1:] = 0
    return pixels


def predictor(detector: Detector) -> Predictor:
    meta = Meta("bright", {}, ["a", "b"], keypoints=SKELETON)
    return Predictor(detector, meta, device="cpu")


@pytest.mark.parametrize("looks", [True, False])
@pytest.mark.parametrize("tta", ["flip", "0.5,1,2", "0.75,1.5,flip"])
def test_every_view_finds_the_same(tta: str, looks: bool) -> None:
    model = predictor(Bright(looks=looks))
    once, often = model(photo()), model(photo(), tta=tta)
    assert len(once) == len(often) == 1
    torch.testing.assert_close(often.boxes, torch.tensor([[16.0, 8, 48, 40]]), atol=1.5, rtol=0)
    assert often.labels.tolist() == [1] and often.scores.tolist() == once.scores.tolist()
    # The left half: a mask that came back unmirrored would be the right one.
    for result in (once, often):
        mask = result.masks[0]
        assert mask[10:38, 18:30].all() and not mask[:, 34:].any()
    # Ends keep their sides: the left one of an object that faces us lies at the right.
    assert once.keypoints is not None and often.keypoints is not None
    torch.testing.assert_close(often.keypoints[:, :2], once.keypoints[:, :2], atol=2.5, rtol=0)
    scores = torch.tensor([[0.5, 0.7, 0.2]])
    if "flip" in tta and looks:  # of each keypoint, the view where it scores highest
        scores = torch.tensor([[0.7, 0.7, 0.2]])
    torch.testing.assert_close(often.keypoints[..., 2], scores)


def test_views_are_of_the_sizes_asked_for() -> None:
    detector = Bright()
    predictor(detector)(photo(), tta="0.5,1,2,flip")
    assert detector.widths == [64, 128, 256, 64, 128, 256]
    detector.widths.clear()
    predictor(detector)(photo(), tta="1")
    assert detector.widths == [128]


def test_a_box_keeps_the_view_of_its_best_score() -> None:
    for scores in ((0.3, 0.6), (0.6, 0.3)):
        detector = Bright(scores, looks=False)
        result = predictor(detector)(photo(), tta="flip", conf=0.1)
        assert len(result) == 1 and result.scores.tolist() == pytest.approx([0.6])
        assert result.keypoints is not None
        # 0.5 is what the left end scores in the photo, 0.7 in the mirror.
        assert result.keypoints[0, 0, 2] == pytest.approx(0.7 if scores[1] == 0.6 else 0.5)


def test_soft_nms_merges_by_its_own_rule() -> None:
    result = predictor(Bright((0.8, 0.6)))(photo(), tta="flip", conf=0.01, soft_nms="gaussian")
    # The mirror gives the same box, which loses all but exp(-1 / 0.5) of its score.
    assert result.scores.tolist() == pytest.approx([0.8, 0.6 * np.exp(-2)])


def images_of(pixels: list[np.ndarray]) -> Images:
    height, width = 96, 128
    batch = torch.zeros(len(pixels), 3, height, width)
    for b, one in enumerate(pixels):
        batch[b, :, : one.shape[0], : one.shape[1]] = torch.from_numpy(one.copy()).permute(2, 0, 1)
    sizes = torch.tensor([one.shape[:2] for one in pixels])
    return Images(batch, sizes, sizes)


def noise(seed: int, height: int, width: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return np.kron(coarse, np.ones((8, 8, 1), np.uint8))


def test_a_mirrored_photo_gives_the_mirrored_result() -> None:
    """A photo and its mirror have the same two views, so nothing may depend on which came first."""
    torch.manual_seed(0)
    detector = build_tiny("mask_rcnn_resnet50_fpn", 2).eval()
    photos = [noise(0, 64, 128), noise(1, 96, 72)]
    images, turned = images_of(photos), images_of([one[:, ::-1] for one in photos])
    assert torch.equal(mirror(images).pixels, turned.pixels)
    with torch.no_grad():
        one = detect_views(detector, [images], POST, True)
        other = detect_views(detector, [turned], POST, True)
    for a, b in zip(one, other, strict=True):
        assert len(a) == len(b) > 0
        x1, y1, x2, y2 = b.boxes.unbind(1)
        torch.testing.assert_close(a.scores, b.scores, atol=1e-5, rtol=0)
        width = a.size[1]
        boxes = torch.stack([width - x2, y1, width - x1, y2], 1)
        torch.testing.assert_close(a.boxes, boxes, atol=1e-2, rtol=0)
        assert a.mask_probs is not None and b.mask_probs is not None
        torch.testing.assert_close(a.mask_probs, b.mask_probs.flip(-1), atol=1e-4, rtol=0)


def test_boxes_and_masks_view_by_view() -> None:
    """Merging written out: NMS over all views, masks as the mean over the views."""
    torch.manual_seed(0)
    detector = build_tiny("mask_rcnn_resnet50_fpn", 2).eval()
    photos = [noise(2, 64, 96)]
    views = [images_of(photos), mirror(images_of(photos))]
    with torch.no_grad():
        parts: list[Detections] = []
        for images, flipped in zip(views, (False, True), strict=True):
            found = to_detections(detector(images, POST), images)[0]
            if flipped:
                x1, y1, x2, y2 = found.boxes.unbind(1)
                boxes = torch.stack([96 - x2, y1, 96 - x1, y2], 1)
                found = Detections(found.size, boxes, found.scores, found.labels)
            parts.append(found)
        boxes, scores, labels = (
            torch.cat([getattr(part, name) for part in parts])
            for name in ("boxes", "scores", "labels")
        )
        kept = batched_nms(boxes, scores, labels, 0.5)[:10]
        masks: list[Tensor] = []
        for images, flipped in zip(views, (False, True), strict=True):
            x1, y1, x2, y2 = boxes[kept].unbind(1)
            shown = torch.stack([96 - x2, y1, 96 - x1, y2], 1) if flipped else boxes[kept]
            valid = torch.ones(1, len(kept), dtype=torch.bool)
            looked = detector.refine(images, Instances(shown[None], labels[kept][None], valid))
            assert looked is not None and looked.mask_crops is not None
            masks.append(looked.mask_crops[0].flip(-1) if flipped else looked.mask_crops[0])
        (merged,) = detect_views(detector, [views[0]], POST, True)
    assert torch.equal(merged.scores, scores[kept]) and torch.equal(merged.labels, labels[kept])
    torch.testing.assert_close(merged.boxes, boxes[kept])
    assert merged.mask_probs is not None
    torch.testing.assert_close(merged.mask_probs, (masks[0] + masks[1]) / 2)
    assert float((masks[0] - masks[1]).abs().max()) > 1e-3


def test_nothing_found_is_no_fault() -> None:
    detector = build_tiny("mask_keypoint_rcnn_resnet50_fpn", 2).eval()
    mirrored = list(range(detector.num_keypoints))
    post = PostProcess(score_thresh=1.0)
    with torch.no_grad():
        found = detect_views(detector, [images_of([noise(0, 64, 64)])], post, True, mirrored)
    assert len(found[0]) == 0 and found[0].mask_probs is not None


def test_regions_from_outside_are_mirrored() -> None:
    images = images_of([noise(0, 64, 80)])
    valid = torch.tensor([[True, False]])
    boxes = torch.tensor([[[10.0, 5, 30, 25], [0, 0, 0, 0]]])
    given = Images(
        images.pixels, images.sizes, images.original_sizes, Instances(boxes, valid * 0, valid)
    )
    regions = mirror(given).proposals
    assert regions is not None
    assert regions.boxes.tolist() == [[[50, 5, 70, 25], [0, 0, 0, 0]]]


def test_validation_and_streams_take_views(tmp_path: Path) -> None:
    for folder in ("images", "annotations"):
        (tmp_path / folder).mkdir()
    Image.fromarray(photo()).save(tmp_path / "images/a.png")
    # The mask is that of the red half.
    half = [16, 8, 32, 8, 32, 40, 16, 40]
    entry = {"id": 1, "image_id": 1, "category_id": 2, "bbox": [16, 8, 32, 32], "iscrowd": 0}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 64, "width": 96}],
        "annotations": [{**entry, "area": 512, "segmentation": [half]}],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }
    (tmp_path / "annotations/val.json").write_text(json.dumps(content))
    detector = Bright()
    model = predictor(detector)
    metrics = val(model, tmp_path, workers=0, tta="0.5,1,flip")
    assert metrics["box/AP50"] == pytest.approx(1.0) and metrics["mask/AP50"] == pytest.approx(1.0)
    assert detector.widths == [64, 128, 64, 128]
    (streamed,) = predict(model, tmp_path / "images", tta="0.5,1,flip")
    (called,) = model([photo()], tta=Views((0.5, 1), True))
    torch.testing.assert_close(streamed.boxes, called.boxes)
    assert torch.equal(streamed.masks, called.masks)


def test_reading_the_option() -> None:
    assert Views.parse(None) is None
    assert Views.parse("flip") == Views((1.0,), True)
    assert Views.parse(" 0.75, 1 ,1.25,FLIP") == Views((0.75, 1.0, 1.25), True)
    assert Views.parse("2") == Views((2.0,), False)
    for text in ("", "flop", "1;2", "0", "-1", "nan", "inf,flip", "1,,2"):
        with pytest.raises(OptionError, match="tta"):
            Views.parse(text)
    rules = Views((0.5, 1.5)).resizes(Resize(800, 1333, rounding="floor"))
    assert [(r.short, r.long, r.rounding) for r in rules] == [
        (400, 666, "floor"),
        (1200, 2000, "floor"),
    ]
    assert Views((0.5,)).resizes(Resize(None, None, 1.5))[0].factor == 0.75
