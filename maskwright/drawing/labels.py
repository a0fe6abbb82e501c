"""Labels of objects: chips of text that shrink with their objects and hide no other chip.

On a crowded picture no label is larger than its object: its letters get smaller, then its name is
shortened, then only the score is left, then nothing. An object that is followed keeps its number
and loses its score first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .fonts import Letters

if TYPE_CHECKING:
    from PIL import ImageDraw

Color = tuple[int, int, int]
Rect = tuple[int, int, int, int]

FEW = 6  # objects up to which labels may be larger than these
LEAST_POINTS = 9.0  # smaller letters cannot be read
WIDEST = 0.5  # of the picture's width: a longer label is cut
SCORE = re.compile(r"\d\.\d\d$")  # at the end of a label
NUMBER = re.compile(r"#\d+(?= |$)")  # at its beginning, of an object that is followed


@dataclass(frozen=True)
class Label:
    """A text that fits its object, and the size of its chip in pixels."""

    text: str
    letters: Letters
    width: int
    height: int


def draw_labels(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    boxes: npt.NDArray[np.float64],
    texts: Sequence[str],
    colors: Sequence[Color],
    scores: npt.NDArray[np.float64] | None,
) -> None:
    """Write each label on a chip of its colour, those of high scores first.

    Args:
        pen: draws on the picture.
        size: width and height of the picture.
        boxes: (N, 4) xyxy, pixels of the picture.
        texts: N labels, "" for none.
        colors: N colours.
        scores: (N,) or None.
    """
    order = range(len(boxes)) if scores is None else np.argsort(-scores, kind="stable").tolist()
    placed: list[Rect] = []
    for i in order:
        x1, y1, x2, y2 = boxes[i].tolist()
        label = fit_label(texts[i], (x2 - x1, y2 - y1), size, len(boxes))
        if label is None:
            continue
        width, height = label.width, label.height
        others = np.delete(boxes, i, 0)
        spots = []
        corners = ((x1, y1 - height), (x1, y1), (x1, y2), (x2 - width, y1), (x1, y2 - height))
        for rank, (x, y) in enumerate(corners):
            left = min(max(round(x), 0), max(size[0] - width, 0))
            top = min(max(round(y), 0), max(size[1] - height, 0))
            chip = (left, top, left + width, top + height)
            if not any(_overlap(chip, other) for other in placed):
                # A corner further down the list must hide clearly less of the other objects.
                hidden = sum(_overlap(chip, other) for other in others.tolist())
                spots.append((hidden + 0.25 * rank * width * height, chip))
        if spots:
            chip = min(spots)[1]
            placed.append(chip)
            _draw_chip(pen, label, chip, colors[i])


def fit_label(
    text: str, sides: tuple[float, float], size: tuple[int, int], count: int
) -> Label | None:
    """Return a label as large as suits its object, or None where nothing legible fits.

    Args:
        text: class and score.
        sides: width and height of the box.
        size: width and height of the picture.
        count: objects in the picture.
    """
    if not text or max(sides) < 1.6 * LEAST_POINTS:
        return None
    points = float(np.clip(max(size) / 48, 10, 30)) * (0.8 if count > 15 else 1.0)
    points = max(min(points, max(sides) / 1.6), LEAST_POINTS)
    room = (max(WIDEST * size[0], 8 * points), float(size[1]))
    if count > FEW:
        room = (min(sides[0], room[0]), sides[1])
        width, height = _chip(text, Letters(points))
        points = max(points * min(1.0, room[0] / width, room[1] / height), LEAST_POINTS)
    letters = Letters(int(2 * points) / 2)
    short = _shorten(text, letters, room[0])
    width, height = _chip(short, letters)
    if not short or width > room[0] or height > room[1]:
        return None
    return Label(short, letters, width, height)


def _pads(letters: Letters) -> tuple[int, int]:
    """Return the room beside and above the text of a chip."""
    return round(letters.points * 0.35), round(letters.points * 0.16)


def _chip(text: str, letters: Letters) -> tuple[int, int]:
    """Return the width and height of the chip under a text."""
    beside, above = _pads(letters)
    return round(letters.length(text)) + 2 * beside, letters.height + 2 * above


def _shorten(text: str, letters: Letters, width: float) -> str:
    """Return a label that fits into a width: of the name as much as can be, its score whole.

    Of an object that is followed its number, and as much of the name as can be.
    """
    if _chip(text, letters)[0] <= width:
        return text
    number = NUMBER.match(text)
    if number is not None:
        plain = SCORE.sub("", text).rstrip()
        short = letters.shorten(plain, width - 2 * _pads(letters)[0])
        least = number.end() + 2  # of a name one letter says nothing
        return short if short == plain or short.find("…") > least else number[0]
    found = SCORE.search(text)
    score = found[0] if found else ""
    name = text[: len(text) - len(score)].rstrip()
    end = len(text) - len(name)
    short = letters.shorten(text, width - 2 * _pads(letters)[0], end=end) if name else text
    return short if short.find("…") > 1 else score  # of a name one letter says nothing


def _draw_chip(pen: ImageDraw.ImageDraw, label: Label, chip: Rect, color: Color) -> None:
    beside, above = _pads(label.letters)
    pen.rounded_rectangle(chip, radius=round(label.letters.points * 0.25), fill=color)
    # Dark or light text, whichever reads better on the colour.
    ink = (16, 18, 24) if _luminance(color) > 0.36 else (255, 255, 255)
    label.letters.draw(pen, chip[0] + beside, chip[1] + above, label.text, ink)


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the area that two xyxy rectangles share."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)


def _luminance(color: Color) -> float:
    r, g, b = (float((v / 255) ** 2.2) for v in color)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
