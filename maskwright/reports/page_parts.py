"""Parts of an HTML page: sections, tables, names, pictures inside the page."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .page import escape

DASH = '<span title="undefined: the data has nothing to measure">–</span>'
SHORT = 28  # characters of a name that never need to be cut
LONG = 20  # rows; a table with more scrolls in itself
FEW = 12  # names that stand in a sentence; more are folded away


def section(title: str, *parts: str) -> str:
    """Return a section, or nothing where it would be empty."""
    body = "\n".join(part for part in parts if part)
    return f"<section><h2>{escape(title)}</h2>\n{body}\n</section>" if body else ""


def name_cell(name: str) -> str:
    """Return a name as HTML; a long one is cut by the browser and stands whole in its tooltip."""
    text = escape(name)
    return text if len(name) <= SHORT else f'<span class="name" title="{text}">{text}</span>'


def left_out(what: str, names: Sequence[str]) -> str:
    """Return a line that says which rows a table lacks; nothing where it lacks none."""
    if not names:
        return ""
    listed = ", ".join(name_cell(name) for name in names)
    if len(names) <= FEW:
        return f'<p class="soft">{escape(what)}: {listed}.</p>'
    return (
        f'<details class="soft"><summary>{escape(what)}: {len(names):,}</summary>'
        f"<p>{listed}.</p></details>"
    )


def images(folder: Path, *names: str, wide: bool = False) -> list[str]:
    """Return the pictures of a folder that exist, as parts of the page.

    Args:
        folder: where they are.
        names: their paths inside it.
        wide: on a narrow screen rather scroll than shrink beyond recognition.
    """
    parts = []
    kind = ' class="wide"' if wide else ""
    for name in names:
        path = folder / name
        if path.is_file():
            mime = "image/png" if path.suffix == ".png" else "image/jpeg"
            data = base64.b64encode(path.read_bytes()).decode("ascii")
            parts.append(
                f'<figure{kind}><div tabindex="0"><img src="data:{mime};base64,{data}" '
                f'alt="{escape(name)}"></div><figcaption>{escape(name)}</figcaption></figure>'
            )
    return parts


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    sortable: bool = False,
    numbers: bool = True,
) -> str:
    """Return a table of HTML cells; columns after the first hold numbers if all begin so."""
    right = [
        numbers and i > 0 and all(_is_number(row[i]) for row in rows) for i in range(len(head))
    ]
    mark = [' class="n"' if at_right else "" for at_right in right]
    top = "".join(f"<th{m}>{escape(name)}</th>" for name, m in zip(head, mark, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{m}>{c}</td>" for c, m in zip(row, mark, strict=True)) + "</tr>\n"
        for row in rows
    )
    kind = ' class="sortable"' if sortable and len(rows) > 1 else ""
    high = " long" if len(rows) > LONG else ""
    return (
        f'<div class="scroll{high}" tabindex="0"><table{kind}><thead><tr>{top}</tr></thead>\n'
        f"<tbody>\n{body}</tbody></table></div>"
    )


def _is_number(cell: str) -> bool:
    """Tell whether a cell holds a number, a dash with its meaning, or nothing."""
    return cell[:1] in "0123456789–" or cell.startswith("<span title=")


def pairs(options: Mapping[str, Any]) -> str:
    """Return a table of names and values; paths may break behind a slash, nothing else does."""
    rows = [
        [name_cell(key), "none" if value is None else breakable(str(value))]
        for key, value in options.items()
    ]
    return table(["name", "value"], rows, numbers=False)


def breakable(text: str) -> str:
    """Return plain text as HTML that may go on in the next line behind a slash or comma."""
    return escape(text).replace("/", "/<wbr>").replace(",", ",<wbr>")


def bullets(notes: Sequence[str]) -> str:
    """Return plain texts as a list, or nothing where there are none."""
    if not notes:
        return ""
    return '<ul class="notes">' + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>"


def number(value: float, dash: str) -> str:
    """Return a metric, in [0, 1], as all pages show it."""
    return dash if math.isnan(value) else f"{value:.3f}"


def optional(value: float | None) -> str:
    """Return a number as a cell; what is missing stays empty, what is undefined is a dash."""
    return "" if value is None else number(value, DASH)
