"""The page of a prediction run: complete, offline, and safe against odd names."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from PIL import Image

from maskwright.reports.gallery import ResultWriter, write_gallery
from maskwright.reports.gallery_page import MANY_NAMES
from maskwright.reports.result import ImageResult, Mark
from maskwright.structures import Detections
from maskwright.tasks.detection.result import Result


class Page(HTMLParser):
    """Collects what a browser would load, follow and show."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.classes: list[tuple[str, bool]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        for key in ("src", "data-other"):
            if values.get(key):
                self.loads.append(str(values[key]))
        if tag == "link":
            self.loads.append(str(values.get("href")))
        if tag == "a":
            self.links.append(str(values["href"]))
        if "data-class" in values:
            self.classes.append((str(values["data-class"]), "hidden" in values))

    def handle_data(self, data: str) -> None:
        self.text += data


def make(path: str | None, labels: list[int], names: list[str], size: int = 20) -> Result:
    count = len(labels)
    boxes = torch.tensor([[2.0, 2.0, 12.0, 12.0]]).repeat(count, 1)
    found = Detections(
        (size, 2 * size),
        boxes,
        torch.linspace(0.9, 0.5, count),
        torch.tensor(labels, dtype=torch.int64),
        torch.ones(count, 4, 4),
    )
    image = np.full((size, 2 * size, 3), 90, np.uint8)
    return Result(found, image, names, path, {"load": 2.0, "inference": 28.0})


def test_the_page_shows_every_image_and_loads_nothing_from_outside(tmp_path: Path) -> None:
    results = [
        make("a/cell 1.png", [0, 0, 1], ["cell", "nucleus"]),
        make("b/empty.jpg", [], ["cell", "nucleus"]),
        make("c/Größe #2?.png", [1], ["cell", "nucleus"]),
    ]
    path = write_gallery(results, tmp_path / "out", "Slides & <cells>")
    assert path == tmp_path / "out" / "index.html"
    page = Page(path)
    assert len(page.loads) == 6
    for link in page.loads + [link for link in page.links if not link.startswith("#")]:
        assert (path.parent / unquote(link)).is_file(), link
        assert "//" not in link and not link.startswith("/")
    text = path.read_text(encoding="utf-8")
    assert "http" not in text and "@import" not in text and "url(" not in text
    assert "link" not in page.tags
    for expected in ("Slides & <cells>", "3", "images", "4", "finds", "30 ms", "no finds"):
        assert expected in page.text
    assert [name for name, _ in page.classes] == ["", "nucleus", "cell", "-"]
    assert page.text.count("cell 1.png") == 2  # card and table


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture).astype(int)


def test_originals_are_the_images_and_overlays_are_not(tmp_path: Path) -> None:
    writer = ResultWriter(tmp_path, originals=True)
    saved = writer.write(make("x.png", [0], ["cell"]))
    assert saved.original is not None
    assert abs(read(saved.original) - 90).max() <= 3
    assert abs(read(saved.overlay) - 90).max() > 30
    assert saved.counts == {"cell": 1} and saved.ms == 30 and saved.size == (20, 40)
    large = writer.write(make("large.png", [], ["cell"], size=2000))
    assert large.original is not None and read(large.original).shape == (800, 1600, 3)
    assert read(large.overlay).shape == (2000, 4000, 3)


def test_equal_names_do_not_collide(tmp_path: Path) -> None:
    writer = ResultWriter(tmp_path)
    paths = ["a/x.png", "b/x.png", "c/X.jpg", None, None, "x_2.png", "https://a.org/?q=1"]
    saved = [writer.write(make(path, [0], ["cell"])) for path in paths]
    stems = [row.overlay.stem for row in saved]
    assert stems == ["x", "x_2", "X_3", "image", "image_2", "x_2_2", "image_3"]
    assert len({str(row.data).lower() for row in saved}) == len(saved)
    assert all(row.overlay.is_file() and row.data.is_file() for row in saved)
    assert not (tmp_path / "originals").exists()


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    evil = '"><script>alert(1)</script>'
    path = write_gallery([make(evil, [0], [evil])], tmp_path, evil)
    page = Page(path)
    assert page.tags.count("script") == 1
    assert page.text.count("alert(1)") >= 3  # shown as text


def test_rare_classes_wait_behind_a_button(tmp_path: Path) -> None:
    names = [f"class {i}" for i in range(MANY_NAMES + 4)]
    page = Page(write_gallery([make("a.png", list(range(len(names))), names)], tmp_path))
    assert sum(hidden for name, hidden in page.classes if name != "-") == 4
    assert "4 more names" in page.text


def test_no_images_at_all(tmp_path: Path) -> None:
    assert "0" in Page(write_gallery([], tmp_path / "new")).text


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="cannot make the folder"):
        ResultWriter(tmp_path / "file" / "out")


def page_data(path: Path) -> list[list[int]]:
    text = path.read_text(encoding="utf-8")
    found: list[list[int]] = json.loads(text.split("const DATA = ", 1)[1].split(";\n", 1)[0])
    return found


def test_what_was_found_stays_where_its_picture_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "out" / "a.png").mkdir(parents=True)  # a folder is in the way
    writer = ResultWriter(tmp_path / "out", formats=("geojson",))
    with pytest.warns(UserWarning, match=r"a\.png: not saved"):
        assert writer.try_write(make("a.png", [0, 1], ["x", "y"])) is None
    assert len(json.loads((tmp_path / "out" / "a.json").read_text())["objects"]) == 2
    assert (tmp_path / "out" / "a.geojson").is_file() and "a.png" in writer.failed


def test_the_script_gets_the_objects_as_numbers(tmp_path: Path) -> None:
    evil = "</script><b>"
    results = [make("a.png", [0, 1, 1], ["cell", evil]), make("b.png", [], ["cell", evil])]
    path = write_gallery(results, tmp_path)
    # Label by frequency, score in thousandths, rounded down, then x, y, width and height.
    assert page_data(path) == [
        [1, 899, 2, 2, 10, 10, 0, 699, 2, 2, 10, 10, 0, 500, 2, 2, 10, 10],
        [],
    ]
    text = path.read_text(encoding="utf-8")
    assert 'min="0.50"' in text  # of the slider: there all objects are shown
    for wanted in ('value="count"', 'value="name"', "<dialog", "ArrowLeft", "ArrowRight"):
        assert wanted in text
    assert text.count("<script") == 1


def test_pictures_load_late_and_links_work_without_the_script(tmp_path: Path) -> None:
    path = write_gallery([make("a.png", [0], ["cell"])] * 3, tmp_path)
    text = path.read_text(encoding="utf-8")
    assert text.count('loading="lazy"') == 3 and text.count("content-visibility: auto") == 1
    assert text.count('class="view" href=') == 3


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_score_and_order_in_a_browser(tmp_path: Path) -> None:
    results = [make("one.png", [0], ["cell"]), make("b.png", [], ["cell"]),
               make("three.png", [0, 0, 0], ["cell"])]  # fmt: skip
    path = write_gallery(results, tmp_path)
    done = browse(path, "score=0.6&sort=count&view=2", tmp_path)
    shown = tmp_path / "shown.html"
    shown.write_text(done, encoding="utf-8")
    page = Page(shown)
    # Of the scores 0.9, 0.7, 0.5 two pass; the image with the most objects comes first.
    assert "3 finds in 3 of 3 images: redrawn" in page.text
    assert re.findall(r'class="card" id="i(\d)"', done) == ["2", "0", "1"]
    assert re.search(r"<dialog[^>]* open", done) and "1 of 3, 2 finds" in page.text


class Named(ImageResult):
    """A result of the image as a whole: names with scores, and no place."""

    def __init__(self, path: str, scores: dict[str, float]) -> None:
        self.image, self.path, self.scores = np.full((20, 40, 3), 90, np.uint8), path, scores
        self.names, self.speed, self.source_name = list(scores), {}, ""
        self.heatmap = self.explained = None

    def plot(self, *, labels: bool = True) -> Image.Image:
        return Image.fromarray(255 - self.image)

    def content(self) -> dict[str, object]:
        return dict(self.scores)

    def rows(self) -> list[dict[str, object]]:
        return []

    def counts(self) -> dict[str, int]:
        return dict.fromkeys(self.scores, 1)

    def summary(self) -> str:
        return ", ".join(self.scores)

    def marks(self) -> list[Mark]:
        return [(name, int(1000 * score), None) for name, score in self.scores.items()]


def browse(path: Path, wish: str, folder: Path) -> str:
    """Return the page as chromium shows it."""
    command = [
        *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-background-networking", "--disable-sync", "--disable-component-update"),
        *(f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=2000", "--dump-dom"),
        f"{path.as_uri()}#{wish}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_names_of_the_whole_image_have_no_place(tmp_path: Path) -> None:
    results = [Named("a.png", {"cat": 0.75, "dog": 0.25}), Named("b.png", {"dog": 0.5})]
    results[0].heatmap = np.zeros((20, 40), np.float32)
    path = write_gallery(results, tmp_path)
    assert re.findall(r'href="([^"]*)">heat map', path.read_text()) == ["heatmaps/a.jpg"]
    assert (tmp_path / "heatmaps" / "a.jpg").is_file()
    none = [None] * 4
    assert page_data(path) == [[1, 750, *none, 0, 250, *none], [0, 500, *none]]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_whole_images_are_filtered_by_score_and_keep_their_picture(tmp_path: Path) -> None:
    results = [Named("a.png", {"cat": 0.75, "dog": 0.25}), Named("b.png", {"dog": 0.5})]
    shown = browse(write_gallery(results, tmp_path), "score=0.6", tmp_path)
    assert ">1 find in 2 of 2 images</span>" in shown
    assert "<rect" not in shown.split("<script>")[0]
    assert re.findall(r'<img src="([^"]+)" data-other', shown) == ["a.png", "b.png"]
    hidden = re.findall(r'<span class="tag"[^>]*title="(\w+)"( hidden="")?>', shown)
    assert [(name, bool(gone)) for name, gone in hidden[:3]] == [
        ("cat", False), ("dog", True), ("dog", True),
    ]  # fmt: skip
