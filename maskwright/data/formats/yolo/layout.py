"""Where things lie in YOLO data sets: `data.yaml`, the images of a split, the labels of an image.

The labels of images/train/a.jpg are labels/train/a.txt: the last folder called images becomes
labels. Where there is none, they lie beside the image or in a folder labels beside it. An image
without a file of labels is one without objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from ..folders import (
    Tree,
    is_file,
    read_lines,
)

LABELS, YAML = "YOLO labels", "YOLO data.yaml"
LABEL_FOLDERS = ("labels", "label", "annotations")
NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels", "names.txt", "data.names")
NO_LABELS = (*NAME_FILES, "train.txt", "val.txt", "valid.txt", "test.txt", "notes.txt")
MAX_JOINTS = 1000


@dataclass(frozen=True)
class Keypoints:
    """What `data.yaml` says of keypoints.

    Attributes:
        count: J.
        numbers: 2 or 3 for each: x and y, and perhaps visibility.
        names: J names; () for none.
        mirrored: the keypoint that each becomes in a mirror; () for none.
    """

    count: int
    numbers: int
    names: tuple[str, ...] = ()
    mirrored: tuple[int, ...] = ()


def read_names(content: Mapping[str, Any], file: Path) -> dict[int, str]:
    """Return the class names of a `data.yaml` by number.

    Raises:
        ValueError: if they are no list and no mapping of numbers, or `nc` is another number.
    """
    names, count = content.get("names"), content.get("nc")
    if names is None and isinstance(count, int) and 0 < count <= 100_000:
        return {number: str(number) for number in range(count)}
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names or not all(_named(*item) for item in names.items()):
        raise ValueError(
            f"{file}: names must be a list of class names, or number: name, got {str(names)[:80]}"
        )
    found = {int(number): str(name) for number, name in names.items()}
    if count is not None and count != len(found):
        raise ValueError(f"{file}: nc is {count}, but there are {len(found)} names: correct one")
    return dict(sorted(found.items()))


def _named(number: Any, name: Any) -> bool:
    whole = isinstance(number, int) or (isinstance(number, str) and number.isdecimal())
    return whole and isinstance(name, str | int | float) and bool(str(name).strip())


def read_keypoints(content: Mapping[str, Any], file: Path) -> Keypoints | None:
    """Return what a `data.yaml` says of keypoints, None for nothing.

    Raises:
        ValueError: if `kpt_shape` is not [J, 2 or 3], or `flip_idx` does not fit.
    """
    shape = content.get("kpt_shape")
    if shape is None:
        return None
    ok = isinstance(shape, list) and len(shape) == 2 and all(type(one) is int for one in shape)
    if not ok or not 1 <= shape[0] <= MAX_JOINTS or shape[1] not in (2, 3):
        raise ValueError(
            f"{file}: kpt_shape must be [number of keypoints, 2 or 3], got {str(shape)[:80]}"
        )
    count = shape[0]
    flip = content.get("flip_idx") or []
    pairs = isinstance(flip, list) and sorted(map(str, flip)) == sorted(map(str, range(count)))
    if flip and not (pairs and all(flip[flip[k]] == k for k in range(count))):
        raise ValueError(
            f"{file}: flip_idx must name for each of the {count} keypoints the one that it becomes "
            f"in a mirror, got {str(flip)[:80]}"
        )
    named = content.get("kpt_names")
    if isinstance(named, dict) and named:
        named = next(iter(named.values()))
    names = tuple(map(str, named)) if isinstance(named, list) else ()
    if len(names) != count or len(set(names)) < count:
        names = ()
    return Keypoints(count, shape[1], names, tuple(flip))


def images_of(places: Iterable[Path], tree: Tree, base: Path) -> Iterator[Path]:
    """Yield the images of folders, also those below them, and of lists; sorted, each once."""
    found: dict[Path, None] = {}
    for place in places:
        if place.is_dir():
            for folder in tree.below(place, 6):
                found.update(dict.fromkeys(tree.images(folder)))
        else:
            found.update(dict.fromkeys(listed(place, base)))
    yield from found


def listed(listing: Path, base: Path) -> Iterator[Path]:
    """Yield the images of a list, below its folder or `base`.

    Of a path that is absolute, or goes up, only the end counts.

    Raises:
        ValueError: if the list cannot be read.
    """
    places = dict.fromkeys((base, listing.parent))
    for line in read_lines(listing):
        parts = PureWindowsPath(line.strip()).parts  # both kinds of slashes
        anchor = PureWindowsPath(line.strip()).anchor
        parts = tuple(part for part in parts if part not in (anchor, ".", ".."))
        if parts:
            tried = [one.joinpath(*parts[k:]) for k in range(len(parts)) for one in places]
            yield next((one for one in tried if is_file(one)), tried[0])


def labels_of(image: Path) -> Path:
    """Return where the labels of an image are to lie."""
    parts = list(image.parts)
    for k in range(len(parts) - 2, -1, -1):
        if parts[k].lower() == "images":
            for name in ("labels", "Labels"):
                other = Path(*parts[:k], name, *parts[k + 1 :]).with_suffix(".txt")
                if other.parent.is_dir():
                    return other
            return Path(*parts[:k], "labels", *parts[k + 1 :]).with_suffix(".txt")
    beside = image.with_suffix(".txt")
    if not is_file(beside):
        for name in LABEL_FOLDERS:
            for folder in (image.parent / name, image.parent.parent / name):
                inner = folder / image.parent.name
                for one in (folder, inner):
                    if is_file(one / beside.name):
                        return one / beside.name
    return beside


def joint_names(keypoints: Keypoints) -> tuple[str, ...]:
    """Return the names of keypoints; without any, such that they change places as `flip_idx` says.

    Example:
        >>> joint_names(Keypoints(3, 3, mirrored=(0, 2, 1)))
        ('keypoint_1', 'left_2', 'right_2')
    """
    if keypoints.names:
        return keypoints.names
    names = [f"keypoint_{k + 1}" for k in range(keypoints.count)]
    for k, other in enumerate(keypoints.mirrored):
        if k < other:
            names[k], names[other] = f"left_{k + 1}", f"right_{k + 1}"
    return tuple(names)
