"""Exported segmenters: files that say what the model says, read with torch and without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import maskwright as mw
from maskwright import runtime
from maskwright.models import Meta, build_tiny
from maskwright.prediction.predictor import Predictor
from maskwright.runtimes.maps import resampling as bare_resampling
from maskwright.tasks.semantic.views import resampling


def predictor(name: str) -> Predictor:
    torch.manual_seed(0)
    model = build_tiny(name, 3)
    with torch.no_grad():  # random logits are near a tie everywhere
        for layer in (model.network.get_submodule(model.network.final),):
            layer.weight *= 30
    return Predictor(model, Meta(name, {}, ["sky", "road", None]), device="cpu")


@pytest.mark.parametrize("size", [None, (96, 128)])
def test_a_file_says_what_the_model_says(size: tuple[int, int] | None, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (9, 13, 3)).astype(np.uint8)
    photos = [np.kron(small, np.ones((h, w, 1), np.uint8)) for h, w in ((9, 9), (12, 7))]
    own = predictor("unet")
    file = mw.export(own, "onnx", tmp_path / "model.onnx", imgsz=size)
    graph, bare = mw.load(file), runtime.load(file)
    for photo in photos:
        if size is not None:  # larger photos become smaller, and all are padded alike
            own.model.resize, own.model.buckets = graph.model.resize, [size]
        wanted, found, told = own(photo, probs=True), graph(photo, probs=True), bare(photo)
        assert len(np.unique(wanted.labels)) > 1
        np.testing.assert_allclose(wanted.probs, found.probs, atol=1e-3)
        sure = np.sort(wanted.probs, 0)
        clear = sure[-1] - sure[-2] > 5e-3
        assert clear.mean() > 0.5
        assert (wanted.labels == found.labels)[clear].all()
        assert (wanted.labels == told.labels)[clear].all()
        assert sum(told.shares().values()) == pytest.approx(1)
    assert graph.names == bare.names == ["sky", "road", "class 2"]
    assert runtime.main([str(file), str(tmp_path / "nothing.png")]) == 1


def test_a_file_is_scored_as_its_model_is(tmp_path: Path) -> None:
    """With what the training ignored; the colours of its classes are there too."""
    rng, names = np.random.default_rng(0), ["sky", "road", "sea"]
    for kind, bits in (("images", 255), ("masks", 3)):
        (tmp_path / kind / "val").mkdir(parents=True)
        pixels = rng.integers(0, bits, (40, 50, 3)[: 3 if kind == "images" else 2]).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / kind / "val" / "a.png")
    (tmp_path / "classes.txt").write_text("\n".join(names) + "\n")
    extra = {"ignore": ["sky"], "colors": [None, [9, 8, 7], [1, 2, 3]]}
    own = predictor("unet")
    own.meta = replace(own.meta, names=names, extra={**extra, "start": "random weights"})
    graph = mw.load(mw.export(own, "pt2", tmp_path / "model.pt2", imgsz=(64, 64)))
    assert graph.meta.extra == extra
    found = mw.val(graph, tmp_path, workers=0, save=False)
    labels, truth = graph(tmp_path / "images/val/a.png").labels, pixels
    assert found["pixel_accuracy"] == pytest.approx((labels == truth)[truth != 0].mean())


@pytest.mark.parametrize("corners", [False, True])
def test_both_readers_sample_alike(corners: bool) -> None:
    for cells, padded, size, original in ((9, 72, 70, 100), (33, 257, 257, 64), (1, 8, 3, 5)):
        ours = resampling(cells, padded, size, original, corners).numpy()
        theirs = bare_resampling(cells, padded, size, original, corners)
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
        np.testing.assert_allclose(ours.sum(1), 1, atol=1e-6)
