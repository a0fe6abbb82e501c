"""What is installed, however it is called where it came from."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from maskwright.terminal import doctor


def test_a_module_from_a_package_of_another_name_is_no_obstacle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    version = importlib.metadata.version

    def without_opencv(name: str) -> str:
        if name.startswith("opencv"):
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without_opencv)
    found = doctor.environment("cpu")
    assert found["torch"] == version("torch")
    assert found.get("cv2", "installed") == "installed"


def test_what_an_extra_of_the_metadata_wants_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metadata of an installation, with an extra that no list in the code knows."""
    info = tmp_path / "maskwright-9.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: maskwright\nVersion: 9.0\n"
        "Provides-Extra: fresh\nProvides-Extra: dev\n"
        "Requires-Dist: numpy>=1.0\n"
        "Requires-Dist: Pillow>=900\n"
        "Requires-Dist: no-such-library>=2; extra == 'fresh'\n"
        "Requires-Dist: pytest>=900; extra == 'fresh'\n"
        "Requires-Dist: pytest>=1; extra == 'fresh' and python_version < '3'\n"
        "Requires-Dist: another-library; extra == 'dev'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = {f.what: f for f in doctor._check_wanted()}
    assert set(found) == {"Pillow", "no-such-library", "pytest"}
    assert found["no-such-library"].mend == 'pip install "maskwright[fresh]"'
    assert "not installed (extra fresh)" in found["no-such-library"].detail
    old = importlib.metadata.version("pytest")
    assert found["pytest"].detail == f"{old} is too old (extra fresh needs >=900)"
    assert found["pytest"].mend == 'pip install --upgrade "maskwright[fresh]"'
    assert found["Pillow"].mend == 'pip install --upgrade "Pillow>=900"'


def test_the_libraries_of_export_are_known() -> None:
    told = {finding.what: finding for finding in doctor.examine()}
    for name in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        assert told[name].state in ("ok", "note")
    assert doctor.environment("cpu")["onnx"] == importlib.metadata.version("onnx")
