"""Recorded outputs of pydensecrf and of a CRF-RNN port: small ones here, the others in ../shared.

`crf/golden/index.json` says how each was made; the pictures are crops of nuclei (CC0) or drawn.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

HERE = Path(__file__).parent / "crf" / "golden"
BESIDE = Path(__file__).resolve().parents[2] / "shared" / "golden" / "densecrf"
INDEX = json.loads((HERE / "index.json").read_text(encoding="utf-8"))


def arrays(name: str) -> dict[str, np.ndarray]:
    """Return the arrays of a file, or skip the test where it is not."""
    path = next((p for p in (HERE / name, BESIDE / name) if p.is_file()), None)
    if path is None:
        pytest.skip(f"{name} is not beside this checkout (../shared/golden/densecrf)")
    return load_file(path)


def part(name: str, case: str) -> dict[str, np.ndarray]:
    """Return the arrays of one case in a file of several, or skip the test where it is not."""
    found = arrays(name)
    if not any(key.startswith(f"{case}.") for key in found):
        found = load_file(BESIDE / name) if (BESIDE / name).is_file() else {}
    own = {key[len(case) + 1 :]: v for key, v in found.items() if key.startswith(f"{case}.")}
    return own or pytest.skip(f"{case} of {name} is not beside this checkout")


def options(case: str) -> dict[str, Any]:
    """Return what `dense_crf` is called with for a case."""
    entry = INDEX["crf"][case]
    params = entry["params"]
    kernels = {
        "gaussian": [params.get(key) for key in ("sxy_gauss", "compat_gauss")],
        "bilateral": [params.get(key) for key in ("sxy_bilateral", "srgb", "compat_bilateral")],
    }
    chosen = {name: None if kernel[0] is None else kernel for name, kernel in kernels.items()}
    return {"iterations": entry["iterations"], "normalisation": entry["normalisation"], **chosen}
