"""What a file says of itself: files written before open, and say the same when written anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maskwright.graphs.spec import from_json, to_json
from maskwright.tasks import get_task
from maskwright.tasks.graph import graph_kind

# Of files of three kinds, as they were written before there were other tasks; one a line.
OLDER = (Path(__file__).parent / "older_descriptions.jsonl").read_text().splitlines()


@pytest.mark.parametrize("text", OLDER)
def test_descriptions_of_older_files_are_read_whole(text: str) -> None:
    spec = from_json(text)
    written, older = json.loads(to_json(spec)), json.loads(text)
    # Rules that came later say of older files that they have none of it.
    assert written["resize"].pop("stretch") is None and written["resize"].pop("corners") is False
    assert written["resize"].pop("fixed_point") is False
    assert written.pop("mask_reach") == 1 and written.pop("channels") is None
    assert written.pop("all_channels") is False and written.pop("extra") == {}
    assert written == older
    assert spec.outputs == json.loads(text)["outputs"]
    assert spec.inputs == ["pixels", "sizes", *(["regions"] if spec.own.regions else [])]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("task", "sing", "says 'sing'"),
        ("precision", "fp8", "says 'fp8'"),
        ("paste_mode", "glue", "says 'glue'"),
        ("size", [32, 32], r"resizes to \(64, 96\), not \(32, 32\)"),
        ("max_det", 10**9, "impossible numbers"),
        ("num_keypoints", -1, "impossible numbers"),
        ("regions", {"slots": 0, "source": "x"}, "impossible sizes"),
        ("int8", {"images": 1}, "incomplete"),
    ],
)
def test_a_description_that_cannot_be_is_refused(field: str, value: object, message: str) -> None:
    data = json.loads(OLDER[0])
    with pytest.raises(ValueError, match=message):
        from_json(json.dumps({**data, field: value}))


def test_models_whose_task_has_no_graphs_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(type(get_task("localize")), "graph", None)
    with pytest.raises(ValueError, match=r"models that .* cannot be exported"):
        graph_kind("localize")
