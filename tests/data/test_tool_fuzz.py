"""Damaged labels of every tool: a data set or a ValueError that names them, never anything else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import set_cases
import tool_cases
from test_fuzz import mutations

from maskwright.data import open_dataset

pytestmark = pytest.mark.slow
TOOLS = tool_cases.TOOLS | set_cases.TOOLS
IMAGES = tool_cases.IMAGES | set_cases.IMAGES


@pytest.mark.parametrize("tool", TOOLS)
def test_damaged_labels(tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKWRIGHT_MAX_PIXELS", "1000000")  # what is allowed is allocated
    root = tool_cases.lay_files(tmp_path, TOOLS[tool], IMAGES[tool])
    outcomes = {True: 0, False: 0}
    for seed, name in enumerate(TOOLS[tool]):
        file = root / name
        whole = file.read_bytes()
        for data in mutations(whole, 150, seed):
            file.write_bytes(data)
            try:
                dataset = open_dataset(root)
            except ValueError as error:
                assert str(root) in str(error)
                outcomes[False] += 1
                continue
            outcomes[True] += 1
            for index in range(len(dataset)):
                boxes = dataset[index].boxes
                assert np.isfinite(boxes).all()
                for k in range(len(boxes)):
                    dataset.mask(index, k)
        file.write_bytes(whole)
    assert outcomes[True]
