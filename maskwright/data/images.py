"""Pixels: from any source to uint8 RGB, from there to a padded batch of network input.

Reading is done by Pillow, URLs by urllib. Every failure is a ValueError that names the file.
Resizing follows the `Resize` rule of a model: with a low-pass filter on the 8-bit image (Pillow,
detectron2) or without one on the float image (torchvision's detection models).
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskwright.structures import Images

if TYPE_CHECKING:
    from PIL import Image

URL_TIMEOUT = 20.0  # seconds
URL_MAX_BYTES = 256 * 2**20


def load_image(source: Any, *, size: tuple[int, int] | None = None) -> np.ndarray:
    """Return the pixels of an image as 8-bit RGB, turned upright by its EXIF orientation.

    Grey images are repeated over three channels, an alpha channel is dropped (the colours under it
    are kept), of an animation the first frame is taken. Samples of more than 8 bits are brought to
    8: values up to 255 stay, values up to 4095 (12-bit cameras) are divided by 16, all others by
    256; floating-point samples within 0 to 1 are multiplied by 255.

    Args:
        source: path, http(s) URL, bytes of an encoded image, PIL image, or uint8 array (H, W),
            (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA.
        size: (height, width) for which annotations were made. An annotation tool that ignores the
            EXIF orientation writes the size of the stored pixels: only then (`size` is the stored
            size and not the upright one) the pixels stay as they are stored.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: if the source is missing, no image, truncated, or larger than Pillow's limit.
    """
    from PIL import Image

    if isinstance(source, np.ndarray):
        return _check_array(source)
    if isinstance(source, Image.Image):
        return _decode(source, "the given PIL image", size)
    if isinstance(source, bytes | bytearray):
        name, stream = f"image of {len(source)} bytes", io.BytesIO(source)
    elif isinstance(source, str) and source.lower().startswith(("http://", "https://")):
        name, stream = source, io.BytesIO(_download(source))
    elif isinstance(source, str | Path):
        name, stream = str(source), io.BytesIO(_read_file(Path(source)))
    else:
        raise ValueError(
            "an image is a path, a URL, bytes, a PIL image or a uint8 array (H, W, 3); "
            f"got {type(source).__name__}"
        )
    with _open(stream, name) as image:
        return _decode(image, name, size)


def image_sizes(path: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the (height, width) of an image file, upright and as stored, without decoding it.

    Raises:
        ValueError: if the file is missing or no image.
    """
    if not path.is_file() or not path.stat().st_size:
        _read_file(path)  # says what is wrong
    with path.open("rb") as stream, _open(stream, str(path)) as image:
        width, height = image.size
        try:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        except Exception:  # broken EXIF block: the pixels may still be fine
            turned = False
    return ((width, height) if turned else (height, width)), (height, width)


def _read_file(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder, not an image file") from None
    except FileNotFoundError:
        raise ValueError(f"image file {path} does not exist") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read the image file {path}: {error}") from None
    if not data:
        raise ValueError(f"image file {path} is empty (0 bytes): copy it again or remove it")
    return data


def _download(url: str) -> bytes:
    from urllib.request import Request, urlopen

    try:
        request = Request(url, headers={"User-Agent": "maskwright"})
        with urlopen(request, timeout=URL_TIMEOUT) as reply:
            data: bytes = reply.read(URL_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot download the image {url}: {error}") from None
    if len(data) > URL_MAX_BYTES:
        raise ValueError(f"the image {url} is larger than {URL_MAX_BYTES // 2**20} MiB")
    return data


def _check_array(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.uint8:
        raise ValueError(f"an image array must be uint8 with values 0 to 255, got {array.dtype}")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise ValueError(
            "an image array has the shape (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA; "
            f"got {array.shape}"
        )
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)
    return np.ascontiguousarray(array[..., :3])


def _open(stream: Any, name: str) -> Image.Image:
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(stream)
    except UnidentifiedImageError:
        raise ValueError(f"{name} is not an image in a format that Pillow reads") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"{name} is refused: {error}; cut it into tiles, or raise "
            "PIL.Image.MAX_IMAGE_PIXELS if you trust the file"
        ) from None
    except Exception as error:  # decoders raise what they like on broken bytes
        raise ValueError(f"{name} cannot be read as an image: {error}") from None


def _decode(image: Image.Image, name: str, size: tuple[int, int] | None) -> np.ndarray:
    from PIL import ImageOps

    try:
        stored = image.size[::-1]
        turned = ImageOps.exif_transpose(image)
        if size is None or tuple(size) != stored or tuple(size) == turned.size[::-1]:
            image = turned
        return _to_rgb(image)
    except Exception as error:  # decoders raise what they like on broken bytes
        raise ValueError(
            f"{name} is damaged or incomplete and cannot be decoded: {error}"
        ) from None


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode == "F" or image.mode.startswith("I"):
        return _to_eight_bit(np.asarray(image))
    if image.mode in ("P", "PA"):
        # Straight to RGB, Pillow warns about palettes with transparency.
        image = image.convert("RGBA")
    if image.mode != "RGB":
        image = image.convert("RGB")
    return np.array(image)


def _to_eight_bit(samples: np.ndarray) -> np.ndarray:
    """Bring (H, W) samples of 16 or 32 bits or floats to (H, W, 3) uint8; see `load_image`."""
    values = np.nan_to_num(samples.astype(np.float64), posinf=0.0, neginf=0.0)
    top = values.max(initial=0.0)
    if samples.dtype.kind == "f" and top <= 1.0:
        values = values * 255.0
    elif top > 4095:
        values = values / 256.0
    elif top > 255:
        values = values / 16.0
    grey = values.clip(0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def resize_image(
    pixels: np.ndarray,
    size: tuple[int, int],
    antialias: bool,
    *,
    window: tuple[int, int, int, int] | None = None,
) -> Tensor:
    """Return the image at a new size, or a window of it, resampled once.

    Args:
        pixels: (H, W, 3) uint8.
        size: (height, width) of the whole image after resizing.
        antialias: True: Pillow's bilinear filter, widened when shrinking, on 8 bits. False:
            bilinear sampling of the float image without a filter, as torchvision's detection
            transform does.
        window: xyxy in whole pixels of the resized image, inside it; None: all of it.

    Returns:
        (3, h, w) float32, 0 to 255.
    """
    height, width = size
    x1, y1, x2, y2 = window or (0, 0, width, height)
    if pixels.shape[:2] == (height, width):
        part = np.ascontiguousarray(pixels[y1:y2, x1:x2].transpose(2, 0, 1))
        return torch.from_numpy(part).float()
    if not antialias:
        whole = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).float()
        whole = F.interpolate(whole[None], size=size, mode="bilinear", align_corners=False)[0]
        return whole[:, y1:y2, x1:x2].contiguous()
    from PIL import Image

    sx, sy = pixels.shape[1] / width, pixels.shape[0] / height
    # Pixels beyond the box still feed the filter, so a window equals the cut of the whole.
    box = (x1 * sx, y1 * sy, min(x2 * sx, pixels.shape[1]), min(y2 * sy, pixels.shape[0]))
    image = Image.fromarray(pixels).resize((x2 - x1, y2 - y1), Image.Resampling.BILINEAR, box)
    return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy()).float()


def collate_images(
    images: Sequence[tuple[Tensor, tuple[int, int]]],
    divisor: int = 32,
    buckets: Sequence[tuple[int, int]] | None = None,
    *,
    others: Sequence[tuple[int, int]] = (),
) -> Images:
    """Put images of different sizes into one batch, padded with zeros at the right and bottom.

    Args:
        images: pairs of pixels (3, h, w) float32 and the (height, width) of the original file.
        divisor: the padded sides are multiples of it.
        buckets: allowed padded (height, width), for compiled graphs: the smallest one that holds
            the batch is taken. A batch that fits into none is padded to the divisor.
        others: (height, width) of images that are not in this batch, but would fit into it: those
            of the other processes. With them the batch may be empty.

    Raises:
        ValueError: if there is no image, or a bucket is no multiple of the divisor.
    """
    sizes = [(pixels.shape[1], pixels.shape[2]) for pixels, _ in images]
    if not sizes and not others:
        raise ValueError("a batch needs at least one image, got none")
    height = max(size[0] for size in (*sizes, *others))
    width = max(size[1] for size in (*sizes, *others))
    fitting = []
    for bucket in buckets or ():
        if bucket[0] % divisor or bucket[1] % divisor:
            raise ValueError(f"buckets must be multiples of {divisor}, got {tuple(bucket)}")
        if bucket[0] >= height and bucket[1] >= width:
            fitting.append((bucket[0] * bucket[1], bucket))
    if fitting:
        height, width = min(fitting)[1]
    else:
        height = math.ceil(height / divisor) * divisor
        width = math.ceil(width / divisor) * divisor
    batch = torch.zeros(len(images), 3, height, width)
    for slot, (pixels, _) in zip(batch, images, strict=True):
        slot[:, : pixels.shape[1], : pixels.shape[2]] = pixels
    return Images(
        batch,
        torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2),
        torch.tensor([original for _, original in images], dtype=torch.int64).reshape(-1, 2),
    )
