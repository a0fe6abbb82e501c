"""The options `conf` and `iou` of a prediction: a smallest score by class, and whose IoU counts."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_runs import MODEL, TINY

from maskwright.errors import OptionError
from maskwright.exporters.export import export
from maskwright.models import Meta, build, build_tiny
from maskwright.prediction.predict import predict
from maskwright.prediction.predictor import Predictor
from maskwright.prediction.val import val
from maskwright.tasks.answers import Written
from maskwright.tasks.classification.settings import make_settings
from maskwright.tasks.detection.recipe import DetectionRecipe
from maskwright.tasks.detection.task import TASK
from maskwright.tasks.thresholds import Conf, parse_conf

NAMES = ["cell", "nucleus, small"]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    torch.manual_seed(0)
    return Predictor(build(MODEL, 2, **TINY), Meta(MODEL, TINY, list(NAMES)), device="cpu")


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("value", "others", "named"),
    [
        (0.3, 0.3, {}),
        ("0.3", 0.3, {}),
        ("cell:0.6", None, {"cell": 0.6}),
        ("a:0.6,b:0.3,0.4", 0.4, {"a": 0.6, "b": 0.3}),
        ("0.4, a : 0.6", 0.4, {"a": 0.6}),
        ("nucleus, small:0.6,0.4", 0.4, {"nucleus, small": 0.6}),
        ("10:15:1e-3", None, {"10:15": 0.001}),
        ("2:1", None, {"2": 1.0}),
    ],
)
def test_what_conf_says(value: object, others: float | None, named: dict[str, float]) -> None:
    assert parse_conf(value) == Conf(others, named)


@pytest.mark.parametrize("value", ["", "a", "a:", "a:x", ":0.3,", "a:0.1.2", True])
def test_what_conf_cannot_say(value: object) -> None:
    with pytest.raises(OptionError, match="expected a number, or NAME:NUMBER"):
        parse_conf(value)


def test_each_class_has_its_own_smallest_score(predictor: Predictor, photo: np.ndarray) -> None:
    every = predictor(photo, conf=0.0, max_det=1000)
    scores = every.scores.numpy()
    first, second = (float(np.median(scores[every.labels.numpy() == k])) for k in (0, 1))
    found = predictor(photo, conf=f"cell:{first},nucleus, small:{second}", max_det=1000)
    kept = []
    for k in range(len(every)):  # the rule, one by one
        least = np.float32(first if every.labels[k] == 0 else second)
        if scores[k] > least:
            kept.append(k)
    assert 2 < len(kept) < len(every) - 2 and len(set(every.labels[kept].tolist())) == 2
    assert torch.equal(found.boxes, every.boxes[kept])
    torch.testing.assert_close(found.detections.mask_probs, every.detections.mask_probs[kept])
    both = predictor(photo, conf=f"cell:{first},{second}", max_det=1000)
    assert torch.equal(both.scores, found.scores)


def test_a_full_image_is_said_though_a_class_lost_some(
    predictor: Predictor, photo: np.ndarray
) -> None:
    with pytest.warns(UserWarning, match="max_det=5 was reached"):
        found = predictor(photo, conf="cell:1,0", max_det=5)
    assert len(found) < 5


def test_one_number_where_classes_have_none(predictor: Predictor) -> None:
    for call in (val, export):
        with pytest.raises(OptionError, match="here one number counts for all"):
            call(predictor, "cells", conf="cell:0.3")  # type: ignore[operator]


def test_classes_of_an_image_have_their_own_probability() -> None:
    class Multi:
        multilabel = True

    settings = make_settings(Multi, {"conf": "b:0.7,0.2"}, {"conf": 0.25}, ["a", "b"])
    assert settings.floors == (0.2, 0.7) and settings.conf == 0.2


@pytest.mark.parametrize(("iou", "used"), [(None, 0.45), (0.5, 0.5), (0.45, 0.45)])
def test_an_iou_that_is_asked_for_counts_whatever_the_default(
    iou: float | None, used: float
) -> None:
    yolo = Predictor(build_tiny("yolo_v2", 2), Meta("yolo_v2", {}, ["a", "b"]), device="cpu")
    given = {"conf": 0.25, "iou": iou, "max_det": 100}
    for function in (predict, val, Predictor.__call__):
        assert yolo.settings(given, function).post.nms_thresh == used


def test_none_is_the_house_iou_of_other_models(predictor: Predictor) -> None:
    given = {"conf": 0.25, "iou": None, "max_det": 100}
    assert predictor.settings(given, predict).post.nms_thresh == 0.5


@pytest.mark.parametrize(("conf", "told"), [(0.01, True), (0.3, False)])
def test_an_export_is_told_where_its_usual_conf_is_above_what_is_advised(
    conf: float, told: bool
) -> None:
    written = Written([], "maskwright predict ...", SimpleNamespace(conf=conf))
    recipe = DetectionRecipe(data="cells")
    following = TASK.commands("model=runs/train/train", None, recipe, written)  # type: ignore[arg-type]
    usual = inspect.signature(export).parameters["conf"].default
    line = "maskwright export model=runs/train/train format=onnx conf=0.01"
    assert (following[2:] == [line]) == told == (conf < usual)
