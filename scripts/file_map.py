"""Write the file map of docs/architecture.md from the first sentence of every module's docstring.

python scripts/file_map.py          # rewrite it
python scripts/file_map.py --check  # exit 1 if it is out of date
"""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
START, END = "<!-- file map -->\n", "<!-- end of file map -->\n"
FOLDERS = [
    "maskwright",
    *sorted(
        path.parent.relative_to(ROOT).as_posix()
        for path in (ROOT / "maskwright").rglob("__init__.py")
        if path.parent.name != "maskwright"
    ),
    "benchmarks",
    "examples",
    "scripts",
]


def first_sentence(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    line = " ".join(text.split("\n\n")[0].split())
    # A sentence ends where a capital letter or a digit follows, but not after "et al.".
    sentence = re.split(r"(?<!al)(?<!sec)(?<!fig)\.\s", line)[0]
    return sentence.rstrip(".").replace("|", "/")


def file_map() -> str:
    lines = []
    for folder in FOLDERS:
        files = [p for p in sorted((ROOT / folder).glob("*.py")) if not p.name.startswith("_")]
        package = ROOT / folder / "__init__.py"
        title = first_sentence(package) if package.exists() and folder != "maskwright" else ""
        lines += [f"**`{folder}/`** {title}".strip(), "", "| file | |", "| --- | --- |"]
        lines += [f"| `{path.name}` | {first_sentence(path)} |" for path in files]
        lines.append("")
    return "\n".join(lines)


def main() -> int:
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(START)
    after = rest.split(END)[1]
    wanted = f"{before}{START}\n{file_map()}\n{END}{after}"
    if "--check" in sys.argv:
        return int(text != wanted)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
