"""From what the user calls a source to a list of images to be read one by one.

A source is an image file, a folder, a glob pattern, an http(s) address, a uint8 array, a PIL
image, or a list of those. Nothing is read here: only names are listed.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..paths import home_path, nearest_path

# What Pillow reads everywhere; other files of a folder are passed over without a word.
IMAGE_SUFFIXES = (
    *(".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg"),
    *(".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"),
)


@dataclass(frozen=True)
class Source:
    """One image that has not been read yet.

    Attributes:
        data: what `data.images.load_image` takes.
        name: file name, or "image 3" for the third array of a list.
        path: path or address as text; None for pixels in memory.
    """

    data: Any
    name: str
    path: str | None


@dataclass(frozen=True)
class Sources:
    """The images of one source.

    Attributes:
        items: the images in order.
        single: True if the user named exactly one image, so that failing to read it is an error;
            one bad file among many is reported and passed over.
    """

    items: list[Source]
    single: bool

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Source]:
        return iter(self.items)


def list_sources(source: Any) -> Sources:
    """Return the images that `source` names; a folder or pattern sorted by path.

    Raises:
        ValueError: if nothing is there, or it is no image; the message names the nearest that is.
    """
    if isinstance(source, Sources):
        return source
    if isinstance(source, Sequence) and not isinstance(
        source, str | bytes | bytearray | memoryview
    ):
        if not source:
            raise ValueError("source is an empty list: name at least one image")
        items = [item for part in source for item in list_sources(part)]
        return Sources([_number(item, i) for i, item in enumerate(items)], single=False)
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        name = Path(unquote(urlsplit(source).path)).name or urlsplit(source).netloc
        return Sources([Source(source, name, source)], single=True)
    if isinstance(source, str | Path):
        return _list_path(source)
    # A PIL image that was read from a file knows its name, and so does an open file.
    filename = getattr(source, "filename" if hasattr(source, "filename") else "name", "")
    if isinstance(filename, str) and filename:
        return Sources([Source(source, Path(filename).name, filename)], single=True)
    return Sources([Source(source, "image", None)], single=True)


def one_source(image: Any, index: int = 0) -> Source:
    """Return the one image that `image` names, the `index`-th of a list.

    Raises:
        ValueError: if it does not exist, or names several.
    """
    found = list_sources(image)
    if not found.single:
        what = repr(str(image)) if isinstance(image, str | Path) else "a list"
        raise ValueError(
            f"one image expected, but {what} names {len(found)}: for folders, patterns and lists "
            "of lists use maskwright.predict(model, source)"
        )
    return _number(found.items[0], index)


def _number(item: Source, index: int) -> Source:
    return Source(item.data, f"image {index + 1}", None) if item.path is None else item


def _list_path(source: str | Path) -> Sources:
    text = str(home_path(source))
    path = Path(text)
    if text and path.is_file():  # before the pattern: a file name may hold brackets
        _check_suffix(path)
        return Sources([_file(path)], single=True)
    if text and path.is_dir():
        return Sources([_file(file) for file in _list_folder(path)], single=False)
    if glob.has_magic(text):
        # glob takes absolute patterns and "**/*", which Path.glob does not before Python 3.13.
        found = sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207
        images = [file for file in found if _is_image(file)]
        if not images:
            what = f"{len(found)} files, none an image ({_suffixes()})" if found else "nothing"
            raise ValueError(f"source: the pattern {text!r} matches {what}")
        return Sources([_file(file) for file in images], single=False)
    raise ValueError(f"source: {text!r} does not exist{nearest_path(path)}")


def _file(path: Path) -> Source:
    return Source(path, path.name, str(path))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def _suffixes() -> str:
    return ", ".join(IMAGE_SUFFIXES)


def _check_suffix(path: Path) -> None:
    """Refuse what is surely no image; a file without a suffix is given the benefit of doubt."""
    if path.suffix and path.suffix.lower() not in IMAGE_SUFFIXES:
        raise ValueError(
            f"source: {str(path)!r} is not an image: give a file that ends in one of {_suffixes()}"
        )


def _list_folder(path: Path) -> list[Path]:
    entries = sorted(path.iterdir())
    images = [entry for entry in entries if _is_image(entry) and not entry.name.startswith(".")]
    if images:
        return images
    # Folders below are not searched unasked: they may hold label images or earlier results.
    below = next((e for e in entries if e.is_dir() and any(map(_is_image, e.iterdir()))), None)
    if below is not None:
        raise ValueError(
            f"source: the folder {str(path)!r} holds no image itself; did you mean "
            f"{str(below)!r}, or everything below: source='{path}/**/*'?"
        )
    raise ValueError(f"source: the folder {str(path)!r} holds no image ({_suffixes()})")
