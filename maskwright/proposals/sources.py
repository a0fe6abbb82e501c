"""Sources of region proposals: selective search, EdgeBoxes, a sliding window, a file.

Selective search (Uijlings et al. 2013) and EdgeBoxes (Zitnick and Dollar 2014) are OpenCV's
contrib implementations. Differences: selective search sees every image at one size, as in R-CNN
(Girshick et al. 2014, section 2.2), and its boxes are put into an order that is the same in every
run; EdgeBoxes without a model of structured edges takes plain image gradients (see `edges`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import OptionError
from ..paths import home_path
from .edges import gradient_edges, structured_edges
from .files import ProposalFile

SEARCH_SIDE = 500  # long side of the image that selective search sees
MAX_ENLARGED = 8  # but a tiny one is not enlarged by more than this
MIN_EDGE_AREA = 100  # smallest box of EdgeBoxes in pixels; OpenCV's 1000 loses small objects
MAX_EDGE_BOXES = 5000
SOURCES = ("selective_search", "edge_boxes", "sliding_window")


@dataclass(frozen=True)
class Proposals:
    """Regions of one image that may be objects, by falling merit.

    Attributes:
        boxes: (n, 4) float32 xyxy in pixels of the original image, inside it, with an area.
        scores: (n,) float32, falling; what they mean is up to the source.
        dropped: how many more there were that had no area inside the image.
        cached: they were not computed now.
    """

    boxes: np.ndarray
    scores: np.ndarray
    dropped: int = 0
    cached: bool = False

    def __len__(self) -> int:
        return len(self.boxes)


class Source(Protocol):
    """What finds the proposals of an image.

    Attributes:
        name: the source with all its options, as `make_source` reads it.
        key: the same for the cache: what it finds is told by this and the pixels alone.
        computes: False if the proposals are only looked up, which no cache makes faster.
    """

    name: str
    key: str
    computes: bool

    def __call__(
        self, image: np.ndarray, *, image_file: Path | None = None, image_id: int | None = None
    ) -> Proposals:
        """Return the proposals of an image.

        Args:
            image: (H, W, 3) uint8 RGB.
            image_file: its file, if it has one; sources that compute ignore it.
            image_id: its id in the annotation file, if it has one; the same.
        """
        ...


class ComputedSource:
    """A source that looks at the pixels alone.

    Args:
        name: see `Source`.
        find: takes the image (H, W, 3) uint8 RGB and returns boxes (n, 4) xyxy by falling merit
            and their scores (n,), or None for scores that only tell the order.
        key: see `Source`; None: the name.
    """

    computes = True

    def __init__(
        self,
        name: str,
        find: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]],
        key: str | None = None,
    ) -> None:
        self.name = name
        self.key = key or name
        self._find = find

    def __call__(
        self, image: np.ndarray, *, image_file: Path | None = None, image_id: int | None = None
    ) -> Proposals:
        """Return the proposals of an image; see `Source`."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(
                f"proposals are found in (H, W, 3) uint8 images, got {image.shape} {image.dtype}"
            )
        return clean(*self._find(image), size=image.shape[:2])


def clean(boxes: np.ndarray, scores: np.ndarray | None, size: tuple[int, int]) -> Proposals:
    """Return proposals clipped to an image of size (height, width), those without area left out.

    Args:
        boxes: (n, 4) xyxy.
        scores: (n,); None: falling evenly from 1 in the given order.
        size: of the image.
    """
    with np.errstate(over="ignore"):  # what float32 cannot hold is left out below
        boxes = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    if scores is None:
        scores = 1 - np.arange(len(boxes)) / max(len(boxes), 1)
    scores = np.asarray(scores, dtype=np.float32)
    order = np.argsort(-scores, kind="stable")
    height, width = size
    clipped = boxes[order].clip(0, np.array([width, height, width, height], np.float32))
    good = np.isfinite(boxes[order]).all(1) & (clipped[:, 2:] > clipped[:, :2]).all(1)
    return Proposals(clipped[good], scores[order][good], int((~good).sum()))


def make_source(text: str, *, split: str | None = None) -> Source:
    """Return the source of proposals that a text names.

    Args:
        text: "selective_search" ("selective_search:quality" is slower and finds more),
            "edge_boxes" ("edge_boxes:FILE" with OpenCV's model of structured edges),
            "sliding_window" ("sliding_window:500" for at most so many windows), or a file of
            proposals: COCO results (.json) or arrays (.npz), see `ProposalFile`. "{split}" in
            the path of a file stands for the split.
        split: of the data set whose images are asked for.

    Raises:
        OptionError: if it names none.
        ValueError: if the file cannot be read.
    """
    text = home_path(text)
    kind, _, option = str(text).partition(":")
    option = home_path(option)
    if kind == "selective_search" and option in ("", "fast", "quality"):
        mode = option or "fast"
        return ComputedSource(f"{kind}:{mode}", partial(selective_search, mode=mode))
    if kind == "edge_boxes":
        if text == kind:
            return ComputedSource(kind, edge_boxes)
        if not option:
            raise OptionError(f"source={text} names no model of structured edges behind the colon")
        if not Path(option).is_file():
            raise ValueError(f"source={text}: there is no model of structured edges at {option}")
        try:
            digest = hashlib.blake2b(Path(option).read_bytes(), digest_size=16).hexdigest()
        except OSError as error:
            raise ValueError(f"source={text}: {error.strerror or error}") from None
        find = partial(edge_boxes, model=option)
        return ComputedSource(str(text), find, key=f"{kind}:{digest}")
    if kind == "sliding_window" and (not option or (option.isdecimal() and int(option))):
        count = int(option or 2000)
        return ComputedSource(f"{kind}:{count}", partial(_windows, count=count))
    if str(text).endswith((".json", ".npz")):
        if (wrong := re.search(r"\{(?!split\}).*?\}", text)) and not Path(text).exists():
            raise OptionError(f"source={text}: only {{split}} stands for something, not {wrong[0]}")
        if "{split}" in text and split is None:
            raise ValueError(
                f"source={text} means the files of a data set's splits, and a photo has none: "
                "proposal_source= names another source, such as selective_search or a file"
            )
        return _FileSource(str(text), ProposalFile(text.replace("{split}", split or "")))
    raise OptionError(
        f"source={text!r}: expected {', '.join(SOURCES)}, selective_search:quality, "
        "edge_boxes:MODEL_FILE, sliding_window:COUNT, or a file that ends in .json or .npz"
    )


class _FileSource:
    computes = False

    def __init__(self, name: str, file: ProposalFile) -> None:
        self.name = self.key = name
        self._file = file

    def __call__(
        self, image: np.ndarray, *, image_file: Path | None = None, image_id: int | None = None
    ) -> Proposals:
        """Return the proposals that the file has for an image; see `Source`."""
        boxes, scores = self._file.find(image_file, image_id)
        return clean(boxes, scores, image.shape[:2])


def selective_search(image: np.ndarray, mode: str = "fast") -> tuple[np.ndarray, np.ndarray]:
    """Return the boxes of selective search by falling merit, and scores that tell the order.

    The boxes are OpenCV's. Their order is ours, because OpenCV's differs from run to run: as in
    the paper (section 3.2) a random number times the place in the hierarchy of regions, where the
    place is that by falling area, larger regions being formed later.

    Args:
        image: (H, W, 3) uint8 RGB.
        mode: "fast" or "quality": fewer or more colour spaces, similarities and start regions.

    Returns:
        (n, 4) float64 xyxy in pixels of `image`, and (n,) scores from 1 downwards.
    """
    cv2 = opencv()
    height, width = image.shape[:2]
    scale = min(SEARCH_SIDE / max(height, width), MAX_ENLARGED)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = cv2.resize(image, size, interpolation=way) if scale != 1 else image
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(resized[..., ::-1]))
    if mode == "fast":
        search.switchToSelectiveSearchFast()
    else:
        search.switchToSelectiveSearchQuality()
    found = np.asarray(search.process(), dtype=np.float64).reshape(-1, 4)
    boxes = np.unique(np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], 1), axis=0)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    place = np.empty(len(boxes))
    place[np.argsort(-area, kind="stable")] = np.arange(1, len(boxes) + 1)
    boxes = boxes[np.argsort(np.random.default_rng(0).random(len(boxes)) * place, kind="stable")]
    boxes *= np.array([width / size[0], height / size[1]] * 2)
    return boxes, 1 - np.arange(len(boxes)) / max(len(boxes), 1)


def edge_boxes(image: np.ndarray, model: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the boxes of EdgeBoxes and their scores.

    Args:
        image: (H, W, 3) uint8 RGB.
        model: file of OpenCV's structured edge detector; None: edges are image gradients.

    Returns:
        (n, 4) float64 xyxy by falling score, and (n,) scores.
    """
    cv2 = opencv()
    edges, angle = structured_edges(cv2, image, model) if model else gradient_edges(cv2, image)
    if min(edges.shape) < 8 or not edges.any():  # OpenCV reads beyond the borders of less
        return np.zeros((0, 4)), np.zeros(0)
    search = cv2.ximgproc.createEdgeBoxes(maxBoxes=MAX_EDGE_BOXES, minBoxArea=float(MIN_EDGE_AREA))
    found, scores = search.getBoundingBoxes(edges, angle)
    if scores is None or not len(scores):
        return np.zeros((0, 4)), np.zeros(0)
    boxes = np.asarray(found, dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes, np.asarray(scores, dtype=np.float64).reshape(-1)


def sliding_windows(height: int, width: int, count: int) -> np.ndarray:
    """Return windows spread evenly over an image, large ones first: the baseline.

    Sides shrink by the square root of 2 from the short side of the image, in the shapes 1:2, 1:1
    and 2:1, as far as steps of half a side allow within `count`, but to a sixteenth at most. Then
    the step is the smallest fraction of the side, the same for all, that keeps the number.

    Args:
        height, width: size of the image.
        count: most windows.

    Returns:
        (n, 4) float64 xyxy, n <= count.
    """

    def grid(shape: tuple[float, float], step: float) -> tuple[int, int]:
        (h, w) = shape
        return int((height - h) / (step * h)) + 1, int((width - w) / (step * w)) + 1

    def total(shapes: list[tuple[float, float]], step: float) -> int:
        return sum(int(np.prod(grid(shape, step))) for shape in shapes)

    sizes = 9
    while True:
        sides = [min(height, width) * 2 ** (-k / 2) for k in range(sizes)]
        shapes = [
            (min(side * ratio**0.5, height), min(side / ratio**0.5, width))
            for side in sides
            if side >= 1
            for ratio in (0.5, 1.0, 2.0)
        ]
        if sizes == 1 or total(shapes, 0.5) <= count:
            break
        sizes -= 1
    step = 0.05
    while step < 32 and total(shapes, step) > count:
        step *= 1.02
    windows = []
    for h, w in shapes:
        rows, columns = grid((h, w), step)
        # A single window lies in the middle.
        tops = np.linspace(0, height - h, rows) if rows > 1 else np.array([(height - h) / 2])
        lefts = np.linspace(0, width - w, columns) if columns > 1 else np.array([(width - w) / 2])
        y, x = (part.ravel() for part in np.meshgrid(tops, lefts, indexing="ij"))
        windows.append(np.stack([x, y, x + w, y + h], 1))
    return np.concatenate(windows)[:count]


def _windows(image: np.ndarray, count: int) -> tuple[np.ndarray, None]:
    return sliding_windows(image.shape[0], image.shape[1], count), None


@cache
def opencv() -> Any:
    """Return OpenCV with its contrib modules.

    Raises:
        ImportError: if it is not installed; the message tells what to install.
    """
    try:
        import cv2

        cv2.ximgproc.segmentation  # noqa: B018  plain OpenCV lacks it
    except (ImportError, AttributeError) as error:
        raise ImportError(
            "selective search and EdgeBoxes need OpenCV with its contrib modules: pip install "
            "'maskwright[proposals]'; where opencv-python hides them, as trackers brings it: pip "
            "install --force-reinstall --no-deps opencv-contrib-python-headless; or take "
            f"source=sliding_window or a file of proposals ({error})"
        ) from None
    cv2.setNumThreads(1)  # images are computed side by side, by processes
    return cv2
