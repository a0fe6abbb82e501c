"""Draw instances on an image: filled masks with contours, boxes, labels, keypoints; and mosaics.

Masks are drawn inside the frames of their objects, so an image with hundreds of them costs little
more than one. Crowded images lose boxes and labels, which would hide what they name.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..channels import MOST_CHANNELS
from ..files import replacing_picture
from ..metrics.detection.entries import compressed_rle
from ..structures import Skeleton
from .channels import shown
from .fonts import Letters, warn_missing
from .labels import FEW, Color, Rect, draw_labels

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

Pixels = npt.NDArray[np.uint8]
Crop = tuple[npt.NDArray[np.bool_], Rect]

# Above so many objects labels hide more than they tell; boxes around masks do so earlier.
MAX_LABELS = 40
MAX_BOXES_WITH_MASKS = 25
FILL = 0.42
GOLDEN = 0.6180339887498949
CROWD: Color = (150, 150, 150)  # of regions that hold many objects

SHOWN_KEYPOINT = 0.05  # visibility or score above which a keypoint is drawn


def draw_instances(
    image: Any,
    boxes: Any,
    labels: Any,
    names: Sequence[str | None],
    scores: Any = None,
    masks: Any = None,
    keypoints: Any = None,
    *,
    colors: Sequence[Color] | None = None,
    texts: Sequence[str] | None = None,
    crowd: Any = None,
    skeleton: Skeleton | None = None,
    ids: Sequence[int] | None = None,
    boxed: bool = True,
    max_side: int | None = None,
    min_side: int | None = None,
) -> Image.Image:
    """Return a picture of the image with its instances on it.

    Args:
        image: (H, W, 3) uint8 RGB array, or a PIL image.
        boxes: (N, 4) xyxy, pixels of the image; tensor or array, as the following.
        labels: (N,) class indices.
        names: class names; a label without a name is written as its number.
        scores: (N,), written behind the name.
        masks: (N, H, W) bool; or a list of (crop (h, w) bool, frame xyxy in whole pixels); or a
            list of RLE dicts at the size of the image.
        keypoints: (N, J, 3) x, y and visibility or score; drawn where that is above 0.05.
        skeleton: names the keypoints and the lines to draw between them; None: no lines.
        ids: N numbers of objects that are followed through a video: each keeps its colour, and is
            written before its class; 0 has none yet, and is grey. None: colours as below.
        boxed: draw the boxes; False: they only say where labels stand.
        colors: N colours; None: hues by class, see `instance_colors`.
        texts: N labels, "" for none; None: class name and score.
        crowd: (N,) bool, regions of many objects: grey, and named so. None: there are none.
        max_side: most pixels of the long side of the picture; a larger image is made smaller
            before anything is drawn, so that lines and text stay sharp.
        min_side: least pixels of the long side; a smaller image is enlarged first.

    Raises:
        ValueError: if the lengths do not fit each other, or the image is no RGB image.
    """
    from PIL import Image

    picture = as_picture(image)
    size = picture.size
    boxes = as_array(boxes).astype(np.float64).reshape(-1, 4)
    labels = as_array(labels).astype(np.int64).reshape(-1)
    scores = None if scores is None else as_array(scores).astype(np.float64).reshape(-1)
    keypoints = None if keypoints is None else as_array(keypoints).astype(np.float64)
    for name, value in (("labels", labels), ("scores", scores), ("masks", masks),
                        ("keypoints", keypoints), ("colors", colors),
                        ("texts", texts), ("crowd", crowd)):  # fmt: skip
        if value is not None and len(value) != len(boxes):
            raise ValueError(f"{name}: {len(value)} entries, but there are {len(boxes)} boxes")

    side = max(max(size), min_side or 0)
    scale = min(side, max_side or side) / max(size)
    if scale != 1.0:
        new = (max(round(size[0] * scale), 1), max(round(size[1] * scale), 1))
        picture = picture.resize(new, Image.Resampling.LANCZOS)
        boxes = boxes * scale
        if keypoints is not None:
            keypoints = keypoints * np.array([scale, scale, 1.0])
    joints = 0 if keypoints is None or not len(boxes) else keypoints.shape[1]
    if joints and skeleton is not None and joints != len(skeleton):
        raise ValueError(f"keypoints: {joints} of each object, the skeleton has {len(skeleton)}")
    if colors is None:
        colors = instance_colors(labels, len(names)) if ids is None else id_colors(ids)
    colors = list(colors)
    texts = _texts(names, labels.tolist(), scores, ids) if texts is None else list(texts)
    for i in np.flatnonzero(() if crowd is None else as_array(crowd)).tolist():
        colors[i] = CROWD  # one of unknown class has a label below 0
        texts[i] = "ignored" if labels[i] < 0 else f"{texts[i]} (crowd)".strip()
    line = max(1, round(max(picture.size) / 700))

    # Large objects first: small ones on top of them stay visible.
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = np.argsort(-area, kind="stable").tolist()
    if masks is not None:
        canvas = np.array(picture)
        for i in order:
            crop = _crop(masks, i, boxes[i] / scale, size)
            if crop is not None:
                _blend(canvas, _resize(crop, scale, canvas.shape[:2]), colors[i], line)
        picture = Image.fromarray(canvas)
    pen = _pen(picture)
    if boxed and (masks is None or len(boxes) <= MAX_BOXES_WITH_MASKS):
        for i in order:
            _draw_box(pen, boxes[i].tolist(), colors[i], line if masks is None else 1)
    if keypoints is not None:
        bones = () if skeleton is None else skeleton.bones
        for i in order:
            side = float(max(area[i], 1.0)) ** 0.5
            _draw_keypoints(pen, keypoints[i], bones, colors[i], line, side)
    if sum(map(bool, texts)) <= MAX_LABELS:
        warn_missing(texts)
        draw_labels(pen, picture.size, boxes, texts, colors, scores)
    return picture


def instance_colors(labels: npt.NDArray[np.int64], num_classes: int) -> list[Color]:
    """Return one RGB colour per instance.

    One class: neighbours in the list differ as much as they can (hues by the golden ratio).
    Several: the hue tells the class, and lightness and a little of the hue tell instances apart.
    """
    if num_classes <= 1 or (len(labels) > 1 and len(set(labels.tolist())) == 1):
        return [_color(0.55 + i * GOLDEN, i) for i in range(len(labels))]
    seen: dict[int, int] = {}
    colors = []
    for label in labels.tolist():
        k = seen[label] = seen.get(label, -1) + 1
        drift = 0.022 * ((k + 1) // 2) * (-1) ** k if k < 6 else 0.0
        colors.append(_color(0.02 + label * GOLDEN + drift, k))
    return colors


def id_colors(ids: Sequence[int]) -> list[Color]:
    """Return one RGB colour for each id; neighbours differ as much as they can, 0 is grey."""
    return [_color(0.55 + id * GOLDEN, id) if id else CROWD for id in ids]


def _color(hue: float, step: int) -> Color:
    """Return a strong colour; `step` alternates its lightness and saturation a little."""
    light = (0.56, 0.64, 0.49)[step % 3]
    r, g, b = colorsys.hls_to_rgb(hue % 1.0, light, (0.88, 0.78, 0.80)[step % 3])
    return round(255 * r), round(255 * g), round(255 * b)


def as_array(values: Any) -> npt.NDArray[Any]:
    """Return a tensor on any device, or anything NumPy takes, as an array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    return np.asarray(values)


def as_picture(image: Any) -> Image.Image:
    """Return a PIL image, or a uint8 array (H, W, C), as a PIL image in RGB; see `shown`.

    Raises:
        ValueError: if it is neither.
    """
    from PIL import Image

    if isinstance(image, Image.Image):
        return image.convert("RGB")
    pixels = as_array(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or not 0 < pixels.shape[2] <= MOST_CHANNELS:
        raise ValueError(
            f"image: expected a PIL image or a uint8 array (H, W, 3), got {pixels.dtype} "
            f"{tuple(pixels.shape)}"
        )
    return Image.fromarray(np.ascontiguousarray(shown(pixels)))


def _texts(
    names: Sequence[str | None],
    labels: list[int],
    scores: npt.NDArray[np.float64] | None,
    ids: Sequence[int] | None,
) -> list[str]:
    """Return what to write at each object: its id, class and score."""
    texts = []
    for label in labels:
        name = names[label] if 0 <= label < len(names) else None
        # One line of characters that a font can have.
        name = str(label) if name is None else " ".join(name.split())
        texts.append("".join(char for char in name if char.isprintable()))
    if len(names) == 1 and len(labels) > FEW:
        texts = [""] * len(labels)  # the one class needs no repeating
    if scores is not None:
        texts = [f"{t} {s:.2f}".strip() for t, s in zip(texts, scores.tolist(), strict=True)]
    if ids is not None:
        texts = [f"#{id} {t}".strip() if id else t for t, id in zip(texts, ids, strict=True)]
    return texts


def _crop(masks: Any, i: int, box: npt.NDArray[np.float64], size: tuple[int, int]) -> Crop | None:
    """Return mask `i` as a crop and its frame, in pixels of the original image; None if empty."""
    mask = masks[i]
    if isinstance(mask, tuple | list):
        crop, frame = mask
        x1, y1, x2, y2 = (int(v) for v in frame)
        return (as_array(crop).astype(bool), (x1, y1, x2, y2)) if x2 > x1 and y2 > y1 else None
    if isinstance(mask, dict):
        from pycocotools import mask as rle

        mask = compressed_rle(mask, {})
        box = rle.toBbox(mask)
        box = np.array([box[0], box[1], box[0] + box[2], box[1] + box[3]])
        full = rle.decode(mask).astype(bool)
    else:
        full = as_array(mask).astype(bool)
    if full.shape != size[::-1]:
        raise ValueError(
            f"masks: number {i} has the size (height, width) {full.shape}, the image {size[::-1]}"
        )
    # A mask may reach a pixel or two out of its predicted box; look for it there first.
    low = np.floor(box[:2]).astype(int) - 2
    high = np.ceil(box[2:]).astype(int) + 2
    x1, y1 = np.clip(low, 0, size).tolist()
    x2, y2 = np.clip(high, 0, size).tolist()
    crop = full[y1:y2, x1:x2]
    if crop.sum() < full.sum():
        rows, cols = np.nonzero(full.any(1))[0], np.nonzero(full.any(0))[0]
        y1, y2, x1, x2 = rows[0], rows[-1] + 1, cols[0], cols[-1] + 1
        crop = full[y1:y2, x1:x2]
    return (crop, (int(x1), int(y1), int(x2), int(y2))) if crop.any() else None


def _resize(crop: Crop, scale: float, limit: tuple[int, ...]) -> Crop:
    """Return a crop at the scale of the picture, at least one pixel in size, inside `limit`."""
    from PIL import Image

    if scale == 1.0:
        return crop
    mask, (x1, y1, x2, y2) = crop
    left, top = min(round(x1 * scale), limit[1] - 1), min(round(y1 * scale), limit[0] - 1)
    right = min(max(round(x2 * scale), left + 1), limit[1])
    bottom = min(max(round(y2 * scale), top + 1), limit[0])
    small = Image.fromarray(mask.astype(np.uint8) * 255).resize(
        (right - left, bottom - top), Image.Resampling.BILINEAR
    )
    return np.asarray(small) > 127, (left, top, right, bottom)


def _blend(canvas: Pixels, crop: Crop, color: Color, line: int) -> None:
    """Lay a see-through fill over the mask, and a solid line along the inside of its edge."""
    mask, (x1, y1, x2, y2) = crop
    height, width = canvas.shape[:2]
    left, top = max(-x1, 0), max(-y1, 0)
    x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
    if x2 <= x1 or y2 <= y1:
        return
    mask = mask[top : top + y2 - y1, left : left + x2 - x1]
    inner = mask
    for _ in range(line):
        padded = np.pad(inner, 1)
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    window = canvas[y1:y2, x1:x2]
    paint = np.array(color, np.float32)
    fill = window[inner].astype(np.float32)
    window[inner] = (fill + (paint - fill) * FILL).astype(np.uint8)
    window[mask & ~inner] = color


def _pen(picture: Image.Image) -> ImageDraw.ImageDraw:
    from PIL import ImageDraw

    return ImageDraw.Draw(picture)


def _draw_box(pen: ImageDraw.ImageDraw, box: list[float], color: Color, line: int) -> None:
    x1, y1, x2, y2 = (round(v) for v in box)
    # The box ends before the pixel at x2: its last column is x2 - 1.
    pen.rectangle((x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)), outline=color, width=line)


def _draw_keypoints(
    pen: ImageDraw.ImageDraw,
    points: npt.NDArray[np.float64],
    bones: Sequence[tuple[int, int]],
    color: Color,
    line: int,
    side: float,
) -> None:
    """Draw the keypoints of one object as discs, and the lines between them.

    Each line has a hue of its own, the same one in all objects; the discs have the colour of
    their object. Both are as thin as the object is small.

    Args:
        pen: draws on the picture.
        points: (J, 3) x, y, visibility or score.
        bones: pairs of positions in `points`.
        color: of the object.
        line: width that suits the picture.
        side: of the object, the root of its area in pixels of the picture.
    """
    width = int(np.clip(round(side / 50), 1, 2 * line))
    shown = points[:, 2] > SHOWN_KEYPOINT
    for k, (a, b) in enumerate(bones):
        if shown[a] and shown[b]:
            ends = (*points[a, :2].tolist(), *points[b, :2].tolist())
            pen.line(ends, fill=_color(k / len(bones), 0), width=width)
    radius = float(np.clip(side / 40, 0.5, 1.5 * line + 1.5))
    for x, y, _ in points[shown].tolist():
        spot = (x - radius, y - radius, x + radius, y + radius)
        rim = "white" if radius >= 2 else color
        pen.ellipse(spot, fill=color, outline=rim)


def mosaic(
    images: Sequence[Any],
    titles: Sequence[str],
    columns: int,
    cell: int = 480,
    *,
    heading: str = "",
) -> Image.Image:
    """Return images side by side, each fitted into a cell under its title.

    Cells are squares; a row of images that are all less high is lower.

    Args:
        images: PIL images or uint8 RGB arrays.
        titles: one text per image; empty for none.
        columns: cells in a row.
        cell: side of a cell in pixels.
        heading: a line above all of them; empty for none.

    Raises:
        ValueError: if there are no images, or not as many titles as images.
    """
    from PIL import Image

    if not images or len(titles) != len(images) or columns < 1:
        raise ValueError(
            f"mosaic needs images, a title each and columns; got {len(images)} images, "
            f"{len(titles)} titles and columns={columns}"
        )
    columns = min(columns, len(images))
    pictures = [_fit(as_picture(image), cell) for image in images]
    highs = [max(p.height for p in pictures[i : i + columns]) for i in
             range(0, len(pictures), columns)]  # fmt: skip
    gap = max(cell // 60, 4)
    points = float(np.clip(cell / 30, 10, 18))
    letters = Letters(points)
    head = round(points * 1.7) if any(titles) else 0
    crown = round(points * 2.2) if heading else 0
    board = Image.new(
        "RGB",
        (columns * (cell + gap) + gap, sum(highs) + len(highs) * (head + gap) + gap + crown),
        (24, 26, 31),
    )
    pen = _pen(board)
    warn_missing([heading, *titles])
    if heading:
        large = Letters(points * 1.25)
        text = large.shorten(" ".join(heading.split()), board.width - 2 * gap)
        large.draw(pen, gap, gap + (crown - large.height) // 2, text, "white")
    for i, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
        left = gap + (i % columns) * (cell + gap)
        row = i // columns
        top = gap + crown + sum(highs[:row]) + row * (head + gap)
        offset = ((cell - picture.width) // 2, (highs[row] - picture.height) // 2)
        board.paste(picture, (left + offset[0], top + head + offset[1]))
        if title:
            text = letters.shorten(" ".join(title.split()), cell)
            letters.draw(pen, left, top + (head - letters.height) // 2, text, (226, 229, 236))
    return board


def save_mosaic(
    path: str | Path,
    images: Sequence[Any],
    titles: Sequence[str],
    cell: int = 480,
    *,
    columns: int | None = None,
    heading: str = "",
    quality: int = 90,
) -> None:
    """Write images side by side, see `mosaic`.

    Args:
        path: the file.
        images: PIL images or uint8 RGB arrays.
        titles: one text per image.
        cell: side of a cell in pixels.
        columns: cells in a row; None: as many as rows.
        heading: a line above all of them.
        quality: of a JPEG file.

    Raises:
        ValueError: if there are no images, or not as many titles as images.
    """
    square = max(math.ceil(math.sqrt(len(images))), 1)
    board = mosaic(images, titles, square if columns is None else columns, cell, heading=heading)
    with replacing_picture(path) as temporary:
        board.save(temporary, quality=quality)


def _fit(picture: Image.Image, side: int) -> Image.Image:
    """Return a picture whose long side is `side`."""
    from PIL import Image

    scale = side / max(picture.size)
    new = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
    return picture if new == picture.size else picture.resize(new, Image.Resampling.LANCZOS)
