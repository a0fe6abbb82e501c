"""Average precision where not every image was looked through for every class, against hotcoco."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from maskwright.metrics import coco_eval
from maskwright.metrics.detection.entries import looked_for

hotcoco = pytest.importorskip("hotcoco")


def scene(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ground truth as LVIS has it, and detections near its objects and elsewhere."""
    rng = np.random.default_rng(seed)
    images, annotations, found = [], [], []
    for k in range(1, 13):
        shown = rng.permutation(6)[: rng.integers(0, 4)] + 1
        others = [c for c in range(1, 7) if c not in shown]
        images.append(
            {"id": k, "height": 120, "width": 120}
            | {"neg_category_ids": [int(c) for c in others if rng.random() < 0.4]}
            | {"not_exhaustive_category_ids": [int(c) for c in shown if rng.random() < 0.4]}
        )
        for c in shown:
            for _ in range(rng.integers(1, 4)):
                box = [*rng.uniform(0, 60, 2).round(2), *rng.uniform(8, 50, 2).round(2)]
                number = len(annotations) + 1
                annotations.append(
                    {"id": number, "image_id": k, "category_id": int(c), "bbox": box}
                    | {"area": box[2] * box[3], "iscrowd": 0}
                )
                if rng.random() < 0.8:
                    near = [side + rng.uniform(-3, 3) for side in box]
                    found.append({"image_id": k, "category_id": int(c), "bbox": near})
        for c in range(1, 7):
            box = [*rng.uniform(0, 60, 2).round(2), *rng.uniform(8, 50, 2).round(2)]
            found.append({"image_id": k, "category_id": c, "bbox": box})
    for one in found:
        one["score"] = float(rng.random())
    often = dict(zip(range(1, 7), "rrccff", strict=True))
    categories = [{"id": c, "name": f"c{c}", "frequency": often[c]} for c in often]
    return {"images": images, "annotations": annotations, "categories": categories}, found


@pytest.mark.parametrize("seed", range(4))
def test_the_numbers_are_those_of_lvis(seed: int) -> None:
    gt, found = scene(seed)
    ours = coco_eval(gt, found, "bbox", max_det=300)
    truth = hotcoco.COCO(gt)
    run = hotcoco.LVISEval(truth, truth.load_res(found), "bbox")
    run.run()
    theirs = run.get_results()
    pairs = {"AP": "AP", "AP50": "AP50", "AP75": "AP75"}
    pairs |= {"AP_rare": "APr", "AP_common": "APc", "AP_frequent": "APf"}
    for key, name in pairs.items():
        expected = theirs[name]
        assert ours[key] == pytest.approx(expected, abs=1e-9), key


def test_what_nobody_looked_for_is_not_wrong() -> None:
    box = {"image_id": 1, "category_id": 1, "bbox": [1.0, 1.0, 20.0, 20.0]}
    image = {"id": 1, "height": 50, "width": 50}
    other = {"id": 2, "height": 50, "width": 50}
    gt = {"images": [image, other], "annotations": [box], "categories": [{"id": 1, "name": "a"}]}
    found = [box | {"score": 0.5}, box | {"image_id": 2, "score": 0.9}]
    assert coco_eval(gt, found, "bbox")["AP"] == pytest.approx(0.5, abs=0.01)
    assert list(looked_for(gt, found)) == found
    other["neg_category_ids"] = []
    assert list(looked_for(gt, found)) == found[:1]
    assert coco_eval(gt, found, "bbox")["AP"] == pytest.approx(1)
    other["neg_category_ids"] = [1]
    assert coco_eval(gt, found, "bbox")["AP"] == pytest.approx(0.5, abs=0.01)
