"""Label images as programs write them to TIFF, against the numbers that were written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from maskwright.data.pixels.label_image import label_size, load_labels

LABELS = np.zeros((40, 50), np.int64)
LABELS[5:10, 5:20], LABELS[20:30, 5:20], LABELS[30:35] = 1, 7, 300


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
@pytest.mark.parametrize(
    "options",
    [{}, {"byteorder": ">"}, {"compression": "zlib", "tile": (16, 16)}, {"bigtiff": True},
     {"photometric": "miniswhite"}],
)  # fmt: skip
def test_numbers_of_any_type(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    written = (LABELS % 100 if kind.endswith("1") else LABELS).astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", written, **options)
    stored, palette = load_labels(tmp_path / "a.tif")
    assert palette is None and stored.dtype.kind in "iu"
    np.testing.assert_array_equal(stored.astype(np.int64), written.astype(np.int64))
    assert label_size(tmp_path / "a.tif") == (40, 50)


def test_what_is_true_is_255(tmp_path: Path) -> None:
    """Tifffile writes these with white as zero."""
    tifffile.imwrite(tmp_path / "a.tif", LABELS > 0)
    stored, _ = load_labels(tmp_path / "a.tif")
    np.testing.assert_array_equal(stored, (LABELS > 0) * np.uint8(255))


def test_what_is_no_label_map_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.stack([LABELS == 1, LABELS == 7]).astype(np.uint8))
    with pytest.raises(ValueError, match=r"a\.tif has 2 pages.*a file of its own"):
        load_labels(tmp_path / "a.tif")
    for value in (0.5, np.nan, np.inf):
        tifffile.imwrite(tmp_path / "b.tif", np.full((4, 5), value, np.float32))
        with pytest.raises(ValueError, match=r"b\.tif has samples that are no whole numbers"):
            load_labels(tmp_path / "b.tif")
