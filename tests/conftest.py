"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Commands that tests run in this process would change how its C library allocates, for good.
os.environ["MASKWRIGHT_KEEP_MEMORY"] = "0"

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with the real data sets, which live beside the checkout and not in it."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("the real data sets are not beside this checkout (../shared/data)")
    return path


@pytest.fixture(scope="session")
def nuclei_mini() -> Path:
    """Folder of the mini data set of the repository (nuclei, CC0)."""
    return ROOT / "examples" / "nuclei_mini"
