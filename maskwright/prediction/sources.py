"""From what the user calls a source to a list of images to be read one by one.

A source is an image file, a folder, a glob pattern, an http(s) address, bytes, an open file, an
array, a tensor, a PIL image, or a list of those. Nothing is read here: only names are listed.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..channels import ALL_PAGES
from ..data.pixels.dicom import is_dicom
from ..data.pixels.images import image_header
from ..data.pixels.kinds import count_frames, image_suffixes
from ..data.pixels.picture import open_picture
from ..paths import home_path, nearest_path
from ..stores import StoreFile, is_address, list_store, store_name
from .video.kinds import is_video

MOST_FOLDERS = 100  # that are looked into for an image
USUAL = ".jpg, .png, .tif, .webp, .avif or .dcm"
VIDEOS = ".mp4, .mkv or .avi"
PHOTOS = (".jpg", ".jpeg")  # which hold one image
# Files that systems leave in folders: nobody means them.
LITTER = (".ds_store", "thumbs.db", "desktop.ini")
DIRECTORY = "DICOMDIR"  # the list of the images on a medium, itself a DICOM file
FOREIGN = (".heic", ".heif", ".jxl")  # that Pillow does not read by itself


@dataclass(frozen=True)
class Source:
    """One image that has not been read yet.

    Attributes:
        data: what `data.images.load_image` takes.
        name: file name, with folders where the images of the source lie in several, or "image 3"
            for the third array of a list.
        path: path or address as text; None for pixels in memory.
        page: number of the image in a file of several; None: the first.
        axes: where that stands on the axes which the file declares, such as {"T": 3, "Z": 0}; only
            of an image that was read, and empty if the file declares none.
    """

    data: Any
    name: str
    path: str | None
    page: int | None = None
    axes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Sources:
    """The images of one source.

    Attributes:
        items: the images in order.
        single: True if the user named exactly one image, so that failing to read it is an error;
            one bad file among many is reported and passed over.
        passed_over: what a folder or pattern holds beside these, and how to take it; "": nothing.
    """

    items: list[Source]
    single: bool
    passed_over: str = ""

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
        parts = [list_sources(part) for part in source]
        items = [_number(item, i) for i, item in enumerate(item for part in parts for item in part)]
        notes = "; ".join(part.passed_over for part in parts if part.passed_over)
        return Sources(_told_apart(items), single=False, passed_over=notes)
    if isinstance(source, str) and source.lower().startswith(("http://", "https://")):
        name = Path(unquote(urlsplit(source).path)).name or urlsplit(source).netloc
        return Sources([Source(source, name, source)], single=True)
    if is_address(source):
        return _list_store(source)
    if isinstance(source, str | Path):
        return _list_path(source)
    # A PIL image that was read from a file knows its name, and so does an open file.
    filename = getattr(source, "filename" if hasattr(source, "filename") else "name", "")
    if isinstance(filename, str) and filename:
        return Sources([Source(source, Path(filename).name, filename)], single=True)
    return Sources([Source(source, "image", None)], single=True)


def with_page(sources: Sources, page: int | tuple[range, ...] | None) -> Sources:
    """Return a page of each file, or several as images of their own, named `stem-page2.tif`.

    Where a file declares axes, their numbers stand behind that of the page, as in
    `stem-page2-t0-z2.tif`.
    A file that cannot be opened is left as it is: reading it will tell. So it will of the first
    page that a range has and the file has not, unless the range has no end.

    Args:
        sources: the files.
        page: see `maskwright.channels.parse_page`.
    """
    if page is None:
        return sources
    if not isinstance(page, tuple):
        return replace(sources, items=[replace(item, page=page) for item in sources])
    found = []
    for item in sources:
        count, places = count_pages(item)
        path = Path(item.name)
        for number in _numbers(page, count):
            axes = places[number] if number < len(places) else {}
            spot = "".join(f"-{axis.lower()}{at}" for axis, at in axes.items())
            part = f"{path.stem}-page{number:0{len(str(count - 1))}}{spot}{path.suffix}"
            alone = count == 1 and number == 0
            name = item.name if alone else str(path.with_name(part))
            found.append(replace(item, name=name, page=None if alone else number))
    return Sources(found, sources.single and len(found) == 1, sources.passed_over)


def _numbers(pages: tuple[range, ...], count: int) -> list[int]:
    """Return the numbers of some pages, each once, in a file with so many."""
    numbers: dict[int, None] = {}
    for one in pages:
        there = range(one.start, min(one.stop, count))
        numbers |= dict.fromkeys(there)
        endless = one.stop == ALL_PAGES[0].stop
        if not (there if endless else one.stop <= count):
            numbers[max(one.start, count)] = None
    return list(numbers)


def count_pages(source: Source) -> tuple[int, tuple[dict[str, int], ...]]:
    """Return the images in a file, one of what cannot be opened; of each its axes, if declared."""
    data = source.data
    try:
        if isinstance(data, Path):
            if data.suffix.lower() in PHOTOS:
                return 1, ()
            header = image_header(data)
            return header.frames, header.places
        if hasattr(data, "n_frames"):
            return count_frames(data), ()
        if isinstance(data, bytes | bytearray | memoryview) or hasattr(data, "read"):
            with open_picture(data) as picture:
                return picture.pages, ()
    except ValueError:
        pass
    return 1, ()


def _told_apart(items: list[Source]) -> list[Source]:
    """Return the images with the folders in their names, if they do not lie in one.

    Folders are given from the one that holds them all on; an address stands whole where another
    image has its name.
    """
    local = [
        None
        if item.path is None or "://" in item.path
        else Path(os.path.normpath(Path(item.path).absolute()))
        for item in items
    ]
    folders = {str(path.parent) for path in local if path is not None}
    if len(folders) > 1:
        try:
            root: str | None = os.path.commonpath(folders)
        except ValueError:  # on different drives
            root = None
        items = [
            item
            if path is None
            else replace(item, name=(path.relative_to(root) if root else path).as_posix())
            for item, path in zip(items, local, strict=True)
        ]
    count = Counter(item.name for item in items)
    return [
        replace(item, name=item.path)
        if item.path is not None and "://" in item.path and count[item.name] > 1
        else item
        for item in items
    ]


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
        _check_image(path)
        return Sources([_file(path)], single=True)
    if text and path.is_dir():
        return _list_folder(path)
    if glob.has_magic(text):
        # glob takes absolute patterns and "**/*", which Path.glob does not before Python 3.13.
        found = sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207
        images = [file for file in found if _is_image(file)]
        taken = set(images)
        others = [file for file in found if file not in taken and file.is_file()]
        if not images:
            what = (
                f"{len(found)} files, none an image ({USUAL}) or video ({VIDEOS})"
                if found
                else "nothing"
            )
            raise ValueError(f"source: the pattern {text!r} matches {what}")
        note = _describe(text, len(images), [_count_kinds(others)])
        return Sources(_told_apart([_file(file) for file in images]), False, note)
    raise ValueError(f"source: {text!r} does not exist{nearest_path(path)}")


def _list_store(address: str) -> Sources:
    """Return the images of an object store at an address: a file, a folder or a pattern."""
    found = list_store(address)
    if found == [address]:
        return Sources([Source(StoreFile(address), store_name(address), address)], single=True)
    images = [one for one in found if Path(one).suffix.lower() in image_suffixes()]
    taken = set(images)
    others = _count_kinds(Path(one) for one in found if one not in taken)
    if not images:
        what = f"there are {others}" if others else "there is nothing"
        raise ValueError(f"source: {address!r} holds no image ({USUAL}): {what}")
    folders = [one.split("/")[:-1] for one in images]
    same = 0  # folders that all have in common; the first and the last differ most, in order
    while same < min(len(folders[0]), len(folders[-1])) and folders[0][same] == folders[-1][same]:
        same += 1
    items = [Source(StoreFile(one), "/".join(one.split("/")[same:]), one) for one in images]
    return Sources(items, False, _describe(address, len(items), [others]))


def _file(path: Path) -> Source:
    return Source(path, path.name, str(path))


def _is_image(path: Path) -> bool:
    """Tell whether a file is an image by its name, or without a suffix, as of scanners, DICOM."""
    if path.suffix and not path.suffix[1:].isdecimal():  # 1.2.840.10008 is a name of such files
        return path.suffix.lower() in image_suffixes() and path.is_file()
    if path.name.startswith(".") or path.name == DIRECTORY or not path.is_file():
        return False
    try:
        with path.open("rb") as stream:
            return is_dicom(stream)
    except OSError:  # counted among what was passed over
        return False


def _check_image(path: Path) -> None:
    """Refuse what is surely no image; a file without a suffix is given the benefit of doubt."""
    suffix = path.suffix.lower()
    if not suffix or suffix in image_suffixes():
        return
    try:
        image_header(path)  # an image under another name, such as scan.001
    except ValueError:
        if suffix in FOREIGN:
            raise ValueError(f"source: {str(path)!r} is not read: {_mend(suffix)}") from None
        if is_video(path):
            raise ValueError(
                f"source: {str(path)!r} is a video, and an image is expected here: "
                "maskwright.predict(model, source) looks at videos"
            ) from None
        raise ValueError(
            f"source: {str(path)!r} is neither image nor video: give a file such as "
            f"{USUAL}, {VIDEOS}"
        ) from None


def _mend(suffix: str) -> str:
    return f"Pillow does not read {suffix} by itself: save it as JPEG, PNG or TIFF"


def _list_folder(path: Path) -> Sources:
    """Return the images of a folder, and what it holds beside them."""
    entries = sorted(path.iterdir())
    images = [entry for entry in entries if _is_image(entry)]
    hidden = [entry for entry in images if entry.name.startswith(".")]
    shown = [entry for entry in images if not entry.name.startswith(".")]
    # Folders below are not searched unasked: they may hold label images or earlier results.
    below = [e for e in entries if not e.name.startswith(".") and e.is_dir() and _holds_image(e)]
    taken = set(images)
    others = [e for e in entries if e not in taken and not e.name.startswith(".") and e.is_file()]
    if not shown and below:
        raise ValueError(
            f"source: the folder {str(path)!r} holds no image itself; did you mean "
            f"{str(below[0])!r}, or everything below: source='{path}/**/*'?"
        )
    if not shown:
        kinds = "; ".join(filter(None, (_count_hidden(path, hidden), _count_kinds(others))))
        raise ValueError(
            f"source: the folder {str(path)!r} holds no image ({USUAL}) "
            f"and no video ({VIDEOS})" + (f": there are {kinds}" if kinds else "")
        )
    folders = ""
    if below:
        what = "1 folder" if len(below) == 1 else f"{len(below)} folders"
        folders = f"{what} with images (take all below with source='{path}/**/*')"
    parts = [folders, _count_hidden(path, hidden), _count_kinds(others)]
    return Sources([_file(file) for file in shown], False, _describe(str(path), len(shown), parts))


def _holds_image(folder: Path) -> bool:
    """Tell whether there is an image in a folder or below; one that may not be read has none.

    Looking ends at the first image, and after so many folders that it would take long.
    """
    return any(
        _is_image(Path(parent, name))
        for parent, _, files in islice(os.walk(folder), MOST_FOLDERS)
        for name in files
    )


def _describe(source: str, taken: int, parts: Iterable[str]) -> str:
    """Return the line about what was passed over, or ""."""
    said = "; ".join(part for part in parts if part)
    images = "1 image" if taken == 1 else f"{taken} images"
    return f"source {source!r}: {images} taken, passed over: {said}" if said else ""


def _count_hidden(path: Path, hidden: list[Path]) -> str:
    if not hidden:
        return ""
    what = "1 hidden image" if len(hidden) == 1 else f"{len(hidden)} hidden images"
    return f"{what} (take them with source='{path}/.*')"


def _count_kinds(files: Iterable[Path]) -> str:
    """Return files that are no images, counted by suffix, with what mends it where it can be."""
    kinds = Counter(
        file.suffix.lower() or "no suffix" for file in files if file.name.lower() not in LITTER
    )
    if not kinds:
        return ""
    ranked = kinds.most_common()
    told = ", ".join(f"{kind} ({count})" for kind, count in ranked[:6])
    told += f" and {len(ranked) - 6} more kinds" if len(ranked) > 6 else ""
    mends = "".join(f"; {_mend(kind)}" for kind in kinds if kind in FOREIGN)
    what = "1 file that is no image" if kinds.total() == 1 else f"{kinds.total()} files, no images"
    return f"{what}: {told}{mends}"
