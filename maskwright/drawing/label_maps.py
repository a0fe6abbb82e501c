"""Draw label maps: colours of classes, an overlay on the photo with a legend, and the errors.

Pascal VOC's palette belongs to its 8-bit files. Classes of other data get colours that are as far
apart as can be: each new one is the one farthest from all before it in OKLab (Ottosson 2020), a
space in which distances are about those that people see.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..structures import IGNORED
from .draw import as_array, as_picture
from .fonts import Letters, warn_missing
from .labels import Color

if TYPE_CHECKING:
    from PIL import Image

Pixels = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]

BACKGROUND = "background"  # the class of this name is black in maps, and leaves the photo as it is
FILL = 0.5
LEAST_SIDE = 320  # pixels of a picture with a legend: narrower, names would be cut
MOST_SIDE = 1280  # to which a thin picture is enlarged at most
MOST_LINES = 6  # of a legend
# What was said where, colours of Okabe and Ito (2008).
WRONG: Color = (213, 94, 0)
_GROUND, _INK, _SOFT = (24, 26, 31), (226, 229, 236), (150, 156, 168)
_STRIPES: Color = (118, 122, 132)  # of ignored pixels, with the ground between


@cache
def voc_palette() -> Pixels:
    """Return the colours (256, 3) of Pascal VOC's label files; 0 is black, 255 light beige.

    Of three bits of the index, from the lowest on, each goes to red, green and blue, into the
    highest bits first.

    Example:
        >>> voc_palette()[[0, 1, 2, 255]].tolist()
        [[0, 0, 0], [128, 0, 0], [0, 128, 0], [224, 224, 192]]
    """
    index = np.arange(256)
    colors = np.zeros((256, 3), np.int64)
    for place in range(8):
        for channel in range(3):
            colors[:, channel] |= (index >> (3 * place + channel) & 1) << (7 - place)
    return colors.astype(np.uint8)


def class_palette(names: Sequence[str], given: Sequence[Color | None] = ()) -> Pixels:
    """Return a colour for each class, (C, 3): the given ones, black for a background, others apart.

    More classes leave the colours of those before them as they are.

    Args:
        names: the C class names.
        given: colours of the data set by label, as far as it has some.
    """
    fixed = [given[label] if label < len(given) else None for label in range(len(names))]
    for label, name in enumerate(names):
        if fixed[label] is None and name.strip().lower() == BACKGROUND:
            fixed[label] = (0, 0, 0)
    taken = tuple(sorted({color for color in fixed if color is not None}))
    others = iter(_apart(fixed.count(None), taken).tolist())
    rows = [next(others) if color is None else list(color) for color in fixed]
    return np.array(rows, np.uint8).reshape(-1, 3)


@cache
def _apart(count: int, taken: tuple[Color, ...]) -> Pixels:
    """Return colours (count, 3) that are far from each other and from those that are taken."""
    steps = np.arange(0, 256, 15)
    colors = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    places = _oklab(colors / 255)
    # Neither as dark as a shadow nor as light as the sky, and no grey.
    strong = np.hypot(places[:, 1], places[:, 2]) > 0.08
    kept = strong & (places[:, 0] > 0.42) & (places[:, 0] < 0.9)
    colors, places = colors[kept], places[kept]
    near = np.full(len(colors), np.inf)
    for color in ((0, 0, 0), (255, 255, 255), *taken):
        near = np.minimum(near, _distance(places, _oklab(np.array(color) / 255)))
    found = np.zeros((count, 3), np.uint8)
    for row in found:
        best = int(near.argmax())
        row[:] = colors[best]
        near = np.minimum(near, _distance(places, places[best]))
    return found


def _distance(places: FloatArray, place: FloatArray) -> FloatArray:
    away: FloatArray = np.linalg.norm(places - place, axis=1)
    return away


def _oklab(rgb: FloatArray) -> FloatArray:
    """Return lightness and the two axes of colour (..., 3) of sRGB (..., 3) in [0, 1].

    Reference: Ottosson 2020, "A perceptual color space for image processing".
    """
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    cones = np.cbrt(
        linear
        @ np.array(
            [
                (0.4122214708, 0.2119034982, 0.0883024619),
                (0.5363325363, 0.6806995451, 0.2817188376),
                (0.0514459929, 0.1073969566, 0.6299787005),
            ]
        )
    )
    place: FloatArray = cones @ np.array(
        [
            (0.2104542553, 1.9779984951, 0.0259040371),
            (0.7936177850, -2.4285922050, 0.7827717662),
            (-0.0040720468, 0.4505937099, -0.8086757660),
        ]
    )
    return place


def label_picture(labels: Any, colors: npt.NDArray[np.uint8]) -> Image.Image:
    """Return a label map as an 8-bit image with a palette: its pixels are the labels.

    Args:
        labels: (H, W) uint8, array or tensor.
        colors: (C, 3); what is ignored is VOC's beige.
    """
    from PIL import Image

    palette = np.zeros((256, 3), np.uint8)
    palette[: len(colors)] = colors
    palette[IGNORED] = voc_palette()[IGNORED]
    picture = Image.fromarray(np.ascontiguousarray(as_array(labels)))
    picture.putpalette(palette.ravel().tolist())
    return picture


def draw_label_map(
    image: Any,
    labels: Any,
    names: Sequence[str],
    *,
    colors: npt.NDArray[np.uint8] | None = None,
    legend: bool = True,
    still: bool = False,
    side: int | None = None,
) -> Image.Image:
    """Return a picture of the image with its classes in colour.

    A class called "background" leaves the photo as it is; what is ignored is striped.

    Args:
        image: (H, W, 3) uint8 RGB array, or a PIL image.
        labels: (H, W) classes, `IGNORED` where there is none; array or tensor.
        names: class names.
        colors: (C, 3) uint8; None: those of `class_palette`.
        legend: write the classes that occur and their shares below it; a small picture is enlarged
            for that.
        still: write all classes in their order, without shares: below each frame of a video the
            same.
        side: make the long side so many pixels first.

    Raises:
        ValueError: if the label map has another size than the image, or a label without a name.
    """
    picture, labels = _fitted(image, labels, side, legend)
    if colors is None:
        colors = class_palette(names)
    counts = np.bincount(labels.ravel(), minlength=IGNORED + 1)
    if counts[len(names) : IGNORED].any():
        label = len(names) + int(np.flatnonzero(counts[len(names) :])[0])
        raise ValueError(f"the label map has the label {label}, but there are {len(names)} names")
    paint = np.zeros((IGNORED + 1, 3), np.uint8)
    paint[: len(names)] = colors
    opacity = np.full(IGNORED + 1, FILL, np.float32)
    for label, name in enumerate(names):
        if name.strip().lower() == BACKGROUND:
            opacity[label] = 0
    share = np.where(_rims(labels, picture.size) & (opacity[labels] > 0), 1, opacity[labels])
    canvas = np.asarray(picture, np.float32)
    canvas = canvas + (paint[labels] - canvas) * share[..., None]
    drawn = _striped(canvas.round().astype(np.uint8), labels == IGNORED)
    found = _picture(drawn)
    if not legend:
        return found
    if still:
        return with_legend(found, [(name, paint[i], None) for i, name in enumerate(names)])
    total = max(int(counts.sum()), 1)
    order = [i for i in np.argsort(-counts, kind="stable").tolist() if counts[i]]
    rows = [
        ("ignored" if i == IGNORED else names[i], None if i == IGNORED else paint[i], counts[i])
        for i in order
    ]
    return with_legend(found, [(name, color, n / total) for name, color, n in rows])


def draw_errors(image: Any, labels: Any, truth: Any, *, side: int | None = None) -> Image.Image:
    """Return a dim grey picture of the image with wrong pixels in colour, ignored ones striped.

    Args:
        image: (H, W, 3) uint8 RGB array, or a PIL image.
        labels: (H, W) predicted classes.
        truth: (H, W) true classes, `IGNORED` where nothing counts.
        side: make the long side so many pixels first.

    Raises:
        ValueError: if the maps have another size than the image.
    """
    picture, said = _fitted(image, labels, side, False)
    _, true = _fitted(image, truth, side, False)
    grey = np.asarray(picture.convert("L"), np.float32)[..., None] * 0.55 + 40
    canvas = np.repeat(grey, 3, 2)
    wrong = (said != true) & (true != IGNORED)
    canvas[wrong] += (np.array(WRONG, np.float32) - canvas[wrong]) * 0.85
    return _picture(_striped(canvas.round().astype(np.uint8), true == IGNORED))


def _picture(pixels: Pixels) -> Image.Image:
    """Return an array (H, W, 3) as an image."""
    from PIL import Image

    return Image.fromarray(pixels)


def _fitted(image: Any, labels: Any, side: int | None, legend: bool) -> tuple[Image.Image, Pixels]:
    """Return image and labels in the size in which they are drawn."""
    from PIL import Image

    picture, labels = as_picture(image), as_array(labels).astype(np.uint8)
    if labels.shape != picture.size[::-1]:
        raise ValueError(
            f"the label map has the size (height, width) {labels.shape}, the image "
            f"{picture.size[::-1]}"
        )
    width, height = picture.size
    scale = 1.0 if side is None else side / max(width, height)
    if legend and width * scale < LEAST_SIDE:  # by whole numbers, so that pixels stay squares
        larger = -(-LEAST_SIDE // round(width * scale))
        scale *= max(min(larger, MOST_SIDE // max(round(max(width, height) * scale), 1)), 1)
    if scale == 1:
        return picture, labels
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    kind = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS
    field = Image.fromarray(labels).resize(size, Image.Resampling.NEAREST)
    return picture.resize(size, kind), np.asarray(field)


def _rims(labels: Pixels, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the pixels (H, W) that are so near another label that a line is drawn there."""
    width = max(1, round(max(size) / 900))
    found = np.zeros(labels.shape, bool)
    for step in range(1, width + 1):
        down, right = labels[step:] != labels[:-step], labels[:, step:] != labels[:, :-step]
        found[step:] |= down
        found[:-step] |= down
        found[:, step:] |= right
        found[:, :-step] |= right
    return found


def _striped(pixels: Pixels, mask: npt.NDArray[np.bool_]) -> Pixels:
    """Lay slanted stripes over the pixels of a mask."""
    if mask.any():
        height, width = mask.shape
        step = max(3, round(max(mask.shape) / 160))
        line = (np.arange(height)[:, None] + np.arange(width)) // step % 2 == 0
        stripes = np.where(line[..., None], _STRIPES, _GROUND).astype(np.uint8)
        pixels[mask] = stripes[mask]
    return pixels


def with_legend(
    picture: Image.Image,
    rows: Sequence[tuple[str, Any, float | None]],
    points: float | None = None,
) -> Image.Image:
    """Return a picture with the meaning of its colours below it, as many in a line as fit.

    Args:
        picture: any picture.
        rows: names, colours (None: the stripes of ignored pixels), and shares in [0, 1] or None.
        points: size of the letters; None: by the width of the picture.
    """
    from PIL import Image, ImageDraw

    width = max(picture.width, LEAST_SIDE)
    letters = Letters(float(np.clip(width / 46, 11, 30)) if points is None else points)
    warn_missing(name for name, _, _ in rows)
    gap = round(letters.height * 0.5)
    chip = round(letters.height * 0.75)
    step = round(letters.height * 1.4)
    lines: list[list[tuple[int, str, str, Any]]] = [[]]
    left, hidden = gap, 0
    for name, color, share in rows:
        number = "" if share is None else f" {share:.1%}" if share >= 0.0005 else " <0.1%"
        room = width - 2 * gap - chip - gap // 2 - letters.length(number)
        text = letters.shorten(" ".join(name.split()), room)
        long = chip + gap // 2 + round(letters.length(text + number))
        if left > gap and left + long > width - gap:
            if len(lines) == MOST_LINES:
                hidden = len(rows) - sum(map(len, lines))
                break
            lines.append([])
            left = gap
        lines[-1].append((left, text, number, color))
        left += long + 2 * gap
    last = f"and {hidden} more" if hidden else ""
    board = Image.new(
        "RGB", (width, picture.height + (len(lines) + bool(last)) * step + 2 * gap), _GROUND
    )
    board.paste(picture, ((width - picture.width) // 2, 0))
    pen = ImageDraw.Draw(board)
    top = picture.height + gap
    for line in lines:
        for left, text, number, color in line:
            down = top + (letters.height - chip) // 2
            _draw_chip(board, (left, down), chip, color)
            letters.draw(pen, left + chip + gap // 2, top, text, _INK)
            after = left + chip + gap // 2 + letters.length(text)
            letters.draw(pen, round(after), top, number, _SOFT)
        top += step
    if last:
        letters.draw(pen, gap, top, last, _SOFT)
    return board


def _draw_chip(board: Image.Image, place: tuple[int, int], side: int, color: Any) -> None:
    """Put a square of a colour on a picture; without one a striped square."""
    if color is None:
        pixels = _striped(np.zeros((side, side, 3), np.uint8), np.ones((side, side), bool))
    else:
        pixels = np.broadcast_to(np.asarray(color, np.uint8), (side, side, 3)).copy()
        if not pixels.any():  # black on the dark ground
            pixels[[0, -1]] = pixels[:, [0, -1]] = _SOFT
    board.paste(_picture(pixels), place)
