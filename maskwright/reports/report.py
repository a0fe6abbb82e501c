"""`report.html`: what a validation or a training found, on one page that opens without a network.

The frame alone: what there is to say is the task's, which hands in its sections. The figures are
written beside the page, too, and put into it, so that the one file can be mailed. The page is
written last and whole: an interruption leaves no half report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import write_whole
from ..terminal.doctor import environment
from .page import REPORT, escape, render
from .page_parts import bullets, pairs, section


@dataclass(frozen=True)
class Step:
    """One thing to do: what, why, and the command for it or None."""

    what: str
    why: str
    command: str | None = None


def write_page(
    folder: Path,
    title: str,
    *,
    figures: Sequence[tuple[str, str]],
    steps: Sequence[Step],
    sections: Sequence[tuple[str, Sequence[str]]],
    options: Mapping[str, Any],
    device: str,
    notes: Sequence[str] = (),
) -> Path:
    """Write the report of a run and return its path.

    Args:
        folder: the run folder; `metrics.json` is there already.
        title: heading of the page, plain text.
        figures: key figures below it, each with what it is, plain text.
        steps: what to do next, the most important first.
        sections: title (plain text) and parts (HTML, see `page_parts`) of each, in their order;
            those without a part are left out.
        options: options of the run by name.
        device: where the model ran.
        notes: what the reader should know first, such as warnings; plain text.
    """
    parts = [
        bullets(notes),
        section("What to do", numbered(steps)),
        *(section(name, *body) for name, body in sections),
        section("Options", pairs(options)),
        section("Environment", pairs(environment(device))),
    ]
    page = render(
        title,
        figures,
        "\n".join(part for part in parts if part),
        style=STYLE,
        script=SCRIPT,
        footer="All numbers are in metrics.json.",
    )
    write_whole(folder / REPORT, page)
    return folder / REPORT


def numbered(steps: Sequence[Step]) -> str:
    """Return steps as a numbered list, each with its command; nothing where there are none."""
    items = []
    for step in steps:
        line = "" if step.command is None else f"<pre>{escape(step.command)}</pre>"
        items.append(f"<li><b>{escape(step.what)}.</b> {escape(step.why)}{line}</li>")
    return f'<ol class="steps">{"".join(items)}</ol>' if items else ""


STYLE = """
.wrap { max-width: 1180px; }
section { margin-bottom: 8px; }
p { margin: 10px 0; max-width: 78ch; }
code { background: var(--tint); border-radius: 5px; padding: 1px 6px; font-size: .93em; }
section figure { margin: 16px 0; background: #fff; border: 1px solid var(--line);
  border-radius: 12px; padding: 12px; }
section img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
section figure div { overflow-x: auto; }
section figcaption { color: #667085; font-size: 12.5px; text-align: right; overflow-wrap: anywhere;
  padding-top: 6px; }
.scroll { margin: 12px 0; overflow: auto; }
.scroll.long { max-height: 640px; }
.words { display: inline-block; min-width: 22ch; }
thead th { position: sticky; top: 0; background: var(--card); }
.steps { padding-left: 22px; max-width: 78ch; }
.steps li { margin: 10px 0; }
pre { background: var(--tint); border-radius: 8px; padding: 9px 12px; margin: 8px 0 0;
  font-size: 13.5px; white-space: pre-wrap; overflow-wrap: anywhere; }
.soft { color: var(--soft); font-size: 14px; }
summary { cursor: pointer; }
.sortable th { cursor: pointer; }
.sortable th:hover { color: var(--accent); }
.notes { background: var(--card); border: 1px solid var(--line); border-left: 4px solid #e07b00;
  border-radius: 8px; padding: 12px 12px 12px 30px; margin: 22px 0 0; }
.keys { max-width: none; display: flex; flex-wrap: wrap; gap: 6px 20px; font-size: 13.5px; }
.key i { display: inline-block; width: 13px; height: 13px; border: 1px solid #0006;
  border-radius: 3px; margin-right: 7px; vertical-align: -2px; }
@media (max-width: 700px) { section figure { padding: 7px; }
  .wide img { max-width: none; width: 860px; } }
@media print {
  :root { color-scheme: light; --page: #fff; --card: #fff; --text: #000; --soft: #444;
    --line: #ccc; --tint: #eee; --accent: #000; }
  .scroll { max-height: none; overflow: visible; }
  .keys i { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  section figure, tr { break-inside: avoid; }
  h2 { break-after: avoid; }
}
"""

SCRIPT = """
for (const head of document.querySelectorAll(".sortable th")) head.onclick = () => {
  const body = head.closest("table").tBodies[0];
  const column = head.cellIndex;
  const down = head.dataset.down = head.dataset.down === "1" ? "0" : "1";
  const key = (row) => row.cells[column].textContent;
  const value = (row) => parseFloat(key(row).replaceAll(",", ""));
  const rows = [...body.rows].sort((a, b) => column === 0
    ? key(a).localeCompare(key(b))
    : (value(b) || -1) - (value(a) || -1));
  body.append(...(down === "1" ? rows : rows.reverse()));
};
"""
