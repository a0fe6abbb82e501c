"""The page in a browser: what people do on it, by mouse, by finger and by keyboard alone."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from serving_help import served
from tiny_models import fresh

import maskwright as mw
from maskwright.data import open_dataset
from maskwright.models.meta import Meta

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
pytest.importorskip("fastapi", reason="needs the extra serve")

SAMPLE = Path(mw.__file__).parent / "serving" / "page" / "nuclei-1.png"
LOOKED = 60_000  # ms for a model on a busy core


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corrected")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    from maskwright.serving.app import create_app

    names = ["cat", "dog", "tree"]
    models = {"nuclei": mw.load("nuclei")}
    for name in ("alexnet", "unet", "locate_resnet18"):
        models[name] = mw.Predictor(fresh(name, 3), Meta(name, {}, [*names]), device="cpu")
    with served(create_app(models, corrections=folder)) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """A fresh page; whatever goes wrong in it, and whatever it loads from elsewhere, fails."""
    yield from opened(browser, address, viewport={"width": 1280, "height": 800})


def opened(browser: Any, address: str, **options: Any) -> Iterator[Any]:
    context = browser.new_context(accept_downloads=True, **options)
    context.set_default_timeout(LOOKED)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
    page.on(
        "request",
        lambda asked: (
            None if asked.url.startswith((address, "blob:", "data:")) else faults.append(asked.url)
        ),
    )
    page.goto(f"{address}/")
    page.wait_for_selector("#samples button")
    yield page
    context.close()
    # Of a refusal the browser tells in its console, and the page in words.
    assert [one for one in faults if "status of 4" not in one] == []


def choose(page: Any, data: bytes, name: str = "a.png") -> None:
    file = {"name": name, "mimeType": "application/octet-stream", "buffer": data}
    page.locator("#file").set_input_files(file)


def look(page: Any) -> dict[str, Any]:
    """Choose the sample and return what the service answered."""
    with page.expect_response(lambda reply: "/predict" in reply.url) as asked:
        page.locator("#samples button").first.click()
    answer: dict[str, Any] = asked.value.json()
    page.wait_for_selector("#list li")
    return answer


def listed(page: Any) -> int:
    count: int = page.locator("#list button").count()
    return count


def place_of(
    page: Any, box: list[float], size: tuple[int, int] = (256, 256)
) -> tuple[float, float]:
    """Return where the middle of a box of the picture lies on the page, all of it being shown."""
    stage = page.locator("#scene").bounding_box()
    height, width = size
    scale = min((stage["width"] - 32) / width, (stage["height"] - 94) / height, 16)
    left = stage["x"] + (stage["width"] - width * scale) / 2
    top = stage["y"] + (stage["height"] - 62 - height * scale) / 2
    return left + scale * (box[0] + box[2]) / 2, top + scale * (box[1] + box[3]) / 2


def canvas(page: Any) -> np.ndarray:
    page.wait_for_timeout(60)  # two frames
    data = page.evaluate("document.getElementById('scene').toDataURL()").split(",")[1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)


def test_the_slider_acts_at_once_and_asks_nobody(page: Any) -> None:
    answer = look(page)
    scores = [one["score"] for one in answer["objects"]]
    assert min(scores) < 0.5 < max(scores)  # the weak ones were sent too
    assert listed(page) == sum(score >= 0.5 for score in scores)
    before = canvas(page)
    asked: list[str] = []
    page.on("request", lambda one: asked.append(one.url))
    page.locator("#score").fill("0.9")
    assert listed(page) == sum(score >= 0.9 for score in scores)
    assert page.locator("#from").inner_text() == "0.90"
    assert abs(canvas(page) - before).max() > 50
    page.locator("#score").fill("0.05")
    assert listed(page) == len(scores) and asked == []
    page.locator("#score").fill("1")
    assert page.locator("#title").inner_text() == "Nothing found" or listed(page)


def test_outlines_are_those_of_the_masks(page: Any) -> None:
    """The script's rings, filled, are the masks that the service sent, holes included."""
    from pycocotools import mask as coco

    from maskwright.data.formats.coco.append import fill_rings

    mask = np.zeros((30, 50), np.uint8, order="F")
    mask[3:20, 5:40] = 1
    mask[8:12, 10:20] = 0
    mask[9:11, 12:14] = 1
    mask[20, 40] = mask[25:30, 0:3] = 1
    rng = np.random.default_rng(0)
    noise = np.asfortranarray(rng.integers(0, 2, (30, 50), dtype=np.uint8))
    for wanted in (mask, noise):
        code = coco.encode(wanted)
        sent = {"size": code["size"], "counts": code["counts"].decode()}
        rings = page.evaluate(
            "async (code) => import('./shapes.js').then((s) => s.trace(s.decode(code)))",
            sent,
        )
        crop, (left, top) = fill_rings([np.array(ring, float) for ring in rings], (30, 50))
        filled = np.zeros_like(wanted)
        filled[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
        assert (filled == wanted).all()


@pytest.mark.slow
def test_list_and_picture_point_at_each_other(page: Any) -> None:
    answer = look(page)
    page.mouse.move(5, 5)
    plain = canvas(page)
    page.locator("#list button").nth(0).hover()
    assert abs(canvas(page) - plain).max() > 30
    page.mouse.move(*place_of(page, answer["objects"][0]["box"]))
    page.wait_for_selector("#list .on")
    page.mouse.down()
    page.mouse.up()
    page.wait_for_selector('#list [aria-pressed="true"]')
    assert page.locator("#rename").input_value() == "nucleus"
    page.locator("[data-colour=class]").click()
    assert abs(canvas(page) - plain).max() > 30


@pytest.mark.slow
def test_zoom_and_pan(page: Any) -> None:
    look(page)
    whole = canvas(page)
    page.mouse.move(400, 300)
    page.mouse.wheel(0, -800)
    near = canvas(page)
    assert abs(near - whole).mean() > 2
    page.mouse.down()
    page.mouse.move(480, 340, steps=3)
    page.mouse.up()
    assert abs(canvas(page) - near).mean() > 1
    page.locator("[data-do=fit]").click()
    page.mouse.move(5, 5)
    assert (canvas(page) == whole).all()


@pytest.mark.slow
def test_dropped_and_pasted_pictures_are_looked_at(page: Any) -> None:
    text = base64.b64encode(SAMPLE.read_bytes()).decode()
    make = """async ([text, kind]) => {
      const data = new DataTransfer(), bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
      data.items.add(new File([bytes], kind + ".png", { type: "image/png" }));
      if (kind === "drop") {
        for (const what of ["dragenter", "drop"]) {
          document.body.dispatchEvent(new DragEvent(what, { dataTransfer: data, bubbles: true }));
        }
      } else {
        document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
      }
    }"""
    for kind in ("drop", "paste"):
        page.evaluate(make, [text, kind])
        page.wait_for_function(
            "(name) => document.getElementById('facts').textContent.startsWith(name)",
            arg=f"{kind}.png",
        )
        assert listed(page) > 5


def test_corrected_and_saved(page: Any, folder: Path) -> None:
    answer = look(page)
    count = listed(page)
    page.locator("#list button").nth(0).click()
    page.locator("#rename").fill("mitosis")
    page.locator("#rename").press("Enter")
    assert page.locator("#list .name", has_text="mitosis").count() == 1
    page.locator("#list button").nth(3).click()
    page.locator("#remove").click()
    assert listed(page) == count - 1
    page.locator("[data-do=undo]").click()
    assert listed(page) == count
    page.locator("#list button").nth(3).click()
    page.keyboard.press("Delete")
    # One more, by a drawn box, and one by an outline.
    page.locator("[data-do=rect]").click()
    start, end = place_of(page, [20, 20, 20, 20]), place_of(page, [50, 44, 50, 44])
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=4)
    page.mouse.up()
    page.keyboard.press("Escape")
    page.locator("[data-do=free]").click()
    page.mouse.move(*place_of(page, [100, 20, 100, 20]))
    page.mouse.down()
    for x, y in ((130, 20), (130, 40), (100, 40)):
        page.mouse.move(*place_of(page, [x, y, x, y]), steps=3)
    page.mouse.up()
    assert listed(page) == count + 1
    # The last is selected: it is moved, and a corner is pulled.
    page.mouse.move(*place_of(page, [110, 30, 110, 30]))
    page.mouse.down()
    page.mouse.move(*place_of(page, [120, 35, 120, 35]), steps=4)
    page.mouse.up()
    page.mouse.move(*place_of(page, [140, 45, 140, 45]))
    page.mouse.down()
    page.mouse.move(*place_of(page, [160, 55, 160, 55]), steps=4)
    page.mouse.up()
    page.locator("#save").click()
    page.wait_for_selector("#toast:not([hidden])")
    assert f"{count + 1} objects" in page.locator("#toast").inner_text()
    data = open_dataset(folder, "train")
    record = data[0]
    boxes = record.boxes.tolist()
    assert len(boxes) == count + 1 and list(data.names)[-1] == "mitosis"
    assert np.allclose(boxes[-2], [20, 20, 50, 44], atol=0.6)
    assert np.allclose(boxes[-1], [110, 25, 160, 55], atol=0.8)
    first = next(k for k, label in enumerate(record.labels) if data.names[label] == "mitosis")
    assert np.allclose(boxes[first], answer["objects"][0]["box"], atol=1.5)


def test_no_correction_is_lost(page: Any) -> None:
    """Evidence leaves them, and another picture, model or page asks first."""
    asked: list[str] = []
    page.on("dialog", lambda one: (asked.append(one.type), one.dismiss()))
    look(page)
    page.locator("#list button").nth(0).click()
    page.locator("#rename").fill("mitosis")
    page.locator("#rename").press("Enter")
    mitosis = page.locator("#list .name", has_text="mitosis")
    page.locator("#explain").click()
    page.wait_for_selector("#explain[aria-pressed=true]")
    assert mitosis.count() == 1 and page.locator("[data-do=undo]").is_enabled()
    choose(page, SAMPLE.read_bytes(), "other.png")
    page.locator("#model").select_option("unet")
    assert asked == ["confirm", "confirm"]
    assert page.locator("#model").input_value() == "nuclei"
    assert page.locator("#facts").inner_text().startswith("nuclei-1.png") and mitosis.count() == 1
    page.locator("[data-do=undo]").click()
    choose(page, SAMPLE.read_bytes(), "other.png")  # nothing to lose
    page.wait_for_function(
        "() => document.getElementById('facts').textContent.startsWith('other.png')"
    )
    assert len(asked) == 2
    page.locator("#scene").focus()
    with page.expect_file_chooser():
        page.keyboard.press("o")


@pytest.mark.slow
def test_downloads(page: Any) -> None:
    answer = look(page)
    page.locator("#score").fill("0.9")
    kept = [one for one in answer["objects"] if one["score"] >= 0.9]
    files = {}
    for kind in ("png", "json", "coco", "labelme"):
        page.locator("#get summary").click()
        with page.expect_download() as got:
            page.locator(f"[data-get={kind}]").click()
        files[kind] = Path(got.value.path()).read_bytes()
    picture = np.asarray(Image.open(io.BytesIO(files["png"])).convert("RGB")).astype(int)
    with Image.open(SAMPLE) as original:
        photo = np.asarray(original.convert("RGB")).astype(int)
    assert picture.shape == photo.shape and abs(picture - photo).max() > 40
    data = json.loads(files["json"])
    assert data["objects"] == kept and "colors" not in data
    coco = json.loads(files["coco"])
    assert [one["segmentation"] for one in coco["annotations"]] == [o["segmentation"] for o in kept]
    assert coco["images"][0]["width"] == 256 and coco["categories"][0]["name"] == "nucleus"
    shapes = json.loads(files["labelme"])["shapes"]
    assert {one["shape_type"] for one in shapes} == {"polygon"} and len(shapes) >= len(kept)


def test_what_goes_wrong_is_said(page: Any, address: str) -> None:
    look(page)
    choose(page, b"hello", "notes.txt")
    page.wait_for_selector("#alert:not([hidden])")
    assert page.locator("#alert").inner_text().startswith("notes.txt is not an image")
    page.route("**/predict*", lambda route: route.fulfill(
        status=429, headers={"Retry-After": "3"}, json={"error": "the queue is full"}
    ))  # fmt: skip
    choose(page, SAMPLE.read_bytes())
    page.wait_for_function(
        "() => document.getElementById('alert').textContent === 'The queue is full'"
    )
    assert page.locator("#busy").is_hidden()
    # What was found in the picture before must not be saved with this one.
    for one in ("#found", "#saving", "#get"):
        assert page.locator(one).is_hidden()


def test_models_with_limits_of_their_own_are_asked_again(page: Any) -> None:
    """An exported file has its thresholds inside; a large picture is too much at its own size."""
    asked: list[str] = []

    def answer(route: Any) -> None:
        asked.append(route.request.url)
        if "max_det" in route.request.url:
            error = "n.onnx was exported with max_det=100, so it cannot find 300 objects"
            route.fulfill(status=422, json={"error": error})
        elif "imgsz" not in route.request.url:
            route.fulfill(status=413, json={"error": "50 megapixels for the network"})
        else:
            route.continue_()

    page.route("**/predict*", answer)
    page.locator("#samples button").first.click()
    page.wait_for_selector("#list button")
    assert len(asked) == 3 and page.locator("#alert").is_hidden()
    page.locator("#more summary").click()
    assert "1600 pixels of its long side" in page.locator("#notes").inner_text()


@pytest.mark.slow
def test_a_picture_that_browsers_do_not_read(page: Any) -> None:
    stream = io.BytesIO()
    with Image.open(SAMPLE) as image:
        image.save(stream, "TIFF")
    choose(page, stream.getvalue(), "cells.tif")
    page.wait_for_selector("#list button")
    assert page.locator("#facts").inner_text().startswith("cells.tif · 256 × 256")
    assert canvas(page).max() > 50


@pytest.mark.parametrize("name", ["alexnet", "unet", "locate_resnet18"])
def test_every_task_is_shown(page: Any, name: str) -> None:
    page.locator("#model").select_option(name)
    with page.expect_response(lambda reply: "/predict" in reply.url) as asked:
        page.locator("#samples button").first.click()
    answer = asked.value.json()
    page.wait_for_selector("#list .bars")
    assert page.locator("#scores").is_hidden() and page.locator("#save").is_hidden()
    rows = answer.get("top") or answer.get("named") or answer["classes"]
    assert page.locator("#list .bars .name").all_inner_texts() == [one["class"] for one in rows]
    shown = canvas(page)
    colourful = int((shown.max(2) - shown.min(2)).max()) > 60  # the photo is grey
    assert colourful == (name == "unet" or answer.get("box") is not None)
    if name == "unet":
        page.locator("#strength").fill("0")
        assert abs(canvas(page) - shown).max() > 20  # the map is gone


@pytest.mark.slow
def test_a_phone(browser: Any, address: str) -> None:
    size = {"width": 390, "height": 780}
    for page in opened(browser, address, viewport=size, has_touch=True, is_mobile=True):
        page.locator("#samples button").first.tap()
        page.wait_for_selector("#list button")
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390
        for one in page.locator("button:visible, summary:visible").all():
            box = one.bounding_box()
            assert box["width"] >= 24 and box["height"] >= 24, one.inner_text()
        page.locator("#list button").first.tap()
        page.wait_for_selector("#selected:not([hidden])")
        page.locator("#remove").tap()


def test_by_keyboard_alone(page: Any) -> None:
    def focus() -> str:
        text: str = page.evaluate("document.activeElement.id || document.activeElement.className")
        return text

    seen: list[str] = []
    for _ in range(12):
        page.keyboard.press("Tab")
        seen.append(focus())
        if page.evaluate("document.activeElement.closest('#samples') !== null"):
            break
    assert seen[0] == "skip" and seen.index("open") < seen.index("camera") < seen.index("choose")
    page.keyboard.press("Enter")
    page.wait_for_selector("#list button")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('#list') !== null"):
            break
    outlined = page.evaluate(
        "getComputedStyle(document.activeElement).outlineStyle + document.activeElement.matches("
        "':focus-visible')"
    )
    assert outlined == "solidtrue"
    count = listed(page)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.locator('#list [aria-pressed="true"]').count() == 1
    page.keyboard.press("Delete")
    assert listed(page) == count - 1
    page.locator("#scene").focus()
    before = canvas(page)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("+")
    assert abs(canvas(page) - before).mean() > 1
    page.keyboard.press("Control+z")
    assert listed(page) == count


CONTRAST = (Path(__file__).parent / "audit.js").read_text(encoding="utf-8")
DESK = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 780}, "has_touch": True, "is_mobile": True}


def faults_of(page: Any) -> list[str]:
    """Return what keeps people from using a page as it is now, by axe-core."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe")
    found = axe.Axe().run(page).response["violations"]
    lines = [f"{one['id']}: {node['html'][:120]}" for one in found for node in one["nodes"]]
    return lines + page.evaluate(CONTRAST)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("scheme", "screen"),
    [
        ("dark", PHONE),
        *(
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in (("light", DESK), ("dark", DESK), ("light", PHONE))
        ),
    ],
    ids=["dark-phone", "light", "dark", "light-phone"],
)
def test_everybody_can_use_it(
    browser: Any, address: str, scheme: str, screen: dict[str, Any]
) -> None:
    for page in opened(browser, address, color_scheme=scheme, **screen):
        assert faults_of(page) == []
        look(page)
        assert faults_of(page) == []
        page.locator("#list button").nth(1).click()
        page.locator("#get summary").click()
        assert faults_of(page) == []
        choose(page, b"no image")
        page.wait_for_selector("#alert:not([hidden])")
        assert faults_of(page) == []
        for name in ("alexnet", "unet", "locate_resnet18"):
            page.locator("#model").select_option(name)
            page.wait_for_selector("#list .bars")
            assert faults_of(page) == []
        page.goto(f"{address}/docs")
        page.wait_for_selector("#paths h2")
        assert faults_of(page) == []


@pytest.mark.slow
def test_a_token_is_asked_for(browser: Any) -> None:
    from maskwright.serving.app import create_app

    app = create_app({"nuclei": mw.load("nuclei")}, token="s3cret")
    with served(app) as address:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{address}/")
        page.locator("#token").fill("wrong")
        page.locator("#token").press("Enter")
        page.wait_for_selector("#ask[open]")
        page.wait_for_function("() => document.getElementById('token').value === ''")
        page.locator("#token").fill("s3cret")
        page.locator("#token").press("Enter")
        page.wait_for_selector("#samples button")
        context.close()


@pytest.mark.slow
def test_fifty_megapixels(page: Any) -> None:
    rows = np.linspace(0, 255, 5774, dtype=np.uint8)[:, None, None]
    pixels = np.broadcast_to(rows, (5774, 8660, 3))
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "JPEG")
    # A detector that keeps the size of images sees this one smaller, and the page says so; what is
    # tried here is the browser, so that a small network suffices.
    page.locator("#model").select_option("alexnet")
    choose(page, stream.getvalue(), "large.jpg")
    page.wait_for_function(
        "() => document.getElementById('facts').textContent.includes('8660 × 5774')",
        timeout=180_000,
    )
    page.mouse.move(500, 400)
    page.mouse.wheel(0, -2000)
    assert canvas(page).max() > 100
