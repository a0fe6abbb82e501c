"""Damaged files of labelled images end in a ValueError that names them, never in another error."""

from __future__ import annotations

import gzip
import pickle
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maskwright.data import open_dataset
from maskwright.data.formats.imagenet import read_synsets

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 3072), np.uint8)
BATCH = pickle.dumps({"data": PIXELS, "labels": [3, 1]}, 2)
NAMES = pickle.dumps({"label_names": list("abcdefghij")})
IDX = struct.pack(">4I", 0x0803, 2, 4, 4) + bytes(32)
TABLE = "path,label,split,group,x1,y1,x2,y2\na.png,x;y,train,g,1,1,5,5\na.png,x,val,,,,,\n"
# Name of the damaged file, its content, and what lies beside it.
FILES: dict[str, tuple[str, bytes, dict[str, bytes]]] = {
    "pickle": ("data_batch_1", BATCH, {}),
    "names": (
        "batches.meta",
        pickle.dumps({"label_names": list("abcdefghij")}),
        {"data_batch_1": BATCH},
    ),
    "images": (
        "train-images-idx3-ubyte",
        IDX,
        {"train-labels-idx1-ubyte": struct.pack(">2I", 0x0801, 2) + b"\1\2"},
    ),
    "packed": (
        "train-images-idx3-ubyte.gz",
        gzip.compress(IDX),
        {"train-labels-idx1-ubyte": struct.pack(">2I", 0x0801, 2) + b"\1\2"},
    ),
    "labels": (
        "train-labels-idx1-ubyte",
        struct.pack(">2I", 0x0801, 2) + b"\1\2",
        {"train-images-idx3-ubyte": IDX},
    ),
    "table": ("labels.csv", TABLE.encode(), {}),
}


def damaged(content: bytes, places: list[tuple[int, int]], cut: int) -> bytes:
    changed = bytearray(content)
    for place, value in places:
        changed[place % len(changed)] = value
    return bytes(changed[: len(changed) - cut % len(changed)])


@pytest.mark.parametrize("kind", FILES)
@settings(max_examples=60, deadline=None)
@given(
    places=st.lists(st.tuples(st.integers(0, 10**5), st.integers(0, 255)), max_size=4),
    cut=st.one_of(st.just(0), st.integers(0, 10**5)),
)
def test_damage_is_a_value_error(kind: str, places: list[tuple[int, int]], cut: int) -> None:
    name, content, others = FILES[kind]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        Image.new("RGB", (8, 8)).save(root / "a.png")
        for other, text in others.items():
            (root / other).write_bytes(text)
        (root / name).write_bytes(damaged(content, places, cut))
        for records in ("labels", "objects"):
            try:
                data = open_dataset(root, records=records)  # type: ignore[arg-type]
            except ValueError as error:
                assert str(root) in str(error)
            else:
                assert data.image(0).dtype == np.uint8


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_no_devkit(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "meta.mat"
        file.write_bytes(b"\0" * 128 + content)
        with pytest.raises(ValueError, match=r"meta\.mat"):
            read_synsets(file)
