"""What an evaluation of pixel classes leaves: the worst images, counts, pictures, and a page."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from maskwright.data.discover import open_dataset
from maskwright.data.records import Dataset
from maskwright.drawing.label_maps import WRONG
from maskwright.structures import Images, LabelMaps
from maskwright.tasks.semantic import figures, pictures
from maskwright.tasks.semantic.evaluate import SemanticEvaluation, SemanticEvaluator
from maskwright.tasks.semantic.kept import SPREAD, WORST, KeptMaps, chosen, spread
from maskwright.tasks.semantic.report import write_report

pytestmark = pytest.mark.figures

NAMES = ["background", "cell", "<b>", "never"]
COUNT = 20
OPTIONS = {"title": "val", "command": "maskwright predict", "options": {}, "device": "cpu"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Discs of several sizes; every third image has a bar, one is ignored altogether."""
    root = tmp_path_factory.mktemp("maps")
    for kind in ("images", "masks"):
        (root / kind / "val").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        height, width = 40 + number, 60
        y, x = np.mgrid[:height, :width]
        labels = np.zeros((height, width), np.uint8)
        labels[np.hypot(x - 25, y - 20) < 6 + number / 2] = 1
        if number % 3 == 0:
            labels[:, 50:54] = 2
        labels[0] = 255
        if number == 7:
            labels[:] = 255
        pixels = np.clip(labels[..., None] * 60 + rng.integers(0, 60, (height, width, 3)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"images/val/{number:02}.png")
        Image.fromarray(labels).save(root / f"masks/val/{number:02}.png")
    (root / "classes.txt").write_text("\n".join(NAMES) + "\n")
    return open_dataset(root, "val", records="maps")


def damaged(truth: np.ndarray, index: int) -> np.ndarray:
    """Predict too much of the background, the more the higher the number; all right in image 0."""
    said = np.where(truth == 255, 0, truth).astype(np.uint8)
    said[truth.shape[0] - 2 * index :] = 0
    return said


def evaluate(data: Dataset, *parts: list[int]) -> SemanticEvaluation:
    shares = []
    for part in parts:
        evaluator = SemanticEvaluator(
            data,
            SimpleNamespace(names=NAMES),
            lambda _, batches: [damaged(data.label_map(i), i) for i in batches[0].indices],
        )
        for index in part:
            truth = torch.from_numpy(data.label_map(index))
            evaluator.add(None, [SimpleNamespace(indices=[index], targets=[truth])])
        shares.append(evaluator.share())
    return evaluator.finish(shares, 2.0)


@pytest.fixture(scope="module")
def result(data: Dataset) -> SemanticEvaluation:
    return evaluate(data, list(range(COUNT)))


def plain_iou(said: np.ndarray, truth: np.ndarray) -> float:
    valid = truth != 255
    found = []
    for label in range(4):
        a, b = said[valid] == label, truth[valid] == label
        if (a | b).any():
            found.append((a & b).sum() / (a | b).sum())
    return float(np.mean(found)) if found else math.nan


def test_the_worst_images_are_kept(data: Dataset, result: SemanticEvaluation) -> None:
    ious = {i: plain_iou(damaged(data.label_map(i), i), data.label_map(i)) for i in range(COUNT)}
    assert result.iou_of_images.tolist() == pytest.approx(list(ious.values()), nan_ok=True)
    ranked = sorted((i for i in ious if not math.isnan(ious[i])), key=lambda i: ious[i])
    assert set(result.maps) == {*ranked[:WORST], *spread(COUNT)}
    for index, one in result.maps.items():
        assert np.array_equal(one.labels, damaged(data.label_map(index), index))
        assert one.iou == pytest.approx(ious[index], nan_ok=True)
    worst = pictures.worst_images(result)
    assert worst == ranked[:WORST] and ious[worst[0]] < 0.8


def test_processes_together_keep_the_same_maps(data: Dataset, result: SemanticEvaluation) -> None:
    """Also where both have seen an image, as the last ones of an uneven number."""
    again = evaluate(data, [*range(1, COUNT, 2), 0], list(range(COUNT - 2, -1, -2)))
    assert again.maps == result.maps
    assert again.metrics == result.metrics
    assert np.array_equal(again.counts, result.counts)


@pytest.mark.parametrize("count", [0, 1, 3, 100])
def test_few_maps_are_held_at_a_time(count: int) -> None:
    kept = KeptMaps(count)
    rng = np.random.default_rng(0)
    ious = rng.random(count)
    for index, iou in enumerate(ious.tolist()):
        kept.add(index, iou, np.full((2, 3), index, np.uint8))
        assert len(kept.maps) <= WORST + SPREAD
    wanted = {*np.argsort(ious)[:WORST].tolist(), *spread(count)}
    assert set(kept.maps) == wanted
    assert chosen([kept.maps, {}, kept.maps], count) == kept.maps


def test_a_run_folder_gives_the_evaluation_back(
    data: Dataset, result: SemanticEvaluation, tmp_path: Path
) -> None:
    pictures.save_validation(tmp_path, result, data)
    again = pictures.load_validation(tmp_path, result.metrics, NAMES)
    assert again is not None
    assert again.metrics == result.metrics
    for name in ("confusion", "images", "counts"):
        assert np.array_equal(getattr(again, name), getattr(result, name)), name
    assert list(again.maps) == list(result.maps)
    for index, one in result.maps.items():
        assert np.array_equal(again.maps[index].labels, one.labels)
        assert again.maps[index].iou == pytest.approx(one.iou, nan_ok=True)
    rows = list(csv.DictReader((tmp_path / "images.csv").read_text().splitlines()))
    assert [Path(row["path"]).name for row in rows] == [f"{i:02}.png" for i in range(COUNT)]
    truth = data.label_map(19)
    assert int(rows[19]["wrong"]) == ((damaged(truth, 19) != truth) & (truth != 255)).sum()
    assert rows[7]["IoU"] == "" and rows[7]["pixels"] == rows[7]["wrong"] == "0"
    assert pictures.load_validation(tmp_path, {}, NAMES[:3]) is None
    (tmp_path / pictures.EVALUATION).write_bytes(b"damaged")
    assert pictures.load_validation(tmp_path, {}, NAMES) is None


def test_the_report_says_what_is_wrong(
    data: Dataset, result: SemanticEvaluation, tmp_path: Path
) -> None:
    found, lines = write_report(tmp_path, result, data, notes=["a note"], **OPTIONS)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for file in ("worst.jpg", "confusion_matrix.png", "classes.png", "metrics.json"):
        assert (tmp_path / file).is_file(), file
    true, said, count = found.confusions[0]
    assert (true, said) == (1, 0) and count == result.confusion[1, 0]
    assert [(t, s) for t, s, _ in found.confusions] == [(1, 0), (2, 0)]
    assert "most often cell taken for background" in lines[0]
    assert "&lt;b&gt;" in page and "<b></td>" not in page
    assert "Neither in the images nor predicted, and left out: never" in page
    assert "19.png" in page and "a note" in page
    tree = json.loads((tmp_path / "metrics.json").read_text())
    assert tree["mIoU"] == pytest.approx(result.metrics["mIoU"])
    assert tree["diagnostics"]["confusion_matrix"]["counts"] == result.confusion[:, :-1].tolist()
    assert tree["diagnostics"]["pixels"]["never"] == 0


def test_reports_of_nothing_and_of_no_mistake(data: Dataset, tmp_path: Path) -> None:
    perfect = evaluate(data, [0])
    assert perfect.metrics["mIoU"] == 1.0
    found, lines = write_report(tmp_path, perfect, data, notes=[], **OPTIONS)
    assert not found.confusions and not found.worst
    assert not (tmp_path / "worst.jpg").exists() and lines[0].startswith("0.0% of the pixels wrong")
    assert "No class was taken for another" in (tmp_path / "report.html").read_text()
    nothing = evaluate(data, [7])
    assert math.isnan(nothing.metrics["mIoU"])
    folder = tmp_path / "nothing"
    folder.mkdir()
    _, lines = write_report(folder, nothing, data, notes=[], **OPTIONS)
    assert lines[0] == "no pixel to be scored"
    assert "Evaluate images with label maps" in (folder / "report.html").read_text()
    assert not (folder / "classes.png").exists()


def test_rows_of_worst_images_show_where_they_are_wrong(
    data: Dataset, result: SemanticEvaluation, tmp_path: Path
) -> None:
    path = tmp_path / "worst.jpg"
    pictures.draw_images(path, result, data, [19], "Heading")
    with Image.open(path) as picture:
        pixels = np.asarray(picture).astype(int)
    cell = pixels[: pixels.shape[0] - 60, -pictures.CELL :]
    share = (np.abs(cell - np.array(WRONG)).sum(-1) < 70).mean()
    truth = data.label_map(19)
    wrong = ((damaged(truth, 19) != truth) & (truth != 255)).mean()
    assert share == pytest.approx(wrong, rel=0.35)
    pictures.draw_images(path, result, data, [], "Heading")
    assert not path.exists()


def test_figures_with_many_classes_and_pixels_without_a_class(tmp_path: Path) -> None:
    from maskwright.metrics.semantic import pixel_scores

    rng = np.random.default_rng(0)
    counts = rng.integers(0, 9, (40, 41)) + 200 * np.eye(40, 41, dtype=np.int64)
    names = [f"class $ {i}" for i in range(40)]
    for file in (
        figures.plot_confusion(counts, names, tmp_path / "a.png"),
        figures.plot_classes(pixel_scores(counts), names, tmp_path / "b.png"),
    ):
        with Image.open(file) as picture:
            assert picture.width > 500 and picture.height > 400


def test_pictures_of_batches_and_annotations(data: Dataset, tmp_path: Path) -> None:
    pixels = torch.rand(2, 3, 64, 96) * 255
    sizes = torch.tensor([[64, 80], [50, 96]])
    maps = torch.zeros(2, 64, 96, dtype=torch.uint8)
    maps[:, 20:30] = 1
    maps[:, 60:] = 255
    batch = SimpleNamespace(
        images=Images(pixels, sizes, sizes), targets=LabelMaps(maps), indices=[3, COUNT + 4]
    )
    pictures.save_batch(tmp_path / "batch.jpg", batch, data)
    pictures.save_annotations(tmp_path / "labels.jpg", data)
    for name in ("batch.jpg", "labels.jpg"):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 300
