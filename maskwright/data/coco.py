"""Reader of COCO JSON: detection, instance segmentation and keypoints.

Nothing is dropped in silence: what cannot be used is left out or repaired and listed in
`Dataset.faults`. Images are looked for on the disk but not decoded. The format is described at
https://cocodataset.org/#format-data; beyond it, ids may be any whole numbers, a byte order mark is
skipped, and annotations without an id, box or area get one.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from maskwright.structures import Skeleton

from .builder import Builder
from .objects import shown, whole_number
from .records import Dataset
from .skeletons import read_skeleton


def read_coco(
    path: Path,
    roots: Sequence[Path] | None = None,
    *,
    split: str = "train",
    names: Sequence[str] | None = None,
) -> Dataset:
    """Read one COCO JSON.

    Args:
        path: the file.
        roots: folders in which the images may lie, the one that holds most of them is taken;
            None: the folder of the file.
        split: name of the split.
        names: class names of another split or of a model, which give the labels; None: the
            categories of the file in the order of their ids.

    Raises:
        ValueError: if the file is no COCO JSON, holds no usable image, or uses a class that is not
            in `names`.
    """
    # Millions of small objects, none of them garbage: collecting would take half of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _Reader(path, split).read(list(roots or [path.parent]), names)
    finally:
        if collecting:
            gc.enable()


def load_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        ValueError: if it is missing, no JSON, or cut off.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is a folder, a pipe or a device, not a JSON file")
    try:
        return json.loads(path.read_bytes())  # from bytes: any UTF, with or without its mark
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply to be read") from None
    except ValueError as error:
        raise ValueError(
            f"{path} is no valid JSON ({error}): it may be cut off; export or copy it again"
        ) from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from None


class _Reader(Builder):
    """State of reading one file."""

    def read(self, roots: list[Path], names: Sequence[str] | None) -> Dataset:
        content = load_json(self.path)
        lists = ("images", "annotations", "categories")
        if not isinstance(content, dict) or not all(
            isinstance(content.get(key), list) for key in lists
        ):
            raise ValueError(
                f"{self.path} is no COCO JSON: expected an object with the lists images, "
                f"annotations and categories, got "
                f"{sorted(content)[:8] if isinstance(content, dict) else type(content).__name__}"
            )
        entries = list(self._annotations(content["annotations"]))
        classes = self.classes(
            content["categories"], [entry.get("category_id") for _, entry in entries], names
        )
        skeleton, jointed = self._skeleton(content["categories"], classes.labels, entries)
        return self.build(content["images"], roots, entries, classes, skeleton, jointed)

    def _skeleton(
        self,
        categories: list[dict[str, Any]],
        labels: dict[int, int],
        entries: list[tuple[int, dict[str, Any]]],
    ) -> tuple[Skeleton | None, set[int]]:
        """Return the keypoints of the data set, and the ids of the categories that have them."""
        skeleton, jointed, faults = read_skeleton(categories, labels)
        for fault in faults:
            self.fault(*fault)
        having = [number for number, entry in entries if entry.get("keypoints")]
        if skeleton is None and having:
            self.fault(
                "keypoints without names",
                f"{len(having)} annotations have keypoints, but no category names them: add the "
                'list "keypoints" with their names (and "skeleton", the lines between them)',
                annotation=having[0],
            )
        return skeleton, jointed

    def _annotations(self, entries: list[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (id, annotation) of every well-formed annotation, each id once."""
        seen: dict[int, Any] = {}
        nameless = 0
        for entry in entries:
            if not isinstance(entry, dict):
                self.fault("bad annotation", f"an annotation is an object, got {shown(entry)}")
                continue
            number = whole_number(entry.get("id"))
            if number is None:
                nameless -= 1
                number = nameless
                if "id" in entry:
                    message = f"annotation id {shown(entry['id'])} is no whole number: counted anew"
                    self.fault("bad annotation id", message, "repaired", annotation=number)
            elif number in seen:
                if entry == seen[number]:
                    message = f"annotation {number} occurs twice"
                    self.fault("duplicate annotation", message, annotation=number)
                    continue
                self.fault(
                    "duplicate annotation id",
                    f"annotation id {number} is used for different objects: both are kept",
                    "repaired",
                    annotation=number,
                )
            seen[number] = entry
            yield number, entry
