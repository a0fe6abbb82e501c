"""The frame of the HTML pages that runs leave: one file, its style inside, nothing from outside."""

from __future__ import annotations

import html
from collections.abc import Sequence
from string import Template

from ..text import one_line

REPORT = "report.html"  # in a run folder


def escape(text: str) -> str:
    """Return plain text as HTML that shows it as it is, whatever characters it has."""
    return html.escape(one_line(text))


def render(
    title: str,
    figures: Sequence[tuple[str, str]],
    main: str,
    *,
    style: str = "",
    script: str = "",
    footer: str = "",
) -> str:
    """Return a page.

    Args:
        title: the heading, plain text.
        figures: key figures below it, each with what it is, plain text.
        main: HTML of the body.
        style: CSS on top of what all pages share: colours as variables, tables, headings.
        script: JavaScript.
        footer: plain text before the name of the program.
    """
    facts = "".join(f"<div><b>{escape(v)}</b><span>{escape(k)}</span></div>" for v, k in figures)
    return Template(_PAGE).substitute(
        title=escape(title),
        figures=facts,
        main=main,
        style=_STYLE + style,
        script=f'<script>\n"use strict";\n{script}</script>\n' if script else "",
        footer=f"{escape(footer)} Written by maskwright.".strip(),
    )


_STYLE = """:root {
  color-scheme: light dark;
  --page: #f5f6f8; --card: #fff; --line: #e0e3e9; --text: #1b2130; --soft: #667085;
  --accent: #2f5fd0; --tint: #e8eefc; --stage: #e9ebf0;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12151b; --card: #1b1f27; --line: #2c323d; --text: #e8ebf1; --soft: #98a1b2;
    --accent: #8fb0ff; --tint: #24304d; --stage: #0c0e12;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
.wrap { max-width: 1560px; margin: 0 auto; padding: 0 28px; }
header { background: var(--card); border-bottom: 1px solid var(--line); padding: 26px 0 20px; }
h1 { font-size: 24px; line-height: 1.25; margin: 0 0 14px; letter-spacing: -.01em;
  overflow-wrap: anywhere; }
.figures { display: flex; flex-wrap: wrap; gap: 10px 36px; }
.figures div { display: flex; align-items: baseline; gap: 7px; }
.figures b { font-size: 20px; font-variant-numeric: tabular-nums; }
.figures span { color: var(--soft); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
h2 { font-size: 17px; margin: 38px 0 12px; }
p, li, h2, h3 { overflow-wrap: anywhere; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: 12px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 8px 15px; border-bottom: 1px solid var(--line);
  vertical-align: top; }
tr:last-child td { border-bottom: 0; }
th { color: var(--soft); font-weight: 600; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.name { display: inline-block; max-width: 26ch; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; vertical-align: bottom; }
footer { color: var(--soft); font-size: 13px; padding: 30px 0 40px; }
@media (max-width: 560px) { .wrap { padding: 0 14px; } th, td { padding: 7px 9px; }
  .name { max-width: 17ch; } }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
$style</style>
</head>
<body>
<header><div class="wrap"><h1>$title</h1><div class="figures">$figures</div></div></header>
<main class="wrap">
$main
<footer>$footer</footer>
</main>
$script</body>
</html>
"""
