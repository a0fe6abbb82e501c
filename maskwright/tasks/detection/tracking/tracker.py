"""Objects get an id that they keep from frame to frame, by one of the trackers of `trackers`.

Tracking by detection (SORT, Bewley et al. 2016): where a track should be by its motion is compared
with the boxes that were found. ByteTrack (Zhang et al. 2022) lets weak boxes carry on a track that
a strong one began; OC-SORT (Cao et al. 2023) mends a track when its object comes back; BoT-SORT
(Aharon et al. 2022) takes out the motion of the camera first. All compare boxes whatever their
class: a detector that calls one car a truck now and then still sees one object.
"""

from __future__ import annotations

import csv
import io
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from ....models.detection.base import Detector
from ..result import Result
from ..settings import DetectionSettings
from .crossings import Line

if TYPE_CHECKING:
    from PIL import Image

# What carries on a track may be so much weaker than what is shown by itself: with conf=0.25 that is
# 0.1, ByteTrack's own threshold.
WEAKER = 0.4
STRONG = 0.5  # what the smallest score of a class becomes before a tracker sees it
TRACKS, MOT, CROSSINGS = ".tracks.csv", ".mot.txt", ".crossings.csv"
INK = (255, 255, 255)


class ObjectTracker:
    """Follows the objects of one video; see `Tracker`.

    Attributes:
        files: first line of each of its files, by ending.
        columns: what `numbers` counts of each class.
        line: counts who crosses it; None: there is none.
    """

    METHODS: ClassVar[Sequence[str]] = ("bytetrack", "ocsort", "sort", "botsort")

    def __init__(
        self,
        method: str,
        rate: float,
        settings: DetectionSettings,
        *,
        line: tuple[float, ...] | None = None,
    ) -> None:
        """Begin.

        Args:
            method: one of `METHODS`.
            rate: frames a second that are looked at.
            settings: thresholds from which an object is shown, and may begin a track.
            line: x1, y1, x2, y2 in pixels: who crosses it is counted.

        Raises:
            ImportError: if the library is not installed.
        """
        self._tracker = _make(method, rate)
        self._sees_frames = method == "botsort"
        self._least = settings.post.score_thresh, settings.floors
        self.line = None if line is None else Line(line)
        self.files: Mapping[str, str] = {
            TRACKS: "frame,time,id,name,score,x1,y1,x2,y2\n",
            MOT: "",
            **({} if line is None else {CROSSINGS: "frame,time,id,name,direction\n"}),
        }
        self.columns: Sequence[str] = (
            "tracks",
            *(() if self.line is None else self.line.directions),
        )
        self._names: Sequence[str] = ()
        self._votes: dict[int, Counter[int]] = {}
        self._crossed: list[tuple[int, str]] = []
        self._events: list[tuple[int, str]] = []

    @classmethod
    def weaker(cls, settings: DetectionSettings, model: Detector) -> DetectionSettings:
        """Return settings that find what may carry on a track, too, as far as a model can."""
        floors = settings.floors
        if floors is not None:
            floors = tuple(one * WEAKER for one in floors)
        post = replace(settings.post, score_thresh=settings.post.score_thresh * WEAKER)
        # An exported graph has a smallest score of its own.
        return replace(settings, post=model.limits(post, post), floors=floors)

    def follow(self, result: Result) -> Result:
        """Return the objects of the next frame with `ids`; weak ones only where a track goes on."""
        import supervision

        self._names = result.names
        scores = result.scores.double().numpy()
        least, floors = self._least
        floor = np.full(len(scores), least)
        if floors is not None:
            floor = np.asarray(floors)[result.labels.numpy()]
        found = supervision.Detections(
            xyxy=result.boxes.double().numpy().reshape(-1, 4),
            confidence=_relative(scores, floor),
            class_id=result.labels.numpy(),
            data={"place": np.arange(len(scores))},
        )
        frame = result.image[..., ::-1] if self._sees_frames else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of times that repeat: ours grow
            followed = self._tracker.update(found, frame=frame, timestamp=result.time)
        ids = np.zeros(len(scores), np.int64)
        if len(followed):
            known = followed.tracker_id >= 0
            ids[followed.data["place"][known]] = followed.tracker_id[known] + 1
        shown = torch.from_numpy((ids > 0) | (scores > floor))
        with_ids = replace(result.detections, ids=torch.from_numpy(ids))
        kept = replace(result, detections=with_ids.keep(shown))
        self._count(kept)
        return kept

    def lines(self, result: Result) -> dict[str, str]:
        """Return rows of CSV and of the MOT challenge's form for the objects that have an id.

        MOT: frame and id from 1 on, left, top, width, height, score, and -1 for the place in space.
        """
        rows, mot, crossed = io.StringIO(), io.StringIO(), io.StringIO()
        writer = csv.writer(rows, lineterminator="\n")
        time = "" if result.time is None else f"{result.time:.6g}"
        assert result.detections.ids is not None and result.frame is not None
        for id, label, score, box in zip(
            result.detections.ids.tolist(),
            result.labels.tolist(),
            result.scores.tolist(),
            result.boxes.tolist(),
            strict=True,
        ):
            if not id:
                continue
            x1, y1, x2, y2 = (round(value, 2) for value in box)
            name = result.names[label]
            writer.writerow([result.frame, time, id, name, round(score, 5), x1, y1, x2, y2])
            size = f"{x2 - x1:.2f},{y2 - y1:.2f}"
            mot.write(f"{result.frame + 1},{id},{x1},{y1},{size},{score:.5f},-1,-1,-1\n")
        writer = csv.writer(crossed, lineterminator="\n")
        for id, direction in self._events:
            writer.writerow([result.frame, time, id, self._name(id), direction])
        texts = {TRACKS: rows.getvalue(), MOT: mot.getvalue()}
        return texts if self.line is None else {**texts, CROSSINGS: crossed.getvalue()}

    def draw(self, picture: Image.Image) -> Image.Image:
        """Return a picture with the line and how many have crossed it so far."""
        if self.line is None:
            return picture
        from PIL import ImageDraw

        from ....drawing.fonts import Letters

        pen = ImageDraw.Draw(picture)
        width = max(round(max(picture.size) / 400), 2)
        pen.line(self.line.ends, fill=INK, width=width)
        text = ", ".join(f"{way} {self.line.counts[way]}" for way in self.line.directions)
        letters = Letters(float(np.clip(max(picture.size) / 45, 11, 40)))
        x1, y1, x2, y2 = self.line.ends
        left = min(
            max((x1 + x2 - letters.length(text)) / 2, 0), picture.width - letters.length(text)
        )
        top = min(max((y1 + y2) / 2 + width, 0), picture.height - letters.height)
        frame = (left - width, top, left + letters.length(text) + width, top + letters.height)
        pen.rectangle(frame, fill=(0, 0, 0))
        letters.draw(pen, round(left), round(top), text, INK)
        return picture

    def numbers(self) -> dict[str, dict[str, int]]:
        """Return for each class its `tracks`, and how many of them crossed the line each way.

        A track is of the class that it was called most often.
        """
        found: dict[str, dict[str, int]] = {}
        for key, ids in (("tracks", list(self._votes)), *self._ways()):
            for id in ids:
                row = found.setdefault(self._name(id), dict.fromkeys(self.columns, 0))
                row[key] += 1
        return found

    def _ways(self) -> list[tuple[str, list[int]]]:
        ways = () if self.line is None else self.line.directions
        return [(way, [id for id, one in self._crossed if one == way]) for way in ways]

    def _count(self, result: Result) -> None:
        """Count the classes of the tracks, and who crosses the line."""
        assert result.detections.ids is not None
        self._events = []
        for id, label, box in zip(
            result.detections.ids.tolist(),
            result.labels.tolist(),
            result.boxes.tolist(),
            strict=True,
        ):
            if not id:
                continue
            self._votes.setdefault(id, Counter())[label] += 1
            crossing = None if self.line is None else self.line.see(id, tuple(box))
            if crossing is not None:
                self._events.append((id, crossing.direction))
        self._crossed += self._events

    def _name(self, id: int) -> str:
        return self._names[self._votes[id].most_common(1)[0][0]]


def _relative(scores: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Return scores such that the smallest that is shown is `STRONG`, whatever the class.

    Trackers have one threshold for all: from 0 to it lies what only carries on, from it to 1 what
    may begin a track.
    """
    below = STRONG * scores / np.maximum(floor, 1e-6)
    above = STRONG + (1 - STRONG) * (scores - floor) / np.maximum(1 - floor, 1e-6)
    made: np.ndarray = np.where(scores > floor, above, np.minimum(below, STRONG - 1e-6))
    return made


def _make(method: str, rate: float) -> Any:
    try:
        import trackers
    except ImportError:
        raise ImportError("track needs trackers: pip install 'maskwright[track]'") from None
    # It warns of each frame without enough to see how the camera moved, such as a flat one.
    logging.getLogger("trackers.cmc").setLevel(logging.ERROR)
    kinds: dict[str, Callable[..., Any]] = {
        "bytetrack": trackers.ByteTrackTracker,
        "ocsort": trackers.OCSORTTracker,
        "sort": trackers.SORTTracker,
        "botsort": trackers.BoTSORTTracker,
    }
    options = {"frame_rate": rate, "track_activation_threshold": STRONG}
    if method != "sort":
        options["high_conf_det_threshold"] = STRONG
    if method == "ocsort":  # all above the other threshold begin
        del options["track_activation_threshold"]
    return kinds[method](**options)
