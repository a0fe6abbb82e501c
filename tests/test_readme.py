"""The pages keep their promises: the file map is complete, its links and sample files exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_file_map_is_up_to_date() -> None:
    command = [sys.executable, "scripts/file_map.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, check=False)
    assert done.returncode == 0, "run: python scripts/file_map.py"


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_every_module_that_a_page_names_exists() -> None:
    missing = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in pages()
        for name in re.findall(r"maskwright/[\w/]+\.py", page.read_text(encoding="utf-8"))
        if not (ROOT / name).is_file()
    ]
    assert missing == []


def test_the_size_of_the_code_is_as_stated() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"about ([\d,]+) lines in (\d+) files", text)
    assert found is not None
    files = list((ROOT / "maskwright").rglob("*.py"))
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
    assert abs(int(found[1].replace(",", "")) / lines - 1) < 0.15, lines
    assert abs(int(found[2]) / len(files) - 1) < 0.15, len(files)


def test_every_file_and_folder_of_the_walks_exists() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").split("<!-- file map -->")[0]
    drawing = text.split("```")[1]
    prose = text.replace(drawing, "")
    names = re.findall(r"`((?:[\w]+/)*[\w]+(?:\.py|/))`", prose)
    later = {"recipe.py", "task.py"}  # what one adds
    assert len(names) > 60
    missing = [n for n in names if not any((r / n).exists() for r in (ROOT, ROOT / "maskwright"))]
    assert set(missing) <= later
    for room in re.findall(r"\b(\w+)/", drawing):
        assert (ROOT / "maskwright" / room).is_dir(), room


def test_links_and_sample_files_exist() -> None:
    for page in ("README.md", *(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md"))):
        text = (ROOT / page).read_text(encoding="utf-8")
        folder = (ROOT / page).parent
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (folder / target).exists(), f"{page}: {target}"
        for sample in re.findall(r"examples/[\w/.]+\.png", text):
            assert (ROOT / sample).exists(), f"{page}: {sample}"
