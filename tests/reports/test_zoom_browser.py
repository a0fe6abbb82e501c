"""The page of a large picture in a browser: which object is under the pointer, finger or key."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maskwright.reports.gallery import ResultWriter
from maskwright.structures import Detections
from maskwright.tasks.detection.result import Result

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")

# A small one inside of a large one, one at the corner of the image, and one of an evil name.
BOXES = [[1000, 500, 1400, 900], [1100, 600, 1160, 650], [4400, 0, 4500, 60], [200, 200, 500, 400]]
NAMES = ["cell", 'vessel </script> & "x" @folder']


def test_objects_tell_their_name(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 60, (1200, 4500, 3), np.uint8)
    scores, labels = torch.tensor([0.9137, 0.8, 0.7, 0.6]), torch.tensor([0, 0, 0, 1])
    found = Detections((1200, 4500), torch.tensor(BOXES).float(), scores, labels)
    saved = ResultWriter(tmp_path).write(Result(found, image, NAMES, path="slide.png"))
    assert saved.page is not None
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1200, "height": 800}, has_touch=True)
        page = context.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(saved.page.as_uri())
        zoom, what = page.locator("#zoom"), page.locator("#what")
        room = zoom.bounding_box()
        scale = room["width"] / 4500

        def at(x: float, y: float) -> tuple[float, float]:
            top = (room["height"] - 1200 * scale) / 2
            return room["x"] + x * scale, room["y"] + top + y * scale

        assert not what.is_visible()
        page.mouse.move(*at(1300, 800))
        assert what.text_content() == "cell 0.91" and what.is_visible()
        page.mouse.move(*at(1130, 625))  # the smaller of the two
        assert what.text_content() == "cell 0.80"
        page.mouse.move(*at(3000, 1000))
        assert not what.is_visible() and not page.locator("#mark").is_visible()
        page.touchscreen.tap(*at(350, 300))
        assert what.text_content() == f"{NAMES[1]} 0.60"
        page.touchscreen.tap(*at(3000, 1000))
        assert not what.is_visible()
        zoom.focus()
        for number, key in enumerate("nnnnp", 1):
            page.keyboard.press(key)
            place = number if key == "n" else 3
            assert what.text_content().endswith(f" · {place} of 4")
        page.wait_for_timeout(50)  # a frame is painted
        mark, told = page.locator("#mark").bounding_box(), what.bounding_box()
        assert mark["width"] / mark["height"] == pytest.approx(100 / 60, abs=0.01)
        assert abs(mark["x"] + mark["width"] / 2 - room["x"] - room["width"] / 2) < 2
        assert told["y"] + told["height"] < mark["y"] and told["x"] >= room["x"]
        page.keyboard.press("Escape")
        assert not what.is_visible()
        page.locator("[data-do=next]").click()
        assert what.text_content() == "cell 0.91 · 1 of 4" and not faults
        browser.close()


def test_without_objects_nothing_is_offered(tmp_path: Path) -> None:
    """Nor does a name of a file end the script."""
    from maskwright.reports.zoom import write_zoom

    whole = Image.new("RGB", (600, 400))
    page = tmp_path / "a<!--<script>@marks.html"
    write_zoom(page, (400, 600), whole.crop, "x", [])
    text = page.read_text()
    assert 'data-do="next"' not in text and text.count("<script>") == 1
    assert "<!--" not in text.partition("<script>")[2]
