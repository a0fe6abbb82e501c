"""The rooms of the package: imports go down only, no circles, no room or module too large.

A room is a folder or a module at the top of the package; each stands on a floor, and may import
what stands on lower floors. Imports inside functions and for type checkers count like all others.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "maskwright"

# From the ground up; rooms of one floor do not import each other.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("_version", "errors", "paths", "pickles", "processes", "text", "weights"),
    (
        "crf",
        "devices",
        "files",
        "runtime",
        "runtimes",
        "signatures",
        "structures",
        "channels",
        "window",
    ),
    ("ops", "runs", "stores"),
    ("metrics", "nn", "proposals", "terminal"),
    ("drawing",),
    ("data", "models"),
    ("converters",),
    ("storage",),
    ("hub", "reports"),
    ("tasks",),
    ("graphs",),
    ("prediction",),
    ("serving",),
    ("exporters",),
    ("training",),
    ("recipes", "timing", "comparing", "distribute"),
    ("commands",),
    ("tokens",),
    ("cli",),
    ("__init__",),
    ("__main__",),
)
MOST_LINES = 500  # of a module
MOST_FILES = 20  # of a folder, at one level
MOST_ROOM_LINES = 3500  # of the files of a folder, at one level
# These ask the task: words of one task have no place in them.
SHARED = (
    "training",
    "prediction",
    "exporters",
    "graphs",
    "reports",
    "storage",
    "timing",
    "comparing",
    "serving",
    "distribute",
)
# Public names of before there were other tasks.
KEPT = ("def detector(self) -> Any:",)
# `num_classes` is an option of every builder, and style sheets have boxes of their own.
TASK_WORDS = re.compile(
    r"(?<![a-zA-Z])(?i:box(?!-sha|-siz)|boxes|masks?|keypoints?|detectors?|detections?"
    r"|(?<!num )classes)(?![a-zA-Z])"
    r"|(?<![A-Za-z])(m?AP\d*|ap)(?![A-Za-z])"
)
HEAVY = {
    *("torchvision", "timm", "matplotlib", "hotcoco", "pycocotools", "rich", "lightning_fabric"),
    *("cv2", "sklearn", "scipy", "av", "trackers", "supervision", "uvicorn"),
}
WITHOUT_TORCH = (
    *("__init__.py", "__main__.py", "cli.py", "commands.py", "errors.py", "signatures.py"),
    *("text.py", "paths.py", "runs.py", "tokens.py", "window.py", "files.py", "processes.py"),
    *("terminal/__init__.py", "terminal/interrupt.py", "terminal/console.py"),
    *("tasks/__init__.py", "tasks/recipe.py"),
)


def imports_of(path: Path, package: Path) -> list[tuple[str, bool, int]]:
    """Return (dotted module, at module level, line) of each import; relative ones resolved."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: list[tuple[str, bool, int]] = []

    def visit(node: ast.AST, top: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend((alias.name, top, child.lineno) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    parents = path.relative_to(package.parent).parent.parts
                    parents = parents[: len(parents) - child.level + 1]
                    base = ".".join((*parents, base) if base else parents)
                found.append((base, top, child.lineno))
                found.extend((f"{base}.{a.name}", top, child.lineno) for a in child.names)
            inner = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
            visit(child, top and not inner and not typing)

    visit(tree, True)
    return found


def modules_of(package: Path) -> dict[str, Path]:
    """Return the file of each module by its dotted name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room_of(module: str) -> str:
    """Return the room of a module: the name behind that of the package."""
    return [*module.split("."), "__init__"][1]


def violations(package: Path) -> list[str]:
    """Return a line for each import of the package that breaks a rule."""
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    modules = modules_of(package)
    faults = []
    for module, path in modules.items():
        name, room = path.relative_to(package).as_posix(), room_of(module)
        if room not in floor:
            faults.append(f"{name}: the room {room!r} has no floor")
            continue
        seen = set()
        for target, top, line in imports_of(path, package):
            where, root = f"{name}:{line}: ", target.split(".")[0]
            if root == package.name and room not in ("__init__", "__main__"):
                other = room_of(target)
                known = other in floor or f"{package.name}.{other}" in modules
                if target == package.name:
                    alone = ast.parse(path.read_text(encoding="utf-8"))
                    if any(isinstance(n, ast.Import) and n.lineno == line for n in alone.body):
                        faults.append(f"{where}{room} must not import the package as a whole")
                elif known and other != room and (line, other) not in seen:
                    seen.add((line, other))
                    if floor.get(other, 99) >= floor[room]:
                        faults.append(f"{where}{room} must not import {other}")
            if top and root in HEAVY and (line, root) not in seen:
                seen.add((line, root))
                faults.append(f"{where}{root} belongs inside the function that uses it")
            if top and root == "torch" and name in WITHOUT_TORCH and (line, root) not in seen:
                seen.add((line, root))
                faults.append(f"{where}this module must not import torch when it is loaded")
    return faults


def circles(package: Path) -> list[list[str]]:
    """Return the groups of modules that import each other, by whatever way round (Tarjan 1972).

    The `__init__` of a folder stands for nothing here: importing a module runs it in any case.
    """
    modules = modules_of(package)
    packages = {name for name, path in modules.items() if path.name == "__init__.py"}
    edges = {
        name: {
            target
            for target, _, _ in imports_of(path, package)
            if target in modules and target != name and target not in packages
        }
        for name, path in modules.items()
        if name not in packages
    }
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = low[name] = len(number)
        stack.append(name)
        for target in edges[name]:
            if target not in number:
                visit(target)
            if target in stack:
                low[name] = min(low[name], low[target])
        if low[name] == number[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in edges:
        if name not in number:
            visit(name)
    return found


def oversized(package: Path) -> list[str]:
    """Return a line for each module or folder that is too large."""
    faults = []
    for folder in [package, *(p for p in sorted(package.rglob("*")) if p.is_dir())]:
        files = sorted(folder.glob("*.py"))
        lines = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in files}
        name = folder.relative_to(package.parent).as_posix()
        if len(files) > MOST_FILES:
            faults.append(f"{name}/ has {len(files)} files, more than {MOST_FILES}")
        if sum(lines.values()) > MOST_ROOM_LINES:
            faults.append(f"{name}/ has {sum(lines.values())} lines, more than {MOST_ROOM_LINES}")
        faults += [
            f"{name}/{path.name} has {count} lines, more than {MOST_LINES}"
            for path, count in lines.items()
            if count > MOST_LINES
        ]
    return faults


def task_words(package: Path) -> list[str]:
    """Return a line for each word of one task in a room that all tasks share."""
    return [
        f"{path.relative_to(package).as_posix()}:{number}: {found.group()!r} in {line.strip()!r}"
        for room in SHARED
        for path in sorted((package / room).rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if line.strip() not in KEPT
        and (found := TASK_WORDS.search(line.replace("_", " ").replace("border-box", "")))
    ]


def task_imports(package: Path) -> list[str]:
    """Return a line for each import of one task, or what only it uses, in a shared room."""
    kinds = [p.name for p in (package / "tasks").iterdir() if p.is_dir() and p.name[0] != "_"]
    own = re.compile(rf"{package.name}\.\w+\.({'|'.join(kinds)})(\.|$)")
    return [
        f"{path.relative_to(package).as_posix()}:{line}: {target}"
        for room in SHARED
        for path in sorted((package / room).rglob("*.py"))
        for target, _, line in imports_of(path, package)
        if own.match(target)
    ]


def test_imports_go_down() -> None:
    assert violations(PACKAGE) == []


def test_no_circle_of_imports() -> None:
    assert circles(PACKAGE) == []


def test_no_room_and_no_module_is_too_large() -> None:
    assert oversized(PACKAGE) == []


def test_shared_rooms_know_no_task() -> None:
    assert task_words(PACKAGE) == []
    assert task_imports(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("models/a.py", "from ..data import x", "models must not import data"),
        (
            "data/a.py",
            "def f():\n    from ..models.base import Model",
            "must not import models",
        ),
        ("ops/a.py", "import maskwright.nn.fpn", "ops must not import nn"),
        ("nn/a.py", "from .. import training", "nn must not import training"),
        ("prediction/a.py", "from ..training.train import train", "must not import training"),
        ("tasks/recipe.py", "import torch", "must not import torch"),
        ("nn/a.py", "import timm.models", "timm belongs inside"),
        ("newroom/a.py", "from ..ops import nms", "'newroom' has no floor"),
        ("ops/a.py", "import maskwright", "as a whole"),
    ],
)
def test_violations_are_found(tmp_path: Path, file: str, text: str, message: str) -> None:
    path = tmp_path / "maskwright" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    faults = violations(tmp_path / "maskwright")
    assert len(faults) == 1 and message in faults[0]


def test_circles_sizes_and_words_are_found(tmp_path: Path) -> None:
    package = tmp_path / "maskwright"
    for room in ("training", "tasks/detection"):
        (package / room).mkdir(parents=True)
    (package / "training" / "a.py").write_text("from .b import x\n")
    (package / "training" / "b.py").write_text("def f():\n    from .a import y\n")
    assert circles(package) == [["maskwright.training.a", "maskwright.training.b"]]
    (package / "training" / "c.py").write_text("x = 1\n" * 501)
    assert oversized(package) == ["maskwright/training/c.py has 501 lines, more than 500"]
    (package / "training" / "d.py").write_text("mask_AP = num_boxes\nclass A: ...\nmap = area\n")
    (package / "training" / "e.py").write_text("from ..tasks.detection.task import TASK\n")
    assert [line.split(":")[1] for line in task_words(package)] == ["1", "1"]
    assert len(task_imports(package)) == 2
