"""What a prediction gives to people, of any task: a picture, a file, a line of text."""

from __future__ import annotations

import base64
import io
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol
from urllib.parse import unquote, urlsplit

import numpy as np

from ..files import replacing_picture, write_whole
from ..paths import home_path
from ..text import one_line, to_json
from .zoom import LARGE

if TYPE_CHECKING:
    from PIL import Image

NOTEBOOK_SIDE = 1024  # most pixels of a picture that a notebook keeps inside
# What the page of a run shows of one find: name, score or other measure in thousandths (rounded
# down), and where it is: x, y, width, height in whole pixels of the image; None: the image as a
# whole.
Mark = tuple[str, int, tuple[int, int, int, int] | None]


class Gathered(Protocol):
    """Collects results, to write them together."""

    def add(self, result: ImageResult) -> None:
        """Take over a result."""

    def write(self, folder: Path) -> list[Path]:
        """Write what was taken below a folder, and return where."""


class ImageResult(ABC):
    """The result of one image; each task has its own kind, a dataclass with these fields.

    Attributes:
        image: (H, W, 3) uint8 RGB, the original image; of a large one that was looked at in tiles
            what reads it as it is cut, see `LazyPixels`.
        names: class names by label.
        path: where the image came from; None for pixels in memory.
        speed: milliseconds for "load", "preprocess", "inference" and "postprocess".
        source_name: how the image is called among the others of its source, see `name`.
        frame: of a video: how many frames stand before this one; None for images.
        time: of a video: seconds from its beginning; None for images.
        page: number of the image in its file, where one was asked for; or None.
        axes: where the image stands on the axes that its file declares (OME-TIFF, ImageJ), from 0
            on, such as {"T": 3, "Z": 0}; empty: none is declared, or there is one image.
        stopped: tiles that were looked at, and tiles of the image, where a signal ended the look
            between them; None: it was looked at as a whole.
        heatmap: (H, W) float32 in [0, 1], where the evidence lies, if it was asked for; or None.
        explained: the find whose evidence that is; None without a heat map.
        MEASURE: what the number of a find is called.
        FILES: further files of an image by the name of their format: the suffix behind its stem,
            and the folder they go into, "" for the one of all.
        COLUMNS: columns of a table of finds, and the kind of each: "int32", "int64", "float32",
            "float64", "string" or "list<float32>"; see `rows`.
    """

    image: np.ndarray
    names: list[str]
    path: str | None
    speed: dict[str, float]
    source_name: str
    heatmap: np.ndarray | None
    explained: Mark | None
    frame: int | None = None
    time: float | None = None
    page: int | None = None
    axes: Mapping[str, int] = MappingProxyType({})
    stopped: tuple[int, int] | None = None

    MEASURE: ClassVar[str] = "score"
    FILES: ClassVar[Mapping[str, tuple[str, str]]] = {}
    COLUMNS: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def plot(self, *, labels: bool = True) -> Image.Image:
        """Return the image with what was found drawn on it.

        Args:
            labels: write names and scores.
        """

    def plot_part(self, frame: tuple[int, int, int, int], *, labels: bool = True) -> Image.Image:
        """Return what `plot` shows of a part of the image, which is all that is read of it.

        Args:
            frame: xyxy in whole pixels of the image.
            labels: write names and scores, where these do not hide the picture.
        """
        return self.plot(labels=labels).crop(frame)

    @abstractmethod
    def content(self) -> dict[str, Any]:
        """Return what was found as plain data, for `to_json`."""

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """Return what was found as rows of a table, by `COLUMNS`: every number as it is."""

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """Return how often each name was found, the most frequent first."""

    @abstractmethod
    def summary(self) -> str:
        """Return what was found in a few words."""

    @abstractmethod
    def marks(self) -> list[Mark]:
        """Return what was found for the page of a run, by falling score or other `MEASURE`."""

    def writers(self) -> dict[str, Callable[[Path], Any]]:
        """Return what writes each of `FILES`, by the name of its format."""
        return {}

    def answers(self) -> dict[str, Callable[[], str | bytes]]:
        """Return what makes each form in which a service answers, by its name, beside JSON."""
        from PIL import Image

        made: dict[str, Callable[[], str | bytes]] = {
            "overlay": lambda: as_png(self.plot()),
            "image": lambda: as_png(Image.fromarray(np.ascontiguousarray(self.image))),
        }
        if self.heatmap is not None:
            made["heatmap"] = lambda: as_png(self.plot_heatmap())
        if (geojson := self._texts().get(".geojson")) is not None:
            made["geojson"] = geojson
        return made

    def drawn(self) -> dict[str, Any]:
        """Return what somebody needs who draws `content` over the image, beside it.

        With a heat map: `heatmap`, a grey PNG file in base64, and what is `explained` by it.
        """
        if self.heatmap is None:
            return {}
        grey = (255 * self.heatmap).round().astype(np.uint8)
        return {"heatmap": as_text(grey), "explained": self.explained and self.explained[0]}

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the original image."""
        height, width = self.image.shape[:2]
        return height, width

    @property
    def file_name(self) -> str:
        """The last part of `path`, or "image" for pixels in memory."""
        if self.path is None:
            return "image"
        text = unquote(urlsplit(self.path).path) if "://" in self.path else self.path
        return Path(text).name or "image"

    @property
    def name(self) -> str:
        """What tells the image apart: its file name, with folders where the source has several."""
        return self.source_name or self.file_name

    def __repr__(self) -> str:
        time = f", {sum(self.speed.values()):.0f} ms" if self.speed else ""
        return one_line(f"{self.name}: {self.summary()}{time}")

    def _repr_png_(self) -> bytes:
        """Return the picture of `plot` for a notebook, made smaller if it is large."""
        picture = self.plot() if max(self.size) <= LARGE else self._overview(NOTEBOOK_SIDE)
        picture.thumbnail((NOTEBOOK_SIDE, NOTEBOOK_SIDE))
        stream = io.BytesIO()
        picture.save(stream, "PNG")
        return stream.getvalue()

    def _overview(self, side: int) -> Image.Image:
        """Return the picture of `plot` with sides of up to `side` pixels, drawn part by part."""
        from PIL import Image

        height, width = self.size
        factor = -(-max(self.size) // side)
        step = factor * max(512 // factor, 1)
        canvas = Image.new("RGB", (-(-width // factor), -(-height // factor)))
        for y in range(0, height, step):
            for x in range(0, width, step):
                part = self.plot_part((x, y, min(x + step, width), min(y + step, height)))
                canvas.paste(part.reduce(factor), (x // factor, y // factor))
        return canvas

    def save_heatmap(self, path: str | Path) -> Path:
        """Write a picture of the image with `heatmap` over it, and `explained` marked in it.

        Args:
            path: the file, an image format.

        Returns:
            The path.

        Raises:
            ValueError: if there is no heat map, or the file cannot be written.
        """
        path = Path(home_path(path))
        picture = self.plot_heatmap()
        with replacing_picture(path) as temporary:
            picture.save(temporary, quality=92)
        return path

    def plot_heatmap(self) -> Image.Image:
        """Return the image with `heatmap` over it, and `explained` marked in it.

        Raises:
            ValueError: if there is no heat map.
        """
        from ..drawing.heatmap import draw_heatmap

        if self.heatmap is None:
            raise ValueError(f"{self.name} has no heat map: predict with explain=gradcam")
        text, frame = "", None
        if self.explained is not None:
            name, number, place = self.explained
            shown = f"{number / 1000:.0%}" if self.MEASURE == "share" else f"{number / 1000:.2f}"
            text = f"{one_line(name)} {shown}"
            if place is not None:
                x, y, width, height = place
                frame = x, y, x + width, y + height
        return draw_heatmap(self.image, self.heatmap, text=text, frame=frame)

    def show(self, *, labels: bool = True) -> None:
        """Show the picture of `plot`: in the notebook, or in the system's image viewer.

        Args:
            labels: see `plot`.

        Raises:
            OSError: on a machine without a display.
        """
        notebook = sys.modules.get("IPython")
        if notebook is not None and getattr(notebook.get_ipython(), "kernel", None) is not None:
            notebook.display.display(self.plot(labels=labels))
            return
        if sys.platform.startswith("linux") and not (
            os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        ):
            raise OSError("no display to show the image on: use result.save('overlay.png')")
        self.plot(labels=labels).show(title=repr(self))

    def save(self, path: str | Path, *, labels: bool = True) -> Path:
        """Write the picture of `plot`, or data if `path` ends in .json or another data format.

        Args:
            path: the file.
            labels: of the picture, see `plot`.

        Returns:
            The path.

        Raises:
            ValueError: if the suffix is that of no image format, or the file cannot be written.
        """
        path = Path(home_path(path))
        data = {".json": self.to_json, **self._texts()}.get(path.suffix.lower())
        if data is None and path.suffix.lower() not in _writable():
            others = ", ".join([".json", *self._texts()])
            raise ValueError(
                f"save: {str(path)!r} must end in .png, .jpg, another image suffix, "
                + " or ".join(others.rsplit(", ", 1))
            )
        if data is not None:
            write_whole(path, data(), durable=False)
            return path
        picture = self.plot(labels=labels)
        with replacing_picture(path) as temporary:
            picture.save(temporary, quality=92)  # of JPEG and WebP; others ignore it
        return path

    def _texts(self) -> dict[str, Callable[[], str]]:
        """Return what makes the text of further data formats, by suffix."""
        return {}

    def to_json(self) -> str:
        """Return everything but the pixels as JSON text.

        An object with `path`, `name`, of videos `frame` and `time`, of a page that was asked for
        its `page`, where its file declares axes its `axes`, of an image whose look a signal ended
        `stopped`, `height`, `width`, `speed` and what the task adds.
        """
        height, width = self.size
        place: dict[str, Any] = {}
        if self.frame is not None:
            place |= {"frame": self.frame, "time": self.time}
        place |= {"page": self.page} if self.page is not None else {}
        place |= {"axes": dict(self.axes)} if self.axes else {}
        if self.stopped is not None:
            place |= {"stopped": dict(zip(("tiles", "of"), self.stopped, strict=True))}
        return to_json(
            {
                "path": self.path,
                "name": self.name,
                **place,
                "height": height,
                "width": width,
                "speed": {name: round(ms, 2) for name, ms in self.speed.items()},
                **self.content(),
            }
        )


def as_png(picture: Image.Image) -> bytes:
    """Return a picture as the bytes of a PNG file."""
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def as_text(picture: np.ndarray) -> str:
    """Return 8-bit grey pixels (H, W) as a PNG file in base64."""
    from PIL import Image

    return base64.b64encode(as_png(Image.fromarray(picture))).decode("ascii")


def _writable() -> set[str]:
    from PIL import Image

    return {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.SAVE}
