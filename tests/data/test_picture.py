"""Images read by window: every layout of TIFF gives what was written, and no more is decoded."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from maskwright.data.pixels.images import load_samples
from maskwright.data.pixels.picture import open_picture

RNG = np.random.default_rng(7)
H, W = 70, 83
WINDOWS = [(0, 0, H, W), (0, 0, 1, 1), (13, 20, 40, 83), (69, 0, 70, 83), (30, 5, 33, 80)]
GREY = RNG.integers(0, 2**16, (H, W), np.uint16)
FIVE = RNG.integers(0, 2**16, (H, W, 5), np.uint16)
RGB = RNG.integers(0, 256, (H, W, 3), np.uint8)
LAYOUTS: list[dict[str, Any]] = [
    {},
    {"byteorder": ">"},
    {"rowsperstrip": 7},
    {"tile": (32, 16)},
    {"compression": "zlib", "rowsperstrip": 9},
    {"compression": "zlib", "predictor": True, "tile": (16, 48)},
    {"compression": "lzma", "tile": (32, 32), "byteorder": ">", "bigtiff": True},
    {"compression": "lzw", "predictor": True, "rowsperstrip": 9},
    {"compression": "zstd", "tile": (32, 48)},
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("kind", ["u1", "u2", "i4", "f4"])
def test_windows_equal_the_written_array(layout: dict[str, Any], kind: str, tmp_path: Path) -> None:
    if layout.get("predictor") and kind == "f4":
        pytest.skip("a predictor of whole numbers")
    file = tmp_path / "a.tif"
    for samples, options in (
        (GREY, {}),
        (FIVE, {"photometric": "minisblack", "planarconfig": "contig"}),
        (FIVE, {"photometric": "minisblack", "planarconfig": "separate"}),
    ):
        values = samples.astype(kind)
        apart = options.get("planarconfig") == "separate"
        stored = np.ascontiguousarray(values.transpose(2, 0, 1)) if apart else values
        tifffile.imwrite(file, stored, **options, **layout)
        with open_picture(file) as picture:
            assert picture.size == (H, W) and picture.by_window
            assert picture.dtype == values.dtype and picture.name == str(file)
            assert picture.channels == (5 if values.ndim == 3 else 1)
            for top, left, bottom, right in WINDOWS:
                found = picture.read(top, left, bottom, right)
                assert found.dtype == values.dtype and found.dtype.isnative
                np.testing.assert_array_equal(found, values[top:bottom, left:right])
        if values.ndim == 3:
            with open_picture(file, channels=(4, 0, 2)) as picture:
                window = picture.read(13, 20, 40, 83)
                np.testing.assert_array_equal(window, values[13:40, 20:83, [4, 0, 2]])
            with pytest.raises(ValueError, match=r"5 channels.*from 0.*channels=1,5"):
                open_picture(file, channels=(1, 5))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_windows_of_turned_images(orientation: int) -> None:
    stream = io.BytesIO()
    tag = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(stream, RGB, photometric="rgb", tile=(16, 16), extratags=tag)
    with Image.open(stream) as image:
        from PIL import ImageOps

        upright = np.array(ImageOps.exif_transpose(image))
    with open_picture(stream.getvalue()) as picture:
        assert picture.size == upright.shape[:2]
        np.testing.assert_array_equal(picture.whole(), upright)
        np.testing.assert_array_equal(picture.read(11, 3, 60, 47), upright[11:60, 3:47])


def test_what_pillow_decodes_is_kept_whole(tmp_path: Path) -> None:
    for name, samples in (("a.png", RGB), ("b.png", GREY), ("c.tif", RGB)):
        image = Image.fromarray(samples)
        # LZW is what tifffile does not decode without imagecodecs.
        image.save(tmp_path / name, **({"compression": "tiff_lzw"} if name == "c.tif" else {}))
        with open_picture(tmp_path / name) as picture:
            assert not picture.by_window or name == "c.tif"
            np.testing.assert_array_equal(picture.whole(), samples)
            np.testing.assert_array_equal(picture.read(3, 4, 9, 80), samples[3:9, 4:80])
    with open_picture(GREY) as picture:
        np.testing.assert_array_equal(picture.read(3, 4, 9, 80), GREY[3:9, 4:80])
        with pytest.raises(ValueError, match=r"70 rows and 83 columns.*does not lie in it"):
            picture.read(0, 0, 71, 3)


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "jpeg", "subsampling": (2, 2)},  # as slide scanners write
        {"compression": "jpeg", "photometric": "rgb"},
        {"compression": "webp"},
        {"compression": "jpeg2000"},
    ],
    ids=str,
)
def test_windows_of_codecs_for_photos(options: dict[str, Any], tmp_path: Path) -> None:
    """They may change values: what counts is what libtiff, or else tifffile, decodes at once."""
    smooth = np.asarray(Image.fromarray(RGB).resize((W * 2, H * 2)))
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, smooth, tile=(64, 32), **{"photometric": "rgb", **options})
    expected = tifffile.imread(file)
    if options["compression"] == "jpeg":
        with Image.open(file) as image:
            apart = np.abs(expected.astype(int) - np.asarray(image.convert("RGB")))
        assert apart.mean() < 1
    assert np.abs(expected.astype(int) - smooth).mean() < 30
    with open_picture(file) as picture:
        assert picture.by_window and picture.channels == 3
        np.testing.assert_array_equal(picture.whole(), expected)
        np.testing.assert_array_equal(picture.read(13, 20, 131, 99), expected[13:131, 20:99])


def test_memory_is_bounded_by_the_window(tmp_path: Path) -> None:
    """A window of one thousandth of the image takes a few of its own sizes, and a tile's."""
    side = 4096
    codecs = [{"tile": (256, 256), "compression": name} for name in ("zlib", "lzw", "jpeg")]
    for options in ({}, *codecs, {"tile": (128, 128)}):
        file = tmp_path / "large.tif"
        with tifffile.TiffWriter(file) as out:
            out.write(np.zeros((side, side, 3), np.uint8), photometric="rgb", **options)
        open_picture(file).close()  # imports
        tracemalloc.start()
        with open_picture(file) as picture:
            picture.read(1000, 2000, 1128, 2128)
            picture.read(3000, 100, 3128, 228)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 16 * 256 * 256 * 3 < side * side * 3 / 15


def test_a_window_is_read_beyond_the_limit_of_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", tile=(16, 16))
    monkeypatch.setenv("MASKWRIGHT_MAX_PIXELS", "1000")
    with open_picture(tmp_path / "a.tif") as picture:
        np.testing.assert_array_equal(picture.read(3, 4, 20, 30), RGB[3:20, 4:30])
        with pytest.raises(ValueError, match=r"a\.tif is refused.*1000"):
            picture.whole()
    # One strip can only be decoded at once.
    tifffile.imwrite(tmp_path / "b.tif", RGB, photometric="rgb", compression="zlib", rowsperstrip=H)
    with pytest.raises(ValueError, match=r"b\.tif is refused.*1000"):
        open_picture(tmp_path / "b.tif")


def test_reduced_copies_are_no_pages(tmp_path: Path) -> None:
    """Of a pyramid, in sub-files as OME has it or in pages as GDAL, the full level is read."""
    for sub in (True, False):
        with tifffile.TiffWriter(tmp_path / "a.tif") as out:
            out.write(RGB, photometric="rgb", tile=(16, 16), subifds=1 if sub else 0)
            out.write(RGB[::2, ::2], photometric="rgb", tile=(16, 16), subfiletype=1)
        with open_picture(tmp_path / "a.tif") as picture:
            np.testing.assert_array_equal(picture.whole(), RGB)
        with pytest.raises(ValueError, match=r"one page.*no page=1"):
            open_picture(tmp_path / "a.tif", page=1)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_damaged_files_are_named(layout: dict[str, Any], tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY, **layout)
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(ValueError, match=r"a\.tif"):
        load_samples(tmp_path / "a.tif")


def test_windows_equal_rasterio(tmp_path: Path) -> None:
    """GDAL writes sparse files and lets bands interleave by pixel or by band."""
    rasterio = pytest.importorskip("rasterio")
    from rasterio.windows import Window

    for interleave in ("pixel", "band"):
        options = {
            "driver": "GTiff", "width": 300, "height": 200, "count": 5, "dtype": "uint16",
            "tiled": True, "blockxsize": 64, "blockysize": 64, "interleave": interleave,
            "sparse_ok": True, "nodata": 7, "compress": "deflate", "predictor": 2,
        }  # fmt: skip
        file = tmp_path / f"{interleave}.tif"
        values = RNG.integers(8, 2**16, (5, 90, 110), np.uint16)
        transform = rasterio.transform.from_origin(500_000, 5_000_000, 0.5, 0.5)
        with rasterio.open(file, "w", **options, transform=transform, crs="EPSG:32633") as out:
            out.write(values, window=Window(128, 64, 110, 90))
        with rasterio.open(file) as dataset, open_picture(file) as picture:
            assert picture.channels == 5 and picture.by_window
            for top, left, bottom, right in ((0, 0, 200, 300), (60, 100, 190, 290), (0, 0, 9, 9)):
                window = Window(left, top, right - left, bottom - top)
                expected = dataset.read(window=window, masked=True).transpose(1, 2, 0)
                expected = expected.astype(np.float32).filled(np.nan)  # where its nodata stands
                np.testing.assert_array_equal(picture.read(top, left, bottom, right), expected)
