"""Figures: the numbers in them are those given, the files are pictures, pyplot stays unloaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskwright.drawing import figures as shared
from maskwright.drawing import matrix as matrices
from maskwright.metrics.detection.error_split import KINDS, SPECIAL, ErrorSplit
from maskwright.metrics.detection.scores import (
    THRESHOLDS,
    Calibration,
    OperatingPoint,
    ScoreCurves,
)
from maskwright.reports import curves as plots
from maskwright.tasks.classification.task import TASK as CLASSIFICATION
from maskwright.tasks.detection.reporting import figures as plots_val
from maskwright.tasks.detection.reporting import label_figure
from maskwright.tasks.detection.task import TASK

pytestmark = pytest.mark.figures

CSV = """epoch,step,seconds,lr,images_per_s,train/loss,train/rpn/objectness,val/box/AP,val/mask/AP
1,10,5.0,0.01,4.0,2.0,0.5,,
2,20,5.1,0.02,4.1,1.5,0.4,0.1,0.05
3,30,5.2,0.01,4.2,nan,0.3,0.3,0.25
4,40,5.3,0.0,4.1,1.0,0.2,0.2,0.15
"""


@pytest.fixture
def figures(monkeypatch) -> list:
    """Figures that the plots saved, for a look at what is in them."""
    kept = []
    save = shared.save_figure

    def keep(figure, out):
        kept.append(figure)
        return save(figure, out)

    monkeypatch.setattr(plots, "save_figure", keep)
    monkeypatch.setattr(plots_val, "save_figure", keep)
    monkeypatch.setattr(matrices, "save_figure", keep)
    monkeypatch.setattr(label_figure, "save_figure", keep)
    return kept


def assert_picture(path: Path) -> None:
    with Image.open(path) as picture:
        picture.load()
        assert min(picture.size) > 200
        assert len(np.unique(np.array(picture.convert("L")))) > 10


def line(figure, title: str, name: str):
    (ax,) = (ax for ax in figure.axes if ax.get_title(loc="left") == title)
    (found,) = (found for found in ax.lines if found.get_label() == name)
    return found.get_xdata().tolist(), found.get_ydata().tolist()


def test_results(tmp_path, figures):
    source = tmp_path / "results.csv"
    source.write_text(CSV)
    assert_picture(plots.plot_results(source, tmp_path / "deep/results.png", groups=TASK.curves))
    (figure,) = figures
    assert line(figure, "Training loss", "loss") == ([1, 2, 4], [2.0, 1.5, 1.0])
    assert line(figure, "Losses by part", "rpn/objectness")[1] == [0.5, 0.4, 0.3, 0.2]
    assert line(figure, "Box AP on the val split", "AP") == ([2, 3, 4], [0.1, 0.3, 0.2])
    assert line(figure, "Learning rate", "lr")[1] == [0.01, 0.02, 0.01, 0.0]
    (mask,) = (ax for ax in figure.axes if ax.get_title(loc="left").startswith("Mask"))
    assert [text.get_text() for text in mask.texts] == ["0.250"]


def test_a_loss_of_the_validation_is_seen_whole_and_best_where_it_is_lowest(tmp_path, figures):
    source = tmp_path / "results.csv"
    rows = "1,8,2.3,2.3,2.2,0.1\n2,16,2.0,2.0,1.4,0.3\n3,24,1.9,1.9,1.6,0.4\n"
    source.write_text("epoch,step,train/class,train/loss,val/nll,val/top1\n" + rows)
    plots.plot_results(source, tmp_path / "r.png", groups=CLASSIFICATION.curves)
    axes = {ax.get_title(loc="left"): ax for ax in figures[0].axes}
    assert "Losses by part" not in axes  # there is one alone
    loss, top1 = axes["Log loss on the val split"], axes["Accuracy on the val split"]
    assert loss.get_ylim()[1] > 2.2 and top1.get_ylim()[1] <= 1.05
    assert [text.get_text() for ax in (loss, top1) for text in ax.texts] == ["1.400", "0.400"]


def test_results_by_step_where_an_epoch_has_several_rows(tmp_path, figures):
    source = tmp_path / "results.csv"
    source.write_text("epoch,step,train/loss\n1,10,2\n1,20,1\n")
    plots.plot_results(source, tmp_path / "r.png", groups=TASK.curves)
    assert line(figures[0], "Training loss", "loss")[0] == [10, 20]
    source.write_text("epoch,train/loss\n1,2\n")  # a single row draws, too
    plots.plot_results(source, tmp_path / "r.png", groups=TASK.curves)


def test_results_without_rows_or_known_columns(tmp_path):
    source = tmp_path / "results.csv"
    source.write_text(CSV.splitlines()[0])
    with pytest.raises(ValueError, match=r"results\.csv has no rows"):
        plots.plot_results(source, tmp_path / "r.png", groups=TASK.curves)
    source.write_text("epoch,colour\n1,red\n")
    with pytest.raises(ValueError, match="no column named train"):
        plots.plot_results(source, tmp_path / "r.png", groups=TASK.curves)


@pytest.mark.parametrize("count", [0, 1, 5, 80])
def test_pr(tmp_path, figures, count):
    recall = np.linspace(0, 1, 101)
    curves = {
        f"class {k}": (recall, np.maximum(1 - recall * (k + 1) / 20, 0)) for k in range(count)
    }
    panels = {"Boxes, IoU 0.5": curves, "Boxes, IoU 0.75": {}}
    assert_picture(plots_val.plot_pr(panels, tmp_path / "pr.png"))
    assert [ax.get_title(loc="left") for ax in figures[0].axes] == list(panels)
    words = [t.get_text() for t in figures[0].axes[0].get_legend().texts] if count else []
    if count == 5:
        mean = np.mean([p.mean() for _, p in curves.values()])
        assert words[0].startswith("class 0") and f"mean of 5 classes  {mean:.3f}" in words
    if count == 80:
        assert len(words) == 4  # the mean, and the best, middle and worst class


@pytest.mark.parametrize("count", [1, 6, 80, 150])
def test_confusion(tmp_path, figures, count):
    rng = np.random.default_rng(count)
    matrix = rng.integers(0, 50, (count + 1, count + 1))
    matrix[0] = 0  # a class without objects
    matrix[-1, -1] = 0
    names = [f"name {k}" for k in range(count - 1)] + [None]
    assert_picture(plots_val.plot_confusion(matrix, names, tmp_path / "c.png"))
    ax = figures[0].axes[0]
    ticks = [t.get_text() for t in ax.get_yticklabels()]
    assert ticks[-1] == "background"
    shown = ax.images[0].get_array()
    assert shown.mask[-1, -1]
    if count <= plots_val.MANY_CELLS:
        assert len(ticks) == count + 1 and shown[0].sum() == 0
        for row in range(1, count):
            np.testing.assert_allclose(shown[row], matrix[row] / matrix[row].sum())
        np.testing.assert_allclose(shown[-1, :-1], matrix[-1, :-1] / matrix.sum(0)[:-1])
    else:  # those with the most errors have a row
        assert len(ticks) == plots_val.MANY_CELLS + 1
        assert ticks[-2] == f"{count - plots_val.MANY_CELLS + 1} other classes"
    assert bool(ax.texts) == (count <= 7)


def test_confusion_of_another_size(tmp_path):
    with pytest.raises(ValueError, match=r"expected \(3, 3\) for 2 names .* got \(2, 2\)"):
        plots_val.plot_confusion(np.zeros((2, 2), int), ["a", "b"], tmp_path / "c.png")


@pytest.mark.parametrize(("objects", "classes"), [(0, 1), (2000, 80)])
def test_labels(tmp_path, figures, objects, classes):
    rng = np.random.default_rng(0)
    path = label_figure.plot_labels(
        rng.integers(0, classes, objects),
        rng.uniform(1, 500, (objects, 2)),
        rng.random((objects, 2)),
        np.array([0, objects, 0]),
        [f"class {k}" for k in range(classes)],
        tmp_path / "labels.jpg",
    )
    assert_picture(path)
    first, second = figures[0].axes[:2]
    widths = [bar.get_width() for bar in first.patches]
    assert widths == sorted(widths, reverse=True) and len(widths) == min(classes, 20)
    assert sum(widths) == objects or (classes > 20 and 0 < sum(widths) < objects)
    assert sum(bar.get_height() for bar in second.patches) == 3
    assert f"3 images, {2 + (not objects)} empty" in second.get_title(loc="left")


def test_class_ap(tmp_path, figures):
    metrics = {"box/AP": 0.4, "box/AP/cat": 0.7, "box/AP/dog": 0.1, "box/AP/cow": float("nan")}
    metrics |= {"mask/AP/cat": 0.5, "mask/AP/dog": 0.6, "mask/AP/cow": float("nan")}
    assert_picture(plots_val.plot_class_ap(metrics, tmp_path / "ap.png"))
    (ax,) = figures[0].axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["dog", "cat"]
    assert [round(bar.get_width(), 3) for bar in ax.patches] == [0.1, 0.7, 0.6, 0.5]
    assert [t.get_text() for t in ax.get_legend().texts] == ["box  0.400", "mask  0.550"]
    many = {f"box/AP/class {k}": k / 80 for k in range(80)}
    objects = {f"class {k}": 1000 + k for k in range(80)}
    assert_picture(plots_val.plot_class_ap(many, tmp_path / "many.png", objects))
    assert len(figures[1].axes) == 2
    assert figures[1].axes[0].get_yticklabels()[0].get_text() == "class 79  (1,079)"
    assert sum(len(ax.patches) for ax in figures[1].axes) == 40
    hundreds = {f"box/AP/class {k}": k / 500 for k in range(500)}
    assert_picture(plots_val.plot_class_ap(hundreds, tmp_path / "hundreds.png"))
    best, worst = figures[2].axes
    assert best.get_title(loc="left") == "The best 20 of 500 classes"
    assert best.get_yticklabels()[0].get_text() == "class 499"
    assert worst.get_yticklabels()[-1].get_text() == "class 0"
    assert_picture(plots_val.plot_class_ap({"box/AP": 0.0}, tmp_path / "none.png"))


def test_scores(tmp_path, figures):
    f1 = 1 - np.abs(THRESHOLDS - 0.3)
    best = OperatingPoint(0.3, 0.6, 0.7, 1.0)
    nothing = np.full(len(f1), np.nan)
    curves = {
        "box": ScoreCurves(THRESHOLDS, f1 / 2, f1 / 3, f1, best, {}),
        "mask": ScoreCurves(THRESHOLDS, nothing, nothing, nothing, None, {}),
    }
    assert_picture(plots_val.plot_scores(curves, tmp_path / "s.png"))
    left, right = figures[0].axes
    assert left.get_title(loc="left") == "Box: F1 1.000 at conf=0.3"
    assert {line.get_label() for line in left.lines} >= {"F1", "precision", "recall"}
    assert not right.lines and [text.get_text() for text in right.texts] == ["no objects here"]


def test_calibration(tmp_path, figures):
    edges, nan = np.linspace(0, 1, 5), np.nan
    some = Calibration(edges, np.array([9, 0, 1, 500]), np.array([0.1, nan, 0.6, 0.9]),
                       np.array([0.0, nan, 1.0, 0.8]), 0.1, 0.09)  # fmt: skip
    none = Calibration(edges, np.zeros(4, int), np.full(4, nan), np.full(4, nan), nan, nan)
    assert_picture(plots_val.plot_calibration({"box": some, "mask": none}, tmp_path / "c.png"))
    upper, lower, empty, _ = figures[0].axes
    assert [bar.get_height() for bar in upper.patches] == [0.0, 1.0, 0.8]
    assert [bar.get_height() for bar in lower.patches] == [9, 0, 1, 500]
    assert upper.get_legend().get_title().get_text() == "ECE 0.100, score − share +0.090"
    assert [text.get_text() for text in empty.texts] == ["no detections"]


def test_errors(tmp_path, figures):
    rows = [*KINDS, *SPECIAL]
    gains = {row: 0.01 * i for i, row in enumerate(rows)}
    split = ErrorSplit(0.5, dict.fromkeys(rows, 1234), gains)
    nothing = ErrorSplit(float("nan"), dict.fromkeys(rows, 0), dict.fromkeys(rows, float("nan")))
    assert_picture(plots_val.plot_errors({"box": split, "mask": nothing}, tmp_path / "e.png"))
    (ax,) = figures[0].axes
    assert [t.get_text() for t in ax.get_yticklabels()] == rows
    assert [round(bar.get_width(), 6) for bar in ax.patches] == [
        *(round(0.01 * i, 6) for i in range(8)),
        *[0] * 8,
    ]
    assert "0.070  (1,234)" in [text.get_text() for text in ax.texts]


@pytest.mark.filterwarnings("ignore:no font here has")
def test_names_are_drawn_as_they_are(tmp_path, figures):
    names = ["$x$", "_y", "$\\frac{", "日本"]
    plots_val.plot_class_ap({f"box/AP/{name}": 0.5 for name in names}, tmp_path / "a.png")
    recall = np.linspace(0, 1, 101)
    plots_val.plot_pr({"a": dict.fromkeys(names, (recall, 1 - recall))}, tmp_path / "p.png")
    plots_val.plot_confusion(np.eye(5, dtype=int), names, tmp_path / "c.png")
    assert len(figures[1].axes[0].get_legend().texts) == 5  # "_y" is not hidden


def test_pyplot_stays_unloaded(tmp_path):
    code = (
        "import sys; from maskwright.reports import curves; "
        "from maskwright.tasks.detection.reporting import figures; "
        "assert 'matplotlib' not in sys.modules; "
        f"figures.plot_class_ap({{'box/AP/a': 0.5}}, {str(tmp_path / 'a.png')!r}); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def low_text(figure) -> list[str]:
    """Return the texts of a figure that are below 7 pixels where it is shown 500 pixels wide."""
    from matplotlib.text import Text

    width = figure.get_figwidth()
    texts = [one for one in figure.findobj(Text) if one.get_visible() and one.get_text().strip()]
    assert len(texts) > 5
    return [one.get_text() for one in texts if one.get_fontsize() * 500 / 72 / width < 7]


@pytest.mark.parametrize(
    "count", [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(120, marks=pytest.mark.slow)]
)
def test_texts_are_legible_at_500_pixels_and_long_names_leave_room(tmp_path, figures, count):
    names = [("x" * 200 + f" <b>{k}</b>") for k in range(count)]
    source = tmp_path / "results.csv"
    source.write_text(CSV)
    plots.plot_results(source, tmp_path / "r.png", lambda step: 0.01, TASK.curves)
    labels = np.arange(count).repeat(3)
    label_figure.plot_labels(
        labels, np.full((len(labels), 2), 20.0), np.full((len(labels), 2), 0.5),
        np.array([len(labels)]), names, tmp_path / "labels.jpg",
    )  # fmt: skip
    ramp = np.linspace(0, 1, 101)
    curves = dict.fromkeys(names, (ramp, 1 - ramp))
    plots_val.plot_pr({"IoU 0.5": curves, "IoU 0.75": curves}, tmp_path / "pr.png")
    metrics = {f"{kind}/AP/{name}": 0.5 for kind in ("box", "mask") for name in names}
    plots_val.plot_class_ap(metrics, tmp_path / "ap.png", dict.fromkeys(names, 3))
    matrix = np.ones((count + 1, count + 1), int)
    plots_val.plot_confusion(matrix, names, tmp_path / "c.png", "conf=0.5 (best F1: 0.9)")
    splits = ErrorSplit(
        0.5, dict.fromkeys((*KINDS, *SPECIAL), 3), dict.fromkeys((*KINDS, *SPECIAL), 0.1)
    )
    plots_val.plot_errors({"box": splits, "mask": splits}, tmp_path / "e.png")
    assert len(figures) == 6
    for figure in figures:
        assert low_text(figure) == []
        figure.canvas.draw()
        for ax in figure.axes:  # names have left room for what they name
            if ax.get_xlabel() or ax.get_ylabel():
                assert ax.get_window_extent().width > 0.2 * figure.bbox.width


def test_confusion_matrix_of_many_classes_keeps_every_count(tmp_path, figures):
    rng = np.random.default_rng(0)
    matrix = rng.integers(0, 5, (91, 91))
    matrix[3] = matrix[:, 3] = 0
    shown, words = matrices.pooled(
        matrix, [*(f"c{k}" for k in range(90)), "background"], plots_val.MANY_CELLS, last=True
    )
    assert shown.sum() == matrix.sum() and len(shown) == len(words) == plots_val.MANY_CELLS + 1
    assert words[-2:] == [f"{89 - plots_val.MANY_CELLS + 1} other classes", "background"]
    assert (shown[-1, :-2] == matrix[-1, [int(w[1:]) for w in words[:-2]]]).all()
    small, words = matrices.pooled(
        np.diag([2, 0, 3, 0]), ["a", "b", "c", "background"], 20, last=True
    )
    assert words == ["a", "c", "background"] and np.diag(small).tolist() == [2, 3, 0]


def test_the_learning_rate_shows_its_warm_up(tmp_path, figures):
    source = tmp_path / "results.csv"
    source.write_text(CSV)
    plots.plot_results(source, tmp_path / "r.png", lambda step: min(step + 1, 10) / 10, TASK.curves)
    x, y = line(figures[0], "Learning rate", "lr")
    assert x[:11] == list(range(1, 12)) and x[-1] == 40
    assert y[:11] == [k / 10 for k in (*range(1, 11), 10)]


def test_names_are_shortened_in_the_middle():
    long = "Escherichia coli " * 9 + "K-12"
    assert len(shared.as_text(long)) <= shared.LONGEST
    assert shared.as_text(long).startswith("Escherichia coli") and shared.as_text(long).endswith(
        "K-12"
    )
    assert shared.as_text("short name") == "short name"
