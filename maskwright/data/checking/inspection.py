"""Are all image files of a data set whole? Looked at before a training, not an hour into it.

A file is decoded, which finds everything, or only its two ends are looked at, which finds copies
that were cut off. Decoding is bounded: a data set of more pixels has as many images decoded as fit,
spread evenly, and of the others those whose ends leave a doubt.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..pixels.images import image_header
from ..pixels.large import read_through
from ..pixels.opening import file_problem
from ..pixels.pillow import leave_warnings
from ..records import Dataset

DECODED_PIXELS = 10**9  # about ten seconds of JPEG on one core
SAMPLED = 64  # files whose headers tell the size of all
_THREADS = 8  # at most; each holds one image
_TAIL = 2**12  # bytes of the end of a file


@dataclass(frozen=True)
class Inspection:
    """What a look at the files of a data set found.

    Attributes:
        images: number of images.
        decoded: how many of them were decoded.
        broken: position and message of each image that cannot be used, in order.
    """

    images: int
    decoded: int
    broken: tuple[tuple[int, str], ...]


def inspect_images(
    dataset: Dataset,
    *,
    pixels: int = DECODED_PIXELS,
    rank: int = 0,
    world: int = 1,
    progress: Callable[[int], None] = lambda done: None,
) -> Inspection:
    """Look at the image files of a data set.

    Args:
        dataset: the images.
        pixels: decode no more than about so many.
        rank: number of this process, which takes its share of the images.
        world: number of processes.
        progress: called with the number of images done.
    """
    if dataset.stored:  # read as a whole when it was opened
        return Inspection(len(range(rank, len(dataset), world)), 0, ())
    total = _pixels(dataset)
    step = max(-(-total // max(pixels, 1)), 1)
    share = range(rank, len(dataset), world)
    decoded = 0
    broken: list[tuple[int, str]] = []

    def look(index: int) -> tuple[bool, str | None]:
        path = dataset[index].path
        if index % step and looks_whole(path):
            return False, None
        try:
            read_through(dataset, index)
        except ValueError as error:
            return True, str(error).partition(" (image id")[0]
        return True, None

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the threads: whoever uses an image hears them
        for done, (index, (full, message)) in enumerate(_in_threads(look, share), 1):
            decoded += full
            if message is not None:
                broken.append((index, message))
            progress(done)
    return Inspection(len(share), decoded, tuple(sorted(broken)))


def _pixels(dataset: Dataset) -> int:
    """Return the pixels of all images; where only the files know, about so many by a sample."""
    known = [height * width for height, width in dataset.sizes.tolist()]
    if all(known):
        return sum(known)
    headers = []
    for index in range(0, len(dataset), max(len(dataset) // SAMPLED, 1)):
        with suppress(ValueError):  # found by the look itself
            height, width = image_header(dataset[index].path).size
            headers.append(height * width)
    return sum(headers) * len(dataset) // max(len(headers), 1)


def _in_threads(
    look: Callable[[int], tuple[bool, str | None]], indices: Sequence[int]
) -> Iterator[tuple[int, tuple[bool, str | None]]]:
    """Yield what is found, in any order; few images are in memory, and Ctrl-C ends it at once."""
    threads = min(os.cpu_count() or 1, _THREADS)
    executor = ThreadPoolExecutor(threads, "images", leave_warnings)
    waiting: dict[Future[tuple[bool, str | None]], int] = {}
    rest = iter(indices)
    try:
        while True:
            while len(waiting) < 2 * threads and (index := next(rest, None)) is not None:
                waiting[executor.submit(look, index)] = index
            if not waiting:
                return
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                yield waiting.pop(future), future.result()
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def looks_whole(path: Path) -> bool:
    """Return whether the ends of an image file are as they must be; False where nobody can tell."""
    if file_problem(path) is not None:
        return False
    try:
        with path.open("rb") as stream:
            start = stream.read(16)
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(size - _TAIL, 0))
            tail = stream.read()
    except OSError:
        return False
    if start.startswith(b"\xff\xd8\xff"):
        return tail.rstrip(b"\0").endswith(b"\xff\xd9")
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return tail.endswith(b"IEND\xaeB`\x82")
    if start.startswith(b"RIFF"):  # WebP
        return size >= int.from_bytes(start[4:8], "little") + 8
    if start.startswith(b"BM"):
        return size >= int.from_bytes(start[2:6], "little") > 0
    return False
