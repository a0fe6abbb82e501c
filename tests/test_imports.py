"""The layers import one way only, and heavy libraries stay inside the functions that use them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Each layer and what it may import beside itself. A layer is a folder or a module.
BASE = {
    "errors",
    "files",
    "paths",
    "processes",
    "structures",
    "ops",
    "runs",
    "text",
    "window",
    "_version",
}
PARTS = BASE | {"nn", "models", "proposals", "data", "metrics", "drawing"}
ALLOWED: dict[str, set[str]] = {
    "_version": set(),
    "errors": set(),
    "paths": set(),
    "runs": {"errors", "files", "paths"},
    "text": set(),
    "files": {"errors"},
    "processes": set(),
    "structures": {"errors"},
    "window": {"errors"},
    "ops": {"errors", "structures"},
    "nn": {"errors", "structures", "ops"},
    "models": BASE | {"nn"},
    "converters": BASE | {"nn", "models"},
    "exporters": BASE | {"nn", "models"},
    "proposals": BASE,
    "metrics": BASE,
    "drawing": BASE | {"metrics"},
    "data": BASE | {"proposals", "drawing"},
    "engine": PARTS | {"converters", "exporters"},
    "recipes": BASE | {"engine"},
    "hub": PARTS | {"converters", "exporters", "engine"},
    "runtime": set(),  # predicts without torch, and stands alone
    "weights": set(),
    "signatures": {"paths"},
    "tokens": {"commands", "errors", "signatures"},
    "commands": PARTS | {"converters", "exporters", "engine", "recipes", "hub", "signatures"},
    "cli": {
        "_version",
        "commands",
        "engine",
        "errors",
        "files",
        "processes",
        "signatures",
        "tokens",
    },
    "demo": PARTS | {"engine", "recipes", "hub"},
}
# `hub` returns what `engine` defines, while `val` and `train` find their model through `hub`:
# this one way back is open inside functions, never when a module is loaded.
INSIDE_FUNCTIONS: dict[str, set[str]] = {"engine": {"hub"}}
HEAVY = {
    *("torchvision", "timm", "matplotlib", "hotcoco", "pycocotools", "rich", "lightning_fabric"),
    *("cv2", "sklearn"),
}
WITHOUT_TORCH = (
    *(
        "__init__.py",
        "__main__.py",
        "cli.py",
        "commands.py",
        "errors.py",
        "signatures.py",
        "text.py",
    ),
    *("paths.py", "runs.py", "tokens.py", "window.py"),
    *("files.py", "processes.py", "engine/interrupt.py"),
    *("engine/console.py", "engine/recipe.py"),
)


def imports_of(path: Path, package: Path) -> list[tuple[str, bool, int]]:
    """Return (dotted module, at module level, line) of each import that runs; relative resolved."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: list[tuple[str, bool, int]] = []

    def visit(node: ast.AST, top: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import):
                found.extend((alias.name, top, child.lineno) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    parents = path.relative_to(package.parent).parent.parts
                    parents = parents[: len(parents) - child.level + 1]
                    base = ".".join((*parents, base) if base else parents)
                if base == package.name:  # `from . import x`: x is the module
                    found.extend((f"{base}.{a.name}", top, child.lineno) for a in child.names)
                else:
                    found.append((base, top, child.lineno))
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            visit(child, top and not function)

    visit(tree, True)
    return found


def violations(package: Path) -> list[str]:
    """Return a line for each import of the package that breaks a rule."""
    faults = []
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        layer = name.split("/")[0].removesuffix(".py")
        for module, top, line in imports_of(path, package):
            where = f"{name}:{line}: "
            root, *rest = module.split(".")
            if root == package.name and rest and layer not in ("__init__", "__main__"):
                if layer not in ALLOWED:
                    faults.append(f"{where}the layer {layer!r} has no rule")
                    continue
                allowed = ALLOWED[layer] | {layer}
                if not top:
                    allowed = allowed | INSIDE_FUNCTIONS.get(layer, set())
                if rest[0] not in allowed and not rest[0].startswith("__"):
                    faults.append(f"{where}{layer} must not import {rest[0]}")
            elif root == package.name and not rest and layer not in ("__init__", "__main__", "cli"):
                faults.append(f"{where}{layer} must not import the package as a whole")
            if top and root in HEAVY:
                faults.append(f"{where}{root} belongs inside the function that uses it")
            if top and root == "torch" and name in WITHOUT_TORCH:
                faults.append(f"{where}this module must not import torch when it is loaded")
    return faults


def test_layers_import_one_way() -> None:
    assert violations(ROOT / "maskwright") == []


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("models/a.py", "from ..data import x", "models must not import data"),
        ("models/a.py", "from maskwright.data.coco import x", "models must not import data"),
        ("data/a.py", "def f():\n    from ..models.base import Detector", "data must not import"),
        ("ops/a.py", "import maskwright.nn.fpn", "ops must not import nn"),
        ("nn/a.py", "from .. import engine", "nn must not import engine"),
        ("engine/a.py", "from ..hub import load", "engine must not import hub"),
        ("engine/a.py", "from .. import cli", "engine must not import cli"),
        ("engine/recipe.py", "import torch", "must not import torch"),
        ("nn/a.py", "import timm.models", "timm belongs inside"),
        ("newlayer/a.py", "from ..ops import nms", "'newlayer' has no rule"),
        ("ops/a.py", "import maskwright", "as a whole"),
    ],
)
def test_violations_are_found(tmp_path: Path, file: str, text: str, message: str) -> None:
    path = tmp_path / "maskwright" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    faults = violations(tmp_path / "maskwright")
    assert len(faults) == 1 and message in faults[0]


def test_lawful_imports_pass(tmp_path: Path) -> None:
    package = tmp_path / "maskwright"
    (package / "engine").mkdir(parents=True)
    (package / "engine" / "a.py").write_text(
        "from __future__ import annotations\n"
        "from typing import TYPE_CHECKING\n"
        "import torch\n"
        "from ..models.base import Detector\n"
        "from . import b\n"
        "if TYPE_CHECKING:\n    from ..cli import main\n"
        "def f():\n    import timm\n    from ..hub import load\n"
    )
    assert violations(package) == []
