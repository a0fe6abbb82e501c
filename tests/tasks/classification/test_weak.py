"""Boxes from the heat maps of classifiers: scores, the choice of the threshold, COCO files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from location_data import draw_data
from torch import Tensor, nn

import maskwright as mw
from maskwright.cli import main
from maskwright.data import open_dataset
from maskwright.data.records import Dataset
from maskwright.errors import OptionError
from maskwright.models import Meta
from maskwright.models.classification.base import Classifier, ClassifierOptions, Network
from maskwright.structures import Preprocess
from maskwright.tasks.classification import pseudo as module
from maskwright.tasks.classification.explain import middle
from maskwright.tasks.classification.pseudo import pseudo
from maskwright.tasks.classification.weak import (
    look_at,
    objects_of,
    score_maps,
    spread,
    weak_scores,
)
from maskwright.tasks.classification.weak_report import write_weak


class Colours(Network):
    """Knows red from blue by its two maps, which show nothing else."""

    final = "fc"

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        with torch.no_grad():
            self.fc.weight.copy_(torch.tensor([[4.0, -1.0], [-1.0, 4.0]]))
            self.fc.bias.zero_()

    def stages(self) -> list[list[nn.Module]]:
        return [[]]

    def maps(self, x: Tensor) -> Tensor:
        red, _, blue = x.unbind(1)
        found = torch.stack([red - blue - 0.5, blue - red - 0.5], 1).relu()
        return nn.functional.avg_pool2d(found, 4)

    def head(self, maps: Tensor) -> Tensor:
        logits: Tensor = self.fc(maps.mean((2, 3)))
        return logits


@pytest.fixture(scope="module")
def model() -> Classifier:
    return Classifier(2, Colours(), ClassifierOptions(imgsz=64, short=64)).eval()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_data(tmp_path_factory.mktemp("data"), train=18, val=12)


@pytest.fixture(scope="module")
def data(root: Path) -> Dataset:
    return open_dataset(root, "val")


@pytest.mark.parametrize("method", ["cam", "gradcam", "gradcam++"])
def test_maps_that_show_the_object_find_it(
    model: Classifier, root: Path, data: Dataset, method: str
) -> None:
    found = weak_scores(model, method, data, lambda: open_dataset(root, "train"), batch=3)
    metrics = found.metrics
    assert metrics[f"{method}/gt_known"] == metrics[f"{method}/MaxBoxAcc"] == 1
    assert metrics[f"{method}/MaxBoxAccV2"] > 0.9 and metrics[f"{method}/top1_loc"] == 1
    for name in ("gaussian", "whole"):
        assert metrics[f"{name}/gt_known"] < 0.5 < metrics[f"{method}/gt_known"]
    assert len(found.scored.indices) == 10 and found.tuned == 15


def test_scores_are_those_of_a_plain_count(model: Classifier, root: Path, data: Dataset) -> None:
    train = open_dataset(root, "train")
    tuning = look_at(model, train, [0, 1, 2, 3], "cam")
    scored = look_at(model, data, [0, 1, 2], "cam")
    found = score_maps(scored, tuning, "cam")
    counts = [(tuning.largest["cam"][:, t] >= 0.5).sum() for t in range(100)]
    best = [t for t in range(100) if counts[t] == max(counts)]
    place = best[len(best) // 2]
    assert found.thresholds["cam"] == pytest.approx(place / 100)
    right = [row[place] >= 0.5 for row in scored.largest["cam"]]
    assert found.metrics["cam/gt_known"] == np.mean(right)
    v2 = [
        max((scored.any["cam"][:, t] >= level).mean() for t in range(100))
        for level in (0.3, 0.5, 0.7)
    ]
    assert found.metrics["cam/MaxBoxAccV2"] == pytest.approx(np.mean(v2))
    whole = [plain_whole(data, index) for index in (0, 1, 2)]
    np.testing.assert_allclose(scored.largest["whole"][:, 0], whole, atol=0.06)


def plain_whole(data: Dataset, index: int) -> float:
    """Return the IoU of the whole image with the object of it."""
    truth = objects_of(data, index)
    assert truth is not None
    x1, y1, x2, y2 = truth[1][0].tolist()
    height, width = data[index].size
    return (x2 - x1) * (y2 - y1) / (height * width)


def test_the_threshold_never_comes_from_scored_images(
    model: Classifier, root: Path, data: Dataset
) -> None:
    with pytest.raises(OptionError, match="are scored themselves"):
        weak_scores(model, "cam", data, lambda: data)

    def none() -> Dataset:
        raise ValueError("there is no split train")

    with pytest.raises(ValueError, match="chosen on a training part, never on the scored"):
        weak_scores(model, "cam", data, none)
    train = open_dataset(root, "train")
    assert len(spread(train, 4)) == 4
    assert not set(spread(train, 99, without=train.files()))


def test_a_larger_input_has_finer_maps(model: Classifier, root: Path, data: Dataset) -> None:
    coarse, fine = (look_at(model, data, [0, 1, 2], "cam", side=s, keep=3) for s in (None, 256))
    assert [heat.shape for heat in coarse.kept + fine.kept] == 3 * [(64, 64)] + 3 * [(256, 256)]
    assert fine.largest["cam"].max(1).mean() > coarse.largest["cam"].max(1).mean()
    found = weak_scores(model, "cam", data, lambda: open_dataset(root, "train"), side=256)
    assert found.scored.kept[0].shape == (256, 256) and found.metrics["cam/gt_known"] == 1


def test_a_report_shows_table_curves_and_maps(
    model: Classifier, root: Path, data: Dataset, tmp_path: Path
) -> None:
    found = weak_scores(model, "cam", data, lambda: open_dataset(root, "train"), keep=4)
    lines = write_weak(tmp_path, found, data, title="Title", options={}, device="cpu")
    page = (tmp_path / "report.html").read_text()
    assert "centred Gaussian" in page and "MaxBoxAccV2" in page and "thresholds.png" in page
    assert json.loads((tmp_path / "metrics.json").read_text()) == pytest.approx(found.metrics)
    assert "cam finds 1.000 of the objects" in lines[0]
    assert f"method=cam threshold={found.thresholds['cam']:g}" in page
    key = "cam/gt_known"
    worse = replace(found, metrics={**found.metrics, key: found.metrics["whole/gt_known"]})
    write_weak(tmp_path, worse, data, title="Title", options={}, device="cpu")
    page = (tmp_path / "report.html").read_text()
    assert "Do not trust these boxes" in page and "data pseudo" not in page


def test_what_of_a_photo_is_seen() -> None:
    rule = Preprocess(64, 80)
    assert middle(rule, (80, 160)) == (48.0, 8.0, 112.0, 72.0)
    assert middle(rule, (160, 160)) == (16.0, 16.0, 144.0, 144.0)


@pytest.fixture
def loads(model: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """The colours network has no name: it stands for a checkpoint."""
    meta = Meta("colours", {}, ["red", "blue"], [7, 9])
    monkeypatch.setattr(module, "load_model", lambda *_, **__: (model, meta))


@pytest.mark.usefixtures("loads")
@pytest.mark.parametrize("below", [False, True])
def test_pseudo_labels_are_a_data_set(
    root: Path, data: Dataset, tmp_path: Path, below: bool
) -> None:
    source = root / "images" / "val"
    dst = source / "made.json" if below else tmp_path / "made.json"
    report = pseudo("colours", source, dst, method="cam", conf=0.6, threshold=0.3)
    assert report.images == 12 and report.found == {"red": 6, "blue": 4} and not report.skipped
    made = open_dataset({"train": str(dst), "images": str(source)}, "train")
    dst.unlink()
    assert made.names == ["red", "blue"] and made.category_ids == [7, 9] and not made.faults
    for index in range(len(made)):
        truth = data[index]
        assert made[index].path.name == truth.path.name
        if not len(truth.boxes):
            assert not len(made[index].boxes)
            continue
        assert made[index].labels.tolist() == truth.labels.tolist()
        assert overlap(made[index].boxes[0], truth.boxes[0]) > 0.6
        crop, frame = made.mask(index, 0)
        assert crop.any() and frame == tuple(made[index].boxes[0].astype(int).tolist())


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    w, h = (np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])).clip(0)
    areas = [float((box[2:] - box[:2]).prod()) for box in (a, b)]
    return float(w * h / (sum(areas) - w * h))


@pytest.mark.usefixtures("loads")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dst": "made.txt"}, r"ends in \.json"),
        ({"conf": 2.0}, "conf must lie"),
        ({"threshold": 1.0}, "threshold is a share"),
        ({"source": "nowhere"}, "is no folder"),
        ({"method": "gradcan"}, "did you mean 'gradcam'"),
    ],
)
def test_wrong_options_are_one_error(
    root: Path, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    given = {"source": root / "images" / "val", "dst": tmp_path / "made.json", **options}
    with pytest.raises(ValueError, match=message):
        pseudo("colours", **given)


def test_val_and_pseudo_as_a_user_runs_them(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = mw.train(
        root,
        "classify_mobilenetv2_100",
        imgsz=64,
        steps=1,
        workers=0,
        device="cpu",
        project=tmp_path / "runs",
    )
    model = f"model={made.dir}"
    line = ["val", model, f"data={root}", "localize=cam", f"save={tmp_path / 'val'}"]
    assert main(line) == 0
    shown = capsys.readouterr()
    assert all(word in shown.out for word in ("gaussian", "whole", "MaxBoxAccV2", "gt_known"))
    assert (tmp_path / "val" / "report.html").is_file()
    first = json.loads((tmp_path / "val" / "metrics.json").read_text())
    assert main([*line, "imgsz=128"]) == 0
    assert json.loads((tmp_path / "val" / "metrics.json").read_text()) != first
    assert "imgsz: 128" in (tmp_path / "val" / "args.yaml").read_text()
    assert main([*line, "tta=flip"]) == 2
    assert "look at an image once" in capsys.readouterr().err
    assert main([*line[:3], "localize=camm"]) == 2
    assert "localize must be one of" in capsys.readouterr().err
    dst = tmp_path / "made.json"
    source = f"source={root / 'images' / 'val'}"
    assert main(["data", "pseudo", model, source, f"dst={dst}", "conf=0"]) == 0
    content = json.loads(dst.read_text())
    assert len(content["images"]) == 12 and "not drawn by people" in content["info"]["description"]
    one_place = ["data", "pseudo", model, source, f"dst={dst}", "conf=0", "imgsz=32"]
    assert main([*one_place, "method=cam"]) == 0
    objects = len(json.loads(dst.read_text())["annotations"])
    assert f"{12 * 2 - objects} heat maps are empty" in capsys.readouterr().err
    assert main(["data", "pseudo", model, source, f"dst={dst}", "method=camm"]) == 2
    assert "method must be one of" in capsys.readouterr().err
