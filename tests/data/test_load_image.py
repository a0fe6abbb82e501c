"""Reading and resizing pixels, against Pillow and torchvision."""

from __future__ import annotations

import functools
import http.server
import io
import socket
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from maskwright.data import collate_images, load_image, resize_image
from maskwright.data.pixels.images import image_header
from maskwright.errors import OptionError
from maskwright.structures import Resize


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_every_kind_of_source(pixels: np.ndarray, tmp_path: Path) -> None:
    file = tmp_path / "photo.png"
    file.write_bytes(encoded(Image.fromarray(pixels)))
    for source in (file, str(file), file.read_bytes(), Image.open(file), pixels):
        np.testing.assert_array_equal(load_image(source), pixels)


def test_url(pixels: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(encoded(Image.fromarray(pixels)))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        np.testing.assert_array_equal(load_image(f"{address}/photo.png"), pixels)
        with pytest.raises(ValueError, match=r"nothing\.png.*404"):
            load_image(f"{address}/nothing.png")
        server.shutdown()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(pixels: np.ndarray, orientation: int) -> None:
    turned = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1),
        7: pixels.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(pixels, 1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(pixels), exif=exif)
    np.testing.assert_array_equal(load_image(data), turned)
    np.testing.assert_array_equal(load_image(data, size=turned.shape[:2]), turned)


def test_annotations_of_the_unturned_image(pixels: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = tmp_path / "turned.png"
    Image.fromarray(pixels).save(file, exif=exif)
    header = image_header(file)
    assert (header.size, header.stored, header.format) == ((53, 37), (37, 53), "PNG")
    np.testing.assert_array_equal(load_image(file, size=(37, 53)), pixels)


def test_modes(pixels: np.ndarray) -> None:
    image = Image.fromarray(pixels)
    grey = np.asarray(image.convert("L"))
    stacked = np.repeat(grey[..., None], 3, 2)
    np.testing.assert_array_equal(load_image(encoded(Image.fromarray(grey))), stacked)
    np.testing.assert_array_equal(load_image(grey), stacked)
    np.testing.assert_array_equal(load_image(grey[..., None]), stacked)
    alpha = np.dstack([pixels, np.full(grey.shape, 7, np.uint8)])
    np.testing.assert_array_equal(load_image(encoded(Image.fromarray(alpha))), pixels)
    np.testing.assert_array_equal(load_image(alpha), pixels)
    palette = image.quantize(16)
    np.testing.assert_array_equal(load_image(palette), np.asarray(palette.convert("RGB")))
    transparent = encoded(palette, transparency=bytes(range(16)))
    np.testing.assert_array_equal(load_image(transparent), np.asarray(palette.convert("RGB")))
    cmyk = image.convert("CMYK")
    np.testing.assert_array_equal(load_image(cmyk), np.asarray(cmyk.convert("RGB")))
    bits = Image.fromarray(grey > 127)
    np.testing.assert_array_equal(load_image(encoded(bits))[..., 0], (grey > 127) * 255)


def test_first_frame_of_an_animation(pixels: np.ndarray) -> None:
    frames = [Image.fromarray(pixels[..., c]) for c in range(2)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(load_image(data)[..., 0], pixels[..., 0])


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("missing.png", None, "does not exist"),
        ("empty.png", b"", "is empty"),
        ("text.png", b"this is no image", "is not an image"),
        ("cut.png", "cut", "damaged or incomplete"),
        ("cut.jpg", "cut", "damaged or incomplete"),
    ],
)
def test_bad_files_are_named(
    name: str, content: bytes | str | None, problem: str, pixels: np.ndarray, tmp_path: Path
) -> None:
    file = tmp_path / name
    if content == "cut":
        Image.fromarray(pixels).save(file)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif isinstance(content, bytes):
        file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}.*{problem}"):
        load_image(file)


def test_folder_and_wrong_values(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder"):
        load_image(tmp_path)
    with pytest.raises(ValueError, match="shape"):
        load_image(np.zeros((3, 4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="int"):
        load_image(3)


def test_decompression_bomb(monkeypatch: pytest.MonkeyPatch, pixels: np.ndarray) -> None:
    data = encoded(Image.fromarray(pixels))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match="refused"):
        load_image(data)


def test_resize_equals_pillow_and_a_window_equals_the_cut(pixels: np.ndarray) -> None:
    for size in ((20, 31), (74, 106), (37, 53)):
        expected = np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR))
        whole = resize_image(pixels, size, Resize())
        np.testing.assert_array_equal(whole.permute(1, 2, 0).numpy(), expected)
        for rule in (Resize(), Resize(antialias=False)):
            whole = resize_image(pixels, size, rule)
            part = resize_image(pixels, size, rule, window=(3, 5, 20, 17))
            # Pillow computes the filter of a window from its corner: a rounding step may differ.
            assert (part - whole[:, 5:17, 3:20]).abs().max() <= 1


@pytest.mark.parametrize(("short", "long"), [(20, 1000), (74, 100), (200, 333)])
def test_resize_equals_torchvision(pixels: np.ndarray, short: int, long: int) -> None:
    transform = GeneralizedRCNNTransform(short, long, [0.0] * 3, [1.0] * 3, size_divisible=1)
    image = torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float()
    expected = transform.eval()([image])[0].tensors[0]
    rule = Resize(short, long, rounding="floor", antialias=False)
    ours = resize_image(pixels, rule.target_size(37, 53), rule)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", [(10, 17), (21, 16), (80, 90), (1, 40), (42, 66), (21, 33)])
def test_fixed_point_equals_opencv(size: tuple[int, int]) -> None:
    """To the bit, at the half of both sides and of one side too; a window is the cut of it."""
    cv2 = pytest.importorskip("cv2")
    rule = Resize(None, None, stretch=size, antialias=False, fixed_point=True)
    for height in (42, 43):
        photo = np.random.default_rng(height).integers(0, 256, (height, 66, 3), dtype=np.uint8)
        wanted = cv2.resize(photo, size[::-1], interpolation=cv2.INTER_LINEAR)
        found = resize_image(photo, size, rule)
        assert np.array_equal(found.permute(1, 2, 0).numpy(), wanted)
        part = resize_image(photo, size, rule, window=(2, 0, 9, 1))
        assert torch.equal(part, found[:, :1, 2:9])
    deep = photo.astype(np.float32)
    plain = resize_image(deep, size, replace(rule, fixed_point=False))
    assert torch.equal(resize_image(deep, size, rule), plain)


def test_a_window_beyond_the_image_is_filled(pixels: np.ndarray) -> None:
    whole = resize_image(pixels, (20, 31), Resize())
    fill = torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    canvas = fill.repeat(1, 20 + 9, 31 + 12)
    canvas[:, 4:24, 7:38] = whole
    found = resize_image(pixels, (20, 31), Resize(), window=(-7, -4, 36, 25), fill=(1, 2, 3))
    assert torch.equal(found, canvas)
    partly = resize_image(pixels, (20, 31), Resize(), window=(-7, 3, 20, 25), fill=(1, 2, 3))
    assert (partly - canvas[:, 7:29, 0:27]).abs().max() <= 1  # Pillow rounds by the corner
    aside = resize_image(pixels, (20, 31), Resize(), window=(40, 0, 44, 2), fill=(1, 2, 3))
    assert torch.equal(aside, fill.repeat(1, 2, 4))


@pytest.mark.parametrize(
    ("size", "net", "expected"),
    # Darknet's integer divisions by hand: (50 * 64) // 50, (31 * 48) // 50 and so on.
    [
        ((40, 60), (32, 32), (21, 32)),
        ((50, 31), (48, 64), (48, 29)),
        ((48, 64), (48, 64), (48, 64)),
    ],
)
def test_the_largest_that_fits(
    size: tuple[int, int], net: tuple[int, int], expected: tuple[int, int]
) -> None:
    rule = Resize(None, None, within=net, rounding="whole")
    assert rule.target_size(*size) == expected
    assert rule.scaled(2).within == (2 * net[0], 2 * net[1])


def test_another_size_keeps_the_conventions() -> None:
    stretched = Resize(None, None, stretch=(300, 300), antialias=False)
    assert stretched.to("512").target_size(37, 53) == (512, 512)
    assert stretched.to((96, 128)) == Resize(None, None, stretch=(96, 128), antialias=False)
    assert stretched.bound((64, 32)).target_size(5, 5) == (64, 32)
    assert stretched.scale(37, 53) == pytest.approx(300 / (37 * 53) ** 0.5)
    fitted = Resize(None, None, within=(96, 128), rounding="whole", antialias=False, corners=True)
    assert fitted.to(64).within == (64, 64) and fitted.to(64).corners
    usual = Resize(800, 1333, rounding="floor", antialias=False)
    assert usual.to("400,600") == Resize(400, 600, rounding="floor", antialias=False)
    for wrong in ("1.5x", "many", (1, 2, 3), -4):
        with pytest.raises(OptionError, match="side of the square"):
            stretched.to(wrong)


def test_collate_pads_right_and_bottom() -> None:
    a, b = torch.rand(3, 20, 50), torch.rand(3, 33, 10)
    images = collate_images([(a, (40, 100)), (b, (66, 20))])
    assert images.pixels.shape == (2, 3, 64, 64)
    assert images.sizes.tolist() == [[20, 50], [33, 10]]
    assert images.original_sizes.tolist() == [[40, 100], [66, 20]]
    torch.testing.assert_close(images.pixels[0, :, :20, :50], a)
    assert images.pixels.sum().item() == pytest.approx((a.sum() + b.sum()).item(), rel=1e-5)


def test_buckets() -> None:
    pair = [(torch.rand(3, 20, 50), (20, 50))]
    buckets = [(128, 128), (32, 96), (64, 32)]
    assert collate_images(pair, buckets=buckets).pixels.shape[2:] == (32, 96)
    wide = [(torch.rand(3, 20, 150), (20, 150))]
    assert collate_images(wide, buckets=buckets).pixels.shape[2:] == (32, 160)
    with pytest.raises(ValueError, match="multiples of 32"):
        collate_images(pair, buckets=[(40, 64)])
    with pytest.raises(ValueError, match="at least one image"):
        collate_images([])


def test_a_download_from_a_host_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ValueError, match=r"no machine is called nowhere\.invalid, or the network"):
        load_image("http://nowhere.invalid/a.png")


def test_a_download_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then keeps a connection alive, not the wait for the image."""
    monkeypatch.setattr("maskwright.data.pixels.opening.URL_SECONDS", 0.3)
    closing = threading.Event()

    class Trickle(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            while not closing.wait(0.05):
                try:
                    self.wfile.write(b"x")
                except OSError:
                    return

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Trickle) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with pytest.raises(ValueError, match=r"cannot download the image .*not there after"):
                load_image(f"http://127.0.0.1:{server.server_port}/a.png")
        finally:
            closing.set()
            server.shutdown()
