"""Files of models whose masks go on beyond their boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_exports import photos, tiny_predictor

from maskwright import export, load, runtime
from maskwright.models import PostProcess, TwoStageDetector
from maskwright.prediction.predictor import Predictor
from maskwright.tasks.detection.exporting.agreement import agrees, compare


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:max_det")
def test_a_file_pastes_as_the_model_does(tmp_path: Path) -> None:
    narrow = tiny_predictor()
    detector = narrow.detector
    assert isinstance(detector, TwoStageDetector) and detector.mask_reach == 1
    detector.mask_reach = detector.roi_heads.mask_reach = 1.5
    predictor = Predictor(detector, narrow.meta, device="cpu")
    path = export(predictor, "onnx", tmp_path / "wide.onnx", imgsz=None, max_det=20)
    (tmp_path / "photos").mkdir()
    beyond = 0
    post = PostProcess(0.05, 0.5, 20)
    opened, bare = load(path), runtime.load(path, threads=1)
    for photo in sorted(photos(tmp_path / "photos").iterdir()):
        wanted = predictor(photo, conf=0.05, max_det=20)
        assert len(wanted) > 0
        found = opened(photo, conf=0.05, max_det=20)
        match = compare(wanted.detections, found.detections, post, found.paste_mode)
        assert agrees([match]) and found.detections.mask_reach == 1.5
        alone = bare(photo, conf=0.05, max_det=20)
        assert alone.masks is not None and (alone.masks == np.asarray(found.masks)).all()
        for mask, (x1, y1, x2, y2) in zip(alone.masks, alone.boxes, strict=True):
            rows, columns = np.nonzero(mask)
            out = (rows < y1 - 1) | (rows > y2 + 1) | (columns < x1 - 1) | (columns > x2 + 1)
            beyond += int(out.sum())
    assert beyond > 0, "some mask goes on beyond its box"
