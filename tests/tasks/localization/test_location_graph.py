"""Exported localizers: files that say what the model says, read without its code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import maskwright as mw
from maskwright import runtime
from maskwright.errors import OptionError
from maskwright.models import Meta, build_tiny
from maskwright.prediction.predictor import Predictor
from maskwright.structures import Skeleton

JOINTS = Skeleton(("a", "b", "c", "d", "e"))


def predictor(name: str) -> Predictor:
    torch.manual_seed(0)
    points = JOINTS if "keypoints" in name else None
    meta = Meta(name, {"imgsz": 64}, ["cat", "dog"], keypoints=points)
    if points is not None:
        meta.args["num_keypoints"] = 5
    return Predictor(build_tiny(name, 2), meta, device="cpu")


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (h, w, 3)).astype(np.uint8) for h, w in ((50, 90), (70, 40))]


@pytest.mark.parametrize(
    "name",
    ["locate_resnet18", pytest.param("locate_keypoints_resnet18", marks=pytest.mark.slow)],
)
def test_a_file_says_what_the_model_says(
    name: str, photos: list[np.ndarray], tmp_path: Path
) -> None:
    own = predictor(name)
    file = mw.export(own, "onnx", tmp_path / "model.onnx")
    graph = mw.load(file)
    for photo in photos:
        a, b = own(photo), graph(photo)
        if a.keypoints is not None:
            np.testing.assert_allclose(a.keypoints, b.keypoints, atol=0.05)
            assert b.skeleton == JOINTS
        else:
            assert a.label == b.label
            np.testing.assert_allclose(a.place.probs, b.place.probs, atol=5e-4)
            np.testing.assert_allclose(a.place.boxes, b.place.boxes, atol=0.05)
        bare = runtime.load(file)(photo)
        if a.keypoints is not None:
            np.testing.assert_allclose(a.keypoints, bare.keypoints, atol=0.05)
            assert bare.name is bare.box is None
        else:
            assert bare.name == a.called and abs(bare.score - a.score) < 5e-4
            assert (bare.box is None) == (a.box is None)
            if a.box is not None:
                np.testing.assert_allclose(a.box, bare.box, atol=0.05)
    with pytest.raises(ValueError, match="exported for images of 64 x 64"):
        graph(photos[0], imgsz=96)
    with pytest.raises(OptionError, match="is an exported graph"):
        mw.predict(graph, photos, explain="gradcam")


def test_a_graph_has_the_size_of_its_localizer(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="takes squares of 64 pixels"):
        mw.export(predictor("locate_resnet18"), "onnx", tmp_path / "a.onnx", imgsz=(96, 96))
