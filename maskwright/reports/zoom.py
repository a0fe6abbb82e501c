"""A picture too large for a screen: JPEG tiles at halved sizes, and a page that zooms into them.

The page is one HTML file that loads nothing but the tiles beside it. It tells name and score of the
object under the pointer, and goes from object to object. Of the picture there are a few tiles in
memory at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from ..files import replacing_picture
from ..storage.rundir import write_whole
from .page import escape, render

if TYPE_CHECKING:
    from PIL import Image

LARGE = 4096  # pixels of the long side above which there is a page
SIDE = 512  # of a tile
OVERVIEW = 2048  # most pixels of the long side of the picture as a whole
QUALITY = 85

# xyxy in whole pixels of the image -> its picture
Draw = Callable[[tuple[int, int, int, int]], "Image.Image"]
# Name, score in thousandths, and x, y, width, height; see `result.Mark`.
Marks = Iterable[tuple[str, int, tuple[int, int, int, int] | None]]


def write_zoom(
    page: Path,
    size: tuple[int, int],
    draw: Draw,
    title: str,
    facts: list[tuple[str, str]],
    marks: Marks = (),
) -> Image.Image:
    """Write a page that zooms into a picture, its tiles beside it, and return an overview.

    Level k has the picture with its sides divided by 2 to the (last - k), in files `k/row_col.jpg`
    of a folder that is called as the page.

    Args:
        page: the HTML file.
        size: (height, width) of the picture.
        draw: makes a part of it.
        title: heading of the page.
        facts: key figures below it, each with what it is.
        marks: what the page tells of places in the picture, in the order in which it goes through
            them; one without a place is passed over.
    """
    pyramid = _Pyramid(page.with_suffix(""), size, draw)
    pyramid.write()
    height, width = size
    names: dict[str, int] = {}
    places = [
        [names.setdefault(name, len(names)), score, *place]
        for name, score, place in marks
        if place is not None
    ]
    numbers = [width, height, SIDE, pyramid.last]
    filled = {"numbers": numbers, "folder": page.stem, "names": list(names), "marks": places}
    script = re.sub(r"@(\w+)", lambda found: _as_script(filled[found[1]]), _SCRIPT)
    main = Template(_MAIN).substitute(
        folder=escape(page.stem),
        title=escape(title),
        keys=_KEYS if places else "",
        buttons=_BUTTONS if places else "",
    )
    write_whole(page, render(title, facts, main, style=_STYLE, script=script))
    return pyramid.overview


def _as_script(value: object) -> str:
    """Return data as they stand in a script, which no name of an object can end."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


class _Pyramid:
    """The levels of a picture, written from the finest to the coarsest.

    Args:
        folder: of the tiles.
        size: (height, width) of the picture.
        draw: makes a part of it.
    """

    def __init__(self, folder: Path, size: tuple[int, int], draw: Draw) -> None:
        from PIL import Image

        self.folder, self.size, self.draw = folder, size, draw
        self.last = max((max(size) - 1) // SIDE, 0).bit_length()
        small = self.last
        while max(self._sides(small)) > OVERVIEW:
            small -= 1
        self.small = small
        high, wide = self._sides(small)
        self.overview = Image.new("RGB", (wide, high))

    def _sides(self, level: int) -> tuple[int, int]:
        """Return (height, width) of a level."""
        apart = self.last - level
        return -(-self.size[0] // 2**apart), -(-self.size[1] // 2**apart)

    def write(self) -> None:
        """Write all tiles."""
        for level in range(self.last + 1):
            (self.folder / str(level)).mkdir(parents=True, exist_ok=True)
        self._made(0, 0, 0)

    def _made(self, level: int, row: int, column: int) -> Image.Image:
        """Write a tile and all that show a part of it larger, and return it."""
        from PIL import Image

        high, wide = self._sides(level)
        top, left = row * SIDE, column * SIDE
        size = (min(SIDE, wide - left), min(SIDE, high - top))
        if level == self.last:
            picture = self.draw((left, top, left + size[0], top + size[1]))
        else:
            below = self._sides(level + 1)
            canvas = Image.new("RGB", (2 * size[0], 2 * size[1]))
            for y in (2 * row, 2 * row + 1):
                for x in (2 * column, 2 * column + 1):
                    if y * SIDE < below[0] and x * SIDE < below[1]:
                        part = self._made(level + 1, y, x)
                        place = ((x - 2 * column) * SIDE, (y - 2 * row) * SIDE)
                        # An odd side has half a pixel more here: it is the last one once more.
                        if place[0] + part.width == canvas.width - 1:
                            strip = part.crop((part.width - 1, 0, part.width, part.height))
                            canvas.paste(strip, (canvas.width - 1, place[1]))
                        if place[1] + part.height == canvas.height - 1:
                            strip = part.crop((0, part.height - 1, part.width, part.height))
                            canvas.paste(strip, (place[0], canvas.height - 1))
                        canvas.paste(part, place)
            picture = canvas.reduce(2)
        with replacing_picture(self.folder / str(level) / f"{row}_{column}.jpg") as temporary:
            picture.save(temporary, "JPEG", quality=QUALITY)
        if level == self.small:
            self.overview.paste(picture, (left, top))
        return picture


_MAIN = """<div class="zoom" id="zoom" tabindex="0" role="application"
aria-label="$title: drag to move, wheel or + and - to zoom, 0 shows all$keys">
<noscript><img src="$folder/0/0_0.jpg" alt="$title"></noscript>
<div class="tiles" id="tiles"></div>
<div class="mark" id="mark" hidden></div><output class="what" id="what" hidden></output>
<div class="hold">$buttons<button data-do="in" aria-label="larger">+</button>
<button data-do="out" aria-label="smaller">−</button>
<button data-do="all">all</button><button data-do="full">1:1</button></div>
<output class="where" id="where"></output></div>
"""

_KEYS = "; n and p go to the next and the previous object, Escape leaves it"

_BUTTONS = """<button data-do="back" title="the object before (p)"
aria-label="the object before">‹</button>
<button data-do="next" title="the next object (n), the surest first"
aria-label="the next object">›</button>
"""

_STYLE = """main.wrap { max-width: none; padding: 0; }
header { padding: 14px 0 12px; } h1 { margin: 0 0 6px; font-size: 19px; }
.zoom { position: relative; height: calc(100vh - 150px); min-height: 380px; overflow: hidden;
  background: var(--stage); cursor: grab; touch-action: none; user-select: none; }
.zoom:active { cursor: grabbing; }
.tiles { isolation: isolate; }
.tiles img { position: absolute; left: 0; top: 0; transform-origin: 0 0; pointer-events: none; }
.hold { position: absolute; right: 14px; top: 14px; display: flex; gap: 6px; }
.hold button { font: inherit; min-width: 38px; height: 38px; padding: 0 10px; cursor: pointer;
  background: var(--card); color: var(--text); border: 1px solid var(--line); border-radius: 9px; }
.hold button:hover { border-color: var(--accent); }
.zoom output { position: absolute; padding: 3px 10px; font-size: 13px; white-space: nowrap;
  background: var(--card); border: 1px solid var(--line); border-radius: 8px; color: var(--soft);
  font-variant-numeric: tabular-nums; pointer-events: none; }
.zoom output.where { left: 14px; bottom: 12px; }
.zoom output.what { left: 0; top: 0; color: var(--text); max-width: 100%; overflow: hidden;
  text-overflow: ellipsis; }
.mark { position: absolute; left: 0; top: 0; pointer-events: none; border-radius: 3px;
  outline: 2px solid #fff; box-shadow: 0 0 0 4px #000; }
.mark[hidden], .zoom output[hidden] { display: none; }
footer { padding: 12px 28px; }
"""

# `scale` is screen pixels per pixel of the image, (x, y) the image's corner on the screen.
_SCRIPT = """const [WIDTH, HEIGHT, SIDE, LAST] = @numbers, FOLDER = encodeURIComponent(@folder);
const zoom = document.getElementById("zoom"), tiles = document.getElementById("tiles");
const where = document.getElementById("where"), what = document.getElementById("what");
const frame = document.getElementById("mark"), NAMES = @names, MARKS = @marks;
const at = { x: 0, y: 0, scale: 1 }, there = new Map(), hands = new Map();
let waiting = 0, shown = -1, gone = 0;  // `gone` is how far the pointer went since it was down

function fitting() {
  return Math.min(zoom.clientWidth / WIDTH, zoom.clientHeight / HEIGHT);
}
function all() {
  at.scale = Math.min(fitting(), 1);
  at.x = (zoom.clientWidth - WIDTH * at.scale) / 2;
  at.y = (zoom.clientHeight - HEIGHT * at.scale) / 2;
  later();
}
function by(factor, x = zoom.clientWidth / 2, y = zoom.clientHeight / 2) {
  const scale = Math.min(Math.max(at.scale * factor, Math.min(fitting(), 1) / 2), 16);
  at.x = x - (x - at.x) * scale / at.scale;
  at.y = y - (y - at.y) * scale / at.scale;
  at.scale = scale;
  later();
}
function keep(place, size, room) {
  return Math.min(Math.max(place, 80 - size), room - 80);
}
function tile(level, row, column) {
  const key = level + "/" + row + "_" + column;
  let img = there.get(key);
  if (!img) {
    img = new Image();
    img.alt = "";
    img.draggable = false;
    img.src = FOLDER + "/" + key + ".jpg";
    img.style.zIndex = level;
    tiles.append(img);
    there.set(key, img);
  }
  const step = 2 ** (LAST - level) * at.scale;
  // Rounded corners, so that no gap of a part of a pixel opens between two tiles.
  const left = Math.round(at.x + column * SIDE * step), top = Math.round(at.y + row * SIDE * step);
  const right = Math.round(at.x + Math.min((column + 1) * SIDE * step, WIDTH * at.scale));
  const bottom = Math.round(at.y + Math.min((row + 1) * SIDE * step, HEIGHT * at.scale));
  img.style.transform = `translate(${left}px, ${top}px)`;
  img.style.width = right - left + "px";
  img.style.height = bottom - top + "px";
  img.style.imageRendering = at.scale > 2 ? "pixelated" : "auto";
  return key;
}
function seen(level) {
  const step = 2 ** (LAST - level), side = SIDE * step * at.scale, keys = [];
  const columns = Math.ceil(WIDTH / step / SIDE), rows = Math.ceil(HEIGHT / step / SIDE);
  const first = (place) => Math.max(Math.floor(-place / side), 0);
  const last = (place, room, most) => Math.min(Math.ceil((room - place) / side), most);
  for (let row = first(at.y); row < last(at.y, zoom.clientHeight, rows); row++)
    for (let column = first(at.x); column < last(at.x, zoom.clientWidth, columns); column++)
      keys.push(tile(level, row, column));
  return keys;
}
function paint() {
  waiting = 0;
  at.x = keep(at.x, WIDTH * at.scale, zoom.clientWidth);
  at.y = keep(at.y, HEIGHT * at.scale, zoom.clientHeight);
  const fine = LAST + Math.ceil(Math.log2(at.scale * (devicePixelRatio || 1)) - 0.25);
  const level = Math.min(Math.max(fine, 0), LAST);
  // Coarser tiles lie below until the finer ones are there.
  const used = new Set([0, level - 2, level].filter((l) => l >= 0).flatMap(seen));
  for (const [key, img] of there) if (!used.has(key)) { img.remove(); there.delete(key); }
  where.textContent = `${Math.round(100 * at.scale)} %`;
  point();
}
function point() {  // at the object that is shown
  frame.hidden = what.hidden = shown < 0;
  if (shown < 0) return;
  const [, , x, y, wide, high] = MARKS[shown];
  const left = at.x + x * at.scale, top = at.y + y * at.scale;
  frame.style.transform = `translate(${left}px, ${top}px)`;
  frame.style.width = wide * at.scale + "px";
  frame.style.height = high * at.scale + "px";
  const above = top - what.offsetHeight - 8, below = top + high * at.scale + 8;
  const room = [zoom.clientWidth - what.offsetWidth, zoom.clientHeight - what.offsetHeight];
  const put = [left, above < 0 ? below : above];
  const [right, down] = put.map((place, i) => Math.max(Math.min(place, room[i]), 0));
  what.style.transform = `translate(${right}px, ${down}px)`;
}
function show(number, told = "") {
  if (number === shown && !told) return;
  shown = number;
  if (number >= 0) {
    const [name, score] = MARKS[number];
    what.textContent = `${NAMES[name]} ${(score / 1000).toFixed(2)}${told}`;
  }
  point();
}
function under(event) {  // the smallest object there
  const room = zoom.getBoundingClientRect();
  const x = (event.clientX - room.left - at.x) / at.scale;
  const y = (event.clientY - room.top - at.y) / at.scale;
  let found = -1, least = Infinity;
  MARKS.forEach(([, , left, top, wide, high], number) => {
    const inside = x >= left && x < left + wide && y >= top && y < top + high;
    if (inside && wide * high < least) [found, least] = [number, wide * high];
  });
  return found;
}
function go(step) {
  if (!MARKS.length) return;
  const number = shown < 0 ? (step > 0 ? 0 : MARKS.length - 1) : shown + step;
  const next = (number + MARKS.length) % MARKS.length;
  const [, , x, y, wide, high] = MARKS[next];
  const full = Math.min(zoom.clientWidth / wide, zoom.clientHeight / high, 16);
  at.scale = Math.max(Math.min(at.scale, full / 1.2), Math.min(full / 4, 1));
  at.x = zoom.clientWidth / 2 - (x + wide / 2) * at.scale;
  at.y = zoom.clientHeight / 2 - (y + high / 2) * at.scale;
  show(next, ` · ${next + 1} of ${MARKS.length}`);
  later();
}
function later() {
  if (!waiting) waiting = requestAnimationFrame(paint);
}

zoom.addEventListener("wheel", (event) => {
  event.preventDefault();
  const room = zoom.getBoundingClientRect();
  const pixels = event.deltaY * (event.deltaMode ? 24 : 1);
  by(2 ** (-pixels / 240), event.clientX - room.left, event.clientY - room.top);
}, { passive: false });
zoom.onpointerdown = (event) => {
  if (event.target.closest("button")) return;
  zoom.setPointerCapture(event.pointerId);
  gone = hands.size ? Infinity : 0;
  hands.set(event.pointerId, event);
};
zoom.onpointermove = (event) => {
  const before = hands.get(event.pointerId);
  if (!before) {
    if (event.pointerType === "mouse") show(event.target.closest("button") ? -1 : under(event));
    return;
  }
  gone += Math.hypot(event.clientX - before.clientX, event.clientY - before.clientY);
  const other = [...hands.values()].find((hand) => hand.pointerId !== event.pointerId);
  if (other) {  // two fingers
    const room = zoom.getBoundingClientRect();
    const apart = (a) => Math.hypot(a.clientX - other.clientX, a.clientY - other.clientY) || 1;
    by(apart(event) / apart(before), other.clientX - room.left, other.clientY - room.top);
  } else {
    at.x += event.clientX - before.clientX;
    at.y += event.clientY - before.clientY;
    later();
  }
  hands.set(event.pointerId, event);
};
zoom.onpointercancel = (event) => hands.delete(event.pointerId);
zoom.onpointerup = (event) => {  // without a move it was a tap
  if (hands.delete(event.pointerId) && gone < 8) show(under(event));
};
zoom.onpointerleave = (event) => event.pointerType === "mouse" && show(-1);
const act = {
  in: () => by(2), out: () => by(0.5), all, full: () => by(1 / at.scale),
  back: () => go(-1), next: () => go(1),
};
zoom.onclick = (event) => act[event.target.dataset.do]?.();
zoom.ondblclick = (event) => {
  const room = zoom.getBoundingClientRect();
  if (!event.target.closest("button")) by(2, event.clientX - room.left, event.clientY - room.top);
};
zoom.onkeydown = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const far = 120, key = {
    "+": () => by(1.5), "=": () => by(1.5), "-": () => by(1 / 1.5), "0": all, "1": act.full,
    n: act.next, p: act.back, Escape: () => show(-1),
    ArrowLeft: () => (at.x += far), ArrowRight: () => (at.x -= far),
    ArrowUp: () => (at.y += far), ArrowDown: () => (at.y -= far),
  }[event.key];
  if (!key) return;
  event.preventDefault();
  key();
  later();
};
new ResizeObserver(later).observe(zoom);
all();
"""
