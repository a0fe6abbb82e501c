"""Exported classifiers: every format answers as the model, with torch and without."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import maskwright as mw
from maskwright import runtime
from maskwright.errors import OptionError
from maskwright.exporters.export import export
from maskwright.exporters.report import ExportReport
from maskwright.graphs.spec import KEY, from_json, to_json
from maskwright.models import Meta, build
from maskwright.prediction.predictor import Predictor
from maskwright.runtimes.labels import Classifier
from maskwright.structures import Images

CHOICE = {"short": 36, "interpolation": "bicubic"}


def tiny_predictor(*, multilabel: bool = False) -> Predictor:
    """A small classifier whose answers depend on the image."""
    torch.manual_seed(0)
    model = build("resnet20_cifar", 4, depth=8, multilabel=multilabel, **CHOICE)
    with torch.no_grad():
        model.final.weight.normal_(std=3.0)
        # Without the mean of its logits it would call all images the same.
        pixels = 255 * torch.rand(64, 3, 3, 3).repeat_interleave(11, 2).repeat_interleave(11, 3)
        sizes = torch.full((64, 2), 32)
        model.final.bias -= model.eval()(Images(pixels[:, :, :32, :32], sizes, sizes)).mean(0)
    names: list[str | None] = ["cat", "dog", None, "ünïcode"]
    return Predictor(model, Meta("resnet20_cifar", {}, names, licence="CC0"), device="cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures of different sizes and shapes."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(3)
    for i, (height, width) in enumerate([(61, 90), (97, 70), (20, 51)]):
        coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((width, height)).save(folder / f"{i}.png")
    return folder


def write(folder: Path, photos: Path, format: str, **options: object) -> tuple[Path, ExportReport]:
    reports: list[ExportReport] = []
    multilabel = bool(options.pop("multilabel", False))
    suffix = {"openvino": "xml", "aoti": "pt2"}.get(format, format)
    path = export(
        tiny_predictor(multilabel=multilabel),
        format,
        folder / f"out.{suffix}",
        source=photos,
        report=reports.append,
        **options,  # type: ignore[arg-type]
    )
    return path, reports[0]


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    return write(tmp_path_factory.mktemp("onnx"), photos, "onnx")[0]


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("onnx", {}),
        ("onnx", {"multilabel": True, "batch": 2}),
        ("openvino", {"half": True}),
        *(pytest.param(format, {}, marks=pytest.mark.slow) for format in ("pt2", "aoti")),
    ],
)
def test_every_format_answers_as_the_model(
    format: str, options: dict[str, object], tmp_path: Path, photos: Path
) -> None:
    path, report = write(tmp_path, photos, format, **options)
    assert {case.batch for case in report.cases} == {1, 2} and len(report.cases) == 4
    assert all(case.match.apart <= 5e-4 for case in report.cases)
    loaded = mw.load(path, trust=True)
    predictor = tiny_predictor(multilabel=bool(options.get("multilabel")))
    assert loaded.names == predictor.names and loaded.meta.licence == "CC0"
    atol = 0.02 if options.get("half") else 1e-5
    answers = set()
    for photo in sorted(photos.iterdir()):
        wanted, found = predictor(photo), loaded(photo)
        torch.testing.assert_close(found.probs, wanted.probs, atol=atol, rtol=0)
        assert found.multilabel == wanted.multilabel
        answers.add(round(wanted.score, 3))
    assert len(answers) == 3  # of three photos
    with pytest.raises(OptionError, match="exported for images of 32 x 32"):
        loaded(photo, imgsz=64)


@pytest.mark.parametrize("multilabel", [False, True])
def test_without_torch_the_answers_are_those_of_a_prediction(
    multilabel: bool,
    tmp_path: Path,
    onnx_file: Path,
    photos: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = onnx_file
    if multilabel:
        path, _ = write(tmp_path, photos, "onnx", multilabel=True)
    model, predictor = runtime.load(path, threads=1), tiny_predictor(multilabel=multilabel)
    assert isinstance(model, Classifier)
    for photo in sorted(photos.iterdir()):
        found, wanted = model(photo), predictor(photo)
        assert found.name == wanted.class_name and found.names[:4] == [n for n, _ in found.top(4)]
        np.testing.assert_allclose(found.scores, [p for _, p in wanted.top(4)], atol=1e-5)
        assert found.names == [name for name, _ in wanted.top(4)]
        assert [model.names[i] for i in found.labels] == found.names
        assert found.multilabel == multilabel == (abs(float(found.scores.sum()) - 1) > 1e-3)
    assert runtime.main([str(path), str(photo)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["top"][0] == {"class": found.name, "score": pytest.approx(found.score, abs=1e-5)}


@pytest.mark.parametrize("size", [(61, 90), (97, 70), (33, 200), (36, 36)])
def test_the_square_is_torchvisions(size: tuple[int, int], onnx_file: Path) -> None:
    from torchvision.transforms import v2

    model = runtime.load(onnx_file, threads=1)
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    short = model.spec["resize"]["short"]
    steps = v2.Compose(
        [v2.Resize(short, v2.InterpolationMode.BICUBIC, antialias=True), v2.CenterCrop(32)]
    )
    wanted = np.asarray(steps(Image.fromarray(pixels))).transpose(2, 0, 1)
    np.testing.assert_array_equal(model.square(pixels), wanted)


def test_the_file_describes_itself(tmp_path: Path, onnx_file: Path, photos: Path) -> None:
    import onnx

    graph = onnx.load(onnx_file)
    (entry,) = graph.metadata_props
    data = json.loads(entry.value)
    assert entry.key == KEY and data["task"] == "classify" and data["outputs"] == ["probs"]
    assert data["size"] == [32, 32] and data["crop"] == 32 and data["resize"]["short"] == 36
    assert data["interpolation"] == "bicubic" and data["multilabel"] is False
    assert to_json(from_json(entry.value)) == entry.value
    (probs,) = graph.graph.output
    assert probs.name == "probs" and probs.type.tensor_type.shape.dim[1].dim_value == 4
    for field, value in (("crop", 33), ("interpolation", "magic"), ("names", [])):
        with pytest.raises(ValueError):
            from_json(json.dumps({**data, field: value}))
        entry.value = json.dumps({**data, field: value})
        onnx.save(graph, tmp_path / "bad.onnx")
        with pytest.raises(ValueError, match=r"bad\.onnx|graph does not fit"):
            runtime.load(tmp_path / "bad.onnx")(sorted(photos.iterdir())[0])


def test_what_a_classifier_has_no_graph_for(tmp_path: Path) -> None:
    target = tmp_path / "a.onnx"
    for wrong in ({"imgsz": 64}, {"imgsz": None}, {"iou": 0.7}, {"max_det": 5}):
        with pytest.raises(OptionError, match=next(iter(wrong))):
            export(tiny_predictor(), "onnx", target, **wrong)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def own_answers(folder: Path) -> Path:
    """Drawn images in folders by the model's own answers: its accuracy is 1."""
    predictor, rng = tiny_predictor(), np.random.default_rng(5)
    for split in ("train", "val"):
        for i in range(12):
            coarse = rng.integers(0, 256, (3, 3, 3), dtype=np.uint8)
            pixels = np.asarray(Image.fromarray(coarse).resize((48, 40)))
            place = folder / split / predictor(pixels).class_name
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place / f"{i}.png")
    return folder


def test_int8_is_judged_by_accuracy(tmp_path: Path, photos: Path) -> None:
    data = own_answers(tmp_path / "data")
    assert len(list((data / "val").iterdir())) > 1
    options = {"int8": True, "data": data, "max_drop": 90}
    path, report = write(tmp_path / "out", photos, "onnx", **options)
    judged = report.int8
    assert judged is not None and judged.before == {"top1": 1.0} and judged.layers > 3
    assert json.loads(to_json(mw.load(path).model.spec))["int8"]["after"] == judged.after
    loaded = mw.load(path)
    assert mw.val(loaded, data, workers=0)["top1"] == judged.after["top1"]
    probs = [
        model(photo).probs for model in (tiny_predictor(), loaded) for photo in photos.glob("0*")
    ]
    assert 1e-4 < float((probs[0] - probs[1]).abs().max()) < 0.3  # rounded, and not ruined
    shutil.rmtree(data / "val")
    with pytest.raises(ValueError, match="val"):
        write(tmp_path / "none", photos, "onnx", **options)
