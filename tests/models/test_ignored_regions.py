"""Regions that are ignored: neither object nor background in training, and free in scoring."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from maskwright.data import open_dataset
from maskwright.data.records import ANY_CLASS
from maskwright.metrics import coco_eval
from maskwright.models import build, get_entry
from maskwright.structures import Images, Instances

MODELS = ("faster_rcnn_resnet50_fpn", "faster_rcnn_resnet50_c4", "rfcn_resnet50")


def losses(name: str, *, ignored: bool) -> dict[str, float]:
    """Return the losses of an image with one slot: all of it is ignored, or the slot is empty."""
    torch.manual_seed(0)
    detector = build(name, 2, **dict(get_entry(name).tiny or {})).train()
    sizes = torch.tensor([[64, 64]])
    images = Images(torch.rand(1, 3, 64, 64) * 255, sizes, sizes)
    targets = Instances(
        torch.tensor([[[0.0, 0, 64, 64]]]),
        torch.tensor([[ANY_CLASS]]),
        torch.tensor([[ignored]]),
        crowd=torch.tensor([[ignored]]),
    )
    found = detector.losses(images, targets, generator=torch.Generator().manual_seed(0))
    return {key: float(value.detach()) for key, value in found.items()}


@pytest.mark.parametrize("name", MODELS)
def test_an_image_that_is_ignored_teaches_nothing(name: str) -> None:
    background, nothing = losses(name, ignored=False), losses(name, ignored=True)
    assert background["rpn/objectness"] > 0.1 and background["roi/class"] > 0.1
    assert nothing["roi/class"] == 0  # proposals lie inside the image
    # The mean of what is left: anchors of which more than half leans out of the image.
    assert nothing["rpn/objectness"] != background["rpn/objectness"]


def test_a_detection_on_a_region_of_unknown_class_costs_nothing(tmp_path: Path) -> None:
    square = [[10, 10, 30, 10, 30, 30, 10, 30]]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 96, "width": 96}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 5, "bbox": [10, 10, 20, 20], "area": 400,
             "segmentation": square},
            {"id": 2, "image_id": 1, "category_id": 99, "bbox": [50, 50, 40, 40], "area": 1600,
             "segmentation": [[50, 50, 90, 50, 90, 90, 50, 90]]},
        ],
        "categories": [{"id": 5, "name": "cat"}, {"id": 7, "name": "dog"}],
    }  # fmt: skip
    Image.new("RGB", (96, 96)).save(tmp_path / "a.png")
    (tmp_path / "train.json").write_text(json.dumps(content))
    truth = open_dataset(tmp_path / "train.json").to_coco()

    def found(x: int, y: int, score: float) -> dict[str, object]:
        mask = [[x, y, x + 20, y, x + 20, y + 20, x, y + 20]]
        box = [x, y, 20, 20]
        entry = {"image_id": 1, "category_id": 5, "bbox": box, "score": score}
        return {**entry, "segmentation": mask}

    right = found(10, 10, 0.5)
    for kind in ("bbox", "segm"):
        assert coco_eval(truth, [right, found(55, 55, 0.9)], kind)["AP"] == pytest.approx(1)
        # The same detection on plain background comes first and halves the precision.
        assert coco_eval(truth, [right, found(60, 10, 0.9)], kind)["AP"] == pytest.approx(0.5)
