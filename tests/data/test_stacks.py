"""Files of several pages: what is an image and what is a channel, against what was written."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from maskwright.channels import ALL_PAGES, parse_channels, parse_one_page, parse_page
from maskwright.data.pixels.images import image_header, load_samples
from maskwright.data.pixels.picture import open_picture

RNG = np.random.default_rng(11)
T, Z, C, H, W = 2, 3, 4, 20, 25
FULL = RNG.integers(0, 2**16, (T, Z, C, H, W), np.uint16)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.ome.tif", {"metadata": {"axes": "TZCYX"}, "photometric": "minisblack"}),
        ("a.ome.tif", {"metadata": {"axes": "TZCYX"}, "photometric": "minisblack", "tile": (16, 16),
                       "compression": "zlib"}),
        ("a.tif", {"imagej": True, "metadata": {"axes": "TZCYX"}}),
        ("a.tif", {"imagej": True, "metadata": {"axes": "TZCYX"}, "bigtiff": False}),
    ],
)  # fmt: skip
def test_declared_axes(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    """T and Z are pages, the last one first; C are the channels of each."""
    file = tmp_path / name
    tifffile.imwrite(file, FULL, **options)
    header = image_header(file)
    assert (header.frames, header.channels, header.size) == (T * Z, C, (H, W))
    for page in range(T * Z):
        expected = FULL[page // Z, page % Z].transpose(1, 2, 0)
        assert header.places[page] == {"T": page // Z, "Z": page % Z}
        with open_picture(file, page) as picture:
            assert picture.axes == header.places[page]
            assert picture.channels == C and picture.by_window and not picture.said
            np.testing.assert_array_equal(picture.whole(), expected)
            np.testing.assert_array_equal(picture.read(3, 5, 9, 25), expected[3:9, 5:25])
        with open_picture(file, page, channels=(3, 1)) as picture:
            np.testing.assert_array_equal(picture.whole(), expected[..., [3, 1]])
    with pytest.raises(ValueError, match=rf"{name}.*6 pages.*no page=6"):
        open_picture(file, 6)
    with pytest.raises(ValueError, match=rf"{name}.*4 channels.*channels=4"):
        open_picture(file, channels=(4,))


def test_samples_and_channels_of_ome(tmp_path: Path) -> None:
    """Channels of several samples each, as cameras for colours write them."""
    file = tmp_path / "a.ome.tif"
    values = RNG.integers(0, 256, (2, H, W, 3), np.uint8)
    tifffile.imwrite(file, values, photometric="rgb", metadata={"axes": "CYXS"})
    with open_picture(file) as picture:
        expected = np.concatenate(list(values), axis=2)
        np.testing.assert_array_equal(picture.whole(), expected)
    tifffile.imwrite(file, values, photometric="rgb", metadata={"axes": "ZYXS"})
    np.testing.assert_array_equal(load_samples(file, page=1), values[1])


def test_channels_that_are_stored_as_times(tmp_path: Path) -> None:
    file = tmp_path / "a.ome.tif"
    tifffile.imwrite(file, FULL[0, 0], photometric="minisblack", metadata={"axes": "TYX"})
    assert image_header(file).frames == C
    np.testing.assert_array_equal(load_samples(file, page=2), FULL[0, 0, 2])
    with open_picture(file, channels=(3, 0)) as picture:
        assert "axis T of 4 is taken as channels" in picture.said
        np.testing.assert_array_equal(picture.whole(), FULL[0, 0, [3, 0]].transpose(1, 2, 0))
    # Two axes are longer: nothing says which one would be the channels.
    tifffile.imwrite(file, FULL[:, 0], photometric="minisblack", metadata={"axes": "TZYX"})
    with pytest.raises(ValueError, match="one channel"):
        open_picture(file, channels=(1,))


@pytest.mark.parametrize("options", [{}, {"metadata": None}], ids=["tifffile's", "plain"])
def test_axes_that_nobody_declared(options: dict[str, Any], tmp_path: Path) -> None:
    """Pages are images, and channels only where more are asked for than a page has."""
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, FULL[0, 0], photometric="minisblack", **options)
    assert image_header(file).frames == C
    for page in range(C):
        np.testing.assert_array_equal(load_samples(file, page=page), FULL[0, 0, page])
    np.testing.assert_array_equal(load_samples(file), FULL[0, 0, 0])
    with open_picture(file, channels=(2, 1, 0)) as picture:
        assert "4 pages, whose axes nothing declares, are taken as channels" in picture.said
        np.testing.assert_array_equal(picture.whole(), FULL[0, 0, [2, 1, 0]].transpose(1, 2, 0))
    np.testing.assert_array_equal(load_samples(file, channels=(0,)), FULL[0, 0, 0][..., None])
    with pytest.raises(
        ValueError,
        match=r"of 4 pages with one channel each, as one image has 4 channels, .*channels=4",
    ):
        open_picture(file, channels=(4,))


def test_pages_of_different_sizes(tmp_path: Path) -> None:
    file = tmp_path / "a.tif"
    pages = [FULL[0, 0, 0], FULL[0, 0, 1, :9, :7], FULL[0, 0, 2]]
    with tifffile.TiffWriter(file) as out:
        for page in pages:
            out.write(page, photometric="minisblack", metadata=None)
    assert image_header(file).frames == 3
    for number, page in enumerate(pages):
        np.testing.assert_array_equal(load_samples(file, page=number), page)
    with pytest.raises(ValueError, match="one channel"):  # they cannot be one image
        open_picture(file, channels=(0, 1))


@pytest.mark.parametrize("kind", ["declared", "ome", "plain", "lzw"])
def test_a_file_that_is_cut_off(kind: str, tmp_path: Path) -> None:
    """Each page that is left is read as it was, and that more were there is said."""
    whole, cut = tmp_path / "whole.tif", tmp_path / "cut.tif"
    pages = RNG.integers(0, 256, (6, H, W, 3), np.uint8)
    if kind == "lzw":
        images = [Image.fromarray(page) for page in pages]
        images[0].save(whole, save_all=True, append_images=images[1:], compression="tiff_lzw")
    elif kind == "plain":
        with tifffile.TiffWriter(whole) as out:
            for page in pages:
                out.write(page, photometric="rgb", metadata=None)
    else:
        axes = {"axes": "ZYXS"} if kind == "ome" else {}
        tifffile.imwrite(whole, pages, photometric="rgb", ome=kind == "ome", metadata=axes)
    data = whole.read_bytes()
    left = {"plain": 3, "lzw": 2}.get(kind, 1)  # others write the list behind all pixels
    for size, count in ((len(data) * 4 // 9, left), (len(data) - 1, None), (len(data), 6)):
        cut.write_bytes(data[:size])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with open_picture(cut) as picture:
                np.testing.assert_array_equal(picture.whole(), pages[0])
                assert count is None or image_header(cut).frames == picture.pages == count
                if count == 6:
                    assert not picture.said
                elif count is not None:
                    what = "one page is left" if count == 1 else f"{count} pages are left"
                    assert f"cut off, only {what}" in picture.said
        if count not in (None, 6):
            with pytest.raises(ValueError, match=r"cut\.tif has .*no page=5"):
                load_samples(cut, page=5)


def test_nothing_is_logged_of_many_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a program that does not set up logging."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    values = RNG.integers(0, 256, (H, W, 7), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", planarconfig="contig")
    np.testing.assert_array_equal(load_samples(tmp_path / "a.tif"), values)
    assert image_header(tmp_path / "a.tif").channels == 7 and not capsys.readouterr().err


def test_frames_of_an_animation_and_alpha(tmp_path: Path) -> None:
    frames = [Image.fromarray(RNG.integers(0, 256, (H, W), np.uint8)) for _ in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    for number in range(3):
        with Image.open(tmp_path / "a.gif") as image:
            image.seek(number)
            expected = np.array(image.convert("RGB"))
        np.testing.assert_array_equal(load_samples(tmp_path / "a.gif", page=number), expected)
    with pytest.raises(ValueError, match=r"3 pages.*page=3"):
        load_samples(tmp_path / "a.gif", page=3)
    rgba = RNG.integers(0, 256, (H, W, 4), np.uint8)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_samples(tmp_path / "a.png"), rgba[..., :3])
    for source in (tmp_path / "a.png", rgba):
        found = load_samples(source, channels=(3, 1))
        np.testing.assert_array_equal(found, rgba[..., [3, 1]])


def test_broken_bytes_are_an_error_of_their_own(tmp_path: Path) -> None:
    """Whatever stands in tags, offsets and pixels: it is read, or refused by name."""
    for number in range(120):
        rng = np.random.default_rng(number)
        stream = io.BytesIO()
        options: list[dict[str, Any]] = [
            {"photometric": "minisblack", "metadata": {"axes": "CYX"}, "ome": True},
            {"imagej": True, "metadata": {"axes": "ZYX"}},
            {"photometric": "minisblack", "tile": (16, 16), "compression": "zlib"},
        ]
        tifffile.imwrite(stream, FULL[0, 0], **options[number % 3])
        data = bytearray(stream.getvalue())
        for at in rng.integers(4, 600, 4):
            data[at] = rng.integers(256)
        for channels, page in ((None, None), ((1, 0), None), (None, 1)):
            with contextlib.suppress(ValueError), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                load_samples(bytes(data), channels=channels, page=page)


def test_the_options() -> None:
    assert parse_channels([1, 0]) == (1, 0) and parse_channels("7") == (7,)
    assert parse_channels("0,1,1") == (0, 1, 1)
    assert parse_page("all") == ALL_PAGES and parse_page("3") == 3 and parse_page(None) is None
    for wrong in ("a", "1,,2", "-1", [0.5], range(17), True):
        with pytest.raises(ValueError, match="channels="):
            parse_channels(wrong)
    assert parse_page("0-4, 7") == parse_page(("0-4", 7)) == (range(5), range(7, 8))
    for several in ("all", "0-1", [2, 3]):
        with pytest.raises(ValueError, match="one page of each file"):
            parse_one_page(several)
    for wrong in (-1, "x", 1.5, True, "4-0", "1,,3", "-3", "1-2-3", [True], ()):
        with pytest.raises(ValueError, match="page="):
            parse_page(wrong)
