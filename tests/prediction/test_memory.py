"""Long runs do not grow: figures of `benchmarks/memory.py`, each in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/proc/self/status").is_file(), reason="memory is read from /proc, as on Linux"
    ),
]


@pytest.mark.parametrize(
    ("what", "count", "most"),
    [("predictions", 10_000, 30), ("steps", 1000, 30), ("epochs", 20, 60)],
)
def test_memory_does_not_grow(what: str, count: int, most: float) -> None:
    """The bounds are in MB; the loader's is the sum over five processes."""
    script = ROOT / "benchmarks" / "memory.py"
    done = subprocess.run(
        [sys.executable, str(script), f"{what}={count}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    growth = re.search(rf": {count}, .*growth (-?[\d.]+) MB", done.stdout)
    assert growth, done.stdout
    assert float(growth[1]) < most
