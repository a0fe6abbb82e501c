"""What is installed, however it is called where it came from."""

from __future__ import annotations

import importlib.metadata

import pytest

from maskwright.engine import doctor


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
