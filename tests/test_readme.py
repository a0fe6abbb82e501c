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


def test_links_and_sample_files_exist() -> None:
    for page in ("README.md", *(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md"))):
        text = (ROOT / page).read_text(encoding="utf-8")
        folder = (ROOT / page).parent
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (folder / target).exists(), f"{page}: {target}"
        for sample in re.findall(r"examples/[\w/.]+\.png", text):
            assert (ROOT / sample).exists(), f"{page}: {sample}"
