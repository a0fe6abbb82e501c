"""The JSON reader against the standard library, with the file cut into pieces of every length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.data.formats.coco import json_stream
from maskwright.data.formats.coco.json_stream import START, NoObject, json_members

LISTS = ("images", "annotations")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.sampled_from([*LISTS, "info", 'a"\\b']), VALUES)


def joined(path: Path) -> dict[str, Any]:
    """Return the object as a whole again."""
    result: dict[str, Any] = {}
    for key, value in json_members(path, LISTS):
        if value is START:
            result[key] = []
        elif key in LISTS and isinstance(result.get(key), list):
            result[key].append(value)
        else:
            result[key] = value
    return result


@pytest.fixture(params=[1, 3, 7, 1 << 22])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(json_stream, "CHUNK", request.param)
    return request.param


@settings(deadline=None, max_examples=60)
@given(content=OBJECTS, indent=st.sampled_from([None, 0, 3]), plain=st.booleans(), data=st.data())
def test_equals_the_standard_library(
    tmp_path_factory: pytest.TempPathFactory,
    content: dict[str, Any],
    indent: int | None,
    plain: bool,
    data: st.DataObject,
) -> None:
    path = tmp_path_factory.mktemp("json") / "x.json"
    text = json.dumps(content, indent=indent, ensure_ascii=plain)
    encoding = data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32-le"]))
    path.write_bytes(text.encode(encoding, "surrogatepass"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "CHUNK", data.draw(st.sampled_from([1, 2, 5, 64])))
        # As text, so that NaN equals NaN.
        assert json.dumps(joined(path)) == json.dumps(json.loads(text))


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_refuses_what_the_standard_library_refuses(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("json") / "x.json"
    text = json.dumps(data.draw(OBJECTS), ensure_ascii=False)
    at = data.draw(st.integers(0, len(text)))
    kept = data.draw(st.integers(at, len(text)))
    text = (
        text[:at]
        + data.draw(st.sampled_from(["", ",", "]", "}", '"', "-", "1", "\\"]))
        + text[kept:]
    )
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        expected = json.loads(path.read_bytes())
    except ValueError:
        expected = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "CHUNK", data.draw(st.sampled_from([1, 2, 5, 64])))
        if isinstance(expected, dict):
            # Of a list that stands twice, both are given here, the last there.
            if all(text.count(json.dumps(key)) < 2 for key in LISTS):
                assert json.dumps(joined(path)) == json.dumps(expected)
        else:
            with pytest.raises(ValueError):
                joined(path)


def test_lists_come_element_by_element(tmp_path: Path, chunk: int) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"images": [1, 23, {"a": [4]}], "info": [5, 6], "annotations": []}')
    assert list(json_members(path, LISTS)) == [
        ("images", START),
        ("images", 1),
        ("images", 23),
        ("images", {"a": [4]}),
        ("info", [5, 6]),
        ("annotations", START),
    ]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"images": [1, 2', "character 16"),
        ('{"images": [1 2]}', "character 14"),
        ('{"images": [tru]}', "character 12"),
        ('{"images" [1]}', "character 10"),
        ('{"images": [1]} x', "character 16"),
        ("{1: 2}", "character 1"),
        ('{"info": "abc', "character 9"),
    ],
)
def test_errors_name_the_place(tmp_path: Path, chunk: int, text: str, place: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"x\.json is no valid JSON \(.*{place}\)"):
        joined(path)


@pytest.mark.parametrize(("text", "kind"), [("[1, 2]", "list"), ("12", "int"), ('"a"', "str")])
def test_what_is_no_object_is_named(tmp_path: Path, chunk: int, text: str, kind: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(NoObject, match=f"^{kind}$"):
        joined(path)
