"""The report: complete, offline, safe against odd names, and there whole or not at all."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskwright.data.discover import open_dataset
from maskwright.data.records import Dataset
from maskwright.drawing import figures
from maskwright.metrics.detection.scores import Calibration
from maskwright.reports.page_parts import DASH, name_cell, table
from maskwright.tasks.detection.evaluate import DetectionEvaluation, score
from maskwright.tasks.detection.reporting import report as module
from maskwright.tasks.detection.reporting.advice import next_steps, verdict
from maskwright.tasks.detection.reporting.diagnosis import advise, diagnose
from maskwright.tasks.detection.reporting.pictures import load_detections, save_validation
from maskwright.tasks.detection.reporting.report import write_report
from maskwright.tasks.detection.reporting.worst import FOUND, MISSED, WRONG

EVIL = "<script>alert(\"1\")</script>&'x' $y$"


@pytest.fixture(autouse=True)
def small_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the figures small: what they show is tested elsewhere."""
    monkeypatch.setattr(figures, "DPI", 25)


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the figures out where the rest of the page is looked at: they take most of the time."""
    names = ("classes", "confusion", "scores", "errors", "calibration")
    draw: dict[str, Any] = {"pr": []} | dict.fromkeys(names, "none.png")
    monkeypatch.setattr(module, "_draw", lambda *args: draw)


class Page(HTMLParser):
    """What a browser would load, and the text by section and table row."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.headings: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._in = ""
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "img", "wbr"):
            self.open.append(tag)
        self._in = tag if tag != "wbr" else self._in
        self.loads += [str(v) for k, v in attrs if k in ("src", "href", "srcset", "data")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "h2":
            self.headings.append("")

    def handle_data(self, data: str) -> None:
        if self._in not in ("script", "style"):
            self.text += data
        if self._in in ("td", "th", "span") and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data
        if self._in == "h2":
            self.headings[-1] += data

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._in = ""

    def row(self, first: str, cells: int | None = None) -> list[str]:
        """Return the one row that begins so (and has so many cells)."""
        fit = [row for row in self.rows if row and row[0] == first]
        (found,) = [row for row in fit if cells is None or len(row) == cells]
        return found


def make_data(root: Path, names: list[str], objects: list[list[tuple[int, int]]]) -> Dataset:
    """Images of 100 x 60 pixels; an object is (class, x): a square of side 20 at (x, 20)."""
    (root / "images" / "val").mkdir(parents=True)
    images, annotations = [], []
    for i, here in enumerate(objects):
        file = f"{i} <i>.png"
        Image.new("RGB", (100, 60), (30, 30, 30)).save(root / "images" / "val" / file)
        images.append({"id": 7 + i, "file_name": file, "height": 60, "width": 100})
        for label, x in here:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 7 + i,
                    "category_id": label,
                    "bbox": [x, 20, 20, 20],
                    "area": 400,
                    "iscrowd": 0,
                    "segmentation": [[x, 20, x + 20, 20, x + 20, 40, x, 40]],
                }
            )
    categories = [{"id": k, "name": name} for k, name in enumerate(names)]
    tree = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations").mkdir()
    (root / "annotations" / "val.json").write_text(json.dumps(tree))
    return open_dataset(root, "val")


def found(image: int, label: int, x: int, score: float) -> dict[str, Any]:
    from pycocotools import mask as rle

    pixels = np.zeros((60, 100), np.uint8, order="F")
    pixels[20:40, x : x + 20] = 1
    return {
        "image_id": 7 + image,
        "category_id": label + 1,
        "bbox": [x, 20, 20, 20],
        "score": score,
        "segmentation": rle.encode(pixels),
    }


def evaluate(
    data: Dataset, detections: list[dict[str, Any]], *, masks: bool = True, more: Any = ()
) -> DetectionEvaluation:
    gt = data.to_coco(by_label=True)
    metrics = score(gt, detections, masks=masks, max_det=100) | dict(more)
    return DetectionEvaluation(metrics, 12.0, gt, detections, 100)


def write(folder: Path, result: DetectionEvaluation, data: Dataset, **changes: Any) -> Page:
    folder.mkdir(exist_ok=True)
    options: dict[str, Any] = {
        "title": "Validation",
        "command": "maskwright predict model=m source=s conf=0.5",
        "options": {"conf": 0.001, "imgsz": None},
        "device": "cpu",
    }
    write_report(folder, diagnose(result, 100), result, data, **{**options, **changes})
    page = Page(folder / "report.html")
    assert page.open == []
    return page


@pytest.mark.figures
def test_everything_is_in_it(tmp_path: Path) -> None:
    names = ["cat", "dog", "cow"]
    data = make_data(tmp_path / "d", names, [[(0, 5), (1, 60)], [(0, 5), (0, 60)], []])
    rows = [
        found(0, 0, 5, 0.9),
        found(0, 0, 60, 0.8),  # the dog taken for a cat
        found(1, 0, 5, 0.7),  # the other cat is missed
        found(1, 0, 15, 0.6),  # too far off
    ]
    result = evaluate(data, rows, more={"keypoints/AP": 0.25, "keypoints/AP/cat": 0.5})
    out = tmp_path / "run"
    out.mkdir()
    plots = {"results.png": "PNG", "labels.jpg": "JPEG"}
    for name, kind in plots.items():
        Image.new("RGB", (40, 30)).save(out / name, kind)
    page = write(out, result, data, notes=["look here first"])
    assert page.headings == [
        *("What to do", "The worst images", "Metrics", "Which score threshold?", "Training"),
        *("Classes", "Precision and recall", "Errors", "Confusion", "Calibration", "Annotations"),
        *("Options", "Environment"),
    ]
    assert "look here first" in page.text
    assert page.row("metric") == ["metric", "box", "mask", "keypoints"]
    # Cats: right at recall 1/3, wrong, right at 2/3, wrong. Dogs: nothing. Cows: no object.
    cat = (34 + 33 * 2 / 3) / 101
    assert page.row("AP50") == ["AP50", f"{cat / 2:.3f}", f"{cat / 2:.3f}", ""]
    assert page.row("AP")[3] == "0.250"
    # What is undefined everywhere has no row but is named, and so is a class that is not there.
    assert "AP_large" not in [row[0] for row in page.rows if row]
    assert re.search(
        r"Undefined, because the data has nothing to measure: [^.]*AP_large", page.text
    )
    assert "cow" not in [row[0] for row in page.rows if row]
    assert "Neither in the images nor found, and left out: cow." in page.text
    assert page.row("cat")[1] == "3" and page.row("cat")[4] == "0.500"
    assert page.row("dog", 9) == ["dog", "1", "0.000", "0.000", "", *["0.000", "–"] * 2]
    assert page.row("dog", 3) == ["dog", "cat", "1"]  # confused
    errors = {row[0]: row[2::2] for row in page.rows if len(row) == 6}
    assert errors["classification"] == errors["localisation"] == errors["missed"] == ["1", "1"]
    assert errors["false positives"] == ["2", "2"] and "background" not in errors
    assert re.search(r"No error of the kind: [^.]*background", page.text)
    assert page.row("true class")[1] == "taken for"
    assert page.row("conf") == ["conf", "0.001"] and page.row("imgsz") == ["imgsz", "none"]
    assert page.row("device") == ["device", "cpu"] and page.row("torch")[1][0].isdigit()
    # Pictures are in the page as they are in the folder.
    inside = [base64.b64decode(src.split(",", 1)[1]) for src in page.loads]
    beside = [file.read_bytes() for file in (*out.glob("*.png"), *out.glob("worst/*.jpg"))]
    assert all(data in inside for data in beside) and len(beside) == 11
    for picture in inside:
        Image.open(io.BytesIO(picture)).verify()
    assert len(list((out / "worst").iterdir())) == 2  # the image without objects has no error
    numbers = json.loads((out / "metrics.json").read_text())
    assert numbers["box/AP50"] == pytest.approx(cat / 2) and numbers["box/AP_large"] is None
    more = numbers["diagnostics"]
    assert more["confusion_matrix"]["counts"] == [
        [2, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0],  # above the conf of the best F1
    ]  # fmt: skip
    assert [row["missed"] for row in more["images"]["worst_first"]] == [1, 1, 0]
    curve = more["mask"]["precision_at_recall_0_to_1"]["IoU 0.5"]
    assert list(curve) == ["cat", "dog"] and np.mean(curve["cat"]) == pytest.approx(cat, abs=1e-6)


@pytest.mark.usefixtures("no_figures")
def test_it_loads_nothing_and_names_cannot_break_it(tmp_path: Path) -> None:
    data = make_data(tmp_path / "d", [EVIL, "b"], [[(0, 5), (1, 60)], [(0, 5)]])
    rows = [found(0, 1, 5, 0.9), found(1, 0, 60, 0.9)]
    result = evaluate(data, rows)
    page = write(tmp_path / "run", result, data, title=EVIL, notes=[EVIL], options={EVIL: EVIL})
    assert page.tags.count("script") == 1 and "i" in page.tags  # of the legend, not of a file name
    assert all(src.startswith(("data:image/png;", "data:image/jpeg;")) for src in page.loads)
    source = (tmp_path / "run" / "report.html").read_text()
    assert "http" not in re.sub(r'src="data:[^"]*"', "", source)
    assert "@import" not in source and "url(" not in source
    assert page.text.count(EVIL) >= 6  # heading, note, class, twice confused, option
    assert [row[0] for row in page.rows].count(EVIL) == 3


@pytest.mark.parametrize(
    ("objects", "rows"),
    [
        ([[(0, 5)]], []),
        ([[]], [found(0, 0, 5, 0.9)]),
        ([[]], []),
        ([[(0, 5)]], [found(0, 0, 70, 0.9)]),
    ],
    ids=["nothing found", "nothing to find", "nothing at all", "nothing right"],
)
def test_extremes(tmp_path: Path, objects: Any, rows: Any) -> None:
    data = make_data(tmp_path / "d", ["a"], objects)
    page = write(tmp_path / "run", evaluate(data, rows), data)
    if objects[0]:
        assert page.row("AP50")[1:] == ["0.000", "0.000"]
    else:
        assert not any(row and row[0] == "AP50" for row in page.rows)
        assert "Undefined, because the data has nothing to measure: AP, AP50, AP75" in page.text
    assert "no detection found an object" in page.text
    assert ("The worst images" in page.headings) == bool(objects[0] or rows)
    numbers = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert numbers["diagnostics"]["box"]["best"] is None
    gains = numbers["diagnostics"]["mask"]["errors"]["AP50_gained"]
    assert all((gain is None) == (not objects[0]) for gain in gains.values())


def test_boxes_only_and_perfect(tmp_path: Path) -> None:
    data = make_data(tmp_path / "d", ["a"], [[(0, 5)]])
    rows = [{k: v for k, v in found(0, 0, 5, 0.9).items() if k != "segmentation"}]
    page = write(tmp_path / "run", evaluate(data, rows, masks=False), data)
    assert page.row("metric") == ["metric", "box"]
    assert page.row("AP50") == ["AP50", "1.000"]
    assert "No image has an error." in page.text
    assert not (tmp_path / "run" / "mask_pr.png").exists()
    wrong = [rows[0] | {"bbox": [70, 20, 20, 20]}]
    write(tmp_path / "run", evaluate(data, wrong, masks=False), data)
    assert len(list((tmp_path / "run" / "worst").iterdir())) == 1


@pytest.mark.usefixtures("no_figures")
def test_eighty_classes(tmp_path: Path) -> None:
    names = [f"class {k}" for k in range(80)]
    data = make_data(tmp_path / "d", names, [[(k, 5), (k + 1, 60)] for k in range(0, 80, 2)])
    rows = [found(k // 2, k, 5, 0.9 - k / 100) for k in range(0, 80, 2)]
    page = write(tmp_path / "run", evaluate(data, rows), data)
    assert len([row for row in page.rows if row and row[0].startswith("class ")]) >= 80
    assert page.row("class 40")[1:3] == ["1", "1.000"]
    assert len(list((tmp_path / "run" / "worst").iterdir())) == 8


@pytest.mark.usefixtures("no_figures")
def test_errors_are_marked_by_colour(tmp_path: Path) -> None:
    data = make_data(tmp_path / "d", ["a"], [[(0, 5), (0, 70)]])
    rows = [found(0, 0, 5, 0.7), found(0, 0, 37, 0.8)]
    write(tmp_path / "run", evaluate(data, rows), data)
    (file,) = (tmp_path / "run" / "worst").iterdir()
    assert re.fullmatch(r"01_0 _i_\.jpg", file.name)
    shown = np.asarray(Image.open(file)).astype(int)
    right = shown[:, shown.shape[1] // 2 :]
    scale = right.shape[1] / 100
    for x, color in ((5, FOUND), (37, WRONG["background"]), (70, MISSED)):
        part = right[:, int((x - 2) * scale) : int((x + 22) * scale)]
        near = np.abs(part - np.array(color)).max(-1) < 40
        assert near.sum() > 300, x  # the edge of the mask and its box
    left = shown[100:, : shown.shape[1] // 2]
    between = left[:, int(32 * scale) : int(62 * scale)]
    assert (np.abs(between - 30) < 25).all()  # no false detection in the ground truth


@pytest.mark.usefixtures("no_figures")
def test_interruption_leaves_the_old_report_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data(tmp_path / "d", ["a"], [[(0, 5)]])
    result = evaluate(data, [found(0, 0, 5, 0.9)])
    out = tmp_path / "run"
    write(out, result, data, title="old")
    before = (out / "report.html").read_bytes()
    replace = Path.replace

    def interrupted(self: Path, target: Any) -> Path:
        if Path(target).name == "report.html":
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(out, result, data, title="new")
    assert (out / "report.html").read_bytes() == before
    assert not list(out.glob("*.part"))


def test_detections_come_back_as_they_were(tmp_path: Path) -> None:
    data = make_data(tmp_path / "d", ["a", "b"], [[(0, 5)], [(1, 60)]])
    rows = [found(0, 0, 5, 1 / 3), found(1, 1, 59, 0.9)]
    result = evaluate(data, rows)
    save_validation(tmp_path, result, data, advise(result, 100))
    again = load_detections(tmp_path, data)
    assert len(again) == 2 and again[0]["score"] == 1 / 3
    assert score(result.gt, again, masks=True, max_det=100) == pytest.approx(
        result.metrics, nan_ok=True, abs=0
    )
    stored = json.loads((tmp_path / "metrics.json").read_text())
    assert stored["mask/AP"] == result.metrics["mask/AP"]
    assert [k for k, v in result.metrics.items() if math.isnan(v)] == [
        k for k, v in stored.items() if v is None
    ]
    save_validation(tmp_path, evaluate(data, []), data, None)
    assert load_detections(tmp_path) == []


@pytest.mark.usefixtures("no_figures")
def test_suggestion_and_path_are_told(tmp_path: Path) -> None:
    data = make_data(tmp_path / "d", ["a"], [[(0, 5)]])
    result = evaluate(data, [found(0, 0, 5, 0.61)])
    write(tmp_path, result, data)
    output = "".join(f"{line}\n" for line in module.spoken(diagnose(result, 100), tmp_path))
    assert "best F1 1.000 (precision 1.000, recall 1.000)" in output
    assert "at conf=0.3: pictures, confusion matrix and the command below use it\n" in output
    assert output.endswith(f"report: {tmp_path / 'report.html'}\n")


@pytest.mark.usefixtures("no_figures")
def test_long_names_are_cut_on_the_page_alone(tmp_path: Path) -> None:
    long = "w" * 200
    data = make_data(tmp_path / "d", [long, "b", *(f"gone {i}" for i in range(20))], [[(0, 5)]])
    page = write(tmp_path / "run", evaluate(data, [found(0, 1, 5, 0.9), found(0, 0, 6, 0.8)]), data)
    source = (tmp_path / "run" / "report.html").read_text()
    assert f'<span class="name" title="{long}">{long}</span>' in source  # CSS shortens it
    assert page.row(long, 8)[1] == "1"
    numbers = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert f"box/AP/{long}" in numbers and long in numbers["diagnostics"]["objects"]
    # Many rows that are left out are folded away, but all are named.
    assert "left out: 20" in page.text and all(f"gone {i}" in page.text for i in range(20))


@pytest.mark.usefixtures("no_figures")
def test_nothing_in_a_table_may_be_cut_or_broken_inside_a_word(tmp_path: Path) -> None:
    data = make_data(tmp_path / "d", ["a"], [[(0, 5)]])
    write(tmp_path / "run", evaluate(data, [found(0, 0, 5, 0.9)]), data)
    source = (tmp_path / "run" / "report.html").read_text()
    style = source[source.index("<style>") : source.index("</style>")]
    for rule in re.findall(r"([^{}]+)\{([^{}]*)\}", style):
        if re.search(r"(^|[\s,])(td|th|table)\b", rule[0]):
            assert "anywhere" not in rule[1] and "break-all" not in rule[1], rule
    # Outside tables a class name may be longer than the page is wide.
    assert re.search(r"(^|[\s}])p, li, h2, h3 \{ overflow-wrap: anywhere; \}", style)
    # Words are no numbers, which stand at the right and do not wrap.
    assert name_cell("w" * 99).startswith("<span")
    cells = table(
        ["a", "b", "c"], [["x", name_cell("w" * 99), DASH], ["y", name_cell("v" * 99), "1"]]
    )
    assert "<th>b</th>" in cells and '<th class="n">c</th>' in cells
    tables = source.count("<table")
    scrolling = re.findall(r'<div class="scroll(?: long)?" tabindex="0"><table', source)
    assert tables == len(scrolling) > 3


@pytest.mark.parametrize(
    ("rows", "first", "second"),
    [
        ([found(0, 0, 5, 0.9), found(0, 1, 60, 0.9), found(1, 0, 5, 0.8)], "conf=0.39", "Compare"),
        ([found(0, 0, 5, 0.9), found(0, 0, 60, 0.9)], "conf=0.44", "larger objects"),
        (
            [found(i, 0, x, 0.9 - x / 500) for i in (0, 1) for x in (5, 60)]
            + [found(i, 0, 30, 0.95) for i in (0, 1)],
            "conf=",
            "where nothing is annotated",
        ),
    ],
    ids=["other class", "missed", "background"],
)
@pytest.mark.usefixtures("no_figures")
def test_the_first_steps(tmp_path: Path, rows: Any, first: str, second: str) -> None:
    data = make_data(tmp_path / "d", ["a", "b"], [[(0, 5), (0, 60)], [(0, 5), (0, 60)]])
    result = evaluate(data, rows)
    steps = next_steps(diagnose(result, 100), "the command")
    assert len(steps) == 2 and steps[0].command == "the command"
    assert steps[0].what.startswith(f"Predict with {first}")
    assert second in steps[1].what, steps


def test_calibration_in_one_sentence() -> None:
    def bins(score: float, share: float) -> Calibration:
        edges, nan = np.array([0, 0.5, 1.0]), math.nan
        counts, scores = np.array([0, 10]), np.array([nan, score])
        return Calibration(edges, counts, scores, np.array([nan, share]), 0.1, score - share)

    assert "too high by 0.12 on average: the mean score is 0.82" in verdict("box", bins(0.82, 0.7))
    assert "too low by 0.20" in verdict("mask", bins(0.6, 0.8))
    assert "Box scores fit on average" in verdict("box", bins(0.71, 0.70))
    none = Calibration(
        np.array([0, 1.0]), np.array([0]), *[np.array([math.nan])] * 2, *[math.nan] * 2
    )
    assert "no detections" in verdict("box", none)
