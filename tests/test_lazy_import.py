"""`import maskwright` and the help cost nothing: no torch until something needs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import maskwright as mw

HEAVY = "('torch', 'torchvision', 'numpy', 'timm', 'matplotlib', 'PIL')"


def loaded(code: str) -> str:
    """Return which heavy modules a fresh interpreter holds after `code`."""
    script = (
        f"import sys\n{code}\n"
        f"print('loaded', [m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "code",
    [
        "import maskwright; maskwright.__version__; dir(maskwright)",
        "from maskwright.cli import main; assert main(['--help']) == 0",
        "from maskwright.cli import main; assert main(['train', '--help']) == 0",
        "from maskwright.cli import main; assert main(['predict', '--help']) == 0",
        "from maskwright.cli import main; assert main(['predict', 'conff=1']) == 2",
        "from maskwright.cli import main; assert main(['export', '--help']) == 0",
        "from maskwright.cli import main; assert main(['--version']) == 0",
    ],
)
def test_nothing_heavy_is_imported(code: str) -> None:
    assert loaded(code) == "loaded []"


def test_a_photo_is_predicted_without_the_compiler_and_without_timm(tmp_path: Path) -> None:
    Image.new("RGB", (96, 64), "white").save(tmp_path / "white.png")
    code = (
        "import sys, maskwright.models, maskwright.training.train, maskwright as mw\n"
        f"mw.load('nuclei', device='cpu')({str(tmp_path / 'white.png')!r}, imgsz=64)\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    found = loaded(code)
    assert "'torch'" in found
    assert "torchvision" not in found and "timm" not in found


def test_every_public_name_is_there() -> None:
    assert set(mw.__all__) <= set(dir(mw))
    for name in mw.__all__:
        assert getattr(mw, name) is not None
    assert callable(mw.load) and callable(mw.convert) and callable(mw.train)
    assert mw.Detections.__name__ == "Detections"
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        mw.lode  # noqa: B018


def test_names_stay_functions_when_modules_of_that_name_are_imported() -> None:
    code = (
        "import maskwright as mw, maskwright.prediction.predictor, maskwright.converters\n"
        "import maskwright.exporters\n"
        "assert callable(mw.predict) and callable(mw.convert) and callable(mw.val)\n"
        "assert callable(mw.export)"
    )
    assert "torch" in loaded(code)


def test_the_runtime_imports_no_torch() -> None:
    assert loaded("import maskwright.runtime") == "loaded ['numpy']"
