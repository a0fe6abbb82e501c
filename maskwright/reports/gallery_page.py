"""The page of a prediction run: filter by name and score, sort, and look at pictures full size.

The page is one HTML file with style and script inside; it loads nothing but the pictures beside
it, so the folder can be zipped, mailed and opened without a network. The script knows numbers
alone: names stand in the HTML, escaped. Without scripts the page still shows and links everything.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from string import Template
from urllib.parse import quote

from ..drawing.figures import plural
from .gallery_script import SCRIPT
from .page import escape, render
from .result import ImageResult
from .saved import SavedResult

MANY_NAMES = 16


def gallery_html(saved: Sequence[SavedResult], folder: Path, title: str) -> str:
    """Return the page of saved results.

    Args:
        saved: what was written into `folder`.
        folder: where the page goes.
        title: heading of the page.
    """
    totals: Counter[str] = Counter()
    for row in saved:
        totals.update(row.counts)
    labels = {name: label for label, (name, _) in enumerate(totals.most_common())}
    mean = sum(row.ms for row in saved) / max(len(saved), 1)
    figures = [
        (f"{len(saved):,}", plural(len(saved), "image")),
        (f"{totals.total():,}", plural(totals.total(), "find")),
        (f"{mean:,.0f} ms", "per image"),
    ]
    lowest = min((score for row in saved for _, score, _ in row.found), default=1000)
    main = Template(_MAIN).substitute(
        filters=_filters(totals, saved, labels),
        measure=saved[0].measure if saved else ImageResult.MEASURE,
        least=f"{lowest // 10 / 100:.2f}",
        slider="" if totals else " hidden",
        cards="".join(_card(row, i, folder, labels) for i, row in enumerate(saved)),
        rows="".join(_row(row, i, labels) for i, row in enumerate(saved)),
    )
    return render(
        title,
        figures,
        main,
        style=_STYLE,
        script=f"const DATA = {_numbers(saved, labels)};\n{SCRIPT}",
        footer="Click a picture for its full size; then ← and → go on, O shows the original, "
        "Escape ends.",
    )


def _numbers(saved: Sequence[SavedResult], labels: dict[str, int]) -> str:
    """Return the finds of each image: label, score in thousandths, x, y, width, height, ...

    The last four are null for what is said of the image as a whole.
    """
    rows = [
        [
            n
            for name, score, place in row.found
            for n in (labels[name], score, *(place or (None,) * 4))
        ]
        for row in saved
    ]
    return json.dumps(rows, separators=(",", ":")).replace("],[", "],\n[")


def _link(path: Path, folder: Path) -> str:
    return quote(path.relative_to(folder).as_posix())


def _filters(totals: Counter[str], saved: Sequence[SavedResult], labels: dict[str, int]) -> str:
    """Return one button a name, which shows only the images that hold it."""
    buttons = [
        '<button class="chip" data-class="" data-l="all" aria-pressed="true">'
        f"all {len(saved)}</button>"
    ]
    images = Counter(name for row in saved for name in row.counts)
    ranked = sorted(images, key=lambda name: (-images[name], -totals[name], name))
    for rank, name in enumerate(ranked):
        hidden = " hidden" if rank >= MANY_NAMES else ""
        text = escape(name)
        buttons.append(
            f'<button class="chip" data-class="{text}" data-l="{labels[name]}" title="{text}" '
            f'aria-pressed="false"{hidden}><span class="name">{text}</span> '
            f"<small>in {images[name]}</small></button>"
        )
    if len(ranked) > MANY_NAMES:
        rest = len(ranked) - MANY_NAMES
        buttons.append(f'<button class="chip" id="more">{rest} more names</button>')
    if totals:
        empty = sum(not row.counts for row in saved)
        buttons.append(
            '<button class="chip" data-class="-" data-l="none" aria-pressed="false"'
            f"{'' if empty else ' hidden'}>no finds <small>in {empty}</small></button>"
        )
    return "".join(buttons)


def _finds(row: SavedResult, labels: dict[str, int]) -> str:
    """Return a tag for each name of an image, and one for the case that none is left."""
    tags = [
        f'<span class="tag" data-l="{labels[name]}" title="{escape(name)}"><b>{count}</b> '
        f"{escape(name)}</span>"
        for name, count in row.counts.items()
    ]
    hidden = " hidden" if tags else ""
    return "".join(tags) + f'<span class="tag none"{hidden}>no finds</span>'


def _card(row: SavedResult, index: int, folder: Path, labels: dict[str, int]) -> str:
    height, width = row.size
    overlay = _link(row.overlay, folder)
    other, flip = "", ""
    if row.original is not None:
        other = f' data-other="{_link(row.original, folder)}"'
        flip = '<button class="flip" aria-pressed="false">original</button>'
    heat = ""
    if row.heatmap is not None:
        heat = f'<a href="{_link(row.heatmap, folder)}">heat map</a>'
    zoom = "" if row.page is None else f'<a href="{_link(row.page, folder)}">zoom</a>'
    name = escape(row.name)
    return f"""
<figure class="card" id="i{index}">
<div class="stage"><a class="view" href="{overlay}" aria-label="{name}, full size">
<img src="{overlay}"{other} alt="{name}" width="{width}" height="{height}" loading="lazy">
<svg viewBox="0 0 {width} {height}" aria-hidden="true"></svg></a>{flip}</div>
<figcaption><div class="file" title="{name}">{name}</div>
<div class="tags">{_finds(row, labels)}</div>
<div class="facts"><span>{width} × {height}</span><span>{row.ms:,.0f} ms</span>
<a href="{overlay}">picture</a>{zoom}{heat}<a href="{_link(row.data, folder)}">data</a></div>
</figcaption></figure>"""


def _row(row: SavedResult, index: int, labels: dict[str, int]) -> str:
    name = escape(row.name)
    return (
        f'<tr><td><a class="name" href="#i{index}" title="{name}">{name}</a></td>'
        f'<td class="n">{sum(row.counts.values())}</td><td>{_finds(row, labels)}</td>'
        f'<td class="n">{row.size[1]} × {row.size[0]}</td><td class="n">{row.ms:,.0f}</td></tr>\n'
    )


_STYLE = """.bar { display: flex; flex-wrap: wrap; gap: 8px; align-items: center;
  padding: 18px 0 0; }
.bar.tools { padding: 12px 0 18px; gap: 8px 22px; color: var(--soft); }
.tools label { display: flex; align-items: center; gap: 9px; }
.tools input { width: 190px; accent-color: var(--accent); }
.tools b { color: var(--text); font-variant-numeric: tabular-nums; }
button, select { font: inherit; color: inherit; cursor: pointer; }
select { background: var(--card); color: var(--text); border: 1px solid var(--line);
  border-radius: 8px; padding: 3px 8px; }
.chip { background: var(--card); border: 1px solid var(--line); border-radius: 99px;
  padding: 4px 13px; color: var(--text); }
.chip small { color: var(--soft); font-size: 12.5px; }
.chip:hover { border-color: var(--accent); }
.chip[aria-pressed="true"] { background: var(--tint); border-color: var(--accent);
  color: var(--accent); font-weight: 600; }
.push { margin-left: auto; }
.grid { display: grid; gap: 20px; grid-template-columns: repeat(auto-fill, minmax(min(290px, 100%),
  1fr)); }
.card { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  overflow: hidden; display: flex; flex-direction: column; scroll-margin: 20px;
  content-visibility: auto; contain-intrinsic-size: auto 330px; }
.card:target { border-color: var(--accent); box-shadow: 0 0 0 1px var(--accent); }
.stage { background: var(--stage); position: relative; aspect-ratio: 4 / 3; }
.view { position: absolute; inset: 0; }
.view img, .view svg, .full img, .full svg { position: absolute; inset: 0; width: 100%;
  height: 100%; object-fit: contain; }
svg { pointer-events: none; fill: none; stroke-width: 2; }
.flip { position: absolute; right: 10px; top: 10px; background: #000a; color: #fff; border: 0;
  font-size: 12px; line-height: 1.6; padding: 1px 9px; border-radius: 99px; opacity: .75; }
.flip:hover, .flip:focus-visible, .flip[aria-pressed="true"] { opacity: 1; }
.flip[aria-pressed="true"] { background: var(--accent); color: var(--page); }
figcaption { padding: 12px 15px 13px; display: flex; flex-direction: column; gap: 8px; flex: 1; }
.file { font-weight: 600; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.tags { display: flex; flex-wrap: wrap; gap: 5px; }
.tag { background: var(--tint); color: var(--accent); border-radius: 6px; padding: 1px 8px;
  font-size: 13px; white-space: nowrap; max-width: 26ch; overflow: hidden;
  text-overflow: ellipsis; }
.tag.none { background: none; color: var(--soft); padding-left: 0; }
.facts { display: flex; flex-wrap: wrap; gap: 3px 14px; color: var(--soft); font-size: 13px;
  margin-top: auto; font-variant-numeric: tabular-nums; }
.facts a:first-of-type { margin-left: auto; }
td .tag { display: inline-block; margin: 0 5px 2px 0; vertical-align: bottom; }
[hidden] { display: none !important; }
dialog { border: 0; padding: 0; margin: 0; width: 100vw; height: 100dvh; max-width: none;
  max-height: none; background: #0b0d11; color: #e8ebf1; }
dialog[open] { display: flex; flex-direction: column; }
.top { display: flex; flex-wrap: wrap; align-items: center; gap: 6px 14px; padding: 9px 14px; }
.top b { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; max-width: 100%; }
.top span { color: #98a1b2; margin-right: auto; }
.top button, .top a { background: #24304d; border: 0; border-radius: 8px; padding: 4px 12px;
  color: #e8ebf1; }
.top button[aria-pressed="true"] { background: #8fb0ff; color: #0b0d11; }
.full { position: relative; flex: 1; margin: 0 14px 14px; min-height: 0; }
@media (max-width: 560px) { .push { margin-left: 0; }
  .bar { gap: 6px; } .chip { padding: 2px 10px; font-size: 14px; }
  .chip .name { max-width: 14ch; } }
"""

_MAIN = """<div class="bar">$filters</div>
<div class="bar tools"><label$slider>$measure from <input id="score" type="range" min="$least"
max="1" step="0.01" value="$least"><b id="from">$least</b></label>
<label>sort by <select id="sort"><option value="order">order of the source</option>
<option value="count">number of finds</option><option value="name">name</option></select></label>
<span id="status" role="status"></span>
<button class="chip push" id="all" aria-pressed="false">show originals</button></div>
<div class="grid">$cards
</div>
<h2>Images</h2>
<div class="scroll" tabindex="0"><table>
<thead><tr><th>image</th><th class="n">finds</th><th>by name</th><th class="n">size</th>
<th class="n">ms</th></tr></thead>
<tbody>
$rows</tbody></table></div>
<dialog id="viewer" aria-label="picture in full size"><div class="top"><b></b><span></span>
<a href="#">picture</a><button data-do="original" aria-pressed="false">original</button>
<button data-do="back" aria-label="the image before">←</button>
<button data-do="on" autofocus aria-label="the next image">→</button>
<button data-do="close" aria-label="close">✕</button></div>
<div class="full"><img alt=""><svg aria-hidden="true"></svg></div></dialog>"""
