"""How the class of a pixel is stored: as a number or colour of a table, a segment, an object.

Whatever is stored, what comes out is the position in the names of the data set, and `IGNORED`.
Nothing is guessed: a value that the table lacks is an error with file, value and count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from maskwright.errors import OptionError, nearest
from maskwright.ops.rle import Crop, Frame
from maskwright.structures import IGNORED

from ..pixels.label_image import load_labels

UNKNOWN = -1  # label of a value that is no class
OVERLAPS = ("smaller", "ignored")
SMOOTH = 4  # unknown values of one file from which on they look interpolated
Color = tuple[int, int, int]
GetMask = Callable[[int], tuple[Crop, Frame]]


class UnknownValueError(ValueError):
    """A label map has a value that stands for no class."""


class Annotated(Protocol):
    """What an encoding looks at of a `Record`."""

    @property
    def path(self) -> Path:
        """The image."""

    @property
    def label_map(self) -> Path | None:
        """The file of its labels."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""

    @property
    def boxes(self) -> np.ndarray:
        """(n, 4) xyxy of its objects."""

    @property
    def labels(self) -> np.ndarray:
        """(n,) labels of its objects or segments."""

    @property
    def crowd(self) -> np.ndarray:
        """(n,) bool, those that are ignored."""

    @property
    def ann_ids(self) -> np.ndarray:
        """(n,) ids of its objects or segments."""


class Encoding(Protocol):
    """How a data set stores the classes of the pixels of an image."""

    def read(self, record: Annotated, mask: GetMask) -> np.ndarray:
        """Return the label of every pixel, (H, W) uint8.

        Args:
            record: the image.
            mask: returns crop and frame of an object of it, by its place.

        Raises:
            ValueError: if the file cannot be read, or a value in it stands for nothing.
        """


@dataclass(frozen=True, eq=False)
class Values:
    """Numbers and colours by a table, the same for all images.

    Attributes:
        numbers: (n,) int16: the label, `IGNORED` or `UNKNOWN`, of each stored number.
        codes: (m,) int64, rising: colours as R 65536 + G 256 + B.
        code_labels: (m,) int16, their labels.
        by_palette: of a file with a palette the colours count, not the indices.
        source: what the table was read from, for messages.
        foreign: classes that the data set has and its reader does not know, by number or code.
    """

    numbers: np.ndarray
    codes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    code_labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int16))
    by_palette: bool = False
    source: str = "the data set"
    foreign: Mapping[int, str] = field(default_factory=dict)

    @property
    def colors(self) -> dict[int, Color]:
        """The colours of labels, the first of each."""
        pairs = zip(self.code_labels.tolist(), self.codes.tolist(), strict=True)
        return {label: unpack(code) for label, code in reversed(list(pairs))}

    def read(self, record: Annotated, mask: GetMask) -> np.ndarray:
        """Return the label of every pixel; see `Encoding`."""
        assert record.label_map is not None
        return self.read_file(record.label_map)

    def read_file(self, path: Path) -> np.ndarray:
        """Return the label of every pixel of a file, (H, W) uint8.

        Raises:
            ValueError: see `Encoding.read`.
        """
        stored, palette = load_labels(path)
        if not len(self.codes):
            stored = plain_numbers(path, stored)
        if stored.ndim == 3:
            stored = pack_colors(stored)
            labels = self._of_codes(stored)
        elif palette is not None and self.by_palette:
            codes = pack_colors(palette)
            codes = np.pad(codes, (0, max(256 - len(codes), 0)), constant_values=-1)
            labels, stored = self._of_codes(codes)[stored], codes[stored]
        else:
            labels = self._of_numbers(stored)
            if (labels == UNKNOWN).any():
                raise UnknownValueError(self._refusal(path, stored, labels, colors=False))
            return labels.astype(np.uint8)
        if (labels == UNKNOWN).any():
            raise UnknownValueError(self._refusal(path, stored, labels, colors=True))
        return labels.astype(np.uint8)

    def _of_numbers(self, numbers: np.ndarray) -> np.ndarray:
        if numbers.dtype == np.uint8:  # the table has at least 256 entries
            labels: np.ndarray = self.numbers[numbers]
            return labels
        inside = (numbers >= 0) & (numbers < len(self.numbers))
        found: np.ndarray = np.where(inside, self.numbers[np.where(inside, numbers, 0)], UNKNOWN)
        return found

    def _of_codes(self, codes: np.ndarray) -> np.ndarray:
        place = np.searchsorted(self.codes, codes).clip(max=len(self.codes) - 1)
        found: np.ndarray = np.where(self.codes[place] == codes, self.code_labels[place], UNKNOWN)
        return found

    def _refusal(self, path: Path, stored: np.ndarray, labels: np.ndarray, *, colors: bool) -> str:
        """Return what is wrong with a file that has values without a class."""
        wrong = labels == UNKNOWN
        values, counts = np.unique(stored[wrong], return_counts=True)
        value = int(values[counts.argmax()])
        y, x = (int(axis[0]) for axis in np.nonzero(wrong & (stored == value)))
        what = "the colour " + ",".join(map(str, unpack(value))) if colors else f"the value {value}"
        text = f"label map {path}: {counts.max()} pixel(s) have {what}, the first at x={x}, y={y}"
        text += f", and {counts.sum() - counts.max()} more have {len(values) - 1} other(s)" * (
            len(values) > 1
        )
        if value in self.foreign:
            return (
                f"{text}: the class {self.foreign[value]!r} of {self.source}, which is not among "
                "the known classes: they must be the same in all splits and in the model"
            )
        text += f"; {self.source} has no such class"
        if len(values) >= SMOOTH:
            text += (
                ": so many look like edges that were interpolated or compressed; export the maps "
                "anew, resized by nearest neighbour alone"
            )
        elif not colors and value > IGNORED:
            text += f": a class is a number below {IGNORED}, so renumber the classes"
        else:
            ignore = "" if colors else f", or leave the value out with ignore={value}"
            text += f": add it there{ignore}"
        return text


def identity() -> Values:
    """Return the encoding in which the numbers 0 to 255 are the labels."""
    return Values(np.arange(256, dtype=np.int16), source="a label map")


def table_of(numbers: Mapping[int, int]) -> np.ndarray:
    """Return (n,) int16 labels by number, `UNKNOWN` where there is none."""
    table = np.full(max([255, *numbers]) + 1, UNKNOWN, np.int16)
    table[list(numbers)] = list(numbers.values())
    return table


def pack_colors(colors: np.ndarray) -> np.ndarray:
    """Return colours (..., 3) uint8 as numbers R 65536 + G 256 + B, int64."""
    red, green, blue = np.moveaxis(colors.astype(np.int64), -1, 0)
    packed: np.ndarray = red << 16 | green << 8 | blue
    return packed


def unpack(code: int) -> Color:
    """Return the colour of a number of `pack_colors`."""
    return code >> 16 & 255, code >> 8 & 255, code & 255


def plain_numbers(path: Path, stored: np.ndarray) -> np.ndarray:
    """Return the numbers (H, W) that `load_labels` gave; of a grey image in RGB those of a channel.

    Raises:
        ValueError: if there are colours.
    """
    if stored.ndim == 2:
        return stored
    colors = stored
    if (colors == colors[..., :1]).all():
        grey: np.ndarray = colors[..., 0]
        return grey
    y, x = (int(axis[0]) for axis in np.nonzero((colors != colors[..., :1]).any(-1)))
    shown = ",".join(map(str, colors[y, x].tolist()))
    raise ValueError(
        f"label map {path} has colours, the first {shown} at x={x}, y={y}, but nothing says what "
        "they stand for: add a class_dict.csv with the columns name,r,g,b, or save the maps as "
        "numbers"
    )


@dataclass(frozen=True)
class Segments:
    """COCO panoptic: a pixel holds the id of its segment, R + 256 G + 65536 B; 0 is no segment.

    The segments of an image are its annotations; those that are crowds are ignored.
    """

    def read(self, record: Annotated, mask: GetMask) -> np.ndarray:
        """Return the label of every pixel; see `Encoding`."""
        assert record.label_map is not None
        stored, _ = load_labels(record.label_map)
        ids = stored if stored.ndim == 2 else pack_colors(stored[..., ::-1])
        order = np.argsort(record.ann_ids)
        known = np.concatenate(([0], record.ann_ids[order]))
        labels = np.concatenate(([IGNORED], np.where(record.crowd, IGNORED, record.labels)[order]))
        place = np.searchsorted(known, ids).clip(max=len(known) - 1)
        if (wrong := known[place] != ids).any():
            raise UnknownValueError(
                f"label map {record.label_map}: {wrong.sum()} pixel(s) belong to segments that the "
                f"JSON does not list, such as {ids[wrong][0]}: is it the JSON of these files?"
            )
        found: np.ndarray = labels[place].astype(np.uint8)
        return found


@dataclass(frozen=True)
class Drawn:
    """Objects with masks, drawn on the background, which is label 0: small ones over large ones.

    Crowd regions are ignored where no object lies.

    Attributes:
        overlaps: "smaller": where objects overlap, the smaller one is seen; "ignored": nothing
            counts there, as in torchvision's training on COCO.
    """

    overlaps: str = "smaller"

    def __post_init__(self) -> None:
        if self.overlaps not in OVERLAPS:
            raise OptionError(
                f"overlaps is 'smaller' or 'ignored', got {self.overlaps!r}"
                f"{nearest(self.overlaps, OVERLAPS)}"
            )

    def read(self, record: Annotated, mask: GetMask) -> np.ndarray:
        """Return the label of every pixel; see `Encoding`."""
        labels = np.zeros(record.size, np.uint8)
        objects: list[tuple[int, Crop, Frame]] = []
        for k, crowd in enumerate(record.crowd.tolist()):
            crop, frame = mask(k)
            if not crowd:
                objects.append((int(record.labels[k]), crop, frame))
                continue
            if not crop.size:  # a region without a mask
                (x1, y1), (x2, y2) = np.floor(record.boxes[k, :2]), np.ceil(record.boxes[k, 2:])
                frame = int(x1), int(y1), int(x2), int(y2)
                crop = np.ones((frame[3] - frame[1], frame[2] - frame[0]), bool)
            _inside(labels, frame)[crop] = IGNORED
        cover = np.zeros(record.size, np.uint8)
        for label, crop, frame in sorted(objects, key=lambda one: -int(one[1].sum())):
            _inside(labels, frame)[crop] = label
            part = _inside(cover, frame)
            part += crop & (part < 2)
        if self.overlaps == "ignored":
            labels[cover > 1] = IGNORED
        return labels


@dataclass(frozen=True, eq=False)
class Mixed:
    """Label maps of several data sets, each with an encoding of its own.

    Attributes:
        parts: the encodings.
        which: the place of its encoding, by the path of an image.
    """

    parts: tuple[Encoding, ...]
    which: Mapping[str, int]

    def read(self, record: Annotated, mask: GetMask) -> np.ndarray:
        """Return the label of every pixel; see `Encoding`."""
        return self.parts[self.which[str(record.path)]].read(record, mask)


def _inside(array: np.ndarray, frame: Frame) -> np.ndarray:
    x1, y1, x2, y2 = frame
    return array[y1:y2, x1:x2]
