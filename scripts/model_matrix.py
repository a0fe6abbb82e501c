"""Write the README's matrix of models from the tests: what is held of each family, and no more.

A test that carries `@pytest.mark.contract("column", ...)` and runs over the parameter `name` (and
perhaps `format`) fills the cells of its columns. The tests are collected, not run.

python scripts/model_matrix.py          # rewrite it
python scripts/model_matrix.py --check  # exit 1 if it is out of date
"""

import contextlib
import io
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "README.md"
START, END = "<!-- model matrix -->\n", "<!-- end of model matrix -->\n"
COLUMNS = (
    *("trains", "validates", "predicts", "resumes to the bit", "several processes"),
    *("compiles", "exports"),
)
# name of a model, column -> (what it was tested with: a format, or "", whether it is slow)
Found = dict[tuple[str, str], set[tuple[str, bool]]]


class Collector:
    """Notes what the marked tests run over."""

    def __init__(self) -> None:
        self.found: Found = defaultdict(set)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Note the tests that pytest has chosen; the name is pytest's."""
        for item in items:
            marker = item.get_closest_marker("contract")
            given = getattr(item, "callspec", None)
            if marker is None or given is None:
                continue
            slow = item.get_closest_marker("slow") is not None
            for column in marker.args:
                assert column in COLUMNS, f"{item.nodeid}: no column {column!r}"
                how = (str(given.params.get("format", "")), slow)
                self.found[given.params["name"], column].add(how)


def collect() -> Found:
    files = [
        str(path)
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if "pytest.mark.contract" in path.read_text(encoding="utf-8")
    ]
    collector = Collector()
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        options = ["--collect-only", "-q", "-p", "no:cacheprovider", "-m", "contract"]
        status = pytest.main([*options, f"--rootdir={ROOT}", *files], plugins=[collector])
    if status != pytest.ExitCode.OK:
        sys.exit(f"the tests cannot be collected:\n{said.getvalue()[-3000:]}")
    return collector.found


def cell(found: Found, names: list[str], column: str) -> str:
    """Return what all tiny instances of a family have been tested with."""
    shared = set.intersection(*({how for how, _ in found.get((n, column), ())} for n in names))
    if not shared:
        return ""
    quick = all(
        any(how in shared and not slow for how, slow in found[name, column]) for name in names
    )
    words = ", ".join(sorted(shared - {""})) or "yes"
    return words if quick else f"{words} (*long*)"


def matrix() -> str:
    from maskwright.models import list_models

    found = collect()
    families: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, entry in list_models().items():
        if entry.tiny is not None:
            families[entry.task, entry.family].append(name)
    lines = ["| family | task | " + " | ".join(COLUMNS) + " |", "| --- " * (2 + len(COLUMNS)) + "|"]
    for (task, family), names in sorted(families.items()):
        cells = [cell(found, names, column) for column in COLUMNS]
        lines.append(f"| `{family}` | {task} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(START)
    after = rest.split(END)[1]
    wanted = f"{before}{START}\n{matrix()}\n\n{END}{after}"
    if "--check" in sys.argv:
        return int(text != wanted)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
