"""A large image in tiles: read, computed in batches, and put together by the task.

No more than some tiles are in memory at once, beside what was found. The next ones are read while
the network computes.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np

from ..data.pixels.large import large_image
from ..data.records import Dataset
from ..errors import OptionError
from ..models.meta import Meta
from ..structures import Resize, Tile, Tiling
from ..tasks.assembling import Assembler
from ..tasks.evaluation import Evaluation, Evaluator
from ..terminal import console
from ..text import one_line

MANY = 16  # tiles from which on there is a progress bar
SLOW = 10.0  # seconds; fewer tiles have one too if they will take longer

# (tiles of one size as pixels (h, w, 3) uint8, their level) -> what was found in each
Look = Callable[[Sequence[np.ndarray], int], Sequence[Any]]


def parse_tiling(tile: Any, overlap: Any, levels: Any) -> Tiling | None:
    """Return what the options `tile`, `overlap` and `tile_levels` say; None: no tiles.

    Raises:
        OptionError: if one is wrong.
    """
    if tile is not None:
        return Tiling(tile, overlap, levels)
    usual = {"overlap": (overlap, Tiling.overlap), "tile_levels": (levels, Tiling.levels)}
    given = [f"{name}={n}" for name, (n, default) in usual.items() if n not in (None, default)]
    if given:
        are = "is" if len(given) == 1 else "are"
        raise OptionError(
            f"{' and '.join(given)} {are} about tiles: give their side as well, such as tile=1024"
        )
    return None


def with_tile(meta: Meta, tile: int | None) -> Meta:
    """Return the description of a model that is trained on tiles of so many pixels; None: none."""
    return meta if tile is None else replace(meta, extra={**meta.extra, "tile": tile})


def untiled_warning(
    model: Any, meta: Meta, rule: Resize, settings: Any, sizes: Iterable[Sequence[int]]
) -> str | None:
    """Return what to say once where a model that knows tiles sees much larger images as a whole.

    Args:
        model: the model.
        meta: what it says of itself.
        rule: how the images are resized.
        settings: of the prediction.
        sizes: (height, width) of the images.
    """
    side = meta.extra.get("tile")
    if settings.tiling is not None or type(side) is not int or side < 1:
        return None
    known = max(model.resize.target_size(side, side)) / side
    for height, width in sizes:
        longest = max(height, width)
        if longest <= 2 * side:
            continue
        smaller = known * longest / max(rule.target_size(height, width))
        if smaller > 2:
            times = f"{smaller:.0f}" if smaller >= 10 else f"{smaller:.1f}"
            return (
                f"{meta.model} was trained on tiles of {side} pixels a side; of an image of "
                f"{width} x {height} as a whole everything is {times} times smaller: give "
                f"tile={side}"
            )
    return None


class Stop:
    """Where a signal ended the look at an image in tiles, so that what these gave can be kept.

    Attributes:
        error: the signal; None: there was none.
        tiles: that were looked at, and all of the image; None: it was not stopped.
    """

    def __init__(self) -> None:
        self.error: KeyboardInterrupt | None = None
        self.tiles: tuple[int, int] | None = None

    def warning(self, name: str) -> str:
        """Return what to say of an image of which a part was looked at."""
        done, total = self.tiles or (0, 0)
        return (
            f"{name}: stopped after {done} of {total} tiles: what was found in these is written, "
            "the rest of the image was not looked at"
        )


def assemble(
    assembler: Assembler,
    looked: Iterable[tuple[Tile, np.ndarray, Any]],
    total: int,
    name: str,
    stop: Stop | None,
) -> None:
    """Give an assembler all tiles of an image, or those that came before a signal.

    Args:
        assembler: of the image.
        looked: the tiles, see `look_at_tiles`.
        total: their number.
        name: of the image.
        stop: takes the signal, if something can be made of the tiles so far; None: it is raised.
    """
    done = 0
    try:
        for tile, part, found in looked:
            assembler.add(tile, found, part)
            done += 1
    except KeyboardInterrupt as error:
        if stop is not None and done and not assembler.PARTIAL:
            warnings.warn(
                f"{one_line(name)}: stopped after {done} of {total} tiles, of which nothing is "
                "kept: in a map of a part, the rest would have a class too",
                stacklevel=2,
            )
        if stop is None or not done or not assembler.PARTIAL:
            raise
        stop.error, stop.tiles = error, (done, total)


def look_at_tiles(
    pixels: Any, tiling: Tiling, look: Look, *, batch: int, name: str
) -> Generator[tuple[Tile, np.ndarray, Any]]:
    """Yield each tile of an image, its pixels and what was found in it; a bar shows long work.

    Args:
        pixels: (H, W, 3) uint8, an array or what is read when it is cut (`LazyPixels`).
        tiling: how it is cut.
        look: computes a batch.
        batch: tiles that are computed at once.
        name: of the image.
    """
    levels = tiling.tiles(pixels.shape[:2])
    total = sum(map(len, levels))

    def read(tiles: Sequence[Tile]) -> list[np.ndarray]:
        return [np.asarray(pixels[t.top : t.bottom, t.left : t.right]) for t in tiles]

    batches = [
        level[first : first + batch] for level in levels for first in range(0, len(level), batch)
    ]
    begin, done = time.monotonic(), 0
    bar: console.Progress | None = None
    with ExitStack() as stack, ThreadPoolExecutor(1) as reader:
        coming = reader.submit(read, batches[0])
        for number, tiles in enumerate(batches):
            left = (time.monotonic() - begin) / done * (total - done) if done else 0.0
            if bar is None and (total >= MANY or left >= SLOW):
                short = console.short(name)
                bar = console.progress(short, total=total, unit="tile", since=begin)
                stack.enter_context(bar).update(done)
            read_tiles = coming.result()
            if number + 1 < len(batches):
                coming = reader.submit(read, batches[number + 1])
            found = look(read_tiles, tiles[0].level)
            yield from zip(tiles, read_tiles, found, strict=True)
            done += len(tiles)
            if bar is not None:
                bar.update(len(tiles))


def evaluate_in_tiles(
    evaluator: Evaluator,
    find: Callable[[Any, str], Any],
    data: Dataset,
    *,
    stop: Callable[[], bool] = lambda: False,
    gather: Callable[[Any], list[Any]] = lambda share: [share],
    rank: int = 0,
    world: int = 1,
) -> Evaluation | None:
    """Score a model on a data set whose images are read one by one, by window where they can be.

    Args:
        evaluator: counts.
        find: (pixels (H, W, 3) uint8 or `LazyPixels`, name) -> what `Task.decode` returns of them.
        data: the images.
        stop: asked after each image; True ends the evaluation without a result.
        gather: returns the shares of all processes.
        rank: number of this process, which takes its share of the images.
        world: number of processes.
    """
    seconds = 0.0
    mine = range(rank, len(data), world)
    with console.progress("val", total=len(mine), unit="img", enabled=rank == 0) as bar:
        for index in mine:
            pixels = large_image(data, index)
            start = time.perf_counter()
            evaluator.take(index, find(pixels, data[index].path.name))
            seconds += time.perf_counter() - start
            bar.update()
            if stop():
                break
    shares = gather((stop(), evaluator.share()))
    if any(stopped for stopped, _ in shares):
        return None
    return evaluator.finish([share for _, share in shares], 1e3 * seconds / max(len(mine), 1))
