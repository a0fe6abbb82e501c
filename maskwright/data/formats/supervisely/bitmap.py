"""The code of Supervisely's bitmaps: a PNG of the mask alone, packed by zlib, in base64."""

from __future__ import annotations

import base64
import binascii
import io
import zlib
from typing import Any

import numpy as np
from PIL import Image

from maskwright.ops.rle import Crop

from ...building.geometry import BOMB
from ...segments import BadSegment

HEAD = 2**16  # bytes of a PNG that are no pixels
CHANNELS = 8  # bytes of a pixel, at most


def decode_bitmap(text: Any, size: tuple[int, int]) -> Crop:
    """Return the mask (h, w) bool of a bitmap: what is not transparent, or not 0.

    Args:
        text: as the file has it.
        size: (height, width) of the image, which bounds what is unpacked.

    Raises:
        BadSegment: if it is no such code, or larger than the image.
    """
    most = CHANNELS * size[0] * size[1] + HEAD
    try:
        packed = base64.b64decode(text, validate=True)
        unpacker = zlib.decompressobj()
        content = unpacker.decompress(packed, most)
        if unpacker.unconsumed_tail:
            raise BadSegment(
                "mask of another size",
                f"the bitmap unpacks to more than {most} bytes, more than an image of "
                f"{size[1]}x{size[0]} pixels can have",
            )
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if image.width > size[1] or image.height > size[0]:
                raise BadSegment(
                    "mask of another size",
                    f"the bitmap has {image.width}x{image.height} pixels, its image "
                    f"{size[1]}x{size[0]}",
                )
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                pixels = np.asarray(image.convert("RGBA"))[..., 3]
            else:
                pixels = np.asarray(image)
    except BadSegment:
        raise
    except (binascii.Error, zlib.error, TypeError, ValueError, OSError, SyntaxError, BOMB) as error:
        raise BadSegment(
            "bad mask", f"the bitmap is no PNG packed by zlib in base64: {str(error)[:100]}"
        ) from None
    return np.asarray(pixels.any(-1) if pixels.ndim == 3 else pixels > 0)


def encode_bitmap(crop: Crop) -> str:
    """Return the code of a mask (h, w) bool: a palette of two colours, the first transparent."""
    image = Image.fromarray(crop.astype(np.uint8))
    image.putpalette([0, 0, 0, 255, 255, 255])
    stream = io.BytesIO()
    image.save(stream, "PNG", transparency=0)
    return base64.b64encode(zlib.compress(stream.getvalue())).decode("ascii")
