"""An image with a list of classes below it, each with a bar as long as its probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...drawing.fonts import Letters, warn_missing

if TYPE_CHECKING:
    from PIL import Image

LEAST_SIDE = 320  # pixels of the picture's width: narrower, names would be cut
BACK, INK, SOFT = (24, 26, 31), (236, 239, 245), (150, 156, 168)
STRONG, WEAK, TRACK = (64, 132, 244), (96, 108, 130), (43, 47, 56)
NAME_SHARE = 0.52  # of the width, for the names


def with_bars(
    image: np.ndarray, rows: Sequence[tuple[str, float]], *, strong: int = 1
) -> Image.Image:
    """Return an image with the probabilities of classes below it; a small one is enlarged.

    Args:
        image: (H, W, 3) uint8 RGB.
        rows: names and probabilities, in the order in which they are shown.
        strong: so many of the first are the image's classes.
    """
    from PIL import Image, ImageDraw

    picture = Image.fromarray(np.ascontiguousarray(image))
    if picture.width < LEAST_SIDE:
        factor = -(-LEAST_SIDE // picture.width)
        size = (picture.width * factor, picture.height * factor)
        picture = picture.resize(size, Image.Resampling.NEAREST)
    width = picture.width
    letters = Letters(float(np.clip(width / 30, 13, 40)))
    warn_missing(name for name, _ in rows)
    step, gap = round(letters.height * 1.35), round(letters.height * 0.45)
    board = Image.new("RGB", (width, picture.height + len(rows) * step + 2 * gap), BACK)
    board.paste(picture, (0, 0))
    pen = ImageDraw.Draw(board)
    left, room = gap, round(NAME_SHARE * width) - 2 * gap
    start = round(NAME_SHARE * width)
    end = width - gap - round(letters.length("0.00")) - gap
    for place, (name, score) in enumerate(rows):
        top = picture.height + gap + place * step
        first = place < strong
        shown = letters.shorten(" ".join(name.split()), room)
        letters.draw(pen, left, top, shown, INK if first else SOFT)
        low, high = top + round(letters.height * 0.3), top + round(letters.height * 0.85)
        pen.rectangle((start, low, end, high), fill=TRACK)
        long = round((end - start) * min(max(score, 0.0), 1.0))
        if long:
            pen.rectangle((start, low, start + long, high), fill=STRONG if first else WEAK)
        letters.draw(pen, end + gap, top, f"{score:.2f}", INK if first else SOFT)
    return board
