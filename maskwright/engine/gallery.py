"""Files of a prediction run: a picture and a JSON file per image, and a page that shows them all.

The page is one HTML file with style and script inside; it loads nothing but the pictures beside
it, so the folder can be zipped, mailed and opened without a network.
"""

from __future__ import annotations

import errno
import os
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from urllib.parse import quote

from ..drawing.figures import plural
from ..errors import OptionError, nearest
from ..text import one_line
from .page import escape, render
from .result import Result
from .rundir import write_fault, write_whole

JPEG_SUFFIXES = (".jpg", ".jpeg", ".jfif")
MANY_CLASSES = 16
# Further files of an image: polygons with holes, and a 16-bit PNG in `labels/` with the number of
# the object at each pixel.
FORMATS = ("geojson", "labels")
MAX_STEM = 200  # bytes of a name; file systems take 255 with all that stands before and behind
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
ORIGINAL_SIDE = 1600  # the page shows originals for comparison: no need of all their pixels


@dataclass(frozen=True)
class SavedResult:
    """Where the files of one image went, and what its row of the page says.

    Attributes:
        name: what the source image is called, see `Result.name`.
        overlay: picture with the objects drawn.
        data: JSON file, see `Result.to_json`.
        original: copy of the image for the page, or None.
        size: (height, width) of the image.
        counts: objects by class name.
        ms: milliseconds that the image took.
    """

    name: str
    overlay: Path
    data: Path
    original: Path | None
    size: tuple[int, int]
    counts: dict[str, int]
    ms: float


class ResultWriter:
    """Writes the files of results into a folder, under names that do not collide.

    `photo.jpg` becomes `photo.jpg` and `photo.json`; other formats than JPEG become PNG, which
    keeps their pixels. A second image of the same name gets a number, a very long name is cut.

    Attributes:
        folder: where the files go.
        failed: why the files of an image could not be written, by the name of the image; see
            `try_write`.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        originals: bool = False,
        formats: str | Sequence[str] | None = None,
    ) -> None:
        """Make the folder.

        Args:
            folder: where the files go.
            originals: also keep a copy of each image in `originals/`, for the page.
            formats: further files of each image: names of `FORMATS`.

        Raises:
            OptionError: if a format is unknown.
            ValueError: if the folder cannot be made.
        """
        self.folder = Path(folder)
        self._formats = check_formats(formats)
        self._originals = self.folder / "originals" if originals else None
        self._taken: set[str] = set()
        self.failed: dict[str, str] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"cannot make the folder {self.folder} ({error.strerror or error}); "
                "give another one with save="
            ) from None

    def try_write(self, result: Result) -> SavedResult | None:
        """Write the files of one result; what cannot be written concerns this image alone.

        Returns:
            What was written, or None with a warning and an entry in `failed`.

        Raises:
            ValueError: if the disk takes nothing more, or the folder belongs to the images: then
                it would be so for all others.
        """
        try:
            return self.write(result)
        except _NoPlaceError:
            raise
        except ValueError as error:
            self.failed[result.name] = str(error)
            warnings.warn(f"{one_line(result.name)}: not saved: {error}", stacklevel=2)
            return None

    def write(self, result: Result) -> SavedResult:
        """Write the files of one result.

        Raises:
            ValueError: if the picture would overwrite the image itself, or cannot be written.
        """
        try:
            return self._write(result)
        except OSError as error:
            kind = _NoPlaceError if error.errno in FULL_DISK else ValueError
            path = self.folder if error.filename is None else Path(os.fsdecode(error.filename))
            raise kind(str(write_fault(path, error))) from None

    def _write(self, result: Result) -> SavedResult:
        source = Path(result.file_name)
        stem = self._free_stem(source.stem)
        suffix = ".jpg" if source.suffix.lower() in JPEG_SUFFIXES else ".png"
        overlay = self.folder / f"{stem}{suffix}"
        if result.path is not None and overlay.resolve() == Path(result.path).resolve():
            raise _NoPlaceError(
                f"save={str(self.folder)!r} would overwrite the image {result.path}: "
                "give another folder"
            )
        result.save(overlay)
        data = result.save(overlay.with_suffix(".json"))
        if "geojson" in self._formats:
            result.save(overlay.with_suffix(".geojson"))
        if "labels" in self._formats:
            result.save_labels(self.folder / "labels" / f"{stem}.png")
        original = None
        if self._originals is not None:
            original = self._write_original(result, f"{stem}.jpg")
        return SavedResult(
            result.name,
            overlay,
            data,
            original,
            result.detections.size,
            result.counts(),
            sum(result.speed.values()),
        )

    def _free_stem(self, stem: str) -> str:
        stem = _cut(re.sub(r"[^\w\-. ()+]", "_", stem)) or "image"
        name, number = stem, 1
        while _same(name) in self._taken:
            number += 1
            name = f"{stem}_{number}"
        self._taken.add(_same(name))
        return name

    def _write_original(self, result: Result, name: str) -> Path:
        from PIL import Image

        assert self._originals is not None
        self._originals.mkdir(exist_ok=True)
        picture = Image.fromarray(result.image)
        picture.thumbnail((ORIGINAL_SIDE, ORIGINAL_SIDE))
        path = self._originals / name
        picture.save(path, quality=88)
        return path


class _NoPlaceError(ValueError):
    """What keeps the files of one image from being written keeps those of all others as well."""


def _cut(stem: str) -> str:
    """Return a name short enough for a number and any suffix behind it, on any file system."""
    return stem.encode()[:MAX_STEM].decode(errors="ignore")


def _same(name: str) -> str:
    """Return what is equal for names that some file system does not tell apart."""
    return unicodedata.normalize("NFC", name).casefold()


def check_formats(formats: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of further files, given as a list or joined by commas.

    Raises:
        OptionError: if one is not in `FORMATS`.
    """
    parts = formats.split(",") if isinstance(formats, str) else formats or ()
    names = tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))
    for name in names:
        if name not in FORMATS:
            known = " and ".join(FORMATS)
            raise OptionError(f"formats={name}: there are {known}{nearest(name, FORMATS)}")
    return names


def write_gallery(
    rows: Iterable[SavedResult | Result], folder: str | Path, title: str = "Predictions"
) -> Path:
    """Write `index.html`, a page of all images, and return its path.

    Args:
        rows: what `ResultWriter.write` returned for files in `folder`; results that are not
            saved yet are saved.
        folder: where the page goes.
        title: heading of the page.
    """
    writer = ResultWriter(folder, originals=True)
    saved = [row if isinstance(row, SavedResult) else writer.write(row) for row in rows]
    totals: Counter[str] = Counter()
    for row in saved:
        totals.update(row.counts)
    mean = sum(row.ms for row in saved) / max(len(saved), 1)
    figures = [
        (f"{len(saved):,}", plural(len(saved), "image")),
        (f"{totals.total():,}", plural(totals.total(), "object")),
        (f"{mean:,.0f} ms", "per image"),
    ]
    main = Template(_MAIN).substitute(
        filters=_filters(totals, saved),
        cards="".join(_card(row, i, Path(folder)) for i, row in enumerate(saved)),
        rows="".join(_row(row, i) for i, row in enumerate(saved)),
    )
    hint = "Click a picture to see the original."
    page = render(title, figures, main, style=_STYLE, script=_SCRIPT, footer=hint)
    path = Path(folder) / "index.html"
    write_whole(path, page)
    return path


def _link(path: Path, folder: Path) -> str:
    return quote(path.relative_to(folder).as_posix())


def _filters(totals: Counter[str], saved: list[SavedResult]) -> str:
    """Return one button a class, which shows only the images that hold it."""
    buttons = [f'<button class="chip" data-class="" aria-pressed="true">all {len(saved)}</button>']
    images = Counter(name for row in saved for name in row.counts)
    ranked = sorted(images, key=lambda name: (-images[name], -totals[name], name))
    for rank, name in enumerate(ranked):
        hidden = " hidden" if rank >= MANY_CLASSES else ""
        buttons.append(
            f'<button class="chip" data-class="{escape(name)}" aria-pressed="false"{hidden}>'
            f"{escape(name)} <small>in {images[name]}</small></button>"
        )
    if len(ranked) > MANY_CLASSES:
        rest = len(ranked) - MANY_CLASSES
        buttons.append(f'<button class="chip" id="more">{rest} more classes</button>')
    empty = sum(not row.counts for row in saved)
    if empty and totals:
        buttons.append(
            '<button class="chip" data-class="-" aria-pressed="false">no objects '
            f"<small>in {empty}</small></button>"
        )
    return "".join(buttons)


def _objects(row: SavedResult) -> str:
    if not row.counts:
        return '<span class="tag none">no objects</span>'
    return "".join(
        f'<span class="tag"><b>{count}</b> {escape(name)}</span>'
        for name, count in row.counts.items()
    )


def _classes(row: SavedResult) -> str:
    return "\n".join(escape(name) for name in row.counts) or "-"


def _card(row: SavedResult, index: int, folder: Path) -> str:
    height, width = row.size
    overlay = _link(row.overlay, folder)
    other = "" if row.original is None else f' data-other="{_link(row.original, folder)}"'
    name = escape(row.name)
    return f"""
<figure class="card" id="i{index}" data-classes="{_classes(row)}">
<button class="view" title="click: original / objects">
<img src="{overlay}"{other} alt="{name}" width="{width}" height="{height}" loading="lazy">
<span class="badge">objects</span></button>
<figcaption><div class="name" title="{name}">{name}</div><div class="tags">{_objects(row)}</div>
<div class="facts"><span>{width} × {height}</span><span>{row.ms:,.0f} ms</span>
<a href="{overlay}">picture</a><a href="{_link(row.data, folder)}">data</a></div>
</figcaption></figure>"""


def _row(row: SavedResult, index: int) -> str:
    return (
        f'<tr data-classes="{_classes(row)}"><td><a href="#i{index}">{escape(row.name)}</a></td>'
        f'<td class="n">{sum(row.counts.values())}</td><td>{_objects(row)}</td>'
        f'<td class="n">{row.size[1]} × {row.size[0]}</td><td class="n">{row.ms:,.0f}</td></tr>\n'
    )


_STYLE = """.bar { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; padding: 18px 0; }
button { font: inherit; color: inherit; cursor: pointer; }
.chip { background: var(--card); border: 1px solid var(--line); border-radius: 99px;
  padding: 4px 13px; }
.chip small { color: var(--soft); font-size: 12.5px; }
.chip:hover { border-color: var(--accent); }
.chip[aria-pressed="true"] { background: var(--tint); border-color: var(--accent);
  color: var(--accent); font-weight: 600; }
.push { margin-left: auto; }
.grid { display: grid; gap: 20px; grid-template-columns: repeat(auto-fill, minmax(290px, 1fr)); }
.card { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  overflow: hidden; display: flex; flex-direction: column; scroll-margin: 20px; }
.card:target { border-color: var(--accent); box-shadow: 0 0 0 1px var(--accent); }
.view { border: 0; padding: 0; background: var(--stage); display: block; position: relative;
  aspect-ratio: 4 / 3; width: 100%; }
.view img { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain; }
.badge { position: absolute; right: 10px; top: 10px; background: #0009; color: #fff;
  font-size: 12px; line-height: 1.6; padding: 1px 9px; border-radius: 99px; opacity: 0;
  transition: opacity .15s; }
.view:hover .badge, .view:focus-visible .badge, .view.original .badge { opacity: 1; }
figcaption { padding: 12px 15px 13px; display: flex; flex-direction: column; gap: 8px; flex: 1; }
.name { font-weight: 600; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.tags { display: flex; flex-wrap: wrap; gap: 5px; }
.tag { background: var(--tint); color: var(--accent); border-radius: 6px; padding: 1px 8px;
  font-size: 13px; white-space: nowrap; }
.tag.none { background: none; color: var(--soft); padding-left: 0; }
.facts { display: flex; flex-wrap: wrap; gap: 3px 14px; color: var(--soft); font-size: 13px;
  margin-top: auto; font-variant-numeric: tabular-nums; }
.facts a:first-of-type { margin-left: auto; }
td .tag { display: inline-block; margin: 0 5px 2px 0; }
[hidden] { display: none !important; }
@media (max-width: 560px) { .push { margin-left: 0; }
  .bar { gap: 6px; } .chip { padding: 2px 10px; font-size: 14px; } }
"""

_MAIN = """<div class="bar">$filters<button class="chip push" id="all">show originals</button></div>
<div class="grid">$cards
</div>
<h2>Images</h2>
<div class="scroll"><table>
<thead><tr><th>image</th><th class="n">objects</th><th>by class</th><th class="n">size</th>
<th class="n">ms</th></tr></thead>
<tbody>
$rows</tbody></table></div>"""

_SCRIPT = """function toggle(view, original) {
  const img = view.querySelector("img");
  if (!img.dataset.other || view.classList.contains("original") === original) return;
  const src = img.getAttribute("src");
  img.src = img.dataset.other;
  img.dataset.other = src;
  view.classList.toggle("original", original);
  view.querySelector(".badge").textContent = original ? "original" : "objects";
}
const views = [...document.querySelectorAll(".view")];
for (const view of views)
  view.onclick = () => toggle(view, !view.classList.contains("original"));
const all = document.getElementById("all");
all.onclick = () => {
  const original = all.textContent === "show originals";
  for (const view of views) toggle(view, original);
  all.textContent = original ? "show objects" : "show originals";
};
const more = document.getElementById("more");
if (more) more.onclick = () => {
  for (const chip of document.querySelectorAll(".chip[hidden]")) chip.hidden = false;
  more.hidden = true;
};
const chips = [...document.querySelectorAll(".chip[data-class]")];
for (const chip of chips) chip.onclick = () => {
  for (const other of chips) other.setAttribute("aria-pressed", String(other === chip));
  const wanted = chip.dataset.class;
  for (const item of document.querySelectorAll("[data-classes]"))
    item.hidden = wanted !== "" && !item.dataset.classes.split("\\n").includes(wanted);
};
"""
