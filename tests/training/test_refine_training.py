"""RefineMask through training, validation and prediction, like any other model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_runs import TINY, make_split, table, tiny_options

from maskwright.data.discover import open_dataset
from maskwright.prediction.load import load
from maskwright.tasks.detection.evaluate import score
from maskwright.tasks.detection.reporting.pictures import load_detections
from maskwright.training.train import train


@pytest.mark.filterwarnings("ignore:max_det")
@pytest.mark.parametrize(
    "family", ["refine_mask", pytest.param("refine_mask_fast", marks=pytest.mark.slow)]
)
def test_two_steps_of_training_and_a_prediction(family: str, tmp_path: Path) -> None:
    make_split(tmp_path / "data", "train", 4, 0)
    make_split(tmp_path / "data", "val", 2, 1)
    options = tiny_options(tmp_path / "data", tmp_path / "runs")
    options |= {"model": f"{family}_resnet50_fpn", "model_args": {**TINY, "mask_width": 32}}
    result = train(**{**options, "epochs": 1, "val_boundary": True})
    row = table(result.dir)[0]
    truth = open_dataset(tmp_path / "data", "val").to_coco()
    found = load_detections(result.dir)
    again = score(truth, found, masks=True, boundary=True, max_det=100)
    for key in ("boundary/AP", "boundary/AP75", "mask/AP"):
        assert float(row[f"val/{key}"]) == pytest.approx(again[key], abs=1e-6)
    terms = {name: float(value) for name, value in row.items() if name.endswith("roi/mask")}
    assert terms and all(np.isfinite(value) and value > 0 for value in terms.values())
    assert any(name.endswith("roi/semantic") for name in row) == (family == "refine_mask")
    assert "mask/AP" in result.metrics
    predictor = load(result.last)
    picture = np.asarray(Image.open(tmp_path / "data" / "images" / "val" / "val0.png"))
    instances = predictor(picture, conf=0.0, max_det=300)
    assert instances.masks.shape == (len(instances), 72, 96)
    assert predictor.detector.roi_heads.mask_head.fast == (family == "refine_mask_fast")


def test_boundaries_of_boxes_are_refused_before_the_training(tmp_path: Path) -> None:
    make_split(tmp_path / "data", "train", 2, 0)
    options = tiny_options(tmp_path / "data", tmp_path / "runs")
    options |= {"model": "faster_rcnn_resnet50_fpn", "val_boundary": True}
    with pytest.raises(ValueError, match="val_boundary=true scores masks"):
        train(**options)
