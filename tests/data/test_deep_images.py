"""Images of more than 8 bits: every kind is read as stored, or refused with what to do."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from maskwright.data.pixels.images import has_deep_samples, image_header, load_image, load_samples

RNG = np.random.default_rng(5)
GREY = RNG.integers(0, 2**16, (33, 47), np.uint16)
RGB = RNG.integers(0, 2**16, (33, 47, 3), np.uint16)
RGBA = RNG.integers(0, 2**16, (33, 47, 4), np.uint16)


def tiff(samples: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, samples, **options)
    return stream.getvalue()


def by_opencv(suffix: str, samples: np.ndarray) -> bytes:
    turned = samples if samples.ndim == 2 else samples[..., [2, 1, 0, 3][: samples.shape[2]]]
    done, data = cv2.imencode(suffix, np.ascontiguousarray(turned))
    assert done
    return bytes(data.tobytes())


GREYS = {
    **{kind: GREY.astype(kind) for kind in ("u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8", "i1")},
    "f2": (GREY // 64).astype("f2"),
    "above 2**31": GREY.astype("u4") * np.uint32(60000),
}


@pytest.mark.parametrize("kind", GREYS)
@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"byteorder": ">"},
        {"bigtiff": True},
        {"tile": (16, 16)},
        {"compression": "zlib"},
        {"rowsperstrip": 5},
    ],
    ids=str,
)
def test_every_kind_of_grey_tiff(kind: str, layout: dict[str, Any]) -> None:
    found = load_samples(tiff(GREYS[kind], **layout))
    assert found.dtype == GREYS[kind].dtype and found.dtype.isnative
    np.testing.assert_array_equal(found, GREYS[kind])


@pytest.mark.parametrize("samples", [RGB, RGB.astype("f4"), RGB.astype("i2"), RGB.astype("f8")])
@pytest.mark.parametrize("layout", [{}, {"byteorder": ">"}, {"tile": (16, 16)}, {"bigtiff": True}])
def test_colour_tiff_keeps_all_bits(samples: np.ndarray, layout: dict[str, Any]) -> None:
    np.testing.assert_array_equal(load_samples(tiff(samples, photometric="rgb", **layout)), samples)
    planes = np.ascontiguousarray(samples.transpose(2, 0, 1))
    apart = tiff(planes, photometric="rgb", planarconfig="separate", **layout)
    np.testing.assert_array_equal(load_samples(apart), samples)


def test_alpha_is_left_out() -> None:
    for extra in ("unassalpha", "assocalpha"):
        data = tiff(RGBA, photometric="rgb", extrasamples=[extra])
        np.testing.assert_array_equal(load_samples(data), RGBA[..., :3])
        grey = {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": [extra]}
        np.testing.assert_array_equal(load_samples(tiff(RGBA[..., :2], **grey)), RGBA[..., 0])
    np.testing.assert_array_equal(load_samples(by_opencv(".png", RGBA)), RGBA[..., :3])
    stream = io.BytesIO()
    Image.fromarray(RGBA[..., :2].astype(np.uint8)).save(stream, "PNG")  # 8 bits stay Pillow's
    assert load_samples(stream).dtype == np.uint8


def test_white_may_be_zero() -> None:
    white = {"photometric": "miniswhite"}
    np.testing.assert_array_equal(load_samples(tiff(GREY, **white)), 65535 - GREY)
    signed = GREY.astype("i2")
    np.testing.assert_array_equal(load_samples(tiff(signed, **white)), -1 - signed.astype(int))
    np.testing.assert_array_equal(load_samples(tiff(GREY.astype("f8"), **white)), -GREY.astype(int))
    small = (GREY // 256).astype(np.uint8)
    np.testing.assert_array_equal(load_samples(tiff(small, **white))[..., 0], 255 - small)


def test_png_netpbm_and_jpeg2000() -> None:
    for suffix in (".png", ".ppm"):
        np.testing.assert_array_equal(load_samples(by_opencv(suffix, RGB)), RGB)
    for suffix in (".png", ".pgm", ".tiff"):  # OpenCV writes LZW, which Pillow reads
        np.testing.assert_array_equal(load_samples(by_opencv(suffix, GREY)), GREY)
    _, data = cv2.imencode(".jp2", GREY, [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])
    np.testing.assert_array_equal(load_samples(data.tobytes()), GREY)
    for most in (1023, 4095):  # Pillow scales these to 16 bits
        data = b"P5\n# a camera\n47 33\n%d\n" % most + (GREY % (most + 1)).astype(">u2").tobytes()
        np.testing.assert_array_equal(load_samples(data), GREY % (most + 1))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (tiff(RGBA, photometric="separated"), "SEPARATED.*convert it to RGB"),
        (tiff(GREY.astype("c8")), "no real numbers"),
        (tiff(np.stack([GREY] * 4), volumetric=True, photometric="minisblack"), "volume"),
        (by_opencv(".jp2", RGB), "JPEG2000.*save it as PNG or TIFF"),
        (b"P2 2 1 1023 1 1023\n", "save it as PNG or TIFF"),
        (tiff(RGB, photometric="rgb")[:3000], "damaged or incomplete"),
        (by_opencv(".png", RGB)[:3000], "damaged or incomplete"),
        (by_opencv(".ppm", RGB)[:3000], "damaged or incomplete"),
        (tiff(GREY.astype("f8"))[:3000], "damaged or incomplete"),
    ],
)
def test_what_is_refused_says_what_to_do(data: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "deep.img").write_bytes(data)
    with pytest.raises(ValueError, match=rf"(?s)deep\.img.*{problem}"):
        load_samples(tmp_path / "deep.img")


@pytest.mark.slow
def test_what_needs_imagecodecs_names_it(tmp_path: Path) -> None:
    """In a process of its own, in which that package cannot be imported."""
    (tmp_path / "deep.tif").write_bytes(by_opencv(".tiff", RGB))  # LZW
    code = (
        "import sys; sys.modules['imagecodecs'] = None; "
        "from maskwright.data.pixels.images import load_samples; load_samples(sys.argv[1])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "deep.tif")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "deep.tif has a compression that needs a further package" in done.stderr
    assert "pip install imagecodecs" in done.stderr


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_images_are_turned(orientation: int) -> None:
    turned = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.transpose(1, 0, 2),
        6: np.rot90(RGB, -1),
        7: RGB.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(RGB, 1),
    }[orientation]
    tag = [(274, "H", 1, orientation, True)]
    colour = tiff(RGB, photometric="rgb", extratags=tag)
    np.testing.assert_array_equal(load_samples(colour), turned)
    np.testing.assert_array_equal(load_samples(tiff(RGB[..., 0], extratags=tag)), turned[..., 0])
    half = (RGB[..., 0] // 64).astype("f2")  # Pillow cannot open it
    found = load_samples(tiff(half, extratags=tag))
    np.testing.assert_array_equal(found, (turned[..., 0] // 64).astype("f2"))


def test_headers_tell(tmp_path: Path) -> None:
    cases = {
        "grey.png": (by_opencv(".png", GREY), True),
        "colour.png": (by_opencv(".png", RGB), True),
        "shallow.png": (by_opencv(".png", (RGB // 256).astype(np.uint8)), False),
        "photo.jpg": (by_opencv(".jpg", (RGB // 256).astype(np.uint8)), False),
        "colour.tif": (tiff(RGB, photometric="rgb"), True),
        "half.tif": (tiff(GREYS["f2"]), True),
        "shallow.tif": (tiff((GREY // 256).astype(np.uint8)), False),
        "signed.tif": (tiff(GREYS["i1"]), True),
        "colour.ppm": (by_opencv(".ppm", RGB), True),
        "shallow.ppm": (by_opencv(".ppm", (RGB // 256).astype(np.uint8)), False),
    }
    for name, (data, deep) in cases.items():
        (tmp_path / name).write_bytes(data)
        header = image_header(tmp_path / name)
        assert (header.deep, has_deep_samples(tmp_path / name)) == (deep, deep), name
        assert header.size == GREY.shape
        assert (load_samples(tmp_path / name).dtype != np.uint8) == deep


def test_an_image_opened_by_pillow_keeps_its_bits() -> None:
    image = Image.open(io.BytesIO(by_opencv(".png", RGB)))
    np.testing.assert_array_equal(load_samples(image), RGB)
    for mode in ("I;16", "I;16L", "I;16B"):
        order = ">u2" if mode == "I;16B" else "<u2"
        image = Image.frombytes(mode, GREY.shape[::-1], GREY.astype(order).tobytes())
        np.testing.assert_array_equal(load_samples(image), GREY)


def test_other_modes_of_pillow_are_colours() -> None:
    small = RNG.integers(0, 256, (9, 7, 3), np.uint8)
    image = Image.fromarray(small)
    same = (image.convert("RGBA").convert("RGBa"), image.convert("RGBX"), image.convert("RGBA"))
    for other in same:
        np.testing.assert_array_equal(load_image(other), small)
    for mode, most in (("YCbCr", 4), ("HSV", 8)):
        assert np.abs(load_image(image.convert(mode)).astype(int) - small).max() <= most
    grey = np.asarray(image.convert("L"))
    premultiplied = image.convert("LA").convert("La")
    np.testing.assert_array_equal(load_image(premultiplied)[..., 2], grey)


def test_arrays_and_tensors() -> None:
    for kind in ("u2", ">u2", "i2", "u4", "i8", "f2", "f4", "f8"):
        wide = (RGB // 64).astype(kind)
        np.testing.assert_array_equal(load_samples(wide), wide)
        np.testing.assert_array_equal(load_samples(wide[..., :1]), wide[..., 0])
    np.testing.assert_array_equal(load_samples(RGBA), RGBA[..., :3])
    bits = GREY > 30000
    np.testing.assert_array_equal(load_samples(bits)[..., 1], bits * 255)
    small = (RGB // 256).astype(np.uint8)
    tensor = torch.from_numpy(small)
    for given in (tensor, tensor.permute(2, 0, 1), tensor.permute(2, 0, 1).contiguous()):
        np.testing.assert_array_equal(load_image(given), small)
    fraction = (tensor / 255).requires_grad_()
    np.testing.assert_array_equal(load_image(fraction, window=(0, 1)), small)
    assert load_samples(fraction.to(torch.bfloat16)).dtype == np.float32
    with pytest.raises(ValueError, match="list of its images"):
        load_image(torch.zeros(2, 3, 8, 8))
    with pytest.raises(ValueError, match="real numbers, got complex"):
        load_image(np.zeros((4, 4), np.complex64))
    with pytest.raises(ValueError, match="real numbers, got object"):
        load_image(np.full((4, 4), None))


def test_open_files(tmp_path: Path) -> None:
    small = (RGB // 256).astype(np.uint8)
    data = by_opencv(".png", small)
    (tmp_path / "a.png").write_bytes(data)
    stream = io.BytesIO(data)
    for _ in range(2):  # read from the beginning, each time
        np.testing.assert_array_equal(load_image(stream), small)
    with (tmp_path / "a.png").open("rb") as file:
        np.testing.assert_array_equal(load_image(file), small)
    np.testing.assert_array_equal(load_image(memoryview(data)), small)
    with pytest.raises(ValueError, match=r"a\.png cannot be read: .*closed"):
        load_image(file)
    with (
        (tmp_path / "a.png").open(encoding="latin-1") as text,
        pytest.raises(ValueError, match="rb"),
    ):
        load_image(text)
    with pytest.raises(ValueError, match="empty"):
        load_image(io.BytesIO())
