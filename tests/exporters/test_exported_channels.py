"""Exported files of models for four channels: every reader sees what the model sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_exports import tiny_predictor

import maskwright as mw
from maskwright import runtime
from maskwright.exporters.export import export
from maskwright.graphs.sessions import open_graph
from maskwright.models.channels import with_channels
from maskwright.models.meta import Meta
from maskwright.models.registry import build_tiny
from maskwright.prediction.predictor import Predictor


def four_channels(name: str) -> Predictor:
    """A model of a task for channels 3, 0, 1 and 2 of 16 bits."""
    if name.startswith("mask"):
        predictor = tiny_predictor(name)
    else:
        meta = Meta(name, {}, ["cell", "dirt"])
        torch.manual_seed(0)
        model = build_tiny(name, 2)
        if name.startswith("fcn"):  # whose last layer begins with zeros
            torch.nn.init.normal_(model.network.get_submodule(model.network.final).weight)
        predictor = Predictor(model, meta, device="cpu")
    with_channels(predictor.model, 4, "model")
    predictor.meta.channels, predictor.meta.window = [3, 0, 1, 2], (100.0, 3000.0)
    return predictor


@pytest.mark.filterwarnings("ignore:max_det")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("mask_rcnn_resnet50_fpn", marks=pytest.mark.slow),
        "resnet18",
        "fcn_resnet50",
    ],
)
def test_other_channels(name: str, tmp_path: Path) -> None:
    predictor = four_channels(name)
    sizes = {"imgsz": (96, 96)} if name.startswith("fcn") else {}
    path = export(predictor, "onnx", tmp_path / "four.onnx", **sizes)
    assert open_graph(path).spec.channels == 4
    coarse = np.random.default_rng(2).integers(0, 3100, (12, 12, 4), np.uint16)
    photo = coarse.repeat(8, 0).repeat(8, 1)
    light, graph = runtime.load(path, threads=1), mw.load(path)
    if name.startswith("mask"):
        expected = predictor(photo, conf=0.05, max_det=20)
        one, two = (reader(photo, conf=0.05, max_det=20) for reader in (light, graph))
        assert len(expected)
        np.testing.assert_allclose(one.boxes, two.boxes, atol=1e-3)
        np.testing.assert_allclose(one.boxes[:3], expected.boxes[:3], atol=1e-2)
    elif name == "resnet18":
        expected, two = (reader(photo).probs for reader in (predictor, graph))
        np.testing.assert_allclose(two, expected, atol=1e-5)
        one = light(photo)
        np.testing.assert_allclose(one.scores, np.sort(np.asarray(expected))[::-1], atol=1e-5)
    else:
        # The graph has a size of its own; that it says what the model says, the export has checked.
        assert (light(photo).labels == graph(photo).labels).mean() > 0.999
    with pytest.raises(ValueError, match=r"channels \[3, 0, 1, 2\]"):
        light(photo[..., :3])
    with pytest.raises(ValueError, match=r"trained with 4 channels \(channels=3,0,1,2\)"):
        graph(photo[..., :3])
