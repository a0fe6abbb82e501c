"""Take pictures of the service's page in a browser, at three sizes, in light and in dark.

Two of them go into the documentation: `python scripts/page_pictures.py docs/images`. With `--all`
every size and state is written, to be looked at. Needs playwright and chromium.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"phone": (390, 844), "laptop": (1280, 800), "wide": (1920, 1080)}
DOCUMENTED = {
    ("laptop", "light", "found"): "page.png",
    ("phone", "dark", "found"): "page_phone.png",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--all", action="store_true", help="every size and state")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)

    import uvicorn
    from playwright.sync_api import sync_playwright

    import maskwright as mw
    from maskwright.serving.app import create_app
    from maskwright.serving.serve import listening

    app = create_app({"nuclei": mw.load("nuclei")}, corrections=given.folder / "saved")
    with listening("127.0.0.1", 0) as place, sync_playwright() as playwright:
        server = uvicorn.Server(uvicorn.Config(app, http="h11", ws="none", log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
        thread.start()
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for size, (width, height) in SIZES.items():
            for scheme in ("light", "dark"):
                if not given.all and not any(key[:2] == (size, scheme) for key in DOCUMENTED):
                    continue
                context = browser.new_context(
                    viewport={"width": width, "height": height},
                    color_scheme=scheme,
                    device_scale_factor=2 if size == "phone" else 1,
                )
                page = context.new_page()
                page.on("pageerror", lambda error: print(error, file=sys.stderr))
                page.goto(f"http://127.0.0.1:{place.getsockname()[1]}/")
                take(page, given, size, scheme)
                context.close()
        browser.close()
        server.should_exit = True
        thread.join()


def take(page: Any, given: argparse.Namespace, size: str, scheme: str) -> None:
    """Take the pictures of one size and scheme."""

    def shot(state: str) -> None:
        name = DOCUMENTED.get((size, scheme, state))
        if given.all:
            page.screenshot(path=given.folder / f"{size}-{scheme}-{state}.png")
        elif name is not None:
            page.screenshot(path=given.folder / name)

    page.wait_for_selector("#samples button")
    shot("empty")
    page.locator("#samples button").nth(1).click()
    page.wait_for_selector("#list button", timeout=120_000)
    page.wait_for_timeout(300)
    shot("found")
    if not given.all:
        return
    page.locator("#list button").nth(2).click()
    page.wait_for_timeout(200)
    shot("selected")
    if size == "laptop":
        page.locator("#get summary").click()
        shot("menu")
        page.keyboard.press("Escape")
        page.locator("#explain").click()
        page.wait_for_selector("#busy", state="hidden", timeout=120_000)
        page.wait_for_timeout(300)
        shot("heat")
        page.locator("#file").set_input_files(
            {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no image"}
        )
        page.wait_for_selector("#alert:not([hidden])", timeout=60_000)
        shot("error")


if __name__ == "__main__":
    main()
