"""Every registered family in every format, on its tiny instance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_exports import photos, tiny_predictor

import maskwright as mw
from maskwright.exporters.export import export
from maskwright.exporters.report import ExportReport
from maskwright.graphs.writers import SUFFIXES
from maskwright.models import Meta, build_tiny, get_entry, list_models
from maskwright.ops.decompositions import decompositions
from maskwright.prediction.predictor import Predictor
from maskwright.structures import Skeleton
from maskwright.tasks import FOLDERS

FAMILIES = [
    name
    for name, entry in list_models().items()
    if entry.tiny is not None and FOLDERS.get(entry.task) == "detection"
]


@pytest.mark.slow
@pytest.mark.contract("exports")
@pytest.mark.filterwarnings("ignore:max_det")
@pytest.mark.parametrize("format", list(SUFFIXES))
@pytest.mark.parametrize("name", FAMILIES)
def test_exports_and_finds_the_same(name: str, format: str, tmp_path: Path) -> None:
    """The export itself compares; here it must have had something to compare."""
    predictor = tiny_predictor(name)
    reports: list[ExportReport] = []
    source = photos(tmp_path)
    target = tmp_path / "out" / f"a{SUFFIXES[format]}"
    # Half of the formats for any size and batch, half for one size and precision.
    fixed = format in ("openvino", "aoti")
    options: dict[str, Any] = {"imgsz": None, "conf": 0.01, "max_det": 20}
    if name.startswith("rfcn"):
        # On maps this small most bins are empty, and a region of empty bins has exactly a third for
        # each class: beyond those ties.
        options["conf"] = 0.34
    if fixed:
        options.update(imgsz=(96, 128), batch=1, half=True)
    try:
        export(predictor, format, target, source=source, report=reports.append, **options)
    except ValueError as error:
        # Of all that is registered, RoIPool alone needs a fixed size, and only in torch's graph.
        assert format == "pt2" and "give imgsz" in str(error)
        assert not list(target.parent.glob("*"))
        options["imgsz"] = (96, 128)
        export(predictor, format, target, source=source, report=reports.append, **options)
    assert sum(case.match.total for case in reports[0].cases) > 3
    loaded = mw.load(target, trust=True)
    assert loaded.detector.task == predictor.detector.task
    result = loaded(source / "0.png", conf=options["conf"], max_det=20)
    assert (result.masks is None) == ("segment" not in loaded.detector.task)
    assert (result.keypoints is None) == ("keypoints" not in loaded.detector.task)


OTHERS = [
    name
    for name, entry in list_models().items()
    if entry.tiny is not None
    and FOLDERS.get(entry.task) not in (None, "detection")
    # The lattice of a CRF depends on the image: there is no graph of it. DeconvNet's maxima of even
    # areas lie where rounding decides, so that no graph of it passes the guard.
    and name not in ("crf_rnn", "deconvnet")
]
JOINTS = Skeleton(("a", "b", "c", "d", "e"))


def answer(result: Any) -> torch.Tensor:
    """Return what a result of an image as a whole says, as numbers."""
    if getattr(result, "keypoints", None) is not None:
        return torch.as_tensor(result.keypoints)[..., :2].float()
    return torch.as_tensor(getattr(result, "place", result).probs)


@pytest.mark.slow
@pytest.mark.contract("exports")
@pytest.mark.parametrize("format", list(SUFFIXES))
@pytest.mark.parametrize("name", OTHERS)
def test_exports_and_answers_the_same(name: str, format: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    points = "keypoints" in get_entry(name).task
    meta = Meta(name, {}, ["cat", "dog"], keypoints=JOINTS if points else None)
    predictor = Predictor(build_tiny(name, 2), meta, device="cpu")
    source = photos(tmp_path)
    target = tmp_path / "out" / f"a{SUFFIXES[format]}"
    export(predictor, format, target, source=source, report=lambda report: None)
    loaded = mw.load(target, trust=True)
    options = {"probs": True} if get_entry(name).task == "semantic" else {}
    for photo in sorted(source.glob("*.png")):
        wanted, found = answer(predictor(photo, **options)), answer(loaded(photo, **options))
        torch.testing.assert_close(found, wanted, atol=0.1 if points else 1e-3, rtol=1e-3)


def test_every_operator_of_ours_that_predicts_has_a_form_for_graphs() -> None:
    """What a family calls at inference must be known here, or no format could hold it."""
    known = {str(op) for op in decompositions()}
    ours = {
        name
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("maskwright::") and not name.endswith("backward")
    }
    # Of training; and of an option of prediction that graphs refuse.
    training = ("crop_masks", "unite_masks", "best_overlaps", "owned_boxes")
    other = {f"maskwright::{name}" for name in (*training, "soft_nms_padded")}
    assert {f"{name.replace('::', '.')}.default" for name in ours - other} == known
