"""Files of a prediction run: a picture and a JSON file per image, and a page that shows all."""

from __future__ import annotations

import os
import re
import shutil
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import OptionError, WriteError, nearest
from ..files import EVERYWHERE, replacing_picture
from ..storage.rundir import write_fault, write_whole
from ..text import one_line
from .gallery_page import gallery_html
from .result import ImageResult
from .saved import SavedResult
from .zoom import LARGE, write_zoom

if TYPE_CHECKING:
    from PIL import Image

JPEG_SUFFIXES = (".jpg", ".jpeg", ".jfif")
MAX_STEM = 200  # bytes of a name; file systems take 255 with all that stands before and behind
ORIGINAL_SIDE = 1600  # the page shows originals for comparison: no need of all their pixels


class ResultWriter:
    """Writes the files of results into a folder, under names that do not collide.

    `photo.jpg` becomes `photo.jpg` and `photo.json`; other formats than JPEG become PNG, which
    keeps their pixels. A second image of the same name gets a number, a very long name is cut. Of
    an image with a side of more than `zoom.LARGE` pixels the picture is smaller, and a page zooms
    into the full one.

    Attributes:
        folder: where the files go.
        failed: why the files of an image could not be written, by the name of the image; see
            `try_write`.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        originals: bool = False,
        formats: str | Sequence[str] | None = None,
        labels: bool = True,
    ) -> None:
        """Make the folder.

        Args:
            folder: where the files go.
            originals: also keep a copy of each image in `originals/`, for the page.
            formats: further files of each image: names of `ImageResult.FILES`.
            labels: write names and scores into the pictures.

        Raises:
            ValueError: if the folder cannot be made.
        """
        self.folder = Path(folder)
        self._formats, self._labels = split_names(formats), labels
        self._originals = self.folder / "originals" if originals else None
        self._free = FreeNames()
        self.failed: dict[str, str] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"cannot make the folder {self.folder} ({error.strerror or error}); "
                "give another one with save="
            ) from None

    def try_write(self, result: ImageResult) -> SavedResult | None:
        """Write the files of one result; what cannot be written concerns this image alone.

        Returns:
            What was written, or None with a warning and an entry in `failed`.

        Raises:
            ValueError: if the disk takes nothing more, or the folder belongs to the images: then
                it would be so for all others.
        """
        try:
            return self.write(result)
        except _NoPlaceError:
            raise
        except ValueError as error:
            self.failed[result.name] = str(error)
            warnings.warn(f"{one_line(result.name)}: not saved: {error}", stacklevel=2)
            return None

    def write(self, result: ImageResult) -> SavedResult:
        """Write the files of one result.

        Raises:
            ValueError: if the picture would overwrite the image itself, or cannot be written.
        """
        try:
            return self._write(result)
        except WriteError as error:
            if error.number in EVERYWHERE:
                raise _NoPlaceError(str(error)) from None
            raise
        except OSError as error:
            kind = _NoPlaceError if error.errno in EVERYWHERE else ValueError
            path = self.folder if error.filename is None else Path(os.fsdecode(error.filename))
            raise kind(str(write_fault(path, error))) from None

    def _write(self, result: ImageResult) -> SavedResult:
        source = Path(result.file_name)
        # A page of a file has a name of its own.
        stem = self._free.take((source if "://" in result.name else Path(result.name)).stem)
        suffix = ".jpg" if source.suffix.lower() in JPEG_SUFFIXES else ".png"
        overlay = self.folder / f"{stem}{suffix}"
        if result.path is not None and overlay.resolve() == Path(result.path).resolve():
            raise _NoPlaceError(
                f"save={str(self.folder)!r} would overwrite the image {result.path}: "
                "give another folder"
            )
        # What was found first: if the disk fills, it is the picture that lacks.
        data = result.save(overlay.with_suffix(".json"))
        check_formats(self._formats, result.FILES)
        for name in self._formats:
            ending, below = result.FILES[name]
            result.writers()[name](self.folder / below / f"{stem}{ending}")
        page = self.folder / f"{stem}_zoom.html" if max(result.size) > LARGE else None
        try:
            if page is not None:
                self._write_large(result, page, overlay)
            else:
                result.save(overlay, labels=self._labels)
        except (WriteError, OSError) as error:
            if page is not None:  # the tiles of a part of the picture
                shutil.rmtree(page.with_suffix(""), ignore_errors=True)
            if isinstance(error, OSError):
                place = overlay if error.filename is None else Path(os.fsdecode(error.filename))
                error = write_fault(place, error)
            kept = f"{error}; what was found is there, {data.name}, the picture is not"
            raise WriteError(kept, error.number) from None
        heatmap = None
        if result.heatmap is not None:
            heatmap = self.folder / "heatmaps" / f"{stem}.jpg"
            heatmap.parent.mkdir(exist_ok=True)
            result.save_heatmap(heatmap)
        original = None
        if self._originals is not None:
            original = self._write_original(result, f"{stem}.jpg")
        return SavedResult(
            result.name,
            overlay,
            data,
            original,
            result.size,
            result.counts(),
            sum(result.speed.values()),
            tuple(result.marks()),
            heatmap,
            result.MEASURE,
            page,
        )

    def _write_large(self, result: ImageResult, page: Path, overlay: Path) -> None:
        """Write a page that zooms into the picture of a result, and an overview as the picture."""
        height, width = result.size
        counts = [(f"{count:,}", name) for name, count in list(result.counts().items())[:4]]
        facts = [(f"{width:,} × {height:,}", "pixels"), *counts]

        def draw(frame: tuple[int, int, int, int]) -> Image.Image:
            return result.plot_part(frame, labels=self._labels)

        overview = write_zoom(page, result.size, draw, result.name, facts, result.marks())
        with replacing_picture(overlay) as temporary:
            overview.save(temporary, quality=92)

    def _write_original(self, result: ImageResult, name: str) -> Path:
        from PIL import Image

        assert self._originals is not None
        self._originals.mkdir(exist_ok=True)
        picture = Image.fromarray(_reduced(result.image, ORIGINAL_SIDE))
        picture.thumbnail((ORIGINAL_SIDE, ORIGINAL_SIDE))
        path = self._originals / name
        with replacing_picture(path) as temporary:
            picture.save(temporary, quality=88)
        return path


class FreeNames:
    """Names of files in one folder that do not collide, on any file system."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, stem: str) -> str:
        """Return a name like `stem` that was not returned before."""
        stem = _cut(re.sub(r"[^\w\-. ()+]", "_", stem)) or "image"
        name, number = stem, 1
        while _same(name) in self._taken:
            number += 1
            name = f"{stem}_{number}"
        self._taken.add(_same(name))
        return name


class _NoPlaceError(ValueError):
    """What keeps the files of one image from being written keeps those of all others as well."""


def _reduced(image: Any, side: int) -> np.ndarray:
    """Return an image (H, W, 3) with a long side of twice `side` or less, read in bands."""
    from PIL import Image

    factor = max(image.shape[:2]) // side
    if factor < 2:
        return np.asarray(image)
    rows = factor * max(256 // factor, 1)
    bands = [image[top : top + rows, :] for top in range(0, image.shape[0], rows)]
    return np.concatenate([np.asarray(Image.fromarray(band).reduce(factor)) for band in bands])


def _cut(stem: str) -> str:
    """Return a name short enough for a number and any suffix behind it, on any file system."""
    return stem.encode()[:MAX_STEM].decode(errors="ignore")


def _same(name: str) -> str:
    """Return what is equal for names that some file system does not tell apart."""
    return unicodedata.normalize("NFC", name).casefold()


def split_names(names: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return names that are given as a list or joined by commas, each once; png is labels."""
    parts = names.split(",") if isinstance(names, str) else names or ()
    plain = [part.strip() for part in parts if part.strip()]
    return tuple(dict.fromkeys("labels" if part == "png" else part for part in plain))


def check_formats(names: Sequence[str], known: Iterable[str]) -> None:
    """Make sure that formats of further files are known.

    Raises:
        OptionError: if one is not.
    """
    known = list(known)
    for name in names:
        if name not in known:
            words = ["labels (or png)" if one == "labels" else one for one in known]
            there = ", ".join(words) or "none for this model"
            raise OptionError(f"formats={name}: there are {there}{nearest(name, known)}")


def write_gallery(
    rows: Iterable[SavedResult | ImageResult], folder: str | Path, title: str = "Predictions"
) -> Path:
    """Write `index.html`, a page of all images, and return its path.

    Args:
        rows: what `ResultWriter.write` returned for files in `folder`; results that are not
            saved yet are saved.
        folder: where the page goes.
        title: heading of the page.
    """
    writer = ResultWriter(folder, originals=True)
    saved = [row if isinstance(row, SavedResult) else writer.write(row) for row in rows]
    path = Path(folder) / "index.html"
    write_whole(path, gallery_html(saved, Path(folder), title))
    return path
