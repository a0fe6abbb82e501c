"""Graphs for images of any size: written in minutes, and right at sizes that no export has seen.

Tracing such a graph compares formulas of height and width. One layer that pads by a formula is
enough to turn seconds into hours, so that the processor time is part of what is tested.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

import maskwright as mw
from maskwright.cli import main
from maskwright.data.pixels.images import load_image
from maskwright.graphs.spec import describe
from maskwright.graphs.trace import lean_network, trace, whole_model
from maskwright.models import Meta, PostProcess, build
from maskwright.tasks.detection.exporting.agreement import agrees, compare
from maskwright.tasks.detection.settings import DetectionSettings

MOST_SECONDS = 180  # of processor time, what docs/export.md promises
PHOTOS = Path(__file__).parents[2] / "examples" / "nuclei_mini" / "images" / "val"


@pytest.mark.slow
def test_the_packaged_model_as_the_manual_has_it(tmp_path: Path) -> None:
    """The real path: the command of docs/export.md, then sizes that its own check did not see."""
    path = tmp_path / "nuclei.pt2"
    start = time.process_time()
    assert main(["export", "model=nuclei", "format=pt2", "imgsz=none", f"path={path}"]) == 0
    assert time.process_time() - start < MOST_SECONDS
    model, graph = mw.load("nuclei", device="cpu"), mw.load(path)
    image = load_image(sorted(PHOTOS.iterdir())[0])[:150, :230]
    for imgsz in (64, 224, (352, 600)):
        one, two = (net(image, conf=0.3, imgsz=imgsz).detections for net in (model, graph))
        assert agrees([compare(one, two, PostProcess(0.3, 0.5, 100), "grid")])
        assert len(one) > 3 or imgsz == 64


@pytest.mark.parametrize(
    "name",
    ["faster_rcnn_lite0_c4", pytest.param("refine_mask_lite0_fpn", marks=pytest.mark.slow)],
)
def test_other_families_on_a_backbone_that_pads_by_size(name: str) -> None:
    detector = build(name, 2).eval()
    meta, settings = Meta(name, {}, ["a", "b"]), DetectionSettings(PostProcess())
    spec = describe(detector, meta, settings, size=None, batch=None, half=False)
    start = time.process_time()
    program = trace(whole_model(lean_network(detector, spec), spec), spec)
    assert time.process_time() - start < MOST_SECONDS
    pixels = next(node for node in program.graph.nodes if node.name == "pixels").meta["val"]
    assert all(isinstance(side, torch.SymInt) for side in (pixels.shape[0], *pixels.shape[2:]))
