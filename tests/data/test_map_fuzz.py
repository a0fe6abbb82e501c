"""Broken files beside and in label maps: a ValueError that names the file, never anything else."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from map_files import numbers, photo, save
from PIL import Image

from maskwright.data import open_dataset
from maskwright.data.formats.maps.classes import read_table
from maskwright.data.pixels.label_image import label_size, load_labels

TABLES = {
    "classes.txt": "road\nsky\n__ignore__\n",
    "labelmap.txt": "# label:color_rgb:parts:actions\nroad:1,2,3::\nsky:4,5,6::\n",
    "class_dict.csv": 'name,r,g,b\nroad,1,2,3\n"sky, blue",4,5,6\n',
    "_classes.csv": "Pixel Value, Class\n0, road\n1, sky\n",
    "data.yaml": "names: {0: road, 1: sky}\nignore: [3]\n",
}
QUIET = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def broken(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes of a file with some replaced, left out or put in."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        until = at + draw(st.integers(0, 12))
        content = content[:at] + draw(st.binary(max_size=6)) + content[until:]
    return content


@pytest.mark.parametrize("name", TABLES)
@QUIET
@given(data=st.data())
def test_files_of_classes(name: str, data: st.DataObject, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(data.draw(broken(TABLES[name].encode())))
    try:
        table = read_table(file)
    except ValueError as error:
        assert name in str(error)
    else:
        assert table is None or len(set(table.names)) == len(table.names) > 0


def png() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(numbers(0, 1, 255)).save(stream, "PNG")
    return stream.getvalue()


@QUIET
@given(data=st.data())
def test_label_images(data: st.DataObject, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(data.draw(broken(png())))
    for read in (load_labels, label_size):
        try:
            read(file)
        except ValueError as error:
            assert "a.png" in str(error)


SEGMENTS = {
    "images": [{"id": 1, "file_name": "a.jpg"}],
    "annotations": [
        {"image_id": 1, "file_name": "a.png", "segments_info": [{"id": 5, "category_id": 1}]}
    ],
    "categories": [{"id": 1, "name": "road"}, {"id": 2, "name": "sky"}],
}


@QUIET
@given(data=st.data())
def test_panoptic_json(data: st.DataObject, tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    ids = np.zeros((10, 12, 3), np.uint8)
    ids[..., 0] = 5
    save(tmp_path / "panoptic_train/a.png", ids)
    file = tmp_path / "panoptic_train.json"
    text = json.dumps(SEGMENTS)
    values = st.sampled_from(
        ["[]", "{}", '"../../a.jpg"', '"/etc/a"', "null", "1e9", "-1", "9" * 30]
    )
    for _ in range(data.draw(st.integers(0, 2))):
        found = data.draw(st.sampled_from(['"a.jpg"', '"a.png"', "1", "5", '"road"', "2"]))
        text = text.replace(found, data.draw(values), data.draw(st.integers(1, 2)))
    file.write_text(text)
    try:
        made = open_dataset(file, records="maps")
        made.label_map(0)
    except ValueError as error:
        assert str(tmp_path) in str(error)
    else:
        assert made[0].path.is_relative_to(tmp_path)
