"""Draw a heat map over its image, with the scale that its colours follow.

The colours get lighter all the way, so they can be read in grey, in print and with any colour
vision: the map "inferno" of S. van der Walt and N. Smith, in the public domain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import OptionError
from .draw import as_array, as_picture, draw_instances
from .fonts import Letters
from .label_maps import LEAST_SIDE

if TYPE_CHECKING:
    from PIL import Image

Pixels = npt.NDArray[np.uint8]

# Every seventeenth colour of 256.
_RAMP = np.array(
    [
        (0, 0, 4), (12, 8, 38), (36, 12, 79), (66, 10, 104), (93, 18, 110), (120, 28, 109),
        (147, 38, 103), (174, 48, 92), (199, 62, 76), (221, 81, 58), (237, 105, 37),
        (248, 133, 15), (252, 165, 10), (250, 198, 45), (242, 230, 97), (252, 255, 164),
    ],
    np.float64,
)  # fmt: skip
_GROUND = (24, 26, 31)  # as in mosaics
_INK = (226, 229, 236)
_MARK = (64, 224, 255)  # a colour that the map has not


def heat_colors(values: npt.ArrayLike) -> Pixels:
    """Return the colours (..., 3) of values (...) in [0, 1]; those outside get the nearest end."""
    values = np.clip(np.asarray(values, np.float64), 0, 1) * (len(_RAMP) - 1)
    places = np.arange(len(_RAMP))
    channels = [np.interp(values, places, _RAMP[:, k]) for k in range(3)]
    return np.stack(channels, -1).round().astype(np.uint8)


def draw_heatmap(
    image: Any,
    heatmap: Any,
    *,
    opacity: float = 0.5,
    scale: bool = True,
    text: str = "",
    frame: tuple[float, float, float, float] | None = None,
) -> Image.Image:
    """Return a picture of the image with a heat map over it.

    Args:
        image: (H, W, 3) uint8 RGB array, or a PIL image.
        heatmap: (h, w) in [0, 1], array or tensor; stretched over the whole image, bilinearly.
        opacity: share of the heat map's colours, in [0, 1].
        scale: put the scale of the colours at the right of the picture, which gets wider by it.
        text: what the map is of, written at the frame, or in a corner without one; a small image is
            enlarged then.
        frame: xyxy, pixels of the image, a part of it to be outlined.

    Raises:
        OptionError: if the opacity lies outside [0, 1].
        ValueError: if the heat map is none, or has values outside [0, 1].
    """
    from PIL import Image

    if not 0 <= opacity <= 1:
        raise OptionError(f"the opacity of a heat map must lie in [0, 1], got {opacity}")
    heat = as_array(heatmap)
    if heat.ndim != 2 or not heat.size or not (heat.min() >= 0 and heat.max() <= 1):
        found = f"{heat.min()} to {heat.max()}" if heat.ndim == 2 and heat.size else heat.shape
        raise ValueError(f"a heat map must be (h, w) in [0, 1], got {found}")
    picture = as_picture(image)
    field = Image.fromarray(heat.astype(np.float32))
    if field.size != picture.size:
        field = field.resize(picture.size, Image.Resampling.BILINEAR)
    colors = heat_colors(np.asarray(field))
    blended = Image.blend(picture, Image.fromarray(colors), opacity)
    if text or frame is not None:
        blended = draw_instances(
            blended,
            [(0, 0, *picture.size) if frame is None else frame],
            [0],
            [],
            texts=[text],
            colors=[_MARK],
            boxed=frame is not None,
            min_side=LEAST_SIDE if text else None,
        )
    return with_scale(blended, opacity) if scale else blended


def with_scale(picture: Image.Image, opacity: float = 1.0) -> Image.Image:
    """Return a picture with the scale of a heat map, 0 to 1, at its right.

    Args:
        picture: any picture.
        opacity: that of the heat map: the scale is as dark as the map looks over middle grey.
    """
    from PIL import Image, ImageDraw

    width, height = picture.size
    letters = Letters(float(np.clip(height / 25, 9, 16)))
    gap = max(round(letters.height / 3), 2)
    bar = max(round(letters.height * 0.8), 6)
    texts = _ticks(height, letters.height)
    board = Image.new(
        "RGB",
        (width + bar + 3 * gap + round(max(letters.length(text) for text, _ in texts)), height),
        _GROUND,
    )
    board.paste(picture.convert("RGB"), (0, 0))
    ramp = heat_colors(np.linspace(1, 0, height)[:, None].repeat(bar, 1))
    grey = np.full_like(ramp, 128)
    shown = (opacity * ramp + (1 - opacity) * grey).round().astype(np.uint8)
    board.paste(Image.fromarray(shown), (width + gap, 0))
    pen = ImageDraw.Draw(board)
    for text, value in texts:
        top = (1 - value) * (height - letters.height)
        letters.draw(pen, width + bar + 2 * gap, top, text, _INK)
    return board


def _ticks(height: int, line: int) -> list[tuple[str, float]]:
    """Return what is written beside a scale of so many pixels: as much as has room."""
    if height >= 5 * line:
        return [("1", 1.0), ("0.5", 0.5), ("0", 0.0)]
    return [("1", 1.0), ("0", 0.0)] if height >= 2 * line else [("1", 1.0)]
