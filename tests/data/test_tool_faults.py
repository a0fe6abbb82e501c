"""What is wrong with the labels of labelling tools, and what becomes of each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import set_cases
import tool_cases
from faults import Listed, Refused
from tool_cases import lay_files

from maskwright.data import check_data, open_dataset
from maskwright.data.formats.table import TABLE

TOOLS = tool_cases.TOOLS | set_cases.TOOLS
IMAGES = tool_cases.IMAGES | set_cases.IMAGES
CASES = tool_cases.CASES | set_cases.CASES


def lay_tool(root: Path, tool: str) -> Path:
    return lay_files(root, TOOLS[tool], IMAGES[tool])


@pytest.mark.parametrize("tool", TOOLS)
def test_all_is_well_before_anything_is_changed(tool: str, tmp_path: Path) -> None:
    root = lay_tool(tmp_path, tool)
    data = open_dataset(root)
    assert (data.format, data.names, len(data), len(open_dataset(root, "val"))) == (
        tool,
        ["cat", "dog"],
        3,
        1,
    )
    assert data.faults == [] and data.objects_per_class().tolist() == [2, 1]
    assert [data[i].path.name for i in range(3)] == ["a.png", "b.png", "c.png"]
    report = check_data(root)
    assert report.ok and not report.faults
    assert len(open_dataset(root, format=tool)) == 3
    others = {row.format for row in TABLE if row.find and row.format} - {tool}
    with pytest.raises(ValueError, match="is not recognised as format=imagenet"):
        open_dataset(root, format="imagenet")
    assert others


@pytest.mark.parametrize("case", CASES)
def test_every_fault_has_its_outcome(case: str, tmp_path: Path) -> None:
    tool, change, outcome = CASES[case]
    root = lay_tool(tmp_path, tool)
    change(root)
    if isinstance(outcome, Refused):
        with pytest.raises(ValueError, match=f"(?s){outcome.says}") as error:
            open_dataset(root)
        assert str(root) in str(error.value)
        return
    data = open_dataset(root)
    objects = sum(len(data[i].labels) for i in range(len(data)))
    assert (len(data), objects) == (outcome.images, outcome.objects), data.faults
    if not isinstance(outcome, Listed):
        assert data.faults == []
        return
    (fault,) = [one for one in data.faults if one.kind == outcome.kind]
    assert (fault.action, fault.image_id) == (outcome.action, outcome.image)
    assert re.search(f"(?s){outcome.says}", fault.message), fault.message
    assert str(root) in f"{fault.message} {fault.file}", "the file is named"
    if outcome.action == "ignored":
        assert data[0].ignored.any() or data[1].ignored.any()
