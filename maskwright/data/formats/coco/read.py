"""Reader of COCO JSON: detection, instance segmentation and keypoints.

Nothing is dropped in silence: what cannot be used is left out or repaired and listed in
`Dataset.faults`. Images are looked for on the disk but not decoded. The format is described at
https://cocodataset.org/#format-data; beyond it, ids may be any whole numbers, a byte order mark is
skipped, and annotations without an id, box or area get one; ids of images that are texts are
counted. LVIS (Gupta et al. 2019) tells for which classes an image was looked through: those of its
annotations and its `neg_category_ids`. A class of which not all objects are annotated there
(`not_exhaustive_category_ids`) gets the whole image as a region that is ignored. Images of one
`video_id` belong together. What else the file says of itself, of images and of classes is counted.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from maskwright.paths import takes_paths
from maskwright.structures import Skeleton

from ...building.builder import EMPTY, Builder, grouped
from ...building.objects import flag, shown, whole_number, whole_numbers
from ...records import Dataset
from .json_stream import START, NoObject, json_members
from .skeletons import read_skeleton

LISTS = ("images", "annotations", "categories")
NEGATIVE, NOT_EXHAUSTIVE = "neg_category_ids", "not_exhaustive_category_ids"  # of LVIS
FREQUENCIES = ("r", "c", "f")
VIDEO, VIDEOS = "video_id", "videos"
TITLE = "description"  # alone in `info`, it says what the file is
OF_IMAGE = {"id", "file_name", "height", "width", NEGATIVE, NOT_EXHAUSTIVE, VIDEO}
OF_CLASS = {"id", "name", "supercategory", "frequency", "keypoints", "skeleton", "isthing"}
FEWEST = 10  # groups of images: frames of fewer videos are grouped by stretches
MANY_CROWDS = 0.05  # share of the annotations; COCO itself has 0.01


@takes_paths
def read_coco(
    path: str | Path,
    roots: Sequence[Path] | None = None,
    *,
    split: str = "train",
    names: Sequence[str] | None = None,
    only: Collection[str] | None = None,
    crowd_as_objects: bool = False,
) -> Dataset:
    """Read one COCO JSON.

    Args:
        path: the file.
        roots: folders in which the images may lie, the one that holds most of them is taken;
            None: the folder of the file.
        split: name of the split.
        names: class names of another split or of a model, which give the labels; None: the
            categories of the file in the order of their ids.
        only: file names of the images to read, as they stand in the file; the others belong to
            another split. None: all.
        crowd_as_objects: take what is marked iscrowd=1 as objects like others.

    Raises:
        ValueError: if the file is no COCO JSON, holds no usable image, or uses a class that is not
            in `names`.
    """
    path = Path(path)
    reader = _Reader(path, split)
    return reader.read(list(roots or [path.parent]), names, only, crowd_as_objects)


def _videos(images: Sequence[Any]) -> dict[int, int]:
    """Return which images belong together, by their ids: those of a video, or a stretch of it."""
    of_video: dict[int, list[int]] = {}
    for entry in images:
        number, video = (
            whole_number(entry.get(key)) if isinstance(entry, dict) else None
            for key in ("id", VIDEO)
        )
        if number is not None and video is not None:
            of_video.setdefault(video, []).append(number)
    stretches = math.ceil(FEWEST / max(len(of_video), 1))
    found: dict[int, int] = {}
    for place, frames in enumerate(of_video.values()):
        long = math.ceil(len(frames) / stretches)
        found |= {one: place * stretches + at // long for at, one in enumerate(frames)}
    return found


@dataclass
class _Survey:
    """What has to be known of a file before its annotations can be checked one by one.

    Attributes:
        images: the entries.
        categories: the entries.
        others: what else the file has at its top and is not empty.
        used: the category ids of the annotations.
        repeated: annotation ids that occur more than once.
        lowest: the smallest annotation id, at most 0.
        masks: whether any object has a segmentation; crowd regions alone make no data of masks.
        jointed: how many annotations have keypoints.
        first_jointed: id of the first of these, if it has one.
        count: how many annotations there are.
        crowds: how many of them are marked iscrowd=1, and not to be ignored.
        crowd_as_objects: see `read_coco`.
    """

    images: list[Any] = field(default_factory=list)
    categories: list[Any] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    used: set[int | None] = field(default_factory=set)
    repeated: set[int] = field(default_factory=set)
    lowest: int = 0
    masks: bool = False
    jointed: int = 0
    first_jointed: int | None = None
    count: int = 0
    crowds: int = 0
    crowd_as_objects: bool = False

    def add(self, annotation: Any, seen: set[int]) -> None:
        """Take note of an annotation; `seen` are the ids of those before."""
        if not isinstance(annotation, dict):
            return
        number = whole_number(annotation.get("id"))
        if number is not None:
            (self.repeated if number in seen else seen).add(number)
            self.lowest = min(self.lowest, number)
        self.used.add(whole_number(annotation.get("category_id")))
        crowd = bool(flag(annotation.get("iscrowd")))
        self.count += 1
        self.crowds += crowd and not flag(annotation.get("ignore"))
        if not self.masks and annotation.get("segmentation"):
            self.masks = self.crowd_as_objects or not crowd
        if annotation.get("keypoints"):
            self.first_jointed = self.first_jointed if self.jointed else number
            self.jointed += 1


class _Reader(Builder):
    """State of reading one file, which is gone through twice: images may come last in it."""

    added = 0  # regions that no annotation is

    def read(
        self,
        roots: list[Path],
        names: Sequence[str] | None,
        only: Collection[str] | None,
        crowd_as_objects: bool,
    ) -> Dataset:
        survey = self._survey(crowd_as_objects)
        if only is not None:
            survey.images = self._divide(survey.images, only)
        self._number(survey)
        if not crowd_as_objects and survey.crowds > MANY_CROWDS * survey.count:
            self.fault(
                "many crowd regions",
                f"{survey.crowds} of {survey.count} annotations are marked iscrowd=1, regions of "
                "many that count neither as objects nor as background; where a tool marks single "
                "objects so (supervision and Datumaro those with holes, CVAT all masks), "
                "crowd_as_objects=true takes them as objects",
                "kept",
            )
        federated = [one for one in survey.images if isinstance(one, dict) and NEGATIVE in one]
        unsure = {
            category for one in federated for category in whole_numbers(one.get(NOT_EXHAUSTIVE))
        }
        classes = self.classes(survey.categories, survey.used | unsure, names)
        skeleton, jointed = self._skeleton(survey, classes.labels)
        entries = chain(self._annotations(survey), self._unsure(federated, survey.lowest))
        dataset = self.build(
            survey.images,
            roots,
            entries,
            survey.masks,
            classes,
            skeleton,
            jointed,
            crowd_as_objects=crowd_as_objects,
            checked=self._checked(federated) if federated else None,
        )
        often = {one.get("id"): one.get("frequency") for one in survey.categories}
        frequencies = [often.get(number) for number in dataset.category_ids]
        dataset.frequencies = [one if one in FREQUENCIES else "" for one in frequencies]
        videos = _videos(survey.images)
        self._leave(survey, bool(videos))
        dataset.unread = dict(self.unread)
        return grouped(dataset, videos) if videos else dataset

    def _leave(self, survey: _Survey, videos: bool) -> None:
        """Count what the file has, beside its annotations, and no record."""
        for key in survey.others:
            if not (videos and key == VIDEOS):
                self.leave(f"the entry {shown(key)} of the file")
        for entries, known, of in (
            (survey.images, OF_IMAGE, "an image"),
            (survey.categories, OF_CLASS, "a class"),
        ):
            for entry in (one for one in entries if isinstance(one, dict)):
                for key in (key for key in entry.keys() - known if entry[key] not in EMPTY):
                    self.leave(f"the entry {shown(key)} of {of}")

    def _number(self, survey: _Survey) -> None:
        """Give images a number whose id is a text, as Datumaro writes it, and a name by its URL."""
        texts = []
        highest = 0
        for entry in survey.images:
            if not isinstance(entry, dict):
                continue
            if "file_name" not in entry and isinstance(entry.get("coco_url"), str):
                entry["file_name"] = "/".join(entry.pop("coco_url").split("/")[-2:])
            number = whole_number(entry.get("id"))
            if number is not None:
                highest = max(highest, number)
            elif isinstance(entry.get("id"), str):
                texts.append(entry)
        for entry in texts:
            entry["id"] = self.numbers.setdefault(entry["id"], highest + len(self.numbers) + 1)
        if texts:
            self.fault(
                "image id is a text",
                f"{len(texts)} image(s) have ids such as {shown(next(iter(self.numbers)))}: they "
                f"are counted from {highest + 1} on",
                "repaired",
            )

    def _checked(self, images: list[Any]) -> dict[int, set[int]]:
        """Return the categories that images were looked through for, by image."""
        found: dict[int, set[int]] = {}
        for entry in images:
            number = whole_number(entry.get("id"))
            if number is not None:
                own = (*whole_numbers(entry[NEGATIVE]), *whole_numbers(entry.get(NOT_EXHAUSTIVE)))
                found[number] = set(own)
        for key, entry in json_members(self.path, LISTS):
            if key == "annotations" and isinstance(entry, dict):
                number, category = map(
                    whole_number, (entry.get("image_id"), entry.get("category_id"))
                )
                if number in found and category is not None:
                    found[number].add(category)
        return found

    def _unsure(self, images: list[Any], lowest: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield regions that are ignored, for classes of which not all objects are annotated."""
        for entry in images:
            height, width = whole_number(entry.get("height")), whole_number(entry.get("width"))
            for category in whole_numbers(entry.get(NOT_EXHAUSTIVE)):
                self.added += 1
                region = {"image_id": entry.get("id"), "category_id": category, "iscrowd": 1}
                region |= {"ignore": 1, "bbox": [0, 0, width or 0, height or 0]}
                yield lowest - 10**9 - self.added, region

    def _divide(self, images: list[Any], only: Collection[str]) -> list[Any]:
        """Return the entries of the split; what cannot be told apart stays, to be a fault."""
        kept = []
        for entry in images:
            name = entry.get("file_name") if isinstance(entry, dict) else None
            if not isinstance(name, str) or name in only:
                kept.append(entry)
            else:
                self.elsewhere.add(whole_number(entry.get("id")))
        return kept

    def _survey(self, crowd_as_objects: bool) -> _Survey:
        survey = _Survey(crowd_as_objects=crowd_as_objects)
        found: dict[str, bool] = {}  # all keys, and whether their values are lists
        seen: set[int] = set()
        self.numbers: dict[str, int] = {}
        try:
            for key, value in json_members(self.path, LISTS):
                if value is START:
                    if key in found:
                        raise ValueError(f"{self.path} has the list {key!r} twice: join them")
                    found[key] = True
                elif not found.setdefault(key, False):
                    told = key == "info" and isinstance(value, dict) and {*value} <= {TITLE}
                    if value not in EMPTY and not told:
                        survey.others.append(key)
                elif key == "annotations":
                    survey.add(value, seen)
                else:
                    getattr(survey, key).append(value)
        except NoObject as kind:
            got = str(kind)
        else:
            got = str(sorted(found)[:8])
        if not all(found.get(key) for key in LISTS):
            raise ValueError(
                f"{self.path} is no COCO JSON: expected an object with the lists images, "
                f"annotations and categories, got {got}"
            )
        return survey

    def _skeleton(
        self, survey: _Survey, labels: dict[int, int]
    ) -> tuple[Skeleton | None, set[int]]:
        """Return the keypoints of the data set, and the ids of the categories that have them."""
        skeleton, jointed, faults = read_skeleton(survey.categories, labels)
        for fault in faults:
            self.fault(*fault)
        if skeleton is None and survey.jointed:
            self.fault(
                "keypoints without names",
                f"{survey.jointed} annotations have keypoints, but no category names them: add "
                'the list "keypoints" with their names (and "skeleton", the lines between them)',
                annotation=survey.first_jointed,
            )
        return skeleton, jointed

    def _annotations(self, survey: _Survey) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (id, annotation) of every well-formed annotation, each id once."""
        seen: dict[int, Any] = {}  # of those whose ids repeat
        nameless = survey.lowest
        for key, entry in json_members(self.path, LISTS):
            if key != "annotations" or entry is START:
                continue
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
            if number in survey.repeated:
                seen[number] = entry
            if self.numbers and isinstance(entry.get("image_id"), str):
                entry["image_id"] = self.numbers.get(entry["image_id"], entry["image_id"])
            yield number, entry
