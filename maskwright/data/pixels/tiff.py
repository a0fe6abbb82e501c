"""Windows of TIFF files: only the strips and tiles that a window meets are read and decoded.

Strips and tiles are decoded by tifffile, which needs the package imagecodecs for LZW, JPEG and
other compressions than Deflate, PackBits, LZMA and none; uncompressed rows are read in place.
"""

from __future__ import annotations

import logging
import struct
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .axes import Part, find_stack
from .limits import TooLargeError, check_pixels
from .selection import RefusedError, chosen_channels, chosen_page

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
KEPT_BYTES = 128 * 2**20  # of decoded strips and tiles: neighbouring windows share them
AS_EIGHT_BITS = "save it as PNG or TIFF with 8 or 16 bits per channel"
GDAL_NODATA = 42113  # number of a tag
GREY_OR_RGB = (0, 1, 2)  # photometric interpretations
YCBCR, JPEG = 6, 7
_WHITE_IS_ZERO, _RGB = 0, 2
_PLAIN_BITS = (1, 8, 16, 32, 64)  # what tifffile unpacks without imagecodecs


_SILENT = logging.NullHandler()


class ForPillowError(Exception):
    """A TIFF that only Pillow decodes; the text says what is known of it, see `OpenTiff.said`."""


class TiffWindows:
    """The samples of one image of an open TIFF.

    Args:
        file: of tifffile, open.
        parts: the pages whose samples are the channels of the image, in order.
        channels: which of all their samples are given, in this order.
        name: what the file is called.

    Attributes:
        size: (height, width).
        channels: how many are given.
        dtype: of the samples, in native byte order.
        by_window: whether parts of it can be read.
        white_is_zero: whether the file has them the other way round.
        missing: the value that stands for no value in the file (GDAL's nodata); None: none does.
    """

    def __init__(
        self, file: Any, parts: tuple[Part, ...], channels: Sequence[int], name: str
    ) -> None:
        page = parts[0].page.keyframe
        self.channels = len(channels)
        self._file, self._name = file, name
        self.size = int(page.imagelength), int(page.imagewidth)
        kind = np.dtype(page.dtype)
        self.dtype = np.dtype(np.uint8) if kind == np.bool_ else kind.newbyteorder("=")
        owners = [(part, sample) for part in parts for sample in range(part.samples)]
        self._chosen = [owners[channel] for channel in channels]
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, int], np.ndarray | None] = OrderedDict()
        self._kept_bytes = 0
        self.white_is_zero = int(page.photometric) == _WHITE_IS_ZERO
        self.missing = None if self.white_is_zero else _missing(page)
        self.by_window = _in_place(page) or _segments(page) > 1

    def read(self, top: int, left: int, bottom: int, right: int) -> np.ndarray:
        """Return the samples of a window, (h, w, C), as they are stored.

        Raises:
            ValueError: if they are damaged, or need a codec that is missing.
        """
        try:
            with self._lock:
                return self._window(top, left, bottom, right)
        except (RefusedError, TooLargeError):
            raise
        except MemoryError as error:
            raise ValueError(
                f"{self._name}: the memory does not suffice to decode it: look at it with tile=, "
                f"or cut it into tiles ({error})"
            ) from None
        except Exception as error:  # decoders raise what they like on broken bytes
            raise told(error, self._name) from None

    def _window(self, top: int, left: int, bottom: int, right: int) -> np.ndarray:
        # Room for it is taken only where several pages are put together.
        found = np.empty((bottom - top, right - left, len(self._chosen)), self.dtype)
        done: set[int] = set()
        for first, (part, _) in enumerate(self._chosen):
            if first in done:
                continue
            places = [i for i, (other, _) in enumerate(self._chosen) if other is part]
            done.update(places)
            samples = [self._chosen[place][1] for place in places]
            values = self._part(part, samples, top, left, bottom, right)
            values = black_is_zero(values, part.page.keyframe)
            if len(places) == len(self._chosen):
                return values
            found[..., places] = values
        return found

    def _part(
        self, part: Part, samples: list[int], top: int, left: int, bottom: int, right: int
    ) -> np.ndarray:
        page = part.page.keyframe
        if _in_place(page):
            return self._in_place(part, samples, top, left, bottom, right)
        if part.skip:
            raise ValueError("the planes after its first page are compressed")
        planes = page.samplesperpixel if page.planarconfig == 2 else 1
        high, wide = _segment_size(page)
        width = -(-page.imagewidth // wide)
        count = -(-page.imagelength // high) * width
        found = np.empty((bottom - top, right - left, len(samples)), self.dtype)
        for plane in sorted(set(samples)) if planes > 1 else [0]:
            inside = [0] if planes > 1 else samples
            outside = [i for i, sample in enumerate(samples) if planes == 1 or sample == plane]
            for row in range(top // high, -(-bottom // high)):
                for column in range(left // wide, -(-right // wide)):
                    index = plane * count + row * width + column
                    segment = self._segment(part.page, index)
                    y, x = row * high, column * wide
                    y1, y2 = max(top, y), min(bottom, y + high)
                    x1, x2 = max(left, x), min(right, x + wide)
                    place = found[y1 - top : y2 - top, x1 - left : x2 - left]
                    if segment is None:  # sparse: nothing was written there
                        place[..., outside] = page.nodata
                    else:
                        values = segment[y1 - y : y2 - y, x1 - x : x2 - x]
                        if inside == list(range(len(samples))):  # no picking, which costs time
                            place[:] = values[..., : len(samples)]
                        else:
                            place[..., outside] = values[..., inside]
        return found

    def _segment(self, page: Any, index: int) -> np.ndarray | None:
        """Return a decoded strip or tile, (h, w, C); those that were asked for last are kept."""
        key = id(page), index
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        offsets, counts = page.dataoffsets, page.databytecounts
        if index >= min(len(offsets), len(counts)):
            raise ValueError(f"it has {len(offsets)} strips or tiles, number {index} is missing")
        data: bytes | None = None
        if counts[index]:
            handle = self._file.filehandle if page.parent is self._file else page.parent.filehandle
            handle.seek(offsets[index])
            data = handle.read(counts[index])
            if len(data) < counts[index]:
                raise ValueError(f"{len(data)} bytes where {counts[index]} belong")
        keyframe, options = page.keyframe, {}
        if keyframe.compression in (6, JPEG, 34892, 33007):
            options = {"jpegtables": page.jpegtables, "jpegheader": keyframe.jpegheader}
        check_pixels(*_segment_size(keyframe), self._name)
        decoded, _, _ = keyframe.decode(data, index, **options)
        segment = None if decoded is None else decoded[0]
        self._kept[key] = segment
        self._kept_bytes += 0 if segment is None else segment.nbytes
        while self._kept_bytes > KEPT_BYTES and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._kept_bytes -= 0 if dropped is None else dropped.nbytes
        return segment

    def _in_place(
        self, part: Part, samples: list[int], top: int, left: int, bottom: int, right: int
    ) -> np.ndarray:
        """Read rows of uncompressed samples."""
        page, stored = part.page.keyframe, part.page
        kind = np.dtype(page.parent.byteorder + page.dtype.char)
        height, width = page.imagelength, page.imagewidth
        apart = page.planarconfig == 2 and page.samplesperpixel > 1
        inner = 1 if apart else int(page.samplesperpixel)
        handle = stored.parent.filehandle
        found = np.empty((bottom - top, right - left, len(samples)), self.dtype)
        # Whole rows in few reads where the window is most of a row, its own bytes otherwise.
        most = 2 * (right - left) > width
        first, last = (0, width) if most else (left, right)
        together = max(1, 2**22 // (width * inner * kind.itemsize)) if most else 1
        for plane in sorted(set(samples)) if apart else [0]:
            outside = [i for i, sample in enumerate(samples) if not apart or sample == plane]
            inside = [0] if apart else samples
            for row in range(top, bottom, together):
                rows = min(together, bottom - row)
                begin = (plane * height + row) * width + first
                handle.seek(stored.dataoffsets[0] + part.skip + begin * inner * kind.itemsize)
                wanted = rows * (last - first) * inner
                data = handle.read(wanted * kind.itemsize)
                if len(data) < wanted * kind.itemsize:
                    raise ValueError(f"{len(data)} bytes where {wanted * kind.itemsize} belong")
                values = np.frombuffer(data, kind).reshape(rows, last - first, inner)
                values = values[:, left - first : right - first]
                place = found[row - top : row - top + rows]
                if inside == list(range(len(samples))):  # no picking, which costs time
                    place[:] = values[..., : len(samples)]
                else:
                    place[..., outside] = values[..., inside]
        return found


class OpenTiff(NamedTuple):
    """One image of a TIFF, and how it was found.

    Attributes:
        windows: its samples.
        orientation: 1 to 8.
        pages: images in the file.
        places: of each of them, see `axes.Stack`.
        number: which of them it is.
        said: see `axes.Stack`; and that it was cut off.
    """

    windows: TiffWindows
    orientation: int
    pages: int
    places: tuple[dict[str, int], ...]
    number: int
    said: str


def open_tiff(
    stream: BinaryIO,
    name: str,
    page: int | None = None,
    channels: Sequence[int] | None = None,
    *,
    needed: bool,
) -> OpenTiff:
    """Open one image of a TIFF.

    Args:
        stream: of the whole file, at its beginning; the windows are read from it.
        name: what it is called.
        page: see `picture.open_picture`.
        channels: see `picture.open_picture`.
        needed: whether Pillow cannot open it either.

    Raises:
        ForPillowError: if only Pillow decodes the image.
        ValueError: see `picture.open_picture`.
    """
    try:
        cut = ""
        file = tiff_file(stream)
        stack = find_stack(file, channels, page)
        cut = _cut_off(file, len(stack.images))
        number = _page_of(page, len(stack.images), name, cut)
        parts = stack.images[number]
        if any(part.page is None for part in parts):
            raise RefusedError(f"{name} declares planes that it lacks: copy it again")
        first = parts[0].page.keyframe
        turn = first.tags.get(274)
        orientation = turn.value if turn is not None and turn.value in range(1, 9) else 1
        if not needed and not can_decode(first) and len(parts) == 1:
            raise ForPillowError(cut)
        check_page(first, name)
        count = sum(part.samples for part in parts)
        usual = usual_channels(first, count)
        if channels is not None and page is None and max(channels) >= stack.together > count:
            alone = "one channel" if count == 1 else f"{count} channels"
            name_all = f"{name}, of {len(stack.images)} pages with {alone} each, as one image"
            chosen_channels(channels, stack.together, usual, name_all)
        taken = chosen_channels(channels, count, usual, name)
        windows = TiffWindows(file, parts, taken, name)
        said = "; ".join(filter(None, (stack.said, cut)))
        return OpenTiff(windows, orientation, len(stack.images), stack.places, number, said)
    except (ForPillowError, RefusedError, TooLargeError):
        raise
    except Exception as error:  # what stands in its tags may be anything
        if not needed:
            raise ForPillowError(cut) from None
        raise ValueError(f"{name} cannot be read as a TIFF: {error}") from None


def _page_of(page: int | None, pages: int, name: str, cut: str) -> int:
    """Return the number of the image that is asked for; see `chosen_page`."""
    try:
        return chosen_page(page, pages, name)
    except RefusedError as error:
        raise RefusedError(f"{error}: {cut}" if cut else str(error)) from None


def _cut_off(file: Any, pages: int) -> str:
    """Return what to say of a file whose list of pages goes on behind its end; "": it does not."""
    at, form = file.pages.next_page_offset, file.tiff
    if at is None:  # pages that are known without the list
        return ""
    handle = file.filehandle
    handle.seek(at)
    found = handle.read(form.offsetsize)
    if len(found) == form.offsetsize:
        (following,) = struct.unpack(form.offsetformat, found)
        if not following or following + form.tagnosize <= handle.size:
            return ""
    left = "only one page is left" if pages == 1 else f"only {pages} pages are left"
    return f"the file is cut off, {left}, more were there: copy it again"


def is_tiff(stream: BinaryIO) -> bool:
    """Return whether a file begins as a TIFF does; the stream is rewound."""
    start = stream.read(4)
    stream.seek(0)
    return start in TIFF_STARTS


def tiff_file(stream: BinaryIO) -> Any:
    """Open a TIFF with tifffile, whose log says nothing: what it cannot read is an error here."""
    import tifffile

    logging.getLogger("tifffile").addHandler(_SILENT)  # which is taken once
    stream.seek(0)
    return tifffile.TiffFile(stream)


def _missing(page: Any) -> float | None:
    """Return what a page declares to stand for no value; None: nothing its samples can have."""
    tag = page.tags.get(GDAL_NODATA)
    try:
        value = float(str(tag.value).strip(" \0")) if tag is not None else None
    except ValueError:
        return None
    kind = np.dtype(page.dtype)
    if value is None:
        return None
    if kind.kind == "f":
        with np.errstate(over="ignore"):
            return None if np.isinf(kind.type(value)) and np.isfinite(value) else value
    ends = np.iinfo(kind) if kind.kind in "iu" else None
    return value if ends is not None and value % 1 == 0 and ends.min <= value <= ends.max else None


def _in_place(page: Any) -> bool:
    """Return whether the samples of a page follow each other as they are."""
    return bool(page.is_final and page.dtype is not None and page.dtype.kind in "uif")


def _segment_size(page: Any) -> tuple[int, int]:
    """Return (height, width) of a strip or tile."""
    if page.is_tiled:
        return int(page.tilelength), int(page.tilewidth)
    return min(int(page.rowsperstrip), int(page.imagelength)), int(page.imagewidth)


def _segments(page: Any) -> int:
    high, wide = _segment_size(page)
    return int(-(-page.imagelength // high) * -(-page.imagewidth // wide))


def black_is_zero(samples: np.ndarray, page: Any) -> np.ndarray:
    """Return samples of a page with 0 and 255 for bits, and white the largest value."""
    if samples.dtype == np.bool_ or int(page.bitspersample) == 1:
        samples = samples.astype(np.uint8) * np.uint8(255)
        bits = 8
    else:
        bits = int(page.bitspersample)
    return turned_grey(samples, bits) if int(page.photometric) == _WHITE_IS_ZERO else samples


def turned_grey(samples: np.ndarray, bits: int) -> np.ndarray:
    """Turn samples of which the smallest is white."""
    turned: np.ndarray
    if samples.dtype.kind == "f":
        turned = -samples
    elif samples.dtype.kind == "u":
        turned = samples.dtype.type((1 << bits) - 1) - samples
    else:
        turned = ~samples
    return turned


def can_decode(page: Any) -> bool:
    """Return whether tifffile decodes a page with the packages that are installed."""
    import tifffile

    bits = page.bitspersample
    plain = not isinstance(bits, tuple) and int(bits) in _PLAIN_BITS
    codec = page.compression in tifffile.TIFF.DECOMPRESSORS
    filtered = page.predictor == 1 or page.predictor in tifffile.TIFF.UNPREDICTORS
    colours = int(page.photometric)
    known = colours in GREY_OR_RGB or (colours == YCBCR and page.compression == JPEG)
    return bool(plain and codec and filtered and known and not _subsampled(page))


def _subsampled(page: Any) -> bool:
    return bool(page.is_subsampled) and page.compression != JPEG


def usual_channels(page: Any, count: int) -> tuple[int, ...]:
    """Return which of the samples of an image are its picture: all but alpha.

    Args:
        page: the first one of the image.
        count: all samples of a pixel, of all pages.
    """
    own = int(page.samplesperpixel)
    if own != count:
        return tuple(range(count))
    extra = [int(one) for one in page.extrasamples]
    if int(page.photometric) in (_RGB, YCBCR) and own == 4:
        # Of RGB, a fourth channel of no declared use is as good as always alpha.
        return (0, 1, 2)
    if extra and extra[0] in (1, 2) and own - len(extra) in (1, 3) and len(extra) == 1:
        return tuple(range(own - 1))
    return tuple(range(own))


def check_page(page: Any, name: str) -> None:
    """Raise ValueError unless a page of a TIFF is an image of real numbers in grey or colours."""
    kind = None if page.dtype is None else page.dtype.kind
    if kind is None or kind not in "buif":
        raise RefusedError(f"{name} has samples that are no real numbers: {AS_EIGHT_BITS}")
    if page.axes not in ("YX", "YXS", "SYX"):
        raise RefusedError(
            f"{name} is a volume or a stack in one page (axes {page.axes}): save its planes one by "
            "one"
        )
    colours = int(page.photometric)
    if colours not in GREY_OR_RGB and not (colours == YCBCR and page.compression == JPEG):
        shown = getattr(page.photometric, "name", page.photometric)
        raise RefusedError(
            f"{name} has colours of the kind {shown} with {page.dtype} samples: convert it to RGB "
            "or grey"
        )


def told(error: Exception, name: str) -> ValueError:
    """Return what to say of an error of tifffile."""
    if "requires the 'imagecodecs' package" in str(error) or isinstance(error, ImportError):
        return RefusedError(
            f"{name} has a compression that needs a further package: `pip install imagecodecs`, or "
            f"save the file without compression ({error})"
        )
    return ValueError(
        f"{name} is damaged or incomplete and cannot be decoded ({error}): copy it again or remove "
        "it"
    )
