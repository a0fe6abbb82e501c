"""RefineMask through training, validation and prediction, like any other model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_runs import TINY, make_split, table, tiny_options

from maskwright.engine.train import train
from maskwright.hub import load


@pytest.mark.parametrize(
    "family", ["refine_mask", pytest.param("refine_mask_fast", marks=pytest.mark.slow)]
)
def test_two_steps_of_training_and_a_prediction(family: str, tmp_path: Path) -> None:
    make_split(tmp_path / "data", "train", 4, 0)
    make_split(tmp_path / "data", "val", 2, 1)
    options = tiny_options(tmp_path / "data", tmp_path / "runs")
    options |= {"model": f"{family}_resnet50_fpn", "model_args": {**TINY, "mask_width": 32}}
    result = train(**{**options, "epochs": 1})
    row = table(result.dir)[0]
    terms = {name: float(value) for name, value in row.items() if name.endswith("roi/mask")}
    assert terms and all(np.isfinite(value) and value > 0 for value in terms.values())
    assert any(name.endswith("roi/semantic") for name in row) == (family == "refine_mask")
    assert "mask/AP" in result.metrics
    predictor = load(result.last)
    picture = np.asarray(Image.open(tmp_path / "data" / "images" / "val" / "val0.png"))
    found = predictor(picture, conf=0.0, max_det=300)
    assert found.masks.shape == (len(found), 72, 96)
    assert predictor.detector.roi_heads.mask_head.fast == (family == "refine_mask_fast")
