"""Exported files: what they hold, what they find, how they fail."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tiny_exports import Exported, tiny_predictor

import maskwright as mw
from maskwright import runtime
from maskwright.cli import main
from maskwright.data.pixels.images import load_image
from maskwright.errors import OptionError
from maskwright.exporters import checked
from maskwright.exporters.export import export
from maskwright.graphs.spec import KEY, from_json, to_json
from maskwright.models import PostProcess
from maskwright.tasks.detection.exporting.agreement import agrees, compare


def same(predictor, other, image, **options) -> int:
    """Check that two predictors find the same in an image; return how many objects."""
    one, two = predictor(image, **options), other(image, **options)
    post = PostProcess(options["conf"], 0.5, options["max_det"])
    mode = predictor.detector.paste_mode
    assert agrees([compare(one.detections, two.detections, post, mode)])
    assert len(one) == len(two)
    return len(one)


@pytest.mark.filterwarnings("ignore:max_det")
def test_the_file_predicts_as_the_model_does(exported: Exported) -> None:
    loaded = mw.load(exported.path)
    assert loaded.names == ["cell", "class 1"] and loaded.meta.category_ids == [7, 3]
    assert loaded.meta.licence == "CC0"
    counts = []
    for image in sorted(exported.photos.iterdir()):
        for conf, max_det in ((0.05, 20), (0.3, 20), (0.05, 3)):
            options = {"conf": conf, "max_det": max_det}
            counts.append(same(exported.predictor, loaded, image, **options))
    assert max(counts) > 3 and len(set(counts)) > 2
    result = loaded(image, conf=0.05, max_det=20)
    assert set(result.speed) == {"load", "preprocess", "inference", "postprocess"}
    assert result.masks.shape == (len(result), *load_image(image).shape[:2])
    assert result.to_coco(1)[0]["category_id"] in (7, 3)


def test_the_report_covers_photos_an_empty_image_two_batches_and_two_sizes(exported) -> None:
    report = exported.report
    assert len(report.cases) == 4 and report.cases[2].what == "flat grey"
    assert {case.batch for case in report.cases} == {1, 2}
    assert len({case.size for case in report.cases}) == 2
    assert all(case.match.found == case.match.total for case in report.cases)
    assert sum(case.match.total for case in report.cases) > 10
    assert report.size_bytes == exported.path.stat().st_size and report.nodes > 100
    assert set(report.seconds) == {"trace", "write", "load", "check"}


def test_the_graph_is_standard_and_describes_itself(exported: Exported) -> None:
    model = onnx.load(exported.path)
    assert not model.functions and {node.domain for node in model.graph.node} == {""}
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert [value.name for value in model.graph.input] == ["pixels", "sizes"]
    outputs = [value.name for value in model.graph.output]
    assert outputs == ["boxes", "scores", "labels", "mask_probs", "count"]
    assert b"/" not in b"".join(n.doc_string.encode() for n in model.graph.node)
    (entry,) = model.metadata_props
    data = json.loads(entry.value)
    assert entry.key == KEY and data["names"] == ["cell", None] and data["conf"] == 0.05
    assert data["resize"]["long"] == 96 and data["divisor"] == 32 and data["source"] == "a test"
    assert to_json(from_json(entry.value)) == entry.value


def test_it_gives_less_than_it_has_but_not_more(exported: Exported) -> None:
    loaded = mw.load(exported.path)
    image = np.zeros((40, 40, 3), np.uint8)
    with pytest.raises(OptionError, match=r"conf=0\.05, so it has no objects down to 0\.01"):
        loaded(image, conf=0.01, max_det=20)
    with pytest.raises(OptionError, match="max_det=20, so it cannot find 21"):
        loaded(image, max_det=21)
    with pytest.raises(OptionError, match=r"iou=0\.5, which is part of its graph"):
        loaded(image, iou=0.6, max_det=20)
    with pytest.raises(OptionError, match="plain NMS in its graph"):
        loaded(image, max_det=20, soft_nms="linear")


@pytest.mark.filterwarnings("ignore:max_det")
def test_what_nobody_asks_for_comes_from_the_file(
    own: Exported, capsys: pytest.CaptureFixture[str]
) -> None:
    path, source = own.path, own.photos
    wanted = own.predictor(source / "0.png", conf=0.3, iou=0.6, max_det=15)
    found = mw.load(path)(source / "0.png")
    assert agrees([compare(wanted.detections, found.detections, PostProcess(0.3, 0.6, 15), "grid")])
    assert len(found) == len(wanted) > 3
    assert len(runtime.load(path)(source / "0.png")) == len(found)
    assert main(["predict", f"model={path}", f"source={source / '0.png'}", "save=false"]) == 0
    assert runtime.main([str(path), str(source / "0.png")]) == 0
    assert capsys.readouterr().out.count('"score"') == len(found)
    for wrong in ({"conf": 0.2}, {"max_det": 16}, {"max_det": 0}, {"conf": float("nan")}):
        with pytest.raises(ValueError, match=r"the file holds|conf lies|max_det is"):
            runtime.load(path)(source / "0.png", **wrong)
    more = mw.load(path)(source / "0.png", conf=0.5, max_det=2)
    assert len(more) <= 2 and bool((more.scores > 0.5).all())


def test_a_graph_of_one_size_takes_no_other(exported: Exported) -> None:
    loaded = mw.load(exported.path)
    loaded.detector.buckets = [(64, 96)]
    with pytest.raises(OptionError, match="exported for images of 64 x 96"):
        loaded(np.zeros((40, 40, 3), np.uint8), imgsz=256, max_det=20)


def test_several_views_of_a_graph(exported: Exported) -> None:
    """A graph cannot look at given boxes: each keeps the mask of the view that it comes from."""
    loaded = mw.load(exported.path)
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    options = {"conf": 0.05, "max_det": 20}
    with pytest.warns(UserWarning, match="max_det=20 was reached"):
        found, once = loaded(image, tta="flip", **options), loaded(image, **options)
        mirrored = loaded(np.ascontiguousarray(image[:, ::-1]), tta="flip", **options)
    assert len(found) == len(mirrored) == len(found.masks) > 0
    assert float(found.scores[0]) >= float(once.scores[0])
    torch.testing.assert_close(found.scores, mirrored.scores, atol=1e-4, rtol=0)
    x1, y1, x2, y2 = mirrored.boxes.unbind(1)
    boxes = torch.stack([90 - x2, y1, 90 - x1, y2], 1)
    torch.testing.assert_close(found.boxes, boxes, atol=0.05, rtol=0)
    same = (found.masks == mirrored.masks.flip(-1)).float().mean()
    assert same > 0.99


def test_what_belongs_to_a_checkpoint_is_refused(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leave out weights"):
        mw.load(exported.path, weights="coco")
    with pytest.raises(ValueError, match="run on the CPU"):
        mw.load(exported.path, device="cuda")
    with pytest.raises(ValueError, match="exported already"):
        export(exported.path, "onnx", tmp_path / "again.onnx")


@pytest.mark.filterwarnings("ignore:max_det")
def test_predict_by_command(exported: Exported, tmp_path: Path, capsys) -> None:
    options = [f"source={exported.photos}", f"project={tmp_path}", "conf=0.05", "max_det=20"]
    assert main(["predict", f"model={exported.path}", *options]) == 0
    folder = tmp_path / "predict" / "predict"
    found = json.loads((folder / "0.json").read_text())
    assert len(found["objects"]) == len(
        exported.predictor(exported.photos / "0.png", conf=0.05, max_det=20)
    )
    assert "segmentation" in found["objects"][0]


def test_damaged_and_foreign_files_say_so(exported: Exported, tmp_path: Path) -> None:
    data = exported.path.read_bytes()
    path = tmp_path / "bad.onnx"
    for content in (b"", b"not a model", data[: len(data) // 2], data[:100]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"bad\.onnx is damaged or no ONNX file"):
            mw.load(path)
    with pytest.raises(ValueError, match="does not exist"):
        mw.load(tmp_path / "none.onnx")
    model = onnx.load(exported.path)
    good = model.metadata_props[0].value
    for text, message in (
        ("", "not written by `maskwright export`"),
        ("[]", "incomplete"),
        ('{"version": 1}', "incomplete"),
        (good.replace('"version": 1', '"version": 99'), "newer"),
        (good.replace('"size": null', '"size": [1000000000, 32]'), "impossible sizes"),
        (good.replace('"divisor": 32', '"divisor": 0'), "impossible sizes"),
        (good.replace('"max_det": 20', '"max_det": "many"'), "bad.onnx"),
    ):
        model.metadata_props[0].value = text
        onnx.save(model, path)
        with pytest.raises(ValueError, match=message):
            mw.load(path)


def test_a_file_that_finds_something_else_is_not_written(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph of other weights stands in for one that the format got wrong."""

    def write_other(format, program, path, spec):
        shutil.copy(exported.path, path)
        return 1

    monkeypatch.setattr(checked, "write_graph", write_other)
    monkeypatch.setattr(checked, "trace", lambda *_: None)
    options = {"imgsz": None, "max_det": 20, "source": exported.photos, "report": lambda _: None}
    target = tmp_path / "out" / "other.onnx"
    same_weights = export(exported.predictor, "onnx", target, **options)
    assert same_weights == target and target.is_file()
    target.unlink()
    predictor = tiny_predictor()
    with torch.no_grad():
        predictor.detector.roi_heads.box_head.logits.bias += torch.tensor([0.01, 0, 0])
    with pytest.raises(ValueError, match=r"other\.onnx does not find what the model finds"):
        export(predictor, "onnx", target, **options)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["format=onyx"], "format is one of onnx"),
        (["format=onnx", "imgsz=100,96"], "imgsz=96,96"),
        (["format=onnx", "imgsz=1,2,3"], "imgsz"),
        (["format=onnx", "batch=0"], "batch is a number"),
        (["format=onnx", "path=model.pt"], r"ends in \.onnx"),
        (["format=onnx", "conf=2"], "conf lies between 0 and 1"),
    ],
)
def test_wrong_options_are_usage_errors(options, message, tmp_path, monkeypatch, capsys) -> None:
    import re

    monkeypatch.chdir(tmp_path)
    assert main(["export", "model=nuclei", *options]) == 2
    assert re.search(message, " ".join(capsys.readouterr().err.split()))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_stopping_leaves_nothing(
    how: signal.Signals,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(*_: object) -> None:
        try:
            signal.raise_signal(how)
        except KeyboardInterrupt as error:  # as a library may have it
            raise RuntimeError("a graph could not be made") from error

    monkeypatch.setattr(checked, "trace", stop)
    before = signal.getsignal(signal.SIGTERM)
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
    line = f"export model=nuclei format=pt2 imgsz=64 path={tmp_path / 'a' / 'b' / 'x.pt2'}"
    try:
        assert main(line.split()) == 128 + how
    finally:
        signal.signal(signal.SIGINT, usual)
    name = "Ctrl-C" if how == signal.SIGINT else "SIGTERM"
    assert f"stopped by {name}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_is_for_int8_alone_is_refused_without_it(tmp_path: Path) -> None:
    for option in ({"max_drop": 0.1}, {"calibration": 5}, {"data": tmp_path}):
        with pytest.raises(OptionError, match=f"{next(iter(option))}=.*for int8=true alone"):
            export(tiny_predictor(), "pt2", tmp_path / "x.pt2", **option)
