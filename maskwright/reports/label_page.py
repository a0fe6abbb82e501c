"""The page of a comparison of labels with a model: what is doubted, in pictures, worst first."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import write_whole
from .page import REPORT, escape, render
from .page_parts import bullets, pairs, section, table

if TYPE_CHECKING:
    from PIL.Image import Image

QUALITY = 85  # of the JPEG pictures


def write_label_page(
    folder: Path,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    pictures: Iterable[Image],
    kinds: Mapping[str, str],
    *,
    figures: Sequence[tuple[str, str]],
    options: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> Path:
    """Write `report.html`, which holds its pictures, and return its path.

    Args:
        folder: the run folder.
        title: heading of the page, plain text.
        rows: all that is doubted, worst first: "score", "kind", "image", "label", "found",
            "confidence" and "overlap" each.
        pictures: of the first of them, as many as are shown.
        kinds: of doubts and what each means.
        figures: key figures below the heading.
        options: options of the run by name.
        notes: what the reader should know first, plain text.
    """
    cells = [_cell(number, *both) for number, both in enumerate(zip(rows, pictures), 1)]  # noqa: B905
    counts = Counter(row["kind"] for row in rows)
    shown = Counter(row["kind"] for row in rows[: len(cells)])
    there = [kind for kind in kinds if counts[kind]]
    summary = [
        [escape(kind), f"{counts[kind]:,}", f"{shown[kind]:,}", escape(kinds[kind])]
        for kind in there
    ]
    choices = "".join(
        f'<label><input type="checkbox" checked value="{escape(kind)}"> {escape(kind)}</label>'
        for kind in there
    )
    few = [kind for kind in there if shown[kind]]
    parts = [
        bullets(notes),
        section("What is doubted", table(["kind", "labels", "shown", "meaning"], summary))
        if there
        else "<p>Nothing is doubted.</p>",
        section(
            "Look and decide",
            f'<p class="keys">{choices}</p>' if len(few) > 1 else "",
            f'<div class="cells">{"".join(cells)}</div>' if cells else "",
        ),
        section("Options", pairs(options)),
    ]
    footer = "The whole list is in suspects.csv and suspects.json."
    page = render(title, figures, "\n".join(parts), style=_STYLE, script=_SCRIPT, footer=footer)
    write_whole(folder / REPORT, page)
    return folder / REPORT


def _cell(number: int, row: Mapping[str, Any], picture: Image) -> str:
    """Return one doubt as a figure with its picture inside."""
    stream = io.BytesIO()
    picture.convert("RGB").save(stream, "JPEG", quality=QUALITY)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    label, found = row["label"] or "no label", row["found"] or "nothing found"
    said = f"{label} | {found}"
    if row["confidence"] is not None:
        said += f" {row['confidence']:.2f}"
    if row["overlap"] is not None:
        said += f", IoU {row['overlap']:.2f}"
    number_of = "" if row["annotation"] is None else f", {row['annotation']}"
    return (
        f'<figure data-kind="{escape(row["kind"])}"><img loading="lazy" alt="" '
        f'src="data:image/jpeg;base64,{data}"><figcaption><b>{number}. {escape(row["kind"])} '
        f"{row['score']:.2f}</b><br>{escape(said)}<br>"
        f"<span>{escape(str(row['image']))}{number_of}</span></figcaption></figure>\n"
    )


_STYLE = """
.cells { display: grid; gap: 14px; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); }
.cells figure { margin: 0; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; padding: 8px; break-inside: avoid; }
.cells img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain;
  background: var(--stage); }
.cells figcaption { font-size: 13px; padding-top: 6px; overflow-wrap: anywhere; }
.cells span { color: var(--soft); }
.keys label { margin-right: 18px; }
.notes { background: var(--card); border: 1px solid var(--line); border-left: 4px solid #e07b00;
  border-radius: 8px; padding: 12px 12px 12px 30px; margin: 22px 0 0; }
"""

_SCRIPT = """
for (const tick of document.querySelectorAll(".keys input")) tick.onchange = () => {
  for (const cell of document.querySelectorAll(".cells figure"))
    if (cell.dataset.kind === tick.value) cell.hidden = !tick.checked;
};
"""
